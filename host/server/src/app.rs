//! Holds the state of the server that requests and jobs share.

use std::sync::Arc;
use std::thread::available_parallelism;

use http::HeaderMap;
use lantern_core::{Appended, Documents, Events, Log, LogError};
use lantern_engine::Engine;
use lantern_live::Hub;
use lantern_query::{Cancel, QueryConfig};
use lantern_traces::{IngestTrace, RequestTrace, Tracer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::append_health::AppendHealth;
use crate::boards::Boards;
use crate::config::ServerConfig;
use crate::disk_probe::DiskProbe;
use crate::log_services::LogServices;
use crate::plugins::Plugins;
use crate::problem::Problem;

/// The state that every request and every job may use.
pub(crate) struct App {
    pub(crate) config: ServerConfig,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) log_services: LogServices,
    pub(crate) engine: Arc<Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) plugins: Arc<Plugins>,
    /// Named queries.
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) boards: Boards,
    pub(crate) metrics: PrometheusHandle,
    /// Records traces of events; `None` if the settings name no collector.
    pub(crate) traces: Option<Arc<Tracer>>,
    pub(crate) signals: Signals,
    pub(crate) permits: Permits,
    pub(crate) health: Health,
    pub(crate) tasks: Tasks,
}

/// The state, as the functions that answer requests get it.
pub(crate) type Shared = Arc<App>;

/// Signals that wake requests which wait for new events or commits.
pub(crate) struct Signals {
    /// Signals each append.
    pub(crate) appended: watch::Receiver<()>,
    /// Signals each commit of an active version, and each activation.
    pub(crate) committed: watch::Receiver<()>,
}

/// Limits how much work of requests is done at the same time.
pub(crate) struct Permits {
    /// Permits for reads of tables by key, and of the log.
    pub(crate) reads: Semaphore,
    /// Permits for queries, which filter, order or group the rows of a table.
    pub(crate) queries: Arc<Semaphore>,
    /// Permits for exports of tables.
    pub(crate) exports: Arc<Semaphore>,
    /// Permits to wait for a permit of `queries`.
    pub(crate) waiting_queries: Semaphore,
    /// Permits for large bodies in memory.
    pub(crate) bodies: Arc<Semaphore>,
    /// Permits for compressed bodies that are being read.
    pub(crate) unpacking: Arc<Semaphore>,
    /// Permits for folds of the log for requests.
    pub(crate) replays: Arc<Semaphore>,
}

impl Permits {
    /// Creates the permits that the settings allow.
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let ServerConfig { http, query, replay, .. } = config;
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            reads: Semaphore::new(http.queries_max),
            queries: Arc::new(Semaphore::new(query.threads_on(cores))),
            exports: Arc::new(Semaphore::new(query.exports_max)),
            waiting_queries: Semaphore::new(query.waiting_max),
            bodies: Arc::new(Semaphore::new(http.bodies_max)),
            unpacking: Arc::new(Semaphore::new(http.bodies_max)),
            replays: Arc::new(Semaphore::new(replay.at_once_max)),
        }
    }
}

/// What readiness checks in addition to the log and the engine.
pub(crate) struct Health {
    /// Whether the log accepts events.
    pub(crate) appends: AppendHealth,
    /// Checks whether the data folder can be written.
    pub(crate) disk: DiskProbe,
}

/// The tasks that run, and the signal that ends them.
#[derive(Default)]
pub(crate) struct Tasks {
    /// The tasks of the feed's sessions.
    pub(crate) feeds: TaskTracker,
    /// The verification in progress, and the folds of the log for requests.
    pub(crate) verifications: TaskTracker,
    /// Is cancelled when the server begins to stop.
    pub(crate) stopping: CancellationToken,
}

fn stopping() -> Problem {
    Problem::new("LAN-0215", "the server is shutting down")
}

/// Cancels a query when its caller no longer waits for it.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl App {
    /// Runs `read`, which reads a table or the log, on a thread that may block. At most
    /// `http.queries_max` reads run at the same time.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let _permit = self.permits.reads.acquire().await.map_err(|_| stopping())?;
        self.blocking(read).await
    }

    /// Runs a query of a table on a thread that may block. At most `query.threads` queries run at
    /// the same time, and at most `query.waiting_max` wait. If the returned future is dropped, the
    /// query is cancelled.
    pub(crate) async fn query<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self, &Cancel) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = self.query_permit().await?;
        let cancel = CancelOnDrop(Cancel::default());
        let cancelled = cancel.0.clone();
        self.blocking(move |app| {
            // The permit is held until the query has ended, even if the caller no longer waits.
            let _permit = permit;
            read(app, &cancelled)
        })
        .await
    }

    /// Returns the permit of an export. The stream of the export holds the permit until it ends.
    pub(crate) fn export_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.permits.exports).try_acquire_owned().map_err(|_| {
            let QueryConfig { exports_max, .. } = self.config.query;
            let detail = format!(
                "{exports_max} exports are running: the limit is {exports_max} (`query.exports_max`)"
            );
            Problem::new("LAN-0429", detail)
        })
    }

    async fn query_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let queries = &self.permits.queries;
        if let Ok(permit) = Arc::clone(queries).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = self.permits.waiting_queries.try_acquire().map_err(|_| {
            let QueryConfig { waiting_max, .. } = self.config.query;
            let detail = format!(
                "all threads for queries (`query.threads`) are busy and {waiting_max} queries wait: the limit is {waiting_max} (`query.waiting_max`)"
            );
            Problem::new("LAN-0429", detail)
        })?;
        Arc::clone(queries).acquire_owned().await.map_err(|_| stopping())
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

    /// Notes that a request begins that may bring events. Returns `None` if no traces are recorded.
    pub(crate) fn request_trace(&self, headers: &HeaderMap) -> Option<RequestTrace> {
        let traces = self.traces.as_ref()?;
        let header = headers.get("traceparent").and_then(|value| value.to_str().ok());
        Some(traces.request(header))
    }

    /// Notes that the events of `request` are about to be appended. Returns `None` if none of them
    /// is traced.
    pub(crate) fn ingest_trace(
        &self,
        request: Option<RequestTrace>,
        events: &Events,
    ) -> Option<IngestTrace> {
        self.traces.as_ref()?.ingest(request?, events)
    }

    /// Appends `events` of `request`, and waits until they are durable.
    pub(crate) async fn append(
        &self,
        request: Option<RequestTrace>,
        events: Events,
    ) -> Result<Appended, LogError> {
        let trace = self.ingest_trace(request, &events);
        let (done, appended) = oneshot::channel();
        self.log.append(
            events,
            Box::new(move |result| {
                // If the client has disconnected, there is no receiver. The events stay in the log.
                let _ = done.send(result);
            }),
        );
        let appended = appended.await.unwrap_or(Err(LogError::Closed));
        self.health.appends.note(&appended);
        if let Some(trace) = trace {
            trace.end(&appended);
        }
        appended
    }

    /// Refuses the request if the server is shutting down.
    pub(crate) fn check_open(&self) -> Result<(), Problem> {
        if self.tasks.stopping.is_cancelled() {
            return Err(stopping());
        }
        Ok(())
    }
}
