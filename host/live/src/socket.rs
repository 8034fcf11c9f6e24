//! Implements a WebSocket connection. The WebSocket library reads messages, and handles control
//! frames and the close. Data frames are written in pieces without the library. So the bytes that
//! all subscribers share are not copied for each subscriber, and no session needs a write buffer of
//! the size of its largest frame.

use std::io::{self, IoSlice};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::LiveConfig;
use crate::config::ms;
use crate::protocol::ServerMessage;
use crate::transport::{Inbound, Outbound, SocketError, Transport};

/// The maximum size of a frame that is copied into one buffer and written at once. Larger frames
/// are written in pieces.
const JOINED_BYTES_MAX: usize = 4 << 10;

/// The WebSocket connection of a session.
pub(crate) struct Socket<I> {
    ws: WebSocketStream<I>,
    stall: Duration,
    /// Whether writing a frame was interrupted. No other frame can be written after that.
    torn: bool,
}

impl From<Error> for SocketError {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLarge,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => {
                Self::Cut
            }
            Error::Protocol(_) => Self::Bad(error.to_string()),
            Error::Utf8(_) => Self::NotUtf8,
            _ => Self::Cut,
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Socket<I> {
    /// Creates a socket from a connection that is already upgraded to WebSocket.
    pub(crate) async fn new(io: I, config: &LiveConfig) -> Self {
        let ws = WebSocketConfig::default()
            .read_buffer_size(config.read_buffer_bytes)
            .write_buffer_size(config.write_buffer_bytes)
            // The library uses this buffer only for control frames.
            .max_write_buffer_size(config.write_buffer_bytes + (4 << 10))
            .max_message_size(Some(config.message_bytes_max))
            .max_frame_size(Some(config.message_bytes_max));
        let ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(ws)).await;
        Self { ws, stall: ms(config.stall_ms), torn: false }
    }

    /// Writes one text frame that consists of `pieces`. It does not read messages while it writes.
    /// A client's messages are small and fit into the connection's buffers, and a client that
    /// accepts no bytes for `stall_ms` is disconnected. A cancelled write leaves half a frame, so a
    /// caller may cancel this call only to end the session.
    async fn write_text(&mut self, pieces: [&[u8]; 3]) -> Result<(), SocketError> {
        // The library may have bytes that it has not written yet, such as a pong. Without this
        // call, they could be written into the middle of the frame.
        self.flush_frames().await?;
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let (header, header_bytes) = text_header(bytes);
        let header = &header[..header_bytes];
        if bytes <= JOINED_BYTES_MAX {
            let mut frame = Vec::with_capacity(header.len() + bytes);
            frame.extend_from_slice(header);
            pieces.iter().for_each(|piece| frame.extend_from_slice(piece));
            return self.write_all(&mut [IoSlice::new(&frame)]).await;
        }
        let [head, body, tail] = pieces.map(IoSlice::new);
        self.write_all(&mut [IoSlice::new(header), head, body, tail]).await
    }

    async fn write_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> Result<(), SocketError> {
        self.torn = true;
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let write = self.ws.get_mut().write_vectored(slices);
            let written = timeout(self.stall, write).await.map_err(|_| SocketError::Cut)??;
            if written == 0 {
                return Err(SocketError::Cut);
            }
            IoSlice::advance_slices(&mut slices, written);
        }
        self.torn = false;
        Ok(())
    }

    /// Writes all bytes that the library has buffered.
    async fn flush_frames(&mut self) -> Result<(), SocketError> {
        Ok(timeout(self.stall, self.ws.flush()).await.map_err(|_| SocketError::Cut)??)
    }

    /// Sends a close frame, and waits for the close frame of the client for at most `patience`.
    pub(crate) async fn close(&mut self, code: u16, why: &str, patience: Duration) {
        // A close frame has room for 125 bytes, including the code.
        let why = &why[..why.floor_char_boundary(120)];
        let frame = CloseFrame { code: code.into(), reason: why.into() };
        let goodbye = async {
            if !self.torn && self.ws.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.ws.next().await {}
            }
            let _ = self.ws.get_mut().shutdown().await;
        };
        // The session ends whether this succeeds or not.
        let _ = timeout(patience, goodbye).await;
    }

    /// Answers the client's close frame. This takes at most `patience`.
    pub(crate) async fn closed(&mut self, patience: Duration) {
        let goodbye = async {
            let _ = self.ws.flush().await;
            let _ = self.ws.get_mut().shutdown().await;
        };
        let _ = timeout(patience, goodbye).await;
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Transport for Socket<I> {
    const CLIENT_TALKS: bool = true;

    async fn read(&mut self) -> Result<Inbound, SocketError> {
        match self.ws.next().await {
            Some(Ok(Message::Text(text))) => Ok(Inbound::Text(text)),
            Some(Ok(Message::Binary(_))) => Ok(Inbound::Binary),
            Some(Ok(Message::Close(frame))) => {
                Ok(Inbound::Close(frame.map(|frame| frame.code.into())))
            }
            Some(Ok(_)) => Ok(Inbound::Control),
            Some(Err(error)) => Err(error.into()),
            None => Err(SocketError::Cut),
        }
    }

    async fn write(&mut self, message: Outbound<'_>) -> Result<(), SocketError> {
        let Outbound { head, body, tail, .. } = message;
        self.write_text([head.as_bytes(), &body, tail.as_bytes()]).await
    }

    async fn ping(&mut self) -> Result<(), SocketError> {
        self.write_text([ServerMessage::Ping.text().as_bytes(), b"", b""]).await
    }

    async fn flush(&mut self) -> Result<(), SocketError> {
        self.flush_frames().await
    }

    // The client keeps the tokens of its subscriptions itself.
    fn forget(&mut self, _: u64) {}
}

/// Returns the header of an unfragmented, unmasked text frame (RFC 6455, section 5.2), and its size
/// in bytes.
fn text_header(bytes: usize) -> ([u8; 10], usize) {
    const WHOLE_TEXT: u8 = 0x81;
    let mut header = [0; 10];
    header[0] = WHOLE_TEXT;
    let used = if let Ok(bytes @ 0..=125) = u8::try_from(bytes) {
        header[1] = bytes;
        2
    } else if let Ok(bytes) = u16::try_from(bytes) {
        header[1] = 126;
        header[2..4].copy_from_slice(&bytes.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..10].copy_from_slice(&(bytes as u64).to_be_bytes());
        10
    };
    (header, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_of_every_size_class_arrive_whole_through_a_narrow_pipe() {
        let (near, far) = tokio::io::duplex(777);
        let config = LiveConfig::default();
        let mut socket = Socket::new(near, &config).await;
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let sizes = [0, 1, 125, 126, 4_096, 4_097, 65_535, 65_536, 300_000];
        let write = async {
            for size in sizes {
                let body = "x".repeat(size);
                let pieces = [&b""[..], body.as_bytes(), &b""[..]];
                assert!(socket.write_text(pieces).await.is_ok());
            }
        };
        let read = async {
            for size in sizes {
                let Some(Ok(Message::Text(text))) = client.next().await else { panic!("no text") };
                assert_eq!(text.len(), size);
            }
        };
        tokio::join!(write, read);
    }
}
