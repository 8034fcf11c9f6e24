// Tests the client with a real server: restarts, kills, version changes, slow readers, and a
// randomised experiment in which every state that a client shows must have been committed.
//
// The variable LANTERN_STATES sets the number of states that the experiment checks, and
// LANTERN_SEED sets its seed.
import { execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { transform } from "esbuild";
import { afterEach, describe, expect, test } from "vitest";
import WebSocket from "ws";
import { type Client, connect, type Diagnostic, type Options } from "../src/index.js";
import type { Table } from "../src/table.js";
import { event, Judge, type Tables } from "./judge.js";
import { show, sleep, until } from "./patience.js";
import { Proxy, random } from "./proxy.js";
import { changed, INTERPRETERS, lantern, missing, plugin, Server } from "./server.js";

const QUICK: Options = { WebSocket, backoffMinMs: 5, backoffMaxMs: 100, shutdownSpreadMs: 20 };
const SETTINGS = ["live.heartbeat_ms=500", "live.tick_ms=20", "engine.sync_ms=20"];

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

async function serve(...settings: string[]): Promise<Server> {
  const server = await Server.start(...SETTINGS, ...settings);
  clean.push(() => server.stop());
  await server.push(plugin("revenue"));
  return server;
}

function connected(url: string, options: Options = {}): Client<Tables> {
  const client = connect<Tables>(url, { ...QUICK, ...options });
  clean.push(() => client.close());
  return client;
}

const events = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => event(from + i));

/** Judges every state that a table shows. */
function judged(judge: Judge, table: Table<any>, errors: unknown[]): void {
  table.onChange(() => {
    const { name, epoch, commit, offsets } = table;
    if (epoch === null || commit === null) return;
    try {
      judge.check(table, { table: name, epoch, commit, offset: offsets[0]!, rows: table });
    } catch (error) {
      errors.push(error);
    }
  });
}

describe.skipIf(missing)("with a real server", () => {
  test("a table follows the log, and a reader sees what it has written", async () => {
    const server = await serve();
    const table = connected(server.feed).table("revenue/by_product");
    await table.ready();
    expect(table.status).toBe("live");
    expect(table.fields.map(({ name, kind }) => `${name} ${kind}`)).toContain("cents integer");
    const end = await server.append(events(0, 50));
    const state = await table.waitFor({ partition: 0, offset: end - 1 });
    expect(show([...state.rows].sort())).toBe(show([...(await server.rows("revenue/by_product"))].sort()));
    expect(state.offsets[0]).toBe(50);
  });

  test("rows survive a clean restart, a kill and another version", async () => {
    const server = await serve();
    const judge = new Judge();
    const errors: unknown[] = [];
    const happened: Diagnostic[] = [];
    const table = connected(server.feed, { onDiagnostic: (it) => happened.push(it) }).table("revenue/by_product");
    judged(judge, table, errors);
    let sent = 0;
    const more = async (): Promise<void> => {
      await server.append(events(sent, sent + 30));
      sent += 30;
      await until(() => table.offsets[0] === sent && table.status === "live");
    };
    await more();
    const { epoch } = table;
    await server.restart("SIGTERM");
    await more();
    expect(table.epoch).toBe(epoch);
    expect(happened.some(({ what, code }) => what === "lost" && code === 4501)).toBe(true);
    await server.restart("SIGKILL");
    await more();
    expect(table.epoch).toBe(epoch);
    expect(happened.filter(({ what }) => what === "resume").length).toBeGreaterThanOrEqual(2);
    expect(happened.some(({ what }) => what === "reset" || what === "gap")).toBe(false);
    await server.push(changed("revenue", 1));
    await until(() => table.epoch !== epoch && table.status === "live");
    await more();
    expect(happened.some(({ what, message }) => what === "reset" && message === "epoch")).toBe(true);
    expect(errors).toEqual([]);
  });

  test("tables of a projection change together, at one commit", async () => {
    const server = await serve();
    const client = connected(server.feed);
    const both = client.together(client.table("revenue/by_product"), client.table("revenue/by_minute"));
    const commits = new Set<number>();
    both.subscribe(() => {
      const [products, minutes] = both.states ?? [];
      expect(products?.commit).toBe(minutes?.commit);
      const sum = (rows?: ReadonlyMap<string, { cents: number }>): number => [...(rows?.values() ?? [])].reduce((all, { cents }) => all + cents, 0);
      expect(sum(products?.rows)).toBe(sum(minutes?.rows));
      if (products?.commit) commits.add(products.commit);
    });
    for (let sent = 0; sent < 400; sent += 20) await server.append(events(sent, sent + 20));
    await until(() => both.states?.[0].offsets[0] === 400);
    expect(commits.size).toBeGreaterThan(3);
  });

  test("a reader that is too slow gets one snapshot in place of what it missed", async () => {
    const server = await serve();
    const table = connected(server.feed, { changesMax: 4 }).table("revenue/by_product", { mode: "changes" });
    const types: string[] = [];
    let [missed, orders] = [0, 0];
    let first = true;
    for await (const change of table) {
      types.push(change.type);
      if (change.type === "snapshot") {
        missed += change.missed;
        orders = [...change.rows.values()].reduce((sum, row) => sum + row.orders, 0);
        expect(orders).toBe(change.offsets[0] ?? 0);
      }
      if (change.type === "snapshot" && first) {
        first = false;
        for (let sent = 0; sent < 200; sent += 10) await server.append(events(sent, sent + 10));
        await until(() => table.offsets[0] === 200);
      }
      if (missed > 0 && table.offsets[0] === 200) break;
    }
    expect(missed).toBeGreaterThan(4);
    expect(types.at(-1)).toBe("snapshot");
    expect(orders).toBe(200);
  });

  test("a saved state continues in another client", async () => {
    const server = await serve();
    await server.append(events(0, 100));
    const first = connected(server.feed);
    const table = first.table("revenue/by_product");
    await table.waitFor({ partition: 0, offset: 99 });
    const resume = table.saved();
    first.close();
    await server.append(events(100, 130));
    const happened: string[] = [];
    const second = connected(server.feed, { onDiagnostic: ({ what }) => happened.push(what) });
    const again = second.table("revenue/by_product", { resume });
    expect(again.size).toBe(resume!.rows.size);
    expect(again.state).toMatchObject({ status: "idle", commit: resume!.commit, rows: resume!.rows });
    const changes: string[] = [];
    again.onChange(({ type }) => changes.push(type));
    await again.waitFor({ partition: 0, offset: 129 });
    expect(happened).toContain("resume");
    expect(changes).not.toContain("snapshot");
    expect(show([...again].sort())).toBe(show([...(await server.rows("revenue/by_product"))].sort()));
  });

  test("rows that leave the filter vanish, also while the client was away, and every state is one of the filter", async () => {
    const server = await serve();
    const happened: Diagnostic[] = [];
    const client = connected(server.feed, { onDiagnostic: (it) => happened.push(it) });
    const few = client.table("revenue/by_product", { where: [["orders", "<", 4], ["product", "!=", "p3"]], cols: ["orders"] });
    const errors: unknown[] = [];
    const counts = { states: 0, left: 0, snapshot: 0, goneWhileAway: 0 };
    let before = new Set<string>();
    few.onChange(({ type }) => {
      if (few.commit === null) return;
      counts.states += 1;
      if (type === "snapshot") counts.snapshot += 1;
      counts.left += [...before].filter((key) => !few.has(key)).length;
      before = new Set(few.keys());
      const shown = show([...few].sort());
      const rows = new Judge().rows("revenue/by_product", few.offsets[0]!);
      const wanted = show([...rows].filter(([key, { orders }]) => orders < 4 && key !== "p3").map(([key, { orders }]) => [key, { orders }]).sort());
      if (shown !== wanted) errors.push([few.offsets, shown, "instead of", wanted]);
    });
    await few.ready();
    expect(few.fields).toEqual([{ name: "orders", kind: "integer" }]);
    let sent = 0;
    const more = async (): Promise<void> => {
      await server.append(events(sent, sent + 10));
      sent += 10;
    };
    const current = (): Promise<boolean> => until(() => few.offsets[0] === sent && few.status === "live");
    for (let round = 0; round < 4; round += 1) await more();
    await current();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const had = new Set(few.keys());
      await server.end(signal);
      await until(() => few.status === "stale");
      await server.launch();
      for (let round = 0; round < 3; round += 1) await more();
      await current();
      counts.goneWhileAway += [...had].filter((key) => !few.has(key)).length;
    }
    expect(errors.slice(0, 2)).toEqual([]);
    expect(counts.left).toBeGreaterThan(3);
    expect(counts.goneWhileAway).toBeGreaterThan(3);
    // The rows came once; after that there were only changes.
    expect(counts.snapshot).toBe(1);
    expect(happened.filter(({ what }) => what === "resume").length).toBeGreaterThanOrEqual(2);
    expect(happened.some(({ what }) => what === "reset" || what === "gap")).toBe(false);
    await server.push(changed("revenue", 1));
    await until(() => counts.snapshot === 2 && few.offsets[0] === sent && few.status === "live");
    await more();
    await current();
    expect(errors.slice(0, 2)).toEqual([]);
    console.log(show(counts));
  });

  test("a saved state continues under the same query whatever the order of its conditions, and together with the whole table", async () => {
    const server = await serve();
    await server.append(events(0, 60));
    const first = connected(server.feed);
    const table = first.table("revenue/by_product", { where: [["orders", ">", 1], ["cents", ">=", 5_000]], cols: ["cents", "orders"] });
    await table.waitFor({ partition: 0, offset: 59 });
    const resume = table.saved();
    first.close();
    await server.append(events(60, 90));
    const second = connected(server.feed);
    const again = second.table("revenue/by_product", { where: [["cents", ">=", 5_000], ["orders", ">", 1]], cols: ["cents", "orders"], resume });
    const changes: string[] = [];
    again.onChange(({ type }) => changes.push(type));
    const both = second.together(again, second.table("revenue/by_product", { cols: ["orders", "cents"] }));
    const wrong: unknown[] = [];
    let states = 0;
    both.subscribe(() => {
      if (!both.states) return;
      const [some, all] = both.states;
      states += 1;
      const selected = [...all.rows].filter(([, { orders, cents }]) => orders > 1 && cents >= 5_000);
      if (some.commit !== all.commit || some.rows.size !== selected.length) wrong.push(both.states);
    });
    for (let sent = 90; sent < 200; sent += 10) await server.append(events(sent, sent + 10));
    await until(() => both.states?.[0].offsets[0] === 200);
    expect(changes).not.toContain("snapshot");
    expect(states).toBeGreaterThan(1);
    expect(wrong).toEqual([]);
  });

  test("a query with a field that the table does not have is closed with an error that names it, and other tables are not", async () => {
    const server = await serve();
    const client = connect(server.feed, QUICK);
    clean.push(() => client.close());
    const error = await client.table("revenue/by_product", { where: [["cent", ">=", 100]] }).ready().catch((e) => e);
    expect(error).toMatchObject({ name: "LanternError", code: "LAN-0426", retry: false, parameter: "where" });
    expect(error.message).toContain("did you mean `cents`?");
    const column = await client.table("revenue/by_product", { cols: ["cents", "n"] }).ready().catch((e) => e);
    expect(column).toMatchObject({ code: "LAN-0426", parameter: "cols" });
    const value = await client.table("revenue/by_product", { where: [["cents", "=", "1"]] }).ready().catch((e) => e);
    expect(value).toMatchObject({ code: "LAN-0426", parameter: "where" });
    await client.table("revenue/by_product", { where: [["cents", "!=", null]] }).ready();
  });

  test("a roll-up follows the rows through a restart and a kill, and every state is the roll-up of a committed one", async () => {
    const server = await serve();
    const client = connected(server.feed);
    const hours = client.rollup("revenue/by_minute", {
      where: [["orders", ">", 2]],
      time: "minute",
      bucket: "5m",
      agg: { minutes: ["count"], cents: ["sum", "cents"] },
    });
    const many = client.rollup("revenue/by_product", { where: [["orders", "<", 4]], by: ["orders"], agg: { n: ["count"] } });
    const errors: unknown[] = [];
    const counts = { states: 0, gone: 0 };
    let before = new Set<string>();
    const judge = (table: Table<any>, groups: (offset: number) => Map<string, object>): void => {
      table.onChange(() => {
        if (table.commit === null) return;
        counts.states += 1;
        const [shown, wanted] = [show([...table].sort()), show([...groups(table.offsets[0]!)].sort())];
        if (shown !== wanted) errors.push([table.name, table.offsets, shown, "instead of", wanted]);
      });
    };
    judge(hours, (offset) => {
      const groups = new Map<string, { minute: string; minutes: number; cents: number }>();
      for (const { minute, orders, cents } of new Judge().rows("revenue/by_minute", offset).values()) {
        if (orders <= 2) continue;
        const start = `${new Date(Math.floor(Date.parse(minute) / 300_000) * 300_000).toISOString().slice(0, 19)}Z`;
        const group = groups.get(JSON.stringify([start])) ?? { minute: start, minutes: 0, cents: 0 };
        groups.set(JSON.stringify([start]), { minute: start, minutes: group.minutes + 1, cents: group.cents + cents });
      }
      return groups;
    });
    judge(many, (offset) => {
      const groups = new Map<string, { orders: number; n: number }>();
      for (const { orders } of new Judge().rows("revenue/by_product", offset).values()) {
        if (orders < 4) groups.set(`[${orders}]`, { orders, n: (groups.get(`[${orders}]`)?.n ?? 0) + 1 });
      }
      return groups;
    });
    many.onChange(() => {
      counts.gone += [...before].filter((key) => !many.has(key)).length;
      before = new Set(many.keys());
    });
    let sent = 0;
    const more = async (): Promise<void> => {
      for (let round = 0; round < 10; round += 1) {
        await server.append(events(sent, sent + 6));
        sent += 6;
        await sleep(5);
      }
      await until(
        () => [hours, many].every(({ offsets, status }) => offsets[0] === sent && status === "live"),
        () => [hours.state, many.state],
      );
    };
    await more();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await server.restart(signal);
      await more();
    }
    expect(errors.slice(0, 2)).toEqual([]);
    expect(hours.size).toBeGreaterThan(0);
    expect(counts.gone).toBeGreaterThan(0);
    console.log(show(counts));
  });

  test("a table that does not exist is closed with the server's reason, and later ones are not", async () => {
    const server = await serve();
    const client = connect(server.feed, QUICK);
    clean.push(() => client.close());
    const error = await client.table("revenue/nope").ready().catch((e) => e);
    expect(error).toMatchObject({ name: "LanternError", code: "no_such_table", retry: false });
    await client.table("revenue/by_minute").ready();
  });

  test("`lantern types` writes types that fit the rows", async () => {
    const server = await serve();
    const folder = mkdtempSync(join(tmpdir(), "lantern-types-"));
    const of = await lantern("types", "--plugin", plugin("revenue"), "--no-null");
    expect(of).toContain('"revenue/by_product": RevenueByProduct;');
    const index = fileURLToPath(new URL("../src/index.js", import.meta.url));
    writeFileSync(
      join(folder, "use.ts"),
      `import { connect } from ${JSON.stringify(index)};
import { shapes, type Tables } from "./tables.js";
const client = connect<Tables>("ws://127.0.0.1:1/v1/feed", { shapes });
const cents: number | bigint | null | undefined = client.table("revenue/by_product").get("p1")?.cents;
// @ts-expect-error there is no such field
client.table("revenue/by_minute").get("x")?.quantity;
// @ts-expect-error there is no such table
client.table("revenue/by_hour");
const rich = client.table("revenue/by_product", { where: [["cents", ">=", 100], ["product", "in", ["p1", "p2"]], ["product", "!=", null]], cols: ["cents"] });
const narrow: { cents: number | bigint | null | undefined } | undefined = rich.get("p1") && { cents: rich.get("p1")?.cents };
// @ts-expect-error the column was not chosen
rich.get("p1")?.orders;
// @ts-expect-error a number is not compared with a text
client.table("revenue/by_product", { where: [["cents", "=", "100"]] });
// @ts-expect-error there is no such field
client.table("revenue/by_minute", { cols: ["quantity"] });
export { cents, narrow };
`,
    );
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));
    const flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--lib", "esnext,dom"];
    for (const choices of [["--no-null"], ["--bigint"], []]) {
      await lantern("types", "--server", server.url, ...choices, "--out", join(folder, "tables.ts"));
      execFileSync(process.execPath, [tsc, ...flags, join(folder, "use.ts")], { stdio: "inherit" });
    }
  });

  test("a program with the types of one version goes on after fields are added, and learns which field is gone", async () => {
    const server = await serve(`plugin.interpreters_dir=${INTERPRETERS}`);
    const folder = mkdtempSync(join(tmpdir(), "lantern-shapes-"));
    /** Pushes a version of the projection `shop` whose table has these columns. Returns the shapes that `lantern types` writes for it. */
    const push = async (...columns: string[]): Promise<NonNullable<Options["shapes"]>> => {
      const file = join(folder, "shop.yaml");
      const lines = ["name: shop", "from: order.placed", "tables:", "  by_product:", "    key: [data.product]", "    columns:"];
      writeFileSync(file, [...lines, ...columns.map((column) => `      ${column}`)].join("\n"));
      await server.push(file);
      const text = await lantern("types", "shop", "--server", server.url);
      const module = join(folder, `tables-${columns.length}-${Math.random()}.mjs`);
      writeFileSync(module, (await transform(text, { loader: "ts" })).code);
      return (await import(pathToFileURL(module).href)).shapes;
    };
    const [orders, cents, largest] = ["orders: count()", "cents: sum(data.cents) unit cent", "largest: max(data.cents) unit cent"];
    await server.append(events(0, 40));
    const shapes = await push(orders, cents);
    const program = (): { whole: Table<any>; narrow: Table<any>; count: Table<any> } => {
      const client = connect(server.feed, { ...QUICK, shapes });
      clean.push(() => client.close());
      return {
        whole: client.table("shop/by_product"),
        narrow: client.table("shop/by_product", { cols: ["cents"] }),
        count: client.rollup("shop/by_product", { agg: { products: ["count"] } }),
      };
    };
    const old = program();
    for (const table of Object.values(old)) {
      table.onChange(() => {});
      await table.ready();
    }
    expect(old.whole.shape).toBe(shapes["shop/by_product"]?.hash);
    const first = [...old.whole.values()][0]!;
    expect(Object.keys(first)).not.toContain("largest");

    await push(orders, cents, largest);
    await until(() => [...old.whole.values()].every((row) => "largest" in row) && old.whole.status === "live");
    expect(old.whole.error).toBe(null);
    expect(old.whole.shape).not.toBe(shapes["shop/by_product"]?.hash);

    const epoch = old.narrow.epoch;
    const next = await push(cents, largest);
    await until(() => old.whole.status === "closed", () => old.whole.state);
    const gone = { code: "shape", retry: false, changes: [{ field: "orders", before: "integer" }] };
    expect(old.whole.error).toMatchObject(gone);
    expect(old.whole.error?.message).toContain("`orders` was `integer` and is gone");
    expect(old.whole.size).toBeGreaterThan(0);
    // The tables that do not use the field go on, and the closed one is not subscribed again.
    await until(() => [old.narrow, old.count].every((table) => table.epoch !== epoch && table.status === "live"));
    await server.append(events(40, 80));
    await old.narrow.waitFor({ partition: 0, offset: 79 });
    await old.count.waitFor({ partition: 0, offset: 79 });
    expect(old.whole.status).toBe("closed");

    const again = program();
    expect(await again.whole.ready().catch((error) => error)).toMatchObject(gone);
    await again.narrow.ready();
    const client = connect(server.feed, { ...QUICK, shapes: next });
    clean.push(() => client.close());
    await client.table("shop/by_product").ready();
  });

  test("every state that clients show was committed, whatever is cut, slow or restarted", async () => {
    const seed = Number(process.env.LANTERN_SEED ?? Date.now() % 1e9);
    const wanted = Number(process.env.LANTERN_STATES ?? 4_000);
    const rng = random(seed);
    console.log(`seed ${seed}, at least ${wanted} states`);
    // The limits are small, so that snapshots have parts and slow clients get new snapshots.
    const server = await serve("live.frame_bytes_max=4096", "live.window=8", "live.merge_keys_max=20", "live.ring_commits_max=64");
    const port = Number(new URL(server.url).port);
    const judge = new Judge();
    const errors: unknown[] = [];
    const counts: { [what: string]: number } = {};
    const weathers = [
      { cutAfter: () => 2 ** (6 + rng(12)), delay: () => 0 },
      { cutAfter: () => 2 ** (9 + rng(10)), delay: () => rng(20) },
      { cutAfter: () => (rng(3) ? 200_000 : rng(2_000)), delay: () => (rng(10) ? 0 : rng(400)) },
    ];
    const proxies = await Promise.all(weathers.map((weather) => Proxy.start(port, weather)));
    for (const proxy of proxies) clean.push(() => proxy.stop());
    const tables: Table<any>[] = [];
    const queries = [{}, { rate_ms: 30 }, { mode: "changes" as const }, {}];
    for (let n = 0; n < 12; n += 1) {
      const proxy = proxies[n % 4];
      const url = proxy ? `ws://127.0.0.1:${proxy.port}/v1/feed` : server.feed;
      const onDiagnostic = ({ what, message }: Diagnostic): void => {
        const name = what === "reset" ? `reset ${message}` : what;
        counts[name] = (counts[name] ?? 0) + 1;
      };
      const client = connected(url, { onDiagnostic, changesMax: 8 });
      for (const name of ["revenue/by_product", "revenue/by_minute"] as const) {
        const table = client.table(name, queries[Math.floor(n / 4) % 4]);
        tables.push(table);
        judged(judge, table, errors);
        // Some readers use the iterator slowly. The states that it returns are checked too.
        if (n % 3 === 0) void slowly(table, judge, errors, rng);
      }
    }
    let [sent, versions, restarts, kills, round] = [0, 0, 0, 0, 0];
    while (judge.states < wanted && errors.length === 0) {
      round += 1;
      const count = 1 + rng(8);
      await server.append(events(sent, sent + count));
      sent += count;
      await sleep(rng(12));
      if (rng(60) === 0) proxies[rng(proxies.length)]!.cutAll();
      if (rng(150) === 0) {
        const kill = rng(2) === 0;
        await server.restart(kill ? "SIGKILL" : "SIGTERM");
        if (kill) kills += 1;
        else restarts += 1;
      }
      // This also happens in a short run, so that every run covers it.
      if (rng(200) === 0 || (round === 40 && versions === 0)) {
        if (versions === 0) await server.push(changed("revenue", 1));
        else await lantern("plugin", "rollback", "revenue", "--server", server.url);
        versions += 1;
      }
      if (round === 80 && kills === 0) {
        await server.restart("SIGKILL");
        kills += 1;
      }
    }
    await server.caughtUp("revenue");
    await until(
      () => errors.length > 0 || tables.every((table) => table.offsets[0] === sent && table.status === "live"),
      () => tables.map(({ name, status, offsets }) => [name, status, offsets]),
    );
    expect(errors.slice(0, 3)).toEqual([]);
    for (const table of tables) {
      const name = table.name as keyof Tables;
      const rows = show([...table].sort(([a], [b]) => (a < b ? -1 : 1)));
      const served = show([...(await server.rows(name))].sort(([a], [b]) => (a < b ? -1 : 1)));
      expect(rows).toBe(served);
    }
    const cuts = proxies.reduce((sum, proxy) => sum + proxy.cuts, 0);
    console.log(`seed ${seed}: ${show({ states: judge.states, events: sent, cuts, restarts, kills, versions, ...counts })}`);
    for (const what of [cuts, kills, versions, counts.resume, counts["reset epoch"]]) expect(what).toBeGreaterThan(0);
  }, 3_600_000);
});

/** Reads the changes of a table slowly, and applies them to rows of its own. */
async function slowly(table: Table<any>, judge: Judge, errors: unknown[], rng: (below: number) => number): Promise<void> {
  let rows = new Map<string, any>();
  const reader = {};
  let [epoch, commit] = ["", 0];
  try {
    for await (const change of table.changes()) {
      if (change.type === "snapshot") {
        rows = new Map(change.rows);
        ({ epoch, commit } = change);
      } else if (change.type === "delta") {
        expect(change.from).toBe(commit);
        for (const [key, row] of change.up) rows.set(key, row);
        for (const key of change.del) rows.delete(key);
        commit = change.to;
      } else if (change.type === "tick" || change.type === "resumed") {
        commit = change.commit;
      }
      if ("offsets" in change) judge.check(reader, { table: table.name, epoch, commit, offset: change.offsets[0]!, rows });
      if (rng(5) === 0) await sleep(rng(60));
    }
  } catch (error) {
    errors.push(error);
  }
}
