// Keys of rows and timers: text, ordered by its UTF-8 bytes.

import { ProjectionError, show } from "./errors.js";
import { iso } from "./time.js";

/** Marks a key as the key of a tenant's row or timer. */
export class InTenant {
  constructor(tenant, key) {
    this.tenant = tenant;
    this.key = key;
  }
}

/**
 * A key that belongs to `tenant`, for tables with `perTenant` and for timers.
 * @param {string} tenant
 * @param {...unknown} parts the parts of the key
 */
export function inTenant(tenant, ...parts) {
  if (typeof tenant !== "string" || tenant.includes("\0")) throw new ProjectionError(`${show(tenant)} cannot be a tenant`);
  return new InTenant(tenant, keyOf(parts));
}

// Searching a text takes longer than looking it up.
const ESCAPED_MAX = 4_096;
const escaped = new Map();

/** The part of a key, with `/` and `%` escaped. */
export function escapePart(text) {
  const known = escaped.get(text);
  if (known !== undefined) return known;
  const part = text.includes("/") || text.includes("%") ? text.replaceAll("%", "%25").replaceAll("/", "%2F") : text;
  if (escaped.size >= ESCAPED_MAX) escaped.clear();
  escaped.set(text, part);
  return part;
}

/** The text from which a part of a key was written. */
export function unescapePart(part) {
  return part.replaceAll("%2F", "/").replaceAll("%25", "%");
}

/** Splits a key into its parts. */
export const keyParts = (key) => key.slice(key.indexOf("\0") + 1).split("/").map(unescapePart);

/**
 * The text of one part of a key. The messages are ASCII, which QuickJS handles faster; speed
 * matters because most events may fail.
 */
export function partText(part) {
  if (typeof part === "string") return part;
  if (part !== null && typeof part === "object" && typeof part.start === "number") return iso(part.start);
  if (typeof part === "number") {
    throw new ProjectionError(
      `the number ${part} cannot be part of a key: write \`iso(...)\` for a time, \`narrow(...)\` or \`padded(...)\` for an integer`,
    );
  }
  if (typeof part === "bigint") {
    throw new ProjectionError(`the integer ${part} cannot be part of a key: write \`narrow(...)\` or \`padded(...)\``);
  }
  throw new ProjectionError(`${show(part)} cannot be part of a key: a key consists of text`);
}

/** The key of these parts: one part as it is, several with \`/\` between them. */
export function keyOf(parts) {
  if (parts.length === 1) return partText(parts[0]);
  let key = "";
  for (let i = 0; i < parts.length; i++) {
    if (i > 0) key += "/";
    key += escapePart(partText(parts[i]));
  }
  return key;
}

/** A non-negative integer with leading zeros, so that keys sort as the numbers do. */
export function padded(number, digits = 20) {
  const text = String(number);
  if (!/^\d+$/.test(text) || text.length > digits) {
    throw new ProjectionError(`${show(number)} is not an integer of at most ${digits} digits`);
  }
  return text.padStart(digits, "0");
}

/**
 * An integer as a short text that sorts as the numbers do: `a7`, `b10`, `d1999`, and `Z2`
 * for -7.
 * @param {number | bigint} number
 */
export function narrow(number) {
  if (typeof number === "number" ? !Number.isSafeInteger(number) : typeof number !== "bigint") {
    throw new ProjectionError(`${show(number)} is not an integer`);
  }
  const digits = String(number < 0 ? -number : number);
  if (number < 0) {
    const mirrored = Array.from(digits, (digit) => 9 - Number(digit)).join("");
    return String.fromCharCode(90 - digits.length + 1) + mirrored;
  }
  return String.fromCharCode(97 + digits.length - 1) + digits;
}

/** The first key after all keys that begin with `prefix`; empty if there is none. */
export function endOfPrefix(prefix) {
  const points = Array.from(prefix, (character) => character.codePointAt(0));
  while (points.length > 0) {
    let last = points.pop();
    if (last === 0x10ffff) continue;
    last = last === 0xd7ff ? 0xe000 : last + 1;
    return String.fromCodePoint(...points, last);
  }
  return "";
}

/** The tenant of a key, or null. */
export function tenantOf(key) {
  const end = key.indexOf("\0");
  return end < 0 ? null : key.slice(0, end);
}

/** Text that sorts as 64-bit times do: 16 hexadecimal digits. */
export function sortable(time) {
  // The sign bit is inverted, so that negative times come first.
  const high = Math.floor(time / 4_294_967_296);
  const low = time - high * 4_294_967_296;
  return ((high ^ 0x80000000) >>> 0).toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

/** The time from which {@link sortable} wrote `text`, or null. */
export function fromSortable(text) {
  if (!/^[0-9a-f]{16}$/.test(text)) return null;
  const high = (parseInt(text.slice(0, 8), 16) ^ 0x80000000) | 0;
  return high * 4_294_967_296 + parseInt(text.slice(8), 16);
}
