// Generated from docs/feed.schema.json by `npm run frames`; do not edit.

/** A message of a client. Its member `t` names its kind. */
export type ClientMessage =
  /** The first message, and sent only once. */
  | {
    t: "hello";
    /** Identifies the reader. Accepted, and without effect yet. */
    token?: string | null;
  }
  /** Subscribes to a table. */
  | Subscribe & {
    t: "sub";
  }
  /** Ends a subscription. */
  | {
    /** The subscription's `id`. */
    id: number;
    t: "unsub";
  }
  /** Replaces the token of `hello`. Accepted, and without effect yet. */
  | {
    t: "auth";
    /** The new token. */
    token?: string | null;
  }
  /** Acknowledges data frames. */
  | {
    /** How many data frames were received on this connection so far. */
    n: number;
    t: "ack";
  }
  /** The answer to `ping`. */
  | {
    t: "pong";
  };

/** The members of `close`. */
export interface Closing {
  /** The code that a WebSocket would be closed with; see [`super::close`]. */
  code: number;
  /** A sentence for people. */
  why: string;
}

/** The members of `delta`. */
export interface Delta {
  /** The channel. */
  ch: number;
  /** Keys that were deleted. */
  del: string[];
  /** The commit that the client has. */
  from: number;
  /** Whether several commits were merged; missing if not. Only in the last part. */
  merged?: boolean;
  /** Whether another part with the same `from` and `to` follows. Missing in the last part. */
  more?: boolean;
  /**
   * The next offset of each partition: the first offset that the rows do not contain. Only in
   * the last part.
   */
  offsets?: { [key: string]: number };
  /** The commit after the changes. */
  to: number;
  /** Only in the last part: the token to resume from. */
  tok?: string | null;
  /** Rows that were written, by key. */
  up: { [key: string]: { [key: string]: unknown } };
}

/** The members of `end`. */
export interface Ended {
  /** Only with `shape`: what differs from the shape for which the client was written. */
  changes?: ShapeChange[];
  /**
   * `shape` if the table no longer has the shape for which the client was written. The code of the
   * HTTP API if the query is the reason: `LAN-0426`, `LAN-0427` or `LAN-0428`.
   */
  code?: string | null;
  /** The subscription's `id`. */
  id: number;
  /** A sentence for people; `unsubscribed` after `unsub`. */
  why: string;
}

/** A field of a table's rows. */
export interface Field {
  /**
   * `integer`, `number`, `text`, `boolean`, `timestamp` or `json`, or a sketch:
   * `distinct` or `percentiles`.
   */
  kind: string;
  /** The JSON object's key. */
  name: string;
  /** A unit for people; empty if there is none. */
  unit?: string;
}

/** The limits of a connection. */
export interface FrameLimits {
  /** The maximum number of bytes of a frame to the client. */
  frame: number;
  /** The maximum number of subscriptions. */
  subs: number;
  /** The maximum number of data frames that are not acknowledged. */
  window: number;
}

/** How far a projection is behind its log. */
export interface Lag {
  /** Events in the log that the projection has not applied. */
  events: number;
  /** Milliseconds. */
  ms: number;
}

/** How changes are delivered. */
export type Mode =
  /** The newest state. If changes of one key come faster than they can be sent, they are merged. */
  | "state"
  /**
   * Every change separately. A reader that is too slow is disconnected. When it connects again,
   * it continues where it stopped.
   */
  | "changes";

/** The members of `err`. */
export interface Refused {
  /** Only with `shape`: what differs from the shape for which the client was written. */
  changes?: ShapeChange[];
  /**
   * A stable identifier: `no_such_table`, `not_active`, `unavailable`, `not_supported`,
   * `too_large`, `id_in_use`, `too_many_subs` or `shape`. It can also be a code of the HTTP API:
   * `LAN-0426`, `LAN-0427` or `LAN-0428`.
   */
  code: string;
  /** The subscription's `id`. */
  id: number;
  /** A sentence for people. */
  msg: string;
  /** The wrong member of `sub` or of its `rollup`. Only with `LAN-0426` and `shape`. */
  parameter?: string | null;
  /** Whether the same subscription can succeed later. */
  retry: boolean;
  /** Only with `LAN-0427`: the setting of the limit. */
  setting?: string | null;
}

/** The members of `reset`. */
export interface Reset {
  /** The channel. */
  ch: number;
  /** The table's fields, if they may have changed. */
  fields?: Field[] | null;
  /** The hash of the table's shape, as in `ok`, if `fields` is present. */
  shape?: string | null;
  /** Why the client cannot continue. */
  why: ResetReason;
}

/** Why a subscription starts again with a snapshot. */
export type ResetReason =
  /** The table has another epoch. */
  | "epoch"
  /** The token is of the same epoch and of another history. */
  | "history"
  /** The change log does not reach back to the token. */
  | "too_old"
  /** There were more changes than the server merges. */
  | "overflow"
  /** The token is of another table or release, or is not a token. */
  | "fields";

/** A roll-up: groups of rows, with aggregates of each group. */
export interface RollUp {
  /**
   * The aggregates of each group, by the names of their columns: `{"n": ["count"], "revenue":
   * ["sum", "cents"]}`.
   */
  agg?: { [key: string]: string[] };
  /** The length of the buckets: a number and `s`, `m`, `h`, `d`, `w`, `mo` or `y`. */
  bucket?: string | null;
  /** The fields by which rows are grouped. */
  by?: string[];
  /** Rows before this time. */
  end?: string | null;
  /** What buckets without rows contain: `zero`, `null` or `previous`. */
  fill?: string | null;
  /** Rows at or after this time. */
  start?: string | null;
  /**
   * The timestamp field to which `start`, `end` and `bucket` refer. If the table has only one
   * such field, this member may be left out.
   */
  time?: string | null;
  /** The time zone of buckets and of times without an offset. */
  tz?: string | null;
}

/**
 * A message of the server. Its member `t` names its kind. `snap`, `delta` and `tick`
 * are data frames, which a client acknowledges; all others are control frames.
 */
export type ServerMessage =
  /** The answer to `hello`. */
  | Welcome & {
    t: "welcome";
  }
  /** The subscription is open. */
  | Subscribed & {
    t: "ok";
  }
  /** Rows of the table; all parts together replace all rows that the client has. */
  | Snapshot & {
    t: "snap";
  }
  /** The changes of the table from one commit to another. */
  | Delta & {
    t: "delta";
  }
  /** Nothing changed in this table, but the commit moved or the subscription is idle. */
  | Tick & {
    t: "tick";
  }
  /** The client cannot continue from its rows: a `snap` follows. */
  | Reset & {
    t: "reset";
  }
  /** The server refused a subscription. */
  | Refused & {
    t: "err";
  }
  /** An open subscription has ended. */
  | Ended & {
    t: "end";
  }
  /** Asks for a `pong`. */
  | {
    t: "ping";
  }
  /** Only in an event stream: the server closes it. A WebSocket has a close frame for this. */
  | Closing & {
    t: "close";
  };

/** A difference between the shapes of two versions of a table. */
export interface ShapeChange {
  /** The same now; missing if the field is gone. */
  after?: string | null;
  /**
   * The field's kind before, with its unit in parentheses; missing if the field is new. For a
   * key its parts: `key`, or `tenant, key`.
   */
  before?: string | null;
  /** The field; missing if the parts of the key change. */
  field?: string | null;
}

/** The members of `snap`. */
export interface Snapshot {
  /** The channel. */
  ch: number;
  /** The commit of the rows; the same in all parts. */
  commit: number;
  /** Identifies one history of the table. Commits of different epochs cannot be compared. */
  epoch: string;
  /** Whether another part follows. */
  more: boolean;
  /**
   * The next offset of each partition: the first offset that the rows do not contain. Only in
   * the last part.
   */
  offsets?: { [key: string]: number };
  /** Rows by key. */
  rows: { [key: string]: { [key: string]: unknown } };
  /** Only in the last part: the token to resume from. */
  tok?: string | null;
}

/** A subscription to a table. */
export interface Subscribe {
  /** The fields in the rows, in this order; all if left out. */
  cols?: string[] | null;
  /** Chosen by the client, and not in use by another subscription of the connection. */
  id: number;
  /** Whether changes may be merged; `state` if left out. */
  mode?: Mode | null;
  /** The minimum time between two deltas, in milliseconds; 0 if left out. */
  rate_ms?: number | null;
  /** The last `tok` that the client received for this table. */
  resume?: string | null;
  /** Sends groups of rows in place of rows. */
  rollup?: RollUp | null;
  /**
   * The shape for which the client was written. If the table's shape is another one in what the
   * query uses, other than by additional fields, the server refuses or ends the subscription.
   */
  shape?: TableShape | null;
  /** `projection/table`; the active version is read. */
  table: string;
  /** Conditions that must all hold; only rows that fulfil them are sent. */
  where?: [string, string, unknown][];
}

/** The members of `ok`. */
export interface Subscribed {
  /** The channel of the subscription. The subscription's frames contain it in place of `id`. */
  ch: number;
  /** Only if resumed: the commit of the client's rows, which the next frame continues. */
  commit?: number | null;
  /** The fields of the rows, in order. */
  fields: Field[];
  /** The subscription's `id`. */
  id: number;
  /**
   * Whether the token was accepted. If so, the client keeps its rows; if not, a snapshot
   * follows.
   */
  resumed: boolean;
  /**
   * The hash of the table's shape: its fields with kinds and units, and whether keys begin with
   * a tenant. For a roll-up it is the shape of the table whose rows are grouped.
   */
  shape?: string | null;
}

/**
 * The shape of a table's rows and keys. A shape that a client sends contains what the client
 * relies on. `lantern types` writes it with all members.
 */
export interface TableShape {
  /** The kind of each field, by the field's name. */
  fields: { [key: string]: string };
  /**
   * The hash of the whole table's shape: 16 hexadecimal digits, as in `ok`. If it is that of
   * the table, the server does not compare the other members.
   */
  hash?: string | null;
  /** Whether keys begin with a tenant. Not compared if this is left out. */
  per_tenant?: boolean | null;
  /**
   * The unit of each field that has one, by the field's name. Units are not compared if this
   * is left out.
   */
  units?: { [key: string]: string } | null;
}

/** The members of `tick`. */
export interface Tick {
  /** The channel. */
  ch: number;
  /** The commit that the client has. */
  from: number;
  /** How far the projection is behind its log, if known. */
  lag?: Lag | null;
  /** The next offset of each partition: the first offset that the rows do not contain. */
  offsets?: { [key: string]: number };
  /** The newest commit; equal to `from` if it has not moved. */
  to: number;
  /** The token to resume from. */
  tok?: string | null;
}

/** The members of `welcome`. */
export interface Welcome {
  /**
   * How often the server sends `ping` and, on an idle subscription, `tick`, in
   * milliseconds.
   */
  heartbeat_ms: number;
  /** Limits that a client needs to know. */
  limits: FrameLimits;
}
