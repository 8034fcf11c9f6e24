// The state of the current call of the host: the event or timer to which a write, a timer,
// an emitted event or a log line belongs.

import { encode } from "./bytes.js";
import { hidden, ProjectionError, show, suggestion } from "./errors.js";
import { InTenant, keyOf } from "./keys.js";
import { canonicalJson } from "./json.js";
import { iso } from "./time.js";

/** Keys of timers that begin with it belong to windows. */
export const OWN_TIMER = "\u0001";

/** Everything about the current call; there is one at a time. */
export const call = {
  /** The functions of the host, or null outside of a call. */
  host: null,
  /** The index in the batch of the timer or event that is being handled. */
  cause: 0,
  /** A number that no other timer or event has had. */
  event: 1,
  /** The tenant of that timer or event; null if a timer has none. */
  tenant: null,
  /** The declarations of the projection, once it is set up. */
  settings: { eventTime: false, emits: [], ends: true },
  /** Rows that the current event has changed, to be checked at its end: the first `touchedCount`. */
  touched: [],
  touchedCount: 0,
  /** Timers that the current event has set and canceled: time (null: canceled) and key. */
  timers: [],
  /**
   * The changes of the current event that are not changes of rows, so that they can be undone. Each
   * change has three elements: an object with a method `_undo`, and the two arguments of this
   * method.
   */
  undo: [],
  /** Whether there is something in `timers` or `undo`, or one of the next two is true. */
  more: false,
  /** Whether rows that the current event has changed were sent to the host. */
  sent: false,
  /** Whether a table has more rows in memory than it should. */
  crowded: false,
  /** Whether rows from `get` are frozen, which the test harness does. */
  strict: false,
  /** Emitted events, to be sent at the end of the call. */
  outbox: [],
};

/** Begins a call of `host`. */
export function beginCall(host, settings) {
  call.host = host;
  call.settings = settings;
  call.touched = [];
  call.touchedCount = 0;
  call.timers = [];
  call.undo = [];
  call.outbox = [];
  call.more = false;
  call.sent = false;
  call.crowded = false;
}

/** Ends the call. */
export function endCall() {
  call.host = null;
}

/**
 * Notes how to undo a change of the current event: by calling `_undo` of the object with these
 * arguments.
 */
export function toUndo(object, what, before) {
  if (call.host === null) return;
  call.undo.push(object, what, before);
  call.more = true;
}

function addTimer(at, key) {
  hostFor("a timer");
  call.timers.push({ at, key });
  call.more = true;
}

/** Ends a timer or event whose rows are settled: its timers are sent. */
export function settle() {
  const { timers } = call;
  for (const { at, key } of timers) {
    if (at === null) call.host.cancelTimer(call.cause, key);
    else call.host.setTimer(call.cause, at, key);
  }
  timers.length = 0;
  call.undo.length = 0;
  call.sent = false;
  call.more = call.crowded;
}

/** Undoes the changes of the current event. */
export function undoEvent() {
  const { touched, timers, undo, outbox } = call;
  hidden.below = null;
  for (let i = 0; i < call.touchedCount; i++) {
    const entry = touched[i];
    const { before } = entry;
    entry.event = 0;
    if (before === undefined) {
      entry.table.forget(entry);
    } else {
      entry.row = before;
      if (before !== null) entry.codec.restore(entry, before);
    }
  }
  call.touchedCount = 0;
  if (timers.length > 0) timers.length = 0;
  if (undo.length > 0) {
    for (let i = undo.length - 3; i >= 0; i -= 3) undo[i]._undo(undo[i + 1], undo[i + 2]);
    undo.length = 0;
  }
  while (outbox.length > 0 && outbox.at(-1).cause === call.cause) outbox.pop();
}

/** The host, or an error that names what needs it. */
export function hostFor(what) {
  if (call.host === null) {
    throw new ProjectionError(`${what} can be used only while events are applied: in \`apply\`, \`onTimer\` or \`prepare\``);
  }
  return call.host;
}

function timerKey(key) {
  const parts = Array.isArray(key) ? key : [key];
  const tenant = parts.length === 1 && parts[0] instanceof InTenant ? parts[0].tenant : null;
  const rest = tenant === null ? keyOf(parts) : parts[0].key;
  if (rest === "") throw new ProjectionError("timers: a key cannot be empty");
  if (rest.includes("\0")) throw new ProjectionError(`timers: key ${show(rest)}: U+0000 cannot be part of a key`);
  if (rest.startsWith(OWN_TIMER)) throw new ProjectionError("timers: keys that begin with U+0001 are reserved for windows");
  return tenant === null ? rest : `${tenant}\0${rest}`;
}

/** Sets the timer with this full key. */
export function setTimer(at, key) {
  if (!call.settings.eventTime) {
    throw new ProjectionError(`timer ${show(key)}: timers need event time; add \`eventTime: { lateness: "10s", tick: "1s" }\` to the projection`);
  }
  if (!Number.isInteger(at)) throw new ProjectionError(`timer ${show(key)}: ${show(at)} is not a time: give microseconds since 1970`);
  addTimer(at, key);
}

const EMIT_OPTIONS = ["subject", "tenant", "time"];

/** The functions that an event and a timer have in common. */
export class Trigger {
  /**
   * Sets the timer of this key, or changes its time. It fires when the watermark has reached `at`.
   * @param {number} at microseconds since 1970
   * @param {unknown} key text, an array of parts, or `inTenant(…)`
   */
  setTimer(at, key) {
    setTimer(at, timerKey(key));
  }

  /** Cancels the timer of this key. */
  cancelTimer(key) {
    addTimer(null, timerKey(key));
  }

  /**
   * Emits an event.
   * @param {string} type one of the projection's `emits`
   * @param {unknown} data any JSON
   * @param {{ subject?: string, tenant?: string, time?: number }} options
   */
  emit(type, data, options = {}) {
    const { emits } = call.settings;
    if (!emits.includes(type)) {
      throw new ProjectionError(
        `event type \`${type}\` is not declared: add it to \`emits\` of the projection${suggestion(String(type), emits)}`,
        this.emit,
      );
    }
    const { subject = "", tenant = "", time = this.now, ...others } = options;
    for (const name of Object.keys(others)) {
      throw new ProjectionError(`an emitted event has no option \`${name}\`${suggestion(name, EMIT_OPTIONS)}`);
    }
    if (typeof subject !== "string" || typeof tenant !== "string") throw new ProjectionError("subject and tenant of an emitted event are text");
    if (!Number.isInteger(time)) throw new ProjectionError(`${show(time)} is not a time: give microseconds since 1970`);
    hostFor("an emitted event");
    call.outbox.push({ cause: call.cause, type, subject, tenant, time, data: encode(dataJson(data)) });
  }
}

/** The data of an emitted event: members in the order in which they were written. */
function dataJson(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return canonicalJson(value);
  if (typeof value.toJSON === "function" || Object.getPrototypeOf(value) !== Object.prototype) return canonicalJson(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${dataJson(member)}`).join(",")}}`;
}

const LEVELS = ["trace", "debug", "info", "warn", "error"];
const early = [];
const EARLY_MAX = 100;

function write(level, values) {
  const message = values.map(logText).join(" ");
  if (call.host !== null) call.host.log(call.cause, level, message);
  else if (early.length < EARLY_MAX) early.push([level, message]);
}

/** A value as `console.log` writes it. */
function logText(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return String(value.stack || value);
  if (typeof value === "object" && value !== null) {
    try {
      return JSON.stringify(value, (_, member) => (typeof member === "bigint" ? `${member}n` : member)) ?? String(value);
    } catch {
      return show(value);
    }
  }
  return typeof value === "symbol" ? "a symbol" : String(value);
}

/** Writes to the plugin's log: `log.info("…")`, or `log("…")` for short. */
export const log = Object.assign((...values) => write("info", values), Object.fromEntries(
  LEVELS.map((level) => [level, (...values) => write(level, values)]),
));

/** Sends the log lines that were written before there was a host. */
export function sendEarlyLogs() {
  for (const [level, message] of early.splice(0)) call.host.log(0, level, message);
}

/** `name` and time of a timer in a message. */
export const dueAt = (time) => (Math.abs(time) < 8.64e18 ? iso(time) : String(time));
