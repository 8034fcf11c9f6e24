import { distinct, integer, openSessions, projection, table, text, timestamp } from "lantern-sdk";

const sessions = table(
  "sessions",
  { start: timestamp, user: text, last: timestamp, views: integer("sum"), products: distinct },
  { key: ["start", "user"] },
);
const late = table("late", { user: text, views: integer("sum") }, { key: "user" });

const open = openSessions(
  "open",
  { last: timestamp, views: integer, products: distinct },
  (value, other) => {
    value.last = Math.max(value.last, other.last);
    value.views += other.views;
    value.products.merge(other.products);
  },
);

export default projection({
  name: "sessions",
  version: "0.1.0",
  subscribes: ["page.viewed"],
  onFailure: "park-event",
  members: { user: text, product: text },
  eventTime: { lateness: "1h", tick: "1m" },

  apply(event) {
    const { user, product } = event.members;
    const session = open.add(event, "30m", user, (value) => {
      value.last = Math.max(value.last ?? event.time, event.time);
      value.views += 1;
      value.products.add(product);
    });
    if (session === null) late.row(user).views += 1;
  },

  onTimer(timer) {
    for (const { start, key, value } of open.close(timer)) {
      sessions.put(start, key, { last: value.last, views: value.views, products: value.products });
    }
  },
});
