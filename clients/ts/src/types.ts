import type { Field, Lag, Mode, Refused, ResetReason, ShapeChange, TableShape } from "./frames.js";

/** For each partition of the log the next offset, which the rows do not contain yet. */
export type Offsets = { readonly [partition: string]: number };

/** A row whose type is not known. */
export type Row = { readonly [field: string]: unknown };

/** The tables of a server by name. `lantern types` writes such an interface. */
export type AnyTables = { [table: string]: Row };

/**
 * How current a table's rows are.
 *
 * - `idle`: nothing subscribes to the table.
 * - `connecting`: there are no rows yet.
 * - `live`: the rows are those of the server's newest commit, as far as the client knows.
 * - `stale`: the rows are those of an earlier commit; the client is connecting, or receives
 *   what is missing.
 * - `closed`: no more changes will come. `error` has the reason.
 */
export type Status = "idle" | "connecting" | "live" | "stale" | "closed";

/**
 * One committed state of a table. It never changes; every change of the table creates another
 * state.
 */
export interface State<R> {
  readonly status: Status;
  /** The rows by key, in no particular order. */
  readonly rows: ReadonlyMap<string, Readonly<R>>;
  /** Identifies one history of the table; commits of different epochs cannot be compared. */
  readonly epoch: string | null;
  /** The commit of the rows; `null` before the first snapshot. */
  readonly commit: number | null;
  readonly offsets: Offsets;
  /** How far the projection was behind its log, if the server knew. */
  readonly lag: Lag | null;
  /** Why the table is closed, or why the server refuses it for now. */
  readonly error: LanternError | null;
}

/** A change of a table, which the table already contains. */
export type Change<R> =
  /** `rows` replaced all rows. */
  | {
      readonly type: "snapshot";
      readonly epoch: string;
      readonly commit: number;
      readonly offsets: Offsets;
      readonly rows: ReadonlyMap<string, Readonly<R>>;
      /** How many changes a slow reader of `changes()` has missed; the rows contain them. */
      readonly missed: number;
    }
  /** Rows were written (`up`) and deleted (`del`) from one commit to another. */
  | {
      readonly type: "delta";
      readonly from: number;
      readonly to: number;
      readonly offsets: Offsets;
      readonly up: ReadonlyMap<string, Readonly<R>>;
      readonly del: readonly string[];
      /** Whether the changes of several commits were merged. */
      readonly merged: boolean;
    }
  /** No row changed up to this commit. */
  | { readonly type: "tick"; readonly commit: number; readonly offsets: Offsets; readonly lag: Lag | null }
  /**
   * The subscription continues after a lost connection. The rows are the same, and `commit` is the
   * number that the server now has for their commit.
   */
  | { readonly type: "resumed"; readonly commit: number }
  /** The server cannot continue from these rows: a snapshot follows. */
  | { readonly type: "reset"; readonly why: ResetReason }
  | { readonly type: "status"; readonly status: Status; readonly error: LanternError | null };

/** The state of a subscription to continue later, also in another process. */
export interface Saved<R> {
  readonly token: string;
  /** Identifies table, `where`, `cols` and roll-up; missing if all rows of the table are selected. */
  readonly selection?: string;
  readonly epoch: string;
  readonly commit: number;
  readonly offsets: Offsets;
  readonly rows: ReadonlyMap<string, Readonly<R>>;
}

/**
 * The part of `WebSocket` that this client needs. The `WebSocket` of browsers, of Node 22 and of
 * the package `ws` have it.
 */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

/** Something that happened to the connection, for logs. */
export interface Diagnostic {
  readonly what: "open" | "lost" | "retry" | "wake" | "resume" | "reset" | "gap";
  readonly table?: string;
  /** The code with which the connection was closed. */
  readonly code?: number;
  /** The pause before the next attempt, in milliseconds. */
  readonly waitMs?: number;
  readonly message?: string;
}

/**
 * The reason why a ticket is needed: for the first connection, after a lost one, or because the
 * server refused the last ticket.
 */
export type TicketReason = "first" | "lost" | "refused";

/** The options of a client. Durations are in milliseconds. */
export interface Options {
  /** Returns a ticket that identifies the reader. It is awaited before every connect; `null` connects without one. */
  ticket?: (why: TicketReason) => string | null | Promise<string | null>;
  /** The class of sockets; by default the global `WebSocket`. Node 20 has none: pass the one of the package `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  /** How long a table stays subscribed after its last reader has gone; 5,000 by default. */
  idleMs?: number;
  /** How long connecting may take, from the ticket to the server's `welcome`; 10,000 by default. */
  connectMs?: number;
  /**
   * The longest pause before the first try to reconnect. It doubles with every failure; 250 by
   * default.
   */
  backoffMinMs?: number;
  /** The longest pause before any try to reconnect; 30,000 by default. */
  backoffMaxMs?: number;
  /** When the server shuts down, its clients reconnect at random times within this period; 2,000 by default. */
  shutdownSpreadMs?: number;
  /**
   * The shapes of the tables for which the program was written, by `projection/table`.
   * `lantern types` writes them. If a version of a projection removes or changes a field that a
   * table uses, this table is closed with the error `shape`. Fields that are added have no effect.
   */
  shapes?: { readonly [table: string]: TableShape };
  /** How many changes are kept for a slow reader of `changes()`; 1,024 by default. */
  changesMax?: number;
  /** Is called with what happens to the connection. */
  onDiagnostic?: (event: Diagnostic) => void;
}

/** Why there are no more changes, or none for now. */
export class LanternError extends Error {
  override name = "LanternError";
  /**
   * The code of the error:
   *
   * - The code of the server for a refused table (`no_such_table`, `not_active`, …) or query
   *   (`LAN-0426`, `LAN-0427`, `LAN-0428`). A query is also refused if a new version of the
   *   projection lacks a field of the query.
   * - `shape`: the table does not have, or no longer has, the shape that the program was written
   *   for. `changes` names the fields.
   * - `ended`: the server ended the subscription for another reason.
   * - `refused`: the server closed the connection with a final code.
   * - `closed`: the program called `close()`.
   * - `no_websocket`: there is no class of sockets.
   */
  readonly code: string;
  /** Whether the client tries again by itself. */
  readonly retry: boolean;
  /** With `LAN-0426`, if the server refused the query: its wrong member, such as `where`. */
  readonly parameter: string | null;
  /** With `LAN-0427`, if the server refused the query: the setting of the limit. */
  readonly setting: string | null;
  /** With `shape`: what differs from the option `shapes`; otherwise empty. */
  readonly changes: readonly ShapeChange[];
  constructor(code: string, message: string, { retry = false, parameter, setting, changes = [] }: Partial<Pick<Refused, "retry" | "parameter" | "setting" | "changes">> = {}) {
    super(message);
    this.code = code;
    this.retry = retry;
    this.parameter = parameter ?? null;
    this.setting = setting ?? null;
    this.changes = changes;
  }
}

export type { Field, Lag, Mode, ResetReason, ShapeChange, TableShape };
