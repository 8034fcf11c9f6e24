// Converts text to UTF-8 and back. QuickJS has neither TextEncoder nor TextDecoder. In QuickJS,
// base64 is the fastest built-in conversion between bytes and text.

const NON_ASCII = /[^\x00-\x7f]/;

/** @type {{ encode(text: string): Uint8Array, decode(bytes: Uint8Array): string }} */
const web = typeof TextEncoder === "function" && typeof TextDecoder === "function"
  ? (() => {
      const encoder = new TextEncoder();
      const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      return { encode: (text) => encoder.encode(text), decode: (bytes) => decoder.decode(bytes) };
    })()
  : null;

/** The conversions of an engine that has `Uint8Array.fromBase64` but no TextEncoder. */
export const quick = {
  encode(text) {
    return Uint8Array.fromBase64(btoa(NON_ASCII.test(text) ? unescape(encodeURIComponent(text)) : text));
  },
  decode(bytes) {
    const binary = atob(bytes.toBase64());
    return NON_ASCII.test(binary) ? decodeURIComponent(escape(binary)) : binary;
  },
};

const codec = web ?? quick;

/** The UTF-8 of a text. */
export const encode = codec.encode;

/** The text of UTF-8 bytes. */
export const decode = codec.decode;

/** Whether all characters of a text are ASCII. */
export const isAscii = (text) => !NON_ASCII.test(text);

/** A column of the contract with these texts. */
export function column(texts) {
  const count = texts.length;
  const ends = new Array(count);
  const joined = texts.join("");
  const bytes = encode(joined);
  let end = 0;
  if (bytes.length === joined.length) {
    for (let i = 0; i < count; i++) ends[i] = end += texts[i].length;
  } else {
    for (let i = 0; i < count; i++) {
      const text = texts[i];
      ends[i] = end += isAscii(text) ? text.length : encode(text).length;
    }
  }
  return { ends, bytes };
}

/** The texts of a column of the contract. */
export function texts(column) {
  const { ends, bytes } = column;
  const count = ends.length;
  const out = new Array(count);
  const whole = decode(bytes);
  let start = 0;
  if (whole.length === bytes.length) {
    for (let i = 0; i < count; i++) {
      const end = ends[i];
      out[i] = whole.slice(start, end);
      start = end;
    }
  } else {
    for (let i = 0; i < count; i++) {
      const end = ends[i];
      out[i] = decode(bytes.subarray(start, end));
      start = end;
    }
  }
  return out;
}

/**
 * A column whose texts the caller cuts out one at a time: text `i` is
 * `whole.slice(ends[i - 1], ends[i])`. Null if a text of the column is not ASCII.
 */
export function wholeText({ ends, bytes }) {
  let whole;
  try {
    whole = decode(bytes);
  } catch {
    return null;
  }
  return whole.length === bytes.length ? { whole, ends } : null;
}
