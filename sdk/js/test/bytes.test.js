// Rows and columns have the same bytes as in other languages.
import assert from "node:assert/strict";
import test from "node:test";

import { RawJson, distinct, integer, json, number, optional, percentiles, rawJson, text, timestamp, bigint, boolean, timestampText } from "lantern-sdk";

import { column, decode, encode, quick, texts } from "../src/bytes.js";
import { Codec } from "../src/codec.js";
import { fieldsOf } from "../src/fields.js";
import { canonicalJson, canonicalText, compareUtf8, memberTexts, numberText } from "../src/json.js";

const SAMPLES = ["", "plain", "ä", "日本", "😀", "a\u0000b", "\u007f\u0080\u07ff\u0800\uffff", "x".repeat(5_000), "é".repeat(3_000)];

test("text becomes the same UTF-8 with and without TextEncoder", () => {
  Uint8Array.fromBase64 ??= (base64) => Uint8Array.from(Buffer.from(base64, "base64"));
  Uint8Array.prototype.toBase64 ??= function () {
    return Buffer.from(this).toString("base64");
  };
  for (const sample of SAMPLES) {
    assert.deepEqual(Uint8Array.from(quick.encode(sample)), Uint8Array.from(encode(sample)), sample);
    assert.equal(quick.decode(encode(sample)), sample);
    assert.equal(decode(encode(sample)), sample);
  }
  assert.throws(() => quick.decode(Uint8Array.of(0xff)));
});

test("columns are read as they were written", () => {
  for (const values of [[], [""], SAMPLES, SAMPLES.filter((sample) => /^[ -~]*$/.test(sample)), ["ä", "", "b"]]) {
    const written = column(values);
    assert.equal(written.ends.at(-1) ?? 0, written.bytes.length);
    assert.deepEqual(texts(written), values);
  }
});

test("numbers have the shortest text, with a fraction or an exponent", () => {
  const expected = {
    "0.0": 0, "-0.0": -0, "1.0": 1, "1.5": 1.5, "-7.0": -7, "0.1": 0.1, "100.25": 100.25, "0.00012": 0.00012, "0.00001": 1e-5, "1e-6": 1e-6,
    "1000000000000000.0": 1e15, "9999999999999998.0": 9_999_999_999_999_998, "1e+16": 1e16, "1.2345678901234568e+17": 123_456_789_012_345_678,
    "5e-324": 5e-324, "1.7976931348623157e+308": Number.MAX_VALUE, "-2.5e-7": -2.5e-7, "1e+21": 1e21, "123456789.125": 123_456_789.125,
  };
  for (const [written, value] of Object.entries(expected)) {
    assert.equal(numberText(value), written);
    assert.ok(Object.is(Number(written), value));
  }
});

test("JSON is canonical: members sorted by UTF-8, numbers of their kind", () => {
  assert.equal(canonicalJson({ b: 1, a: [1.5, -0, 2 ** 60], "\uffff": 1, "\u{10000}": 2, gone: undefined }), '{"a":[1.5,-0.0,1.152921504606847e+18],"b":1,"\uffff":1,"\u{10000}":2}');
  assert.equal(canonicalText(' { "b" : [ 1.0 , 1E2, -0, 18446744073709551615, 18446744073709551616 ], "a" : "\\u00e9\\/" , "b2": {}, "a": null } '), '{"a":null,"b":[1.0,100.0,-0.0,18446744073709551615,1.8446744073709552e+19],"b2":{}}');
  for (const value of [NaN, Infinity, undefined, () => 1, Symbol("s"), new Date(0), new Map(), "\ud800", { a: [new Set()] }]) {
    assert.throws(() => canonicalJson(value), /ProjectionError|cannot be stored/);
  }
  const deep = (levels) => "[".repeat(levels) + "]".repeat(levels);
  assert.equal(canonicalText(deep(64)), deep(64));
  assert.throws(() => canonicalText(deep(65)), /64 levels/);
  assert.throws(() => canonicalJson(JSON.parse(deep(65))), /64 levels/);
  for (const bad of ["", "{", "[1,]", '{"a" 1}', "01", "1.", "tru", '"\u0001"', "1 2", "'a'"]) assert.throws(() => canonicalText(bad), bad);
});

test("keys are ordered by their UTF-8 bytes", () => {
  const keys = ["", "a", "a/b", "ab", "ä", "\ud7ff", "\ue000", "\uffff", "\u{10000}", "\u{10ffff}"];
  assert.deepEqual(keys.toReversed().sort(compareUtf8), keys);
  assert.deepEqual(keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))), keys);
});

test("members of an object are found with the text of their values", () => {
  const twice = [];
  const found = memberTexts('{"a":1.0, "b" : {"a":[1,{}]}, "\\"c":"x\\"}", "a":2}', (name) => twice.push(name));
  assert.deepEqual([...found], [["a", "2"], ["b", '{"a":[1,{}]}'], ['"c', '"x\\"}"']]);
  assert.deepEqual(twice, ["a"]);
  assert.throws(() => memberTexts("[1]"), /not JSON/);
});

const FIELDS = fieldsOf({
  count: integer("sum"), big: bigint("sum"), share: number, name: text, ok: boolean, at: timestamp, late: timestampText, doc: json, raw: rawJson,
  users: distinct, delays: percentiles, note: optional(text),
}, "row");

function fullRow(codec) {
  const row = codec.fresh();
  Object.assign(row, {
    count: 2 ** 53 - 1, big: 18_446_744_073_709_551_615n, share: 1, name: 'a"\\\n\u0001ü', ok: true, at: 1_772_366_820_000_250,
    late: "9999-12-30T21:59:59.999999Z", doc: { b: 1, a: [null] }, raw: new RawJson('{"b":1.0,"a":9007199254740993}'),
  });
  row.users.add("u1");
  row.delays.add(5);
  return row;
}

test("a row of all kinds has the expected bytes and is read back", () => {
  const codec = new Codec(FIELDS);
  const row = fullRow(codec);
  codec.check(row);
  const written = codec.encode(row);
  assert.equal(
    written,
    '{"count":9007199254740991,"big":18446744073709551615,"share":1.0,"name":"a\\"\\\\\\n\\u0001ü","ok":true,"at":"2026-03-01T12:07:00.000250Z","late":"9999-12-30T21:59:59.999999Z","doc":{"a":[null],"b":1},"raw":{"a":9007199254740993,"b":1.0},"users":{"estimate":1,"sketch":"AcVQ3R07"},"delays":{"count":1,"min":5,"p50":5,"p75":5,"p90":5,"p95":5,"p99":5,"max":5,"sketch":"AwoKhR0B"},"note":null}'
      .replace(/"AcV[^"]*"/, JSON.stringify(row.users.toJSON().sketch)),
  );
  const back = codec.decode(written);
  codec.check(back);
  assert.equal(codec.encode(back), written);
  assert.equal(back.big, row.big);
  assert.equal(back.raw.text, row.raw.text);
});

test("values that cannot be read back are refused with the field's name", () => {
  const codec = new Codec(FIELDS);
  const wrong = {
    count: [1.5, 2 ** 53, NaN, "1", 1n, null, undefined], big: [1, 2n ** 64n, -(2n ** 63n) - 1n], share: [NaN, Infinity, "1", 1n],
    name: [1, "\ud800", undefined, null], ok: [1, "true"], at: ["yesterday", 1.5, 253_402_207_200_000_000, -62_135_596_900_000_000, null],
    late: ["9999-12-30T22:00:00Z", 5], doc: [undefined, NaN, { a: 1n }, new RawJson("1"), { f() {} }], raw: [1, "1"], users: [{}, null], delays: [[]], note: [1],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const row = fullRow(codec);
      row[name] = value;
      assert.throws(() => codec.check(row), (error) => error.message.includes(`field \`${name}\``), `${name}: ${String(value)}`);
    }
  }
  const row = fullRow(codec);
  assert.throws(() => {
    row.nmae = 1;
  }, TypeError);
  assert.throws(() => codec.from({ nmae: "x" }), /did you mean `name`/);
  row.at = "2026-03-01T12:07:00+01:00";
  codec.check(row);
  assert.equal(row.at, 1_772_363_220_000_000);
});

test("a new row has zeros, and needs a value for fields without one", () => {
  const codec = new Codec(fieldsOf({ count: integer, big: bigint, name: text, at: timestamp }, "row"));
  const row = codec.fresh();
  assert.throws(() => codec.check(row), /`at` has no value/);
  row.at = 0;
  codec.check(row);
  assert.equal(codec.encode(row), '{"count":0,"big":0,"name":"","at":"1970-01-01T00:00:00Z"}');
});
