// A projection, and the code that runs it between the contract's two functions.

import { beginCall, call, dueAt, endCall, sendEarlyLogs, settle, undoEvent } from "./call.js";
import { isFatal, ProjectionError, show, suggestion } from "./errors.js";
import { attributeFlags, Event, eventsOf, Members, Timer } from "./event.js";
import { fieldsOf } from "./fields.js";
import { Parameters, takeParameters } from "./parameters.js";
import { endSettling, settleRows, takeDeclared } from "./table.js";
import { duration } from "./time.js";

const OPTIONS = [
  "name", "version", "description", "subscribes", "attributes", "members", "emits", "cycleDepthMax", "eventTime",
  "onFailure", "setup", "prepare", "apply", "onTimer",
];
const ON_FAILURE = ["park-subject", "park-event", "halt"];

let latest = null;

/** The projection that was defined last, or null; the next call returns null. */
export function takeProjection() {
  const projection = latest;
  latest = null;
  return projection;
}

/** A deterministic fold of events into tables. Create it with {@link projection}. */
export class Projection {
  constructor(spec) {
    if (spec === null || typeof spec !== "object") throw new ProjectionError(`projection: ${show(spec)} is not an object`);
    for (const name of Object.keys(spec)) {
      if (!OPTIONS.includes(name)) throw new ProjectionError(`a projection has no option \`${name}\`${suggestion(name, OPTIONS)}`);
    }
    for (const name of ["apply", "onTimer", "prepare", "setup"]) {
      if (spec[name] !== undefined && typeof spec[name] !== "function") throw new ProjectionError(`\`${name}\` of the projection is ${show(spec[name])}, not a function`);
    }
    if (spec.apply === undefined) throw new ProjectionError("the projection has no function `apply`");
    this.spec = spec;
    this.tables = takeDeclared();
    this.parameters = takeParameters() ?? new Parameters({});
    this.settings = null;
    this.failed = false;
    latest = this;
  }

  /** Forgets everything that a fresh instance does not know. */
  reset() {
    for (const table of this.tables) table.reset();
    this.settings = null;
    this.failed = false;
  }

  /** The contract's `setup`: takes the parameters and returns the manifest. */
  setup(host, parameters) {
    call.host = host;
    call.cause = 0;
    try {
      sendEarlyLogs();
      this.parameters.take(parameters);
      noPromise(this.spec.setup?.(), "setup");
      return this.#manifest();
    } finally {
      call.host = null;
    }
  }

  #manifest() {
    const { spec } = this;
    const value = (name, fallback) => {
      const given = typeof spec[name] === "function" ? spec[name]() : spec[name];
      return given ?? fallback;
    };
    const list = (name) => {
      const given = value(name, []);
      const array = typeof given === "string" ? [given] : given;
      if (!Array.isArray(array) || array.some((it) => typeof it !== "string")) throw new ProjectionError(`\`${name}\` of the projection is ${show(given)}, not a list of texts`);
      return array;
    };
    const string = (name, fallback) => {
      const given = value(name, fallback);
      if (typeof given !== "string") throw new ProjectionError(`\`${name}\` of the projection is ${show(given)}, not text`);
      return given;
    };
    const name = string("name", undefined);
    if (!/^[a-z][a-z0-9-]{0,63}$/.test(name)) {
      throw new ProjectionError(`the name ${show(name)} must be 1 to 64 lower-case letters, digits and hyphens, beginning with a letter`);
    }
    const subscribes = list("subscribes");
    if (subscribes.length === 0) throw new ProjectionError("the projection subscribes to no event type: add `subscribes: [\"…\"]`");
    const members = spec.members === undefined ? null : new Members(fieldsOf(spec.members, "members"));
    const attributes = attributeFlags(list("attributes"));
    if (members === null) attributes.data = true;
    const perTenant = this.tables.some((table) => table.perTenant);
    if (perTenant) attributes.tenant = true;
    const onFailure = string("onFailure", "park-subject");
    if (!ON_FAILURE.includes(onFailure)) {
      throw new ProjectionError(`\`onFailure\` is ${show(onFailure)}: choose one of ${ON_FAILURE.map((it) => `"${it}"`).join(", ")}`);
    }
    this.#numberTables();
    const emits = list("emits");
    const eventTime = eventTimeOf(value("eventTime", null));
    this.settings = { perTenant, attributes, members, emits, eventTime: eventTime !== null, goesOn: onFailure === "park-event" };
    const cycleDepthMax = value("cycleDepthMax", null);
    return {
      name, version: string("version", "0.1.0"), description: string("description", ""), subscribes, attributes,
      members: members?.describe() ?? [], tables: this.tables.map((table) => table.describe()), emits, cycleDepthMax,
      eventTime, onFailure, parameters: this.parameters.schema(), options: [],
    };
  }

  #numberTables() {
    const names = new Set();
    this.tables.forEach((table, id) => {
      if (names.has(table.name)) throw new ProjectionError(`two tables are named \`${table.name}\``);
      names.add(table.name);
      table.id = id;
    });
  }

  /**
   * The contract's `apply`. If the function of the projection throws for an event, the event is
   * rejected: what the function has done for it is undone, and the call continues.
   * @throws {{ cause: number | null, message: string, error: unknown }} the contract's failure
   */
  apply(host, batch) {
    Projection.applier({ projection: this, host }, (failure) => failure)(batch);
  }

  /**
   * The function that folds a batch with `current.projection`.
   *
   * All of this is one function, to keep the stack short: an exception takes longer if more
   * functions are between the projection's function and the host.
   * @param {{ projection: Projection | null, host: object }} current
   * @param {(failure: unknown) => unknown} failed returns what to throw if the call fails
   */
  static applier(current, failed) {
    return function apply(batch) {
      try {
        const { projection, host } = current;
        const { spec, settings } = projection;
        const event = projection.#begin(host, batch);
        const { times, types, typeNames } = batch;
        const count = times.length;
        const timers = batch.timers.length;
        const tenants = settings.perTenant ? event._view.attribute("tenant") : null;
        let i = 0;
        while (i < count) {
          try {
            for (; i < count; i++) {
              event._index = i;
              event.time = times[i];
              event.type = typeNames[types[i]];
              call.cause = timers + i;
              if (tenants !== null) call.tenant = tenants[i];
              call.event += 1;
              const result = spec.apply(event);
              if (result !== undefined) noPromise(result, "apply");
              if (call.touchedCount > 0) settleRows();
              if (call.more) projection.#settle();
            }
          } catch (error) {
            reject(error, event);
            i = settings.goesOn ? i + 1 : count;
          }
        }
        projection.#end();
      } catch (failure) {
        throw failed(failure);
      } finally {
        endCall();
      }
    };
  }

  /** Begins a call: handles its timers, and prepares its events. */
  #begin(host, batch) {
    if (this.settings === null) throw new CallFailure(null, "`apply` was called before `setup`");
    if (this.failed) throw new CallFailure(null, "an earlier call failed; the instance should have been dropped");
    this.failed = true;
    beginCall(host, this.settings);
    const { timers } = batch;
    for (let i = 0; i < timers.length; i++) this.#fire(timers[i], i, batch.watermark);
    const event = new Event(batch, this.settings);
    if (this.spec.prepare !== undefined && batch.offsets.length > 0) this.#prepare(batch, event, timers.length);
    call.tenant = "";
    return event;
  }

  /** Ends a call: sends what it has changed. */
  #end() {
    // The error names the event that changed the row, because the row was checked at the end of
    // this event.
    for (const table of this.tables) orFail(() => table.flush());
    if (call.outbox.length > 0) orFail(() => call.host.emit(call.outbox));
    this.failed = false;
  }

  /** What only some events need at their end. */
  #settle() {
    orFail(settle, call.cause);
    if (call.crowded) this.#trim();
  }

  /** Between events: drops rows from memory if there are too many. */
  #trim() {
    call.crowded = call.more = false;
    for (const table of this.tables) orFail(() => table.trim());
  }

  #fire(timer, index, watermark) {
    const fired = new Timer(timer, watermark);
    call.event += 1;
    call.cause = index;
    call.tenant = fired.hasTenant ? fired.tenant : null;
    try {
      noPromise(this.spec.onTimer?.(fired), "onTimer");
      settleRows();
      settle();
    } catch (error) {
      endSettling();
      const message = `timer ${show(timer.key)} due at ${dueAt(timer.at)}: ${reason(error)}`;
      throw new CallFailure(index, message, error);
    }
    if (call.crowded) this.#trim();
  }

  #prepare(batch, event, timers) {
    call.event += 1;
    call.cause = timers;
    call.tenant = "";
    try {
      noPromise(this.spec.prepare(eventsOf(batch, event, timers)), "prepare");
      if (call.touchedCount + call.timers.length + call.outbox.length > 0) {
        throw new ProjectionError("`prepare` must not change rows, set timers or emit events: it may only call `prefetch`");
      }
    } catch (error) {
      throw new CallFailure(null, `prepare: ${reason(error)}`, error);
    }
  }
}

/** Rejects the current event, which has thrown `error`, or throws the call's failure. */
function reject(error, event) {
  endSettling();
  const kind = error?.constructor;
  const isFailure = kind === CallFailure;
  if (isFailure && error.cause === null) throw error;
  const failed = isFailure ? error.error : error;
  const message = `\`${event.type}\` at offset ${event._view.batch.offsets[event._index]}: ${reason(failed)}`;
  if (isFailure || call.sent || (kind !== ProjectionError && isFatal(error))) throw new CallFailure(call.cause, message, failed);
  undoEvent();
  call.host.reject(call.cause, message);
}

/** The contract's failure. */
class CallFailure {
  constructor(cause, message, error) {
    this.cause = cause;
    this.message = message;
    this.error = error;
  }
}

/**
 * Runs the steps that must succeed after an event. If one fails, the call fails, and the event is
 * not rejected.
 */
function orFail(step, cause = null) {
  try {
    step();
  } catch (error) {
    throw new CallFailure(cause, reason(error), error);
  }
}

function noPromise(result, name) {
  if (result !== null && typeof result === "object" && typeof result.then === "function") {
    throw new ProjectionError(`\`${name}\` must not be \`async\`: a projection has nothing to wait for`);
  }
}

function eventTimeOf(given) {
  if (given === null) return null;
  if (typeof given !== "object") throw new ProjectionError(`\`eventTime\` is ${show(given)}, not \`{ lateness: "10s", tick: "1s" }\``);
  for (const name of Object.keys(given)) {
    if (name !== "lateness" && name !== "tick") throw new ProjectionError(`\`eventTime\` has no option \`${name}\`${suggestion(name, ["lateness", "tick"])}`);
  }
  const tick = duration(given.tick ?? "1s");
  if (tick === 0) throw new ProjectionError("the tick of event time is shorter than a microsecond");
  return { allowedLateness: duration(given.lateness ?? 0), tick };
}

/**
 * Returns the text of an exception in the reason of a parked event; {@link setReason} replaces it.
 */
let reason = (error) => (error instanceof Error ? `${error.name}: ${error.message}` : show(error));

/** Sets how exceptions are described; the interpreter adds file, line and stack. */
export function setReason(tell) {
  reason = tell;
}

/**
 * Defines the projection. Its tables are those declared before it.
 * @param {object} spec
 */
export const projection = (spec) => new Projection(spec);
