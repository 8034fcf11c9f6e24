import { integer, minutes, optional, parameters, projection, table, text, timestamp } from "lantern-sdk";

const settings = parameters({ wait: 60 });

const abandoned = table(
  "abandoned",
  { user: text, carts: integer("sum"), cents: integer("sum", "cent") },
  { key: "user" },
);
const waiting = table(
  "waiting",
  { user: text, at: timestamp, id: text, cents: integer },
  { key: ["user", "at", "id"], private: true },
);

export default projection({
  name: "abandoned-carts",
  version: "0.1.0",
  subscribes: ["cart.added", "order.placed"],
  emits: ["cart.abandoned"],
  onFailure: "park-event",
  members: { user: text, cents: optional(integer) },
  attributes: ["id"],
  eventTime: { lateness: "10m", tick: "1m" },

  apply(event) {
    const { user } = event.members;
    const wait = minutes(settings.wait);
    if (event.type === "cart.added") {
      const cents: number | null = event.members.cents;
      if (cents === null) throw new Error("a cart needs cents");
      waiting.put(user, event.time, event.id, { cents });
      event.setTimer(event.time + wait, JSON.stringify([user, event.time, event.id]));
      return;
    }
    // In a key of several parts, a `/` or `%` of a part is escaped.
    const prefix = user.replaceAll("%", "%25").replaceAll("/", "%2F") + "/";
    for (const { row: cart } of Array.from(waiting.scan({ prefix }))) {
      if (cart.at <= event.time && event.time <= cart.at + wait) waiting.delete(user, cart.at, cart.id);
    }
  },

  onTimer(timer) {
    const [user, at, id] = JSON.parse(timer.key) as [string, number, string];
    const cart = waiting.take(user, at, id);
    if (!cart) return;
    const row = abandoned.row(user);
    row.carts += 1;
    row.cents += cart.cents;
    timer.emit("cart.abandoned", { user, cents: cart.cents }, { subject: user });
  },
});
