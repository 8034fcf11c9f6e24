// Projections for Lantern in JavaScript and TypeScript; README.md shows how to begin.

export { log } from "./call.js";
export { Distinct, DISTINCT_EXACT_MAX } from "./distinct.js";
export { ProjectionError } from "./errors.js";
export {
  bigint, boolean, distinct, integer, json, number, optional, percentiles, rawJson, text, timestamp,
  timestampText,
} from "./fields.js";
export { RawJson } from "./json.js";
export { inTenant, keyParts, narrow, padded } from "./keys.js";
export { parameters } from "./parameters.js";
export { Percentiles } from "./percentiles.js";
export { projection } from "./projection.js";
export { CACHE_ROWS, table } from "./table.js";
export {
  day, days, duration, floor, hour, hours, iso, isoDate, milliseconds, minute, minutes, parseTime, second, seconds,
} from "./time.js";
export { topN } from "./top.js";
export { hopping, openSessions, openWindows, recent, RECENT_EVENTS_MAX, tumbling } from "./windows.js";
export { TimeZone, timeZone, utc, zoneNames } from "./zone.js";
