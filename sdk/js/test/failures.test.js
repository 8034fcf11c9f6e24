// Tests that events that fail change nothing, and that the call continues with the next event.
import assert from "node:assert/strict";
import test from "node:test";

import {
  distinct, integer, inTenant, json, openWindows, optional, percentiles, projection, recent, table, text, tumbling,
} from "lantern-sdk";
import { event, Harness } from "lantern-sdk/testing";

const SEEDS = Number(process.env.SEEDS ?? 60);

/** Pseudo-random integers below `bound`, the same for the same seed. */
function randomOf(seed) {
  let state = seed * 2 + 1;
  return (bound) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % bound;
  };
}

/** The steps of an event, one after the other. Some events fail between two steps. */
const STEPS = {
  sum: ({ sums }, { key, n }) => {
    sums.row(key).n += n;
  },
  pair: ({ sums }, { key, n }) => {
    sums.row(`k${n % 3}`, key).n += n;
  },
  put: ({ sums }, { key, n }) => {
    sums.put(key, { n });
  },
  delete: ({ sums }, { key }) => sums.delete(key),
  take: ({ sums }, { key }) => sums.take(key),
  nested: ({ documents }, { key, n }) => {
    const row = documents.row(key);
    row.value ??= { list: [] };
    row.value.list.push(n);
    row.note = n % 2 === 0 ? null : `n${n}`;
  },
  sketch: ({ sketches }, { key, n }) => {
    const row = sketches.row(key);
    for (let i = 0; i < 40; i++) row.users.add(`u${n * 40 + i}`);
    row.values.add(n * n - 100, 1 + (n % 3));
  },
  merge: ({ sketches }, { key, other }) => {
    const from = sketches.get(other);
    if (from === null) return;
    const row = sketches.row(key);
    row.users.merge(from.users);
    row.values.merge(from.values);
  },
  tenant: ({ owned }, { key, n }) => {
    owned.row(key).n += n;
  },
  window: ({ open }, { key, n, event }) => {
    open.add(event, tumbling("1m"), key, (value) => {
      value.n += n;
    });
  },
  recent: ({ latest }, { key, n, event }) => {
    latest.add(event, "5m", key, { n });
  },
  timer: (_, { key, n, event }) => event.setTimer(event.time + n * 30_000_000, inTenant(event.tenant, key)),
  cancel: (_, { key, event }) => event.cancelTimer(inTenant(event.tenant, key)),
  emit: (_, { key, n, event }) => event.emit("alert", { key, n }),
  scan: ({ sums }, { n }) => {
    for (const { key, row } of sums.scan({ limit: 3 })) if (row.n > n) sums.row(key).n -= 1;
  },
};
const FAILURES = {
  throws: () => {
    throw new Error("refused");
  },
  "throws text": () => {
    throw "refused";
  },
  // No other step uses these rows.
  "cannot be stored": ({ sums }, { key }) => {
    sums.row("wrong", key).n = "many";
  },
  "has an unknown field": ({ sums }, { key }) => {
    sums.row(key).m = 1;
  },
  "uses what is not there": (_, { event }) => event.data.missing.length,
};

function build(onFailure, cache) {
  const tables = {
    sums: table("sums", { n: integer }, { cache }),
    documents: table("documents", { value: optional(json), note: optional(text) }),
    sketches: table("sketches", { users: distinct, values: percentiles }),
    owned: table("owned", { n: integer }, { perTenant: true }),
    fired: table("fired", { times: integer }),
  };
  tables.open = openWindows("open", { n: integer });
  tables.latest = recent("latest", { n: integer });
  return projection({
    name: "failures",
    subscribes: ["*"],
    onFailure,
    emits: ["alert"],
    eventTime: { lateness: "10s", tick: "10s" },
    apply(event) {
      for (const { step, key, other, n } of event.data) (STEPS[step] ?? FAILURES[step])(tables, { key, other, n, event });
    },
    onTimer(timer) {
      for (const { key, value } of tables.open.close(timer)) tables.fired.row("window", key).times += value.n;
      if (tables.latest.advance(timer) === null) tables.fired.row("timer", timer.key.replace("\u0001", "")).times += 1;
    },
  });
}

/**
 * Random events, and the same events without those that fail. The remaining events keep their
 * times.
 */
function randomEvents(random) {
  const pick = (names) => names[random(names.length)];
  let seconds = 0;
  return Array.from({ length: 30 + random(40) }, () => {
    seconds += random(20);
    const steps = Array.from({ length: 1 + random(4) }, () => ({
      step: pick(Object.keys(STEPS)), key: `k${random(4)}`, other: `k${random(4)}`, n: random(20),
    }));
    const fails = random(100) < 40;
    if (fails) steps.splice(random(steps.length + 1), 0, { step: pick(Object.keys(FAILURES)), key: `k${random(4)}`, n: 1 });
    const time = `2026-03-01T12:${String(Math.floor(seconds / 60)).padStart(2, "0")}:${String(seconds % 60).padStart(2, "0")}Z`;
    return { fails, event: event("step", steps, { time, tenant: `t${random(2)}`, subject: `s${random(50)}` }) };
  });
}

/** The outcome of a fold, without offsets, because they depend on the failed events. */
function outcomeOf(host) {
  const { tables, timers, emitted } = host.outcome();
  return { tables, timers, emitted: emitted.map(({ cause, ...rest }) => rest) };
}

for (const onFailure of ["park-event", "park-subject"]) {
  test(`with ${onFailure}, the result is that of the events that do not fail`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = randomOf(seed);
      const events = randomEvents(random);
      const cache = random(2) === 0 ? 3 : 1_000;
      const parkedSubjects = new Set();
      const applied = [];
      for (const { fails, event } of events) {
        const owner = `${event.tenant} ${event.subject}`;
        if (fails) parkedSubjects.add(owner);
        // A dropped event still moves event time.
        const kept = !fails && (onFailure === "park-event" || !parkedSubjects.has(owner));
        applied.push(kept ? event : { ...event, data: "[]" });
      }
      const expected = outcomeOf(new Harness(build(onFailure, cache), { batchSize: 1 }).feed(applied));
      for (const batchSize of [1, 5, 1_000]) {
        const host = new Harness(build(onFailure, cache), { batchSize }).feed(events.map(({ event }) => event));
        assert.deepEqual(outcomeOf(host), expected, `seed ${seed}, batches of ${batchSize}`);
        assert.deepEqual(host.timerFailures, [], `seed ${seed}`);
        assert.equal(host.parked().length, applied.filter(({ data }) => data === "[]").length, `seed ${seed}`);
      }
    }
  });
}

test("a failing event costs no instance, unless its rows were sent or memory ran out", () => {
  const sums = table("sums", { n: integer });
  let calls = 0;
  const counted = projection({
    name: "counted",
    subscribes: ["*"],
    onFailure: "park-event",
    prepare() {
      calls += 1;
    },
    apply(event) {
      sums.row("all").n += 1;
      if (event.type === "scan") sums.scan({});
      if (event.type === "deep") (function deeper() {
        return 1 + deeper();
      })();
      if (event.type !== "good") throw new Error("bad");
    },
  });
  const fold = (types) => {
    calls = 0;
    return new Harness(counted).feed(types.map((type) => event(type)));
  };
  let host = fold(["good", "bad", "bad", "good", "bad", "good"]);
  assert.equal(calls, 1);
  assert.equal(host.row("sums", "all").n, 3);
  assert.deepEqual(host.parked().map(({ offset, reason }) => [offset, reason]), [1, 2, 4].map((offset) => [offset, `\`bad\` at offset ${offset}: Error: bad`]));
  for (const type of ["scan", "deep"]) {
    host = fold(["good", type, "good"]);
    assert.equal(calls, 3, type);
    assert.equal(host.row("sums", "all").n, 2);
    assert.deepEqual(host.parked().map(({ offset }) => offset), [1]);
  }
});

test("a projection that halts does so at the first event that fails, and keeps what came before", () => {
  const host = new Harness(build("halt", 10));
  const step = (step, n = 1) => event("step", [{ step: "sum", key: "k1", n }, { step, key: "k1", n }]);
  host.feed([step("sum", 2), step("throws"), step("sum", 5)]);
  assert.match(host.halted, /offset 1: Error: refused/);
  assert.deepEqual(host.rows("sums"), { k1: { n: 4 } });
});

test("`prepare` can only read", () => {
  for (const wrong of [(event) => event.setTimer(1, "k"), (event) => event.emit("alert", {})]) {
    const rows = table("rows", { n: integer });
    const host = new Harness(projection({
      name: "prepared",
      subscribes: ["*"],
      emits: ["alert"],
      eventTime: { lateness: "1s" },
      onFailure: "park-event",
      prepare(events) {
        for (const event of events) wrong(event);
      },
      apply() {
        rows.row("all").n += 1;
      },
    }));
    host.feed([event("x")]);
    assert.match(host.parked()[0].reason, /prepare: .*only call `prefetch`/);
  }
});
