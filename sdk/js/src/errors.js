// Errors of a projection, and how they read in the reason of a parked event.

/** A mistake in a declaration or a value: the message is for the author of a projection. */
export class ProjectionError extends Error {
  get name() {
    return "ProjectionError";
  }
}

/**
 * Whether an error has nothing to do with the event, because memory or the stack ran out.
 * In another call, the same event may succeed.
 */
export const isFatal = (error) =>
  error instanceof Error && (error.name === "InternalError" || (error instanceof RangeError && error.message.includes("call stack")));

/** A value as it appears in a message: short, and never throwing. */
export function show(value) {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value.length > 64 ? value.slice(0, 64) + "…" : value);
    case "bigint":
      return `${value}n`;
    case "function":
      return "a function";
    case "symbol":
      return "a symbol";
    case "object":
      if (value === null) return "null";
      if (Array.isArray(value)) return `an array of ${value.length}`;
      return `a ${value.constructor?.name ?? "object"} object`;
    default:
      return Object.is(value, -0) ? "-0" : String(value);
  }
}

/** The name among `names` that `name` is most likely a misspelling of. */
export function closest(name, names) {
  let best = null;
  let least = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const other of names) {
    const distance = editDistance(name.toLowerCase(), other.toLowerCase());
    if (distance < least) [best, least] = [other, distance];
  }
  return best;
}

function editDistance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    let diagonal = row[0];
    row[0] = i;
    for (let j = 1; j <= b.length; j++) {
      const above = row[j];
      row[j] = Math.min(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] === b[j - 1] ? 0 : 1));
      diagonal = above;
    }
  }
  return row[b.length];
}

/** `did you mean …?` for a misspelled name, or an empty text. */
export function suggestion(name, names) {
  const best = closest(name, names);
  return best === null ? "" : `; did you mean \`${best}\`?`;
}
