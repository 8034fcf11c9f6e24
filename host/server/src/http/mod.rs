//! Implements the HTTP API. There is a module for each resource, and modules with the code that
//! they share.

mod accept;
mod append_result;
mod boards;
mod coding_weights;
mod conditional;
mod connection;
mod connection_control;
mod content_encoding;
mod cors;
mod diff;
mod drain_body;
mod dry_run;
mod event_changes;
mod event_path;
pub(crate) mod events;
mod explain;
mod export_attributes;
mod feed;
mod feed_clients;
mod feed_stream;
mod health;
mod ingest;
mod ndjson_stream;
mod openapi;
mod origin_check;
mod params;
pub(crate) mod parked;
mod projections;
mod queries;
mod replay_lines;
mod request_span;
mod reserved_connections;
mod shard_metrics;
pub(crate) mod tables;
mod upload;
mod web_page;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::HttpConfig;
use crate::problem::Problem;

pub(crate) use crate::app::{App, Shared};
pub(crate) use crate::clock::now;
pub(crate) use accept::serve;

/// The maximum size of a body that contains only a few names, in bytes.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// The description of the API. The macros on the functions add the paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lantern",
        description = "Projections of event logs: send events, upload plugins, read tables. \
                       Every error is a problem (RFC 9457) with a stable code.",
    ),
    tags(
        (name = "events", description = "The log."),
        (name = "projections", description = "Plugins, their versions and parked events."),
        (name = "tables", description = "The rows of projections."),
        (name = "queries", description = "Named queries of tables."),
        (name = "boards", description = "Documents of dashboards."),
        (name = "server", description = "Health, metrics and errors."),
    ),
)]
struct Api;

/// Returns the routes of the API, and the description of these routes.
fn routes() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    // axum's own limit for bodies does not apply to uploads. A form is read completely before it is
    // split into parts, with the limit `http.upload_bytes_max`.
    let uploads = OpenApiRouter::new()
        .routes(routes!(upload::upload_named))
        .routes(routes!(upload::upload))
        .routes(routes!(upload::check))
        .routes(routes!(dry_run::dry_run))
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::with_openapi(Api::openapi())
        .merge(uploads)
        .routes(routes!(ingest::append, events::read))
        .routes(routes!(event_path::path))
        .routes(routes!(event_changes::changes))
        .routes(routes!(projections::list))
        .routes(routes!(projections::show, projections::delete))
        .routes(routes!(projections::show_version, projections::delete_version))
        .routes(routes!(projections::source))
        .routes(routes!(projections::activate_version))
        .routes(routes!(projections::activate))
        .routes(routes!(projections::rebuild_version))
        .routes(routes!(projections::rollback))
        .routes(routes!(projections::pause))
        .routes(routes!(projections::resume))
        .routes(routes!(projections::logs))
        .routes(routes!(projections::verify))
        .routes(routes!(parked::list))
        .routes(routes!(parked::reasons))
        .routes(routes!(parked::retry))
        .routes(routes!(parked::drop_parked))
        .routes(routes!(parked::resend))
        .routes(routes!(tables::read))
        .routes(routes!(tables::query))
        .routes(routes!(explain::explain))
        .routes(routes!(queries::list))
        .routes(routes!(queries::run, queries::define, queries::delete))
        .routes(routes!(queries::show))
        .routes(routes!(boards::list))
        .routes(routes!(boards::show, boards::store, boards::delete))
        .routes(routes!(diff::diff))
        .routes(routes!(feed::connect))
        .routes(routes!(feed_stream::stream))
        .routes(routes!(feed_clients::list))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::status))
        .routes(routes!(health::settings))
        .routes(routes!(health::error_page))
        .split_for_parts()
}

/// Returns the OpenAPI document of a server with the settings `config`.
#[must_use]
pub fn openapi(config: &HttpConfig) -> serde_json::Value {
    openapi::complete(&routes().1, config)
}

/// Returns all routes of the server, in the API and outside of it.
pub(crate) fn router(app: Shared) -> Router {
    let (router, api) = routes();
    let api = Bytes::from(openapi::complete(&api, &app.config.http).to_string());
    let media = [(CONTENT_TYPE, "application/json")];
    let openapi = axum::routing::get(move || async move { (media, api) });
    router
        .route("/v1/openapi.json", openapi)
        .merge(web_page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer((
            DefaultBodyLimit::max(SMALL_BODY_BYTES_MAX),
            middleware::from_fn_with_state(Arc::clone(&app), every_request),
        ))
        .with_state(app)
}

/// Runs the functions that surround the handler of every request, the outermost first. They are
/// plain functions in one layer of axum. If each function was a layer, axum would allocate and copy
/// the inner layers at every layer of a request. With seven layers, this cost more than the
/// handler.
async fn every_request(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let app = &*app;
    let handle = |request| next.run(request);
    let unpack = |request| content_encoding::unpack(app, request, handle);
    let options = |request| cors::options(app, request, unpack);
    let check_origin = |request| origin_check::check(app, request, options);
    let check_connection = |request| reserved_connections::check(request, check_origin);
    let share = |request| cors::share(app, request, check_connection);
    let drain = |request| drain_body::drain(request, share);
    request_span::request(request, drain).await
}

#[cfg(test)]
pub(crate) use queries::check_definition;

async fn not_found(uri: http::Uri) -> Problem {
    Problem::new("LAN-0401", format!("there is nothing at `{}`", uri.path()))
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> Problem {
    Problem::new("LAN-0402", format!("`{}` does not accept {method}", uri.path()))
}
