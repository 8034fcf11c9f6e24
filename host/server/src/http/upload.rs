//! Answers uploads of plugins, and requests to check a plugin without uploading it.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request, State};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use lantern_api::{CheckResult, Uploaded};
use lantern_engine::Activation;
use lantern_plugin::Language;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::params::{Names, Params, body, essence};
use crate::dry_run::check_result;
use crate::plugins::Content;
use crate::problem::Problem;
use crate::wire;

/// The media types of source code, each with the file name that a source gets if its upload names
/// none.
const SOURCES: [(&str, &str); 11] = [
    ("text/x-python", "projection.py"),
    ("text/python", "projection.py"),
    ("text/javascript", "projection.js"),
    ("application/javascript", "projection.js"),
    ("text/typescript", "projection.ts"),
    ("application/typescript", "projection.ts"),
    ("application/yaml", "projection.yaml"),
    ("application/x-yaml", "projection.yaml"),
    ("text/yaml", "projection.yaml"),
    ("text/x-yaml", "projection.yaml"),
    ("application/json", "projection.json"),
];

/// Options for an upload.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadQuery {
    /// Whether the version is activated automatically when it has caught up.
    activate: bool,
    /// Whether the version is activated even if it has parked events that the active version has
    /// applied. This also applies to a version that was uploaded before and was not activated for
    /// that reason. No effect with `activate=false`.
    force: bool,
    /// Whether the determinism check runs first. It folds a sample of the log several times.
    check: bool,
    /// The file name of a source, such as `totals.py`. Its extension selects the
    /// interpreter; messages about the source begin with it.
    source_name: Option<String>,
}

impl Default for UploadQuery {
    fn default() -> Self {
        Self { activate: true, force: false, check: true, source_name: None }
    }
}

/// Options for a check.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckQuery {
    /// As for an upload.
    source_name: Option<String>,
}

/// Uploads a plugin, a script or a declaration as a version of the projection `name`.
///
/// The body is one of these:
///
/// * a component (`application/wasm`);
/// * a *source*, which the interpreter for its language runs: a script (`text/x-python`,
///   `text/javascript`, `text/typescript`) or a declaration (`application/yaml`,
///   `application/json`);
/// * a form (`multipart/form-data`) with the parts `plugin` (a component), `source` and
///   `parameters`. If a form has both a plugin and a source, the plugin is the interpreter of the
///   source.
///
/// The answer is sent when the plugin is compiled, set up and checked. The log is then folded in
/// the background while the active version serves readers.
#[utoipa::path(
    post, path = "/v1/projections/{name}/versions", tag = "projections",
    params(("name" = String, Path), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 201, body = Uploaded), (status = 200, body = Uploaded, description = "the version exists already"),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    )
)]
pub(crate) async fn upload_named(
    State(app): State<Shared>,
    Names(name): Names<String>,
    Params(query): Params<UploadQuery>,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    add(app, Some(name), query, request).await
}

/// Uploads a plugin, a script or a declaration under the name in its manifest.
#[utoipa::path(
    post, path = "/v1/versions", tag = "projections", params(UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 201, body = Uploaded), (status = 200, body = Uploaded, description = "the version exists already"),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    )
)]
pub(crate) async fn upload(
    State(app): State<Shared>,
    Params(query): Params<UploadQuery>,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    add(app, None, query, request).await
}

/// Checks a plugin without storing it: compiles it, sets it up, and folds a sample of
/// the log several times.
#[utoipa::path(
    post, path = "/v1/plugins/check", tag = "projections", params(CheckQuery),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 200, body = CheckResult),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    )
)]
pub(crate) async fn check(
    State(app): State<Shared>,
    Params(CheckQuery { source_name }): Params<CheckQuery>,
    request: Request,
) -> Result<Json<CheckResult>, Problem> {
    app.check_open()?;
    let content = content(&app, source_name, request).await?;
    let check = move |app: &super::App| {
        let (checked, _) = app.plugins.check(&content, &*app.log, &app.config.engine)?;
        Ok(check_result(checked))
    };
    app.blocking(check).await.map(Json)
}

async fn add(
    app: Shared,
    name: Option<String>,
    query: UploadQuery,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    app.check_open()?;
    let activation = match (query.activate, query.force) {
        (true, true) => Activation::Forced,
        // Without an activation, `force` has no meaning.
        (activate, _) => Activation::checked(activate),
    };
    let content = content(&app, query.source_name, request).await?;
    let uploaded = app
        .blocking(move |app| {
            app.plugins.upload(&app.engine, &content, name, activation, query.check)
        })
        .await?;
    let status = if uploaded.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(wire::uploaded(uploaded))))
}

/// Returns the content of an upload: the plugin or source code, and the parameters. `name` is the
/// name of the source file in the query.
pub(super) async fn content(
    app: &Shared,
    name: Option<String>,
    request: Request,
) -> Result<Content, Problem> {
    let media = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media = media.unwrap_or_default().to_owned();
    let (parts, content) = request.into_parts();
    let max = app.config.http.upload_bytes_max;
    match essence(&media).as_str() {
        "application/wasm" | "application/octet-stream" => {
            let wasm = body(app, &parts.headers, content, max).await?.bytes;
            Ok(Content { wasm: Some(wasm), ..Content::default() })
        }
        "multipart/form-data" => {
            let whole = body(app, &parts.headers, content, max).await?.bytes;
            form(name, Request::from_parts(parts, Body::from(whole))).await
        }
        essence => {
            let known = SOURCES.iter().find(|(media, _)| *media == essence);
            let Some((_, usual)) = known else {
                return Err(Problem::new("LAN-0411", format!("`Content-Type` is `{media}`")));
            };
            let name = name.unwrap_or_else(|| (*usual).to_owned());
            if Language::of(&name) != Language::of(usual) {
                let detail = format!("`{name}` is not the name of a source of type `{essence}`");
                return Err(Problem::new("LAN-0130", detail));
            }
            let content = body(app, &parts.headers, content, max).await?.bytes;
            let source = Some(lantern_plugin::source(&name, &content)?);
            Ok(Content { source, ..Content::default() })
        }
    }
}

async fn form(name: Option<String>, request: Request) -> Result<Content, Problem> {
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| Problem::new("LAN-0408", error.body_text()))?;
    let mut content = Content::default();
    let bad = |error: axum::extract::multipart::MultipartError| {
        Problem::new("LAN-0408", format!("the form cannot be read: {}", error.body_text()))
    };
    while let Some(part) = form.next_field().await.map_err(bad)? {
        match part.name().unwrap_or_default() {
            "plugin" => content.wasm = Some(part.bytes().await.map_err(bad)?),
            "parameters" => content.parameters = part.text().await.map_err(bad)?,
            "source" => {
                let name = name.clone().or_else(|| part.file_name().map(str::to_owned));
                let name = name.ok_or_else(|| {
                    let detail =
                        "the part `source` has no file name, and there is no `source_name`";
                    Problem::new("LAN-0130", detail)
                })?;
                let text = part.bytes().await.map_err(bad)?;
                content.source = Some(lantern_plugin::source(&name, &text)?);
            }
            other => {
                let detail = format!(
                    "the form has a part `{other}`: only `plugin`, `source` and `parameters` are known"
                );
                return Err(Problem::new("LAN-0408", detail));
            }
        }
    }
    if content.wasm.is_none() && content.source.is_none() {
        let detail = "the form has neither a part `plugin` nor a part `source`";
        return Err(Problem::new("LAN-0408", detail));
    }
    Ok(content)
}
