//! Defines the wire types of Lantern: the bodies of the HTTP API and the messages of the feed.
//!
//! Server, command line and Rust client share these definitions. The OpenAPI document and the JSON
//! Schema of the feed are generated from them. Clients use this crate too, so it depends on no
//! other crate of the host. The crate does not check whether a request is valid; the server does.
//!
//! With the feature `openapi` the crate derives OpenAPI schemas, and with the feature `schema` JSON
//! Schemas of the feed.

mod boards;
mod diff;
mod dry_run;
mod event_path;
mod events;
mod explain;
pub mod feed;
mod feed_clients;
mod json;
mod named_queries;
mod object;
mod parked;
mod projections;
mod query;
mod server;
mod settings;
mod shape;
mod tables;
mod verify;

pub use boards::{BoardList, BoardSummary};
pub use diff::{FieldChange, RowDifference, TableDiff};
pub use dry_run::{DryFold, DryRun, DryRunLine, DryTable, SampleRange};
pub use event_path::{
    ChangedRow, EventChanges, EventChangesLine, EventOutcome, EventPath, EventStep,
};
pub use events::{
    AppendResult, AppendedLocation, EventRejection, EventsPage, LoggedEvent, OffsetRange,
};
pub use explain::{
    ChangeCause, ChangeEvent, ChangeLog, ChangeTimer, CommittedRow, ExplainLine,
    ExplainedPartition, Explanation, RowChange,
};
pub use feed_clients::{FeedClient, FeedClients, FeedSubscription, FeedTransport};
pub use json::RawJson;
pub use named_queries::{NamedQueries, NamedQuery, ParameterKind, QueryDefinition, QueryParameter};
pub use parked::{
    ParkedOutcome, ParkedPage, ParkedReason, ParkedSelection, ParkedStatus, ParkedSummary,
    ResendResult,
};
pub use projections::{
    ActivateBody, AheadStatus, CheckResult, FieldStatus, LogLine, Logs, ProjectionStatus,
    Projections, ShardStatus, SourceStatus, TableStatus, Uploaded, VersionStatus,
};
pub use query::{Aggregates, QueryBody, QueryPage};
pub use server::{ErrorCode, PartitionStatus, Problem, Ready, ServerStatus};
pub use settings::{ServerSettings, Setting};
pub use shape::{ShapeChange, TableShape};
pub use tables::{PageField, TablePage};
pub use verify::{
    FieldDifference, Verdict, VerifiedShard, VerifiedTable, VerifyDifference, VerifyStatus,
};
