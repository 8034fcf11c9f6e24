// The client of Lantern's feed.
export { Client, connect, type RollUpOptions, type TableOptions } from "./client.js";
export type { Aggregate, Aggregates, Columns, Condition, FieldOf, Fill, Group, Query, RollUpQuery } from "./query.js";
export type { Table } from "./table.js";
export type { States, Together } from "./together.js";
export {
  type AnyTables,
  type Change,
  type Diagnostic,
  type Field,
  type Lag,
  LanternError,
  type Mode,
  type Offsets,
  type Options,
  type ResetReason,
  type Row,
  type Saved,
  type ShapeChange,
  type State,
  type Status,
  type TableShape,
  type TicketReason,
  type WebSocketLike,
} from "./types.js";
