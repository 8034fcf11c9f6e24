//! Answers requests about parked events: events that could not be applied.

use axum::Json;
use axum::extract::State;
use lantern_api::{ParkedOutcome, ParkedPage, ParkedSelection, ParkedSummary, ResendResult};
use lantern_core::{ParkedKind, ParkedRecord, VersionId};
use lantern_engine::{Engine, EngineError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::params::{Names, Params, SmallBody, limit};
use super::projections::read_json;
use crate::jobs::dead_letters;
use crate::problem::Problem;
use crate::wire;

/// The number of parked events in an answer if the request has no `limit`.
const LIMIT_DEFAULT: usize = 100;
/// The maximum number of parked events in an answer. It is limited because each event is returned
/// with its payload.
pub(super) const LIMIT_MAX: usize = 1_000;

/// Which parked events to show.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ParkedQuery {
    /// The version; the active one if left out.
    version: Option<String>,
    /// Only the events of this subject.
    subject: Option<String>,
    /// Only the events of this tenant; an empty text for events without a tenant.
    tenant: Option<String>,
    /// `true` returns only the events that wait behind a failed event of their subject, `false`
    /// only the events that failed.
    waiting: Option<bool>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// The maximum number of events; 100 if left out.
    limit: Option<usize>,
}

/// The version to read.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionQuery {
    /// The version; the active one if left out.
    version: Option<String>,
}

/// Lists parked events, each with its reason.
#[utoipa::path(get, path = "/v1/projections/{name}/parked", tag = "projections",
    params(("name" = String, Path), ParkedQuery),
    responses((status = 200, body = ParkedPage), (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(which): Params<ParkedQuery>,
) -> Result<Json<ParkedPage>, Problem> {
    let limit = limit(which.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let list = move |app: &super::App| {
        let version = which.version.map(VersionId);
        let (subject, tenant) = (which.subject.as_deref(), which.tenant.as_deref());
        let cursor = which.cursor.as_deref();
        let wanted = |record: &ParkedRecord| {
            let waits = record.kind == ParkedKind::Waiting;
            subject.is_none_or(|subject| record.event.subject == subject)
                && tenant.is_none_or(|tenant| record.tenant() == tenant)
                && which.waiting.is_none_or(|wanted| wanted == waits)
        };
        let page = app.engine.parked_where(&name, version.as_ref(), wanted, cursor, limit)?;
        Ok(wire::parked_page(page))
    };
    app.read(list).await.map(Json)
}

/// Counts parked events by the reason of their failure, and the events that wait behind them.
#[utoipa::path(get, path = "/v1/projections/{name}/parked/reasons", tag = "projections",
    params(("name" = String, Path), VersionQuery),
    responses((status = 200, body = ParkedSummary), (status = 404, body = Problem)))]
pub(crate) async fn reasons(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(query): Params<VersionQuery>,
) -> Result<Json<ParkedSummary>, Problem> {
    let version = query.version.map(VersionId);
    let reasons = move |app: &super::App| {
        Ok(wire::parked_summary(app.engine.parked_summary(&name, version.as_ref())?))
    };
    app.read(reasons).await.map(Json)
}

/// Applies parked events, in order; events that fail again stay parked.
#[utoipa::path(post, path = "/v1/projections/{name}/parked/retry", tag = "projections",
    params(("name" = String, Path), VersionQuery), request_body = ParkedSelection,
    responses((status = 200, body = ParkedOutcome), (status = 400, body = Problem),
              (status = 404, body = Problem)))]
pub(crate) async fn retry(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(query): Params<VersionQuery>,
    SmallBody(body): SmallBody,
) -> Result<Json<ParkedOutcome>, Problem> {
    decide(app, name, query, &body, Engine::retry).await
}

/// Deletes parked events permanently.
#[utoipa::path(post, path = "/v1/projections/{name}/parked/drop", tag = "projections",
    params(("name" = String, Path), VersionQuery), request_body = ParkedSelection,
    responses((status = 200, body = ParkedOutcome), (status = 400, body = Problem),
              (status = 404, body = Problem)))]
pub(crate) async fn drop_parked(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(query): Params<VersionQuery>,
    SmallBody(body): SmallBody,
) -> Result<Json<ParkedOutcome>, Problem> {
    decide(app, name, query, &body, Engine::drop_parked).await
}

/// Retries or drops the parked events that `body` selects.
async fn decide(
    app: Shared,
    name: String,
    query: VersionQuery,
    body: &[u8],
    decision: fn(
        &Engine,
        &str,
        Option<&VersionId>,
        &lantern_engine::ParkedSelection,
    ) -> Result<lantern_engine::ParkedOutcome, EngineError>,
) -> Result<Json<ParkedOutcome>, Problem> {
    app.check_open()?;
    let which = wire::selection(read_json(body)?);
    let version = query.version.map(VersionId);
    let decided = move |app: &super::App| {
        Ok(wire::parked_outcome(decision(&app.engine, &name, version.as_ref(), &which)?))
    };
    app.blocking(decided).await.map(Json)
}

/// Which dead letters to send again.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResendQuery {
    /// Read all dead letters of the topic, including those that an earlier call has read.
    from_beginning: bool,
}

/// Retries the parked events that the dead-letter topic names. Events that fail again stay parked.
#[utoipa::path(post, path = "/v1/dead-letters/resend", tag = "projections",
    params(ResendQuery),
    responses((status = 200, body = ResendResult), (status = 409, body = Problem),
              (status = 503, body = Problem)))]
pub(crate) async fn resend(
    State(app): State<Shared>,
    Params(query): Params<ResendQuery>,
) -> Result<Json<ResendResult>, Problem> {
    app.check_open()?;
    let from_beginning = query.from_beginning;
    app.blocking(move |app| dead_letters::resend(app, from_beginning)).await.map(Json)
}
