//! Defines the types that all other crates share (events, chunks, batches, manifests, changes), and
//! the ports (traits) between the crates.
//!
//! This crate does no I/O and has no global state. It does not depend on a runtime, a
//! database or a WebAssembly engine.

mod blocking_read;
mod checkpoint;
mod chunk;
mod column;
mod commit;
mod deduplication;
pub mod dump;
mod error_cause;
mod event;
#[cfg(feature = "fake")]
pub mod fake;
mod field_value;
mod filter;
mod ids;
mod manifest;
mod members;
mod merge;
mod pair_buffer;
mod ports;
mod projection_key;
mod read_values;
mod records;
mod reserved_names;
mod rfc3339;
mod row_check;
mod row_fields;
mod row_shape;
mod row_source;
mod view;
mod writes;

pub use blocking_read::read_or_wait;
pub use checkpoint::{Checkpoint, ShardPoint, ShardProof, incarnation_of};
pub use chunk::{Chunk, Offsets};
pub use column::{Column, ColumnError};
pub use commit::{PublishedCommit, TableChanges};
pub use deduplication::{DeduplicationWindow, Identity, KnownEvent, identity};
pub use error_cause::ErrorCause;
pub use event::{Columns, DEPTH_EXTENSION, Event, EventRef, Events};
pub use field_value::FieldValue;
pub use filter::{
    Condition, FILTER_CONDITIONS_MAX, FILTER_VALUES_MAX, Filter, FilterError, Operator,
    UnknownField, field_named, similar,
};
pub use ids::{Cause, Offset, PartitionId, TableId, Timestamp};
pub use manifest::{
    Attributes, EventTime, FieldKind, FieldSpec, Manifest, ManifestError, Member, Merge, OnFailure,
    TableSpec, TypeFilter, split_key,
};
pub use members::{MemberColumn, MemberValues, decode_members};
pub use merge::merge_rows;
pub use pair_buffer::PairBuffer;
pub use ports::{
    AHEAD_MAX_US, AppendDone, Appended, AppendedEvent, ApplyError, ApplyOutcome, Batch, Catalog,
    Clock, CloseLog, CommitSink, CommittedOffsets, DeadLetter, DeadLetterName, DeadLetters,
    DeadLettersRead, Documents, Emitted, EventTraces, FoldCall, FoldOutcome, Heartbeats, Host,
    HostError, Instance, InstantiateError, KeyRange, Level, Log, LogError, LogMaintenance, LogRead,
    MaintenanceReport, NewEvent, Pairs, PartitionBounds, Plugin, Random, ReadStore, RejectedEvent,
    RetentionFloor, RollUp, RollUpError, RollUpRequest, RollUps, Row, SentFrame, ShardId,
    ShardStore, Space, StateStores, StoreError, Timer, TraceTime, TracedCommit, TracedEvent,
    TrapKind, TrimmedPartition, Waker, heartbeat,
};
pub use projection_key::projection_key;
pub use read_values::ReadValues;
pub use records::{
    AheadEvent, AheadEvents, Ceiling, DecisionRecord, EmitFrom, FoldDifference, OutboxEvent,
    ParkedKind, ParkedRecord, ProjectionRecord, SecondFolds, ShardMeta, VersionId, VersionRecord,
    VersionSource, VersionState,
};
pub use reserved_names::{
    EMITTED_SOURCE_PREFIX, HOST_EXTENSION_PREFIX, HOST_SOURCE, HOST_TYPE_PREFIX, emitted_id,
    has_emitted_form, is_host_source, is_host_type,
};
pub use rfc3339::{days_since_1970, parse_rfc3339};
pub use row_check::{RowError, check_row};
pub use row_fields::{FieldReader, FieldSpans, RowFields};
pub use row_shape::{FieldChoice, RequestError, RowShape};
pub use row_source::RowSource;
pub use view::{ChangesSince, Recovering, ShardChanges, View, ViewError, Views};
pub use writes::{ChangedPairs, PairSpan, SpaceWrites, Writes};

/// The event type of heartbeats, which are events that the host appends to an idle partition so
/// that event time advances. A projection reads heartbeats if its manifest has settings of event
/// time. No plugin receives them.
pub const HEARTBEAT_TYPE: &str = "lantern.heartbeat";

/// The event type of an unreadable record: a record of the log that is not an event. No plugin
/// receives it; instead, projections park it. If [`UNREADABLE_KIND`] names an event type, only
/// projections that subscribe to this type park it.
///
/// Its subject is unknown and therefore empty, so no other event has to wait for it. Its extension
/// attribute [`UNREADABLE_REASON`] contains the reason.
pub const UNREADABLE_TYPE: &str = "lantern.unreadable";
/// The extension attribute with the reason why a record is unreadable; see [`UNREADABLE_TYPE`].
pub const UNREADABLE_REASON: &str = "reason";
/// The extension attribute with the event type that an unreadable record claims to have, if this
/// type can be read. A projection that does not subscribe to this type does not park the record.
pub const UNREADABLE_KIND: &str = "kind";
