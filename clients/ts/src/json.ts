// JSON with exact integers.

/** Text that may contain an integer which a double cannot represent exactly. */
const LONG = /[:[,]\s*-?\d{16}/;
/** Strings, which are skipped, and numbers. */
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;
/** The name of the member that marks such an integer. It is random, so that no row has it. */
const MARK = `integer ${Math.random()}`;

/** A marked integer in a text of JSON. */
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");

/** Like `JSON.stringify`, but writes a `bigint` as an integer. With `indent` it writes several lines. */
export function stringify(value: unknown, indent?: number): string {
  return JSON.stringify(value, (_, of) => (typeof of === "bigint" ? MARK + of : of), indent).replace(MARKED, "$1");
}

/** Like `JSON.parse`, but integers beyond 2^53 become a `bigint`: no digit is lost. */
export function parse(text: string): unknown {
  if (!LONG.test(text)) return JSON.parse(text);
  const marked = text.replace(TOKENS, (token) =>
    /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token)) ? `{"${MARK}":"${token}"}` : token,
  );
  return JSON.parse(marked, (_, value) =>
    value !== null && typeof value === "object" && MARK in value ? BigInt(value[MARK]) : value,
  );
}
