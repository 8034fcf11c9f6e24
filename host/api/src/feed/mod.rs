//! Defines the messages of the feed, `GET /v1/feed`. Each message is one JSON object in each text
//! frame of a WebSocket, or in each event of an event stream (`GET /v1/feed/sse`). `docs/feed.md`
//! describes the protocol.

mod client;
pub mod close;
mod server;

pub use client::{BadSubscribe, ClientMessage, Condition, Mode, RollUp, Subscribe};
pub use server::{
    Closing, Delta, Ended, Field, FrameLimits, Lag, Refused, Reset, ResetReason, ServerMessage,
    Snapshot, Subscribed, Tick, Welcome,
};

/// The name of the WebSocket subprotocol of the feed.
pub const SUBPROTOCOL: &str = "lantern.v1.json";

/// The JSON Schema of all messages.
#[cfg(feature = "schema")]
#[must_use]
pub fn schema() -> serde_json::Value {
    use schemars::{JsonSchema, generate::SchemaSettings};

    /// A message of the feed, protocol `lantern.v1.json`.
    #[derive(JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum FeedMessage {
        /// Sent by a client.
        Client(ClientMessage),
        /// Sent by the server.
        Server(ServerMessage),
    }

    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<FeedMessage>().to_value()
}
