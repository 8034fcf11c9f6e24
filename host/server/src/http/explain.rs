//! `GET /v1/tables/{projection}/{table}/explain`: what has changed a row.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use lantern_api::{CommittedRow, ExplainLine, Explanation};
use lantern_core::{VersionId, ViewError, Views as _};
use lantern_engine::ExplainRequest;
use serde::Deserialize;
use utoipa::IntoParams;

use super::params::{AnswerFormat, Names, Params, answer_format, limit};
use super::replay_lines::{self, ReplayLines};
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
    let replay = Replay::begin(&app)?;
    let request = ExplainRequest { projection, version, table, key, changes_max, bytes_max };
    let mut prepared = app.read(move |app| prepare(app, request)).await?;
    let format = answer_format(&headers, &[AnswerFormat::Json, AnswerFormat::Ndjson]);
    let first = match format {
        AnswerFormat::Ndjson => std::mem::take(&mut prepared.commits),
        _ => Vec::new(),
    };
    let lines = ReplayLines {
        first: first.into_iter().map(ExplainLine::Commit).collect(),
        progress: |events, percent| ExplainLine::Progress { events, percent },
        result: ExplainLine::Explanation,
        problem: ExplainLine::Problem,
    };
    let work = move |replay, progress: &mut dyn FnMut(u64, f64)| prepared.run(replay, progress);
    replay_lines::answer(format, replay, lines, work).await
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
    let commits = commits.into_iter().map(wire::committed_row).collect();
    Ok(Prepared { explanation, commits })
}

impl Prepared {
    fn run(
        self,
        mut replay: Replay,
        progress: &mut dyn FnMut(u64, f64),
    ) -> Result<Explanation, Problem> {
        let explained = self.explanation.run(&mut |step| {
            progress(step.events, step.percent);
            replay.pace(step.events)
        })?;
        let version = self.explanation.version().0.clone();
        Ok(wire::explanation(version, explained, self.commits))
    }
}
