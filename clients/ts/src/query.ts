// Queries: which rows a subscription selects, and the types of these rows.
import type { Mode, RollUp } from "./frames.js";
import { stringify } from "./json.js";

/** The names of the fields of rows. */
export type FieldOf<R> = keyof R & string;

/** A value without `null`. */
type Present<T> = Exclude<T, null | undefined>;

type Equality = "=" | "!=";
type Order = "<" | "<=" | ">" | ">=";
type Scalar = string | number | bigint | boolean;

/**
 * A condition: field, operator and value. The operators `<`, `<=`, `>` and `>=` compare
 * numbers and texts, `in` takes an array of values, and `prefix` is for texts. `=` and
 * `!=` with `null` select the rows without a value and those with one.
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

/** Which rows of a table, which of their fields, and how often. Each member is sent to the server if it is set. */
export interface Query<R = any, C extends readonly string[] = readonly FieldOf<R>[]> extends Filter<R>, Delivery {
  /** The fields in the rows; all if left out. */
  cols?: C | undefined;
  /** `state` (the default) merges changes of one key that come faster than they can be sent; `changes` does not. */
  mode?: Mode | undefined;
}

/** Rows `R` with the columns `C` only. */
export type Columns<R, C extends readonly string[]> = [FieldOf<R>] extends [C[number]] ? R : Pick<R, C[number] & keyof R>;

/** A query in the form in which it is sent. */
export interface SentQuery extends Query {
  rollup?: RollUp;
}

/**
 * Identifies what a query selects. Queries that the server treats as equal have equal
 * texts: the order and repetition of conditions do not matter.
 */
export function selection(table: string, { where, cols, rollup }: SentQuery): string {
  const conditions = [...new Set(where?.map((condition) => stringify(condition)))].sort();
  return stringify([table, conditions, cols, rollup && groups(rollup)]);
}

/** The members of a roll-up in one order. */
function groups({ time, start, end, bucket, by = [], agg = {}, fill, tz }: RollUp): unknown[] {
  return [time, start, end, bucket, by, Object.entries(agg), fill, tz];
}
