// Describes exceptions for people: file and line of the projection's own source, the message, the
// source line, and the stack.

import { ProjectionError, show } from "../errors.js";
import { hintFor } from "./sandbox.js";

const FRAMES_MAX = 10;
const SOURCE_LINE_MAX = 120;
const PLACES_MAX = 256;

/**
 * Tells exceptions of the files in `sources`.
 * @param {(file: string) => string | null} nameOf the name of a file in a stack, or null if it is not the projection's
 * @param {(name: string) => string | null} textOf the source of a file, or null if it is not known
 */
export function teller(nameOf, textOf) {
  const framesOf = (stack) => {
    const frames = [];
    for (const line of String(stack ?? "").split("\n")) {
      // QuickJS names the text that JSON.parse reads like code from `eval`.
      if (/^\s*at parse \(native\)/.test(line)) frames.length = 0;
      const found = /^\s*at (?:(.*?) \()?(.*?):(\d+):(\d+)\)?$/.exec(line);
      const name = found === null ? null : nameOf(found[2]);
      if (name !== null) frames.push({ in: found[1] ?? "", name, line: Number(found[3]), column: Number(found[4]) });
    }
    return frames;
  };

  const quote = ({ name, line }) => {
    const source = textOf(name)?.split("\n")[line - 1]?.trim();
    return source ? `\n    ${line} | ${source.length > SOURCE_LINE_MAX ? `${source.slice(0, SOURCE_LINE_MAX)}…` : source}` : "";
  };

  /** The parts that a stack adds to a message, before and after the message. */
  const placeOf = (stack) => {
    const frames = framesOf(stack);
    if (frames.length === 0) return { before: "", after: "" };
    const [first] = frames;
    let after = quote(first);
    if (frames.length > 1) {
      for (const frame of frames.slice(0, FRAMES_MAX)) {
        after += `\n    at ${frame.in === "" || frame.in === "<anonymous>" ? "" : `${frame.in} `}(${frame.name}:${frame.line}:${frame.column})`;
      }
    }
    return { before: `${first.name}:${first.line}:${first.column}: `, after };
  };

  // Reading a stack takes far longer than applying an event. Most errors are thrown at the same few
  // places, so known places are kept.
  const places = new Map();
  let last = { stack: "", place: placeOf("") };
  const knownPlaceOf = (stack) => {
    let place = places.get(stack);
    if (place === undefined) {
      place = placeOf(stack);
      if (places.size >= PLACES_MAX) places.clear();
      places.set(stack, place);
    }
    last = { stack, place };
    return place;
  };

  const hints = new Map();
  const hintOf = (message) => {
    let hint = hints.get(message);
    if (hint === undefined) {
      const unknown = /^'?([\w$]+)'? is not defined$/.exec(message);
      hint = unknown === null ? "" : hintFor(unknown[1]);
      if (hint !== "") hint = `; ${hint}`;
      if (hints.size >= PLACES_MAX) hints.clear();
      hints.set(message, hint);
    }
    return hint;
  };

  return (error) => {
    // Most events may fail, and most of these with an error of the SDK. A lookup of a member that
    // an error does not have takes longer.
    if (error?.constructor === ProjectionError) {
      const { stack } = error;
      const { before, after } = stack === last.stack ? last.place : knownPlaceOf(stack);
      return before + error.message + after;
    }
    if (!(error instanceof Error)) return `threw ${show(error)}: throw an \`Error\`, so that its place is known`;
    if (error.file !== undefined) {
      const place = [error.file, error.line ?? 1, error.column].filter((part) => part !== null && part !== undefined).join(":");
      return `${place}: ${error.name}: ${error.message}${quote({ name: error.file, line: error.line ?? 1 })}`;
    }
    const { stack } = error;
    // To compare two texts takes less time than to look one up.
    const { before, after } = stack === last.stack ? last.place : knownPlaceOf(stack);
    const { message } = error;
    if (error instanceof ProjectionError) return before + message + after;
    const { name } = error;
    let text = name === "NotAvailableError" ? message : name + ": " + message;
    if (name === "ReferenceError") text += hintOf(message);
    return before + text + after;
  };
}
