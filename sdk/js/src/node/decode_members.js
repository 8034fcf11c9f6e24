// Decodes declared members of events' data as the host does.

import { column } from "../bytes.js";
import { memberTexts } from "../json.js";
import { TIME_END, TIME_MIN, tryParseTime } from "../time.js";

const MISMATCHED = Symbol("mismatched");

/** The value of a member, or {@link MISMATCHED}; null means that it has none. */
const values = {
  integer(json) {
    if (!/^-?(0|[1-9]\d*)$/.test(json)) return MISMATCHED;
    const exact = BigInt(json);
    return exact >= -(2n ** 63n) && exact < 2n ** 63n ? Number(exact) : MISMATCHED;
  },
  number(json) {
    const value = JSON.parse(json);
    return typeof value === "number" && Number.isFinite(value) ? value : MISMATCHED;
  },
  boolean(json) {
    return json === "true" || json === "false" ? json === "true" : MISMATCHED;
  },
  text(json) {
    if (json[0] !== '"') return MISMATCHED;
    const text = JSON.parse(json);
    return text.isWellFormed() ? text : MISMATCHED;
  },
  timestamp(json) {
    const time = json[0] === '"' ? tryParseTime(JSON.parse(json)) : null;
    return time !== null && time >= TIME_MIN && time < TIME_END ? time : MISMATCHED;
  },
  json: (json) => json,
};

function lookUp(data, members) {
  const twice = new Set();
  let found;
  try {
    found = memberTexts(data, (name) => twice.add(name));
  } catch {
    return members.map(() => MISMATCHED);
  }
  return members.map(({ name, kind }) => {
    const json = found.get(name);
    if (json === undefined) return null;
    if (twice.has(name)) return MISMATCHED;
    return json === "null" ? null : values[kind](json);
  });
}

const bitmap = (bits) => {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8));
  bits.forEach((bit, i) => {
    if (bit) bytes[i >> 3] |= 1 << (i & 7);
  });
  return bytes;
};

/**
 * The member columns of a batch.
 * @param {{ name: string, kind: string }[]} members
 * @param {string[]} payloads the data of each event
 */
export function decodeMembers(members, payloads) {
  const rows = payloads.map((data) => lookUp(data, members));
  return members.map(({ kind }, place) => {
    const found = rows.map((row) => row[place]);
    const valid = found.map((value) => value !== null && value !== MISMATCHED);
    const or = (fallback) => found.map((value, i) => (valid[i] ? value : fallback));
    const make = {
      integer: () => ({ tag: "integers", val: or(0) }),
      timestamp: () => ({ tag: "timestamps", val: or(0) }),
      number: () => ({ tag: "numbers", val: or(0) }),
      boolean: () => ({ tag: "booleans", val: bitmap(or(false)) }),
      text: () => ({ tag: "texts", val: column(or("")) }),
      json: () => ({ tag: "jsons", val: column(or("")) }),
    };
    return {
      validity: bitmap(valid),
      values: make[kind](),
      mismatched: found.flatMap((value, i) => (value === MISMATCHED ? [i] : [])),
    };
  });
}
