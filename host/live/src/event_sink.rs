//! Writes the messages of a session as server-sent events (the HTML standard, section 9.2).
//!
//! The body of an HTTP answer takes the bytes. It takes the next piece only when the connection has
//! room for it, so a session waits while its client is slow, as it does over a WebSocket.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::LiveConfig;
use crate::config::ms;
use crate::cursor::Cursor;
use crate::protocol::{Closing, ServerMessage};
use crate::transport::{Inbound, Outbound, SocketError, Transport};

/// The maximum size of a message that is copied into one piece. Larger messages are written in
/// several pieces, and their shared body is not copied.
const JOINED_BYTES_MAX: usize = 4 << 10;
/// The maximum size of a piece. A client must take one piece within `live.stall_ms`.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// The maximum size of an `id`, in bytes. The server limits the header of a request, in which the
/// client sends it back.
const CURSOR_BYTES_MAX: usize = 32 << 10;
/// A comment, which clients ignore.
const COMMENT: &[u8] = b":\n\n";

/// The sending side of an event stream.
pub(crate) struct EventSink {
    pieces: mpsc::Sender<Bytes>,
    stall: Duration,
    /// The states that the client shows.
    cursor: Cursor,
    /// The pause before a client connects again, until the client was told.
    retry: Option<Duration>,
    /// Whether writing a message was interrupted. No other message can be written after that.
    torn: bool,
}

impl EventSink {
    /// Creates the sink of a stream whose client shows the states in `cursor`, and which tells the
    /// client to wait for `retry` before it connects again.
    pub(crate) fn new(
        pieces: mpsc::Sender<Bytes>,
        (cursor, retry): (Cursor, Duration),
        config: &LiveConfig,
    ) -> Self {
        let (stall, retry) = (ms(config.stall_ms), Some(retry));
        Self { pieces, stall, cursor, retry, torn: false }
    }

    /// Tells the client why the stream ends. This takes at most `patience`.
    pub(crate) async fn close(&mut self, code: u16, why: &str, patience: Duration) {
        if self.torn {
            return;
        }
        let message = ServerMessage::Close(Closing { code, why: why.to_owned() }).text();
        // The stream ends whether this succeeds or not.
        let _ = timeout(patience, self.write(Outbound::text(&message))).await;
    }

    /// Writes the pieces, and waits until the connection has taken them.
    async fn write_pieces(
        &mut self,
        pieces: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), SocketError> {
        self.torn = true;
        for piece in pieces {
            self.in_time(self.pieces.send(piece)).await?;
        }
        self.torn = false;
        self.in_time(self.pieces.reserve()).await
    }

    /// Waits for `done` until the connection counts as stalled.
    async fn in_time<T, E>(
        &self,
        done: impl Future<Output = Result<T, E>>,
    ) -> Result<(), SocketError> {
        match timeout(self.stall, done).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(SocketError::Cut),
        }
    }
}

impl Transport for EventSink {
    const CLIENT_TALKS: bool = false;

    /// Waits until the client has disconnected.
    async fn read(&mut self) -> Result<Inbound, SocketError> {
        self.pieces.closed().await;
        Ok(Inbound::Close(None))
    }

    async fn write(&mut self, message: Outbound<'_>) -> Result<(), SocketError> {
        let Outbound { head, body, tail, reached } = message;
        let mut event = String::with_capacity(JOINED_BYTES_MAX.min(head.len() + body.len() + 256));
        if let Some(retry) = self.retry.take() {
            let _ = writeln!(event, "retry: {}", retry.as_millis());
        }
        let _ = writeln!(event, "event: {}", kind(head));
        if let Some((id, position)) = reached {
            self.cursor.insert(id, position);
            let id = self.cursor.encode();
            // Without an id, a client that connects again gets snapshots.
            let id = if id.len() <= CURSOR_BYTES_MAX { &*id } else { "" };
            let _ = writeln!(event, "id: {id}");
        }
        event.push_str("data: ");
        event.push_str(head);
        let mut end = tail.to_owned();
        end.push_str("\n\n");
        if event.len() + body.len() + end.len() <= JOINED_BYTES_MAX {
            let mut joined = event.into_bytes();
            joined.extend_from_slice(&body);
            joined.extend_from_slice(end.as_bytes());
            return self.write_pieces([joined.into()]).await;
        }
        let count = body.len().div_ceil(PIECE_BYTES_MAX);
        let body = (0..count).map(move |index| {
            let start = index * PIECE_BYTES_MAX;
            body.slice(start..body.len().min(start + PIECE_BYTES_MAX))
        });
        let pieces = [event.into()].into_iter().chain(body).chain([end.into()]);
        self.write_pieces(pieces).await
    }

    async fn ping(&mut self) -> Result<(), SocketError> {
        self.write_pieces([Bytes::from_static(COMMENT)]).await
    }

    // Each write waits until the connection has taken the bytes.
    async fn flush(&mut self) -> Result<(), SocketError> {
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.cursor.remove(id);
    }
}

/// Returns the member `t` of a message of the server, which is always the first member.
fn kind(message: &str) -> &str {
    let rest = message.strip_prefix("{\"t\":\"").unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cursor::Position;

    fn sink() -> (EventSink, mpsc::Receiver<Bytes>) {
        let (sender, pieces) = mpsc::channel(1);
        let start = (Cursor::default(), Duration::from_millis(1_500));
        (EventSink::new(sender, start, &LiveConfig::default()), pieces)
    }

    /// Returns the text that is written for a message with this body.
    async fn written(body: &str) -> (String, usize) {
        let (mut sink, mut pieces) = sink();
        let position = Position { epoch: Arc::from("e"), commit: 3, at: Arc::default(), query: 5 };
        let body = Bytes::copy_from_slice(body.as_bytes());
        let write = async move {
            let head = "{\"t\":\"snap\",\"rows\":";
            let message = Outbound { head, body, tail: "}", reached: Some((1, position)) };
            assert!(sink.write(message).await.is_ok());
        };
        let read = async {
            let (mut text, mut largest) = (String::new(), 0);
            while let Some(piece) = pieces.recv().await {
                largest = largest.max(piece.len());
                text.push_str(std::str::from_utf8(&piece).unwrap());
            }
            (text, largest)
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn events_of_every_size_arrive_whole_in_pieces_of_limited_size() {
        for size in [0, 1, 3_900, 4_096, 16_384, 16_385, 300_000] {
            let body = "x".repeat(size);
            let (text, largest) = written(&body).await;
            let lines: Vec<_> = text.split('\n').collect();
            let [retry, event, id, data, "", ""] = lines[..] else { panic!("{lines:?}") };
            assert_eq!((retry, event), ("retry: 1500", "event: snap"));
            assert_eq!(data, format!("data: {{\"t\":\"snap\",\"rows\":{body}}}"));
            let cursor = Cursor::decode(id.strip_prefix("id: ").unwrap()).unwrap();
            assert!(cursor.token(1).is_some());
            assert!(largest <= PIECE_BYTES_MAX, "{largest}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_until_its_piece_is_taken_and_fails_after_the_time_to_stall() {
        let (mut sink, mut pieces) = sink();
        {
            let mut ping = std::pin::pin!(sink.ping());
            assert!(timeout(Duration::from_secs(9), &mut ping).await.is_err());
            assert_eq!(pieces.recv().await.unwrap(), COMMENT);
            assert!(ping.await.is_ok());
        }
        assert!(sink.ping().await.is_err());
        // There is no room for another message.
        sink.close(4502, "too slow", Duration::from_secs(1)).await;
        drop(sink);
        assert_eq!(pieces.recv().await.unwrap(), COMMENT);
        assert_eq!(pieces.recv().await, None);
    }
}
