// Groups of rows as the series of a chart.
import type { FieldStatus } from "./api-types.js";

/** What a chart shows. All of it is in the address. */
export interface ChartQuery {
  /** The timestamp field; empty for a chart without time. */
  readonly time: string;
  /** The size of a bucket; empty if the page chooses it. */
  readonly bucket: string;
  /** The field whose values are the series, or the bars; empty for none. */
  readonly by: string;
  /** The function and its field: `sum(cents)`. */
  readonly agg: string;
}

/** The functions that fields with numbers have. */
export const FUNCTIONS = ["sum", "avg", "min", "max", "p50", "p95", "p99", "distinct"] as const;

/** The function of an aggregate and its field, which is empty for `count()`; `null` if the text has another form. */
export function aggregateParts(text: string): { name: string; of: string } | null {
  const found = /^(\w+)\((.*)\)$/.exec(text);
  return found && { name: found[1]!, of: found[2]! };
}

/** The sizes of buckets with their seconds, the smallest first. */
export const BUCKETS: readonly (readonly [string, number])[] = [
  ["1s", 1], ["10s", 10], ["1m", 60], ["5m", 300], ["15m", 900], ["1h", 3600], ["6h", 21_600], ["1d", 86_400], ["1w", 604_800], ["1mo", 2_629_746], ["1y", 31_556_952],
];

/** The maximum number of buckets when the page chooses their size. */
const BUCKETS_MAX = 300;

/** The smallest bucket that gives at most `BUCKETS_MAX` buckets over these seconds. */
export function bucketFor(seconds: number): string {
  return (BUCKETS.find(([, size]) => seconds / size <= BUCKETS_MAX) ?? BUCKETS.at(-1)!)[0];
}

/** Larger buckets are chosen when there are this many times more buckets than `BUCKETS_MAX`. */
const BUCKETS_SPARE = 2;

/**
 * The size of larger buckets, if the groups, in the order of time, span too many of the size
 * `bucket`; otherwise `null`. They never become smaller while they are shown, so they do not
 * change back and forth.
 */
export function coarser(groups: readonly Group[], time: string, bucket: string): string | null {
  const size = BUCKETS.find(([one]) => one === bucket)?.[1];
  const seconds = (Date.parse(String(groups.at(-1)?.[time])) - Date.parse(String(groups[0]?.[time]))) / 1000;
  if (size === undefined || !(seconds / size > BUCKETS_MAX * BUCKETS_SPARE)) return null;
  const larger = bucketFor(seconds);
  return larger === bucket ? null : larger;
}

/** The first chart for a table: over time if it has a timestamp field, otherwise bars. */
export function usual(fields: readonly FieldStatus[]): ChartQuery {
  const of = (...kinds: string[]): string => fields.find(({ kind }) => kinds.includes(kind))?.name ?? "";
  const number = of("integer", "number");
  const time = of("timestamp");
  return { time, bucket: "", by: of("text", "boolean"), agg: number === "" ? "count()" : `sum(${number})` };
}

/** The chart in the parameters of an address; otherwise one that fits the fields. */
export function chartQuery(search: { readonly [name: string]: string | undefined }, fields: readonly FieldStatus[]): ChartQuery {
  const fit = usual(fields);
  const { time = fit.time, bucket = "", by = fit.by, agg = fit.agg } = search;
  return { time, bucket, by, agg };
}

/** A group: the value of each column. */
export type Group = { readonly [column: string]: unknown };

export interface Series {
  readonly name: string;
  readonly values: (number | null)[];
}

/** How many series and bars are shown: more cannot be distinguished. */
export const SERIES_MAX = 8;
export const BARS_MAX = 30;

/** A value as a number for drawing. */
export function drawn(value: unknown): number | null {
  if (value === null || value === undefined) return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

/** The groups over time in the order of time; otherwise the largest first, and those without a value last. */
export function ordered(groups: readonly Group[], { time, by }: ChartQuery, column: string): Group[] {
  const byText = (a: Group, b: Group, name: string): number => {
    const one = String(a[name] ?? "");
    const other = String(b[name] ?? "");
    return one < other ? -1 : one > other ? 1 : 0;
  };
  // Times are texts of one form, in UTC.
  if (time !== "") return [...groups].sort((a, b) => byText(a, b, time) || byText(a, b, by));
  const value = (group: Group): number => drawn(group[column]) ?? -Infinity;
  return [...groups].sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    return one === other ? byText(a, b, by) : other - one;
  });
}

/** The groups as series over time: the moments in seconds, and the values of each series. The largest series come first. */
export function overTime(groups: readonly Group[], { time, by }: ChartQuery, column: string): { moments: number[]; series: Series[]; left: number } {
  const seconds = groups.map((group) => Date.parse(String(group[time])) / 1000);
  const moments = [...new Set(seconds)].filter(Number.isFinite).sort((a, b) => a - b);
  const place = new Map(moments.map((moment, at) => [moment, at]));
  const series = new Map<string, { values: (number | null)[]; total: number }>();
  for (const [index, group] of groups.entries()) {
    const name = by === "" ? column : group[by] === null || group[by] === undefined ? "no value" : String(group[by]);
    const one = series.get(name) ?? { values: moments.map(() => null), total: 0 };
    series.set(name, one);
    const value = drawn(group[column]);
    const at = place.get(seconds[index]!);
    if (at !== undefined) one.values[at] = value;
    one.total += Math.abs(value ?? 0);
  }
  const sorted = [...series].sort(([, a], [, b]) => b.total - a.total);
  return { moments, series: sorted.slice(0, SERIES_MAX).map(([name, { values }]) => ({ name, values })), left: Math.max(0, sorted.length - SERIES_MAX) };
}
