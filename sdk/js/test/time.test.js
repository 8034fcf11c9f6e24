// Times, durations, keys and time zones.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import {
  day, duration, floor, hour, iso, isoDate, keyParts, minute, narrow, padded, parseTime, second, TimeZone, timeZone, zoneNames,
} from "lantern-sdk";

import { endOfPrefix, fromSortable, keyOf, sortable } from "../src/keys.js";
import { ZONES } from "../src/zones.js";

test("known times are written and read", () => {
  for (const [micros, written] of [
    [0, "1970-01-01T00:00:00Z"], [-1, "1969-12-31T23:59:59.999999Z"], [951_782_400_000_000, "2000-02-29T00:00:00Z"],
    [1_709_164_800_001_000, "2024-02-29T00:00:00.001Z"], [4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"],
    [253_402_300_799_000_000, "9999-12-31T23:59:59Z"], [-62_167_219_200_000_000, "0000-01-01T00:00:00Z"],
  ]) {
    assert.equal(iso(micros), written);
    assert.equal(parseTime(written), micros);
  }
  assert.equal(parseTime("2012-12-31t19:00:00.5-05:00"), parseTime("2013-01-01T00:00:00.500Z"));
  assert.equal(parseTime("2016-12-31T23:59:60Z"), parseTime("2016-12-31T23:59:59Z"));
  assert.equal(isoDate(parseTime("2026-03-01T23:59:59Z")), "2026-03-01");
});

test("what is no time is refused", () => {
  for (const bad of [
    "", "2013-01-01", "2013-02-29T00:00:00Z", "2013-13-01T00:00:00Z", "2013-01-00T00:00:00Z", "2013-01-01T24:00:00Z", "2013-01-01T00:00:00",
    "2013-01-01T00:00:00.Z", "2013-01-01T00:00:00Zulu", "2013-01-01T00:00:00+1:00", "2013-1-01T00:00:00Z", "٢٠١٣-01-01T00:00:00Z",
  ]) assert.throws(() => parseTime(bad), /RFC 3339/, bad);
  assert.throws(() => iso(1.5), /not a time/);
});

test("times agree with Date", () => {
  let seed = 99;
  for (let i = 0; i < 2_000; i++) {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    const ms = (seed - 2 ** 30) * 8_000 + (seed % 1_000);
    if (Math.abs(ms) > 9e12) continue;
    assert.equal(parseTime(iso(ms * 1_000)), ms * 1_000);
    assert.equal(new Date(ms).toISOString().replace(".000Z", "Z"), iso(ms * 1_000), `seed 99, ${ms}`);
  }
});

test("times are rounded down, also before 1970", () => {
  const time = parseTime("2026-03-01T12:34:56.789Z");
  assert.deepEqual([second, minute, hour, day].map((to) => iso(to(time))), ["2026-03-01T12:34:56Z", "2026-03-01T12:34:00Z", "2026-03-01T12:00:00Z", "2026-03-01T00:00:00Z"]);
  assert.equal(iso(minute(-1)), "1969-12-31T23:59:00Z");
  assert.equal(iso(floor(time, "15m")), "2026-03-01T12:30:00Z");
});

test("durations are microseconds or text", () => {
  assert.deepEqual(["250ms", "90s", "1h30m", "7d", "10us", "1.5s", 42].map(duration), [250_000, 90_000_000, 5_400_000_000, 604_800_000_000, 10, 1_500_000, 42]);
  for (const bad of ["", "5", "5 s", "s", "-1s", -1, 1.5, null, "1w"]) assert.throws(() => duration(bad), /not a duration/, `${bad}`);
});

test("integers in keys sort as numbers do", () => {
  const numbers = [-1_999, -10, -7, 0, 7, 10, 1_999, 2n ** 60n];
  const keys = numbers.map(narrow);
  assert.deepEqual(keys.slice(0, 7), ["W8000", "Y89", "Z2", "a0", "a7", "b10", "d1999"]);
  assert.deepEqual(keys.toSorted(), keys);
  assert.equal(padded(42, 5), "00042");
  assert.throws(() => padded(-1), /not an integer/);
  assert.throws(() => narrow(1.5), /not an integer/);
});

test("parts of keys are escaped and split again", () => {
  assert.equal(keyOf(["a/b", "100%", { start: 0, end: 1 }]), "a%2Fb/100%25/1970-01-01T00:00:00Z");
  assert.deepEqual(keyParts("a%2Fb/100%25"), ["a/b", "100%"]);
  assert.equal(keyOf(["a/b"]), "a/b");
  assert.throws(() => keyOf([5]), /write `iso/);
  assert.throws(() => keyOf([undefined]), /cannot be part of a key/);
});

test("the end of a prefix is after all keys that begin with it", () => {
  assert.equal(endOfPrefix("ab"), "ac");
  assert.equal(endOfPrefix("a\u{10ffff}"), "b");
  assert.equal(endOfPrefix("a\ud7ff"), "a\ue000");
  assert.equal(endOfPrefix(""), "");
});

test("sortable times order as time does", () => {
  const times = [-(2 ** 60), -1, 0, 1, 1_772_366_820_000_000, 2 ** 53];
  const keys = times.map(sortable);
  assert.deepEqual(keys.toSorted(), keys);
  assert.deepEqual(keys.map(fromSortable), times);
});

test("the table of zones is that of the Rust SDK", () => {
  assert.equal(ZONES, readFileSync(new URL("../../rust/zones.bin", import.meta.url)).toString("base64"));
  assert.ok(zoneNames().length > 400);
});

test("offsets of all zones agree with Intl since 1990", () => {
  // A few zones have other data in Node's database than in the table. The test counts them.
  let compared = 0;
  let differing = 0;
  for (const name of zoneNames().filter((_, i) => i % 7 === 0)) {
    let format;
    try {
      format = new Intl.DateTimeFormat("en-US", { timeZone: name, timeZoneName: "longOffset" });
    } catch {
      continue;
    }
    const zone = timeZone(name);
    for (let year = 1990; year < 2040; year += 3) {
      for (const month of [0, 3, 6, 9]) {
        const ms = Date.UTC(year, month, 15, 12);
        const offset = format.formatToParts(ms).find(({ type }) => type === "timeZoneName").value;
        const [, sign, hours, minutes, seconds = "0"] = /GMT(?:([+-])(\d\d):(\d\d)(?::(\d\d))?)?/.exec(offset);
        const expected = sign === undefined ? 0 : (sign === "-" ? -1 : 1) * (Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds));
        compared += 1;
        if (zone.offsetSeconds(ms * 1_000) !== expected) differing += 1;
      }
    }
  }
  assert.ok(compared > 3_000, `${compared}`);
  assert.ok(differing * 100 < compared, `${differing} of ${compared}`);
});

test("days of a zone begin at its midnight, and have 23 or 25 hours when the clocks change", () => {
  const berlin = timeZone("Europe/Berlin");
  const noon = parseTime("2026-03-29T12:00:00Z");
  assert.deepEqual([berlin.day(noon).start, berlin.day(noon).end].map(iso), ["2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"]);
  assert.equal(berlin.date(noon), "2026-03-29");
  assert.deepEqual(berlin.local(noon), { year: 2026, month: 3, day: 29, weekday: "sunday", hour: 14, minute: 0, second: 0 });
  assert.deepEqual([berlin.week(noon).start, berlin.month(noon).start, berlin.year(noon).start].map(iso), ["2026-03-22T23:00:00Z", "2026-02-28T23:00:00Z", "2025-12-31T23:00:00Z"]);
  assert.equal(iso(timeZone("Asia/Kathmandu").hour(noon).start), "2026-03-29T11:15:00Z");
  assert.equal(timeZone("Europe/Berlin").offsetSeconds(parseTime("2190-07-01T00:00:00Z")), 7_200);
  assert.equal(TimeZone.fixed(-3_600).date(0), "1969-12-31");
  assert.throws(() => timeZone("Berlin"), /not a time zone/);
});

test("days of every zone follow one another without gaps", () => {
  for (const name of zoneNames().filter((_, i) => i % 11 === 0)) {
    const zone = timeZone(name);
    let window = zone.day(parseTime("2010-12-20T00:00:00Z"));
    for (let i = 0; i < 400; i++) {
      const next = zone.day(window.end);
      assert.equal(next.start, window.end, `${name} after ${iso(window.start)}`);
      assert.ok(zone.day(window.end - 1).start === window.start);
      window = next;
    }
  }
});
