// Tables with typed rows, which are cached in memory and written once, at the end of a call.
// The changes of an event can be undone until the event is settled, which means checked and
// accepted.

import { column, decode, encode, texts } from "./bytes.js";
import { call, hostFor } from "./call.js";
import { Codec } from "./codec.js";
import { hidden, isFatal, ProjectionError, show, suggestion } from "./errors.js";
import { fieldsOf } from "./fields.js";
import { endOfPrefix, escapePart, InTenant, keyOf, narrow, partText, tenantOf } from "./keys.js";
import { duration, iso } from "./time.js";

/** How many rows a table keeps in memory, unless its option `cache` says otherwise. */
export const CACHE_ROWS = 32_768;

const SCAN_PAGE_ROWS = 128;
/** The longest key that the host takes. */
const KEY_BYTES_MAX = 1_024;
const SCAN_OPTIONS = ["prefix", "start", "end", "limit", "reverse"];
const OPTIONS = ["key", "description", "private", "perTenant", "newestBy", "retention", "cache"];

/** Tables that were declared since the last projection. */
let declared = [];

/** The tables that were declared since the last call, in order. */
export function takeDeclared() {
  const tables = declared;
  declared = [];
  return tables;
}

/** How many first parts of keys a table remembers, each with its second parts. */
const FIRST_PARTS_MAX = 1_024;

/** How a declared key field becomes text. */
const keyTexts = {
  text: partText,
  timestamp: (value) => {
    if (typeof value === "string") return value;
    return iso(typeof value === "object" && value !== null ? value.start : value);
  },
  integer: narrow,
  bigint: narrow,
  boolean: String,
};

/** A table of the projection. Create it with {@link table}. */
export class Table {
  constructor(name, fields, options = {}) {
    const where = `table ${show(name)}`;
    if (typeof name !== "string" || !/^[a-z][a-z0-9_-]{0,63}$/.test(name)) {
      throw new ProjectionError(
        `the table name ${show(name)} must be 1 to 64 lower-case letters, digits, \`_\` and \`-\`, beginning with a letter`,
      );
    }
    for (const option of Object.keys(options)) {
      if (!OPTIONS.includes(option)) throw new ProjectionError(`${where} has no option \`${option}\`${suggestion(option, OPTIONS)}`);
    }
    this.id = null;
    this.name = name;
    this.fields = fieldsOf(fields, where);
    this.options = options;
    this.codec = new Codec(this.fields);
    this.perTenant = options.perTenant === true;
    this.cacheRows = options.cache ?? CACHE_ROWS;
    this.keyFields = this._keyFieldsOf(where);
    /** The key that a message has named last, and how the message begins. */
    this.named = { key: null, text: "" };
    this.reset();
    declared.push(this);
  }

  _keyFieldsOf(where) {
    const names = this.options.key;
    if (names === undefined) return null;
    const list = Array.isArray(names) ? names : [names];
    return list.map((name) => {
      const field = this.fields.find((field) => field.name === name)?.field;
      if (field === undefined) throw new ProjectionError(`${where}: the key names the field ${show(name)}, which is not declared`);
      const toText = keyTexts[field.kind];
      if (toText === undefined) throw new ProjectionError(`${where}: a field of kind ${field.kind} cannot be part of the key`);
      return { name, toText };
    });
  }

  /** Forgets all rows in memory, as a fresh instance has none. */
  reset() {
    /** Rows by key. */
    this.entries = new Map();
    /** Rows to be sent to the host. */
    this.changed = [];
    this._forgetQuick();
  }

  /** Forgets the entries by the parts of their keys: keys of one part, and of two. */
  _forgetQuick() {
    this.one = new Map();
    this.two = new Map();
    this.pairs = 0;
    this.lastFirst = null;
  }

  /** The description for the contract. */
  describe() {
    const { description = "", newestBy = null, retention } = this.options;
    return {
      name: this.name,
      description,
      public: this.options.private !== true,
      perTenant: this.perTenant,
      fields: this.options.private === true ? [] : this.fields.map(({ name, field }) => ({
        name, kind: field.contractKind, unit: field.unit, merge: field.merge,
      })),
      newestBy,
      retention: retention === undefined ? null : duration(retention),
      options: [],
    };
  }

  _error(key, error) {
    const { named } = this;
    if (named.key !== key) {
      named.key = key;
      named.text = `table \`${this.name}\`: row ${show(key)}: `;
    }
    error.message = named.text + error.message;
    return error;
  }

  /** The key of a row, from the parts or the values of the key's fields. */
  _key(a, b, c, d) {
    let key;
    if (a instanceof InTenant) {
      key = `${a.tenant}\0${a.key}`;
      if (!this.perTenant) return key;
    } else if (this.keyFields !== null) {
      key = this._fieldsKey([a, b, c, d]);
    } else if (b === undefined) {
      key = typeof a === "string" ? a : Array.isArray(a) ? keyOf(a) : partText(a);
    } else {
      key = `${escapePart(partText(a))}/${escapePart(partText(b))}`;
      if (c !== undefined) key += `/${escapePart(partText(c))}`;
      if (d !== undefined) key += `/${escapePart(partText(d))}`;
    }
    if (this.perTenant && !(a instanceof InTenant)) {
      if (call.tenant === null) {
        throw new ProjectionError(`table \`${this.name}\`: the timer belongs to no tenant: set it with \`inTenant(...)\``);
      }
      key = `${call.tenant}\0${key}`;
    }
    return key;
  }

  _fieldsKey(values) {
    const { keyFields } = this;
    const given = Array.isArray(values[0]) ? values[0] : values;
    let key = "";
    for (let i = 0; i < keyFields.length; i++) {
      const value = given[i];
      if (value === undefined || value === null) {
        throw new ProjectionError(`table \`${this.name}\`: the key's field \`${keyFields[i].name}\` has no value`);
      }
      const text = keyFields[i].toText(value);
      if (i > 0) key += "/";
      key += keyFields.length > 1 ? escapePart(text) : text;
    }
    return key;
  }

  /** A new row, with the fields of the key filled in. */
  _fresh(values) {
    const row = this.codec.fresh();
    if (this.keyFields !== null) {
      const given = Array.isArray(values[0]) ? values[0] : values;
      this.keyFields.forEach(({ name }, i) => {
        const value = given[i];
        row[name] = value !== null && typeof value === "object" ? value.start : value;
      });
    }
    return row;
  }

  _checkKey(key) {
    const rest = this.perTenant ? key.slice(key.indexOf("\0") + 1) : key;
    if (rest === "") throw new ProjectionError(`table \`${this.name}\`: a key cannot be empty`);
    if (key.length > KEY_BYTES_MAX || (key.length > KEY_BYTES_MAX / 3 && encode(key).length > KEY_BYTES_MAX)) {
      throw new ProjectionError(`table \`${this.name}\`: key ${show(rest)} has more than ${KEY_BYTES_MAX} bytes`);
    }
    if (rest.includes("\0")) throw new ProjectionError(`table \`${this.name}\`: key ${show(rest)}: U+0000 cannot be part of a key`);
    if (!key.isWellFormed()) throw new ProjectionError(`table \`${this.name}\`: key ${show(key)} has half of a surrogate pair`);
  }

  _load(key) {
    // A map reads the whole of a key, so a key that is too long is refused before that.
    if (key.length > KEY_BYTES_MAX) this._checkKey(key);
    const known = this.entries.get(key);
    if (known !== undefined) return known;
    this._checkKey(key);
    const bytes = this._host().get(this.id, key);
    return this._added(key, bytes === null || bytes === undefined ? null : this._decode(key, bytes));
  }

  _added(key, row) {
    const entry = this.codec.entry(this, key, row);
    this.entries.set(key, entry);
    if (this.entries.size > this.cacheRows) call.crowded = call.more = true;
    return entry;
  }

  _host() {
    if (this.id === null) throw new ProjectionError(`table \`${this.name}\` belongs to no projection: declare tables before \`projection({ … })\``);
    return hostFor(`table \`${this.name}\``);
  }

  _decode(key, bytes) {
    try {
      return this.codec.decode(decode(bytes));
    } catch (error) {
      throw this._error(key, error);
    }
  }

  /** Marks a row as changed by the current event. */
  _change(entry) {
    if (entry.event === call.event) return;
    if (this.perTenant && tenantOf(entry.key) !== call.tenant) {
      throw new ProjectionError(`table \`${this.name}\`: row ${show(entry.key)} belongs to another tenant than the event`);
    }
    if (!entry.known && entry.row !== null) {
      this.codec.learn(entry, entry.row);
      entry.known = true;
      entry.ready = !this.perTenant;
    }
    entry.event = call.event;
    call.touched[call.touchedCount++] = entry;
  }

  /** The row under this key, to change it; a new one if there is none. */
  row(a, b, c, d) {
    let entry = c !== undefined ? undefined : b === undefined ? this.one.get(a) : this.two.get(a)?.get(b);
    if (entry === undefined) entry = this._find(a, b, c, d, this.row);
    const { event } = call;
    if (entry.event !== event) {
      if (entry.ready) {
        entry.event = event;
        call.touched[call.touchedCount++] = entry;
      } else {
        this._change(entry);
      }
    }
    return entry.row ?? (entry.row = this._fresh([a, b, c, d]));
  }

  /**
   * The entry of a key. For keys of one or two parts that were used before, there is a fast path.
   */
  _entry(a, b, c, d, below) {
    const known = c !== undefined ? undefined : b === undefined ? this.one.get(a) : this.two.get(a)?.get(b);
    return known === undefined ? this._find(a, b, c, d, below) : known;
  }

  /** `below` is the function that the projection has called, for the stacks of errors. */
  _find(a, b, c, d, below) {
    hidden.below = below;
    const entry = this._load(this._key(a, b, c, d));
    hidden.below = null;
    // With `perTenant`, the same parts are another key for each tenant.
    if (c !== undefined || this.perTenant || !isPrimitive(a)) return entry;
    if (b === undefined) {
      if (this.one.size >= this.cacheRows) this.one = new Map();
      this.one.set(a, entry);
    } else if (a !== this.lastFirst) {
      // Pairs are worth remembering only if the first part comes again.
      this.lastFirst = a;
    } else if (isPrimitive(b)) {
      this._addPair(a, b, entry);
    }
    return entry;
  }

  _addPair(a, b, entry) {
    if (this.pairs >= this.cacheRows || this.two.size >= FIRST_PARTS_MAX) {
      this.two = new Map();
      this.pairs = 0;
    }
    let seconds = this.two.get(a);
    if (seconds === undefined) this.two.set(a, (seconds = new Map()));
    seconds.set(b, entry);
    this.pairs += 1;
  }

  /** The row under this key, to change it, or null. */
  update(a, b, c, d) {
    const entry = this._entry(a, b, c, d, this.update);
    if (entry.row !== null) this._change(entry);
    return entry.row;
  }

  /** The row under this key, to read it, or null. */
  get(a, b, c, d) {
    const { row } = this._entry(a, b, c, d, this.get);
    return row !== null && call.strict ? Object.freeze({ ...row }) : row;
  }

  /** Whether there is a row under this key. */
  has(a, b, c, d) {
    return this._entry(a, b, c, d, this.has).row !== null;
  }

  /** Writes a row: the last argument has the values of its fields, those before are the key. */
  put(...args) {
    const values = args.pop();
    const row = this._fresh(args);
    const given = this.codec.from(values);
    for (const name of Object.keys(values)) row[name] = given[name];
    this._set(this._key(...args), row);
    return row;
  }

  /** Deletes the row under this key, if there is one. */
  delete(a, b, c, d) {
    this._set(this._key(a, b, c, d), null);
  }

  /** Deletes the row under this key and returns it, or null. */
  take(a, b, c, d) {
    const entry = this._entry(a, b, c, d, this.take);
    const { row } = entry;
    if (row !== null) {
      this._change(entry);
      entry.row = null;
    }
    return row;
  }

  _set(key, row) {
    let entry = this.entries.get(key);
    if (entry === undefined) {
      this._checkKey(key);
      // The row in the host is not read: to undo the change, the entry is dropped.
      this._host();
      entry = this._added(key, null);
      entry.before = undefined;
    }
    this._change(entry);
    entry.row = row;
  }

  /** Reads the rows of these keys in one call of the host: text, or arrays of parts. */
  prefetch(keys) {
    const missing = [];
    const seen = new Set();
    for (const parts of keys) {
      const key = Array.isArray(parts) ? this._key(...parts) : this._key(parts);
      if (this.entries.has(key) || seen.has(key)) continue;
      this._checkKey(key);
      seen.add(key);
      missing.push(key);
      if (this.entries.size + missing.length >= this.cacheRows) break;
    }
    if (missing.length === 0) return;
    const [found, rows] = this._host().getMany(this.id, column(missing));
    const values = texts(rows);
    for (let i = 0; i < missing.length; i++) {
      const key = missing[i];
      try {
        this._added(key, found[i] ? this.codec.decode(values[i]) : null);
      } catch (error) {
        throw this._error(key, error);
      }
    }
  }

  /**
   * The rows of a range in the order of their keys, each as `{ key, row }`.
   * @param {{ prefix?: unknown, start?: unknown, end?: unknown, limit?: number, reverse?: boolean }} range
   */
  scan(range = {}) {
    for (const name of Object.keys(range)) {
      if (!SCAN_OPTIONS.includes(name)) throw new ProjectionError(`a scan has no option \`${name}\`${suggestion(name, SCAN_OPTIONS)}`);
    }
    const host = this._host();
    const { limit = Infinity, reverse = false } = range;
    let [start, end] = this._bounds(range);
    this.flush();
    const rows = [];
    while (rows.length < limit) {
      const wanted = Math.min(limit - rows.length, SCAN_PAGE_ROWS);
      const page = host.scan(this.id, start, end, wanted, reverse);
      for (const { key, value } of page) rows.push({ key, row: this._decode(key, value) });
      if (page.length < wanted) break;
      if (reverse) end = rows.at(-1).key;
      else start = `${rows.at(-1).key}\0`;
    }
    return rows;
  }

  _bounds({ prefix, start, end }) {
    const text = (key) => {
      if (key === undefined) return "";
      const parts = Array.isArray(key) ? key : [key];
      if (parts[0] instanceof InTenant) return `${parts[0].tenant}\0${parts[0].key}`;
      const rest = parts.length === 1 && parts[0] === "" ? "" : keyOf(parts.map((part) => (typeof part === "number" ? iso(part) : part)));
      return this.perTenant ? `${call.tenant}\0${rest}` : rest;
    };
    if (prefix !== undefined || (this.perTenant && start === undefined && end === undefined)) {
      const from = text(prefix ?? "");
      return [from, endOfPrefix(from)];
    }
    return [text(start), text(end)];
  }

  /** Sends changed rows to the host, with those that the current event has changed so far. */
  flush() {
    const held = call.touched.slice(0, call.touchedCount).filter((entry) => entry.table === this);
    if (held.length > 0) {
      for (const entry of held) check(entry);
      for (const entry of held) {
        entry.cause = call.cause;
        if (!entry.changed) this.changed.push(entry);
      }
      call.sent = call.more = true;
    }
    const { changed } = this;
    if (changed.length === 0) return;
    this.#send(changed);
    for (const entry of changed) entry.changed = false;
    this.changed = [];
  }

  #send(changed) {
    const { host } = call;
    const puts = { causes: [], keys: [], rows: [] };
    const deletes = { causes: [], keys: [] };
    for (const entry of changed) {
      const to = entry.row === null ? deletes : puts;
      to.causes.push(entry.cause);
      to.keys.push(entry.key);
      if (entry.row !== null) puts.rows.push(this.codec.encode(entry.row));
    }
    if (deletes.keys.length > 0) host.deleteMany(deletes.causes, this.id, column(deletes.keys));
    if (puts.keys.length > 0) host.putMany(puts.causes, this.id, column(puts.keys), column(puts.rows));
  }

  /** Between events: drops rows from memory if there are too many. */
  trim() {
    if (this.entries.size <= this.cacheRows) return;
    this.flush();
    this.reset();
  }

  /** Forgets a row that was written but not read, because the host may have it. */
  forget(entry) {
    this.entries.delete(entry.key);
    this._forgetQuick();
  }
}

const isPrimitive = (value) => value !== null && typeof value !== "object";

/** Throws unless the row of `entry` can be stored, while the projection's function runs. */
function check(entry) {
  if (entry.row === null) return;
  try {
    entry.codec.checkEntry(entry, entry.row);
  } catch (error) {
    const why = notStored(entry, error);
    throw isFatal(why) ? why : new ProjectionError(why.message);
  }
}

function notStored({ table, key, row }, error) {
  if (error?.constructor === ProjectionError) return table._error(key, error);
  return isFatal(error) ? error : table._error(key, table.codec.reasonOf(row, error));
}

/** Marks the row of `entry`, which was checked, as changed. */
function settled(entry) {
  const { row, table } = entry;
  if (row !== entry.before) {
    entry.before = row;
    entry.known = row !== null;
    entry.ready = entry.known && !table.perTenant;
  }
  if (!entry.changed) {
    entry.changed = true;
    table.changed.push(entry);
  }
}

/**
 * The value of `stackTraceLimit` before an error of {@link settleRows}; null if there was no such
 * error.
 */
let framesBefore = null;

/**
 * Keeps QuickJS from writing a stack when `error` is thrown again, because no code of the
 * projection is running.
 */
function withoutStack(error) {
  framesBefore = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  return error;
}

/** Restores the limit of stacks after an error of {@link settleRows}. */
export function endSettling() {
  if (framesBefore === null) return;
  Error.stackTraceLimit = framesBefore;
  framesBefore = null;
}

/**
 * Ends a timer or event: throws if a row that it changed cannot be stored. The caller catches
 * the error and calls {@link endSettling}.
 */
export function settleRows() {
  const { touched, touchedCount, cause } = call;
  if (touchedCount === 1) {
    const entry = touched[0];
    const { row } = entry;
    try {
      if (row !== null) entry.codec.settle(entry, row, cause);
      else entry.cause = cause;
    } catch (error) {
      throw withoutStack(notStored(entry, error));
    }
    if (row !== entry.before || !entry.changed) settled(entry);
  } else {
    // Nothing is remembered before all rows were checked.
    for (let i = 0; i < touchedCount; i++) {
      const entry = touched[i];
      if (entry.row === null) continue;
      try {
        entry.codec.checkEntry(entry, entry.row);
      } catch (error) {
        throw withoutStack(notStored(entry, error));
      }
    }
    for (let i = 0; i < touchedCount; i++) {
      const entry = touched[i];
      if (entry.row !== null) entry.codec.keep(entry, entry.row);
      entry.cause = cause;
      settled(entry);
    }
  }
  call.touchedCount = 0;
}

/**
 * Declares a table.
 * @param {string} name lower-case letters, digits, `_` and `-`
 * @param {object} fields the fields of its rows: `{ product: text, orders: integer("sum") }`
 * @param {object} options `key`, `description`, `private`, `perTenant`, `newestBy`, `retention`, `cache`
 */
export const table = (name, fields, options) => new Table(name, fields, options);

