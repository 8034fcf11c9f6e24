// Experiments: users and conversions of each cohort, by the event attributes `experimentid`
// and `cohortid`.
import { integer, optional, parameters, percentiles, projection, table, text, timestamp } from "lantern-sdk";

const settings = parameters({
  /** The type of the event that counts as a conversion. */
  goal: "order.placed",
  /** Types of the events that count as seeing the experiment. */
  exposures: ["page.viewed", "cart.added", "order.placed"] as string[],
});

const cohorts = table(
  "cohorts",
  {
    experiment: text,
    cohort: text,
    users: integer("sum"),
    converted: integer("sum", "users"),
    goals: integer("sum", "events"),
    cents: integer("sum", "cent"),
    to_goal: percentiles("sketch", "ms"),
    switched: integer("sum", "events"),
  },
  { key: ["experiment", "cohort"], description: "Users, conversions and revenue of each cohort." },
);
const assignments = table(
  "assignments",
  { experiment: text, user: text, cohort: text, since: timestamp, converted: optional(timestamp) },
  { key: ["experiment", "user"], private: true },
);

export default projection({
  name: "experiments",
  version: "0.1.0",
  description: "Users, conversions and revenue by experiment and cohort",
  subscribes: () => [...new Set([...settings.exposures, settings.goal])],
  attributes: ["extensions"],
  onFailure: "park-subject",
  members: { user: optional(text), cents: optional(integer) },

  setup() {
    if (settings.exposures.some((type) => typeof type !== "string" || type === "")) throw new Error("`exposures` must be event types");
    if (settings.goal === "") throw new Error("`goal` must be an event type");
  },

  apply(event) {
    const { experimentid: experiment, cohortid: cohort } = event.extensions;
    const { user, cents } = event.members;
    if (typeof experiment !== "string" || typeof cohort !== "string" || experiment === "" || cohort === "" || !user) return;

    let own = assignments.update(experiment, user);
    if (own === null) {
      if (!settings.exposures.includes(event.type)) return;
      own = assignments.put(experiment, user, { cohort, since: event.time, converted: null });
      cohorts.row(experiment, cohort).users += 1;
    }
    // A user stays in the cohort of the first event.
    const row = cohorts.row(experiment, own.cohort);
    if (own.cohort !== cohort) row.switched += 1;
    if (event.type !== settings.goal) return;
    row.goals += 1;
    row.cents += cents ?? 0;
    if (own.converted === null) {
      own.converted = event.time;
      row.converted += 1;
      row.to_goal.add(Math.max(0, Math.floor((event.time - own.since) / 1_000)));
    }
  },
});
