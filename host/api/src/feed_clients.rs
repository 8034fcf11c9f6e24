//! The clients that are connected to the feed.

use serde::{Deserialize, Serialize};

/// The open sessions of the feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedClients {
    /// How many sessions are open.
    pub open: usize,
    /// The sessions, at most `limit`. Those with the most bytes waiting come first.
    pub clients: Vec<FeedClient>,
}

/// A client that is connected to the feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedClient {
    /// The number of the session. It is unique since the start of the server.
    pub id: u64,
    /// The address and port of the client or, if there is a proxy in front of the server, of the
    /// proxy; `null` if unknown.
    pub address: Option<String>,
    /// How the client receives the feed.
    #[serde(default)]
    pub transport: FeedTransport,
    /// How long the session has been open, in milliseconds.
    pub open_ms: u64,
    /// The subscriptions of the session.
    pub subscriptions: Vec<FeedSubscription>,
    /// How many data frames the client has not acknowledged. At `live.window` frames the server
    /// stops sending, and merges further changes. For an event stream: 1 while the connection has no
    /// room for the next frame.
    pub frames_waiting: u64,
    /// The size of these frames in bytes.
    pub bytes_waiting: u64,
    /// How long the oldest of these frames has waited, in milliseconds; 0 if there is none.
    pub waiting_ms: u64,
}

/// How a client receives the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FeedTransport {
    /// Over a WebSocket.
    #[default]
    #[serde(rename = "websocket")]
    WebSocket,
    /// As an event stream (server-sent events).
    #[serde(rename = "sse")]
    EventStream,
}

/// A subscription of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedSubscription {
    /// The number that the client has chosen.
    pub id: u64,
    /// `PROJECTION/TABLE`.
    pub table: String,
    /// The newest commit that was sent; `null` before the end of the first snapshot.
    pub commit: Option<u64>,
    /// How many commits the projection has made after `commit`; `null` if that is unknown.
    pub commits_behind: Option<u64>,
}
