// Events as a projection sees them.

import { decode, texts, wholeText } from "./bytes.js";
import { call, Trigger } from "./call.js";
import { ProjectionError, show, suggestion } from "./errors.js";
import { RawJson } from "./json.js";
import { keyParts } from "./keys.js";
import { canonicalTime } from "./time.js";

/** The attributes that a projection can ask for. */
export const ATTRIBUTES = ["id", "source", "subject", "tenant", "dataschema", "datacontenttype", "extensions", "data"];

/** An event of the batch. It is valid until the function that got it returns. */
export class Event extends Trigger {
  constructor(batch, settings) {
    super();
    /** @internal */
    this._index = 0;
    /** The type, such as `order.placed`. */
    this.type = "";
    /** The time, in microseconds since 1970. */
    this.time = 0;
    /** @internal */
    this._view = new BatchView(batch, settings);
  }

  /** The place in its partition of the log. */
  get offset() {
    return this._view.batch.offsets[this._index];
  }

  /** The partition of the log. */
  get partition() {
    return this._view.batch.partition;
  }

  /** No event older than this is expected any more, in microseconds since 1970. */
  get watermark() {
    return this._view.batch.watermarks[this._index];
  }

  /** Whether the event is older than the watermark. */
  get isLate() {
    return this.time < this.watermark;
  }

  /** The time of the event. An emitted event has this time unless it sets another one. */
  get now() {
    return this.time;
  }

  /** All other extension attributes. */
  get extensions() {
    const text = this._view.attribute("extensions")[this._index];
    return text === "" ? {} : JSON.parse(text);
  }

  /** The payload: parsed JSON. */
  get data() {
    return this._view.data(this._index);
  }

  /** The payload as it was sent. */
  get dataText() {
    return this._view.dataText(this._index);
  }

  /** The payload's members that the projection has declared. */
  get members() {
    return this._opened("members", this._view.members());
  }

  /**
   * The value of a property for this event. The caller has just decoded the property's columns for
   * the whole batch. So `read` replaces the property with one that reads from the decoded columns.
   */
  _opened(name, read) {
    Object.defineProperty(this, name, { get: read, configurable: true });
    return this[name];
  }
}

for (const name of ["id", "source", "subject", "tenant", "dataschema", "datacontenttype"]) {
  Object.defineProperty(Event.prototype, name, {
    get() {
      return this._opened(name, this._view.reader(name));
    },
    configurable: true,
  });
}

/** A timer that is due. */
export class Timer extends Trigger {
  constructor(timer, watermark) {
    super();
    /** The time for which it was set, in microseconds since 1970. */
    this.at = timer.at;
    /** The watermark, in microseconds since 1970. */
    this.watermark = watermark;
    /** @internal */
    this.fullKey = timer.key;
    const end = timer.key.indexOf("\0");
    /** The tenant of the key; empty if it has none. */
    this.tenant = end < 0 ? "" : timer.key.slice(0, end);
    /** The key, without the tenant. */
    this.key = timer.key.slice(end + 1);
    /** @internal */
    this.hasTenant = end >= 0;
  }

  /** The parts of the key. */
  get parts() {
    return keyParts(this.key);
  }

  /**
   * The time for which the timer was set. An emitted event has this time unless it sets another
   * one.
   */
  get now() {
    return this.at;
  }
}

/** Reads the columns of a batch as they are needed. */
export class BatchView {
  constructor(batch, settings) {
    this.batch = batch;
    this.settings = settings;
    this.columns = {};
    this.payload = null;
  }

  attribute(name) {
    const known = this.columns[name];
    if (known !== undefined) return known;
    this.#checkRequested(name);
    return (this.columns[name] = texts(this.batch[name]));
  }

  /** The getter of an attribute. */
  reader(name) {
    this.#checkRequested(name);
    const uncut = wholeText(this.batch[name]);
    if (uncut === null) {
      const values = this.attribute(name);
      return function () {
        return values[this._index];
      };
    }
    const { whole, ends } = uncut;
    return function () {
      const index = this._index;
      return whole.slice(ends[index - 1], ends[index]);
    };
  }

  #checkRequested(name) {
    if (!this.settings.attributes[name]) {
      throw new ProjectionError(`the attribute \`${name}\` was not requested: add \`attributes: ["${name}"]\` to the projection`);
    }
  }

  dataText(index) {
    if (!this.settings.attributes.data) {
      throw new ProjectionError(
        "the projection declares `members`, so the whole data is not passed to it: add `attributes: [\"data\"]` to the projection",
      );
    }
    const { ends, bytes } = this.batch.data;
    if (this.payload === null) {
      let whole = null;
      try {
        whole = decode(bytes);
      } catch {
        // One payload is not text. So each payload is decoded alone when it is read.
      }
      this.payload = { whole: whole !== null && whole.length === bytes.length ? whole : null };
    }
    const start = index === 0 ? 0 : ends[index - 1];
    if (this.payload.whole !== null) return this.payload.whole.slice(start, ends[index]);
    try {
      return decode(bytes.subarray(start, ends[index]));
    } catch {
      throw new ProjectionError("data is not UTF-8 text");
    }
  }

  data(index) {
    const text = this.dataText(index);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new ProjectionError(`data: ${error.message}`);
    }
  }

  /** The getter of `event.members`. */
  members() {
    if (this.settings.members === null) {
      throw new ProjectionError("the projection declares no members: add `members: { cents: integer }` to it");
    }
    return this.settings.members.open(this.batch);
  }
}

const WANTED = {
  integer: "a whole number",
  bigint: "a whole number",
  number: "a number",
  text: "text",
  boolean: "true or false",
  timestamp: "an RFC 3339 timestamp",
  timestampText: "an RFC 3339 timestamp",
  json: "JSON",
  rawJson: "JSON",
};

/** The declared members of events' data. */
export class Members {
  /** @param {{ name: string, field: import("./fields.js").Field }[]} fields */
  constructor(fields) {
    this.fields = fields;
    for (const { name, field } of fields) {
      if (WANTED[field.kind] === undefined) throw new ProjectionError(`members: \`${name}\`: a member cannot be of kind ${field.kind}`);
    }
    const members = fields.map(({ name, field }, i) => {
      // For a column without gaps, the value is cut out of the whole text.
      const value = field.kind === "text" ? `w${i} === null ? v${i}[index] : w${i}.slice(v${i}[index - 1], v${i}[index])` : `v${i}[index]`;
      return `${JSON.stringify(name)}: ${lazily[field.kind]?.(value) ?? value}`;
    });
    this.generated = new Function(
      "parse", "raw", ...fields.flatMap((_, i) => [`v${i}`, `w${i}`]),
      `"use strict"; return function () { const index = this._index; return { ${members.join(", ")} }; };`,
    );
  }

  describe() {
    return this.fields.map(({ name, field }) => ({ name, kind: field.memberKind }));
  }

  /** A getter of `event.members` for the events of this batch. */
  open(batch) {
    const count = batch.offsets.length;
    const failures = new Failures(count);
    const values = this.fields.flatMap(({ name, field }, i) => {
      const column = batch.members[i];
      const uncut = field.kind === "text" && hasAll(column, count) ? wholeText(column.values.val) : null;
      if (uncut !== null) return [uncut.ends, uncut.whole];
      return [columnValues(column, count, field, failures.of(name)), null];
    });
    const read = this.generated(parseMember, rawMember, ...values);
    const { events } = failures;
    if (events === null) return read;
    return function () {
      const failing = events[this._index];
      if (failing === null) return read.call(this);
      if (failing.length > 1) return withFailing(read.call(this), failing);
      const only = failing[0];
      return defineProperty(read.call(this), only.name, only.property);
    };
  }
}

/**
 * The declared members that events of a batch do not have, or have with another kind. Most events
 * may fail because of such a member. So the parts that do not depend on the event are created once.
 */
class Failures {
  constructor(count) {
    this.count = count;
    /** For each event a list of its members that fail, or null; null if no event fails. */
    this.events = null;
  }

  /** The function that notes why an event does not have this member. It is called once for an event. */
  of(name) {
    let last = null;
    let list = null;
    return (index, why) => {
      if (why !== last) {
        last = why;
        list = [failingMember(name, why)];
      }
      this.events ??= new Array(this.count).fill(null);
      const before = this.events[index];
      this.events[index] = before === null ? list : before.concat(list);
    };
  }
}

function failingMember(name, why) {
  const message = `data: the member \`${name}\` ${why}`;
  const get = () => {
    throw new ProjectionError(message, get);
  };
  return { name, property: { enumerable: true, get } };
}

const { defineProperty } = Object;

/** The members of an event some of which fail when they are read. */
function withFailing(members, failing) {
  for (let i = 0; i < failing.length; i++) defineProperty(members, failing[i].name, failing[i].property);
  return members;
}

/** How members are read that are decoded only when they are asked for. */
const lazily = {
  json: (value) => `parse(${value})`,
  rawJson: (value) => `raw(${value})`,
};

const parseMember = (text) => (text === null ? null : JSON.parse(text));

const rawMember = (text) => (text === null ? null : RawJson.lazily(text));

/**
 * Checks of values that the host has decoded. Each check returns the value, or the reason why it
 * cannot be used.
 */
const exactly = {
  integer(value) {
    return Number.isSafeInteger(value) ? null : `is about ${value}, where integers are no longer exact: declare it as \`bigint\``;
  },
  bigint(text) {
    if (!/^-?(0|[1-9]\d*)$/.test(text)) return `is ${show(text)}, not a whole number`;
    const value = BigInt(text);
    return value < -(2n ** 63n) || value >= 2n ** 63n ? `is ${text}, not from -2^63 to 2^63 - 1` : null;
  },
};

/** Whether all events have a value. */
function hasAll({ validity }, count) {
  const whole = count >> 3;
  for (let byte = 0; byte < whole; byte++) if (validity[byte] !== 255) return false;
  const rest = (1 << (count & 7)) - 1;
  return rest === 0 || (validity[whole] & rest) === rest;
}

/** The values of a member for all events; null if an event has none. */
function columnValues(column, count, field, fail) {
  const { tag, val } = column.values;
  let values = val;
  if (tag === "texts" || tag === "jsons") values = texts(val);
  else if (tag === "booleans") values = Array.from({ length: count }, (_, i) => (val[i >> 3] & (1 << (i & 7))) !== 0);
  const { validity, mismatched } = column;
  let isMismatched = null;
  if (mismatched.length > 0) {
    const why = `is not ${WANTED[field.kind]}, or occurs twice, or data is not an object`;
    isMismatched = new Uint8Array(count);
    // QuickJS takes much longer for `of`.
    for (let i = 0; i < mismatched.length; i++) {
      isMismatched[mismatched[i]] = 1;
      fail(mismatched[i], why);
    }
  }
  for (let byte = 0; byte < validity.length; byte++) {
    // Bits, one for each event: set if the event has no valid value. The bits after the last event
    // have no meaning.
    let bits = ~validity[byte] & 255;
    for (let index = byte * 8; bits !== 0; index++, bits >>= 1) {
      if (index >= count) break;
      if ((bits & 1) === 0) continue;
      values[index] = null;
      if (!field.optional && (isMismatched === null || isMismatched[index] === 0)) fail(index, "is missing or null");
    }
  }
  if (field.kind === "integer") {
    for (let index = 0; index < count; index++) {
      const value = values[index];
      // Most integers are small, for which this check is the quickest.
      if (value !== (value | 0) && value !== null) {
        const why = exactly.integer(value);
        if (why !== null) fail(index, why);
      }
    }
  } else if (field.kind === "timestampText") {
    for (let index = 0; index < count; index++) {
      if (values[index] === null) continue;
      const time = canonicalTime(values[index]);
      if (time === null) fail(index, `is ${show(values[index])}, not ${WANTED.timestampText}`);
      else values[index] = time;
    }
  } else if (field.kind === "bigint") {
    for (let index = 0; index < count; index++) {
      const text = values[index];
      if (text === null) continue;
      const why = exactly.bigint(text);
      if (why === null) values[index] = BigInt(text);
      else fail(index, why);
    }
  }
  return values;
}

/** The names in `attributes: […]` as the flags of the contract. */
export function attributeFlags(names) {
  const flags = Object.fromEntries(ATTRIBUTES.map((name) => [name, false]));
  for (const name of names) {
    if (!ATTRIBUTES.includes(name)) {
      throw new ProjectionError(`${show(name)} is not an attribute${suggestion(String(name), ATTRIBUTES)}`);
    }
    flags[name] = true;
  }
  return flags;
}

/** The events of a batch, one after the other. */
export function* eventsOf(batch, event, timers) {
  const { times, types, typeNames } = batch;
  for (let i = 0; i < times.length; i++) {
    event._index = i;
    event.time = times[i];
    event.type = typeNames[types[i]];
    call.cause = timers + i;
    yield event;
  }
}
