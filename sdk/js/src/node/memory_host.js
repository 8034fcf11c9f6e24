// The host's side of the contract in memory. Like the real host, it keeps the writes of the
// current call separate from the committed state, so that a failed call leaves nothing behind.

import { column, encode, texts } from "../bytes.js";
import { compareUtf8 } from "../json.js";
import { tenantOf } from "../keys.js";

/** Committed state, and the writes of the current call. */
export class MemoryHost {
  /** @param {number} tables how many tables there are */
  constructor(tables) {
    this.tables = Array.from({ length: tables }, () => new Map());
    this.timers = new Map();
    this.emitted = [];
    this.logs = [];
    this.calls = 0;
    this.watermark = -Infinity;
    this.triggers = [];
    this.discard();
  }

  /** Begins a call for these timers or events: offset and tenant of each. */
  begin(triggers, watermark, { timers = 0, goesOn = true } = {}) {
    this.triggers = triggers;
    this.watermark = watermark;
    this.timerCount = timers;
    this.goesOn = goesOn;
    this.rejected = [];
    this.wrote = new Set();
  }

  /** Makes the writes of the current call part of the state. */
  commit() {
    this.written.forEach((rows, table) => {
      for (const [key, value] of rows) {
        if (value === null) this.tables[table].delete(key);
        else this.tables[table].set(key, value);
      }
    });
    for (const [key, timer] of this.setTimers) {
      if (timer === null) this.timers.delete(key);
      else this.timers.set(key, timer);
    }
    this.emitted.push(...this.outbox);
    this.discard();
  }

  /** Discards the writes of the current call. */
  discard() {
    this.written = this.tables.map(() => new Map());
    this.setTimers = new Map();
    this.outbox = [];
  }

  /** What the projection imports. */
  get imports() {
    const count = (name) => (...args) => {
      this.calls += 1;
      return this[`_${name}`](...args);
    };
    const names = ["get", "getMany", "putMany", "deleteMany", "scan", "setTimer", "cancelTimer", "emit", "reject", "log"];
    return Object.fromEntries(names.map((name) => [name, count(name)]));
  }

  _trigger(cause) {
    const trigger = this.triggers[cause];
    if (trigger === undefined) throw new Error(`the call has no timer or event ${cause}`);
    if (this.rejected.some((event) => event.cause === cause)) throw new Error(`${cause} was rejected, and it is also the cause of a write`);
    if (!this.goesOn && this.rejected.length > 0 && cause > this.rejected[0].cause) throw new Error(`${cause} comes after the rejected event that ends the call`);
    this.wrote.add(cause);
    return trigger;
  }

  _reject(cause, message) {
    const last = this.rejected.at(-1)?.cause ?? -1;
    if (cause < this.timerCount || cause >= this.triggers.length) throw new Error(`${cause} was rejected, which is no event of the batch`);
    if (this.wrote.has(cause)) throw new Error(`${cause} was rejected, and it is also the cause of a write`);
    if (cause <= last || (!this.goesOn && last >= 0)) throw new Error(`${cause} was rejected after another event`);
    this.rejected.push({ cause, message });
  }

  _row(table, key) {
    const own = this.written[table].get(key);
    return own !== undefined ? own : this.tables[table].get(key) ?? null;
  }

  _get(table, key) {
    const row = this._row(table, key);
    return row === null ? null : encode(row);
  }

  _getMany(table, keys) {
    const rows = texts(keys).map((key) => this._row(table, key));
    return [rows.map((row) => row !== null), column(rows.map((row) => row ?? ""))];
  }

  _putMany(causes, table, keys, values) {
    const rows = texts(values);
    this._checkCauses(causes, keys);
    texts(keys).forEach((key, i) => this.written[table].set(key, rows[i]));
  }

  _deleteMany(causes, table, keys) {
    this._checkCauses(causes, keys);
    for (const key of texts(keys)) this.written[table].set(key, null);
  }

  _checkCauses(causes, keys) {
    if (causes.length !== keys.ends.length) throw new Error("each row has a cause");
    for (const cause of causes) this._trigger(cause);
  }

  _scan(table, start, end, limit, reverse) {
    const merged = new Map(this.tables[table]);
    for (const [key, value] of this.written[table]) {
      if (value === null) merged.delete(key);
      else merged.set(key, value);
    }
    const keys = [...merged.keys()].filter(
      (key) => compareUtf8(key, start) >= 0 && (end === "" || compareUtf8(key, end) < 0),
    );
    keys.sort(compareUtf8);
    if (reverse) keys.reverse();
    return keys.slice(0, limit).map((key) => ({ key, value: encode(merged.get(key)) }));
  }

  _checkTimer(cause, key) {
    const trigger = this._trigger(cause);
    const tenant = tenantOf(key);
    if (tenant !== null && tenant !== trigger.tenant) throw new Error(`timer ${JSON.stringify(key)} belongs to another tenant than its cause`);
    return trigger;
  }

  _setTimer(cause, at, key) {
    const { offset } = this._checkTimer(cause, key);
    const known = this.setTimers.has(key) ? this.setTimers.get(key) : this.timers.get(key);
    // If a timer is set again for the same time, it keeps the offset of the first event.
    if (known?.at === at) return;
    this.setTimers.set(key, { at, due: Math.max(at, this.watermark + 1), offset });
  }

  _cancelTimer(cause, key) {
    this._checkTimer(cause, key);
    this.setTimers.set(key, null);
  }

  _emit(events) {
    for (const event of events) {
      const { offset, tenant } = this._trigger(event.cause);
      if (event.tenant !== "" && event.tenant !== (tenant ?? "")) throw new Error("an emitted event has another tenant than its cause");
      const { type, subject, time, data } = event;
      this.outbox.push({ cause: offset, type, subject, tenant: tenant ?? "", time, data });
    }
  }

  _log(cause, level, message) {
    this.logs.push({ level, message });
  }
}
