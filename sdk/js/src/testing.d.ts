/**
 * A host in memory for tests: a test feeds it events and checks the tables. Tests need neither Wasm
 * nor a server.
 *
 * @packageDocumentation
 */
import type { Projection, Timestamp } from "./index.js";

/** An event for tests; create it with {@link event} or {@link readNdjson}. */
export interface TestEvent {
  readonly type: string;
  readonly time: Timestamp;
  readonly subject: string;
  readonly tenant: string;
  readonly data: string;
}

/** Attributes of an event; `time` is RFC 3339 text or microseconds since 1970. */
export interface TestAttributes {
  time?: string | Timestamp;
  id?: string;
  source?: string;
  subject?: string;
  tenant?: string;
  dataschema?: string;
  datacontenttype?: string;
  extensions?: Record<string, unknown>;
}

/** An event. `data` is any JSON; a string is taken as the payload's text. */
export function event(type: string, data?: unknown, attributes?: TestAttributes): TestEvent;

/** The events in a text of CloudEvents, one JSON object per line. */
export function readNdjson(text: string): TestEvent[];

/** An event that the projection has emitted. */
export interface Emitted {
  /** The offset of the event that caused it. */
  cause: number;
  type: string;
  subject: string;
  tenant: string;
  time: Timestamp;
  data: any;
}

/** An event that could not be applied, or that waits behind such an event. */
export interface Parked {
  offset: number;
  event: TestEvent;
  reason: string;
}

/** The complete result of a projection, without logs. */
export interface Outcome {
  tables: Record<string, Record<string, string>>;
  timers: Record<string, Timestamp>;
  emitted: Emitted[];
  parked: { offset: number; reason: string }[];
}

/** Options of a {@link Harness}. */
export interface HarnessOptions {
  parameters?: object | null;
  /** The maximum number of events in a batch; 1,000 by default. */
  batchSize?: number;
  /** Whether every call gets a fresh instance, as the host may do. */
  dropInstances?: boolean;
}

/** A projection and its host in memory. */
export class Harness {
  /**
   * @param projection a projection, or the file with its source. With a file, dropped instances are
   * really replaced by fresh ones
   */
  constructor(projection: Projection | string | { readonly href: string }, options?: HarnessOptions);
  readonly manifest: any;
  readonly watermark: Timestamp;
  readonly timerFailures: string[];
  readonly halted: string | null;
  /** How many calls of the host the projection has made. */
  readonly hostCalls: number;
  /** Appends events to the log and folds them. */
  feed(events: Iterable<TestEvent>): this;
  /** Folds a text of CloudEvents, one JSON object per line. */
  feedNdjson(text: string): this;
  /** Advances event time without an event. */
  advanceTo(time: string | Timestamp): this;
  /** The rows of a table by key, parsed as JSON. */
  rows(table: string): Record<string, any>;
  /** A row, parsed as JSON, or null. */
  row(table: string, key: string): any;
  /** The rows of a table as the text that is stored, ordered by key. */
  rawRows(table: string): Map<string, string>;
  /** The due times of the timers by key. */
  timers(): Record<string, Timestamp>;
  emitted(): Emitted[];
  logs(): { level: string; message: string }[];
  parked(): Parked[];
  outcome(): Outcome;
}

/** Folds events in several ways and returns the outcome. Throws if the results differ. */
export function checkDeterminism(
  projection: Projection | string | { readonly href: string },
  events: Iterable<TestEvent>,
  options?: { parameters?: object | null },
): Outcome;

export { iso, parseTime } from "./index.js";
