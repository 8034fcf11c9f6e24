// The sketches have the bytes and numbers of docs/sketches.md.
import assert from "node:assert/strict";
import test from "node:test";

import { Distinct, Percentiles } from "lantern-sdk";

import { xxh64Hex } from "../src/xxh64.js";

const encode = (text) => new TextEncoder().encode(text);
const counted = (n) => {
  const sketch = new Distinct();
  for (let i = 1; i <= n; i++) sketch.add(i);
  return sketch;
};

test("xxh64 gives the published hashes for every length of tail", () => {
  assert.equal(xxh64Hex(encode("")), "ef46db3751d8e999");
  assert.equal(xxh64Hex(encode("a")), "d24ec4f1a98c6e5b");
  assert.equal(xxh64Hex(encode("abc")), "44bc2cf5ad770999");
  assert.equal(xxh64Hex(encode("xxhash")), "32dd38952c4bc720");
});

test("distinct counts have the estimates and bytes of the vectors", () => {
  for (const [n, estimate, hash] of [
    [512, 512, "88ea476863efd049"],
    [513, 520, "856a5bdfbc2eea05"],
    [10_000, 9_767, "7cef205d879016b2"],
    [100_000, 100_105, "e32a3e3ec53236aa"],
    [1_000_000, 967_830, "65a1b5335f02e2ce"],
  ]) {
    const sketch = counted(n);
    assert.equal(sketch.estimate, estimate, `${n}`);
    assert.equal(xxh64Hex(sketch.encode()), hash, `${n}`);
  }
  assert.equal(JSON.stringify(new Distinct()), '{"estimate":0,"sketch":"AQ=="}');
  assert.equal(JSON.stringify(counted(3)), '{"estimate":3,"sketch":"ASYWfCr1YCG1Yha3tBJ2Ng=="}');
});

test("distinct counts are read back, and merging equals adding", () => {
  for (const [a, b] of [[3, 5], [300, 400], [600, 10], [10, 600], [2_000, 3_000]]) {
    const left = counted(a);
    const right = new Distinct();
    for (let i = 0; i < b; i++) right.add(`other ${i}`);
    const both = counted(a);
    for (let i = 0; i < b; i++) both.add(`other ${i}`);
    assert.deepEqual(Distinct.decode(left.encode()).merge(right).encode(), both.encode());
    assert.deepEqual(Distinct.fromJSON(both.toJSON()).encode(), both.encode());
    assert.deepEqual(both.merge(both).encode(), both.encode());
  }
});

test("a sketch that no values have is refused", () => {
  const dense = counted(600).encode();
  const bad = [
    [], [9], [1, 1], [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], [...new Uint8Array(2_561).with(0, 2)],
    [...dense, 0], [...dense.with(1, 255)],
  ];
  for (const bytes of bad) assert.throws(() => Distinct.decode(Uint8Array.from(bytes)), /the sketch/);
  const form = counted(3).toJSON();
  assert.throws(() => Distinct.fromJSON({ ...form, estimate: 4 }), /another estimate/);
  assert.throws(() => Distinct.fromJSON({ ...form, more: 1 }), /the sketch/);
  assert.throws(() => Distinct.fromJSON({ ...form, sketch: `${form.sketch.slice(0, -2)}` }), /the sketch/);
});

test("percentiles have the numbers and bytes of the vectors", () => {
  const of = (...values) => values.reduce((sketch, value) => sketch.add(value), new Percentiles());
  const json = (sketch) => JSON.stringify(sketch.toJSON(), (_, value) => (typeof value === "bigint" ? `#${value}#` : value)).replaceAll(/"#|#"/g, "");
  assert.equal(json(of()), '{"count":0,"min":null,"p50":null,"p75":null,"p90":null,"p95":null,"p99":null,"max":null,"sketch":"Aw=="}');
  assert.equal(json(of(3, 1, 2)), '{"count":3,"min":1,"p50":2,"p75":3,"p90":3,"p95":3,"p99":3,"max":3,"sketch":"AwIGgR0BAAEAAQ=="}');
  const wide = of(-(2n ** 63n), -1000, -1, 0, 1000, 1_000_000, 2n ** 63n - 1n);
  const expected = '{"count":7,"min":-9223372036854775808,"p50":0,"p75":1003519,"p90":9187343239835811839,"p95":9187343239835811839,"p99":9187343239835811839,"max":9223372036854775807,"sketch":"A////////////wH+//////////8BAAHCGgG7AgEAAbwCAfwEAcQVAQ=="}';
  assert.equal(json(wide), expected);
  assert.equal(json(Percentiles.decode(wide.encode())), expected);
  const squares = new Percentiles();
  for (let i = 1; i <= 1_000; i++) squares.add(i * i);
  assert.deepEqual([50, 75, 90, 95, 99].map((p) => squares.percentile(p)), [250_879, 561_151, 806_911, 905_215, 978_943]);
  assert.equal(squares.encode().length, 998);
  assert.equal(xxh64Hex(squares.encode()), "b3b0e67a09c1a5af");
});

test("percentiles are within 1/128 of the value at their rank, and merging equals adding", () => {
  let seed = 12_345;
  const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31);
  for (let round = 0; round < 50; round++) {
    const values = Array.from({ length: 1 + (random() % 200) }, () => (random() - 2 ** 30) * 2 ** (random() % 20));
    const half = values.length >> 1;
    const all = values.reduce((sketch, value) => sketch.add(value), new Percentiles());
    const parts = [values.slice(0, half), values.slice(half)].map((part) => part.reduce((sketch, value) => sketch.add(value), new Percentiles()));
    assert.deepEqual(parts[0].merge(parts[1]).encode(), all.encode(), `seed 12345, round ${round}`);
    const sorted = values.toSorted((a, b) => a - b);
    for (const percent of [1, 50, 90, 99, 100]) {
      const exact = sorted[Math.max(1, Math.ceil((sorted.length * percent) / 100)) - 1];
      const found = all.percentile(percent);
      assert.ok(Math.abs(found - exact) <= Math.abs(exact) / 128, `${found} for ${exact}`);
    }
  }
});

test("fractions are rounded away from zero at a half, and what does not fit is not added", () => {
  const sketch = new Percentiles();
  assert.ok(sketch.addNumber(1.25, 10));
  assert.equal(sketch.max, 13);
  assert.ok(sketch.addNumber(-1.25, 10));
  assert.equal(sketch.min, -13);
  assert.ok(!sketch.addNumber(Infinity, 1));
  assert.ok(!sketch.addNumber(9.3e18, 1));
  assert.equal(sketch.count, 2);
  assert.throws(() => sketch.add(1.5), /not an integer/);
  assert.equal(sketch.classOf(13, 2), 1);
});

test("percentiles that no values have are refused", () => {
  const good = new Percentiles().add(5).add(700).encode();
  for (const bytes of [[], [4], [3, 0], [3, 2, 2, 129, 29], [...good, 0], [3, 2, 6, 129, 29, 1], [3, 128, 0, 0, 128, 29, 1]]) {
    assert.throws(() => Percentiles.decode(Uint8Array.from(bytes)), /the sketch/, `${bytes}`);
  }
  const form = new Percentiles().add(5).toJSON();
  assert.throws(() => Percentiles.fromJSON({ ...form, p50: 6 }), /other numbers/);
});

test("what a row shows is what each method returns, after every kind of change", () => {
  let seed = 20_261_130;
  const random = (below) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  let percentiles = new Percentiles();
  let distinct = new Distinct();
  for (let step = 0; step < 300; step++) {
    for (let i = 0; i < 5; i++) {
      percentiles.add((random(2_000) - 500) * 10 ** random(4), 1 + random(3));
      distinct.add(random(3_000));
    }
    if (step === 200) percentiles.add(7, Number.MAX_SAFE_INTEGER);
    if (step === 250) percentiles.merge(percentiles);
    const { sketch, ...numbers } = percentiles.toJSON();
    const shown = Object.fromEntries([50, 75, 90, 95, 99].map((percent) => [`p${percent}`, percentiles.percentile(percent)]));
    assert.deepEqual(numbers, { count: percentiles.count, min: percentiles.min, ...shown, max: percentiles.max }, `step ${step}`);
    assert.equal(sketch, Buffer.from(percentiles.encode()).toString("base64"), `step ${step}`);
    assert.equal(distinct.toJSON().sketch, Buffer.from(distinct.encode()).toString("base64"), `step ${step}`);
    // The next values are added to a sketch that was read from its row.
    if (step % 3 === 0) percentiles = Percentiles.fromJSON(percentiles.toJSON());
    if (step % 5 === 0) distinct = Distinct.fromJSON(distinct.toJSON());
  }
  assert.equal(typeof percentiles.count, "bigint");
  assert.ok(distinct.estimate > 512);
});
