// Recency, frequency and monetary value of each customer, and segments of customers.
import { days, integer, parameters, projection, table, text, timestamp } from "lantern-sdk";

const settings = parameters({
  recency_days: [7, 30, 90, 180],
  orders: [2, 4, 8, 16],
  cents: [5_000, 20_000, 50_000, 100_000],
  lateness_days: 2,
});

const customers = table(
  "customers",
  {
    user: text, last: timestamp("max"), orders: integer("sum"), cents: integer("sum", "cent"), r: integer, f: integer, m: integer, segment: text,
  },
  { key: "user", description: "Last order, number of orders, revenue and scores of each customer." },
);
const segments = table(
  "segments",
  { segment: text, customers: integer("sum"), cents: integer("sum", "cent") },
  { key: "segment", description: "Customers and revenue by segment." },
);

/** 1 plus the number of limits that the value has reached. */
const scoreOf = (value, limits) => 1 + limits.filter((limit) => value >= limit).length;

function segmentOf(r, f) {
  if (r >= 4) return f >= 4 ? "champions" : f >= 2 ? "loyal" : "new";
  if (r === 3) return f >= 3 ? "loyal" : "promising";
  return f >= 3 ? "at risk" : "lost";
}

/** Scores a customer as of the watermark, and sets the timer for the next change of recency. */
function score(trigger, row, before) {
  const age = trigger.watermark - row.last;
  const passed = settings.recency_days.filter((limit) => age >= days(limit)).length;
  row.r = 5 - passed;
  row.f = scoreOf(row.orders, settings.orders);
  row.m = scoreOf(row.cents, settings.cents);
  row.segment = segmentOf(row.r, row.f);
  if (before !== null) {
    const left = segments.row(before.segment);
    left.customers -= 1;
    left.cents -= before.cents;
  }
  const joined = segments.row(row.segment);
  joined.customers += 1;
  joined.cents += row.cents;
  const next = settings.recency_days[passed];
  if (next !== undefined) trigger.setTimer(row.last + days(next), row.user);
}

export default projection({
  name: "rfm",
  version: "0.1.0",
  description: "Recency, frequency and monetary value of customers, and their segments",
  subscribes: ["order.placed"],
  onFailure: "park-event",
  eventTime: () => ({ lateness: days(settings.lateness_days), tick: "1h" }),
  members: { user: text, cents: integer },

  setup() {
    for (const name of ["recency_days", "orders", "cents"]) {
      const limits = settings[name];
      const ascending = limits.every((limit, i) => Number.isFinite(limit) && limit > (limits[i - 1] ?? 0));
      if (limits.length !== 4 || !ascending) throw new Error(`\`${name}\` must be four positive numbers, smallest first`);
    }
    if (!(settings.lateness_days >= 0)) throw new Error("`lateness_days` must be at least 0");
  },

  apply(event) {
    const { user, cents } = event.members;
    if (user === "") throw new Error("`user` is empty");
    const known = customers.has(user);
    const row = customers.row(user);
    const before = known ? { segment: row.segment, cents: row.cents } : null;
    row.last = known ? Math.max(row.last, event.time) : event.time;
    row.orders += 1;
    row.cents += cents;
    score(event, row, before);
  },

  onTimer(timer) {
    const row = customers.update(timer.key);
    if (row !== null) score(timer, row, { segment: row.segment, cents: row.cents });
  },
});
