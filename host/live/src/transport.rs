//! Defines what a session needs of its connection. A WebSocket ([`crate::socket`]) and an event
//! stream ([`crate::event_sink`]) provide it, so that one implementation of sessions serves both.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::cursor::Position;

/// The connection of a session.
pub(crate) trait Transport: Send {
    /// Whether the client sends messages. If it does not, a data frame counts as acknowledged as
    /// soon as the connection has accepted it, a ping needs no answer, and the session itself
    /// repeats a subscription that the server could not open yet.
    const CLIENT_TALKS: bool;

    /// Reads the next message. A caller may cancel this call at any time and read again.
    fn read(&mut self) -> impl Future<Output = Result<Inbound, SocketError>> + Send;

    /// Writes one message. A cancelled write leaves half a message, so a caller may cancel this
    /// call only to end the session.
    fn write(
        &mut self,
        message: Outbound<'_>,
    ) -> impl Future<Output = Result<(), SocketError>> + Send;

    /// Writes something that keeps the connection alive.
    fn ping(&mut self) -> impl Future<Output = Result<(), SocketError>> + Send;

    /// Writes all bytes that the transport has buffered.
    fn flush(&mut self) -> impl Future<Output = Result<(), SocketError>> + Send;

    /// Notes that the subscription `id` has ended.
    fn forget(&mut self, id: u64);
}

/// A message that was read from the client.
pub(crate) enum Inbound {
    Text(Utf8Bytes),
    Binary,
    /// A WebSocket ping or pong. The library answers a ping itself.
    Control,
    /// The client closes the connection. Contains the code, if the client sent one.
    Close(Option<u16>),
}

/// A message to the client. It is JSON text in three pieces, of which several sessions may share
/// the body.
pub(crate) struct Outbound<'a> {
    pub(crate) head: &'a str,
    pub(crate) body: Bytes,
    pub(crate) tail: &'a str,
    /// If the client shows another state after this message: the `id` of the subscription, and the
    /// state.
    pub(crate) reached: Option<(u64, Position)>,
}

impl<'a> Outbound<'a> {
    /// A message that changes no state of the client.
    pub(crate) fn text(head: &'a str) -> Self {
        Self { head, body: Bytes::new(), tail: "", reached: None }
    }
}

/// Why the connection can no longer be used.
pub(crate) enum SocketError {
    /// The connection broke, or the client no longer reads from it.
    Cut,
    /// A message of the client is larger than allowed.
    TooLarge,
    /// The client's bytes violate the WebSocket protocol.
    Bad(String),
    /// A text message or a close reason of the client is not UTF-8.
    NotUtf8,
}
