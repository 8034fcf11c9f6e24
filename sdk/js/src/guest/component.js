// The two functions that the component exports.

import logging from "lantern:projection/logging@0.2.0";
import outbox from "lantern:projection/outbox@0.2.0";
import rejections from "lantern:projection/rejections@0.2.0";
import tables from "lantern:projection/tables@0.2.0";
import timers from "lantern:projection/timers@0.2.0";

import { log } from "../call.js";
import { Projection, setReason, takeProjection } from "../projection.js";
import { installSandbox } from "./sandbox.js";

/**
 * The number of functions in the stack of an exception while events are applied. QuickJS takes a
 * third of the time of an event for each function.
 */
const STACK_FRAMES = 4;

const host = {
  get: tables.get,
  getMany: tables.getMany,
  putMany: tables.putMany,
  deleteMany: tables.deleteMany,
  scan: tables.scan,
  setTimer: timers.set,
  cancelTimer: timers.cancel,
  emit: outbox.emit,
  reject: rejections.reject,
  log: logging.log,
};

/** Removes clocks, randomness and the like before a projection's code runs. */
export const prepare = () => installSandbox(globalThis, log);

/** The projection of a module's exports. */
export function projectionOf(exports) {
  const defined = takeProjection();
  const projection = exports.default instanceof Projection ? exports.default : defined;
  if (projection === null) {
    throw new Error("no projection is defined: add `export default projection({ name: \"…\", subscribes: [\"…\"], apply(event) { … } })`");
  }
  return projection;
}

/**
 * The component's `projector`.
 * @param {() => Projection} find returns the projection
 * @param {(error: unknown) => string} tell describes an error to the host
 * @param {(error: unknown) => string} tellSetup describes an error of \`setup\`
 */
export function projector(find, tell, tellSetup = tell) {
  setReason(tell);
  const current = { projection: null, host };
  return {
    setup(parameters) {
      try {
        current.projection ??= find();
        const manifest = current.projection.setup(host, parameters);
        Error.stackTraceLimit = STACK_FRAMES;
        return manifest;
      } catch (error) {
        throw tellSetup(error);
      }
    },
    apply: Projection.applier(current, (failure) =>
      typeof failure?.message === "string" && "cause" in failure && !(failure instanceof Error)
        ? { cause: failure.cause, message: failure.message }
        : { cause: null, message: tell(failure) },
    ),
  };
}
