//! `GET /v1/tables/{projection}/{table}/explain`: what has changed a row.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use lantern_api::{ExplainLine, Explanation};
use lantern_core::{VersionId, ViewError, Views as _};
use lantern_engine::{CommittedRow, ExplainProgress, ExplainRequest};
use serde::Deserialize;
use tokio_util::sync::DropGuard;
use utoipa::IntoParams;

use super::params::{AnswerFormat, Names, Params, answer_format, limit};
use super::replay_lines::{self, Lines};
use super::{App, Shared};
use crate::jobs::replay::Replay;
use crate::problem::Problem;
use crate::wire;

/// The number of changes in an answer if `limit` is not given.
const LIMIT_DEFAULT: usize = 20;

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
    let work = move |replay, mut lines: Lines<ExplainLine>| {
        for commit in std::mem::take(&mut prepared.commits) {
            lines.send(&ExplainLine::Commit(wire::committed_row(commit)));
        }
        let explained = prepared.run(replay, &mut |step| {
            let ExplainProgress { events, percent } = *step;
            lines.progress(|| ExplainLine::Progress { events, percent });
        });
        lines.send(&match explained {
            Ok(explanation) => ExplainLine::Explanation(explanation),
            Err(problem) => ExplainLine::Problem((*problem).clone()),
        });
    };
    replay_lines::stream_lines(replay, guard, work)
}
