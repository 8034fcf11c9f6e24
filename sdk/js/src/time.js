// Points in event time: microseconds since 1970-01-01T00:00:00Z, and their text.

import { ProjectionError, show } from "./errors.js";

const SECOND_US = 1_000_000;
const DAY_S = 86_400;

/** 0001-01-01T00:00:00Z, the first time that a row can hold. */
export const TIME_MIN = -62_135_596_800 * SECOND_US;
/** 9999-12-30T22:00:00Z: after this time, some zone has the year 10000. */
export const TIME_END = 253_402_207_200 * SECOND_US;

/** Microseconds of `count` milliseconds. */
export const milliseconds = (count) => count * 1_000;
/** Microseconds of `count` seconds. */
export const seconds = (count) => count * SECOND_US;
/** Microseconds of `count` minutes. */
export const minutes = (count) => count * 60 * SECOND_US;
/** Microseconds of `count` hours. */
export const hours = (count) => count * 3_600 * SECOND_US;
/** Microseconds of `count` days of 24 hours. */
export const days = (count) => count * DAY_S * SECOND_US;

const UNITS = { us: 1, ms: 1_000, s: SECOND_US, m: 60 * SECOND_US, h: 3_600 * SECOND_US, d: DAY_S * SECOND_US };

/**
 * A duration in microseconds.
 * @param {number | string} value microseconds, or text such as `90s`, `10m`, `1h30m`, `7d`, `250ms`
 */
export function duration(value) {
  let us = value;
  if (typeof value === "string") {
    if (!/^(\d+(\.\d+)?(us|ms|s|m|h|d))+$/.test(value)) {
      throw new ProjectionError(`${show(value)} is not a duration; write \`90s\`, \`10m\`, \`1h30m\`, \`7d\` or \`250ms\``);
    }
    us = 0;
    for (const [, count, , unit] of value.matchAll(/(\d+(\.\d+)?)(us|ms|s|m|h|d)/g)) us += Number(count) * UNITS[unit];
    us = Math.round(us);
  }
  if (!Number.isSafeInteger(us) || us < 0) {
    throw new ProjectionError(`${show(value)} is not a duration: give whole microseconds, or text such as \`90s\``);
  }
  return us;
}

/** `time`, rounded down to a whole number of `step` since 1970. */
export function floor(time, step) {
  const us = typeof step === "number" ? step : duration(step);
  return us === 0 ? time : Math.floor(time / us) * us;
}

/** The second that contains `time`. */
export const second = (time) => Math.floor(time / 1_000_000) * 1_000_000;
/** The minute that contains `time`. */
export const minute = (time) => Math.floor(time / 60_000_000) * 60_000_000;
/** The hour that contains `time`. */
export const hour = (time) => Math.floor(time / 3_600_000_000) * 3_600_000_000;
/** The day in UTC that contains `time`. */
export const day = (time) => Math.floor(time / 86_400_000_000) * 86_400_000_000;

/** Year, month and day of a day, counted from 1970-01-01. */
export function dateOf(day) {
  const shifted = day + 719_468;
  const era = Math.floor(shifted / 146_097);
  const ofEra = shifted - era * 146_097;
  const yearOfEra = Math.floor(
    (ofEra - Math.floor(ofEra / 1_460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) / 365,
  );
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shiftedMonth = Math.floor((5 * ofYear + 2) / 153);
  const date = ofYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1;
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
  return [era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, date];
}

/** A date as a day, counted from 1970-01-01. */
export function dayOf(year, month, date) {
  const shiftedYear = month <= 2 ? year - 1 : year;
  const era = Math.floor(shiftedYear / 400);
  const yearOfEra = shiftedYear - era * 400;
  const shiftedMonth = month > 2 ? month - 3 : month + 9;
  const ofYear = Math.floor((153 * shiftedMonth + 2) / 5) + date - 1;
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + ofYear - 719_468;
}

const two = (number) => (number < 10 ? `0${number}` : String(number));

function format(time) {
  const second = Math.floor(time / SECOND_US);
  return formatExact({ second, micros: time - second * SECOND_US });
}

/** The text of a time in seconds and microseconds: exact also beyond 2^53 microseconds. */
export function formatExact({ second, micros }) {
  const dayNumber = Math.floor(second / DAY_S);
  const ofDay = second - dayNumber * DAY_S;
  const [year, month, date] = dateOf(dayNumber);
  const yearText = year >= 0 && year <= 9_999
    ? String(year).padStart(4, "0")
    : (year < 0 ? "-" : "+") + String(Math.abs(year)).padStart(6, "0");
  let fraction = "";
  if (micros !== 0) {
    fraction = micros % 1_000 === 0
      ? `.${String(micros / 1_000).padStart(3, "0")}`
      : `.${String(micros).padStart(6, "0")}`;
  }
  const hour = Math.floor(ofDay / 3_600);
  const minute = Math.floor(ofDay / 60) % 60;
  return `${yearText}-${two(month)}-${two(date)}T${two(hour)}:${two(minute)}:${two(ofDay % 60)}${fraction}Z`;
}

// Texts of times that were written before: windows and keys have the same few times.
const KNOWN_MAX = 4_096;
const known = new Map();
let lastTime = NaN;
let lastText = "";

/**
 * The RFC 3339 text of a time: `2026-03-01T12:07:00Z`, with milliseconds or microseconds
 * only if there are any.
 * @param {number} time microseconds since 1970
 */
export function iso(time) {
  if (time === lastTime) return lastText;
  let text = known.get(time);
  if (text === undefined) {
    if (!Number.isInteger(time)) throw new ProjectionError(`${show(time)} is not a time: give microseconds since 1970`);
    if (known.size >= KNOWN_MAX) known.clear();
    text = format(time);
    known.set(time, text);
  }
  lastTime = time;
  lastText = text;
  return text;
}

/** The date in UTC: `2026-03-01`. */
export const isoDate = (time) => iso(day(time)).slice(0, -10);

const RFC3339 = /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))$/;

/**
 * The time of an RFC 3339 text in seconds and microseconds, or null if the text is no such
 * time. Digits after microseconds are cut.
 * @param {string} text
 * @returns {{ second: number, micros: number } | null}
 */
export function parseExact(text) {
  const found = RFC3339.exec(text);
  if (found === null) return null;
  const [year, month, date, hour, minute, second] = found.slice(1, 7).map(Number);
  const dayNumber = dayOf(year, month, date);
  const [sameYear, sameMonth, sameDate] = dateOf(dayNumber);
  if (month < 1 || month > 12 || sameYear !== year || sameMonth !== month || sameDate !== date) return null;
  if (hour > 23 || minute > 59 || second > 60) return null;
  let offset = 0;
  if (found[8] === undefined) {
    const [offsetHours, offsetMinutes] = [Number(found[10]), Number(found[11])];
    if (offsetHours > 23 || offsetMinutes > 59) return null;
    offset = (offsetHours * 3_600 + offsetMinutes * 60) * (found[9] === "-" ? -1 : 1);
  }
  return {
    second: dayNumber * DAY_S + hour * 3_600 + minute * 60 + Math.min(second, 59) - offset,
    micros: Number((found[7] ?? "").padEnd(6, "0").slice(0, 6)),
  };
}

/**
 * The time of an RFC 3339 text, or null if the text is no such time.
 * @param {string} text
 * @returns {number | null}
 */
export function tryParseTime(text) {
  const exact = parseExact(text);
  return exact === null ? null : exact.second * SECOND_US + exact.micros;
}

/** The canonical text of an RFC 3339 time that a row can hold, or null. */
export function canonicalTime(text) {
  const exact = typeof text === "string" ? parseExact(text) : null;
  if (exact === null || exact.second < TIME_MIN / SECOND_US || exact.second >= TIME_END / SECOND_US) return null;
  return formatExact(exact);
}

/**
 * The time of an RFC 3339 text, in microseconds since 1970.
 * @param {string} text
 */
export function parseTime(text) {
  const time = typeof text === "string" ? tryParseTime(text) : null;
  if (time === null) throw new ProjectionError(`${show(text)} is not an RFC 3339 timestamp like 2026-03-01T12:00:00Z`);
  return time;
}
