// The tables agree with a separate computation over the text of the sample.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { checkDeterminism, event, Harness, parseTime, readNdjson } from "../../../sdk/js/src/testing.js";

const source = new URL("../rfm.js", import.meta.url);
const sample = readFileSync(new URL("../events.ndjson", import.meta.url), "utf8");
const DAY_MS = 86_400_000;

/** Customers and segments at the end of the sample, by the README. */
function expected() {
  const orders = sample.trim().split("\n").map((line) => JSON.parse(line));
  const newest = Math.max(...orders.map(({ time }) => Date.parse(time)));
  const watermark = Math.floor((newest - 2 * DAY_MS) / 3_600_000) * 3_600_000;
  const customers = {};
  const segments = {};
  for (const user of new Set(orders.map(({ data }) => data.user))) {
    const own = orders.filter(({ data }) => data.user === user);
    const last = Math.max(...own.map(({ time }) => Date.parse(time)));
    const cents = own.reduce((sum, { data }) => sum + data.cents, 0);
    const ageDays = (watermark - last) / DAY_MS;
    const r = ageDays < 7 ? 5 : ageDays < 30 ? 4 : ageDays < 90 ? 3 : ageDays < 180 ? 2 : 1;
    const f = own.length < 2 ? 1 : own.length < 4 ? 2 : own.length < 8 ? 3 : own.length < 16 ? 4 : 5;
    const m = cents < 5_000 ? 1 : cents < 20_000 ? 2 : cents < 50_000 ? 3 : cents < 100_000 ? 4 : 5;
    const segment = {
      54: "champions", 55: "champions", 44: "champions", 45: "champions", 53: "loyal", 52: "loyal", 43: "loyal", 42: "loyal", 51: "new", 41: "new",
      35: "loyal", 34: "loyal", 33: "loyal", 32: "promising", 31: "promising",
    }[10 * r + f] ?? (f >= 3 ? "at risk" : "lost");
    customers[user] = { last, orders: own.length, cents, r, f, m, segment };
    segments[segment] ??= { segment, customers: 0, cents: 0 };
    segments[segment].customers += 1;
    segments[segment].cents += cents;
  }
  return { customers, segments };
}

test("customers and segments agree with a separate computation", () => {
  const { customers, segments } = expected();
  const events = readNdjson(sample);
  checkDeterminism(source, events);
  const host = new Harness(source).feed(events);
  assert.deepEqual(host.parked(), []);
  assert.deepEqual(host.timerFailures, []);
  assert.ok(Object.keys(segments).length >= 5, Object.keys(segments).join());
  const rows = host.rows("customers");
  assert.deepEqual(Object.keys(rows).sort(), Object.keys(customers).sort());
  for (const [user, wanted] of Object.entries(customers)) {
    const { last, orders, cents, r, f, m, segment } = rows[user];
    assert.deepEqual({ last: parseTime(last) / 1_000, orders, cents, r, f, m, segment }, wanted, user);
  }
  const found = Object.fromEntries(Object.entries(host.rows("segments")).filter(([, { customers }]) => customers > 0));
  assert.deepEqual(found, Object.fromEntries(Object.entries(segments).sort()));
});

test("recency falls without events of the customer, and limits are parameters", () => {
  const order = (user, time) => event("order.placed", { user, cents: 100 }, { time });
  const host = new Harness(source).feed([order("u", "2026-01-01T00:00:00Z")]);
  assert.equal(host.row("customers", "u").r, 5);
  host.feed([order("other", "2026-01-09T23:00:00Z")]);
  assert.equal(host.row("customers", "u").r, 5);
  host.feed([order("other", "2026-01-10T01:00:00Z")]);
  assert.equal(host.row("customers", "u").r, 4);
  host.advanceTo("2027-01-01T00:00:00Z");
  assert.deepEqual([host.row("customers", "u").r, host.row("customers", "u").segment], [1, "lost"]);
  for (const parameters of [{ orders: [1, 2, 3] }, { cents: [4, 3, 2, 1] }, { recency_days: [0, 1, 2, 3] }]) {
    assert.throws(() => new Harness(source, { parameters }), /four positive numbers/);
  }
});
