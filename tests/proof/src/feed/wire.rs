//! Implements a client's end of a simulated connection. It implements WebSocket (RFC 6455) itself,
//! so that a case can split, delay and cut bytes anywhere.

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use lantern_live::SessionEnd;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

/// Something that the client received from the server.
pub(super) enum ServerMessage {
    /// The server sent a message.
    Message(Value),
    /// The server closed the connection, with this code.
    Closed(u16),
    /// The connection broke.
    Cut,
}

/// How the client reads and writes, and when its connection breaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// The maximum number of bytes that are read or written at once.
    pub(super) piece: usize,
    /// One in this many reads is delayed; 0 means none.
    pub(super) pause_one_in: u32,
    /// The longest delay of a read, in milliseconds.
    pub(super) pause_ms: u64,
    /// The connection breaks after this many bytes from the server.
    pub(super) cut_after_read: usize,
    /// The connection breaks after this many bytes to the server.
    pub(super) cut_after_written: usize,
}

/// A client's end of a simulated connection.
pub(super) struct Wire {
    pipe: DuplexStream,
    inbox: Vec<u8>,
    line: Line,
    rng: Rng,
    /// The size of the longest message that the client accepts.
    frame_max: usize,
    /// The task that runs the server's end of the connection.
    pub(super) session: JoinHandle<SessionEnd>,
}

impl Wire {
    pub(super) fn new(
        pipe: DuplexStream,
        session: JoinHandle<SessionEnd>,
        line: Line,
        frame_max: usize,
        rng: Rng,
    ) -> Self {
        Self { pipe, inbox: Vec::new(), line, rng, frame_max, session }
    }

    /// Stops delaying and cutting bytes on this connection.
    pub(super) fn heal(&mut self) {
        self.line = Line {
            piece: 1 << 16,
            pause_one_in: 0,
            pause_ms: 0,
            cut_after_read: usize::MAX,
            cut_after_written: usize::MAX,
        };
    }

    /// Sends a message, in pieces. Returns `false` if the connection broke, perhaps in the
    /// middle of the message.
    pub(super) async fn say(&mut self, message: &Value) -> bool {
        let frame = text_frame(message.to_string().as_bytes(), self.rng.u32(..).to_be_bytes());
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let most = rest.len().min(self.line.piece).min(self.line.cut_after_written);
            if most == 0 {
                return false;
            }
            let piece = &rest[..self.rng.usize(1..=most)];
            if self.pipe.write_all(piece).await.is_err() {
                return false;
            }
            self.line.cut_after_written -= piece.len();
            rest = &rest[piece.len()..];
            if self.rng.u8(..4) == 0 {
                tokio::task::yield_now().await;
            }
        }
        true
    }

    /// Waits for the next message. Also returns when the connection ended, and how.
    pub(super) async fn hear(&mut self) -> Result<ServerMessage> {
        let mut piece = [0; 1 << 12];
        loop {
            if let Some((kind, payload)) = self.take()? {
                match kind {
                    0x1 => return Ok(ServerMessage::Message(serde_json::from_slice(&payload)?)),
                    0x8 => {
                        ensure!(payload.len() >= 2, "a close without a code");
                        return Ok(ServerMessage::Closed(u16::from_be_bytes([
                            payload[0], payload[1],
                        ])));
                    }
                    _ => bail!("a frame of kind {kind}, which was not asked for"),
                }
            }
            if self.line.pause_one_in > 0 && self.rng.u32(..self.line.pause_one_in) == 0 {
                sleep(Duration::from_millis(self.rng.u64(..=self.line.pause_ms))).await;
            }
            let most = piece.len().min(self.line.piece).min(self.line.cut_after_read);
            if most == 0 {
                return Ok(ServerMessage::Cut);
            }
            let wanted = self.rng.usize(1..=most);
            match self.pipe.read(&mut piece[..wanted]).await {
                Ok(0) | Err(_) => return Ok(ServerMessage::Cut),
                Ok(read) => {
                    self.line.cut_after_read -= read;
                    self.inbox.extend_from_slice(&piece[..read]);
                }
            }
        }
    }

    /// Removes the first complete frame from the bytes that were received.
    fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let [first, second, ..] = self.inbox[..] else { return Ok(None) };
        ensure!(first & 0xf0 == 0x80, "a frame begins with {first:#x}");
        ensure!(second & 0x80 == 0, "the server masks a frame");
        let more = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(extended) = self.inbox.get(2..2 + more) else { return Ok(None) };
        let length = match more {
            0 => usize::from(second),
            _ => extended.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        ensure!(length <= self.frame_max, "a frame of {length} bytes, over the limit");
        let whole = 2 + more + length;
        if self.inbox.len() < whole {
            return Ok(None);
        }
        let payload = self.inbox[2 + more..whole].to_vec();
        self.inbox.drain(..whole);
        Ok(Some((first & 0xf, payload)))
    }
}

/// Encodes a text frame whose content is masked with `mask`.
pub(crate) fn text_frame(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
