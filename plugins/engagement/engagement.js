// How engaged each user is: a score that grows with every event and halves with time.
import { integer, number, parameters, projection, table, text, timestamp } from "lantern-sdk";

const settings = parameters({
  weights: { "page.viewed": 1, "cart.added": 3, "order.placed": 10 },
  half_life_days: 7,
  medium: 5,
  high: 20,
});

const users = table(
  "users",
  { user: text, score: number, events: integer("sum"), last: timestamp("newest"), level: text("newest") },
  { key: "user", newestBy: "last", description: "Score of each user at the time of the last event." },
);
const levels = table("levels", { level: text, users: integer("sum") }, { key: "level", description: "Number of users by level." });

const levelOf = (score) => (score >= settings.high ? "high" : score >= settings.medium ? "medium" : "low");

export default projection({
  name: "engagement",
  version: "0.1.0",
  description: "A score for each user that grows with events and halves with time",
  subscribes: () => Object.keys(settings.weights),
  attributes: ["subject"],
  onFailure: "park-event",
  members: {},

  setup() {
    const { weights, half_life_days, medium, high } = settings;
    for (const [type, weight] of Object.entries(weights)) {
      if (!Number.isFinite(weight)) throw new Error(`the weight of \`${type}\` is not a number`);
    }
    if (!(half_life_days > 0)) throw new Error("`half_life_days` must be greater than 0");
    if (!(medium < high)) throw new Error("`medium` must be less than `high`");
  },

  apply(event) {
    const user = event.subject;
    if (user === "") return;
    const halvings = (from, to) => 2 ** (-(to - from) / (settings.half_life_days * 86_400e6));
    const weight = settings.weights[event.type];
    const known = users.has(user);
    const row = users.row(user);
    const before = known ? row.level : null;
    if (!known) {
      row.score = weight;
      row.last = event.time;
    } else if (event.time >= row.last) {
      row.score = row.score * halvings(row.last, event.time) + weight;
      row.last = event.time;
    } else {
      // A late event counts what is left of it by now.
      row.score += weight * halvings(event.time, row.last);
    }
    row.events += 1;
    row.level = levelOf(row.score);
    if (row.level !== before) {
      levels.row(row.level).users += 1;
      if (before !== null) levels.row(before).users -= 1;
    }
  },
});
