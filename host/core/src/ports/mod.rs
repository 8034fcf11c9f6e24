//! The ports: what the engine needs of a log, a store, a plugin, a catalogue, a
//! clock and a feed, as traits that a test can fake whole.

mod feed;
mod log;
mod plugin;
mod random;
mod store;

pub use feed::{Clock, CommitSink};
pub use log::{
    AHEAD_MAX_US, AppendDone, Appended, AppendedEvent, Emitted, Log, LogError, LogRead,
    PartitionBounds, RejectedEvent, Waker,
};
pub use plugin::{
    ApplyError, ApplyOutcome, Batch, Host, HostError, Instance, InstantiateError, Level, NewEvent,
    Plugin, Row, Timer, TrapKind,
};
pub use random::Random;
pub use store::{
    Catalog, KeyRange, Pairs, ReadStore, ShardId, ShardStore, Space, StateStores, StoreError,
};
