// Decides whether a state that a client showed was a committed state of a table.
//
// The events of a test are computed from their numbers. So this file can fold the events
// before an offset a second time, and knows which rows a table must have at that offset.
import { show } from "./patience.js";

/** A row of the example projection's table `revenue/by_product`. */
export interface Product {
  product: string;
  orders: number;
  quantity: number;
  cents: number;
}
/** A row of `revenue/by_minute`. */
export interface Minute {
  minute: string;
  orders: number;
  cents: number;
}
export interface Tables {
  "revenue/by_product": Product;
  "revenue/by_minute": Minute;
}

/** A pseudo-random number that depends only on `n`: the xorshift of a product. */
function mix(n: number): number {
  let x = Math.imul(n + 1, 0x9e3779b1);
  x ^= x >>> 15;
  x = Math.imul(x, 0x85ebca6b);
  return (x ^ (x >>> 13)) >>> 0;
}

const PRODUCTS = 37;
const START = Date.UTC(2026, 0, 1);

function order(n: number): { product: string; quantity: number; cents: number; time: Date } {
  const random = mix(n);
  // Time advances with `n`, but some events are up to four minutes older.
  const time = new Date(START + n * 700 - (random % 5) * 60_000);
  return { product: `p${random % PRODUCTS}`, quantity: 1 + (random % 3), cents: random % 10_000, time };
}

/** The event with the number `n`, as a line of NDJSON. */
export function event(n: number): string {
  const { time, ...data } = order(n);
  const type = "order.placed";
  return JSON.stringify({ specversion: "1.0", id: `${n}`, source: "judge", type, time: time.toISOString(), data });
}

export interface Seen {
  table: string;
  epoch: string;
  commit: number;
  offset: number;
  rows: ReadonlyMap<string, any>;
}

const rowText = (row: any): string => show(Object.entries(row).sort());

/** The hash of a row, for sums. */
function hash(key: string, row: any): number {
  let h = 0;
  for (const c of `${key} ${rowText(row)}`) h = Math.imul(h ^ c.codePointAt(0)!, 0x01000193);
  return mix(h);
}

/**
 * Keeps, for each table and offset, the sum of the hashes of all rows. If a client shows a state,
 * its rows must have the same sum, and must count as many orders as there are events before its
 * offset.
 */
export class Judge {
  #sums: { [table: string]: number[] } = { "revenue/by_product": [0], "revenue/by_minute": [0] };
  #products = new Map<string, Product>();
  #minutes = new Map<string, Minute>();
  #last = new Map<object, Seen>();
  states = 0;

  /** Folds events up to a number. */
  #fold(to: number): void {
    for (let n = this.#sums["revenue/by_product"]!.length - 1; n < to; n += 1) {
      const { product, quantity, cents, time } = order(n);
      const minute = `${time.toISOString().slice(0, 17)}00Z`;
      const one = this.#products.get(product) ?? { product, orders: 0, quantity: 0, cents: 0 };
      const a = { ...one, orders: one.orders + 1, quantity: one.quantity + quantity, cents: one.cents + cents };
      this.#step("revenue/by_product", product, this.#products.get(product), a);
      this.#products.set(product, a);
      const two = this.#minutes.get(minute) ?? { minute, orders: 0, cents: 0 };
      const b = { ...two, orders: two.orders + 1, cents: two.cents + cents };
      this.#step("revenue/by_minute", minute, this.#minutes.get(minute), b);
      this.#minutes.set(minute, b);
    }
  }

  #step(table: string, key: string, before: object | undefined, after: object): void {
    const sums = this.#sums[table]!;
    sums.push((sums.at(-1)! - (before ? hash(key, before) : 0) + hash(key, after)) | 0);
  }

  /** Fails if the state was never committed, or if it is older than the reader's previous state. */
  check(reader: object, seen: Seen): void {
    const { table, epoch, commit, offset, rows } = seen;
    const at = `${table} at ${epoch} ${commit}, offset ${offset}`;
    this.#fold(offset);
    let [orders, sum] = [0, 0];
    for (const [key, row] of rows) {
      orders += row.orders;
      sum = (sum + hash(key, row)) | 0;
    }
    if (orders !== offset) throw new Error(`${at}: the rows have ${orders} events`);
    if (sum !== this.#sums[table]![offset]) throw new Error(`${at}: rows that never were: ${show(rows)}`);
    const last = this.#last.get(reader);
    if (last?.epoch === epoch && (last.commit > commit || last.offset > offset))
      throw new Error(`${at}: went back from ${last.commit}, offset ${last.offset}`);
    this.#last.set(reader, seen);
    this.states += 1;
  }

  /** The rows after the events before a number. */
  rows(table: keyof Tables, events: number): Map<string, any> {
    this.#fold(events);
    return table === "revenue/by_product" ? this.#products : this.#minutes;
  }
}
