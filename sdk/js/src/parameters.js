// Parameters of a version: JSON that is given at upload.

import { ProjectionError, show, suggestion } from "./errors.js";

let declared = null;

/** The parameters that were declared since the last call, or null. */
export function takeParameters() {
  const parameters = declared;
  declared = null;
  return parameters;
}

const kindOf = (value) => (value === null ? "null" : Array.isArray(value) ? "array" : typeof value);

/** The declared parameters with their defaults and, after `setup`, their values. */
export class Parameters {
  constructor(defaults) {
    this.defaults = structured(defaults);
    this.values = { ...structured(defaults) };
  }

  /** Takes the JSON given at upload; empty means none. */
  take(text) {
    const json = text.trim() === "" ? "{}" : text;
    let given;
    try {
      given = JSON.parse(json);
    } catch (error) {
      throw new ProjectionError(`parameters: ${error.message}`);
    }
    if (kindOf(given) !== "object") throw new ProjectionError(`parameters: ${show(given)} is not an object`);
    const names = Object.keys(this.defaults);
    for (const [name, value] of Object.entries(given)) {
      if (!names.includes(name)) {
        const known = names.length === 0 ? "; this projection takes none" : suggestion(name, names);
        throw new ProjectionError(`parameters: there is no parameter \`${name}\`${known}`);
      }
      const fallback = this.defaults[name];
      if (fallback !== null && kindOf(value) !== kindOf(fallback)) {
        throw new ProjectionError(`parameters: \`${name}\` is ${show(value)}, but its default is ${show(fallback)}`);
      }
    }
    Object.assign(this.values, structured(this.defaults), given);
  }

  /** The JSON Schema of the parameters, or null. */
  schema() {
    const names = Object.keys(this.defaults);
    if (names.length === 0) return null;
    const properties = Object.fromEntries(names.map((name) => {
      const fallback = this.defaults[name];
      const kind = kindOf(fallback);
      return [name, kind === "null" ? { default: null } : { type: kind, default: fallback }];
    }));
    return JSON.stringify({ type: "object", additionalProperties: false, properties });
  }
}

const structured = (value) => JSON.parse(JSON.stringify(value));

/**
 * Declares the parameters with their defaults, and returns an object with their values: first
 * the defaults, and from `setup` on the values that were given at upload.
 * @param {object} defaults
 */
export function parameters(defaults) {
  if (kindOf(defaults) !== "object") throw new ProjectionError(`parameters: ${show(defaults)} is not an object of defaults`);
  if (declared !== null) throw new ProjectionError("parameters are declared twice");
  declared = new Parameters(defaults);
  return declared.values;
}
