// Tables, events, timers, windows and parameters, in the harness.
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import {
  bigint, distinct, hopping, integer, inTenant, iso, minute, number, openSessions, openWindows, optional, parameters, percentiles, projection,
  recent, seconds, table, text, timestamp, timeZone, tumbling,
} from "lantern-sdk";
import { checkDeterminism, event, Harness, readNdjson } from "lantern-sdk/testing";

const at = (second, rest = {}) => ({ time: `2026-03-01T12:${String(Math.floor(second / 60)).padStart(2, "0")}:${String(second % 60).padStart(2, "0")}Z`, ...rest });
const folder = mkdtempSync(join(tmpdir(), "lantern-sdk-test-"));

/** A file with this source. */
function source(name, code) {
  const file = join(folder, name);
  writeFileSync(file, code);
  return file;
}

test("rows are created, changed, read and deleted", () => {
  const counts = table("counts", { type: text, events: integer("sum"), last: optional(timestamp) }, { key: "type" });
  const seen = table("seen", { times: integer }, { private: true });
  const host = new Harness(projection({
    name: "counts",
    subscribes: ["*"],
    onFailure: "park-event",
    apply(event) {
      if (event.type === "delete") return counts.delete(event.data);
      if (event.type === "take") return void console.assert(counts.take(event.data) !== null);
      if (event.type === "missing") return void assert.equal(counts.update(event.data), null);
      const row = counts.row(event.type);
      row.events += 1;
      row.last = event.time;
      seen.put(event.type, { times: (seen.get(event.type)?.times ?? 0) + 1 });
      assert.ok(counts.has(event.type));
    },
  }));
  host.feed([event("a", {}, at(1)), event("a", {}, at(2)), event("b"), event("c"), event("delete", '"b"'), event("take", '"c"'), event("missing", '"d"')]);
  assert.deepEqual(host.parked(), []);
  assert.deepEqual(host.rows("counts"), { a: { type: "a", events: 2, last: "2026-03-01T12:00:02Z" } });
  assert.deepEqual(host.rows("seen"), { a: { times: 2 }, b: { times: 1 }, c: { times: 1 } });
  const { tables } = host.manifest;
  assert.deepEqual(tables[0].fields[1], { name: "events", kind: "integer", unit: "", merge: "sum" });
  assert.equal(tables[1].public, false);
});

test("scans see the writes of the same call, in both directions and beyond a page", () => {
  const rows = table("rows", { n: integer });
  const found = table("found", { keys: text, n: integer });
  const host = new Harness(projection({
    name: "scans",
    subscribes: ["*"],
    apply(event) {
      for (let i = 0; i < 300; i++) rows.put(`a${String(i).padStart(3, "0")}`, { n: i });
      const held = rows.row("a005");
      rows.delete("a006");
      const put = (name, scan) => {
        const all = rows.scan(scan);
        found.put(name, { keys: all.slice(0, 3).map(({ key }) => key).join(), n: all.length });
      };
      put("all", {});
      put("prefix", { prefix: "a29" });
      put("range", { start: "a005", end: "a008" });
      put("last", { reverse: true, limit: 200 });
      held.n = 5_000;
      assert.equal(rows.scan({ start: "a005", limit: 1 })[0].row.n, 5_000);
      held.n = 6_000;
      assert.throws(() => rows.scan({ from: "a" }), /no option `from`/);
    },
  }));
  host.feed([event("x")]);
  assert.deepEqual(host.parked(), []);
  assert.deepEqual(host.rows("found"), {
    all: { keys: "a000,a001,a002", n: 299 }, prefix: { keys: "a290,a291,a292", n: 10 }, range: { keys: "a005,a007", n: 2 }, last: { keys: "a299,a298,a297", n: 200 },
  });
  assert.equal(host.row("rows", "a005").n, 6_000);
});

test("a failed event changes nothing and is parked with its reason, alone or with its subject", () => {
  const build = (onFailure) => {
    const sums = table("sums", { cents: integer("sum") });
    return projection({
      name: "sums",
      subscribes: ["order.placed"],
      onFailure,
      apply(event) {
        sums.row("all").cents += event.data.cents;
        if (event.data.cents < 0) throw new Error("cents is negative");
      },
    });
  };
  const events = [5, -1, 7, "x", 8].map((cents, i) => event("order.placed", { cents }, { subject: i < 3 ? "u1" : "u2" }));
  let host = new Harness(build("park-event")).feed(events);
  assert.equal(host.row("sums", "all").cents, 20);
  assert.deepEqual(host.parked().map(({ offset }) => offset), [1, 3]);
  assert.match(host.parked()[0].reason, /^`order.placed` at offset 1: Error: cents is negative/);
  assert.match(host.parked()[1].reason, /table `sums`: row "all": field `cents` is "20x"|field `cents` is "\d+x", not an integer/);
  host = new Harness(build("park-subject")).feed(events);
  assert.deepEqual(host.parked().map(({ offset }) => offset), [1, 2, 3, 4]);
  host = new Harness(build("halt")).feed(events);
  assert.match(host.halted, /cents is negative/);
  assert.equal(host.row("sums", "all").cents, 5);
});

test("members come as declared, and fail only when they are used", () => {
  const rows = table("rows", { n: integer, big: optional(bigint), x: optional(number) });
  const host = new Harness(projection({
    name: "members",
    subscribes: ["*"],
    onFailure: "park-event",
    members: { n: integer, big: optional(bigint), x: optional(number), t: optional(timestamp) },
    apply(event) {
      if (event.type === "unused") return;
      const { n, big } = event.members;
      rows.put(event.type, { n, big, x: event.type === "with-x" ? event.members.x : null });
    },
  }));
  host.feed([
    event("exact", '{"n":1,"big":9007199254740993}'), event("unused", '{"n":"x"}'), event("other-kind", '{"n":1,"x":"text"}'),
    event("with-x", '{"n":1,"x":"text"}'), event("missing", "{}"), event("twice", '{"n":1,"n":2}'), event("unsafe", '{"n":9007199254740993}'),
    event("array", "[1]"), event("fraction", '{"n":1,"big":1.0}'),
  ]);
  assert.deepEqual([...host.rawRows("rows")], [["exact", '{"n":1,"big":9007199254740993,"x":null}'], ["other-kind", '{"n":1,"big":null,"x":null}']]);
  assert.deepEqual(host.parked().map(({ event, reason }) => [event.type, /data: .*/.exec(reason)[0]]), [
    ["with-x", "data: the member `x` is not a number, or occurs twice, or data is not an object"],
    ["missing", "data: the member `n` is missing or null"],
    ["twice", "data: the member `n` is not a whole number, or occurs twice, or data is not an object"],
    ["unsafe", "data: the member `n` is about 9007199254740992, where integers are no longer exact: declare it as `bigint`"],
    ["array", "data: the member `n` is not a whole number, or occurs twice, or data is not an object"],
    ["fraction", "data: the member `big` is \"1.0\", not a whole number"],
  ]);
});

test("attributes and data are there when they were requested", () => {
  const rows = table("rows", { all: text });
  const spec = (apply, more) => projection({ name: "attributes", subscribes: ["*"], onFailure: "park-event", apply, ...more });
  const given = { ...at(1), id: "e1", subject: "s", tenant: "t", extensions: { cohortid: "c" } };
  let host = new Harness(spec((event) => {
    rows.put("x", { all: [event.id, event.source, event.subject, event.tenant, event.extensions.cohortid, event.data.a, event.dataText, event.offset, event.partition].join() });
  }, { attributes: ["id", "source", "subject", "tenant", "extensions"] })).feed([event("x", { a: 1 }, given)]);
  assert.deepEqual(host.parked(), []);
  assert.equal(host.row("rows", "x").all, 'e1,test,s,t,c,1,{"a":1},0,0');
  table("rows", { all: text });
  host = new Harness(spec((event) => void event.subject)).feed([event("x", {}, given)]);
  assert.match(host.parked()[0].reason, /the attribute `subject` was not requested: add `attributes: \["subject"\]`/);
  host = new Harness(spec((event) => void event.data, { members: { a: integer } })).feed([event("x", {}, given)]);
  assert.match(host.parked()[0].reason, /add `attributes: \["data"\]`/);
  host = new Harness(spec((event) => void event.data)).feed([event("x", "{nope")]);
  assert.match(host.parked()[0].reason, /data: /);
  host = new Harness(spec((event) => void event.members)).feed([event("x")]);
  assert.match(host.parked()[0].reason, /declares no members/);
});

test("timers fire when the watermark has passed them, and emit events", () => {
  const fired = table("fired", { at: timestamp, watermark: timestamp });
  const build = () => projection({
    name: "timers",
    subscribes: ["*"],
    eventTime: { lateness: "5s", tick: "1s" },
    emits: ["late"],
    apply(event) {
      if (event.type === "cancel") event.cancelTimer(["u1", "x/y"]);
      else if (event.type === "set") event.setTimer(event.time + seconds(10), ["u1", "x/y"]);
    },
    onTimer(timer) {
      assert.deepEqual(timer.parts, ["u1", "x/y"]);
      fired.put(timer.key, { at: timer.at, watermark: timer.watermark });
      timer.emit("late", { key: timer.key }, { subject: "s" });
    },
  });
  const host = new Harness(build());
  host.feed([event("set", {}, at(0)), event("other", {}, at(14))]);
  assert.deepEqual(host.rows("fired"), {});
  host.feed([event("other", {}, at(15))]);
  assert.deepEqual(host.rows("fired"), { "u1/x%2Fy": { at: "2026-03-01T12:00:10Z", watermark: "2026-03-01T12:00:10Z" } });
  assert.deepEqual(host.emitted().map(({ type, cause, data, time }) => [type, cause, data, iso(time)]), [["late", 0, { key: "u1/x%2Fy" }, "2026-03-01T12:00:10Z"]]);
  host.feed([event("set", {}, at(20)), event("cancel", {}, at(21))]).advanceTo("2026-03-01T13:00:00Z");
  assert.equal(host.emitted().length, 1);
  assert.deepEqual(host.timers(), {});
});

test("what was not declared is refused with the line to add", () => {
  const host = (apply) => new Harness(projection({ name: "x", subscribes: ["*"], onFailure: "park-event", emits: ["alert"], apply })).feed([event("e")]);
  assert.match(host((event) => event.setTimer(5, "k")).parked()[0].reason, /add `eventTime/);
  assert.match(host((event) => event.emit("alerts", {})).parked()[0].reason, /add it to `emits`.*did you mean `alert`/);
  assert.match(host(async () => {}).parked()[0].reason, /must not be `async`/);
  const define = (spec) => () => projection({ name: "x", subscribes: ["*"], apply() {}, ...spec }).setup({ log() {} }, "");
  assert.throws(define({ name: "No" }), /the name "No" must be/);
  assert.throws(define({ subscribes: [] }), /subscribes to no event type/);
  assert.throws(define({ onfailure: "halt" }), /no option `onfailure`; did you mean `onFailure`/);
  assert.throws(define({ onFailure: "park" }), /choose one of/);
  assert.throws(define({ apply: undefined }), /no function `apply`/);
  assert.throws(define({ attributes: ["tennant"] }), /did you mean `tenant`/);
  assert.throws(define({ members: { a: 5 } }), /not a kind of field/);
  assert.throws(define({ members: { a: distinct } }), /cannot be of kind distinct/);
  assert.throws(() => table("Bad", {}), /table name/);
  assert.throws(() => table("a", { x: integer }, { keys: "x" }), /no option `keys`; did you mean `key`/);
  assert.throws(() => table("a", { x: integer }, { key: "y" }), /the field "y", which is not declared/);
  assert.throws(() => integer("add"), /not a merge/);
  table("twice", { x: integer });
  table("twice", { x: integer });
  assert.throws(define({}), /two tables are named `twice`/);
  const late = table("late", { x: integer });
  assert.throws(() => late.row("a"), /belongs to no projection/);
});

test("parameters have defaults, and others are refused", () => {
  const settings = parameters({ top: 10, zone: "UTC", tags: ["a"], any: null });
  const rows = table("rows", { top: integer });
  const own = projection({
    name: "parameters",
    subscribes: () => [`order.${settings.zone}`],
    setup() {
      if (settings.top < 1) throw new Error("`top` must be at least 1");
    },
    apply() {
      rows.row("x").top = settings.top;
    },
  });
  const host = new Harness(own, { parameters: { top: 3, zone: "x", any: { a: 1 } } }).feed([event("order.x")]);
  assert.equal(host.row("rows", "x").top, 3);
  assert.equal(new Harness(own).manifest.subscribes[0], "order.UTC");
  assert.deepEqual(JSON.parse(host.manifest.parameters).properties.top, { type: "number", default: 10 });
  assert.throws(() => new Harness(own, { parameters: { tpo: 1 } }), /no parameter `tpo`; did you mean `top`/);
  assert.throws(() => new Harness(own, { parameters: { top: "3" } }), /`top` is "3", but its default is 10/);
  assert.throws(() => new Harness(own, { parameters: { top: 0 } }), /at least 1/);
  assert.throws(() => new Harness(projection({ name: "none", subscribes: ["*"], apply() {} }), { parameters: { a: 1 } }), /takes none/);
});

test("rows of tenants are apart, and only their own events change them", () => {
  const visits = table("visits", { user: text, n: integer }, { perTenant: true, key: "user" });
  const host = new Harness(projection({
    name: "tenants",
    subscribes: ["*"],
    onFailure: "park-event",
    eventTime: { tick: "1s" },
    apply(event) {
      if (event.type === "steal") visits.row(inTenant("t1", "u"));
      else visits.row("u").n += 1;
      event.setTimer(event.time + 1, inTenant(event.tenant, "u"));
    },
    onTimer: (timer) => {
      visits.row(timer.key).n += 10;
    },
  }));
  host.feed([event("v", {}, { tenant: "t1" }), event("v", {}, { tenant: "t2" }), event("steal", {}, { tenant: "t2" })]).advanceTo("1970-01-01T00:01:00Z");
  assert.deepEqual([...host.rawRows("visits")], [["t1\0u", '{"user":"u","n":11}'], ["t2\0u", '{"user":"u","n":11}']]);
  assert.match(host.parked()[0].reason, /belongs to another tenant/);
});

test("rows in memory are dropped when there are too many, and read again in one call", () => {
  const rows = table("rows", { n: integer }, { cache: 10 });
  const host = new Harness(projection({
    name: "cache",
    subscribes: ["*"],
    members: { key: text },
    prepare(events) {
      rows.prefetch(Array.from(events, (event) => event.members.key));
    },
    apply(event) {
      rows.row(event.members.key).n += 1;
    },
  }), { batchSize: 5 });
  const events = Array.from({ length: 100 }, (_, i) => event("x", { key: `k${i % 5}` }));
  host.feed(events);
  assert.equal(host.row("rows", "k3").n, 20);
  assert.ok(host.hostCalls < 25, `${host.hostCalls} calls`);
  host.feed(Array.from({ length: 60 }, (_, i) => event("x", { key: `many ${i}` })));
  assert.equal(Object.keys(host.rows("rows")).length, 65);
});

test("what `get` returns cannot be changed, and `prepare` cannot write", () => {
  const rows = table("rows", { n: integer });
  const host = new Harness(projection({
    name: "frozen",
    subscribes: ["*"],
    onFailure: "park-event",
    apply(event) {
      if (event.type === "put") rows.row("a");
      else rows.get("a").n += 1;
    },
  })).feed([event("put"), event("get")]);
  assert.match(host.parked()[0].reason, /TypeError/);
  const other = table("rows", { n: integer });
  const writes = new Harness(projection({ name: "writes", subscribes: ["*"], prepare: () => void other.row("a"), apply() {} })).feed([event("x")]);
  assert.match(writes.parked()[0].reason, /must not change rows/);
});

test("log lines and console reach the log, and early ones are kept", () => {
  const file = source("logs.js", `import { log, projection } from "lantern-sdk";
log("at the top", { a: 1n });
export default projection({ name: "logs", subscribes: ["*"], apply(event) { log.warn("event", event.type, [1], new Error("e").message); } });
`);
  assert.deepEqual(new Harness(file).feed([event("x")]).logs(), [
    { level: "info", message: 'at the top {"a":"1n"}' }, { level: "warn", message: "event x [1] e" },
  ]);
});

test("state in memory is found by the determinism check, and errors name file and line", () => {
  const file = source("memory.ts", `import { integer, projection, table } from "lantern-sdk";

let count: number = 0;
const rows = table("rows", { n: integer });
interface Data { fail?: boolean }
export default projection<{}, Data>({
  name: "memory",
  subscribes: ["*"],
  onFailure: "park-event",
  apply(event) {
    if (event.data.fail) check(event.data);
    rows.row("all").n = ++count;
  },
});
function check(data: Data): void {
  throw new RangeError("as it should");
}
`);
  const events = Array.from({ length: 5 }, () => event("x"));
  assert.throws(() => checkDeterminism(file, events), /table `rows`, row "all"/);
  const [parked] = new Harness(file).feed([event("x", { fail: true })]).parked();
  assert.match(parked.reason, /^`x` at offset 0: memory.ts:16:9: RangeError: as it should\n    16 \| throw new RangeError/);
  assert.match(parked.reason, /\n    at check \(memory.ts:16:9\)\n    at (Projection\.|Object\.)?apply \(memory.ts:11:\d+\)/);
  assert.throws(() => new Harness(source("typo.js", 'import { tabel } from "lantern-sdk";\ntabel("x");\n')), /typo.js:1: SyntaxError: "lantern-sdk" has no export `tabel`; did you mean `table`/);
  assert.throws(() => new Harness(source("bad.js", "const a = 1;\nconst b = ;\n")), /bad.js:2:11: SyntaxError/);
  assert.throws(() => new Harness(source("early.js", "const a = 1;\nconst a = 2;\n")), /early.js:2: SyntaxError: .*already been declared/);
  assert.throws(() => new Harness(source("none.js", 'import { table } from "lantern-sdk";\ntable("x", {});\n')), /defines no projection/);
});

test("modules of a project can be imported, with types and as JSON", () => {
  source("prices.json", '{ "p1": 5 }');
  source("util.ts", "export const double = (n: number): number => 2 * n;\nexport default 7;\n");
  const file = source("many.ts", `import { integer, projection, table } from "lantern-sdk";
import prices from "./prices.json";
import seven, { double } from "./util.js";
const rows = table("rows", { n: integer });
export default projection({ name: "many", subscribes: ["*"], apply() { rows.row("x").n = double(prices.p1) + seven; } });
`);
  assert.equal(new Harness(file).feed([event("x")]).row("rows", "x").n, 17);
  assert.throws(() => new Harness(source("lost.js", 'import { a } from "./lost-file.js";\na();\n')), /lost.js:1: .*there is no such file/);
  assert.throws(() => new Harness(source("fs.js", '\nimport fs from "node:fs";\nfs.a();\n')), /fs.js:2: .*cannot import "node:fs"/);
});

/** Deterministic numbers from 0 to 1. */
function randoms(seed) {
  let state = seed;
  return () => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
}

/** Events of three users within ten minutes, some of them late. */
function walk(seed) {
  const random = randoms(seed);
  let second = 0;
  return Array.from({ length: 400 }, () => {
    second += Math.floor(random() * 4);
    const late = random() < 0.15 ? Math.floor(random() * 60) : 0;
    return event("visit", { user: `u${Math.floor(random() * 3)}`, n: Math.floor(random() * 10) }, at(Math.max(0, second - late)));
  });
}

/** Computes the watermark of an event by its definition. */
function* withWatermarks(events, latenessS, tickS) {
  let newest = -Infinity;
  for (const it of events) {
    yield { ...JSON.parse(it.data), time: it.time, watermark: Math.floor((newest - seconds(latenessS)) / seconds(tickS)) * seconds(tickS) };
    newest = Math.max(newest, it.time);
  }
}

const windowsProjection = () => {
  const minutes = table("minutes", { start: timestamp, user: text, n: integer }, { key: ["start", "user"] });
  const hops = table("hops", { start: timestamp, user: text, n: integer, last: integer }, { key: ["start", "user"] });
  const late = table("late", { hops: integer, sessions: integer, recent: integer });
  const sessions = table("sessions", { start: timestamp, user: text, end: timestamp, n: integer }, { key: ["start", "user"] });
  const settled = table("settled", { at: timestamp, user: text, n: integer }, { key: ["at", "user"] });
  const current = table("current", { user: text, n: integer }, { key: "user" });
  const open = openWindows("open", { n: integer, last: integer });
  const visits = openSessions("visits", { n: integer }, (earlier, later) => {
    earlier.n += later.n;
  });
  const latest = recent("latest", { n: integer });
  const sum = (slide) => slide.values.reduce((total, { n }) => total + n, 0);
  return projection({
    name: "windows",
    subscribes: ["visit"],
    eventTime: { lateness: "10s", tick: "5s" },
    members: { user: text, n: integer },
    apply(event) {
      const { user, n } = event.members;
      for (const window of tumbling("1m").of(event.time)) minutes.row(window, user).n += n;
      const counts = {
        hops: open.add(event, hopping("60s", "20s"), user, (value) => {
          value.n += n;
          value.last = n;
        }),
        sessions: visits.add(event, "15s", user, (value) => {
          value.n += n;
        }) === null ? 1 : 0,
        recent: 0,
      };
      const slide = latest.add(event, "30s", user, { n });
      if (slide === null) counts.recent = 1;
      else current.row(user).n = sum(slide);
      if (Object.values(counts).some((count) => count > 0)) {
        const row = late.row("all");
        for (const [name, count] of Object.entries(counts)) row[name] += count;
      }
    },
    onTimer(timer) {
      for (const { start, key, value } of open.close(timer)) hops.put(start, key, value);
      for (const { start, end, key, value } of visits.close(timer)) sessions.put(start, key, { end, n: value.n });
      const user = latest.advance(timer);
      if (user === null) return;
      for (const slide of user.settled) settled.put(slide.at, user.key, { n: sum(slide) });
      current.row(user.key).n = sum(user.current);
    },
  });
};

test("the four windows give what their definitions say, whatever the batches", () => {
  for (const seed of [1, 2, 3]) {
    const events = walk(seed);
    const host = new Harness(windowsProjection()).feed(events).advanceTo("2026-03-02T00:00:00Z");
    assert.deepEqual(host.parked(), []);
    assert.deepEqual(host.timerFailures, []);
    const hops = new Map();
    const minutes = new Map();
    const settled = new Map();
    const kept = [];
    const late = { hops: 0, recent: 0 };
    for (const { user, n, time, watermark } of withWatermarks(events, 10, 5)) {
      const key = `${iso(minute(time))}/${user}`;
      minutes.set(key, (minutes.get(key) ?? 0) + n);
      for (let start = Math.floor(time / seconds(20)) * seconds(20); start > time - seconds(60); start -= seconds(20)) {
        if (start + seconds(60) <= watermark) late.hops += 1;
        else hops.set(`${iso(start)}/${user}`, (hops.get(`${iso(start)}/${user}`) ?? 0) + n);
      }
      if (time + seconds(30) <= watermark) late.recent += 1;
      else kept.push({ user, n, time, early: time >= watermark });
    }
    for (const { user, time, early } of kept) {
      if (!early) continue;
      const inside = kept.filter((other) => other.user === user && other.time > time - seconds(30) && other.time <= time);
      settled.set(`${iso(time)}/${user}`, inside.reduce((sum, { n }) => sum + n, 0));
    }
    const numbers = (name, of = "n") => new Map(Object.entries(host.rows(name)).map(([key, row]) => [key, row[of]]));
    const sorted = (map) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    assert.deepEqual(sorted(numbers("minutes")), sorted(minutes), `seed ${seed}`);
    assert.deepEqual(sorted(numbers("hops")), sorted(hops), `seed ${seed}`);
    const found = host.row("late", "all");
    assert.deepEqual([found.hops, found.recent], [late.hops, late.recent], `seed ${seed}`);
    // A late value can belong to a window that was settled before.
    const differing = sorted(numbers("settled")).filter(([key, n]) => settled.get(key) < n);
    assert.deepEqual(differing, []);
    assert.deepEqual([...numbers("settled").keys()].sort(), [...settled.keys()].sort(), `seed ${seed}`);
    checkDeterminism(windowsProjection(), events);
  }
});

test("sessions join events with less than a gap between them", () => {
  const events = [0, 10, 24, 60, 61, 100].map((second) => event("visit", { user: "u", n: 1 }, at(second)));
  const host = new Harness(windowsProjection()).feed(events).advanceTo("2026-03-02T00:00:00Z");
  assert.deepEqual(Object.values(host.rows("sessions")).map(({ start, end, n }) => [start.slice(14, 19), end.slice(14, 19), n]), [["00:00", "00:39", 3], ["01:00", "01:16", 2], ["01:40", "01:55", 1]]);
  const bridged = [0, 18, 9].map((second) => event("visit", { user: "u", n: 1 }, at(second)));
  const joined = new Harness(windowsProjection()).feed(bridged).advanceTo("2026-03-02T00:00:00Z");
  assert.deepEqual(Object.values(joined.rows("sessions")).map(({ n }) => n), [3]);
});

test("days of a zone can be final windows, and sketches are kept in rows", () => {
  const days = table("days", { day: text, users: distinct, delays: percentiles }, { key: "day" });
  const open = openWindows("open", { users: distinct, delays: percentiles });
  const berlin = timeZone("Europe/Berlin");
  const own = projection({
    name: "days",
    subscribes: ["*"],
    eventTime: {},
    apply(event) {
      open.add(event, berlin.days, "all", (value) => {
        value.users.add(event.data.user);
        value.delays.add(event.data.ms);
      });
    },
    onTimer(timer) {
      for (const { start, value } of open.close(timer)) days.put(berlin.date(start), value);
    },
  });
  const events = [["22:30", "a", 5], ["22:50", "a", 7], ["23:10", "b", 9]].map(([time, user, ms]) => event("x", { user, ms }, { time: `2026-03-01T${time}:00Z` }));
  checkDeterminism(own, events);
  const host = new Harness(own).feed(events).advanceTo("2026-03-05T00:00:00Z");
  assert.deepEqual(Object.values(host.rows("days")).map(({ day, users, delays }) => [day, users.estimate, delays.count, delays.max]), [["2026-03-01", 1, 2, 7], ["2026-03-02", 1, 1, 9]]);
});

test("events are read from NDJSON with their numbers as they were written", () => {
  const [first, second] = readNdjson('{"specversion":"1.0","id":"1","source":"s","type":"x","time":"2026-03-01T12:00:00Z","cohortid":"c","data":{"n":9007199254740993, "x":1.0}}\n\n{"type":"y","time":"2026-03-01T12:00:00Z"}\n');
  assert.equal(first.data, '{"n":9007199254740993, "x":1.0}');
  assert.equal(first.extensions, '{"cohortid":"c"}');
  assert.equal(second.data, "null");
  assert.throws(() => readNdjson("{}"), /line 1/);
  assert.throws(() => event("x", {}, { tennant: "t" }), /no attribute `tennant`/);
});
