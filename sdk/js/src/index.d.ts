/**
 * Projections for Lantern in JavaScript and TypeScript.
 *
 * Use this package to write projections. A projection is a deterministic fold of an event log into
 * tables: declare tables, then call {@link projection}. Times are microseconds since
 * 1970-01-01T00:00:00Z.
 *
 * @packageDocumentation
 */

/** A point in time: microseconds since 1970-01-01T00:00:00Z. */
export type Timestamp = number;

/** A length of time: whole microseconds, or text such as `90s`, `10m`, `1h30m`, `7d`, `250ms`. */
export type Duration = number | string;

/** How the values of a field are combined if several partitions of the log have the row. */
export type Merge = "same" | "sum" | "min" | "max" | "newest" | "sketch";

declare const value: unique symbol;

/** A declared field of rows, or a declared member of events' data, with values of type `T`. */
export interface Field<T> {
  readonly [value]?: T;
}

/** A kind of field: use it as it is (`text`), or call it with a merge and a unit. */
export interface Kind<T> extends Field<T> {
  (merge?: Merge, unit?: string): Field<T>;
  (options: { merge?: Merge; unit?: string }): Field<T>;
}

/** Whole numbers from -(2^53 - 1) to 2^53 - 1, as numbers. An event that leaves another value in a row fails. */
export const integer: Kind<number>;
/** Whole numbers from -2^63 to 2^64 - 1 (members of data: to 2^63 - 1), as bigints. */
export const bigint: Kind<bigint>;
/** Finite numbers. */
export const number: Kind<number>;
/** Text. */
export const text: Kind<string>;
/** `true` or `false`. */
export const boolean: Kind<boolean>;
/** Times, in microseconds since 1970; exact until the year 2255. In the row they are RFC 3339 text. */
export const timestamp: Kind<Timestamp>;
/** Times as RFC 3339 text: exact also after the year 2255. */
export const timestampText: Kind<string>;
/** Any JSON, as a JavaScript value. */
export const json: Kind<unknown>;
/** Any JSON with its exact numbers, as {@link RawJson}. */
export const rawJson: Kind<RawJson>;
/** A sketch that counts distinct values; rows of several partitions are merged. */
export const distinct: Kind<Distinct>;
/** A sketch of percentiles; rows of several partitions are merged. */
export const percentiles: Kind<Percentiles>;

/** A field that may have no value: `null`. */
export function optional<T>(field: Field<T>): Field<T | null>;

/** Declared fields by name. */
export type Fields = { readonly [name: string]: Field<any> };

/** The row of a table with these fields. */
export type Row<F extends Fields> = { -readonly [N in keyof F]: F[N] extends Field<infer T> ? T : never };

/** The values of declared members of an event's data. */
export type Members<F extends Fields> = { readonly [N in keyof F]: F[N] extends Field<infer T> ? T : never };

/** A span of time: from `start` up to but not including `end`. Used in a key, it is its start. */
export interface Window {
  readonly start: Timestamp;
  readonly end: Timestamp;
}

/** A key that belongs to a tenant; see {@link inTenant}. */
export interface InTenant {
  readonly tenant: string;
  readonly key: string;
}

/** A part of a key. */
export type KeyPart = string | Window;

/** A key of text: one part, or an array of parts. */
export type Key = KeyPart | InTenant | readonly KeyPart[];

type KeyValue<T> = T extends Timestamp ? T | Window : T;
type KeyValues<F extends Fields, K> = K extends readonly (keyof F)[]
  ? { -readonly [I in keyof K]: KeyValue<Row<F>[K[I] & keyof F]> }
  : K extends keyof F
    ? [KeyValue<Row<F>[K]>]
    : [InTenant | readonly KeyPart[]] | [KeyPart, KeyPart?, KeyPart?, KeyPart?];
type KeyArguments<F extends Fields, K> = KeyValues<F, K> | [InTenant];

/** Options of a table. */
export interface TableOptions<K> {
  /** The field or fields whose values are the key, in this order; `row(…)` fills them in. */
  key?: K;
  /** A description for people. */
  description?: string;
  /** Whether readers cannot see it. */
  private?: boolean;
  /**
   * Whether each row belongs to a tenant: the tenant of the event or timer, or of `inTenant(…)`.
   */
  perTenant?: boolean;
  /** The timestamp field that decides which partition's value counts for fields with merge `newest`. */
  newestBy?: string;
  /** How long a row is kept after its last change. */
  retention?: Duration;
  /** How many rows stay in memory; {@link CACHE_ROWS} by default. */
  cache?: number;
}

/** A range of rows. Without `prefix`, `start` and `end` it is all rows. */
export interface Scan {
  /** Only keys that begin with this. */
  prefix?: Key;
  /** The first key. */
  start?: Key;
  /** The first key that is not in the range. */
  end?: Key;
  /** At most this many rows. */
  limit?: number;
  /** Whether the last row comes first. */
  reverse?: boolean;
}

/** A table with rows of type `R`, and keys given as `A`. */
export interface Table<R, A extends unknown[]> {
  readonly name: string;
  /** The row under a key, to change it; a new one if there is none. Changes are stored when the event succeeds. */
  row(...key: A): R;
  /** The row under a key, to change it, or null. */
  update(...key: A): R | null;
  /** The row under a key, to read it, or null. */
  get(...key: A): Readonly<R> | null;
  /** Whether there is a row under a key. */
  has(...key: A): boolean;
  /** Writes a row: the last argument has its fields; those that it leaves out have their first value. */
  put(...keyAndRow: [...key: A, row: Partial<R>]): R;
  /** Deletes the row under a key, if there is one. */
  delete(...key: A): void;
  /** Deletes the row under a key and returns it, or null. */
  take(...key: A): R | null;
  /** Reads the rows of many keys in one call of the host; use it in `prepare`. */
  prefetch(keys: Iterable<A | A[0]>): void;
  /** The rows of a range, in the order of their keys. */
  scan(range?: Scan): { key: string; row: Readonly<R> }[];
}

/**
 * Declares a table. Declare tables before the projection, in any module.
 *
 * ```ts
 * const byMinute = table("by_minute", { minute: timestamp, orders: integer("sum") }, { key: "minute" });
 * byMinute.row(minute(event.time)).orders += 1;
 * ```
 *
 * @param name lower-case letters, digits, `_` and `-`
 */
export function table<const F extends Fields, const K extends keyof F | readonly (keyof F)[] | undefined = undefined>(
  name: string,
  fields: F,
  options?: TableOptions<K>,
): Table<Row<F>, KeyArguments<F, K>>;

/** How many rows a table keeps in memory by default. */
export const CACHE_ROWS: number;

/** The functions that an event and a timer have in common. */
export interface Trigger {
  /**
   * Sets the timer of a key, or changes its time. It fires when the watermark has reached `at`.
   * Needs `eventTime`.
   */
  setTimer(at: Timestamp, key: Key): void;
  /** Cancels the timer of a key. */
  cancelTimer(key: Key): void;
  /**
   * Emits an event of one of the types in `emits`. Its time is `time` or, if this is not given, the
   * time of the current event or timer. Its tenant is always the tenant of the current event or
   * timer.
   */
  emit(type: string, data: unknown, options?: { subject?: string; tenant?: string; time?: Timestamp }): void;
}

/** An event. It is valid until the function that got it returns. */
export interface Event<M extends Fields = Fields, D = any> extends Trigger {
  /** The type, such as `order.placed`. */
  readonly type: string;
  /** The time. */
  readonly time: Timestamp;
  /** The place in its partition of the log. */
  readonly offset: number;
  /** The partition of the log. */
  readonly partition: number;
  /** No event older than this is expected any more. */
  readonly watermark: Timestamp;
  /** Whether the event is older than the watermark. */
  readonly isLate: boolean;
  /**
   * The declared members of the data, decoded by the host. Reading a member that is missing or of
   * another kind fails the event.
   */
  readonly members: Members<M>;
  /** The payload: parsed JSON. With `members`, it needs `attributes: ["data"]`. */
  readonly data: D;
  /** The payload as it was sent. */
  readonly dataText: string;
  /** Needs `attributes: ["id"]`, as all of the following need theirs. */
  readonly id: string;
  readonly source: string;
  readonly subject: string;
  /** Also there if a table is `perTenant`. */
  readonly tenant: string;
  readonly dataschema: string;
  readonly datacontenttype: string;
  /** All other extension attributes. */
  readonly extensions: Record<string, unknown>;
}

/** A timer that is due. */
export interface Timer extends Trigger {
  /** The time for which it was set. */
  readonly at: Timestamp;
  /** The watermark at which it fires. */
  readonly watermark: Timestamp;
  /** The key, without the tenant. */
  readonly key: string;
  /** The parts of the key. */
  readonly parts: string[];
  /** The tenant of the key; empty if it has none. */
  readonly tenant: string;
}

/** An attribute that a projection can ask for. */
export type Attribute = "id" | "source" | "subject" | "tenant" | "dataschema" | "datacontenttype" | "extensions" | "data";

/** The definition of a projection. */
export interface ProjectionSpec<M extends Fields, D> {
  /** Lower-case letters, digits and hyphens. */
  name: string;
  /** Semantic version; `0.1.0` by default. */
  version?: string;
  description?: string;
  /** Event types: exact (`order.placed`), by prefix (`order.*`) or all (`*`). A function may use parameters. */
  subscribes: string | readonly string[] | (() => string | readonly string[]);
  /** Attributes of events besides type, time and data. */
  attributes?: readonly Attribute[];
  /**
   * Members of `data` that the host decodes, which is much faster than parsing JSON. The data
   * itself is then passed only if `attributes` has `"data"`.
   */
  members?: M;
  /** Types of the events it may emit. */
  emits?: readonly string[] | (() => readonly string[]);
  /** The maximum emit depth, if this is part of a cycle of projections. */
  cycleDepthMax?: number;
  /** How late events may be, and the step in which the watermark moves. */
  eventTime?: { lateness?: Duration; tick?: Duration } | (() => { lateness?: Duration; tick?: Duration });
  /** What happens to an event that fails; `park-subject` by default. */
  onFailure?: "park-subject" | "park-event" | "halt";
  /** Called once on every fresh instance, after parameters are taken. An exception refuses the version. */
  setup?(): void;
  /**
   * Gets all events of a batch before the first is applied, to prefetch rows. It must not change
   * rows.
   */
  prepare?(events: Iterable<Event<M, D>>): void;
  /** Applies one event to the tables. An exception discards what it has changed and parks the event. */
  apply(event: Event<M, D>): void;
  /** Handles a timer that this projection or one of its windows has set. */
  onTimer?(timer: Timer): void;
}

/** A projection. */
export interface Projection {
  readonly tables: readonly { readonly name: string }[];
}

/**
 * Defines the projection; make it the module's default export. Its tables are those declared before it.
 *
 * ```ts
 * export default projection({
 *   name: "revenue",
 *   subscribes: ["order.placed"],
 *   members: { cents: integer },
 *   apply(event) {
 *     total.row("all").cents += event.members.cents;
 *   },
 * });
 * ```
 */
export function projection<const M extends Fields = {}, D = any>(spec: ProjectionSpec<M, D>): Projection;

/**
 * Declares the parameters with their defaults, and returns an object with their values. From
 * `setup` on, the object has the values of the upload. Other names are refused, and so are values
 * of another type than the default's. A default of null accepts any value.
 */
export function parameters<const P extends object>(defaults: P): Settings<P>;

/** The values of parameters with these defaults. */
export type Settings<P> = {
  readonly [N in keyof P]: P[N] extends number ? number : P[N] extends string ? string : P[N] extends boolean ? boolean : P[N] extends null ? any : P[N];
};

/** Writes lines to the plugin's log; `console.log` and the like do the same. */
export const log: {
  (...values: unknown[]): void;
  trace(...values: unknown[]): void;
  debug(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
};

/** A key that belongs to a tenant. */
export function inTenant(tenant: string, ...parts: KeyPart[]): InTenant;
/** The parts of a key. */
export function keyParts(key: string): string[];
/** An integer as a short text that sorts as the numbers do: `d1999`, and `Z2` for -7. */
export function narrow(integer: number | bigint): string;
/** A non-negative integer with leading zeros. */
export function padded(integer: number | bigint, digits?: number): string;

/** The second that contains a time. */
export function second(time: Timestamp): Timestamp;
/** The minute that contains a time. */
export function minute(time: Timestamp): Timestamp;
/** The hour that contains a time. */
export function hour(time: Timestamp): Timestamp;
/** The day in UTC that contains a time. */
export function day(time: Timestamp): Timestamp;
/** A time, rounded down to a whole number of steps since 1970. */
export function floor(time: Timestamp, step: Duration): Timestamp;
/** The RFC 3339 text of a time: `2026-03-01T12:07:00Z`. */
export function iso(time: Timestamp): string;
/** The date in UTC: `2026-03-01`. */
export function isoDate(time: Timestamp): string;
/** The time of an RFC 3339 text. */
export function parseTime(text: string): Timestamp;
/** A duration in microseconds. */
export function duration(value: Duration): number;
/** Microseconds of milliseconds. */
export function milliseconds(count: number): number;
/** Microseconds of seconds. */
export function seconds(count: number): number;
/** Microseconds of minutes. */
export function minutes(count: number): number;
/** Microseconds of hours. */
export function hours(count: number): number;
/** Microseconds of days of 24 hours. */
export function days(count: number): number;

/** Windows that a moment can be in. */
export interface WindowSet {
  /** The windows that a time is in, oldest first. */
  of(time: Timestamp): Window[];
}

/** Adjacent windows: every moment is in exactly one. */
export function tumbling(size: Duration): WindowSet;
/** Windows of `size` that begin every `hop`. */
export function hopping(size: Duration, hop: Duration): WindowSet;

/** A window that is over. */
export interface Closed<V> extends Window {
  readonly tenant: string;
  /** The key under which its events were added, without the tenant. */
  readonly key: string;
  readonly value: V;
}

/** Tumbling or hopping windows that are still open. */
export interface OpenWindows<V> {
  /**
   * Adds an event to each open window of `windows` that contains it, by calling `change` with the
   * window's value. Returns the number of the event's windows that were already closed. It is 0
   * unless the event is late.
   */
  add(event: Event<any, any>, windows: WindowSet, key: Key, change: (value: V) => void): number;
  /**
   * Removes the windows that end with a timer from the table and returns them. Returns none if this
   * table did not set the timer.
   */
  close(timer: Timer): Closed<V>[];
}

/** Declares tumbling or hopping windows whose rows are written when they are over. */
export function openWindows<const F extends Fields>(name: string, fields: F): OpenWindows<Row<F>>;

/** The session that an event is now part of. */
export interface Joined<V> extends Window {
  readonly value: Readonly<V>;
  /** The starts of sessions that were joined into this one and no longer exist. */
  readonly absorbed: Timestamp[];
}

/** Sessions that are still open. */
export interface OpenSessions<V> {
  /**
   * Adds an event, with `change`, to the session of `key` to which it belongs. Returns null if the
   * event is late.
   */
  add(event: Event<any, any>, gap: Duration, key: Key, change: (value: V) => void): Joined<V> | null;
  /** Removes the sessions that a timer ends and returns them, oldest first. */
  close(timer: Timer): Closed<V>[];
}

/**
 * Declares session windows. A session is a series of events of one key with less than a gap
 * between one event and the next.
 * @param combine adds the value of a later session to an earlier one
 */
export function openSessions<const F extends Fields>(
  name: string,
  fields: F,
  combine: (earlier: Row<F>, later: Row<F>) => void,
): OpenSessions<Row<F>>;

/** The content of a sliding window that ends at some moment. */
export interface Slide<V> {
  /** The last moment of the window. */
  readonly at: Timestamp;
  readonly times: Timestamp[];
  /** The values, in the order of their times. */
  readonly values: Readonly<V>[];
}

/** A key whose sliding window has advanced with the watermark. */
export interface Advanced<V> {
  readonly tenant: string;
  readonly key: string;
  /** The window that ends at the watermark or, if that is later, with the newest event. */
  readonly current: Slide<V>;
  /** The windows that end with an event and can no longer change. Each window is returned once. */
  readonly settled: Slide<V>[];
}

/** The latest values of each key, in sliding windows. A sliding window ends with each event. */
export interface Recent<V> {
  /**
   * Adds an event's value and returns the window that ends with the key's newest event. Returns
   * null if the event is too late.
   */
  add(event: Event<any, any>, size: Duration, key: Key, value: Partial<V>): Slide<V> | null;
  /**
   * Moves the window of the key to which a timer belongs to the watermark. Returns null if this
   * table did not set the timer.
   */
  advance(timer: Timer): Advanced<V> | null;
}

/** Declares sliding windows. */
export function recent<const F extends Fields>(name: string, fields: F): Recent<Row<F>>;

/** How many values a sliding window keeps for one key. */
export const RECENT_EVENTS_MAX: number;

/** An item among the N largest of its group. */
export interface Ranked {
  readonly item: string;
  readonly value: number;
}

/**
 * The N largest values of each group. Values are integers from -(2^53 - 1) to 2^53 - 1. Of
 * equal values, the item whose key comes first ranks first.
 */
export interface TopN {
  readonly name: string;
  /** How many items of a group are ranked. */
  readonly count: number;
  /** Adds `amount`, which may be negative, to the value of `item`; a new item begins at 0. Returns whether the N largest have changed. */
  add(group: Key, item: Key, amount: number): boolean;
  /** Sets the value of `item`. Returns whether the N largest have changed. */
  set(group: Key, item: Key, value: number): boolean;
  /** Removes `item`. Returns whether the N largest have changed. */
  remove(group: Key, item: Key): boolean;
  /** The N largest of `group`, the largest first; fewer if it has fewer items. */
  largest(group: Key): Ranked[];
  /** The value of `item`, whether it is among the N largest or not, or null. */
  value(group: Key, item: Key): number | null;
  /**
   * Removes all items of `group`. A group is kept until it is removed, so remove groups that are no
   * longer needed, such as past days.
   */
  clear(group: Key): void;
}

/**
 * Declares a private table with the `count` largest values of each group. They are exact even if
 * values grow, shrink and are removed. Whenever a change returns true, copy the items that readers
 * should see to a public table:
 *
 * ```ts
 * const best = table("best", { day: timestamp, rank: integer, product: text, cents: integer }, { key: ["day", "rank"] });
 * const ranking = topN("ranking", 3);
 *
 * // in `apply`
 * const today = day(event.time);
 * if (ranking.add(iso(today), event.members.product, event.members.cents)) {
 *   ranking.largest(iso(today)).forEach(({ item, value }, i) => best.put(today, i + 1, { product: item, cents: value }));
 * }
 * ```
 *
 * Each partition of the log has a ranking of its own, and rankings of several partitions
 * cannot be merged. To separate the items of tenants, make the tenant part of the group.
 */
export function topN(name: string, count: number): TopN;

/** Counts distinct values: exactly up to 512, above with a standard error of 1.63 %. */
export class Distinct {
  add(value: string | number | bigint): this;
  addBytes(bytes: Uint8Array): this;
  merge(other: Distinct): this;
  readonly isEmpty: boolean;
  readonly estimate: number;
  encode(): Uint8Array;
  static decode(bytes: Uint8Array): Distinct;
  toJSON(): { estimate: number; sketch: string };
  static fromJSON(form: { estimate: number; sketch: string }): Distinct;
}

/** Up to this many distinct values are counted exactly. */
export const DISTINCT_EXACT_MAX: number;

/** Percentiles of integers: within 1/128 (0.8 %); count, minimum and maximum are exact. */
export class Percentiles {
  add(value: number | bigint, times?: number): this;
  /** Adds `value · scale`, rounded; returns whether it was added. */
  addNumber(value: number, scale: number): boolean;
  merge(other: Percentiles): this;
  readonly isEmpty: boolean;
  readonly count: number | bigint;
  readonly min: number | bigint | null;
  readonly max: number | bigint | null;
  percentile(percent: number): number | bigint | null;
  quantile(part: number, whole: number): number | bigint | null;
  classBounds(classes: number): (number | bigint)[];
  /** The class of a value among `classes`, from 0 for the smallest values. */
  classOf(value: number | bigint, classes: number): number;
  encode(): Uint8Array;
  static decode(bytes: Uint8Array): Percentiles;
  toJSON(): Record<string, unknown> & { sketch: string };
  static fromJSON(form: { sketch: string }): Percentiles;
}

/** JSON whose numbers stay as they were written. */
export class RawJson {
  constructor(text: string);
  /** The canonical JSON. */
  readonly text: string;
  /** The value, as `JSON.parse` returns it. */
  readonly value: any;
  toJSON(): any;
}

/** Date and time of day in a zone. */
export interface LocalTime {
  year: number;
  month: number;
  day: number;
  weekday: "monday" | "tuesday" | "wednesday" | "thursday" | "friday" | "saturday" | "sunday";
  hour: number;
  minute: number;
  second: number;
}

/** A time zone: its days have 23 or 25 hours when the clocks change. */
export class TimeZone {
  /** A zone that is always this many seconds ahead of UTC. */
  static fixed(seconds: number): TimeZone;
  readonly name: string;
  offsetSeconds(time: Timestamp): number;
  /** The date: `2026-03-29`. */
  date(time: Timestamp): string;
  local(time: Timestamp): LocalTime;
  hour(time: Timestamp): Window;
  day(time: Timestamp): Window;
  /** From Monday to Monday. */
  week(time: Timestamp): Window;
  month(time: Timestamp): Window;
  year(time: Timestamp): Window;
  readonly hours: WindowSet;
  readonly days: WindowSet;
  readonly weeks: WindowSet;
  readonly months: WindowSet;
}

/** The zone with this name in the IANA database, such as `Europe/Berlin`. */
export function timeZone(name: string): TimeZone;
/** UTC. */
export const utc: TimeZone;
/** The names of all zones. */
export function zoneNames(): string[];

/** A mistake in a declaration or a value. */
export class ProjectionError extends Error {}
