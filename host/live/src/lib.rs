//! The feed: sends the changes of tables to readers over WebSocket.
//!
//! Guarantees: Every state that a client shows is a committed state of the table. Within
//! an epoch a client never shows an older commit after a newer one. A client that was
//! disconnected catches up without a gap and without a repetition, also after a restart of
//! the server.
//!
//! How it works, and what it costs:
//!
//! - A projection with subscribers has one *ring* of its newest commits, for all its
//!   tables. A subscription only stores the number of a commit. The commits that a slow
//!   reader has not received are merged when it can receive them, and are not stored for
//!   it. If the ring no longer has them, the reader continues from the change log, or
//!   gets a new snapshot.
//! - A *query* is what a subscription selects. Subscriptions with equal queries share a
//!   *topic*: the snapshot, the merged changes and the encoded deltas are created once. A
//!   frame is a short header with these shared bytes.
//! - Engine threads add commits to the ring and wake one task. They never wait for a
//!   session, a socket or a read.
//! - With several partitions a row is merged from the rows of all partitions. So the ring
//!   contains merged rows, which are read from one view after commits. Clients get only the
//!   commits at which such a view was read.
//!
//! Details that the protocol leaves open:
//!
//! - *Data frames*, which count towards `window` and `ack`, are `snap`, `delta` and
//!   `tick`.
//! - A delta that is larger than a frame is sent in parts. All parts have the same `from`
//!   and `to`, and all but the last have `"more":true`. The client applies them together.
//! - `del` can name a key that the reader never got, because one delta can merge the
//!   commits in which the row was written and deleted.
//! - After `reset` the client discards an incomplete snapshot or delta. If a new version
//!   is the cause, `reset` contains the table's `fields`, if they are known already.
//! - The answer to `unsub` is `end`. Unknown fields of `sub` are refused with `err` and
//!   the code `not_supported`.
//! - If one table of a projection moves to a commit, the session's other subscriptions to
//!   this projection get a `tick` to the same commit.
//! - A subscription without a token can begin with a snapshot that was created for other
//!   subscribers, followed by the changes after it. The snapshot is never older than the
//!   state of the table that this session has shown. If a client still shows a newer
//!   state from an earlier connection, it must not show the snapshot until changes have
//!   brought it to that state.
//! - Every message of a client proves that it is alive, not only `pong`.
//!
//! Of the host's crates only this one uses the WebSocket library. It contains no HTTP: the
//! server upgrades the connection ([`accept_key`], [`SUBPROTOCOL`]) and passes it to
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
mod selected_commits;
mod session;
mod session_end;
mod session_signal;
mod shape;
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
