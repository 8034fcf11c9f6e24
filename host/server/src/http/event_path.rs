//! `GET /v1/events/{partition}/{offset}/path`: what was done with an event.

use axum::Json;
use axum::extract::State;
use lantern_api::EventPath;
use lantern_core::{Offset, PartitionId};
use lantern_engine::EngineError;

use super::Shared;
use super::params::Names;
use crate::problem::Problem;
use crate::wire;

/// Shows what each version of each projection has done with an event. A version has applied,
/// skipped or parked the event, or has not reached it yet.
#[utoipa::path(
    get, path = "/v1/events/{partition}/{offset}/path", tag = "events",
    params(("partition" = u32, Path), ("offset" = u64, Path)),
    responses(
        (status = 200, body = EventPath),
        (status = 404, body = Problem, description = "no such partition, or no event at this offset"),
        (status = 410, body = Problem),
    )
)]
pub(crate) async fn path(
    State(app): State<Shared>,
    Names((partition, offset)): Names<(u32, u64)>,
) -> Result<Json<EventPath>, Problem> {
    let find = move |app: &super::App| {
        let found = app.engine.event_path(PartitionId(partition), Offset(offset));
        let found = found.map_err(|error| match error {
            EngineError::Log(error) => Problem::from(error),
            error => error.into(),
        })?;
        let found = found.ok_or_else(|| {
            let detail = format!("partition {partition} has no event at offset {offset}");
            Problem::new("LAN-0442", detail)
        })?;
        Ok(Json(wire::event_path(partition, offset, found)))
    };
    app.read(find).await
}
