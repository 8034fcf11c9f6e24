//! `GET /v1/tables/{projection}/{table}/explain`: what has changed a row.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lantern_api::{ExplainLine, Explanation};
use lantern_core::{VersionId, ViewError, Views as _};
use lantern_engine::{CommittedRow, ExplainProgress, ExplainRequest};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use utoipa::IntoParams;

use super::params::{AnswerFormat, Names, Params, answer_format, limit};
use super::{App, Shared};
use crate::cloudevents::NDJSON;
use crate::jobs::replay::Replay;
use crate::problem::Problem;
use crate::wire;

/// The number of changes in an answer if `limit` is not given.
const LIMIT_DEFAULT: usize = 20;
/// The time between two lines with the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The maximum number of lines that wait for a slow client. If there are more, the fold waits too.
const LINES_MAX: usize = 16;

/// Which row to explain.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainQuery {
    /// The row's key. In a table by tenant, the tenant, U+0000 and the key.
    key: String,
    /// The maximum number of changes, the newest ones; 20 if left out.
    limit: Option<usize>,
    /// The version; the active one if left out.
    version: Option<String>,
}

/// Lists the events, timers and ends of retention that have changed a row.
///
/// The log is folded again in a separate state; the tables are only read. This fold may take long.
/// The settings in section `replay` limit the fold, and it ends if the client disconnects. If a
/// limit is reached, or if retention has deleted the beginning of the log, the answer has
/// `complete: false` and the reason.
///
/// Answers JSON. With `Accept: application/x-ndjson` the answer is a stream of lines: first the
/// newest commits that changed the row, then the progress, and at last the explanation.
#[utoipa::path(
    get, path = "/v1/tables/{projection}/{table}/explain", tag = "tables",
    params(("projection" = String, Path), ("table" = String, Path), ExplainQuery),
    responses(
        (status = 200, body = Explanation),
        (status = 404, body = Problem, description = "no such projection, version or table"),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn explain(
    State(app): State<Shared>,
    Names((projection, table)): Names<(String, String)>,
    Params(query): Params<ExplainQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ExplainQuery { key, limit: changes, version } = query;
    let changes_max = limit(changes, LIMIT_DEFAULT, app.config.http.query_rows_max)?;
    let version = version.map(VersionId);
    let bytes_max = app.config.http.query_bytes_max;
    let (replay, guard) = Replay::begin(&app)?;
    let request = ExplainRequest { projection, version, table, key, changes_max, bytes_max };
    let prepared = app.read(move |app| prepare(app, request)).await?;
    match answer_format(&headers, &[AnswerFormat::Json, AnswerFormat::Ndjson]) {
        AnswerFormat::Ndjson => Ok(stream_lines(prepared, replay, guard)),
        _ => {
            let explained = replay.run(move |replay| prepared.run(replay, &mut |_| ())).await;
            drop(guard);
            Ok(axum::Json(explained?).into_response())
        }
    }
}

/// An explanation that can begin.
struct Prepared {
    explanation: lantern_engine::Explanation,
    commits: Vec<CommittedRow>,
}

fn prepare(app: &App, request: ExplainRequest) -> Result<Prepared, Problem> {
    if request.version.is_none()
        && let Some(recovering) = app.engine.recovering(&request.projection)
    {
        return Err(ViewError::from(recovering).into());
    }
    let commits_max = request.changes_max;
    let explanation = app.engine.explain(request)?;
    let commits = explanation.commits(commits_max)?;
    Ok(Prepared { explanation, commits })
}

impl Prepared {
    fn run(
        self,
        mut replay: Replay,
        progress: &mut dyn FnMut(&ExplainProgress),
    ) -> Result<Explanation, Problem> {
        let explained = self.explanation.run(&mut |step| {
            progress(step);
            replay.pace(step.events)
        })?;
        let version = self.explanation.version().0.clone();
        Ok(wire::explanation(version, explained, self.commits))
    }
}

/// An answer that is written while the log is folded.
fn stream_lines(mut prepared: Prepared, replay: Replay, guard: DropGuard) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(LINES_MAX);
    let folding = replay.run(move |replay| {
        // If the client has gone, `replay` ends the fold.
        let send = |line: &ExplainLine| drop(sender.blocking_send(line_of(line)));
        for commit in std::mem::take(&mut prepared.commits) {
            send(&ExplainLine::Commit(wire::committed_row(commit)));
        }
        let mut shown: Option<Instant> = None;
        let explained = prepared.run(replay, &mut |step| {
            if shown.is_none_or(|shown| shown.elapsed() >= PROGRESS_EVERY) {
                shown = Some(Instant::now());
                let ExplainProgress { events, percent } = *step;
                send(&ExplainLine::Progress { events, percent });
            }
        });
        send(&match explained {
            Ok(explanation) => ExplainLine::Explanation(explanation),
            Err(problem) => ExplainLine::Problem((*problem).clone()),
        });
        Ok(())
    });
    // The task is not awaited: it reports its errors in the last line, and it ends when the guard
    // is dropped with the body.
    drop(tokio::spawn(folding));
    let body = stream::unfold((receiver, guard), |(mut receiver, guard)| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), (receiver, guard)))
    });
    ([(CONTENT_TYPE, NDJSON)], Body::from_stream(body)).into_response()
}

fn line_of(line: &ExplainLine) -> Bytes {
    let mut bytes = serde_json::to_vec(line).expect("texts and numbers always encode");
    bytes.push(b'\n');
    bytes.into()
}
