//! Parked events: those that could not be applied.

use axum::Json;
use axum::extract::State;
use lantern_core::{ParkedKind, ParkedRecord, VersionId};
use lantern_engine::{ParkedOutcome, ParkedPage, ParkedSelection, ParkedSummary};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::params::{Names, Params, Small, limit};
use super::projections::read_json;
use crate::problem::Problem;

/// Parked events of an answer where `limit` is not given.
const LIMIT_DEFAULT: usize = 100;
/// The most parked events of an answer: each comes with its payload.
pub(super) const LIMIT_MAX: usize = 1_000;

/// Which parked events to show.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// The version; the active one where left out.
    version: Option<String>,
    /// Those of this subject alone.
    subject: Option<String>,
    /// Those of this tenant alone; an empty text for those without one.
    tenant: Option<String>,
    /// `true` for those that wait behind a failed one of their subject alone,
    /// `false` for those that failed.
    waiting: Option<bool>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// The most events; 100 where left out.
    limit: Option<usize>,
}

/// Of which version.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Of {
    /// The version; the active one where left out.
    version: Option<String>,
}

/// Lists parked events with the reason of each.
#[utoipa::path(get, path = "/v1/projections/{name}/parked", tag = "projections",
    params(("name" = String, Path), Which),
    responses((status = 200, body = ParkedPage), (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(which): Params<Which>,
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
        Ok(app.engine.parked_where(&name, version.as_ref(), wanted, cursor, limit)?)
    };
    app.query(list).await.map(Json)
}

/// Counts parked events by the reason of their failure, with those that wait
/// behind them.
#[utoipa::path(get, path = "/v1/projections/{name}/parked/reasons", tag = "projections",
    params(("name" = String, Path), Of),
    responses((status = 200, body = ParkedSummary), (status = 404, body = Problem)))]
pub(crate) async fn reasons(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(of): Params<Of>,
) -> Result<Json<ParkedSummary>, Problem> {
    let version = of.version.map(VersionId);
    app.query(move |app| Ok(app.engine.parked_summary(&name, version.as_ref())?)).await.map(Json)
}

/// Applies parked events, in order; those that fail again stay.
#[utoipa::path(post, path = "/v1/projections/{name}/parked/retry", tag = "projections",
    params(("name" = String, Path), Of), request_body = ParkedSelection,
    responses((status = 200, body = ParkedOutcome), (status = 400, body = Problem),
              (status = 404, body = Problem)))]
pub(crate) async fn retry(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(of): Params<Of>,
    Small(body): Small,
) -> Result<Json<ParkedOutcome>, Problem> {
    app.check_open()?;
    let which: ParkedSelection = read_json(&body)?;
    let version = of.version.map(VersionId);
    app.blocking(move |app| Ok(app.engine.retry(&name, version.as_ref(), &which)?)).await.map(Json)
}

/// Removes parked events for good.
#[utoipa::path(post, path = "/v1/projections/{name}/parked/drop", tag = "projections",
    params(("name" = String, Path), Of), request_body = ParkedSelection,
    responses((status = 200, body = ParkedOutcome), (status = 400, body = Problem),
              (status = 404, body = Problem)))]
pub(crate) async fn drop_parked(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(of): Params<Of>,
    Small(body): Small,
) -> Result<Json<ParkedOutcome>, Problem> {
    app.check_open()?;
    let which: ParkedSelection = read_json(&body)?;
    let version = of.version.map(VersionId);
    let drop =
        move |app: &super::App| Ok(app.engine.drop_parked(&name, version.as_ref(), &which)?);
    app.blocking(drop).await.map(Json)
}

/// Which letters to send again.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Letters {
    /// From the topic's beginning, not from where the last call ended.
    from_beginning: bool,
}

/// What became of the letters of the dead-letter topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resent {
    /// Letters read.
    pub letters: u64,
    /// Of them, records that are no copies of parked events of this log.
    pub foreign: u64,
    /// Parked events that are now in the tables.
    pub applied: u64,
    /// Tried and still parked, with a new reason.
    pub failed: u64,
    /// Not tried: behind one that failed.
    pub waiting: u64,
    /// Events that the active version has not parked, or not any more.
    pub gone: u64,
}

/// Applies the parked events again that the dead-letter topic names. Those that
/// fail again stay.
#[utoipa::path(post, path = "/v1/dead-letters/resend", tag = "projections",
    params(Letters),
    responses((status = 200, body = Resent), (status = 409, body = Problem),
              (status = 503, body = Problem)))]
pub(crate) async fn resend(
    State(app): State<Shared>,
    Params(which): Params<Letters>,
) -> Result<Json<Resent>, Problem> {
    app.check_open()?;
    app.blocking(move |app| app.resend(which.from_beginning)).await.map(Json)
}
