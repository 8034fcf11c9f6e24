// JSON with exact numbers, and the canonical JSON of rows.
//
// Rows have the same bytes in all languages. There is no white space. The members of `json` fields
// are sorted by the UTF-8 of their names. Integers are decimal. Every other number is the shortest
// decimal of the double, always with a fraction or an exponent.

import { ProjectionError, show } from "./errors.js";

/** The maximum nesting of arrays and objects in a JSON field. */
export const JSON_DEPTH_MAX = 64;

const INTEGER_MIN = -(2n ** 63n);
const INTEGER_END = 2n ** 64n;

/**
 * A number of kind `number` as JSON: `1.0`, `0.00001`, `1e-6`, `1e+16`, `-0.0`.
 * @param {number} value a finite number
 */
export function numberText(value) {
  if (Object.is(value, -0)) return "-0.0";
  if (value === 0) return "0.0";
  const text = String(value);
  if (Number.isInteger(value) && value > -1e16 && value < 1e16) return `${text}.0`;
  const [, sign, whole, fraction = "", power = "0"] = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(text);
  const leading = /^0*/.exec(whole + fraction)[0].length;
  const digits = (whole + fraction).slice(leading).replace(/0+$/, "");
  // The value is 0.DIGITS · 10^point.
  const point = Number(power) + whole.length - leading;
  let out;
  if (point > 16 || point <= -5) {
    const exponent = point - 1;
    const rest = digits.slice(1);
    out = `${digits[0]}${rest && "."}${rest}e${exponent < 0 ? "-" : "+"}${Math.abs(exponent)}`;
  } else if (point <= 0) {
    out = `0.${"0".repeat(-point)}${digits}`;
  } else if (point >= digits.length) {
    out = `${digits}${"0".repeat(point - digits.length)}.0`;
  } else {
    out = `${digits.slice(0, point)}.${digits.slice(point)}`;
  }
  return sign + out;
}

/** An integer or a number in a JSON value without a declared kind. */
function looseNumberText(value) {
  if (!Number.isFinite(value)) throw new ProjectionError(`${value} cannot be stored in JSON`);
  return Number.isSafeInteger(value) && !Object.is(value, -0) ? String(value) : numberText(value);
}

/** Orders texts by their UTF-8 bytes, as the host orders keys. */
export function compareUtf8(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates are above all other code units in UTF-8, but not in UTF-16.
    if (x >= 0xd800 && y >= 0xd800) {
      x = x >= 0xe000 ? x - 0x800 : x + 0x2000;
      y = y >= 0xe000 ? y - 0x800 : y + 0x2000;
    }
    return x - y;
  }
  return a.length - b.length;
}

/** A text as JSON. */
export function textJson(text) {
  if (!text.isWellFormed()) throw new ProjectionError("text with half of a surrogate pair cannot be stored");
  return JSON.stringify(text);
}

/**
 * A JSON value as canonical JSON.
 * @param {unknown} value null, booleans, numbers, bigints, text, arrays, plain objects and {@link RawJson}
 * @param {number} depth how deep it is nested in another value
 * @param {boolean} plain whether to refuse what `JSON.parse` would not return
 */
export function canonicalJson(value, depth = 0, plain = false) {
  switch (typeof value) {
    case "string":
      return textJson(value);
    case "number":
      return looseNumberText(value);
    case "boolean":
      return value ? "true" : "false";
    case "bigint":
      if (plain) throw new ProjectionError("a bigint cannot be stored in a `json` field: use `rawJson`");
      if (value < INTEGER_MIN || value >= INTEGER_END) return numberText(Number(value));
      return value.toString();
    case "object":
      break;
    default:
      throw new ProjectionError(`${show(value)} cannot be stored in JSON`);
  }
  if (value === null) return "null";
  if (value instanceof RawJson) {
    if (plain) throw new ProjectionError("a `RawJson` cannot be stored in a `json` field: use `rawJson`");
    return value.text;
  }
  if (depth >= JSON_DEPTH_MAX) throw new ProjectionError(`JSON is nested more than ${JSON_DEPTH_MAX} levels deep`);
  if (Array.isArray(value)) {
    const parts = [];
    for (let i = 0; i < value.length; i++) parts.push(canonicalJson(value[i], depth + 1, plain));
    return `[${parts.join(",")}]`;
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw new ProjectionError(`${show(value)} cannot be stored in JSON`);
  }
  const names = Object.keys(value).filter((name) => value[name] !== undefined).sort(compareUtf8);
  return `{${names.map((name) => `${textJson(name)}:${canonicalJson(value[name], depth + 1, plain)}`).join(",")}}`;
}

/**
 * JSON whose text matters. It keeps integers beyond 2^53 and the difference between `1` and `1.0`,
 * which JavaScript's numbers cannot represent. Values of the kind `rawJson` are of this class.
 */
export class RawJson {
  // The text as it was given, and its canonical form, or null until it is needed.
  #given;
  #canonical = null;

  /** @param {string} text any JSON; it is kept in canonical form */
  constructor(text) {
    this.#given = String(text);
    this.#canonical = canonicalText(this.#given);
  }

  /**
   * Creates a value from JSON that is known to be valid. It is brought into canonical form when it
   * is used.
   */
  static lazily(text) {
    const json = new RawJson("null");
    json.#given = text;
    json.#canonical = null;
    return json;
  }

  /** The canonical JSON. */
  get text() {
    return (this.#canonical ??= canonicalText(this.#given));
  }

  /** The value, as `JSON.parse` returns it. */
  get value() {
    return JSON.parse(this.#given);
  }

  toJSON() {
    return this.value;
  }

  toString() {
    return this.text;
  }
}

/** A reader of JSON text. */
class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  fail() {
    const context = this.text.slice(Math.max(0, this.at - 8), this.at + 8);
    throw new ProjectionError(`not JSON at character ${this.at}: ${show(context)}`);
  }

  space() {
    for (;;) {
      const code = this.text.charCodeAt(this.at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
      this.at++;
    }
  }

  /** Takes the character, if it is the next one. */
  take(character) {
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  string() {
    const start = this.at;
    if (!this.take('"')) this.fail();
    for (;;) {
      const quote = this.text.indexOf('"', this.at);
      if (quote < 0) this.fail();
      let back = quote - 1;
      while (this.text[back] === "\\") back--;
      this.at = quote + 1;
      if ((quote - back) % 2 === 1) break;
    }
    try {
      return JSON.parse(this.text.slice(start, this.at));
    } catch {
      this.at = start;
      return this.fail();
    }
  }

  numberToken() {
    const pattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found === null) this.fail();
    this.at = pattern.lastIndex;
    return found[0];
  }

  word(word) {
    if (!this.text.startsWith(word, this.at)) this.fail();
    this.at += word.length;
  }

  /** Calls `each` for every member of an object: it must read the value. */
  members(each) {
    this.at++;
    this.space();
    if (this.take("}")) return;
    for (;;) {
      this.space();
      const name = this.string();
      this.space();
      if (!this.take(":")) this.fail();
      this.space();
      each(name);
      this.space();
      if (this.take("}")) return;
      if (!this.take(",")) this.fail();
    }
  }

  /** Calls `each` for every element of an array: it must read the value. */
  elements(each) {
    this.at++;
    this.space();
    if (this.take("]")) return;
    for (;;) {
      this.space();
      each();
      this.space();
      if (this.take("]")) return;
      if (!this.take(",")) this.fail();
    }
  }

  end() {
    this.space();
    if (this.at < this.text.length) this.fail();
  }
}

/** The canonical form of a JSON text, with its numbers unchanged in kind. */
export function canonicalText(text) {
  const reader = new Reader(text);
  const read = (depth) => {
    const first = reader.text[reader.at];
    if (depth >= JSON_DEPTH_MAX && (first === "{" || first === "[")) {
      throw new ProjectionError(`JSON is nested more than ${JSON_DEPTH_MAX} levels deep`);
    }
    switch (first) {
      case "{": {
        const found = new Map();
        reader.members((name) => found.set(name, read(depth + 1)));
        const names = [...found.keys()].sort(compareUtf8);
        return `{${names.map((name) => `${textJson(name)}:${found.get(name)}`).join(",")}}`;
      }
      case "[": {
        const parts = [];
        reader.elements(() => parts.push(read(depth + 1)));
        return `[${parts.join(",")}]`;
      }
      case '"':
        return textJson(reader.string());
      case "t":
        return reader.word("true"), "true";
      case "f":
        return reader.word("false"), "false";
      case "n":
        return reader.word("null"), "null";
      default:
        return canonicalNumber(reader.numberToken());
    }
  };
  reader.space();
  const canonical = read(0);
  reader.end();
  return canonical;
}

function canonicalNumber(token) {
  if (/^-?\d+$/.test(token) && token !== "-0") {
    const integer = BigInt(token);
    if (integer >= INTEGER_MIN && integer < INTEGER_END) return token;
  }
  const value = Number(token);
  if (!Number.isFinite(value)) throw new ProjectionError(`${token} is not a number that a double can hold`);
  return numberText(value);
}

/** The end of the JSON value at `reader`. */
function skip(reader) {
  switch (reader.text[reader.at]) {
    case "{":
      return reader.members(() => skip(reader));
    case "[":
      return reader.elements(() => skip(reader));
    case '"':
      return void reader.string();
    case "t":
      return reader.word("true");
    case "f":
      return reader.word("false");
    case "n":
      return reader.word("null");
    default:
      return void reader.numberToken();
  }
}

/**
 * The members of a JSON object, each with the text of its value. Calls `twice` with each name
 * that has occurred before.
 */
export function memberTexts(text, twice = () => {}) {
  const reader = new Reader(text);
  const found = new Map();
  reader.space();
  if (reader.text[reader.at] !== "{") reader.fail();
  reader.members((name) => {
    const start = reader.at;
    skip(reader);
    if (found.has(name)) twice(name);
    found.set(name, text.slice(start, reader.at));
  });
  reader.end();
  return found;
}
