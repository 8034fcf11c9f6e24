//! Answers with the result of a fold of the log: as JSON, or as lines of NDJSON that are written
//! during the fold.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::params::AnswerFormat;
use crate::cloudevents::NDJSON;
use crate::jobs::replay::Replay;
use crate::problem::Problem;

/// The time between two lines with the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The maximum number of lines that wait for a slow client. If there are more, the fold waits too.
const LINES_MAX: usize = 16;

/// The lines of an answer whose result is a `T`. They come in the order of the fields.
pub(super) struct ReplayLines<L, T> {
    /// The lines that can be sent before the fold.
    pub(super) first: Vec<L>,
    /// Creates a line with the progress: the number of folded events, and how much of the work is
    /// done, 0 to 100.
    pub(super) progress: fn(u64, f64) -> L,
    /// Creates the last line.
    pub(super) result: fn(T) -> L,
    /// Creates the last line if there is no result.
    pub(super) problem: fn(lantern_api::Problem) -> L,
}

/// Runs `work`, which folds the log, and answers with its result, in JSON or as `lines`. `work`
/// calls the function that it gets with the progress. The fold ends when `guard` is dropped.
pub(super) async fn answer<L, T>(
    format: AnswerFormat,
    (replay, guard): (Replay, DropGuard),
    lines: ReplayLines<L, T>,
    work: impl FnOnce(Replay, &mut dyn FnMut(u64, f64)) -> Result<T, Problem> + Send + 'static,
) -> Result<Response, Problem>
where
    L: Serialize + Send + 'static,
    T: Serialize + Send + 'static,
{
    if format != AnswerFormat::Ndjson {
        let result = replay.run(move |replay| work(replay, &mut |_, _| ())).await;
        drop(guard);
        return Ok(axum::Json(result?).into_response());
    }
    let (sender, receiver) = mpsc::channel::<Bytes>(LINES_MAX);
    let folding = replay.run(move |replay| {
        for line in &lines.first {
            send(&sender, line);
        }
        // When the last line with the progress was sent.
        let mut shown: Option<Instant> = None;
        let result = work(replay, &mut |events, percent| {
            if shown.is_none_or(|shown| shown.elapsed() >= PROGRESS_EVERY) {
                shown = Some(Instant::now());
                send(&sender, &(lines.progress)(events, percent));
            }
        });
        let last = match result {
            Ok(result) => (lines.result)(result),
            Err(problem) => (lines.problem)((*problem).clone()),
        };
        send(&sender, &last);
        Ok(())
    });
    // The fold ends when the guard is dropped with the body.
    drop(tokio::spawn(folding));
    let body = stream::unfold((receiver, guard), |(mut receiver, guard)| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), (receiver, guard)))
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(body)).into_response())
}

/// Sends a line. If the client has gone, the line is dropped, and `Replay` ends the fold.
fn send<L: Serialize>(lines: &mpsc::Sender<Bytes>, line: &L) {
    let mut bytes = serde_json::to_vec(line).expect("texts and numbers always encode");
    bytes.push(b'\n');
    drop(lines.blocking_send(bytes.into()));
}
