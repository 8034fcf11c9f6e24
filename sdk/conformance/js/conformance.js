// The conformance projection in JavaScript; sdk/conformance/README.md is its definition.

import {
  bigint, boolean, distinct, hopping, integer, inTenant, json, minute, number, openSessions, openWindows, optional,
  parameters, parseTime, percentiles, projection, rawJson, recent, seconds, table, text, timestamp, timestampText, timeZone,
} from "lantern-sdk";

const settings = parameters({ zone: "Europe/Berlin", factor: 1 });
let zone;
let factor;

const sums = table("sums", {
  key: text, events: bigint("sum"), total: bigint("sum"), least: optional(bigint("min")), greatest: optional(bigint("max")),
  last: timestamp("newest"),
}, { newestBy: "last" });
const values = table("values", {
  id: text, n: optional(bigint), x: optional(number), s: optional(text), b: optional(boolean), t: optional(timestampText),
  j: optional(rawJson),
});
const scans = table("scans", { id: text, count: integer, keys: json, total: bigint });
const fired = table("fired", { key: text, at: timestamp, watermark: timestamp, times: integer("sum") });
const tenants = table("tenants", { subject: text, events: integer("sum"), closed: integer("sum") }, { perTenant: true });
const minutes = table("minutes", { start: timestamp, user: text, events: integer("sum") }, { key: ["start", "user"] });
const hops = table("hops", { start: timestamp, end: timestamp, user: text, total: bigint("sum") }, { key: ["start", "user"] });
const sessions = table("sessions", { start: timestamp, end: timestamp, user: text, events: integer("sum") }, { key: ["start", "user"] });
const sliding = table("sliding", { user: text, events: integer, total: bigint }, { key: "user" });
const settled = table("settled", { at: timestamp, user: text, total: bigint }, { key: ["at", "user"] });
const late = table("late", { user: text, hops: integer("sum"), sessions: integer("sum"), sliding: integer("sum") }, { key: "user" });
const days = table("days", { day: text, start: timestamp, end: timestamp, events: integer("sum") }, { key: "day" });
const hours = table("hours", { start: timestamp, end: timestamp, events: integer("sum") }, { key: "start" });
const sketches = table("sketches", { key: text, texts: distinct, values: percentiles, scaled: percentiles });
const seen = table("seen", { key: text }, { private: true });
const openHops = openWindows("open_hops", { total: bigint });
const openVisits = openSessions("open_sessions", { events: integer }, (earlier, later) => {
  earlier.events += later.events;
});
const latest = recent("recent", { n: bigint });

/** Sums and products are integers of 64 bits. */
function int64(value) {
  if (value < -(2n ** 63n) || value >= 2n ** 63n) throw new Error(`${value} is not an integer of 64 bits`);
  return value;
}

function required(value, name) {
  if (value === null) throw new Error(`\`${name}\` is missing`);
  return value;
}

/** The required member `key`. It can be the key of a row: not empty and without U+0000. */
function keyOf(event) {
  const key = required(event.members.key, "key");
  if (key === "" || key.includes("\0")) throw new Error(`the key ${JSON.stringify(key)} is not possible`);
  return key;
}

const total = (slide) => slide.values.reduce((sum, { n }) => int64(sum + n), 0n);

function add(event, key, n) {
  const row = sums.row(key);
  row.key = key;
  row.events += 1n;
  row.last = event.time;
  if (n === null) return;
  const value = int64(n * factor);
  row.total = int64(row.total + value);
  if (row.least === null || value < row.least) row.least = value;
  if (row.greatest === null || value > row.greatest) row.greatest = value;
}

function remind(event) {
  const key = keyOf(event);
  const { seconds: delay } = event.members;
  if (delay === null) event.cancelTimer(key);
  else event.setTimer(Number(int64(BigInt(event.time) + int64(delay * 1_000_000n))), key);
}

function scan(event) {
  const { start, end, limit, reverse } = event.members;
  required(start, "start");
  required(end, "end");
  if (required(limit, "limit") < 0 || limit > 1_000) throw new Error(`the limit ${limit} is not from 0 to 1,000`);
  const found = sums.scan({ start, end, limit, reverse: reverse === true });
  scans.put(event.id, {
    id: event.id,
    count: found.length,
    keys: found.map(({ key }) => key),
    total: found.reduce((sum, { row }) => int64(sum + row.total), 0n),
  });
}

function visit(event) {
  const user = keyOf(event);
  const n = event.members.n ?? 1n;
  minutes.row(minute(event.time), user).events += 1;
  const lateHops = openHops.add(event, hopping("60s", "20s"), user, (value) => {
    value.total = int64(value.total + n);
  });
  const session = openVisits.add(event, "30s", user, (value) => {
    value.events += 1;
  });
  const slide = latest.add(event, "60s", user, { n });
  if (slide !== null) {
    const row = sliding.row(user);
    row.events = slide.values.length;
    row.total = total(slide);
  }
  if (lateHops > 0 || session === null || slide === null) {
    const row = late.row(user);
    row.hops += lateHops;
    row.sessions += session === null ? 1 : 0;
    row.sliding += slide === null ? 1 : 0;
  }
}

function inZone(event) {
  const { t } = event.members;
  const time = t === null ? event.time : parseTime(t);
  const day = zone.day(time);
  let row = days.row(zone.date(time));
  row.start = day.start;
  row.end = day.end;
  row.events += 1;
  const hour = zone.hour(time);
  row = hours.row(hour.start);
  row.end = hour.end;
  row.events += 1;
}

function sketch(event) {
  const key = keyOf(event);
  const { s, n, x } = event.members;
  const row = sketches.row(key);
  row.key = key;
  if (s !== null) row.texts.add(s);
  if (n !== null) row.values.add(n);
  if (x !== null && !row.scaled.addNumber(x, 1_000)) throw new Error(`${x} is too large`);
}

const handlers = {
  "c.add": (event) => add(event, keyOf(event), event.members.n),
  "c.delete": (event) => sums.delete(keyOf(event)),
  "c.once"(event) {
    const key = keyOf(event);
    if (seen.has(key)) return;
    seen.put(key, { key });
    add(event, key, null);
  },
  "c.value"(event) {
    const { n, x, s, b, t, j } = event.members;
    values.put(event.id, { id: event.id, n, x, s, b, t, j });
  },
  "c.scan": scan,
  "c.remind": remind,
  "c.emit"(event) {
    const { key, n } = event.members;
    required(key, "key");
    if (required(n, "n") > 100n) throw new Error(`${n} events are too many`);
    for (let i = 0; i < n; i++) event.emit("conformance.out", { key, i }, { subject: event.subject });
  },
  "c.fail"(event) {
    const key = keyOf(event);
    const { fail } = event.members;
    add(event, key, null);
    sums.delete("gone");
    event.emit("conformance.out", { key, i: 0 }, { subject: event.subject });
    event.setTimer(event.time + seconds(5), key);
    if (fail === true) throw new Error("it fails as it should");
  },
  "c.tenant"(event) {
    const { tenant, subject } = event;
    if (tenant === "" || subject === "") return;
    const row = tenants.row(subject);
    row.subject = subject;
    row.events += 1;
    event.setTimer(event.time + seconds(10), inTenant(tenant, subject));
  },
  "c.visit": visit,
  "c.day": inZone,
  "c.sketch": sketch,
};

export default projection({
  name: "conformance",
  version: "1.0.0",
  description: "The same tables in every language",
  subscribes: ["c.*"],
  attributes: ["id", "subject", "tenant"],
  eventTime: { lateness: "10s", tick: "5s" },
  onFailure: "park-event",
  emits: ["conformance.out"],
  members: {
    key: optional(text), s: optional(text), start: optional(text), end: optional(text), n: optional(bigint),
    limit: optional(integer), seconds: optional(bigint), x: optional(number), b: optional(boolean), reverse: optional(boolean),
    fail: optional(boolean), t: optional(timestampText), j: optional(rawJson),
  },

  setup() {
    if (!Number.isSafeInteger(settings.factor)) throw new Error(`the factor ${settings.factor} is not an integer`);
    zone = timeZone(settings.zone);
    factor = BigInt(settings.factor);
  },

  apply(event) {
    handlers[event.type]?.(event);
  },

  onTimer(timer) {
    for (const { start, end, key, value } of openHops.close(timer)) hops.put(start, key, { end, total: value.total });
    for (const { start, end, key, value } of openVisits.close(timer)) sessions.put(start, key, { end, events: value.events });
    const user = latest.advance(timer);
    if (user !== null) {
      for (const slide of user.settled) settled.put(slide.at, user.key, { total: total(slide) });
      const row = sliding.row(user.key);
      row.events = user.current.values.length;
      row.total = total(user.current);
    }
    if (timer.key.startsWith("\u0001")) return;
    if (timer.tenant !== "") {
      tenants.row(timer.key).closed += 1;
      return;
    }
    const row = fired.row(timer.key);
    row.key = timer.key;
    row.at = timer.at;
    row.watermark = timer.watermark;
    row.times += 1;
    timer.emit("conformance.out", { timer: timer.key }, { subject: timer.key, time: timer.at });
  },
});
