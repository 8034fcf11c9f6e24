//! The feed: tables pushed to readers over WebSocket as they change.
//!
//! The promise: every state a client shows is a committed state of the table;
//! commits never go back within an epoch; a client that was away catches up
//! without a gap and without a repeat, also across a restart of the server.
//!
//! How it keeps it, and what it costs:
//!
//! - A projection with subscribers has one *ring* of its last commits, for all its
//!   tables. A subscription is the number of a commit in that ring, so what a slow
//!   reader has not seen is merged when it is ready, not stored for it; a reader that
//!   falls out of the ring is served from the change log, or starts again.
//! - What a subscription selects is a *query*. Subscriptions with equal queries
//!   share a *topic*: the snapshot, the merged changes and the encoded bytes of each
//!   delta are made once, and a frame is a short header around the shared bytes.
//! - Engine threads push to the ring and wake one task. They never wait for a
//!   session, a socket or a read.
//! - With several partitions a row is merged of what each holds, so the ring
//!   holds merged rows, read from one view after commits, and every commit
//!   handed out is that of such a view.
//!
//! What the protocol leaves open and this crate settles:
//!
//! - *Data frames*, which count for `window` and `ack`, are `snap`, `delta`
//!   and `tick`.
//! - A delta larger than a frame goes in parts: all have the same `from` and
//!   `to`, all but the last `"more":true`, and they are applied at once.
//! - A `del` may name a key the reader never saw (put and deleted between two
//!   merged deltas).
//! - After `reset` a half-received snapshot or delta is dropped. A `reset`
//!   that comes with a new version carries the table's `fields` when they are
//!   known already.
//! - `unsub` is answered by `end`. Unknown fields of `sub` are refused with
//!   `err`, code `not_supported`.
//! - Where one table of a projection moves, other subscriptions of the session
//!   on the same projection get a `tick` to the same commit.
//! - A subscription without a token may begin with a snapshot that was made for
//!   others, and changes that lead on from it. It is never older than what the
//!   same session has shown of the table; a client that shows more from an
//!   earlier connection holds the snapshot back until changes have brought it
//!   there.
//! - Anything a client sends proves it alive, not only `pong`.
//!
//! Only this crate names the WebSocket library. It does no HTTP: the server
//! upgrades the connection ([`accept_key`], [`SUBPROTOCOL`]) and hands it to
//! [`Hub::serve`].

mod advance;
mod config;
mod delta;
mod encode;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod hub;
mod projection_feed;
mod protocol;
mod query;
mod resources;
mod resume;
mod ring;
mod schedule;
mod session;
mod session_end;
mod session_signal;
mod snapshot_reader;
mod socket;
mod subscribe_error;
mod subscription;
mod table_info;
mod table_scan;
mod token;
mod topic;

pub use config::{LiveConfig, LiveConfigError};
pub use hub::Hub;
pub use lantern_api::feed::Lag;
pub use protocol::{SUBPROTOCOL, accept_key, close};
pub use resources::LagSource;
pub use session_end::SessionEnd;
