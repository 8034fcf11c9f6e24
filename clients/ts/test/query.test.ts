// Tests filters, columns and roll-ups: equal queries, resuming, errors, and the types of
// rows.
import { afterEach, describe, expect, expectTypeOf, test } from "vitest";
import WebSocket from "ws";
import { type Client, connect } from "../src/index.js";
import { until } from "./patience.js";
import { Scripted, type Session } from "./scripted.js";

interface Order {
  country?: "DE" | "FR" | null;
  note?: string | null;
  cents: number;
  total: number | bigint;
  paid?: boolean | null;
  any?: unknown;
  users?: { estimate: number; sketch: string } | null;
}
interface Visit {
  at: string;
  until?: string | null;
  country?: string | null;
  ms: number;
  bytes?: number | bigint | null;
  paid: boolean;
  users?: { estimate: number; sketch: string } | null;
  times?: { count: number; p50: number | null; sketch: string } | null;
  any?: unknown;
}
interface Tables {
  "shop/orders": Order;
  "shop/visits": Visit;
  "shop/days": { day: string };
}

const clean: (() => unknown)[] = [];
afterEach(() => {
  for (const step of clean.splice(0).reverse()) step();
});

const offline = (): Client<Tables> => connect<Tables>("ws://127.0.0.1:1/v1/feed");

async function start(): Promise<{ server: Scripted; client: Client<Tables> }> {
  const server = await Scripted.start();
  const client = connect<Tables>(server.url, { WebSocket, backoffMinMs: 5, backoffMaxMs: 20, idleMs: 0 });
  clean.push(() => server.stop());
  clean.push(() => client.close());
  return { server, client };
}

/** Accepts a subscription and sends a snapshot. */
async function serve(session: Session, ch: number, rows: object = {}): Promise<{ [member: string]: unknown }> {
  const sub = await session.receive();
  await session.send({ t: "ok", id: sub.id, ch, fields: [], resumed: false });
  await session.send({ t: "snap", ch, epoch: "e", commit: 1, rows, more: false, offsets: { 0: 1 }, tok: "t1" });
  return sub;
}

test("equal queries are one object and one subscription, others are not", async () => {
  const { server, client } = await start();
  const table = client.table("shop/orders", { where: [["country", "=", "DE"], ["cents", ">=", 100]], cols: ["cents"] });
  const same = [
    client.table("shop/orders", { cols: ["cents"], where: [["cents", ">=", 100], ["country", "=", "DE"]] }),
    client.table("shop/orders", { where: [["cents", ">=", 100n], ["country", "=", "DE"], ["cents", ">=", 100.0]], cols: ["cents"] }),
    client.table("shop/orders", { where: [["cents", ">=", 100], ["country", "=", "DE"]], cols: ["cents"], mode: "state", rate_ms: 0 }),
  ];
  for (const other of same) expect(other).toBe(table);
  const different: unknown[] = [
    client.table("shop/orders"),
    client.table("shop/orders", { cols: ["cents"] }),
    client.table("shop/orders", { where: [["cents", ">=", 100]] }),
    client.table("shop/orders", { where: [["cents", ">", 100]] }),
    client.table("shop/orders", { where: [["note", ">=", "100"]] }),
    client.table("shop/orders", { where: [["country", "in", ["DE", "FR"]]] }),
    client.table("shop/orders", { where: [["country", "in", ["FR", "DE"]]] }),
    client.table("shop/orders", { cols: ["cents", "country"] }),
    client.table("shop/orders", { cols: ["country", "cents"] }),
    client.table("shop/orders", { cols: [] }),
    client.table("shop/orders", { rate_ms: 5 }),
    table,
  ];
  expect(new Set(different).size).toBe(different.length);
  expect(client.table("shop/orders", { where: [] })).toBe(client.table("shop/orders", { cols: undefined, where: undefined }));
  for (const reader of [table, ...same]) reader.onChange(() => {});
  const session = await server.welcomed();
  expect(await serve(session, 1)).toEqual({
    t: "sub",
    id: 1,
    table: "shop/orders",
    where: [["country", "=", "DE"], ["cents", ">=", 100]],
    cols: ["cents"],
  });
  client.table("shop/days").onChange(() => {});
  // This is the next message, so no second subscription was sent before it.
  expect(await session.receive()).toEqual({ t: "sub", id: 2, table: "shop/days" });
});

test("the query is sent as it was, whatever the caller does to its arrays", async () => {
  const { server, client } = await start();
  const wanted: ["country", "in", ("DE" | "FR")[]] = ["country", "in", ["DE"]];
  const table = client.table("shop/orders", { where: [wanted] });
  wanted[2].push("FR");
  table.onChange(() => {});
  expect(await serve(await server.welcomed(), 1)).toMatchObject({ where: [["country", "in", ["DE"]]] });
  expect(client.table("shop/orders", { where: [wanted] })).not.toBe(table);
});

test("an integer beyond 2^53 is sent with every digit", async () => {
  const { server, client } = await start();
  client.table("shop/orders", { where: [["total", "in", [9007199254740993n, -1n, 2]]] }).onChange(() => {});
  const session = await server.welcomed();
  const texts: string[] = [];
  session.socket.on("message", (data) => texts.push(String(data)));
  await until(() => texts.length > 0);
  expect(texts[0]).toContain('"where":[["total","in",[9007199254740993,-1,2]]]');
});

describe("resuming", () => {
  const query = { where: [["country", "=", "DE"], ["cents", ">", 1]], cols: ["cents"] } as const;

  test("a saved state continues only under a query that selects the same", async () => {
    const { server, client } = await start();
    const table = client.table("shop/orders", query);
    table.onChange(() => {});
    await serve(await server.welcomed(), 1, { x: { cents: 7 } });
    await until(() => table.status === "live");
    const resume = JSON.parse(JSON.stringify({ ...table.saved()!, rows: [...table] }));
    resume.rows = new Map(resume.rows);
    const later = offline();
    const same = later.table("shop/orders", { where: [query.where[1], query.where[0]], cols: ["cents"], rate_ms: 9, resume });
    expect([...same]).toEqual([["x", { cents: 7 }]]);
    for (const other of [{}, { where: query.where }, { cols: query.cols }]) {
      const table = later.table("shop/orders", { ...other, resume } as never);
      expect([table.commit, table.size]).toEqual([null, 0]);
    }
    // A state that was saved by an earlier release of the client, which had no queries.
    delete resume.selection;
    expect(later.table("shop/days", { resume }).commit).toBe(1);
    expect(later.table("shop/days", { where: [["day", ">", "2026"]], resume }).commit).toBe(null);
  });

  test("after a gap the query is sent again, without the token", async () => {
    const { server, client } = await start();
    client.table("shop/orders", query).onChange(() => {});
    const session = await server.welcomed();
    await serve(session, 1);
    await session.send({ t: "tick", ch: 1, from: 5, to: 6, tok: "t6" });
    expect(await session.receive()).toEqual({ t: "unsub", id: 1 });
    expect(await session.receive()).toEqual({ t: "sub", id: 2, table: "shop/orders", ...query });
  });
});

describe("errors", () => {
  test("a refused query is closed, with the member and the sentence of the server", async () => {
    const { server, client } = await start();
    const table = client.table("shop/orders", { where: [["cents", "<", 5]] });
    const waiting = table.ready().catch((error) => error);
    const session = await server.welcomed();
    const { id } = await session.receive();
    const msg = "`where`: the table has no field `cents`; it has `country`";
    await session.send({ t: "err", id, code: "LAN-0426", msg, retry: false, parameter: "where" });
    expect(await waiting).toMatchObject({ name: "LanternError", code: "LAN-0426", message: msg, retry: false, parameter: "where", setting: null });
    expect(table.status).toBe("closed");
  });

  test("a limit names its setting, and is tried again if that can help", async () => {
    const { server, client } = await start();
    const table = client.table("shop/orders", { where: [["cents", "<", 5]] });
    table.onChange(() => {});
    const session = await server.welcomed();
    const { id } = await session.receive();
    await session.send({ t: "err", id, code: "LAN-0427", msg: "too many", retry: true, setting: "live.roll_ups_max" });
    await serve(session, 1);
    await until(() => table.status === "live");
    expect(table.error).toBe(null);
  });

  test("a subscription that ends because a new version lacks a field keeps its rows and names the field", async () => {
    const { server, client } = await start();
    const table = client.table("shop/orders", { where: [["cents", "<", 5]] });
    table.onChange(() => {});
    const session = await server.welcomed();
    const { id } = await serve(session, 1, { x: { cents: 1 } });
    await until(() => table.status === "live");
    await session.send({ t: "end", id, code: "LAN-0426", why: "`where`: the table has no field `cents`; it has `amount`" });
    await until(() => table.status === "closed");
    expect(table.error).toMatchObject({ code: "LAN-0426", retry: false });
    expect(table.error!.message).toContain("`cents`");
    expect([...table]).toEqual([["x", { cents: 1 }]]);
  });
});

test("columns narrow the type of rows", () => {
  const client = offline();
  expectTypeOf(client.table("shop/orders").get("x")).toEqualTypeOf<Readonly<Order> | undefined>();
  const two = client.table("shop/orders", { cols: ["cents", "note"], where: [["paid", "=", true]] });
  expectTypeOf(two.get("x")).toEqualTypeOf<Readonly<{ cents: number; note?: string | null }> | undefined>();
  expectTypeOf(client.table("shop/orders", { cols: [] }).get("x")).toEqualTypeOf<Readonly<{}> | undefined>();
  expectTypeOf(connect("ws://x/").table("any/table", { cols: ["a"], where: [["b", "prefix", "c"]] }).get("x")).toEqualTypeOf<{ readonly a: unknown } | undefined>();
  // @ts-expect-error the column was not chosen
  two.get("x")?.total;
  // @ts-expect-error there is no such field
  client.table("shop/orders", { cols: ["cent"] });
  // @ts-expect-error there is no such option
  client.table("shop/orders", { columns: ["cents"] });
});

test("conditions have the types of their fields", () => {
  const client = offline();
  client.table("shop/orders", {
    where: [
      ["country", "=", "DE"],
      ["country", "!=", null],
      ["country", "in", ["DE", "FR"]],
      ["country", "prefix", "D"],
      ["note", "<", "m"],
      ["cents", ">=", 100n],
      ["total", "in", [1, 2n]],
      ["paid", "!=", false],
      ["any", "=", null],
      ["users", "!=", null],
    ],
  });
  // @ts-expect-error there is no such field
  client.table("shop/orders", { where: [["cent", "=", 1]] });
  // @ts-expect-error a number is not compared with a text
  client.table("shop/orders", { where: [["cents", "=", "1"]] });
  // @ts-expect-error the field has no such value
  client.table("shop/orders", { where: [["country", "=", "XX"]] });
  // @ts-expect-error `in` takes an array
  client.table("shop/orders", { where: [["country", "in", "DE"]] });
  // @ts-expect-error `in` finds no `null`
  client.table("shop/orders", { where: [["note", "in", ["DE", null]]] });
  // @ts-expect-error only `in` takes an array
  client.table("shop/orders", { where: [["note", "=", ["DE"]]] });
  // @ts-expect-error `prefix` is for texts
  client.table("shop/orders", { where: [["cents", "prefix", "1"]] });
  // @ts-expect-error no order with `null`
  client.table("shop/orders", { where: [["cents", "<", null]] });
  // @ts-expect-error booleans have no order
  client.table("shop/orders", { where: [["paid", "<", true]] });
  // @ts-expect-error sketches are not compared
  client.table("shop/orders", { where: [["users", "=", 3]] });
  // @ts-expect-error no JSON is compared
  client.table("shop/orders", { where: [["any", "=", 3]] });
  // @ts-expect-error there is no such operator
  client.table("shop/orders", { where: [["cents", "==", 3]] });
});

describe("roll-ups", () => {
  test("are sent as one member, and equal ones share a subscription", async () => {
    const { server, client } = await start();
    const agg = { n: ["count"], slow: ["p95", "ms"] } as const;
    const groups = client.rollup("shop/visits", {
      where: [["ms", ">", 0], ["paid", "=", true]],
      time: "at",
      bucket: "1h",
      by: ["country"],
      agg,
      fill: "zero",
      tz: "Europe/Berlin",
      rate_ms: 100,
    });
    const other = { by: ["country"], tz: "Europe/Berlin", fill: "zero", agg, bucket: "1h", time: "at", rate_ms: 100 } as const;
    expect(client.rollup("shop/visits", { ...other, where: [["paid", "=", true], ["ms", ">", 0]] })).toBe(groups);
    const different: unknown[] = [
      groups,
      client.rollup("shop/visits", other),
      client.rollup("shop/visits", { ...other, agg: { slow: ["p95", "ms"], n: ["count"] } }),
      client.rollup("shop/visits", { ...other, rate_ms: 0 }),
      client.rollup("shop/visits", { ...other, start: "2026-01-01" }),
      client.rollup("shop/visits", { ...other, end: "2026-01-01" }),
      client.rollup("shop/visits", { by: ["country"] }),
      client.rollup("shop/visits", {}),
      client.table("shop/visits"),
    ];
    expect(new Set(different).size).toBe(different.length);
    expect(client.rollup("shop/visits", { by: [], agg: {} })).toBe(client.rollup("shop/visits", {}));
    groups.onChange(() => {});
    const key = JSON.stringify(["2026-03-01T12:00:00+01:00", null]);
    const row = { at: "2026-03-01T12:00:00+01:00", country: null, n: 2, slow: 9 };
    const sub = await serve(await server.welcomed(), 1, { [key]: row });
    const { rate_ms, ...rollup } = other;
    expect(sub).toEqual({ t: "sub", id: 1, table: "shop/visits", where: [["ms", ">", 0], ["paid", "=", true]], rollup, rate_ms });
    await until(() => groups.status === "live");
    expect(groups.get(key)).toEqual(row);
    const resume = groups.saved()!;
    const later = offline();
    expect(later.rollup("shop/visits", { by: ["country"], agg: { n: ["count"] }, resume: resume as never }).commit).toBe(null);
    expect(later.rollup("shop/visits", { ...other, where: [["paid", "=", true], ["ms", ">", 0]], resume }).get(key)).toEqual(row);
  });

  test("are read together with roll-ups, and not with tables", () => {
    const client = offline();
    const days = client.rollup("shop/visits", { time: "at", bucket: "1d" });
    const both = client.together(days, client.rollup("shop/orders", { by: ["country"] }));
    expect(both.tables.length).toBe(2);
    expect(() => client.together(days, client.table("shop/visits"))).toThrow(/other roll-ups/);
  });

  test("the types of groups follow from `by` and `agg`", () => {
    const client = offline();
    const groups = client.rollup("shop/visits", {
      time: "at",
      bucket: "1d",
      by: ["country", "paid"],
      agg: {
        n: ["count"],
        known: ["count", "any"],
        ms: ["sum", "ms"],
        bytes: ["sum", "bytes"],
        mean: ["avg", "bytes"],
        from: ["first", "country"],
        least: ["min", "ms"],
        most: ["max", "bytes"],
        paid_last: ["last", "paid"],
        users: ["distinct", "users"],
        p50: ["p50", "times"],
        p99: ["p99", "bytes"],
      },
    });
    type Groups = {
      at: string;
      country: string | null;
      n: number;
      known: number;
      ms: number | null;
      bytes: number | bigint | null;
      mean: number | null;
      from: string | null;
      least: number | null;
      most: number | bigint | null;
      paid_last: boolean | null;
      users: number;
      p50: number | null;
      p99: number | bigint | null;
    };
    expectTypeOf(groups.get("x")).toEqualTypeOf<Readonly<Groups & { paid: boolean }> | undefined>();
    expectTypeOf(client.rollup("shop/visits", { agg: { n: ["count"] } }).get("[]")).toEqualTypeOf<{ readonly n: number } | undefined>();
    const filled = { time: "at", bucket: "1d", agg: { n: ["count"] } } as const;
    type Row<N> = { readonly at: string; readonly n: N } | undefined;
    expectTypeOf(client.rollup("shop/visits", { ...filled, fill: "zero" }).get("x")).toEqualTypeOf<Row<number>>();
    expectTypeOf(client.rollup("shop/visits", { ...filled, fill: "null" }).get("x")).toEqualTypeOf<Row<number | null>>();
    expectTypeOf(client.rollup("shop/visits", { ...filled, fill: "previous" }).get("x")).toEqualTypeOf<Row<number | null>>();
    // A range of time alone makes no buckets.
    expectTypeOf(client.rollup("shop/visits", { time: "at", start: "2026-01-01", by: ["paid"] }).get("x")).toEqualTypeOf<{ readonly paid: boolean } | undefined>();
    const any = connect("ws://x/").rollup("any/table", { by: ["a"], agg: { n: ["count"], s: ["sum", "b"] } });
    expectTypeOf(any.get("x")).toEqualTypeOf<{ readonly a: unknown; readonly n: number; readonly s: number | bigint | null } | undefined>();
    // @ts-expect-error the groups have no such column
    groups.get("x")?.cents;
    // @ts-expect-error there is no such field
    client.rollup("shop/visits", { by: ["cent"] });
    // @ts-expect-error there is no such field
    client.rollup("shop/visits", { time: "day", bucket: "1d" });
    // @ts-expect-error texts have no sum
    client.rollup("shop/visits", { agg: { n: ["sum", "country"] } });
    // @ts-expect-error a sum needs a field
    client.rollup("shop/visits", { agg: { n: ["sum"] } });
    // @ts-expect-error there is no such function
    client.rollup("shop/visits", { agg: { n: ["median", "ms"] } });
    // @ts-expect-error sketches have no order
    client.rollup("shop/visits", { agg: { n: ["min", "users"] } });
    // @ts-expect-error any JSON is not counted
    client.rollup("shop/visits", { agg: { n: ["distinct", "any"] } });
    // @ts-expect-error columns cannot be combined with a roll-up
    client.rollup("shop/visits", { by: ["paid"], cols: ["paid"] });
    // @ts-expect-error a roll-up has no state for each commit
    client.rollup("shop/visits", { by: ["paid"], mode: "changes" });
    // @ts-expect-error there is no such option
    client.rollup("shop/visits", { by: ["paid"], buckets: "1d" });
    // @ts-expect-error there is no such way to fill
    client.rollup("shop/visits", { time: "at", bucket: "1d", fill: "one" });
  });
});
