// Base64 with padding (RFC 4648, section 4).

const native = typeof Uint8Array.fromBase64 === "function";

/** The base64 of bytes. */
export function toBase64(bytes) {
  if (native) return bytes.toBase64();
  let binary = "";
  for (let i = 0; i < bytes.length; i += 4_096) binary += String.fromCharCode(...bytes.subarray(i, i + 4_096));
  return btoa(binary);
}

/** The bytes of canonical base64, or null. */
export function fromBase64(text) {
  if (typeof text !== "string") return null;
  let bytes;
  try {
    bytes = native ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
  return toBase64(bytes) === text ? bytes : null;
}
