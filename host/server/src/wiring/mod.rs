//! Connects the parts of the server, starts them, and stops them in order. Each part is opened by a
//! module of its own. Only these modules name the implementations of the ports.

mod configured_log;
mod engine;
mod feed;
mod http;
#[cfg_attr(not(feature = "kafka"), path = "no_kafka.rs")]
pub(crate) mod kafka;
mod log;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lantern_engine::Engine;
use lantern_traces::Tracer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::app::{App, Health, Permits, Signals, Tasks};
use crate::append_health::AppendHealth;
use crate::boards::Boards;
use crate::commits::Commits;
use crate::config::ServerConfig;
use crate::data::DataDir;
use crate::disk_probe::DiskProbe;
use crate::start_error::StartError;
use crate::{jobs, telemetry};

/// A server that has been started.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    // The last field, which is dropped last. So the folder is unlocked only after everything in it
    // is closed.
    data: DataDir,
}

impl Server {
    /// Opens the data folder, starts folding, and listens. Requests are answered once
    /// [`Server::run_until`] runs.
    ///
    /// # Errors
    /// Returns [`StartError`] if the server cannot start. Everything that was opened is then
    /// closed.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        config.check()?;
        let (listener, address) = http::listen(&config).await?;
        let opened = tokio::task::spawn_blocking(move || open(config)).await;
        let (app, data) =
            opened.unwrap_or_else(|panicked| Err(StartError::data(PathBuf::new(), panicked)))?;
        tracing::info!(%address, "the server is listening");
        Ok(Self { app, listener, address, data })
    }

    /// Returns the address on which the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the engine, for tools in the same process. All its methods may block.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.app.engine
    }

    /// Serves until `shutdown` is ready. Then the server refuses new events, ends the feeds
    /// with 4501, commits all folded events, and closes the log.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { app, listener, data, .. } = self;
        let tasks = TaskTracker::new();
        jobs::start(&tasks, &app, &data);
        tasks.close();
        let serving = http::serve(&app, listener);
        shutdown.await;
        tracing::info!("the server is shutting down");
        app.tasks.stopping.cancel();
        app.plugins.stop_compiling();
        if serving.await.is_err() {
            tracing::error!("the HTTP server panicked");
        }
        let feeds = &app.tasks.feeds;
        feeds.close();
        let patience = Duration::from_millis(app.config.http.shutdown_ms_max);
        if tokio::time::timeout(patience, feeds.wait()).await.is_err() {
            tracing::warn!(left = feeds.len(), "feeds were cut off at shutdown");
        }
        tasks.wait().await;
        app.tasks.verifications.close();
        app.tasks.verifications.wait().await;
        let closed = tokio::task::spawn_blocking(move || {
            app.engine.shutdown();
            jobs::note_last_offsets(&app);
            app.log_services.closing.close();
            drop(app);
            drop(data);
        });
        if closed.await.is_err() {
            tracing::error!(
                "closing panicked: events that were not committed are folded again at the next start"
            );
        }
        tracing::info!("the server has stopped");
    }
}

/// Opens all parts of the server, and starts the engine's threads.
pub(crate) fn open(config: ServerConfig) -> Result<(Arc<App>, DataDir), StartError> {
    let metrics = telemetry::metrics();
    let data = DataDir::open(&config.data)?;
    let configured_log::ConfiguredLog { log, services } = log::open(&config, &data)?;
    let stores = store::open(&config, &data)?;
    let traces = Tracer::new(&config.tracing);
    let commits = Arc::new(Commits::new(services.offsets.clone(), traces.clone()));
    let engine = engine::open(&config, &log, &stores, &commits, traces.as_ref())?;
    let hub = feed::connect(&config, &engine, &commits, traces.as_ref());
    let appended = watch::Sender::new(());
    let readers = appended.subscribe();
    log.on_append(Arc::new(move |_, _| {
        appended.send_replace(());
    }));
    let (plugins, documents) = (stores.plugins, stores.documents);
    if let Err(error) = plugins.sweep(&engine) {
        tracing::warn!(%error, "unused plugins could not be removed");
    }
    engine::start(&engine);
    let app = App {
        log,
        log_services: services,
        engine,
        hub,
        plugins,
        boards: Boards::new(Arc::clone(&documents), config.boards.clone()),
        documents,
        metrics,
        traces,
        signals: Signals { appended: readers, committed: commits.changed() },
        permits: Permits::new(&config),
        health: Health { appends: AppendHealth::default(), disk: DiskProbe::new(data.probe()) },
        tasks: Tasks::default(),
        config,
    };
    Ok((Arc::new(app), data))
}
