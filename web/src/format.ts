// Values as text for people.
import { signal } from "@preact/signals";
import { stringify } from "../../clients/ts/src/json.js";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const some = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A count. */
export function count(value: number | bigint): string {
  return whole.format(value);
}

/** A rate per second, with three digits. */
export function rate(value: number): string {
  return some.format(Math.max(0, value));
}

/** `1 event`, `2 events`. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${some.format(seconds / 3600)} h`;
  return `${some.format(seconds / 86_400)} days`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at += 1) value /= 1024;
  return `${some.format(value)} ${units[at]}`;
}

/** Whether times are shown in UTC or in the zone of the browser. */
export const zone = signal<"utc" | "local">(globalThis.localStorage?.getItem("zone") === "local" ? "local" : "utc");

/** The label of the zone in which times are shown. */
export function zoneName(): string {
  if (zone.value === "utc") return "UTC";
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "local";
}

const two = (value: number): string => String(value).padStart(2, "0");

/** A moment to the second, without its zone. */
export function moment(us: number): string {
  const date = new Date(us / 1000);
  if (Number.isNaN(date.getTime())) return "–";
  if (zone.value === "utc") return date.toISOString().replace("T", " ").slice(0, 19);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Characters that change the direction of the text after them, so that `evil` can be drawn as `live`. */
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069]/g;

/** The code point of a character: `202E`. */
function hex(character: string): string {
  return character.codePointAt(0)!.toString(16).toUpperCase();
}

/** A text with such characters as their names: `⟨U+202E⟩`. */
export function shown(text: string): string {
  return text.replace(DIRECTIONS, (character) => `⟨U+${hex(character)}⟩`);
}

/** JSON over several lines. It is the same value as without its escapes. */
export function pretty(value: unknown): string {
  return stringify(value, 2).replace(DIRECTIONS, (character) => `\\u${hex(character)}`);
}

/** Whether the values of a kind are numbers, which are aligned to the right. */
export function isNumber(kind: string): boolean {
  return kind === "integer" || kind === "number";
}

/** The longest text in a cell. */
const CELL_CHARS_MAX = 200;

/** A value in a cell. No digit of a number changes. */
export function cell(kind: string, value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "bigint") return whole.format(value);
  if (typeof value === "number" && !Number.isFinite(value)) return "beyond a double";
  if (typeof value === "number") return kind === "integer" ? whole.format(value) : String(value);
  const text = typeof value === "string" ? value : stringify(value);
  return shown(text.length > CELL_CHARS_MAX ? `${text.slice(0, CELL_CHARS_MAX)}…` : text);
}

const fraction = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

/** A value as a figure or at a bar: like a cell, but with two digits of a fraction, or with three digits below one. */
export function figure(value: unknown): string {
  const isFraction = typeof value === "number" && Number.isFinite(value) && !Number.isInteger(value);
  if (!isFraction) return cell("integer", value);
  return Math.abs(value) < 1 ? some.format(value) : fraction.format(value);
}

/** The units of an axis with large numbers, the largest first. */
const UNITS: readonly (readonly [number, string])[] = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e5, "k"]];
const label = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });

/**
 * The labels of an axis. Numbers below 100,000 are grouped as in tables; larger ones are
 * thousands (k), millions (M) and so on, the same unit for the whole axis.
 */
export function axisNumbers(values: readonly number[]): string[] {
  const most = Math.max(...values.map(Math.abs));
  const [least, unit] = UNITS.find(([from]) => most >= from) ?? [1, ""];
  const size = unit === "k" ? 1000 : least;
  return values.map((value) => (unit === "" || value === 0 ? label.format(value) : `${label.format(value / size)}\u00a0${unit}`));
}

/** The first characters of a version's id, which people compare. */
export function shortId(id: string): string {
  return id.slice(0, 8);
}

/** A key. In a table by tenant, U+0000 separates the tenant from the rest. */
export function keyText(key: string): string {
  return shown(key.replaceAll("\u0000", " · "));
}
