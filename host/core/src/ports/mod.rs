//! Defines the ports, which are traits for everything that the engine and the server need from a
//! log, a store, a plugin, a catalogue, a clock and a feed. A test can replace each of them.

mod committed_offsets;
mod dead_letters;
mod documents;
mod feed;
mod heartbeats;
mod log;
mod log_lifecycle;
mod plugin;
mod random;
mod roll_ups;
mod store;
mod traces;

pub use committed_offsets::CommittedOffsets;
pub use dead_letters::{DeadLetter, DeadLetterName, DeadLetters, DeadLettersRead};
pub use documents::Documents;
pub use feed::{Clock, CommitSink};
pub use heartbeats::{Heartbeats, heartbeat};
pub use log::{
    AHEAD_MAX_US, AppendDone, Appended, AppendedEvent, Emitted, Log, LogError, LogRead,
    PartitionBounds, RejectedEvent, Waker,
};
pub use log_lifecycle::{
    CloseLog, LogMaintenance, MaintenanceReport, RetentionFloor, TrimmedPartition,
};
pub use plugin::{
    ApplyError, ApplyOutcome, Batch, Host, HostError, Instance, InstantiateError, Level, NewEvent,
    Plugin, Row, Timer, TrapKind,
};
pub use random::Random;
pub use roll_ups::{RollUp, RollUpError, RollUpRequest, RollUps};
pub use store::{
    Catalog, KeyRange, Pairs, ReadStore, ShardId, ShardStore, Space, StateStores, StoreError,
};
pub use traces::{
    EventTraces, FoldCall, FoldOutcome, SentFrame, TraceTime, TracedCommit, TracedEvent,
};
