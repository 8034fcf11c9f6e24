// Replaces what a projection cannot use: clocks, randomness, timers of the engine, the network,
// files. Each use raises an error that names an alternative.

const refusals = {
  fetch: "a projection has no network: all it knows are its events and tables",
  XMLHttpRequest: "a projection has no network: all it knows are its events and tables",
  WebSocket: "a projection has no network: all it knows are its events and tables",
  require: "a projection has no `require`: write `import { … } from \"lantern-sdk\"`",
  importScripts: "a projection cannot load other scripts",
  setTimeout: "a projection has no `setTimeout`: use event time and `event.setTimer(at, key)`",
  setInterval: "a projection has no `setInterval`: use event time and `event.setTimer(at, key)`",
  setImmediate: "a projection has no `setImmediate`: use event time and `event.setTimer(at, key)`",
  clearTimeout: "a projection has no `clearTimeout`: use `event.cancelTimer(key)`",
  clearInterval: "a projection has no `clearInterval`: use `event.cancelTimer(key)`",
  queueMicrotask: "a projection has no event loop: nothing runs after `apply`",
  Worker: "a projection has no threads",
  SharedArrayBuffer: "a projection has no threads",
  WeakRef: "`WeakRef` is not available: what it returns depends on the garbage collector",
  FinalizationRegistry: "`FinalizationRegistry` is not available: when it calls depends on the garbage collector",
};

const NO_CLOCK = "a projection has no clock: use `event.time`, or `timer.at`";
const NO_RANDOM = "a projection has no randomness: the same events must give the same tables";

const absent = {
  process: "a projection has no `process`: no environment, no files; take parameters with `parameters({ … })`",
  Deno: "a projection has no files and no network",
  Bun: "a projection has no files and no network",
  window: "a projection runs in the server and not in a browser",
  document: "a projection runs in the server and not in a browser",
  localStorage: "keep all state in tables",
  crypto: NO_RANDOM,
  Intl: "`Intl` is not available: for time zones use `timeZone(\"Europe/Berlin\")`",
  Buffer: "`Buffer` is not available: use `Uint8Array`",
  TextEncoder: "`TextEncoder` is not available in a projection",
  TextDecoder: "`TextDecoder` is not available in a projection",
  module: "a projection is an ES module: write `export default projection({ … })`",
  exports: "a projection is an ES module: write `export default projection({ … })`",
};

/** Returns what to use instead of a name that is not defined, or an empty text. */
export const hintFor = (name) => absent[name] ?? "";

class NotAvailableError extends Error {
  get name() {
    return "NotAvailableError";
  }
}

function refuse(why) {
  return function () {
    throw new NotAvailableError(why);
  };
}

/** `Date` without a clock: `new Date(ms)` and `Date.parse` work. */
function dateWithoutClock(RealDate) {
  function Date(...args) {
    if (new.target === undefined || args.length === 0) throw new NotAvailableError(NO_CLOCK);
    return Reflect.construct(RealDate, args, new.target);
  }
  Object.defineProperty(Date, "prototype", { value: RealDate.prototype, writable: false });
  RealDate.prototype.constructor = Date;
  Date.UTC = RealDate.UTC;
  Date.parse = RealDate.parse;
  Date.now = refuse(NO_CLOCK);
  return Date;
}

/**
 * Replaces what a projection cannot use.
 * @param {typeof globalThis} global
 * @param {object} log the SDK's log, to which `console` writes
 */
export function installSandbox(global, log) {
  const define = (name, value) => Object.defineProperty(global, name, { value, writable: true, configurable: true, enumerable: false });
  for (const [name, why] of Object.entries(refusals)) define(name, refuse(why));
  define("Date", dateWithoutClock(global.Date));
  Math.random = refuse(NO_RANDOM);
  define("performance", { now: refuse(NO_CLOCK), mark: refuse(NO_CLOCK), measure: refuse(NO_CLOCK), timeOrigin: 0 });
  define("console", {
    log: log.info, info: log.info, warn: log.warn, error: log.error, debug: log.debug, trace: log.trace,
    assert: (holds, ...values) => {
      if (!holds) log.error("assertion failed", ...values);
    },
    table: log.info, dir: log.info, group: log.info, groupEnd: () => {},
    time: refuse(NO_CLOCK), timeEnd: refuse(NO_CLOCK), timeLog: refuse(NO_CLOCK),
  });
}
