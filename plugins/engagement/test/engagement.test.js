// The scores agree with the definition: a sum over all events of each user.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { checkDeterminism, event, Harness, parseTime, readNdjson } from "../../../sdk/js/src/testing.js";

const source = new URL("../engagement.js", import.meta.url);
const WEIGHTS = { "page.viewed": 1, "cart.added": 3, "order.placed": 10 };

test("scores agree with the sum over a user's events", () => {
  const events = readNdjson(readFileSync(new URL("../../funnel/events.ndjson", import.meta.url), "utf8"));
  const parameters = { half_life_days: 0.01 };
  checkDeterminism(source, events, { parameters });
  const host = new Harness(source, { parameters }).feed(events);
  assert.deepEqual(host.parked(), []);
  const rows = host.rows("users");
  const levels = { high: 0, medium: 0, low: 0 };
  const users = new Set(events.map(({ subject }) => subject));
  assert.deepEqual(Object.keys(rows).sort(), [...users].sort());
  for (const user of users) {
    const own = events.filter(({ subject }) => subject === user);
    const last = Math.max(...own.map(({ time }) => time));
    const score = own.reduce((sum, { type, time }) => sum + WEIGHTS[type] * 0.5 ** ((last - time) / (0.01 * 86_400e6)), 0);
    assert.ok(Math.abs(rows[user].score - score) < 1e-9 * score, `${user}: ${rows[user].score}, not ${score}`);
    assert.equal(rows[user].events, own.length);
    assert.equal(parseTime(rows[user].last), last);
    levels[rows[user].level] += 1;
  }
  for (const [level, count] of Object.entries(levels)) assert.equal(host.row("levels", level)?.users ?? 0, count, level);
});

test("a late event adds what is left of it, and weights are parameters", () => {
  const day = 86_400e6;
  const of = (type, time) => event(type, {}, { subject: "u", time });
  const host = new Harness(source, { parameters: { weights: { a: 8 }, half_life_days: 1 } }).feed([of("a", 2 * day), of("a", day), of("b", day)]);
  assert.equal(host.row("users", "u").score, 12);
  for (const parameters of [{ weights: { a: "x" } }, { half_life_days: 0 }, { medium: 30 }]) {
    assert.throws(() => new Harness(source, { parameters }), /Error/);
  }
});
