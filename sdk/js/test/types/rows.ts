// Compiles only if the types of rows, keys and members follow from the declarations.
import {
  bigint, boolean, type Distinct, distinct, integer, json, number, optional, openSessions, parameters, percentiles, projection, recent,
  table, text, timestamp, topN,
} from "lantern-sdk";
import { event, Harness } from "lantern-sdk/testing";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>) => {};

const plain = table("plain", {
  count: integer("sum"), big: bigint("sum", "cent"), name: text, share: optional(number), at: timestamp, ok: boolean,
  users: distinct, delays: percentiles, note: optional(json),
});
const byMinute = table("by_minute", { minute: timestamp, tenant: text, orders: integer({ merge: "sum", unit: "orders" }) }, { key: ["minute", "tenant"] });
const byProduct = table("by_product", { product: text, orders: integer("sum") }, { key: "product" });
const sessions = openSessions("open", { events: integer, cents: bigint }, (earlier, later) => {
  earlier.events += later.events;
  earlier.cents += later.cents;
});
const latest = recent("latest", { cents: integer });
const ranking = topN("ranking", 3);
same<ReturnType<typeof ranking.add>, boolean>(true);
same<ReturnType<typeof ranking.value>, number | null>(true);
// @ts-expect-error a value is a number
ranking.set("group", ["a", "b"], "9");
const settings = parameters({ gap_s: 60, zone: "Europe/Berlin", strict: true, top: null });
same<typeof settings.gap_s, number>(true);
same<typeof settings.zone, string>(true);

export const shop = projection({
  name: "shop",
  subscribes: ["order.placed"],
  attributes: ["subject"],
  members: { product: text, cents: integer, total: optional(bigint), paid: optional(boolean) },
  eventTime: { lateness: "10s", tick: "1s" },
  apply(event) {
    const row = plain.row("all");
    same<typeof row.count, number>(true);
    same<typeof row.big, bigint>(true);
    same<typeof row.share, number | null>(true);
    same<typeof row.users, Distinct>(true);
    same<typeof event.members.total, bigint | null>(true);
    same<typeof event.members.product, string>(true);
    row.count += event.members.cents;
    // @ts-expect-error: there is no such field
    row.counts = 1;
    // @ts-expect-error: an integer is not text
    row.name = 1;
    // @ts-expect-error: there is no such member
    void event.members.price;
    byMinute.row(event.time, "t1").orders += 1;
    // @ts-expect-error: the key's first field is a time
    byMinute.row("2026", "t1");
    // @ts-expect-error: the key has two fields
    byMinute.row(event.time);
    byProduct.put(event.members.product, { orders: 1 });
    // @ts-expect-error: there is no such field
    byProduct.put(event.members.product, { order: 1 });
    plain.row("a", "b");
    // @ts-expect-error: a number is not a key
    plain.row(5);
    const joined = sessions.add(event, "30s", event.subject, (value) => {
      value.cents += 1n;
    });
    same<NonNullable<typeof joined>["value"]["events"], number>(true);
    latest.add(event, "5m", event.subject, { cents: 5 });
    // @ts-expect-error: what `get` returns is not for changing
    byProduct.get("p1")!.orders = 5;
  },
  onTimer(timer) {
    for (const closed of sessions.close(timer)) plain.row(closed.key).big += closed.value.cents;
  },
});

const host = new Harness(shop, { batchSize: 7 });
host.feed([event("order.placed", { product: "p1", cents: 1 }, { time: "2026-03-01T12:00:00Z" })]);
const orders: unknown = host.row("by_product", "p1");
void orders;
