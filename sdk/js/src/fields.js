// The kinds of fields of rows and of members of events' data.

import { ProjectionError, show, suggestion } from "./errors.js";

const MERGES = ["same", "sum", "min", "max", "newest", "sketch"];

/** A declared field or member. */
export class Field {
  constructor(kind, { merge = "same", unit = "", optional = false } = {}) {
    this.kind = kind;
    this.merge = merge;
    this.unit = unit;
    this.optional = optional;
  }

  /** The kind in the contract. */
  get contractKind() {
    return { bigint: "integer", rawJson: "json", timestampText: "timestamp" }[this.kind] ?? this.kind;
  }

  /** The kind in which the host decodes a member: a component in JavaScript gets 64-bit integers as doubles. */
  get memberKind() {
    return { bigint: "json", rawJson: "json", timestampText: "text" }[this.kind] ?? this.kind;
  }
}

function optionsOf(merge, unit, fallback) {
  const options = typeof merge === "object" && merge !== null ? merge : { merge, unit };
  for (const name of Object.keys(options)) {
    if (name !== "merge" && name !== "unit") {
      throw new ProjectionError(`a field has no option \`${name}\`${suggestion(name, ["merge", "unit"])}`);
    }
  }
  const chosen = options.merge ?? fallback;
  if (!MERGES.includes(chosen)) {
    throw new ProjectionError(`${show(chosen)} is not a merge: choose one of ${MERGES.map((name) => `"${name}"`).join(", ")}`);
  }
  if (options.unit !== undefined && typeof options.unit !== "string") throw new ProjectionError(`the unit ${show(options.unit)} is not text`);
  return { merge: chosen, unit: options.unit ?? "" };
}

// A kind can be used as it is (`text`) or called with a merge and a unit (`integer("sum", "cent")`).
function kindOf(kind, fallback = "same") {
  const make = (merge, unit) => new Field(kind, optionsOf(merge, unit, fallback));
  make.field = make();
  return make;
}

/** Whole numbers from -(2^53 - 1) to 2^53 - 1, as numbers. */
export const integer = kindOf("integer");
/** Whole numbers from -2^63 to 2^64 - 1, as bigints. */
export const bigint = kindOf("bigint");
/** Numbers that a double can hold. */
export const number = kindOf("number");
/** Text. */
export const text = kindOf("text");
/** `true` or `false`. */
export const boolean = kindOf("boolean");
/** Times, in microseconds since 1970; RFC 3339 text in the row. */
export const timestamp = kindOf("timestamp");
/**
 * Times as RFC 3339 text. They are exact even after the year 2255, when microseconds exceed 2^53.
 */
export const timestampText = kindOf("timestampText");
/** Any JSON, as a JavaScript value. */
export const json = kindOf("json");
/** Any JSON, as {@link RawJson} with its exact numbers. */
export const rawJson = kindOf("rawJson");
/** A sketch that counts distinct values. */
export const distinct = kindOf("distinct", "sketch");
/** A sketch of percentiles. */
export const percentiles = kindOf("percentiles", "sketch");

/**
 * A field that may have no value: null.
 * @param {unknown} field
 */
export function optional(field) {
  const { kind, merge, unit } = fieldOf(field, "optional(…)");
  return new Field(kind, { merge, unit, optional: true });
}

/** The field that was declared as `declared`, or an error that names `where`. */
export function fieldOf(declared, where) {
  if (declared instanceof Field) return declared;
  if (typeof declared === "function" && declared.field instanceof Field) return declared.field;
  throw new ProjectionError(`${where}: ${show(declared)} is not a kind of field: import one, such as \`text\` or \`integer\``);
}

/** The fields of a declaration: name and field, in order. */
export function fieldsOf(declared, where) {
  if (declared === null || typeof declared !== "object" || Array.isArray(declared)) {
    throw new ProjectionError(`${where}: ${show(declared)} is not an object of fields, such as \`{ orders: integer("sum") }\``);
  }
  return Object.entries(declared).map(([name, field]) => ({ name, field: fieldOf(field, `${where}: \`${name}\``) }));
}
