// Windows over event time. A window is updating or final. The row of an updating window
// changes with every event. The row of a final window is written once, when the watermark
// has passed the window's end.

import { OWN_TIMER, setTimer, toUndo } from "./call.js";
import { Codec } from "./codec.js";
import { ProjectionError, show } from "./errors.js";
import { fieldsOf, text } from "./fields.js";
import { escapePart, fromSortable, InTenant, keyOf, sortable } from "./keys.js";
import { Table } from "./table.js";
import { duration } from "./time.js";

/** The maximum number of values that a sliding window keeps for one key. */
export const RECENT_EVENTS_MAX = 16_384;
const ARMED_MAX = 16;

/** Windows of one size at equal distances, counted from 1970. */
class Windows {
  constructor(size, hop) {
    this.size = Math.max(duration(size), 1);
    this.hop = Math.max(duration(hop), 1);
  }

  /** The windows that `time` is in, oldest first. */
  of(time) {
    const newest = Math.floor(time / this.hop) * this.hop;
    if (this.size === this.hop) return [{ start: newest, end: newest + this.size }];
    const windows = [];
    for (let start = newest; start > time - this.size; start -= this.hop) windows.push({ start, end: start + this.size });
    return windows.reverse();
  }
}

/**
 * Adjacent windows: every moment is in exactly one.
 * @param {number | string} size microseconds, or text such as `1m`
 */
export const tumbling = (size) => new Windows(size, size);

/**
 * Windows of `size` that begin every `hop`.
 * @param {number | string} size
 * @param {number | string} hop
 */
export const hopping = (size, hop) => new Windows(size, hop);

/** The owner of a window: the tenant, if there is one, and the rest of the key. */
function ownerOf(name, key) {
  const parts = Array.isArray(key) ? key : [key];
  const tenant = parts[0] instanceof InTenant ? parts[0].tenant : "";
  const rest = parts[0] instanceof InTenant ? parts[0].key : keyOf(parts);
  if (rest.includes("\0")) throw new ProjectionError(`table \`${name}\`: key ${show(rest)}: U+0000 cannot be part of a key`);
  return { tenant, rest };
}

const timerKey = (id, { tenant, rest }) => `${tenant === "" ? "" : `${tenant}\0`}${OWN_TIMER}${id}/${rest}`;

/** The rest of a timer's key, if the table with this id has set the timer; otherwise null. */
function timerRest(id, timer) {
  const prefix = `${OWN_TIMER}${id}/`;
  return timer.key.startsWith(prefix) ? timer.key.slice(prefix.length) : null;
}

/** A private table whose rows have a state of their own. */
class StateTable {
  constructor(name, fields) {
    this.table = new Table(name, { state: text }, { private: true });
    this.values = new Codec(fieldsOf(fields, `table ${show(name)}`));
    this.name = name;
  }

  get id() {
    return this.table.id;
  }

  /** A value with one event added by `change`. */
  changed(value, change) {
    const result = change(value);
    if (result !== undefined && typeof result?.then === "function") throw new ProjectionError("a change of a window must not be `async`");
    try {
      this.values.check(value);
    } catch (error) {
      error.message = `table \`${this.name}\`: ${error.message}`;
      throw error;
    }
    return value;
  }

  read(key) {
    const row = this.table.get(key);
    return row === null ? null : JSON.parse(row.state);
  }

  write(key, state) {
    this.table.row(key).state = JSON.stringify(state);
  }
}

/** Tumbling or hopping windows that are still open. Create it with {@link openWindows}. */
class OpenWindows extends StateTable {
  constructor(name, fields) {
    super(name, fields);
    // Ends that have a timer; set again, a timer does not change.
    this.armed = [];
    const reset = this.table.reset.bind(this.table);
    this.table.reset = () => {
      this.armed = [];
      reset();
    };
  }

  #prefix(end, tenant) {
    return `${sortable(end)}/${escapePart(tenant)}/`;
  }

  #arm(end, tenant) {
    if (this.armed.some((it) => it.end === end && it.tenant === tenant)) return;
    toUndo(this, this.armed, null);
    this.armed = [...this.armed.slice(1 - ARMED_MAX), { end, tenant }];
    setTimer(end, timerKey(this.id, { tenant, rest: sortable(end) }));
  }

  /** Undoes a change of the current event. */
  _undo(armed) {
    this.armed = armed;
  }

  /**
   * Adds an event to each open window of `windows` that contains it, by a call of `change` with
   * the window's value.
   * @returns {number} how many of the event's windows were already closed: 0 unless the event
   * is late
   */
  add(event, windows, key, change) {
    const { tenant, rest } = ownerOf(this.name, key);
    let late = 0;
    for (const { start, end } of windows.of(event.time)) {
      if (end <= event.watermark) {
        late += 1;
        continue;
      }
      const rowKey = `${this.#prefix(end, tenant)}${sortable(start)}/${rest}`;
      const row = this.table.update(rowKey);
      if (row === null) this.#arm(end, tenant);
      const value = row === null ? this.values.fresh() : this.values.decode(row.state);
      const state = this.values.encode(this.changed(value, change));
      this.table.row(rowKey).state = state;
    }
    return late;
  }

  /** Removes the windows that end with `timer` and returns them, in the order of their starts and keys. */
  close(timer) {
    const rest = timerRest(this.id, timer);
    const end = rest === null ? null : fromSortable(rest);
    if (end === null) return [];
    const prefix = this.#prefix(end, timer.tenant);
    return this.table.scan({ prefix }).map(({ key: rowKey, row }) => {
      this.table.delete(rowKey);
      const own = rowKey.slice(prefix.length);
      const start = fromSortable(own.slice(0, 16));
      return { start, end, tenant: timer.tenant, key: own.slice(17), value: this.values.decode(row.state) };
    });
  }
}

/** Sessions that are still open. Create it with {@link openSessions}. */
class OpenSessions extends StateTable {
  constructor(name, fields, combine) {
    super(name, fields);
    if (typeof combine !== "function") {
      throw new ProjectionError(`table ${show(name)}: sessions need a function that adds the value of a later session to an earlier one`);
    }
    this.combine = combine;
  }

  #rowKey({ tenant, rest }) {
    return `${escapePart(tenant)}/${rest}`;
  }

  #load(rowKey) {
    const state = this.read(rowKey) ?? { armed: null, sessions: [] };
    return { armed: state.armed, sessions: state.sessions.map(([start, end, value]) => ({ start, end, value })) };
  }

  #store(rowKey, { armed, sessions }) {
    this.write(rowKey, { armed, sessions: sessions.map(({ start, end, value }) => [start, end, value]) });
  }

  /**
   * Adds an event to the session of `key` to which it belongs, by a call of `change` with the
   * session's value.
   * @returns the session and the starts of sessions that were joined into it; null if the event is late
   */
  add(event, gap, key, change) {
    const owner = ownerOf(this.name, key);
    const rowKey = this.#rowKey(owner);
    const open = this.#load(rowKey);
    const { sessions } = open;
    const time = event.time;
    const alone = { start: time, end: time + duration(gap) };
    if (alone.end <= event.watermark && !sessions.some(({ start, end }) => start <= time && time < end)) return null;
    let first = 0;
    while (first < sessions.length && sessions[first].end <= alone.start) first++;
    let after = first;
    while (after < sessions.length && sessions[after].start < alone.end) after++;
    let value = null;
    const absorbed = [];
    for (const session of sessions.splice(first, after - first)) {
      alone.start = Math.min(alone.start, session.start);
      alone.end = Math.max(alone.end, session.end);
      absorbed.push(session.start);
      const own = this.values.decode(session.value);
      if (value === null) value = own;
      else this.combine(value, own);
    }
    value = this.changed(value ?? this.values.fresh(), change);
    sessions.splice(first, 0, { ...alone, value: this.values.encode(value) });
    if (open.armed === null || alone.end < open.armed) {
      open.armed = alone.end;
      setTimer(alone.end, timerKey(this.id, owner));
    }
    this.#store(rowKey, open);
    return { ...alone, value, absorbed: absorbed.filter((start) => start !== alone.start) };
  }

  /** Removes the sessions that `timer` ends and returns them, oldest first. */
  close(timer) {
    const rest = timerRest(this.id, timer);
    if (rest === null) return [];
    const rowKey = this.#rowKey({ tenant: timer.tenant, rest });
    if (!this.table.has(rowKey)) return [];
    const { sessions } = this.#load(rowKey);
    const count = sessions.filter(({ end }) => end <= timer.watermark).length;
    const closed = sessions.splice(0, count);
    if (sessions.length === 0) {
      this.table.delete(rowKey);
    } else {
      const armed = sessions[0].end;
      setTimer(armed, timer.fullKey);
      this.#store(rowKey, { armed, sessions });
    }
    return closed.map(({ start, end, value }) => ({ start, end, tenant: timer.tenant, key: rest, value: this.values.decode(value) }));
  }
}

/** The latest values of each key. Create it with {@link recent}. */
class Recent extends StateTable {
  #rowKey({ tenant, rest }) {
    return `${escapePart(tenant)}/${rest}`;
  }

  #slide(entries, at, size) {
    const inside = entries.filter(([time]) => time > at - size && time <= at);
    return {
      at,
      times: inside.map(([time]) => time),
      values: inside.map(([, value]) => this.values.decode(value)),
    };
  }

  /** The next moment at which something changes without an event. */
  #due({ entries, settled, size }) {
    const settles = settled < entries.length ? entries[settled][0] + 1 : Infinity;
    const drops = entries.length > 0 ? entries[0][0] + size : Infinity;
    return Math.min(settles, drops);
  }

  /**
   * Adds an event's value, and returns the window of `size` that ends with the key's newest
   * event; null if the event is so late that no window contains it any more.
   */
  add(event, size, key, value) {
    const owner = ownerOf(this.name, key);
    const rowKey = this.#rowKey(owner);
    const us = Math.max(duration(size), 1);
    const { time } = event;
    if (time + us <= event.watermark) return null;
    const state = this.read(rowKey) ?? { armed: null, size: us, settled: 0, entries: [] };
    const { entries } = state;
    if (entries.length >= RECENT_EVENTS_MAX) {
      throw new ProjectionError(`${show(rowKey)} has ${RECENT_EVENTS_MAX} values in a sliding window, which is the limit; use hopping windows`);
    }
    state.size = us;
    let index = entries.length;
    while (index > 0 && entries[index - 1][0] > time) index--;
    const row = this.values.from(value);
    entries.splice(index, 0, [time, this.values.encode(this.changed(row, () => undefined))]);
    // All windows up to the watermark were returned before, and the later ones come after this one.
    if (time < event.watermark) state.settled += 1;
    const due = this.#due(state);
    if (state.armed === null || due < state.armed) {
      state.armed = due;
      setTimer(due, timerKey(this.id, owner));
    }
    this.write(rowKey, state);
    return this.#slide(entries, entries.at(-1)[0], us);
  }

  /** Advances the window of the key to which `timer` belongs to the watermark; null if it is not one of this table's. */
  advance(timer) {
    const rest = timerRest(this.id, timer);
    if (rest === null) return null;
    const rowKey = this.#rowKey({ tenant: timer.tenant, rest });
    const state = this.read(rowKey);
    if (state === null) return null;
    const { watermark } = timer;
    const { entries, size } = state;
    const all = [...entries];
    const told = state.settled;
    const settled = Math.max(entries.filter(([time]) => time < watermark).length, told);
    const dropped = entries.filter(([time]) => time + size <= watermark).length;
    entries.splice(0, dropped);
    state.settled = settled - dropped;
    if (entries.length === 0) {
      this.table.delete(rowKey);
    } else {
      state.armed = this.#due(state);
      setTimer(state.armed, timer.fullKey);
      this.write(rowKey, state);
    }
    const newest = all.length > 0 ? all.at(-1)[0] : watermark;
    const ends = [];
    for (let i = told; i < settled; i++) if (all[i + 1]?.[0] !== all[i][0]) ends.push(all[i][0]);
    return {
      tenant: timer.tenant,
      key: rest,
      current: this.#slide(all, Math.max(newest, watermark), size),
      settled: ends.map((at) => this.#slide(all, at, size)),
    };
  }
}

/**
 * Tumbling or hopping windows whose rows are written when they are over.
 * @param {string} name the name of their private table
 * @param {object} fields the fields of a window's value: `{ orders: integer }`
 */
export const openWindows = (name, fields) => new OpenWindows(name, fields);

/**
 * Session windows: a session is a series of events of a key with less than a gap between one
 * event and the next.
 * @param {string} name the name of their private table
 * @param {object} fields the fields of a session's value
 * @param {(earlier: object, later: object) => void} combine adds the value of a later session to an earlier one
 */
export const openSessions = (name, fields, combine) => new OpenSessions(name, fields, combine);

/**
 * Sliding windows: the latest values of each key.
 * @param {string} name the name of their private table
 * @param {object} fields the fields of an event's value
 */
export const recent = (name, fields) => new Recent(name, fields);
