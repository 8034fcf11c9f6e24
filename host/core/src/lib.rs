//! The words every other crate speaks: events, chunks, batches, manifests,
//! positions and changes, and the ports (traits) between the crates.
//!
//! This crate does no I/O, names no runtime, no database and no WebAssembly
//! engine, and keeps no global state.

mod change;
mod chunk;
mod column;
pub mod dump;
mod event;
#[cfg(feature = "fake")]
pub mod fake;
mod found;
mod ids;
mod manifest;
mod merge;
mod ports;
mod records;
mod view;
mod waiting;
mod window;
mod writes;

pub use change::{Committed, TableChanges};
pub use chunk::{Chunk, Offsets};
pub use column::{Column, ColumnError};
pub use event::{Columns, Event, EventRef, Events};
pub use found::FoundValues;
pub use ids::{Offset, PartitionId, TableId, Timestamp};
pub use manifest::{
    Attributes, EventTime, Field, FieldKind, Manifest, ManifestError, Merge, OnFailure, Table,
    TypeFilter,
};
pub use merge::merge_rows;
pub use ports::{
    AHEAD_MAX_US, AppendDone, Appended, AppendedEvent, Applied, ApplyError, Batch, Bounds, Catalog,
    Clock, Emitted, Host, HostError, Instance, InstantiateError, KeyRange, Level, Log, LogError,
    NewEvent, Pairs, Plugin, Publish, Read, ReadStore, Row, ShardId, ShardStore, Space,
    StateStores, StoreError, Timer, TrapKind, Waker,
};
pub use records::{
    AheadEvent, AheadEvents, DecisionRecord, EmitFrom, ParkedKind, ParkedRecord, ProjectionRecord,
    ShardMeta, VersionId, VersionRecord, VersionState,
};
pub use view::{ChangesSince, View, ViewError, Views};
pub use waiting::read_or_wait;
pub use window::{Identity, Window, identity_of};
pub use writes::{ChangedPairs, PairPlace, SpaceWrites, Writes};

/// The event type of heartbeats: events the host itself appends to an idle log
/// so that event time goes on. Every projection with event time sees them, none
/// is handed them.
pub const HEARTBEAT_TYPE: &str = "lantern.heartbeat";

/// The event type under which a log hands out a record that is no event. Every
/// projection has it parked, since nobody knows whom it concerns; none is handed
/// it. Why it is none stands in its extension attribute [`UNREADABLE_REASON`].
pub const UNREADABLE_TYPE: &str = "lantern.unreadable";
/// See [`UNREADABLE_TYPE`].
pub const UNREADABLE_REASON: &str = "reason";
