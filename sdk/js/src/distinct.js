// Counting distinct values; docs/sketches.md specifies the algorithm and the bytes.

import { fromBase64, toBase64 } from "./base64.js";
import { encode } from "./bytes.js";
import { toUndo } from "./call.js";
import { ProjectionError, show } from "./errors.js";
import { xxh64Entry } from "./xxh64.js";

/** Up to this many distinct values are counted exactly. */
export const DISTINCT_EXACT_MAX = 512;

const REGISTERS = 4_096;
const DENSE_BYTES = 2_560;
const RANK_MAX = 29;
/** How many ranks five bits can have. */
const RANKS = 32;
const ENTRY_END = 2 ** 40;
const INDEX_UNIT = 2 ** 28;

/**
 * Counts distinct values, in at most 2,561 bytes. Up to 512 values the count is exact;
 * above 512, its standard error is 1.63 %.
 */
export class Distinct {
  // The entries, ascending, or null in the dense form.
  #entries = [];
  // The registers of the dense form, five bits each, as `encode` returns them; or null.
  #dense = null;
  // How many registers have each rank.
  #ranks = null;
  // The estimate and base64 of the current state, or null.
  #form = null;

  /**
   * Adds a value. An integer is the same value as its decimal text.
   * @param {string | number | bigint} value
   * @returns {this}
   */
  add(value) {
    if (typeof value === "number" ? !Number.isSafeInteger(value) : typeof value !== "string" && typeof value !== "bigint") {
      throw new ProjectionError(`${show(value)} cannot be counted: give text or an integer`);
    }
    return this.addBytes(encode(String(value)));
  }

  /**
   * Adds a value by its bytes.
   * @param {Uint8Array} bytes
   * @returns {this}
   */
  addBytes(bytes) {
    this.#addEntry(xxh64Entry(bytes));
    return this;
  }

  #addEntry(entry) {
    if (this.#dense !== null) return this.#raise(Math.floor(entry / INDEX_UNIT), rankOf(entry));
    const entries = this.#entries;
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (entries[middle] < entry) low = middle + 1;
      else high = middle;
    }
    if (entries[low] === entry) return;
    entries.splice(low, 0, entry);
    this.#form = null;
    this.#remember(entry, null);
    if (entries.length > DISTINCT_EXACT_MAX) this.#densify();
  }

  #densify() {
    const entries = this.#entries;
    this.#dense = new Uint8Array(1 + DENSE_BYTES);
    this.#dense[0] = 2;
    this.#ranks = new Array(RANKS).fill(0);
    this.#ranks[0] = REGISTERS;
    this.#entries = null;
    this.#form = null;
    this.#remember(entries, null);
    for (const entry of entries) {
      const index = Math.floor(entry / INDEX_UNIT);
      const rank = rankOf(entry);
      if (rank > this.#rank(index)) this.#setRank(index, rank);
    }
  }

  #raise(index, rank) {
    const before = this.#rank(index);
    if (rank <= before) return;
    this.#setRank(index, rank);
    this.#form = null;
    this.#remember(index, before);
  }

  /** The rank in a register. */
  #rank(index) {
    const bit = index * 5;
    const byte = 1 + (bit >> 3);
    return (((this.#dense[byte] << 8) | (this.#dense[byte + 1] ?? 0)) >> (11 - (bit & 7))) & 31;
  }

  #setRank(index, rank) {
    const before = this.#rank(index);
    this.#ranks[before] -= 1;
    this.#ranks[rank] += 1;
    const bit = index * 5;
    const byte = 1 + (bit >> 3);
    // The bits that differ; writes after the end have no effect.
    const changed = (before ^ rank) << (11 - (bit & 7));
    this.#dense[byte] ^= changed >> 8;
    this.#dense[byte + 1] ^= changed & 255;
  }

  /** Remembers how to undo a change: see `_undo`. */
  #remember(what, before) {
    toUndo(this, what, before);
  }

  /** Undoes a change: a rank that was raised, an entry that was added, or entries that became registers. */
  _undo(what, before) {
    this.#form = null;
    if (before !== null) {
      this.#setRank(what, before);
    } else if (Array.isArray(what)) {
      this.#dense = this.#ranks = null;
      this.#entries = what;
    } else {
      this.#entries.splice(this.#entries.indexOf(what), 1);
    }
  }

  /**
   * Adds the values of another sketch.
   * @param {Distinct} other
   * @returns {this}
   */
  merge(other) {
    if (other.#dense === null) {
      for (const entry of [...other.#entries]) this.#addEntry(entry);
      return this;
    }
    if (this.#dense === null) this.#densify();
    for (let index = 0; index < REGISTERS; index++) this.#raise(index, other.#rank(index));
    return this;
  }

  /** Whether no value was added. */
  get isEmpty() {
    return this.#dense === null && this.#entries.length === 0;
  }

  /** The number of distinct values: exact up to 512, else approximate. */
  get estimate() {
    if (this.#dense === null) return this.#entries.length;
    return this.#current().estimate;
  }

  #current() {
    if (this.#form === null) {
      const estimate = this.#dense === null ? this.#entries.length : estimateOf(this.#ranks);
      this.#form = { estimate, sketch: toBase64(this.encode()) };
    }
    return this.#form;
  }

  /** The canonical bytes. */
  encode() {
    if (this.#dense === null) {
      const bytes = new Uint8Array(1 + 5 * this.#entries.length);
      bytes[0] = 1;
      let at = 1;
      for (const entry of this.#entries) {
        const high = Math.floor(entry / 4_294_967_296);
        const low = entry - high * 4_294_967_296;
        bytes[at++] = high;
        bytes[at++] = low >>> 24;
        bytes[at++] = (low >>> 16) & 255;
        bytes[at++] = (low >>> 8) & 255;
        bytes[at++] = low & 255;
      }
      return bytes;
    }
    return this.#dense.slice();
  }

  /**
   * The sketch with these bytes.
   * @param {Uint8Array} bytes
   */
  static decode(bytes) {
    if (bytes.length === 0) throw malformed("has too few bytes");
    if (bytes[0] === 1) return Distinct.#decodeSparse(bytes);
    if (bytes[0] === 2) return Distinct.#decodeDense(bytes);
    throw malformed("is of another kind or a later form");
  }

  static #decodeSparse(bytes) {
    const count = (bytes.length - 1) / 5;
    if (!Number.isInteger(count) || count > DISTINCT_EXACT_MAX) throw malformed("has too few or too many bytes");
    const sketch = new Distinct();
    let last = -1;
    for (let at = 1; at < bytes.length; at += 5) {
      const low = (bytes[at + 1] << 24) | (bytes[at + 2] << 16) | (bytes[at + 3] << 8) | bytes[at + 4];
      const entry = bytes[at] * 4_294_967_296 + (low >>> 0);
      if (entry <= last) throw malformed("has a value out of order");
      sketch.#entries.push(entry);
      last = entry;
    }
    return sketch;
  }

  static #decodeDense(bytes) {
    if (bytes.length !== 1 + DENSE_BYTES) throw malformed("has too few or too many bytes");
    const ranks = new Array(RANKS).fill(0);
    // Eight registers are five bytes: one loop over them takes half the time of one over registers.
    for (let at = 1; at <= DENSE_BYTES; at += 5) {
      const high = (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2];
      const low = (bytes[at + 2] << 16) | (bytes[at + 3] << 8) | bytes[at + 4];
      ranks[high >> 19]++;
      ranks[(high >> 14) & 31]++;
      ranks[(high >> 9) & 31]++;
      ranks[(high >> 4) & 31]++;
      ranks[(low >> 15) & 31]++;
      ranks[(low >> 10) & 31]++;
      ranks[(low >> 5) & 31]++;
      ranks[low & 31]++;
    }
    const unused = ranks.slice(RANK_MAX + 1).some((count) => count > 0);
    if (unused || ranks[0] === REGISTERS) throw malformed("has a value out of range");
    const sketch = new Distinct();
    sketch.#entries = null;
    sketch.#dense = bytes.slice();
    sketch.#ranks = ranks;
    return sketch;
  }

  /** The form in a row: the estimate and the sketch as base64. */
  toJSON() {
    const { estimate, sketch } = this.#current();
    return { estimate, sketch };
  }

  /**
   * The sketch in the form `form`, which a row has.
   * @param {{ estimate: number, sketch: string }} form
   */
  static fromJSON(form) {
    const bytes = form !== null && typeof form === "object" && Object.keys(form).length === 2 ? fromBase64(form.sketch) : null;
    if (bytes === null) throw malformed("is not an estimate and base64 with padding");
    const sketch = Distinct.decode(bytes);
    const estimate = sketch.#dense === null ? sketch.#entries.length : estimateOf(sketch.#ranks);
    if (estimate !== form.estimate) throw malformed("has another estimate next to it");
    // Each sketch has only one form, so that its text need not be written again.
    sketch.#form = { estimate, sketch: form.sketch };
    return sketch;
  }
}

function malformed(why) {
  return new ProjectionError(`the sketch ${why}`);
}

/** Leading zeros among the lower 28 bits, plus 1. */
function rankOf(entry) {
  const rest = entry % INDEX_UNIT;
  return Math.clz32(rest) - 4 + 1;
}

const POINT = 60n;
const ONE = 1n << POINT;

/**
 * The estimate from how many registers have each rank: Ertl's improved raw estimator, in
 * fixed-point numbers with 60 fractional bits.
 */
function estimateOf(counts) {
  const share = (count) => BigInt(count) << 48n;
  let sum = (4_096n * tau(ONE - share(counts[RANK_MAX]))) >> 28n;
  for (let rank = 1; rank < RANK_MAX; rank++) {
    if (counts[rank] > 0) sum += BigInt(counts[rank]) * (ONE >> BigInt(rank));
  }
  sum += 4_096n * sigma(share(counts[0]));
  if (sum === 0n) return ENTRY_END;
  const estimate = ((6_653_256_548_922_161_246n << 21n) + sum / 2n) / sum;
  return estimate > BigInt(ENTRY_END) ? ENTRY_END : Number(estimate);
}

function sigma(x) {
  let sum = x;
  let weight = 1n;
  for (;;) {
    x = (x * x) >> POINT;
    if (x === 0n) return sum;
    sum += x * weight;
    weight *= 2n;
  }
}

function tau(x) {
  if (x === 0n || x === ONE) return 0n;
  let sum = ONE - x;
  let halvings = 0n;
  for (;;) {
    x = squareRoot(x << POINT);
    halvings += 1n;
    const rest = ONE - x;
    const term = ((rest * rest) >> POINT) >> halvings;
    if (term === 0n) return sum / 3n;
    sum -= term;
  }
}

/** The integer square root of a positive number of at most 120 bits. */
function squareRoot(value) {
  // The double is exact to 53 bits; one step of Newton's method makes it exact to 1.
  let root = BigInt(Math.floor(Math.sqrt(Number(value))));
  root = (root + value / root) >> 1n;
  while (root * root > value) root -= 1n;
  while ((root + 1n) * (root + 1n) <= value) root += 1n;
  return root;
}
