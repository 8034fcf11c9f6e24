//! The loop that keeps every projection's tables: read, gather, apply, overlay,
//! commit, publish; with parking, timers and versions.
//!
//! Knows the world only through the ports of `lantern-core`: it touches no
//! clock, randomness, file or socket, so that a test can run it whole, with
//! every port faked, through crashes and disorder under one seed.

mod activation;
mod apply;
mod blocked;
mod call;
mod check;
mod commit;
mod config;
mod cycles;
mod due_watch;
mod emit_check;
mod engine;
mod error;
mod gather;
mod layers;
mod lifecycle;
mod log_check;
mod log_time;
mod outbox;
mod parked;
mod parked_summary;
mod parking;
mod pool;
mod quota;
mod rebuild;
mod registry;
mod report;
mod runner;
mod scheduler;
mod second_fold;
mod shard;
mod slot;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod ticks;
mod timed_keys;
mod turn;
mod upkeep;
mod verify;
mod write_buffer;

#[doc(hidden)]
pub use outbox::fuzzing;

pub use activation::{Activation, AppliesLess};
pub use check::{EventList, FoldOptions, FoldProgress, Folded, determinism, fold, fold_again};
pub use config::EngineConfig;
pub use engine::{Engine, PluginError, PluginSource, Ports};
pub use error::{EngineError, Nondeterminism};
pub use lifecycle::{Upload, version_id, version_id_of};
pub use parked_summary::{ParkedReason, ParkedSummary};
pub use status::{
    AheadStatus, FieldStatus, LogLine, ParkedOutcome, ParkedPage, ParkedSelection, ParkedStatus,
    ProjectionStatus, ShardStatus, TableStatus, Uploaded, VersionStatus,
};
pub use verify::{
    FieldDifference, Verdict, Verification, VerifiedShard, VerifiedTable, VerifyDifference,
    VerifyStatus,
};
