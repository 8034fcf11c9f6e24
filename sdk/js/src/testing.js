// A host in memory for tests: a test feeds it events and checks the tables. Tests need neither Wasm
// nor a server.

import { column, decode } from "./bytes.js";
import { call } from "./call.js";
import { ProjectionError, show } from "./errors.js";
import { compareUtf8 } from "./json.js";
import { decodeMembers } from "./node/decode_members.js";
import { Source } from "./node/load.js";
import { MemoryHost } from "./node/memory_host.js";
import { Projection, setReason } from "./projection.js";
import { iso, parseTime } from "./time.js";

const BATCH_EVENTS = 1_000;
const BATCH_TIMERS = 1_000;
const ATTRIBUTES = ["id", "source", "subject", "tenant", "dataschema", "datacontenttype"];
const NEVER = -(2 ** 63);

/**
 * An event for tests.
 * @param {string} type
 * @param {unknown} data any JSON; a `string` is taken as the payload's text
 * @param {{ time?: string | number, id?: string, source?: string, subject?: string, tenant?: string,
 *   dataschema?: string, datacontenttype?: string, extensions?: object }} attributes
 */
export function event(type, data = {}, attributes = {}) {
  const { time = 0, id = "", source = "test", subject = "", tenant = "", dataschema = "", datacontenttype = "application/json", extensions = {}, ...others } = attributes;
  for (const name of Object.keys(others)) throw new ProjectionError(`an event has no attribute \`${name}\`: give it in \`extensions\``);
  return {
    type, id, source, subject, tenant, dataschema, datacontenttype,
    time: typeof time === "string" ? parseTime(time) : time,
    // Like the host: nothing, if there are none.
    extensions: Object.keys(extensions).length === 0 ? "" : JSON.stringify(extensions),
    data: typeof data === "string" ? data : JSON.stringify(data, (_, value) => (typeof value === "bigint" ? Number(value) : value)),
  };
}

/** The text of a member of a JSON object, so that its numbers stay as they were written. */
function dataText(line) {
  const { data } = JSON.parse(line);
  if (data === undefined) return "null";
  const at = line.indexOf('"data":');
  if (at < 0) return JSON.stringify(data);
  for (let end = line.length - 1; end > at; end--) {
    const text = line.slice(at + 7, end).trim();
    try {
      JSON.parse(text);
      return text;
    } catch {
      // Not the whole value yet.
    }
  }
  return JSON.stringify(data);
}

/**
 * The events in a text of CloudEvents, one JSON object per line.
 * @param {string} text
 */
export function readNdjson(text) {
  return text.split("\n").filter((line) => line.trim() !== "").map((line, i) => {
    let parsed;
    try {
      parsed = JSON.parse(line);
    } catch (error) {
      throw new ProjectionError(`line ${i + 1}: ${error.message}`);
    }
    const { specversion, type, time, data, id, source, subject, tenant, dataschema, datacontenttype = "", ...extensions } = parsed;
    if (typeof type !== "string" || typeof time !== "string") throw new ProjectionError(`line ${i + 1}: an event has a type and a time`);
    return event(type, dataText(line), { time, id, source, subject, tenant, dataschema, datacontenttype, extensions });
  });
}

/** A projection and its host in memory. */
export class Harness {
  /**
   * @param {Projection | string | URL} projection a projection, or the file with its source (JavaScript or
   * TypeScript). With a file, the source is run again after an instance is dropped
   * @param {{ parameters?: object, batchSize?: number, dropInstances?: boolean }} options
   */
  constructor(projection, { parameters = null, batchSize = BATCH_EVENTS, dropInstances = false } = {}) {
    this._source = projection instanceof Projection ? null : projection instanceof Source ? projection : new Source(projection);
    this._projection = projection instanceof Projection ? projection : null;
    this._parameters = parameters === null ? "" : JSON.stringify(parameters);
    this._batchSize = Math.max(1, batchSize);
    this._dropInstances = dropInstances;
    this._instance = null;
    this._host = null;
    this._imports = null;
    this._nextOffset = 0;
    this._newest = NEVER;
    this._parked = [];
    this._parkedSubjects = new Set();
    /** The watermark, in microseconds since 1970; -2^63 before the first event. */
    this.watermark = NEVER;
    /** Errors of calls with timers. */
    this.timerFailures = [];
    /** Why the projection was halted, or null. */
    this.halted = null;
    /** The manifest. */
    this.manifest = this._open();
    this._host = new MemoryHost(this.manifest.tables.length);
    this._imports = this._host.imports;
    this._host.logs.push(...this._earlyLogs);
  }

  /** A fresh instance, set up. */
  _open() {
    const logs = [];
    if (this._source !== null) setReason(this._source.tell);
    try {
      const instance = this._source === null ? this._projection : this._source.load();
      instance.reset();
      const early = { log: (_, level, message) => logs.push({ level, message }) };
      const manifest = instance.setup(early, this._parameters);
      this._instance = instance;
      instance.owner = this;
      this._earlyLogs = logs;
      return manifest;
    } catch (error) {
      throw this._source === null ? error : new ProjectionError(this._source.tell(error), { cause: error });
    }
  }

  /**
   * Appends events to the log and folds them.
   * @param {Iterable<object>} events from {@link event} or {@link readNdjson}
   */
  feed(events) {
    let batch = [];
    for (const event of events) {
      const offset = this._nextOffset++;
      if (!this._subscribes(event.type)) continue;
      this._newest = Math.max(this._newest, event.time);
      batch.push({ offset, event });
      const watermark = this._watermarkNow();
      if (watermark > this.watermark) {
        this._apply(batch);
        batch = [];
        this._moveOn(watermark);
      } else if (batch.length === this._batchSize) {
        this._apply(batch);
        batch = [];
      }
    }
    this._apply(batch);
    return this;
  }

  /** Folds a text of CloudEvents, one JSON object per line. */
  feedNdjson(text) {
    return this.feed(readNdjson(text));
  }

  /** Advances event time without an event, as the host does on an idle partition. */
  advanceTo(time) {
    this._newest = Math.max(this._newest, typeof time === "string" ? parseTime(time) : time);
    const watermark = this._watermarkNow();
    if (watermark > this.watermark) this._moveOn(watermark);
    return this;
  }

  /** The rows of a table by key, parsed as JSON. */
  rows(table) {
    return Object.fromEntries([...this.rawRows(table)].map(([key, row]) => [key, JSON.parse(row)]));
  }

  /** A row, parsed as JSON, or null. */
  row(table, key) {
    const row = this.rawRows(table).get(key);
    return row === undefined ? null : JSON.parse(row);
  }

  /** The rows of a table as the text that is stored, ordered by key. */
  rawRows(table) {
    const id = this.manifest.tables.findIndex(({ name }) => name === table);
    if (id < 0) throw new ProjectionError(`there is no table ${show(table)}`);
    return new Map([...this._host.tables[id]].sort(([a], [b]) => compareUtf8(a, b)));
  }

  /** The due times of the timers by key. Keys of windows' timers begin with U+0001. */
  timers() {
    return Object.fromEntries([...this._host.timers].sort(([a], [b]) => compareUtf8(a, b)).map(([key, { at }]) => [key, at]));
  }

  /** The events that the projection has emitted, oldest first. */
  emitted() {
    return this._host.emitted.map(({ data, ...event }) => ({ ...event, data: JSON.parse(decode(data)) }));
  }

  /** Log lines, including those of failed calls. */
  logs() {
    return [...this._host.logs];
  }

  /** The events that could not be applied, in the order of their offsets. */
  parked() {
    return [...this._parked].sort((a, b) => a.offset - b.offset);
  }

  /** How many calls of the host the projection has made. */
  get hostCalls() {
    return this._host.calls;
  }

  /** The complete result so far, to compare two of them. */
  outcome() {
    const tables = this.manifest.tables.map(({ name }) => [name, Object.fromEntries(this.rawRows(name))]);
    const parked = this.parked().map(({ offset, reason }) => ({ offset, reason }));
    return { tables: Object.fromEntries(tables), timers: this.timers(), emitted: this.emitted(), parked };
  }

  _subscribes(type) {
    return this.manifest.subscribes.some((pattern) => (pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : type === pattern));
  }

  _watermarkNow() {
    const { eventTime } = this.manifest;
    if (eventTime === null || this._newest === NEVER) return NEVER;
    return Math.floor((this._newest - eventTime.allowedLateness) / eventTime.tick) * eventTime.tick;
  }

  _moveOn(watermark) {
    this.watermark = watermark;
    const due = [...this._host.timers].filter(([, timer]) => timer.due <= watermark);
    due.sort(([aKey, a], [bKey, b]) => a.due - b.due || compareUtf8(aKey, bKey));
    const size = Math.min(BATCH_TIMERS, this._batchSize);
    for (let start = 0; start < due.length && this.halted === null; start += size) {
      const timers = due.slice(start, start + size).map(([key, { at, offset }]) => ({ at, key, offset }));
      for (const { key } of timers) this._host.timers.delete(key);
      const triggers = timers.map(({ key, offset }) => ({ offset, tenant: key.includes("\0") ? key.slice(0, key.indexOf("\0")) : null }));
      const failure = this._call(this._batch([], timers), triggers);
      if (failure !== null) this.timerFailures.push(failure.message);
    }
  }

  _apply(events) {
    const free = [];
    for (const entry of events) {
      if (this._parkedSubjects.has(`${entry.event.tenant}\0${entry.event.subject}`)) this._park(entry, "it waits behind a parked event of its subject");
      else free.push(entry);
    }
    if (free.length === 0 || this.halted !== null) return;
    const triggers = free.map(({ offset, event }) => ({ offset, tenant: event.tenant }));
    const failure = this._call(this._batch(free, []), triggers);
    if (failure === null) {
      this._parkRejected(free, this._host.rejected);
    } else if (failure.cause !== null) {
      this._partAt(free, failure.cause, failure.message);
    } else if (free.length === 1) {
      this._partAt(free, 0, failure.message);
    } else {
      const half = free.length >> 1;
      this._apply(free.slice(0, half));
      this._apply(free.slice(half));
    }
  }

  /**
   * Parks the events that the projection has rejected in a call. If events are not parked alone,
   * the call has ended with the first of them.
   */
  _parkRejected(events, rejected) {
    for (const { cause, message } of rejected) this._parkFailed(events[cause], message);
    if (rejected.length > 0 && this.manifest.onFailure !== "park-event") this._apply(events.slice(rejected[0].cause + 1));
  }

  /** Applies the events without the failed one, which is parked. */
  _partAt(events, place, reason) {
    this._apply(events.slice(0, place));
    this._parkFailed(events[place], reason);
    this._apply(events.slice(place + 1));
  }

  _parkFailed(failed, reason) {
    if (this.manifest.onFailure === "halt") {
      this.halted = reason;
      return;
    }
    // Events without a subject have no order.
    if (this.manifest.onFailure === "park-subject" && failed.event.subject !== "") {
      this._parkedSubjects.add(`${failed.event.tenant}\0${failed.event.subject}`);
    }
    this._park(failed, reason);
  }

  _park({ offset, event }, reason) {
    this._parked.push({ offset, event, reason });
  }

  /**
   * Calls `apply` once. If it succeeds, its writes are kept; otherwise they are dropped together
   * with the instance.
   */
  _call(batch, triggers) {
    if (this._instance === null || this._instance.owner !== this) this._open();
    const instance = this._instance;
    this._host.begin(triggers, this.watermark, { timers: batch.timers.length, goesOn: this.manifest.onFailure === "park-event" });
    call.strict = true;
    if (this._source !== null) setReason(this._source.tell);
    try {
      instance.apply(this._imports, batch);
    } catch (failure) {
      this._instance = null;
      this._host.discard();
      if (!(failure instanceof Error) && "cause" in failure) return failure;
      throw failure;
    } finally {
      call.strict = false;
    }
    this._host.commit();
    if (this._dropInstances) this._instance = null;
    return null;
  }

  _batch(events, timers) {
    const { manifest } = this;
    const typeNames = [];
    const types = events.map(({ event }) => {
      if (!typeNames.includes(event.type)) typeNames.push(event.type);
      return typeNames.indexOf(event.type);
    });
    const none = { ends: new Uint32Array(0), bytes: new Uint8Array(0) };
    const asked = (name) => (manifest.attributes[name] ? column(events.map(({ event }) => event[name])) : none);
    const payloads = events.map(({ event }) => event.data);
    return {
      partition: 0,
      timers,
      watermark: this.watermark,
      offsets: events.map(({ offset }) => offset),
      times: events.map(({ event }) => event.time),
      watermarks: events.map(() => this.watermark),
      typeNames,
      types,
      ...Object.fromEntries([...ATTRIBUTES, "extensions"].map((name) => [name, asked(name)])),
      data: manifest.attributes.data ? column(payloads) : none,
      members: decodeMembers(manifest.members, payloads),
    };
  }
}

/**
 * Folds events with batches of 1, 7 and 1,000, each with one instance for all and with a
 * fresh one for every call, and throws if the results differ.
 * @param {Projection | string | URL} projection
 * @param {Iterable<object>} events
 * @param {{ parameters?: object }} options
 * @returns the outcome
 */
export function checkDeterminism(projection, events, options = {}) {
  const all = [...events];
  const source = projection instanceof Projection ? projection : new Source(projection);
  const fold = (batchSize, dropInstances) => new Harness(source, { ...options, batchSize, dropInstances }).feed(all).outcome();
  const outcome = fold(1_000, false);
  for (const [batchSize, dropInstances] of [[1, false], [7, false], [1, true], [7, true], [1_000, true]]) {
    const other = fold(batchSize, dropInstances);
    const how = `with batches of ${batchSize}, instances dropped: ${dropInstances}`;
    for (const [table, rows] of Object.entries(outcome.tables)) {
      for (const key of new Set([...Object.keys(rows), ...Object.keys(other.tables[table])])) {
        const [a, b] = [rows[key], other.tables[table][key]];
        if (a !== b) throw new ProjectionError(`${how}: table \`${table}\`, row ${show(key)} is ${b}, else ${a}`);
      }
    }
    if (JSON.stringify(outcome) !== JSON.stringify(other)) {
      throw new ProjectionError(`${how}: timers, emitted or parked events differ: ${JSON.stringify(other)}, else ${JSON.stringify(outcome)}`);
    }
  }
  return outcome;
}

export { iso, parseTime };
