// Queries: which rows a subscription selects, and the types of these rows.
import type { Mode } from "./frames.js";
import { stringify } from "./json.js";

/** The names of the fields of rows. */
export type FieldOf<R> = keyof R & string;

/** A value without `null`. */
type Present<T> = Exclude<T, null | undefined>;

type Equality = "=" | "!=";
type Order = "<" | "<=" | ">" | ">=";
type Scalar = string | number | bigint | boolean;

/**
 * A condition: field, operator and value. The operators `<`, `<=`, `>` and `>=` compare numbers and
 * texts, `in` takes an array of values, and `prefix` is for texts. `= null` selects the rows
 * without a value, and `!= null` the rows with a value.
 */
export type Condition<R = any> =
  string extends FieldOf<R> ? ConditionOn<string, any> : { [F in FieldOf<R>]-?: ConditionOn<F, R[F]> }[FieldOf<R>];

/** The conditions on a field with values of the type `T`. */
type ConditionOn<F extends string, T> =
  | readonly [F, Equality, null]
  | (0 extends 1 & T
      ? readonly [F, Equality | Order | "prefix", Scalar] | readonly [F, "in", readonly Scalar[]]
      : unknown extends T
        ? never // Any JSON.
        : [Present<T>] extends [string]
          ? readonly [F, Equality, Present<T>] | readonly [F, Order | "prefix", string] | readonly [F, "in", readonly Present<T>[]]
          : [Present<T>] extends [number | bigint]
            ? readonly [F, Equality | Order, number | bigint] | readonly [F, "in", readonly (number | bigint)[]]
            : [Present<T>] extends [boolean]
              ? readonly [F, Equality, boolean] | readonly [F, "in", readonly boolean[]]
              : never); // Sketches.

/** How often changes are sent. */
interface Delivery {
  /** The minimum time between two deltas, in milliseconds. */
  rate_ms?: number | undefined;
}

interface Filter<R> {
  /** Conditions that must all hold; only rows that fulfil them are in the table. */
  where?: readonly Condition<R>[] | undefined;
}

/**
 * Which rows of a table, which of their fields, and how often. Only members that are set are sent
 * to the server.
 */
export interface Query<R = any, C extends readonly string[] = readonly FieldOf<R>[]> extends Filter<R>, Delivery {
  /** The fields in the rows; all if left out. */
  cols?: C | undefined;
  /** `state` (the default) merges changes of one key that come faster than they can be sent; `changes` does not. */
  mode?: Mode | undefined;
}

/** Rows `R` with the columns `C` only. */
export type Columns<R, C extends readonly string[]> = [FieldOf<R>] extends [C[number]] ? R : Pick<R, C[number] & keyof R>;

/** The fields of rows whose values have the type `V`. */
type FieldsWith<R, V> = string extends FieldOf<R>
  ? string
  : { [F in FieldOf<R>]-?: unknown extends R[F] ? never : [Present<R[F]>] extends [V] ? F : never }[FieldOf<R>];

/** The fields whose type is known, which excludes fields with any JSON. */
type KnownField<R> = string extends FieldOf<R> ? string : { [F in FieldOf<R>]-?: unknown extends R[F] ? never : F }[FieldOf<R>];

/** An aggregate: its function, and the field if it needs one. */
export type Aggregate<R = any> =
  | readonly ["count"]
  | readonly ["count", FieldOf<R>]
  | readonly ["sum" | "avg", FieldsWith<R, number | bigint>]
  | readonly ["min" | "max" | "first" | "last", FieldsWith<R, Scalar>]
  | readonly ["distinct", KnownField<R>]
  | readonly [`p${number}`, FieldsWith<R, number | bigint | { readonly p50: unknown }>];

/** Aggregates by the names of their columns. */
export type Aggregates<R = any> = { readonly [column: string]: Aggregate<R> };

/**
 * The values of buckets without rows: 0 for counts and sums, no values, or the values of the bucket
 * before.
 */
export type Fill = "zero" | "null" | "previous";

/** Groups of the rows of a table. `where` selects the rows that are grouped. */
export interface RollUpQuery<
  R = any,
  T extends string = string,
  B extends readonly string[] = readonly string[],
  A extends Aggregates<R> = Aggregates<R>,
  L = string | undefined,
  F = Fill | undefined,
> extends Filter<R>,
    Delivery {
  /** The length of the buckets of time: a number and `s`, `m`, `h`, `d`, `w`, `mo` or `y`. */
  bucket?: L;
  /**
   * The timestamp field of buckets, `start` and `end`. It may be left out if the table has only one
   * timestamp field; the type of the groups then does not have the column of the bucket.
   */
  time?: T | undefined;
  /** The fields by which rows are grouped. */
  by?: B | undefined;
  /** The aggregates of each group, by the names of their columns. */
  agg?: A | undefined;
  /** What buckets without rows contain; left out if not set. */
  fill?: F;
  /** Only rows whose `time` is at or after this time. */
  start?: string | undefined;
  /** Only rows whose `time` is before this time. */
  end?: string | undefined;
  /** The time zone of buckets, and of times without an offset. */
  tz?: string | undefined;
}

/** A group of rows `R`: the start of its bucket, its values of the fields `B`, and the aggregates `A`. */
export type Group<R, T extends string, B extends readonly string[], A, L, F> = Flat<
  ([L] extends [string] ? { [K in T]: string } : unknown) & { [K in B[number] & keyof R]-?: Exclude<R[K], undefined> } & {
    [K in keyof A]: Result<R, A[K], F>;
  }
>;

/** One object type in place of several. */
type Flat<T> = { [K in keyof T]: T[K] };

/** The type of an aggregate. It is `null` if no row of the group has a value. */
type Result<R, A, F> = A extends readonly ["count" | "distinct", ...unknown[]]
  ? number | ([Extract<F, "null" | "previous">] extends [never] ? never : null)
  : A extends readonly ["min" | "max" | "first" | "last", infer K extends keyof R]
    ? Present<R[K]> | null
    : A extends readonly ["sum" | `p${number}`, infer K extends keyof R]
      ? (bigint extends R[K] ? number | bigint : number) | null
      : number | null;

/** A query in the form in which it is sent. */
export interface SentQuery extends Query {
  rollup?: Partial<RollUpQuery>;
}

/**
 * Identifies what a query selects. Queries that the server treats as equal have equal
 * texts: the order and repetition of conditions do not matter.
 */
export function selection(table: string, { where, cols, rollup }: SentQuery): string {
  const conditions = [...new Set(where?.map((condition) => stringify(condition)))].sort();
  return stringify([table, conditions, cols, rollup && groups(rollup)]);
}

/**
 * The members of a roll-up in a fixed order. The aggregates keep their order, because it is the
 * order of the columns.
 */
function groups({ time, start, end, bucket, by = [], agg = {}, fill, tz }: RollUpQuery): unknown[] {
  return [time, start, end, bucket, by, Object.entries(agg), fill, tz];
}
