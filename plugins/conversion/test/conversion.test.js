// The tables agree with a separate computation, user by user.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { checkDeterminism, event, Harness, readNdjson } from "../../../sdk/js/src/testing.js";

const source = new URL("../src/index.ts", import.meta.url);
const STEPS = ["page.viewed", "cart.added", "order.placed"];

/** All journeys of one user's events, by the README. */
function journeysOf(events, withinMs) {
  const journeys = [];
  const outside = [];
  let open = null;
  for (const { type, time, data } of events) {
    const step = STEPS.indexOf(type);
    if (open !== null && (time - open.times[0]) / 1_000 > withinMs) {
      open.end = "expired";
      open = null;
    }
    if (open === null && step === 0) {
      open = { country: data.country ?? "unknown", times: [time], end: "open" };
      journeys.push(open);
    } else if (open === null) {
      outside.push(data.country ?? "unknown");
    } else if (step === open.times.length) {
      open.times.push(time);
      if (open.times.length === STEPS.length) {
        open.end = "completed";
        open = null;
      }
    } else if (step > open.times.length) {
      outside.push(open.country);
    }
  }
  return { journeys, outside };
}

function expected(events, withinMs) {
  const users = new Map();
  for (const it of events) {
    const data = JSON.parse(it.data);
    users.set(data.user, [...(users.get(data.user) ?? []), { type: it.type, time: it.time, data }]);
  }
  const totals = {};
  const reached = {};
  const count = (country, name) => {
    totals[country] ??= { group: country, started: 0, completed: 0, expired: 0, outside: 0 };
    totals[country][name] += 1;
  };
  for (const own of users.values()) {
    const { journeys, outside } = journeysOf(own, withinMs);
    for (const country of outside) count(country, "outside");
    for (const { country, times, end } of journeys) {
      count(country, "started");
      if (end !== "open") count(country, end);
      times.forEach((time, step) => {
        const ms = Math.max(0, Math.floor((time - times[0]) / 1_000));
        (reached[`${country}/a${step}`] ??= []).push(ms);
      });
    }
  }
  return { totals, reached };
}

const rank = (values, percent) => values.toSorted((a, b) => a - b)[Math.max(1, Math.ceil((values.length * percent) / 100)) - 1];

for (const within_s of [86_400, 1_800]) {
  test(`journeys within ${within_s} s agree with a separate computation`, () => {
    const events = readNdjson(readFileSync(new URL("../../funnel/events.ndjson", import.meta.url), "utf8"));
    const { totals, reached } = expected(events, within_s * 1_000);
    checkDeterminism(source, events, { parameters: { within_s } });
    const host = new Harness(source, { parameters: { within_s } }).feed(events);
    assert.deepEqual(host.parked(), []);
    assert.deepEqual(host.rows("totals"), Object.fromEntries(Object.entries(totals).sort()));
    assert.ok(Object.values(totals).some(({ completed }) => completed > 0));
    const rows = host.rows("steps");
    assert.deepEqual(Object.keys(rows), Object.keys(reached).sort());
    for (const [key, times] of Object.entries(reached)) {
      assert.equal(rows[key].users, times.length, key);
      assert.equal(rows[key].from_start.count, times.length);
      assert.equal(rows[key].from_start.max, Math.max(...times));
      for (const percent of [50, 95]) {
        const exact = rank(times, percent);
        assert.ok(Math.abs(rows[key].from_start[`p${percent}`] - exact) <= exact / 128, `${key} p${percent}`);
      }
    }
  });
}

test("steps are parameters, and wrong ones are refused", () => {
  const host = new Harness(source, { parameters: { steps: ["a", "b"] } });
  host.feed([event("a", { user: "u" }), event("b", { user: "u" }), event("b", { user: "u" }), event("a", {})]);
  assert.deepEqual(host.row("totals", "unknown"), { group: "unknown", started: 1, completed: 1, expired: 0, outside: 2 });
  for (const parameters of [{ steps: ["a"] }, { steps: ["a", "a"] }, { steps: "a" }, { within_s: 0 }]) {
    assert.throws(() => new Harness(source, { parameters }), /steps|within_s/);
  }
});
