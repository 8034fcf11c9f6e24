//! Answers that are written while the log is folded: lines of NDJSON with the progress, and at last
//! the result.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::cloudevents::NDJSON;
use crate::jobs::replay::Replay;

/// The time between two lines with the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The maximum number of lines that wait for a slow client. If there are more, the fold waits too.
const LINES_MAX: usize = 16;

/// Sends the lines of an answer.
pub(super) struct Lines<L> {
    sender: mpsc::Sender<Bytes>,
    /// When the last line with the progress was sent.
    shown: Option<Instant>,
    line: PhantomData<L>,
}

impl<L: Serialize> Lines<L> {
    /// Sends a line. If the client has gone, the line is dropped, and `Replay` ends the fold.
    pub(super) fn send(&self, line: &L) {
        let mut bytes = serde_json::to_vec(line).expect("texts and numbers always encode");
        bytes.push(b'\n');
        drop(self.sender.blocking_send(bytes.into()));
    }

    /// Sends a line with the progress, unless the last one was sent a moment ago.
    pub(super) fn progress(&mut self, line: impl FnOnce() -> L) {
        if self.shown.is_none_or(|shown| shown.elapsed() >= PROGRESS_EVERY) {
            self.shown = Some(Instant::now());
            self.send(&line());
        }
    }
}

/// Runs `work`, and returns an answer with the lines that it sends. `work` must send its errors in
/// its last line.
pub(super) fn stream_lines<L: Serialize + Send + 'static>(
    replay: Replay,
    guard: DropGuard,
    work: impl FnOnce(Replay, Lines<L>) + Send + 'static,
) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(LINES_MAX);
    let lines = Lines { sender, shown: None, line: PhantomData };
    let folding = replay.run(move |replay| {
        work(replay, lines);
        Ok(())
    });
    // The fold ends when the guard is dropped with the body.
    drop(tokio::spawn(folding));
    let body = stream::unfold((receiver, guard), |(mut receiver, guard)| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), (receiver, guard)))
    });
    ([(CONTENT_TYPE, NDJSON)], Body::from_stream(body)).into_response()
}
