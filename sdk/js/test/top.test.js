// The N largest values of each group.
import assert from "node:assert/strict";
import test from "node:test";

import { day, integer, iso, projection, table, text, timestamp, topN } from "lantern-sdk";
import { event, Harness } from "lantern-sdk/testing";

/** Pseudo-random integers below `bound`, the same for the same seed. */
function randomOf(seed) {
  let state = seed * 2 + 1;
  return (bound) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % bound;
  };
}

test("the example of the documentation ranks the products of a day", () => {
  const best = table("best", { day: timestamp, rank: integer, product: text, cents: integer }, { key: ["day", "rank"] });
  const ranking = topN("ranking", 3);
  const host = new Harness(projection({
    name: "best-sellers",
    subscribes: ["order.placed"],
    members: { product: text, cents: integer },
    apply(event) {
      const today = day(event.time);
      if (ranking.add(iso(today), event.members.product, event.members.cents)) {
        ranking.largest(iso(today)).forEach(({ item, value }, i) => best.put(today, i + 1, { product: item, cents: value }));
      }
    },
  }));
  const orders = [["cup", 300], ["lamp", 900], ["pen", 200], ["cup", 700], ["mat", 250]];
  host.feed(orders.map(([product, cents]) => event("order.placed", { product, cents }, { time: "2026-03-01T12:00:00Z" })));
  assert.deepEqual(Object.values(host.rows("best")).map(({ product, cents }) => [product, cents]), [["cup", 1_000], ["lamp", 900], ["mat", 250]]);
});

test("the N largest are those of all values, whatever changes and fails", () => {
  const items = ["a", "b", "a/b", "ä", "\u{1f600}", "\uffee", "c%", "d", "e", "f"];
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomOf(seed);
    const count = 1 + random(4);
    const ranking = topN("ranking", count);
    const seen = table("seen", { changed: text, largest: text, values: text });
    const build = projection({
      name: "ranked",
      attributes: ["id"],
      subscribes: ["*"],
      onFailure: "park-event",
      apply(event) {
        const { action, group, item, value, fails } = event.data;
        const changed = action === "clear" ? ranking.clear(group) : ranking[action](group, item, value);
        if (fails) throw new Error("refused");
        seen.put(event.id, {
          changed: String(changed),
          largest: JSON.stringify(ranking.largest(group).map(({ item, value }) => [item, value])),
          values: JSON.stringify(items.map((item) => ranking.value(group, item))),
        });
      },
    });
    const groups = { "g/1": new Map(), g2: new Map() };
    const expected = {};
    const events = [];
    const bytes = (text) => Buffer.from(text, "utf8");
    const largestOf = (group) => [...groups[group]].sort(([a, x], [b, y]) => y - x || Buffer.compare(bytes(a), bytes(b))).slice(0, count);
    for (let i = 0; i < 120; i++) {
      const group = random(2) === 0 ? "g/1" : "g2";
      const item = items[random(items.length)];
      const value = random(9) === 0 ? (random(2) === 0 ? -1 : 1) * (2 ** 53 - 1) : random(40) - 20;
      const action = ["add", "add", "set", "set", "remove", "clear"][random(random(8) === 0 ? 6 : 5)];
      const values = groups[group];
      const sum = (values.get(item) ?? 0) + value;
      const tooLarge = action === "add" && !Number.isSafeInteger(sum);
      const fails = random(5) === 0 || tooLarge;
      events.push(event("change", { action, group, item, value, fails }, { id: `e${i}` }));
      if (fails) continue;
      const before = JSON.stringify(largestOf(group));
      if (action === "add") values.set(item, sum);
      else if (action === "set") values.set(item, value);
      else if (action === "remove") values.delete(item);
      else values.clear();
      const largest = JSON.stringify(largestOf(group));
      expected[`e${i}`] = {
        changed: String(action === "clear" ? undefined : before !== largest), largest,
        values: JSON.stringify(items.map((item) => values.get(item) ?? null)),
      };
    }
    for (const batchSize of [1, 7, 1_000]) {
      const host = new Harness(build, { batchSize }).feed(events);
      assert.deepEqual(host.rows("seen"), Object.fromEntries(Object.entries(expected).sort()), `seed ${seed}, batches of ${batchSize}`);
      assert.equal(host.parked().length, events.length - Object.keys(expected).length);
    }
    // Groups without items leave no rows.
    const last = new Harness(build).feed([...events, ...Object.keys(groups).map((group) => event("change", { action: "clear", group }, { id: "z" }))]);
    assert.equal(last.rawRows("ranking").size, 0, `seed ${seed}`);
  }
});

test("what cannot be ranked is refused", () => {
  assert.throws(() => topN("ranking", 0), /not a number of items/);
  const ranking = topN("ranking", 1);
  const host = new Harness(projection({
    name: "wrong",
    subscribes: ["*"],
    onFailure: "park-event",
    apply(event) {
      ranking.set("g", "a", event.data);
    },
  }));
  host.feed([event("x", 1.5), event("x", '"many"'), event("x", 2)]);
  assert.deepEqual(host.parked().map(({ offset }) => offset), [0, 1]);
  assert.match(host.parked()[0].reason, /the value of "a" is 1.5, not an integer/);
});
