//! `GET /v1/events/{partition}/{offset}/changes`: the rows that an event has changed.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use lantern_api::{EventChanges, EventChangesLine};
use lantern_core::{Offset, PartitionId, VersionId};
use lantern_engine::{EngineError, EventChangesRequest};
use serde::Deserialize;
use utoipa::IntoParams;

use super::params::{AnswerFormat, Names, Params, answer_format, limit};
use super::replay_lines::{self, ReplayLines};
use super::{App, Shared};
use crate::jobs::replay::Replay;
use crate::problem::Problem;
use crate::wire;

/// The number of rows in an answer if `limit` is not given.
const LIMIT_DEFAULT: usize = 100;

/// Whose rows to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangesQuery {
    /// The projection.
    projection: String,
    /// The version; the active one if left out.
    version: Option<String>,
    /// The maximum number of rows; 100 if left out. All are counted.
    limit: Option<usize>,
}

/// Lists the rows that a version has changed when it applied an event, each before and after.
///
/// The log is folded again up to the event in a separate state, and the tables are only read. This
/// may take long: the settings in section `replay` limit it, and it ends when the client
/// disconnects. If a limit is reached, or if retention has deleted the beginning of the log, the
/// answer has `complete: false` and the reason.
///
/// Answers JSON. With `Accept: application/x-ndjson` the answer is a stream of lines: first the
/// progress, and at last the changes.
#[utoipa::path(
    get, path = "/v1/events/{partition}/{offset}/changes", tag = "events",
    params(("partition" = u32, Path), ("offset" = u64, Path), ChangesQuery),
    responses(
        (status = 200, body = EventChanges),
        (status = 404, body = Problem, description = "no such partition, event, projection or version"),
        (status = 409, body = Problem), (status = 410, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn changes(
    State(app): State<Shared>,
    Names((partition, offset)): Names<(u32, u64)>,
    Params(query): Params<ChangesQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ChangesQuery { projection, version, limit: rows } = query;
    let rows_max = limit(rows, LIMIT_DEFAULT, app.config.http.query_rows_max)?;
    let request = EventChangesRequest {
        projection,
        version: version.map(VersionId),
        partition: PartitionId(partition),
        offset: Offset(offset),
        rows_max,
        bytes_max: app.config.http.query_bytes_max,
    };
    let replay = Replay::begin(&app)?;
    let prepared = app.read(move |app| prepare(app, request)).await?;
    let format = answer_format(&headers, &[AnswerFormat::Json, AnswerFormat::Ndjson]);
    let lines = ReplayLines {
        first: Vec::new(),
        progress: |events, percent| EventChangesLine::Progress { events, percent },
        result: EventChangesLine::Changes,
        problem: EventChangesLine::Problem,
    };
    let work = move |replay, progress: &mut dyn FnMut(u64, f64)| prepared.run(replay, progress);
    replay_lines::answer(format, replay, lines, work).await
}

/// Changes that can be looked for.
struct Prepared {
    changes: lantern_engine::EventChanges,
    request: EventChangesRequest,
}

fn prepare(app: &App, request: EventChangesRequest) -> Result<Prepared, Problem> {
    let found = app.engine.event_changes(request.clone()).map_err(|error| match error {
        EngineError::Log(error) => Problem::from(error),
        error => error.into(),
    })?;
    let changes = found.ok_or_else(|| {
        let EventChangesRequest { partition, offset, .. } = &request;
        let detail = format!("partition {} has no event at offset {offset}", partition.0);
        Problem::new("LAN-0442", detail)
    })?;
    Ok(Prepared { changes, request })
}

impl Prepared {
    fn run(
        self,
        mut replay: Replay,
        progress: &mut dyn FnMut(u64, f64),
    ) -> Result<EventChanges, Problem> {
        let changed = self.changes.run(&mut |step| {
            progress(step.events, step.percent);
            replay.pace(step.events)
        })?;
        let version = self.changes.version().0.clone();
        Ok(wire::event_changes(self.request, version, changed))
    }
}
