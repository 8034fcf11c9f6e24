// Days, hours, weeks and months of a time zone. The format of the table is described in
// sdk/rust/src/zone/table.rs.

import { fromBase64 } from "./base64.js";
import { ProjectionError, show } from "./errors.js";
import { dateOf, dayOf } from "./time.js";
import { ZONES } from "./zones.js";

const MICROS = 1_000_000;
const DAY_US = 86_400 * MICROS;
const HOUR_US = 3_600 * MICROS;
/** The year up to which the changes by a rule are listed in memory. */
const LISTED_UNTIL = 2_101;
const UNIT_S = 30;
const WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

const modulo = (a, b) => a - Math.floor(a / b) * b;
const two = (number) => String(number).padStart(2, "0");

let table = null;

/** Where each zone's data is, and the data of all. */
function index() {
  if (table !== null) return table;
  const bytes = fromBase64(ZONES);
  const places = new Map();
  let at = 0;
  while (bytes[at] !== 0) {
    const length = bytes[at];
    const name = String.fromCharCode(...bytes.subarray(at + 1, at + 1 + length));
    at += 1 + length;
    places.set(name, [bytes[at] * 256 + bytes[at + 1], bytes[at + 2] * 256 + bytes[at + 3]]);
    at += 4;
  }
  table = { places, data: bytes.subarray(at + 1) };
  return table;
}

/** Names of all zones. */
export const zoneNames = () => [...index().places.keys()];

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  natural() {
    let value = 0;
    let unit = 1;
    while (this.at < this.bytes.length) {
      const byte = this.bytes[this.at++];
      value += (byte & 127) * unit;
      unit *= 128;
      if (byte < 128) break;
    }
    return value;
  }

  signed() {
    const value = this.natural();
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
  }

  day() {
    const clamp = (value, max) => Math.min(Math.max(value, 1), max);
    return { month: clamp(this.natural(), 12), week: clamp(this.natural(), 5), weekday: this.natural(), timeS: this.signed() };
  }
}

/** The moment of a yearly change, in seconds since 1970 by the clock before it. */
function yearly({ month, week, weekday, timeS }, year) {
  const first = dayOf(year, month, 1);
  // 1970-01-01 was a Thursday.
  let day = first + modulo(weekday - (first + 4), 7) + (week - 1) * 7;
  while (dateOf(day)[1] !== month) day -= 7;
  return day * 86_400 + timeS;
}

/** The two changes of a year by a rule, in order: start in microseconds, and offset. */
function changesOf(rule, year) {
  const begins = [(yearly(rule.begins, year) - rule.standardS) * MICROS, rule.summerS];
  const ends = [(yearly(rule.ends, year) - rule.summerS) * MICROS, rule.standardS];
  return begins[0] < ends[0] ? [begins, ends] : [ends, begins];
}

function decodeZone(bytes) {
  const reader = new Reader(bytes);
  const count = Math.max(reader.natural(), 1);
  const offsets = Array.from({ length: count }, () => reader.signed());
  const changes = [];
  let atS = 0;
  for (let left = reader.natural(); left > 0; left--) {
    const change = reader.natural();
    atS += Math.floor(change / count) * UNIT_S;
    changes.push([atS * MICROS, offsets[change % count]]);
  }
  let rule = null;
  if (reader.natural() === 1) {
    rule = { standardS: reader.signed(), summerS: reader.signed(), begins: reader.day(), ends: reader.day() };
    const last = changes.length > 0 ? changes.at(-1)[0] : 0;
    const [year] = dateOf(Math.floor(last / DAY_US));
    for (let listed = year; listed < LISTED_UNTIL; listed++) {
      changes.push(...changesOf(rule, listed).filter(([start]) => start > last));
    }
  }
  return { first: offsets[0], changes, rule };
}

/**
 * A time zone: its days have 23 or 25 hours when the clocks change. Times are microseconds
 * since 1970; windows are `{ start, end }`.
 */
export class TimeZone {
  constructor(name, first, changes, rule) {
    this.name = name;
    this.first = first;
    this.changes = changes;
    this.rule = rule;
    // Most times are in the same span as the one before.
    this.last = null;
  }

  /** A zone that is always `seconds` ahead of UTC. */
  static fixed(seconds) {
    return new TimeZone(`UTC+${seconds}s`, seconds, [], null);
  }

  /** How far the zone's clocks are ahead of UTC at `time`, in seconds. */
  offsetSeconds(time) {
    return this.#span(time).offset;
  }

  /** The date in this zone: `2026-03-29`. */
  date(time) {
    const [year, month, date] = dateOf(this.#localDays(time));
    return `${String(year).padStart(4, "0")}-${two(month)}-${two(date)}`;
  }

  /** Date and time of day in this zone. */
  local(time) {
    const local = this.#local(time);
    const days = Math.floor(local / DAY_US);
    const [year, month, day] = dateOf(days);
    const second = Math.floor(modulo(local, DAY_US) / MICROS);
    return {
      year, month, day, weekday: WEEKDAYS[modulo(days + 3, 7)],
      hour: Math.floor(second / 3_600), minute: Math.floor(second / 60) % 60, second: second % 60,
    };
  }

  /** The hour on the zone's clocks; a change of the clocks within an hour ends it. */
  hour(time) {
    const span = this.#span(time);
    const start = time - modulo(this.#local(time), HOUR_US);
    return { start: Math.max(start, span.start), end: Math.min(start + HOUR_US, span.end) };
  }

  /** The day: from midnight to midnight. */
  day(time) {
    return this.#period(time, (days) => days, (days) => days + 1);
  }

  /** The week, from Monday to Monday. */
  week(time) {
    return this.#period(time, (days) => days - modulo(days + 3, 7), (days) => days + 7);
  }

  /** The month. */
  month(time) {
    const first = (days) => {
      const [year, month] = dateOf(days);
      return dayOf(year, month, 1);
    };
    return this.#period(time, first, (days) => first(days + 31));
  }

  /** The year. */
  year(time) {
    const first = (days) => dayOf(dateOf(days)[0], 1, 1);
    return this.#period(time, first, (days) => first(days + 366));
  }

  /** The hours of this zone as windows, for `openWindows(…)`. */
  get hours() {
    return { of: (time) => [this.hour(time)] };
  }

  /** The days of this zone as windows. */
  get days() {
    return { of: (time) => [this.day(time)] };
  }

  /** The weeks of this zone as windows. */
  get weeks() {
    return { of: (time) => [this.week(time)] };
  }

  /** The months of this zone as windows. */
  get months() {
    return { of: (time) => [this.month(time)] };
  }

  #period(time, first, next) {
    // If the clocks are put back over midnight, they show the previous date again. The
    // moments of this repeated time still belong to the period that had begun before.
    let day = next(first(this.#localDays(time)));
    while (this.#midnight(day) > time) day = first(day - 1);
    return { start: this.#midnight(day), end: this.#midnight(next(day)) };
  }

  /** The first moment at which the clocks show the midnight that begins a day, or a later time. */
  #midnight(days) {
    const local = days * DAY_US;
    // No offset is larger than a day. Among the spans from a day before this local midnight
    // on, the first one that reaches the midnight contains it.
    let span = this.#span(local - DAY_US);
    for (;;) {
      const at = Math.max(local - span.offset * MICROS, span.start);
      if (at < span.end || span.end === Infinity) return at;
      span = this.#span(span.end);
    }
  }

  #local(time) {
    return time + this.#span(time).offset * MICROS;
  }

  #localDays(time) {
    return Math.floor(this.#local(time) / DAY_US);
  }

  #span(time) {
    if (this.last !== null && time >= this.last.start && time < this.last.end) return this.last;
    const { changes } = this;
    let low = 0;
    let high = changes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (changes[middle][0] <= time) low = middle + 1;
      else high = middle;
    }
    const [start, offset] = low === 0 ? [-Infinity, this.first] : changes[low - 1];
    const end = low < changes.length ? changes[low][0] : Infinity;
    const listed = { start, end, offset };
    this.last = this.rule !== null && end === Infinity ? this.#byRule(time, listed) : listed;
    return this.last;
  }

  #byRule(time, last) {
    const [year] = dateOf(Math.floor(time / DAY_US));
    let span = last;
    for (const near of [year - 1, year, year + 1]) {
      for (const [start, offset] of changesOf(this.rule, near)) {
        if (start <= last.start) continue;
        if (start > time) return { ...span, end: start };
        span = { start, end: Infinity, offset };
      }
    }
    return span;
  }
}

const zones = new Map();

/**
 * The zone with this name in the IANA database, such as `Europe/Berlin`.
 * @param {string} name
 */
export function timeZone(name) {
  let zone = zones.get(name);
  if (zone === undefined) {
    const { places, data } = index();
    const place = places.get(name);
    if (place === undefined) {
      throw new ProjectionError(`${show(name)} is not a time zone; give a name of the IANA database, such as \`Europe/Berlin\``);
    }
    const { first, changes, rule } = decodeZone(data.subarray(place[0], place[0] + place[1]));
    zone = new TimeZone(name, first, changes, rule);
    zones.set(name, zone);
  }
  return zone;
}

/** UTC. */
export const utc = TimeZone.fixed(0);
