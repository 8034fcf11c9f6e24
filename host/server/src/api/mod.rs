//! The HTTP API: one module per resource, and the code that they share.

mod conditional;
mod connection;
mod cors;
mod description;
mod drain_body;
mod encoding;
pub(crate) mod events;
mod export_attributes;
mod feed;
mod health;
mod ingest;
mod origin_check;
mod page;
mod params;
pub(crate) mod parked;
mod projections;
mod reserved_connections;
mod serve;
mod shard_metrics;
mod stream;
pub(crate) mod tables;
mod trace;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use lantern_core::{Events, Log, LogError, Timestamp};
use lantern_engine::Engine;
use lantern_live::Hub;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{HttpConfig, ServerConfig};
use crate::disk_probe::DiskProbe;
use crate::plugins::Plugins;
use crate::problem::Problem;

pub(crate) use serve::serve;

/// The largest body of a request that only names something.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a failed append counts against the server's readiness. Without a limit a
/// server to which no client appends would never become ready again.
const APPEND_FAULT: Duration = Duration::from_secs(30);

/// The state that every request may use.
pub(crate) struct App {
    pub(crate) config: ServerConfig,
    pub(crate) log: Arc<dyn Log>,
    /// The same log, if it is on Kafka.
    #[cfg(feature = "kafka")]
    pub(crate) kafka: Option<Arc<lantern_kafka::KafkaLog>>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) metrics: PrometheusHandle,
    /// Changes with every append.
    pub(crate) appended: watch::Receiver<()>,
    /// Changes with every commit of an active version, and with every activation.
    pub(crate) committed: watch::Receiver<()>,
    /// Permits for reads of tables and of the log.
    pub(crate) queries: Semaphore,
    /// Permits for large bodies that are held in memory.
    pub(crate) bodies: Arc<Semaphore>,
    /// Permits for packed bodies that are being read.
    pub(crate) unpacking: Arc<Semaphore>,
    /// When and why the log last refused events; reset when it accepts some again.
    pub(crate) append_fault: Mutex<Option<(Instant, String)>>,
    /// Whether the data folder can be written.
    pub(crate) probe: DiskProbe,
    /// Sessions of the feed.
    pub(crate) feeds: TaskTracker,
    /// The verifications in progress; at most one.
    pub(crate) verifications: TaskTracker,
    /// Cancelled when the server begins to stop.
    pub(crate) stopping: CancellationToken,
}

/// The state that handlers get.
pub(crate) type Shared = Arc<App>;

/// The API's description; the macros on the handlers add the paths.
#[derive(OpenApi)]
#[openapi(
    // utoipa does not find the types of parameters by itself.
    components(schemas(tables::Order)),
    info(
        title = "Lantern",
        description = "Projections of event logs: send events, upload plugins, read tables. \
                       Every error is a problem (RFC 9457) with a stable code.",
    ),
    tags(
        (name = "events", description = "The log."),
        (name = "projections", description = "Plugins, their versions and parked events."),
        (name = "tables", description = "The rows of projections."),
        (name = "server", description = "Health, metrics and errors."),
    ),
)]
struct Api;

/// The routes of the API, and their description.
fn routes() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    // A form is read completely, up to a limit of its own, before it is split into
    // parts.
    let uploads = OpenApiRouter::new()
        .routes(routes!(upload::upload_named))
        .routes(routes!(upload::upload))
        .routes(routes!(upload::check))
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::with_openapi(Api::openapi())
        .merge(uploads)
        .routes(routes!(ingest::append, events::read))
        .routes(routes!(projections::list))
        .routes(routes!(projections::show, projections::delete))
        .routes(routes!(projections::show_version, projections::delete_version))
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
        .routes(routes!(feed::connect))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::status))
        .routes(routes!(health::error_page))
        .split_for_parts()
}

/// The OpenAPI document of a server with these settings.
#[must_use]
pub fn openapi(config: &HttpConfig) -> serde_json::Value {
    description::complete(&routes().1, config)
}

/// All routes.
pub(crate) fn router(app: Shared) -> Router {
    let (router, api) = routes();
    let api = Bytes::from(description::complete(&api, &app.config.http).to_string());
    let media = [(CONTENT_TYPE, "application/json")];
    let openapi = axum::routing::get(move || async move { (media, api) });
    router
        .route("/v1/openapi.json", openapi)
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), encoding::unpack))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), cors::options))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), origin_check::check))
        .layer(middleware::from_fn(reserved_connections::check))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), cors::share))
        .layer(middleware::from_fn(drain_body::drain))
        .layer(middleware::from_fn(trace::request))
        .layer(DefaultBodyLimit::max(SMALL_BODY_BYTES_MAX))
        .with_state(app)
}

async fn not_found(uri: http::Uri) -> Problem {
    Problem::new("LAN-0401", format!("there is nothing at `{}`", uri.path()))
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> Problem {
    Problem::new("LAN-0402", format!("`{}` does not accept {method}", uri.path()))
}

impl App {
    /// Runs `read` on a thread that may block. At most `http.queries_max` run
    /// at a time.
    pub(crate) async fn query<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let _permit = self
            .queries
            .acquire()
            .await
            .map_err(|_| Problem::new("LAN-0215", "the server is shutting down"))?;
        self.blocking(read).await
    }

    /// Runs `work` on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let app = Arc::clone(self);
        let span = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || span.in_scope(|| work(&app)));
        done.await.unwrap_or_else(|panicked| {
            Err(Problem::new("LAN-0413", format!("a request ended unexpectedly: {panicked}")))
        })
    }

    /// Appends `events`, and waits until they are durable.
    pub(crate) async fn append(&self, events: Events) -> Result<lantern_core::Appended, LogError> {
        let (done, appended) = oneshot::channel();
        self.log.append(
            events,
            Box::new(move |result| {
                // The receiver is gone if the client disconnected; the events stay in
                // the log.
                let _ = done.send(result);
            }),
        );
        let appended = appended.await.unwrap_or(Err(LogError::Closed));
        self.note_append(&appended);
        appended
    }

    /// Remembers whether the log accepts events.
    pub(crate) fn note_append<T>(&self, appended: &Result<T, LogError>) {
        let mut fault = self.append_fault.lock();
        match appended {
            Ok(_) => *fault = None,
            // The event is the cause, and the log accepts others.
            Err(LogError::Rejected { .. }) => {}
            Err(error) => *fault = Some((Instant::now(), error.to_string())),
        }
    }

    /// Why the log accepts no events, if it refused some recently.
    pub(crate) fn append_fault(&self) -> Option<String> {
        let fault = self.append_fault.lock();
        fault.as_ref().filter(|(at, _)| at.elapsed() < APPEND_FAULT).map(|(_, why)| why.clone())
    }

    /// Retries the parked events that the dead-letter topic names. Blocks.
    pub(crate) fn resend(&self, from_beginning: bool) -> Result<parked::ResendResult, Problem> {
        #[cfg(feature = "kafka")]
        if let Some(log) = self.kafka.as_ref().filter(|log| log.takes_dead_letters()) {
            return crate::dead_letters::resend(self, log, from_beginning);
        }
        let from = if from_beginning { "the beginning" } else { "the last call's end" };
        Err(Problem::new("LAN-0219", format!("there is no dead-letter topic to read from {from}")))
    }

    /// Refuses work if the server is shutting down.
    pub(crate) fn check_open(&self) -> Result<(), Problem> {
        if self.stopping.is_cancelled() {
            return Err(Problem::new("LAN-0215", "the server is shutting down"));
        }
        Ok(())
    }
}

/// The current wall-clock time.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}
