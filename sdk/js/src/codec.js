// Converts rows to JSON and back, and checks and undoes the changes that an event makes to a row.
// The functions for this are generated from the declared fields.

import { Distinct } from "./distinct.js";
import { isFatal, ProjectionError, show, suggestion } from "./errors.js";
import { canonicalJson, memberTexts, numberText, RawJson, textJson } from "./json.js";
import { Percentiles } from "./percentiles.js";
import { canonicalTime, iso, parseTime, TIME_END, TIME_MIN, tryParseTime } from "./time.js";

// Without a place: rows are checked after the projection's function has returned.
const bad = (name, why) => new ProjectionError(`field \`${name}\` ${why}`, null);

function wrongKind(name, value, wanted) {
  if (value === undefined) return bad(name, "has no value: set it, or declare it as `optional(...)`");
  if (value === null) return bad(name, "is null: declare it as `optional(...)` if it may have no value");
  return bad(name, `is ${show(value)}, not ${wanted}`);
}

/**
 * Checks of values, which the generated code calls. Each check throws, or returns the value
 * to store (for a `json` field, the value's text).
 */
const checks = {
  integer(name, value) {
    if (Number.isSafeInteger(value)) return value;
    if (typeof value === "bigint") throw bad(name, `is the bigint ${value}: declare it as \`bigint\`, or convert it with Number(...)`);
    if (Number.isInteger(value)) throw bad(name, `is ${value}, where integers are no longer exact: declare it as \`bigint\``);
    throw wrongKind(name, value, "an integer");
  },
  bigint(name, value) {
    if (typeof value !== "bigint") throw wrongKind(name, value, "a bigint such as `1n`");
    if (value < -(2n ** 63n) || value >= 2n ** 64n) throw bad(name, `is ${value}, not from -2^63 to 2^64 - 1`);
    return value;
  },
  number(name, value) {
    if (typeof value !== "number") throw wrongKind(name, value, "a number");
    if (!Number.isFinite(value)) throw bad(name, `is ${value}; only finite numbers can be stored`);
    return value;
  },
  text(name, value) {
    if (typeof value !== "string") throw wrongKind(name, value, "text");
    if (!value.isWellFormed()) throw bad(name, "has half of a surrogate pair");
    return value;
  },
  boolean(name, value) {
    if (typeof value !== "boolean") throw wrongKind(name, value, "true or false");
    return value;
  },
  timestamp(name, value) {
    const time = typeof value === "string" ? tryParseTime(value) : value;
    if (!Number.isInteger(time)) throw wrongKind(name, value, "a time: microseconds since 1970, or RFC 3339 text");
    if (time < TIME_MIN || time >= TIME_END) {
      throw bad(name, `is ${iso(time)}; only times from year 1 to 9999-12-30T22:00Z can be stored`);
    }
    return time;
  },
  timestampText(name, value) {
    const time = typeof value === "string" ? canonicalTime(value) : null;
    if (time === null) throw wrongKind(name, value, "RFC 3339 text from year 1 to 9999-12-30T22:00Z");
    return time;
  },
  json(name, value) {
    if (value === undefined) throw wrongKind(name, value, "JSON");
    try {
      return canonicalJson(value, 0, true);
    } catch (error) {
      if (isFatal(error)) throw error;
      throw bad(name, `: ${error.message}`);
    }
  },
  rawJson(name, value) {
    if (!(value instanceof RawJson)) throw wrongKind(name, value, "a `RawJson`");
    try {
      void value.text;
    } catch (error) {
      throw bad(name, `: ${error.message}`);
    }
    return value;
  },
  distinct(name, value) {
    if (!(value instanceof Distinct)) throw wrongKind(name, value, "a `Distinct` sketch");
    return value;
  },
  percentiles(name, value) {
    if (!(value instanceof Percentiles)) throw wrongKind(name, value, "a `Percentiles` sketch");
    return value;
  },
};

/**
 * The condition under which `value` needs no further check. If the value is a bigint or a symbol,
 * evaluating the condition throws, and `Codec.check` then finds the reason.
 */
const quickly = {
  integer: (value) => `${value} === (${value} | 0)`,
  number: (value) => `${value} === +${value} && ${value} - ${value} === 0`,
  boolean: (value) => `${value} === true || ${value} === false`,
  timestamp: (value) => `${value} === +${value} && ${value} > 0 && ${value} < 253402207200000000 && ${value} % 1 === 0`,
};

/** The value of a field in a new row. */
const initial = {
  integer: () => "0",
  bigint: () => "0n",
  number: () => "0",
  text: () => '""',
  boolean: () => "false",
  timestamp: () => "undefined",
  timestampText: () => "undefined",
  json: () => "undefined",
  rawJson: () => "undefined",
  distinct: () => "new Distinct()",
  percentiles: () => "new Percentiles()",
};

const written = {
  integer: (value) => value,
  bigint: (value) => value,
  number: (value) => `numberText(${value})`,
  text: (value) => `textJson(${value})`,
  boolean: (value) => value,
  timestamp: (value) => `'"' + iso(${value}) + '"'`,
  timestampText: (value) => `'"' + ${value} + '"'`,
  json: (value) => `canonicalJson(${value})`,
  rawJson: (value) => `${value}.text`,
  distinct: (value) => `distinctJson(${value})`,
  percentiles: (value) => `percentilesJson(${value})`,
};

/** How a value is read from the value that `JSON.parse` returned. */
const read = {
  timestamp: (value) => `parseTime(${value})`,
  distinct: (value) => `Distinct.fromJSON(${value})`,
  percentiles: (value) => `Percentiles.fromJSON(${value})`,
};

/** How a value is read from its own JSON text, if numbers must stay exact. */
const readText = {
  bigint: (value) => `BigInt(${value})`,
  rawJson: (value) => `new RawJson(${value})`,
  // The numbers of percentiles may be beyond 2^53.
  percentiles: (value) => `percentilesOf(${value})`,
};

function distinctJson(sketch) {
  const { estimate, sketch: bytes } = sketch.toJSON();
  return `{"estimate":${estimate},"sketch":"${bytes}"}`;
}

function percentilesJson(sketch) {
  const { sketch: bytes, ...numbers } = sketch.toJSON();
  const members = Object.entries(numbers).map(([name, value]) => `"${name}":${value}`);
  return `{${members.join(",")},"sketch":"${bytes}"}`;
}

const percentilesOf = (text) => Percentiles.fromJSON(JSON.parse(text));

const SCOPE = {
  checks, iso, parseTime, numberText, textJson, canonicalJson, RawJson, Distinct, Percentiles, distinctJson, percentilesJson,
  percentilesOf, memberTexts,
};

/** Where the generated code reads and writes the field at a place. */
const place = (fields, index) => `row[${JSON.stringify(fields[index].name)}]`;

function freshCode(fields) {
  const zero = fields.map(({ name, field }) => `${JSON.stringify(name)}: ${field.optional ? "null" : initial[field.kind]()}`);
  return `return Object.preventExtensions({ ${zero.join(", ")} });`;
}

// A row in memory is an object, its *entry*. For each field, the entry has a property with
// the field's value before the current event: the value itself or, for a `json` field, its
// text. NaN means that this value is not known, because NaN equals nothing.
const kept = (index) => `entry.kept${index}`;
const checkedText = (index) => `entry.text${index}`;

function entryCode(fields) {
  const slots = fields.map(({ field }, i) => `, kept${i}: NaN${field.kind === "json" ? `, text${i}: null` : ""}`);
  return `return { table, codec: table?.codec, key, row, before: row, cause: 0, event: 0, changed: false, known: false, ready: false${slots.join("")} };`;
}

/** Checks a field; its value is then in a variable named after the field's index. */
function checkField(fields, i) {
  const { name, field } = fields[i];
  const target = place(fields, i);
  const value = `v${i}`;
  // `var` is quicker than `let` in QuickJS.
  const read = `var ${value} = ${target};`;
  const nullable = field.optional ? ` if (${value} === undefined) ${value} = ${target} = null;` : "";
  if (field.kind === "json") {
    const text = `checks.json(${JSON.stringify(name)}, ${value})`;
    return `${read}${nullable} ${checkedText(i)} = ${field.optional ? `${value} === null ? null : ` : ""}${text};`;
  }
  const fast = quickly[field.kind];
  const unless = [`${value} === ${kept(i)}`, field.optional ? `${value} === null` : "", fast ? `(${fast(value)})` : ""].filter(Boolean);
  return `${read}${nullable} if (!(${unless.join(" || ")})) ${value} = ${target} = checks.${field.kind}(${JSON.stringify(name)}, ${value});`;
}

const keepField = (fields, i, value) => `${kept(i)} = ${fields[i].field.kind === "json" ? checkedText(i) : value};`;

const checkCode = (fields) => fields.map((_, i) => checkField(fields, i)).join("\n");

const keepCode = (fields) => fields.map((_, i) => keepField(fields, i, place(fields, i))).join("\n");

const settleCode = (fields) => [checkCode(fields), ...fields.map((_, i) => keepField(fields, i, `v${i}`))].join("\n");

function learnCode(fields) {
  const texts = fields.map(({ field }, i) => (field.kind === "json" ? `${checkedText(i)} = ${place(fields, i)} == null ? null : canonicalJson(${place(fields, i)});` : ""));
  return [...texts, keepCode(fields)].join("\n");
}

function restoreCode(fields) {
  return fields.map(({ field }, i) => {
    const value = field.kind === "json" ? `${kept(i)} === null ? null : JSON.parse(${kept(i)})` : kept(i);
    return `${place(fields, i)} = ${value};`;
  }).join("\n");
}

function encodeCode(fields) {
  const members = fields.map(({ name, field }, i) => {
    const value = written[field.kind](place(fields, i));
    const either = field.optional ? `(${place(fields, i)} === null ? "null" : ${value})` : value;
    return `${JSON.stringify(`${i > 0 ? "," : ""}${JSON.stringify(name)}:`)} + ${either}`;
  });
  return `return ${['"{"', ...members, '"}"'].join(" + ")};`;
}

function decodeCode(fields) {
  const exact = fields.some(({ field }) => field.kind in readText);
  const members = fields.map(({ name, field: { kind } }) => {
    const own = JSON.stringify(name);
    if (!exact) {
      const value = kind in read ? read[kind](`from[${own}]`) : `from[${own}]`;
      return `${own}: from[${own}] == null ? null : ${value}`;
    }
    const source = `from.get(${own})`;
    const value = kind in readText ? readText[kind](source) : kind in read ? read[kind](`JSON.parse(${source})`) : `JSON.parse(${source})`;
    const missing = kind === "rawJson" ? `${source} === undefined` : `${source} === undefined || ${source} === "null"`;
    return `${own}: ${missing} ? null : ${value}`;
  });
  return `const from = ${exact ? "memberTexts(text)" : "JSON.parse(text)"};
return Object.preventExtensions({ ${members.join(", ")} });`;
}

/** The conversions of rows with these fields. */
export class Codec {
  /** @param {{ name: string, field: import("./fields.js").Field }[]} fields in the order of the row's members */
  constructor(fields) {
    this.fields = fields;
    this.names = fields.map(({ name }) => name);
    const code = `"use strict"; return {
fresh() { ${freshCode(fields)} },
encode(row) { ${encodeCode(fields)} },
decode(text) { ${decodeCode(fields)} },
entry(table, key, row) { ${entryCode(fields)} },
check(entry, row) { ${checkCode(fields)} },
keep(entry, row) { ${keepCode(fields)} },
settle(entry, row, cause) { ${settleCode(fields)} entry.cause = cause; },
learn(entry, row) { ${learnCode(fields)} },
restore(entry, row) { ${restoreCode(fields)} },
};`;
    const made = new Function(...Object.keys(SCOPE), code)(...Object.values(SCOPE));
    /** A new row. */
    this.fresh = made.fresh;
    /** The row's JSON. */
    this.encode = made.encode;
    /** The row of {@link encode}'s JSON. */
    this.decode = made.decode;
    /** A row in memory: see `Table`. */
    this.entry = made.entry;
    /** Throws if a field's value cannot be stored. Called with the row's entry. */
    this.checkEntry = made.check;
    /** Remembers the values of a row that was checked. */
    this.keep = made.keep;
    /** Checks a row and remembers its values. */
    this.settle = made.settle;
    /** Remembers the values of a row that was read. */
    this.learn = made.learn;
    /** Sets the fields of a row to the remembered values. */
    this.restore = made.restore;
    this.unknown = made.entry(null, "", null);
  }

  /** Throws if a field's value cannot be stored. */
  check(row) {
    try {
      this.checkEntry(this.unknown, row);
    } catch (error) {
      throw this.reasonOf(row, error);
    }
  }

  /** Why a row cannot be stored: `error`, unless it was raised by a quick check. */
  reasonOf(row, error) {
    if (error instanceof ProjectionError || isFatal(error)) return error;
    try {
      for (const { name, field } of this.fields) {
        if (!field.optional || (row[name] !== undefined && row[name] !== null)) checks[field.kind](name, row[name]);
      }
    } catch (reason) {
      return reason;
    }
    return error;
  }

  /** A new row with the values of `values`. */
  from(values) {
    const row = this.fresh();
    if (values === undefined) return row;
    if (values === null || typeof values !== "object") throw new ProjectionError(`${show(values)} is not a row`);
    for (const name of Object.keys(values)) {
      if (!this.names.includes(name)) throw new ProjectionError(`the field \`${name}\` is not declared${suggestion(name, this.names)}`);
      row[name] = values[name];
    }
    return row;
  }
}
