// The table agrees with a separate computation over the text of the sample.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { checkDeterminism, event, Harness, readNdjson } from "../../../sdk/js/src/testing.js";

const source = new URL("../src/index.ts", import.meta.url);
const sample = readFileSync(new URL("../events.ndjson", import.meta.url), "utf8");

test("users, conversions and revenue agree with a separate computation", () => {
  const lines = sample.trim().split("\n").map((line) => JSON.parse(line)).filter(({ experimentid }) => experimentid);
  const people = new Map();
  for (const line of lines) {
    const key = `${line.experimentid}/${line.data.user}`;
    people.set(key, [...(people.get(key) ?? []), line]);
  }
  const expected = {};
  for (const own of people.values()) {
    const key = `${own[0].experimentid}/${own[0].cohortid}`;
    const row = (expected[key] ??= { users: 0, converted: 0, goals: 0, cents: 0, switched: 0, times: [] });
    const goals = own.filter(({ type }) => type === "order.placed");
    row.users += 1;
    row.converted += goals.length > 0 ? 1 : 0;
    row.goals += goals.length;
    row.cents += goals.reduce((sum, { data }) => sum + data.cents, 0);
    row.switched += own.filter(({ cohortid }) => cohortid !== own[0].cohortid).length;
    if (goals.length > 0) row.times.push(Date.parse(goals[0].time) - Date.parse(own[0].time));
  }
  const events = readNdjson(sample);
  checkDeterminism(source, events);
  const host = new Harness(source).feed(events);
  assert.deepEqual(host.parked(), []);
  const rows = host.rows("cohorts");
  assert.deepEqual(Object.keys(rows).sort(), Object.keys(expected).sort());
  assert.ok(expected["checkout/control"].converted > 3);
  for (const [key, { times, ...numbers }] of Object.entries(expected)) {
    const { users, converted, goals, cents, switched, to_goal } = rows[key];
    assert.deepEqual({ users, converted, goals, cents, switched }, numbers, key);
    assert.equal(to_goal.count, times.length);
    assert.equal(to_goal.max, times.length === 0 ? null : Math.max(...times));
  }
});

test("the goal is a parameter, and events outside of experiments are ignored", () => {
  const within = (user, type) => event(type, { user }, { extensions: { experimentid: "e", cohortid: "a" } });
  const host = new Harness(source, { parameters: { goal: "signed.up", exposures: ["seen"] } });
  host.feed([within("u1", "seen"), within("u1", "signed.up"), within("u2", "signed.up"), event("seen", { user: "u3" }), within("", "seen")]);
  assert.deepEqual([host.row("cohorts", "e/a").users, host.row("cohorts", "e/a").converted], [1, 1]);
});
