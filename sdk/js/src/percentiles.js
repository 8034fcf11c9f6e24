// Percentiles: counts of values in log-linear buckets. docs/sketches.md specifies the
// algorithm and the bytes.

import { fromBase64, toBase64 } from "./base64.js";
import { toUndo } from "./call.js";
import { ProjectionError, show } from "./errors.js";

const BUCKETS = 3_712;
const COUNT_MAX = 2n ** 64n - 1n;
const INTEGER_MIN = -(2n ** 63n);
const INTEGER_END = 2n ** 63n;

/** The percentiles that a row shows. */
const SHOWN = [50, 75, 90, 95, 99];

const SAFE_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** A bigint as a number if that is exact. */
const slim = (value) => (value >= -SAFE_MAX && value <= SAFE_MAX ? Number(value) : value);

/** Whether `a` is less than `b`. QuickJS does not always compare a bigint with a number correctly. */
const less = (a, b) => (typeof a === typeof b ? a < b : BigInt(a) < BigInt(b));

function sumOf(a, b) {
  if (typeof a === "number" && typeof b === "number" && Number.isSafeInteger(a + b)) return a + b;
  const sum = BigInt(a) + BigInt(b);
  return slim(sum > COUNT_MAX ? COUNT_MAX : sum);
}

/**
 * `value · scale`, rounded to the nearest integer, and away from zero at a half. Null if the
 * result is not finite or does not fit 64 bits.
 */
export function roundScaled(value, scale) {
  const scaled = value * scale;
  if (!(scaled >= -9_223_372_036_854_775_808 && scaled < 9_223_372_036_854_775_808)) return null;
  const whole = Math.trunc(scaled);
  const rest = scaled - whole;
  const rounded = BigInt(whole) + (rest >= 0.5 ? 1n : 0n) - (rest <= -0.5 ? 1n : 0n);
  return rounded >= INTEGER_END ? null : slim(rounded);
}

/**
 * Percentiles of integers: count, minimum and maximum are exact, a percentile is within
 * 1/128 (0.8 %) of the value at its rank.
 */
export class Percentiles {
  // Counts by bucket, and the buckets in ascending order (null: not sorted now).
  #counts = new Map();
  #order = [];
  #min = null;
  #max = null;
  // The numbers that a row shows for the current state, or null if they are not computed. They are
  // kept because a row with several sketches is written whenever one of the sketches changes.
  #form = null;

  /**
   * Adds a value; choose a unit in which values are integers.
   * @param {number | bigint} value from -2^63 to 2^63 - 1
   * @param {number} times how often it occurred
   * @returns {this}
   */
  add(value, times = 1) {
    let integer = value;
    if (typeof value === "bigint") {
      if (value < INTEGER_MIN || value >= INTEGER_END) throw new ProjectionError(`${show(value)} does not fit 64 bits`);
      integer = slim(value);
    } else if (!Number.isSafeInteger(value)) {
      throw new ProjectionError(`${show(value)} is not an integer: use addNumber(value, scale) for fractions`);
    } else if (value === 0) {
      integer = 0;
    }
    if (!Number.isSafeInteger(times) || times < 0) throw new ProjectionError(`${show(times)} is not a number of times`);
    if (times === 0) return this;
    this.#widen(integer, integer);
    this.#addToBucket(bucketOf(integer), times);
    return this;
  }

  /**
   * Adds `value · scale`, rounded to the nearest integer. Use the same scale for all values.
   * @param {number} value
   * @param {number} scale
   * @returns {boolean} whether it was added: a number that is not finite or does not fit 64 bits is not
   */
  addNumber(value, scale) {
    const rounded = roundScaled(value, scale);
    if (rounded === null) return false;
    this.add(rounded);
    return true;
  }

  #widen(min, max) {
    const before = { min: this.#min, max: this.#max };
    if (before.min !== null && !less(min, before.min) && !less(before.max, max)) return;
    toUndo(this, null, before);
    this.#form = null;
    if (before.min === null || less(min, before.min)) this.#min = min;
    if (before.max === null || less(before.max, max)) this.#max = max;
  }

  /** Undoes a change: of the minimum and maximum (`bucket` is null), or of a bucket's count. */
  _undo(bucket, before) {
    this.#form = null;
    if (bucket === null) {
      this.#min = before.min;
      this.#max = before.max;
    } else if (before === undefined) {
      if (this.#order !== null) this.#order.splice(placeOf(bucket, this.#order), 1);
      this.#counts.delete(bucket);
    } else {
      this.#counts.set(bucket, before);
    }
  }

  #addToBucket(bucket, count) {
    const before = this.#counts.get(bucket);
    toUndo(this, bucket, before);
    this.#form = null;
    if (before === undefined && this.#order !== null) this.#order.splice(placeOf(bucket, this.#order), 0, bucket);
    this.#counts.set(bucket, before === undefined ? count : sumOf(before, count));
  }

  #buckets() {
    this.#order ??= [...this.#counts.keys()].sort((a, b) => a - b);
    return this.#order;
  }

  /**
   * Adds the values of another sketch.
   * @param {Percentiles} other
   * @returns {this}
   */
  merge(other) {
    if (other.isEmpty) return this;
    const counts = [...other.#counts];
    const { min, max } = other;
    this.#widen(min, max);
    // Sorting once takes less time than to insert each bucket.
    this.#order = null;
    for (const [bucket, count] of counts) this.#addToBucket(bucket, count);
    return this;
  }

  /** Whether no value was added. */
  get isEmpty() {
    return this.#min === null;
  }

  /** How many values were added. */
  get count() {
    return totalOf([...this.#counts.values()]);
  }

  /** The smallest value, or null. */
  get min() {
    return this.#min;
  }

  /** The largest value, or null. */
  get max() {
    return this.#max;
  }

  /**
   * The smallest value such that `percent` of 100 values are not greater; null if there are no
   * values.
   * @param {number} percent
   */
  percentile(percent) {
    return this.quantile(percent, 100);
  }

  /**
   * The value at the rank `⌈count · part / whole⌉`, at least 1.
   * @param {number} part
   * @param {number} whole
   */
  quantile(part, whole) {
    if (this.isEmpty || whole === 0) return null;
    const total = BigInt(this.count);
    let rank = (total * BigInt(part) + BigInt(whole) - 1n) / BigInt(whole);
    if (rank < 1n) rank = 1n;
    if (rank > total) rank = total;
    rank = slim(rank);
    let seen = 0;
    for (const bucket of this.#buckets()) {
      // This is not `sumOf`: ranks are limited by the saturated count.
      seen = sumOf(seen, this.#counts.get(bucket));
      if (!less(seen, rank)) {
        return this.#shownValue(bucket);
      }
    }
    return null;
  }

  /** The upper bounds of all but the last of `classes` classes with equally many values each. */
  classBounds(classes) {
    const bounds = [];
    for (let part = 1; part < classes && !this.isEmpty; part++) bounds.push(this.quantile(part, classes));
    return bounds;
  }

  /** The class of `value` among `classes`, from 0 for the smallest values. */
  classOf(value, classes) {
    return this.classBounds(classes).filter((bound) => less(bound, value)).length;
  }

  /** The canonical bytes. */
  encode() {
    const bytes = [3];
    if (!this.isEmpty) {
      writeVarint(zigzag(this.#min), bytes);
      writeVarint(zigzag(this.#max), bytes);
      let next = -BUCKETS;
      for (const bucket of this.#buckets()) {
        writeVarint(bucket - next, bytes);
        writeVarint(this.#counts.get(bucket), bytes);
        next = bucket + 1;
      }
    }
    return Uint8Array.from(bytes);
  }

  /** The numbers that a row shows next to the sketch, in one pass over the buckets. */
  #numbers() {
    const order = this.#buckets();
    const counts = order.map((bucket) => this.#counts.get(bucket));
    const count = totalOf(counts);
    const shown = { count, min: this.#min, p50: null, p75: null, p90: null, p95: null, p99: null, max: this.#max };
    if (this.isEmpty) return shown;
    if (typeof count === "bigint") {
      for (const percent of SHOWN) shown[`p${percent}`] = this.percentile(percent);
      return shown;
    }
    let seen = 0;
    let place = -1;
    for (const percent of SHOWN) {
      const rank = rankOf(count, percent);
      while (seen < rank) seen += counts[++place];
      shown[`p${percent}`] = this.#shownValue(order[place]);
    }
    return shown;
  }

  /** The value of a bucket, which is not outside of the minimum and the maximum. */
  #shownValue(bucket) {
    const value = middleOf(bucket);
    if (less(value, this.#min)) return this.#min;
    return less(this.#max, value) ? this.#max : value;
  }

  /**
   * The sketch with these bytes.
   * @param {Uint8Array} bytes
   */
  static decode(bytes) {
    if (bytes.length === 0) throw malformed("has too few bytes");
    if (bytes[0] !== 3) throw malformed("is of another kind or a later form");
    const sketch = new Percentiles();
    if (bytes.length === 1) return sketch;
    const cursor = { bytes, at: 1 };
    const min = unzigzag(readVarint(cursor));
    const max = unzigzag(readVarint(cursor));
    let next = -BUCKETS;
    let last = null;
    while (cursor.at < bytes.length) {
      const gap = readVarint(cursor);
      const count = readVarint(cursor);
      const bucket = Number(gap) + next;
      if (bucket >= BUCKETS || count === 0) throw malformed("has a value out of range");
      sketch.#counts.set(bucket, count);
      sketch.#order.push(bucket);
      last = bucket;
      next = bucket + 1;
    }
    if (last === null) throw malformed("has too few bytes");
    const [first] = sketch.#counts.keys();
    const single = sketch.#counts.size === 1 && sketch.#counts.get(first) === 1;
    if (bucketOf(min) !== first || bucketOf(max) !== last || less(max, min) || (single && min !== max)) {
      throw malformed("has a value out of range");
    }
    sketch.#min = min;
    sketch.#max = max;
    return sketch;
  }

  /** The form in a row: the numbers, and the sketch as base64. */
  toJSON() {
    this.#form ??= { ...this.#numbers(), sketch: toBase64(this.encode()) };
    return { ...this.#form };
  }

  /**
   * The sketch in the form `form`, which a row has.
   * @param {{ sketch: string }} form
   */
  static fromJSON(form) {
    const bytes = form !== null && typeof form === "object" ? fromBase64(form.sketch) : null;
    if (bytes === null) throw malformed("is not base64 with padding");
    const sketch = Percentiles.decode(bytes);
    // Each sketch has only one form, so that its text need not be written again.
    const own = { ...sketch.#numbers(), sketch: form.sketch };
    const names = Object.keys(own);
    if (Object.keys(form).length !== names.length || names.some((name) => Number(own[name]) !== Number(form[name] ?? null) && name !== "sketch")) {
      throw malformed("has other numbers next to it");
    }
    sketch.#form = own;
    return sketch;
  }
}

/** The sum of counts. */
function totalOf(counts) {
  let total = 0;
  for (const count of counts) {
    total = typeof count === "number" ? total + count : Infinity;
  }
  // The sum of doubles is exact if it is safe.
  return total <= Number.MAX_SAFE_INTEGER ? total : counts.reduce(sumOf, 0);
}

/** `⌈count · percent / 100⌉`, at least 1, without a product that is not exact. */
function rankOf(count, percent) {
  const rest = count % 100;
  return Math.max(1, ((count - rest) / 100) * percent + Math.ceil((rest * percent) / 100));
}

/** The place of the bucket in the ascending list, or the place at which it is missing. */
function placeOf(bucket, order) {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order[middle] < bucket) low = middle + 1;
    else high = middle;
  }
  return low;
}

function malformed(why) {
  return new ProjectionError(`the sketch ${why}`);
}

/** The number of binary digits of a non-negative integer. */
function bitsOf(value) {
  if (typeof value === "bigint") return value.toString(2).length;
  if (value < 4_294_967_296) return 32 - Math.clz32(value);
  return 64 - Math.clz32(Math.floor(value / 4_294_967_296));
}

function bucketOf(value) {
  if (value < 0) return -1 - bucketOf(typeof value === "bigint" ? slim(-1n - value) : -1 - value);
  const shift = Math.max(0, bitsOf(value) - 7);
  const top = typeof value === "bigint" ? Number(value >> BigInt(shift)) : Math.floor(value / 2 ** shift);
  return 64 * shift + top;
}

function middleOf(bucket) {
  if (bucket < 0) {
    const mirrored = middleOf(-1 - bucket);
    return typeof mirrored === "bigint" ? slim(-1n - mirrored) : -1 - mirrored;
  }
  if (bucket < 128) return bucket;
  const shift = Math.floor(bucket / 64) - 1;
  const base = bucket - 64 * shift;
  if (shift < 45) return base * 2 ** shift + Math.floor((2 ** shift - 1) / 2);
  return slim((BigInt(base) << BigInt(shift)) + ((1n << BigInt(shift)) - 1n) / 2n);
}

function zigzag(value) {
  const wide = BigInt(value);
  return slim(wide < 0n ? -2n * wide - 1n : 2n * wide);
}

function unzigzag(bits) {
  const wide = BigInt(bits);
  return slim(wide & 1n ? -((wide + 1n) >> 1n) : wide >> 1n);
}

function writeVarint(value, bytes) {
  let rest = value;
  if (typeof rest === "bigint") {
    while (rest > SAFE_MAX) {
      bytes.push(Number(rest & 127n) | 128);
      rest >>= 7n;
    }
    rest = Number(rest);
  }
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}

/** Reads an integer in its shortest form, of at most 64 bits. */
function readVarint(cursor) {
  const { bytes } = cursor;
  let { at } = cursor;
  let number = 0;
  // Up to 49 bits are exact as a number, which takes a fraction of the time of a bigint.
  for (let unit = 1; unit < 2 ** 49 && at < bytes.length; unit *= 128) {
    const byte = bytes[at++];
    number += (byte & 127) * unit;
    if (byte < 128) {
      if (byte === 0 && unit > 1) throw malformed("has a value out of range");
      cursor.at = at;
      return number;
    }
  }
  return readWide(cursor);
}

/** Like {@link readVarint}, for an integer of any size, or an error. */
function readWide(cursor) {
  let value = 0n;
  for (let shift = 0n; shift < 64n; shift += 7n) {
    if (cursor.at >= cursor.bytes.length) throw malformed("has too few bytes");
    const byte = cursor.bytes[cursor.at++];
    value |= BigInt(byte & 127) << shift;
    if (value > COUNT_MAX) throw malformed("has a value out of range");
    if (byte < 128) {
      if (byte === 0 && shift > 0n) throw malformed("has a value out of range");
      return slim(value);
    }
  }
  throw malformed("has a value out of range");
}
