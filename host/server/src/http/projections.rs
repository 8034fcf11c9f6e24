//! Answers requests about projections, their versions and their logs.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use lantern_api::{ActivateBody, Logs, ProjectionStatus, Projections, VerifyStatus, VersionStatus};
use lantern_core::VersionId;
use lantern_engine::EngineError;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::params::{Names, Params, SmallBody, limit};
use crate::problem::Problem;
use crate::wire;

/// The number of log lines in an answer if the request has no `limit`.
const LINES_DEFAULT: usize = 100;

/// Whether to activate a version in any case.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ActivateQuery {
    /// Whether to activate the version even if it has parked events that the active version has
    /// applied.
    force: bool,
}

/// How many log lines to return.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogLinesQuery {
    /// The maximum number of lines; 100 if left out.
    limit: Option<usize>,
}

/// Lists all projections with their versions and their progress.
#[utoipa::path(get, path = "/v1/projections", tag = "projections",
    responses((status = 200, body = Projections)))]
pub(crate) async fn list(State(app): State<Shared>) -> Result<Json<Projections>, Problem> {
    let list = |app: &super::App| {
        let projections = app.engine.status().into_iter().map(wire::projection).collect();
        Ok(Projections { projections })
    };
    app.blocking(list).await.map(Json)
}

/// Shows one projection.
#[utoipa::path(get, path = "/v1/projections/{name}", tag = "projections",
    params(("name" = String, Path)),
    responses((status = 200, body = ProjectionStatus), (status = 404, body = Problem)))]
pub(crate) async fn show(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<Json<ProjectionStatus>, Problem> {
    app.blocking(move |app| Ok(wire::projection(app.engine.status_of(&name)?))).await.map(Json)
}

/// Deletes a projection with all its versions and tables.
#[utoipa::path(delete, path = "/v1/projections/{name}", tag = "projections",
    params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<StatusCode, Problem> {
    app.blocking(move |app| Ok(app.engine.delete(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows one version.
#[utoipa::path(get, path = "/v1/projections/{name}/versions/{id}", tag = "projections",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = VersionStatus), (status = 404, body = Problem)))]
pub(crate) async fn show_version(
    State(app): State<Shared>,
    Names((name, id)): Names<(String, String)>,
) -> Result<Json<VersionStatus>, Problem> {
    let find = move |app: &super::App| {
        let versions = app.engine.status_of(&name)?.versions;
        let version = versions.into_iter().find(|version| version.id == id);
        Ok(wire::version(version.ok_or(EngineError::NoVersion(name, VersionId(id)))?))
    };
    app.blocking(find).await.map(Json)
}

/// Returns the source of a version: the script or declaration as it was uploaded.
#[utoipa::path(get, path = "/v1/projections/{name}/versions/{id}/source", tag = "projections",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain"),
              (status = 404, body = Problem)))]
pub(crate) async fn source(
    State(app): State<Shared>,
    Names((name, id)): Names<(String, String)>,
) -> Result<Response, Problem> {
    let find = move |app: &super::App| {
        let id = VersionId(id);
        app.engine.source_of(&name, &id)?.ok_or_else(|| {
            let detail = format!("version `{id}` of `{name}` is a plugin without a source");
            Problem::new("LAN-0225", detail)
        })
    };
    let source = app.blocking(find).await?;
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, source.text).into_response())
}

/// Deletes a version that is not active, with its tables.
#[utoipa::path(delete, path = "/v1/projections/{name}/versions/{id}", tag = "projections",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_version(
    State(app): State<Shared>,
    Names((name, id)): Names<(String, String)>,
) -> Result<StatusCode, Problem> {
    app.blocking(move |app| Ok(app.engine.delete_version(&name, &VersionId(id))?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Activates a version that has caught up.
///
/// If a version has parked events that the active version has applied, the request is
/// refused with 409 (LAN-0220), unless `force` is true.
#[utoipa::path(post, path = "/v1/projections/{name}/versions/{id}/activate", tag = "projections",
    params(("name" = String, Path), ("id" = String, Path), ActivateQuery),
    responses((status = 200, body = ProjectionStatus), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(crate) async fn activate_version(
    State(app): State<Shared>,
    Names((name, id)): Names<(String, String)>,
    Params(ActivateQuery { force }): Params<ActivateQuery>,
) -> Result<Json<ProjectionStatus>, Problem> {
    act(app, name, move |engine, name| engine.activate(name, &VersionId(id), force)).await
}

/// Like `…/versions/{id}/activate`, with the version in the body.
#[utoipa::path(post, path = "/v1/projections/{name}/activate", tag = "projections",
    params(("name" = String, Path)), request_body = ActivateBody,
    responses((status = 200, body = ProjectionStatus), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn activate(
    State(app): State<Shared>,
    Names(name): Names<String>,
    SmallBody(body): SmallBody,
) -> Result<Json<ProjectionStatus>, Problem> {
    let ActivateBody { version, force } = read_json(&body)?;
    act(app, name, move |engine, name| engine.activate(name, &VersionId(version), force)).await
}

/// Deletes a version's tables and folds the log again.
#[utoipa::path(post, path = "/v1/projections/{name}/versions/{id}/rebuild", tag = "projections",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = ProjectionStatus), (status = 404, body = Problem)))]
pub(crate) async fn rebuild_version(
    State(app): State<Shared>,
    Names((name, id)): Names<(String, String)>,
) -> Result<Json<ProjectionStatus>, Problem> {
    act(app, name, move |engine, name| engine.rebuild(name, &VersionId(id))).await
}

/// Activates the previously active version again, at once, even if it has parked events.
#[utoipa::path(post, path = "/v1/projections/{name}/rollback", tag = "projections",
    params(("name" = String, Path)),
    responses((status = 200, body = ProjectionStatus), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(crate) async fn rollback(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<Json<ProjectionStatus>, Problem> {
    act(app, name, |engine, name| engine.rollback(name).map(drop)).await
}

/// Stops folding; readers still get the existing rows.
#[utoipa::path(post, path = "/v1/projections/{name}/pause", tag = "projections",
    params(("name" = String, Path)),
    responses((status = 200, body = ProjectionStatus), (status = 404, body = Problem)))]
pub(crate) async fn pause(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<Json<ProjectionStatus>, Problem> {
    act(app, name, |engine, name| engine.pause(name)).await
}

/// Continues folding; a halted version is tried again.
#[utoipa::path(post, path = "/v1/projections/{name}/resume", tag = "projections",
    params(("name" = String, Path)),
    responses((status = 200, body = ProjectionStatus), (status = 404, body = Problem)))]
pub(crate) async fn resume(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<Json<ProjectionStatus>, Problem> {
    act(app, name, |engine, name| engine.resume(name)).await
}

/// Shows the newest log messages of a projection's plugins.
#[utoipa::path(get, path = "/v1/projections/{name}/logs", tag = "projections",
    params(("name" = String, Path), LogLinesQuery),
    responses((status = 200, body = Logs), (status = 404, body = Problem)))]
pub(crate) async fn logs(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(query): Params<LogLinesQuery>,
) -> Result<Json<Logs>, Problem> {
    let limit = limit(query.limit, LINES_DEFAULT, app.config.http.query_rows_max)?;
    let logs = move |app: &super::App| {
        let logs = app.engine.logs(&name, limit)?;
        Ok(Logs { logs: logs.into_iter().map(wire::log_line).collect() })
    };
    app.blocking(logs).await.map(Json)
}

/// Which version to verify.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct VerifyQuery {
    /// The version; the active one if left out.
    version: Option<String>,
}

/// Begins a verification in the background: it folds the log again and compares the result with the
/// tables. The projection's status shows the progress and the result.
#[utoipa::path(post, path = "/v1/projections/{name}/verify", tag = "projections",
    params(("name" = String, Path), VerifyQuery),
    responses((status = 202, body = VerifyStatus), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(crate) async fn verify(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(VerifyQuery { version }): Params<VerifyQuery>,
) -> Result<(StatusCode, Json<VerifyStatus>), Problem> {
    app.check_open()?;
    let status = crate::jobs::verification::begin(&app, &name, version.map(VersionId)).await?;
    Ok((StatusCode::ACCEPTED, Json(wire::verification(status))))
}

/// Runs `what`, which changes a projection, and answers with the projection's new status.
async fn act(
    app: Shared,
    name: String,
    what: impl FnOnce(&lantern_engine::Engine, &str) -> Result<(), EngineError> + Send + 'static,
) -> Result<Json<ProjectionStatus>, Problem> {
    app.check_open()?;
    let act = move |app: &super::App| {
        what(&app.engine, &name)?;
        Ok(wire::projection(app.engine.status_of(&name)?))
    };
    app.blocking(act).await.map(Json)
}

/// Reads a small JSON body. It must be an object, because serde would also accept an array of the
/// members' values.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new("LAN-0408", "the body is an array and must be an object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::new("LAN-0408", format!("the body is not as expected: {error}")))
}
