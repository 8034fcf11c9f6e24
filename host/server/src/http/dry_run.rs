//! `POST /v1/versions/dry-run`: what an upload would write.

use axum::extract::{Request, State};
use axum::response::Response;
use lantern_api::{DryRun, DryRunLine};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::params::{AnswerFormat, Params, answer_format, limit};
use super::replay_lines::{self, ReplayLines};
use super::upload::content;
use crate::dry_run::{self, DryRunOptions};
use crate::jobs::replay::Replay;
use crate::problem::Problem;

/// The number of events that are folded if `events` is not given.
const EVENTS_DEFAULT: usize = 10_000;
/// The most events that are folded.
const EVENTS_MAX: usize = 100_000;
/// The number of differences of each table if `limit` is not given.
const LIMIT_DEFAULT: usize = 20;

/// Options for a dry run.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DryRunQuery {
    /// The projection; the name in the manifest if left out.
    name: Option<String>,
    /// How many of the newest events are folded; 10,000 if left out, 100,000 at most.
    #[param(minimum = 1, maximum = 100_000)]
    events: Option<usize>,
    /// The maximum number of differences of each table in the answer; 20 if left out.
    limit: Option<usize>,
    /// As for an upload.
    source_name: Option<String>,
}

/// Shows what an upload would write, and stores nothing.
///
/// The body and the checks are those of an upload. Then the newest events of the log are
/// folded with the new version and with the active version, both beginning with empty
/// tables. The answer compares the resulting tables. The settings in section `replay` limit
/// the folds, and they end when the client disconnects.
///
/// Answers JSON. With `Accept: application/x-ndjson` the answer is a stream of lines: first the
/// progress of the folds, and at last the result.
#[utoipa::path(
    post, path = "/v1/versions/dry-run", tag = "projections", params(DryRunQuery),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 200, body = DryRun), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn dry_run(
    State(app): State<Shared>,
    Params(query): Params<DryRunQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let events = query.events.unwrap_or(EVENTS_DEFAULT);
    if !(1..=EVENTS_MAX).contains(&events) {
        let detail = format!("`events` is {events}: it must be 1 to {EVENTS_MAX}");
        return Err(Problem::new("LAN-0403", detail));
    }
    let rows_max = limit(query.limit, LIMIT_DEFAULT, app.config.http.query_rows_max)?;
    let bytes_max = app.config.http.query_bytes_max;
    let format = answer_format(request.headers(), &[AnswerFormat::Json, AnswerFormat::Ndjson]);
    // A slow client must not keep others from folding, so the body is read first.
    let content = content(&app, query.source_name, request).await?;
    let replay = Replay::begin(&app)?;
    let options = DryRunOptions { name: query.name, events, rows_max, bytes_max };
    let lines = ReplayLines {
        first: Vec::new(),
        progress: |events, percent| DryRunLine::Progress { events, percent },
        result: |result| DryRunLine::DryRun(Box::new(result)),
        problem: DryRunLine::Problem,
    };
    let work = move |replay, progress: &mut dyn FnMut(u64, f64)| {
        dry_run::dry_run(&app, &content, &options, replay, progress)
    };
    replay_lines::answer(format, replay, lines, work).await
}
