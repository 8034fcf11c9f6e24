// Errors of a projection, and their text in the reason of a parked event.

/** The number of functions in the stack of an error of the SDK, if the stack begins in the SDK. */
const STACK_FRAMES = 10;

// A variable of a module is faster than a global one.
const Base = Error;

/** The function of the SDK that the projection has called, if it is known. */
export const hidden = { below: null };

/**
 * A mistake in a declaration or a value: the message is for the author of a projection.
 *
 * QuickJS takes a third of the time of an event to write one line of a stack, and most events may
 * fail. So if the function of the SDK that the projection has called is known, the stack has only
 * the place of this call.
 */
export class ProjectionError extends Error {
  /**
   * @param {string} message
   * @param {Function | null} [below] the function of the SDK that the projection has called. The
   * stack is then only the place of this call. If null, there is no stack: no code of the
   * projection is running.
   */
  constructor(message, below) {
    const frames = Base.stackTraceLimit;
    Base.stackTraceLimit = 0;
    super(message);
    if (below !== null) {
      const called = below ?? hidden.below;
      Base.stackTraceLimit = called === null ? STACK_FRAMES : 1;
      Base.captureStackTrace(this, called ?? ProjectionError);
      hidden.below = null;
    }
    Base.stackTraceLimit = frames;
  }

  get name() {
    return "ProjectionError";
  }
}

/**
 * Whether an error is not caused by the event: memory or the stack ran out. In another call, the
 * same event may succeed.
 */
export function isFatal(error) {
  const kind = error?.constructor;
  // The usual kinds come first, because most events may fail.
  if (kind === ProjectionError || kind === Error || kind === TypeError) return false;
  return error instanceof Error && (error.name === "InternalError" || (error instanceof RangeError && error.message.includes("call stack")));
}

/** How much of a text a message shows. */
const TEXT_MAX = 64;
const SHOWN_MAX = 256;
// Most events may fail, and many of them with the same key or value.
const shown = new Map();

function showText(text) {
  // The long text itself is not kept, because the values of events could fill the memory.
  const short = text.length > TEXT_MAX ? text.slice(0, TEXT_MAX) + "…" : text;
  let json = shown.get(short);
  if (json === undefined) {
    json = JSON.stringify(short);
    if (shown.size >= SHOWN_MAX) shown.clear();
    shown.set(short, json);
  }
  return json;
}

/** A value as it appears in a message: short, and never throwing. */
export function show(value) {
  switch (typeof value) {
    case "string":
      return showText(value);
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

const CLOSEST_MAX = 256;
// Most events may fail by the same misspelled name.
const known = new Map();

/** The name among `names` that `name` is most likely a misspelling of. */
export function closest(name, names) {
  const kept = known.get(name);
  if (kept !== undefined && kept.names === names) return kept.best;
  const best = findClosest(name, names);
  // Long names may come from events, and would take all memory together.
  if (name.length > TEXT_MAX) return best;
  if (known.size >= CLOSEST_MAX) known.clear();
  known.set(name, { names, best });
  return best;
}

function findClosest(name, names) {
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
