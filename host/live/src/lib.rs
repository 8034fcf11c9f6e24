//! Implements the feed, which sends the changes of tables to readers over WebSocket, or as an event
//! stream (server-sent events).
//!
//! Guarantees: Every state that a client shows is a committed state of the table. Within
//! an epoch a client never shows an older commit after a newer one. A client that was
//! disconnected catches up without a gap and without a repetition, also after a restart of
//! the server.
//!
//! The feed works as follows:
//!
//! - A projection with subscribers has one *ring* of its newest commits, for all its tables. A
//!   subscription stores only the number of the commit that its reader has. When a slow reader can
//!   receive more, the commits that it has not received are merged; no copy of them is stored for
//!   this reader. If the ring no longer has these commits, the reader continues from the change
//!   log, or gets a new snapshot.
//! - A *query* determines which rows a subscription gets. Subscriptions with equal queries share a
//!   *topic*: the snapshot, the merged changes and the encoded deltas are created once for all of
//!   them. A frame consists of a short header and these shared bytes.
//! - Engine threads add commits to the ring and wake one task of the projection. They never wait
//!   for a session, a socket or a read.
//! - If a projection has several partitions, a row is merged from the rows of all partitions. After
//!   commits, the merged rows are read from a view and added to the ring. Clients get only the
//!   commits at which a view was read.
//! - The groups of a roll-up are computed once for all subscribers. A task of the projection
//!   brings all its roll-ups from one committed state to the next (`roll_up_task.rs`), so that
//!   neither the engine nor a session waits for them.
//!
//! Where the protocol leaves a choice, this crate does the following:
//!
//! - *Data frames*, which count towards `window` and `ack`, are `snap`, `delta` and
//!   `tick`.
//! - A delta that is larger than a frame is sent in parts. All parts have the same `from`
//!   and `to`, and all but the last have `"more":true`. The client applies them together.
//! - `del` can name a key that the reader never got, because one delta can merge the
//!   commits in which the row was written and deleted.
//! - A client may send the shape of the table that it was written for. Each read compares this shape
//!   with the table of the version that it reads (`client_shape.rs`).
//! - After `reset` the client discards an incomplete snapshot or delta. If the reason is a new
//!   version, `reset` contains the table's `fields`, if they are known already.
//! - The answer to `unsub` is `end`. Unknown fields of `sub` are refused with `err` and
//!   the code `not_supported`.
//! - If one table of a projection moves to a commit, the session's other subscriptions to
//!   this projection get a `tick` to the same commit.
//! - A subscription without a token can begin with a snapshot that was created for other
//!   subscribers, followed by the changes after it. The snapshot is never older than the
//!   state of the table that this session has shown. If a client still shows a newer
//!   state from an earlier connection, it must not show the snapshot until changes have
//!   brought it to that state.
//! - Every message of a client counts as an answer to a ping, not only `pong`.
//!
//! - A client of an event stream sends nothing. A frame counts as acknowledged when the connection
//!   has taken it, and a subscription that cannot be opened yet is tried again by the session.
//!
//! Of the host's crates only this one uses the WebSocket library. It contains no HTTP: the
//! server upgrades the connection ([`accept_key`], [`SUBPROTOCOL`]) and passes it to
//! [`Hub::serve`], or answers with the stream of [`Hub::stream`].

mod advance;
mod client_shape;
mod committed_state;
mod config;
mod cursor;
mod delta;
mod encode;
mod event_sink;
mod event_stream;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod hub;
mod open_sessions;
mod projection_feed;
mod protocol;
mod query;
mod resources;
mod resume;
mod ring;
mod roll_up_start;
mod roll_up_task;
mod schedule;
mod selected_commits;
mod session;
mod session_end;
mod session_signal;
mod shape;
mod shared_roll_up;
mod snapshot;
mod snapshot_reader;
mod socket;
mod stream_request;
mod subscribe_error;
mod subscription;
mod subscription_opening;
mod table_info;
mod table_scan;
mod token;
mod topic;
mod transport;
mod web_socket;

pub use config::{LiveConfig, LiveConfigError};
pub use event_stream::EventStream;
pub use hub::Hub;
pub use lantern_api::feed::{Lag, Refused};
pub use open_sessions::{SessionStatus, SubscriptionStatus};
pub use protocol::{SUBPROTOCOL, accept_key, close};
pub use resources::LagSource;
pub use session_end::SessionEnd;
pub use stream_request::{StreamRefusal, StreamRequest};
