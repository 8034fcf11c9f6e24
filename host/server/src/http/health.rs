//! Answers requests for health, readiness and metrics, and for the explanation of an error code.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use lantern_api::{ErrorCode, PartitionStatus, Ready, ServerSettings, ServerStatus};
use lantern_core::PartitionId;
use lantern_engine::{ProjectionStatus, VersionStatus};

use super::params::Names;
use super::{App, Shared, shard_metrics};
use crate::codes::{Code, find};
use crate::problem::Problem;
use crate::{process, wire};

/// The maximum number of partitions that the text about one trouble names.
const NAMES_SHOWN: usize = 4;

/// Answers as long as the process runs.
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Reports whether the server accepts events and every active version keeps up. Otherwise the
/// answer is 503 with the reasons.
#[utoipa::path(get, path = "/readyz", tag = "server",
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(crate) async fn readyz(State(app): State<Shared>) -> Result<Response, Problem> {
    let (reasons, warnings) = app.blocking(|app| Ok((reasons(app), warnings(app)))).await?;
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(Ready { ready, reasons, warnings })).into_response())
}

fn reasons(app: &App) -> Vec<String> {
    let mut reasons = Vec::new();
    if app.tasks.stopping.is_cancelled() {
        reasons.push("the server is shutting down".to_owned());
    }
    reasons.extend(troubles(app));
    reasons.extend(app.health.disk.trouble());
    if let Some(why) = app.health.appends.fault() {
        reasons.push(format!("events were refused: {why}"));
    }
    for projection in app.engine.status() {
        add_reasons(&projection, &mut reasons);
    }
    reasons
}

fn warnings(app: &App) -> Vec<String> {
    let mut warnings = app.log.warnings();
    for projection in app.engine.status() {
        let name = &projection.name;
        for version in &projection.versions {
            let id = &version.id;
            if let Some(why) = &version.not_activated {
                warnings.push(format!("`{name}` version {id} was not activated: {why}"));
            }
            if let Some(reason) = halted_candidate(&projection, version) {
                warnings.push(format!(
                    "`{name}` version {id} is halted and does not become active: {reason}"
                ));
            }
            for why in &version.differs {
                warnings.push(format!("`{name}` version {id}: {why}"));
            }
            if projection.active.as_ref() == Some(id) && version.parked > 0 {
                let (failed, waiting) = (version.parked - version.waiting, version.waiting);
                warnings.push(format!(
                    "`{name}` version {id} has parked events: failed {failed}, waiting behind them {waiting}"
                ));
            }
        }
    }
    warnings
}

/// Returns why `version` is halted, if it is the newest version and would replace the active one.
/// Such a halt is only reported. It does not make the server unready, unlike a halt of the active
/// version, or of any version if none is active.
fn halted_candidate<'v>(
    projection: &ProjectionStatus,
    version: &'v VersionStatus,
) -> Option<&'v str> {
    let newest = projection.versions.iter().all(|other| other.created_us <= version.created_us);
    let halted = version.shards.iter().find(|shard| shard.activity == "halted")?;
    (projection.active.is_some() && version.state == "backfilling" && newest)
        .then(|| halted.reason.as_deref().or(version.reason.as_deref()).unwrap_or_default())
}

fn troubles(app: &App) -> Vec<String> {
    let mut troubles = app.log.troubles();
    // If a broker cannot be reached, all its partitions together are one trouble.
    let mut faults: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in (0..app.log.partitions()).map(PartitionId) {
        if let Err(error) = app.log.bounds(partition) {
            let name = app.log.partition_name(partition).unwrap_or_else(|| partition.to_string());
            faults.entry(error.to_string()).or_default().push(name);
        }
    }
    troubles.extend(faults.into_iter().map(|(error, names)| {
        let (shown, more) = names.split_at(names.len().min(NAMES_SHOWN));
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        format!("partition {}{more} of the log: {error}", shown.join(", "))
    }));
    troubles
}

/// Adds the reasons why `projection` is not ready. Only the active version is checked, because
/// readers use no other. If no version is active, all versions are checked.
fn add_reasons(projection: &ProjectionStatus, reasons: &mut Vec<String>) {
    let serving = projection.active.as_ref();
    let watched = projection.versions.iter().filter(|v| serving.is_none_or(|id| *id == v.id));
    for version in watched {
        for shard in &version.shards {
            if matches!(shard.activity.as_str(), "halted" | "faulted") {
                let why = shard.reason.as_deref().or(version.reason.as_deref()).unwrap_or("?");
                reasons.push(format!(
                    "`{}` version {} is {} on partition {} at offset {}: {why}",
                    projection.name, version.id, shard.activity, shard.partition, shard.next
                ));
            }
        }
    }
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, body = String)))]
pub(crate) async fn metrics(State(app): State<Shared>) -> Result<Response, Problem> {
    let text = app
        .blocking(|app| {
            app.metrics.run_upkeep();
            let mut text = app.metrics.render();
            shard_metrics::write(&app.engine.status(), &mut text);
            process::write(&mut text);
            process::write_disk(&app.config.data, &mut text);
            Ok(text)
        })
        .await?;
    let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, media)], text).into_response())
}

/// Shows the log's partitions.
#[utoipa::path(get, path = "/v1/status", tag = "server", responses((status = 200, body = ServerStatus)))]
pub(crate) async fn status(State(app): State<Shared>) -> Result<Json<ServerStatus>, Problem> {
    let status = |app: &App| {
        let projections = app.engine.status();
        let ahead = |partition: u32| {
            let shards = projections.iter().flat_map(|p| &p.versions).flat_map(|v| &v.shards);
            let named =
                shards.filter(|s| s.partition == partition).filter_map(|s| s.ahead_last.clone());
            named.max_by_key(|event| event.offset).map(wire::ahead_event)
        };
        let partitions = (0..app.log.partitions()).map(|partition| {
            let bounds = app.log.bounds(PartitionId(partition)).ok();
            let time = bounds.map(|bounds| bounds.max_time);
            PartitionStatus {
                partition,
                name: app.log.partition_name(PartitionId(partition)),
                start: bounds.map(|bounds| bounds.start.0),
                end: bounds.map(|bounds| bounds.end.0),
                ahead: ahead(partition),
                event_time_us: time.filter(|t| *t != lantern_core::Timestamp::MIN).map(|t| t.0),
            }
        });
        Ok(ServerStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            partitions: partitions.collect(),
            troubles: troubles(app).into_iter().chain(app.log.warnings()).collect(),
            feed_sessions: app.hub.sessions(),
        })
    };
    app.blocking(status).await.map(Json)
}

/// Lists the settings with which the server runs.
///
/// Values that may be secret are not shown.
#[utoipa::path(get, path = "/v1/settings", tag = "server",
    responses((status = 200, body = ServerSettings)))]
pub(crate) async fn settings(State(app): State<Shared>) -> Result<Json<ServerSettings>, Problem> {
    match crate::settings::list(&app.config) {
        Ok(settings) => Ok(Json(ServerSettings { settings })),
        Err(error) => Err(Problem::new("LAN-0413", format!("a setting cannot be shown: {error}"))),
    }
}

/// Explains an error code.
#[utoipa::path(get, path = "/v1/errors/{code}", tag = "server", params(("code" = String, Path)),
    responses((status = 200, body = ErrorCode), (status = 404, body = Problem)))]
pub(crate) async fn error_page(Names(code): Names<String>) -> Result<Json<ErrorCode>, Problem> {
    let known = find(&code);
    let none = || Problem::new("LAN-0401", format!("there is no error code `{code}`"));
    let Code { code, status, title, help } = *known.ok_or_else(none)?;
    Ok(Json(ErrorCode { code: code.into(), status, title: title.into(), help: help.into() }))
}
