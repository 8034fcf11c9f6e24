//! The engine maintains the tables of every projection. It reads events, gathers them in batches,
//! applies the batches, collects the changes, commits them and publishes the commits. It also
//! handles parked events, timers and versions.
//!
//! This crate reaches the outside only through the ports of `lantern-core`: it uses no
//! clock, randomness, file or socket of its own. So a test can replace every port by a fake
//! and run the whole engine through crashes and reordering under one seed.

mod activation;
mod aligned_views;
mod apply;
mod batching;
mod blocked_subjects;
mod call;
mod change_set;
mod commit;
mod config;
mod determinism_check;
mod due_watch;
mod emit_cycles;
mod emit_limits;
mod emit_quota;
mod engine;
mod error;
mod event_changes;
mod event_list;
mod event_lookup;
mod event_path;
mod event_traces;
mod explain;
mod key_index;
mod layered_read;
mod lifecycle;
mod log_check;
mod log_time;
mod maintenance;
mod outbox;
mod outbox_writer;
mod parked_actions;
mod parked_events;
mod parked_summary;
mod ports;
mod rebuild;
mod reference_fold;
mod registry;
mod rejections;
mod row_change;
mod row_watch;
mod run_queues;
mod runner;
mod sample_check;
mod sample_fold;
mod scheduler;
mod second_fold;
mod shard;
mod shard_handle;
mod state;
mod status;
mod status_queries;
mod stop_reason;
mod sync_policy;
#[cfg(test)]
mod tests;
mod ticks;
mod timed_keys;
mod turn;
mod upload_check;
mod verify;
mod write_buffer;

#[doc(hidden)]
pub use outbox::fuzzing;

pub use activation::Activation;
pub use config::EngineConfig;
pub use determinism_check::{
    FoldOptions, FoldProgress, FoldResult, determinism, fold, fold_again, sample,
};
pub use engine::Engine;
pub use error::{ActivationRefused, EngineError, Nondeterminism};
pub use event_changes::{ChangedRows, EventChanges, EventChangesRequest};
pub use event_list::{EventList, SampleRange};
pub use event_path::{EventOutcome, EventPath, EventStep};
pub use explain::{
    CommittedRow, ExplainPace, ExplainProgress, ExplainRequest, ExplainedEvent, ExplainedRow,
    ExplainedShard, Explanation,
};
pub use lifecycle::{Upload, version_id};
pub use parked_summary::{ParkedReason, ParkedSummary};
pub use ports::{PluginError, PluginSource, Ports};
pub use row_change::{ChangeCause, ChangeLogLine, RowChange};
pub use sample_check::sample_warnings;
pub use sample_fold::{SampleFold, fold_sample, newest_events};
pub use status::{
    AheadStatus, FieldStatus, LogLine, ParkedOutcome, ParkedPage, ParkedSelection, ParkedStatus,
    ProjectionStatus, ShardStatus, SourceStatus, TableStatus, Uploaded, VersionStatus,
};
pub use upload_check::VersionPlugin;
pub use verify::{
    FieldDifference, Verdict, Verification, VerifiedShard, VerifiedTable, VerifyDifference,
    VerifyStatus,
};
