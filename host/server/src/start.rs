//! Starts all parts of the server, and stops them in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lantern_core::{StateStores, StoreError};
use lantern_engine::{Engine, EngineError, Ports};
#[cfg(feature = "kafka")]
use lantern_kafka::KafkaLog;
use lantern_live::{Hub, Lag};
use lantern_log::{EmbeddedLog, OpenError};
use lantern_plugin::PluginHost;
use lantern_store::{CatalogFile, PluginFiles, StateDir};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, App};
use crate::config::{ConfigError, ServerConfig};
use crate::data::DataDir;
use crate::disk_probe::DiskProbe;
use crate::log::ChosenLog;
use crate::plugins::Plugins;
use crate::ports::{Commits, SystemClock, SystemRandom};
use crate::{codes, telemetry, upkeep, verify};

/// How much lower the priority of threads is that fold slow projections: if other
/// threads want the whole processor, they still get a tenth of it.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Why the server does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process has the data folder open.
    #[error("the data folder `{}` is in use by {}", path.display(), process(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process, if known.
        pid: Option<u32>,
    },
    /// Without authentication every machine in reach could do everything.
    #[error(
        "`{0}` can be reached from other machines, and this server has no authentication: \
         it listens on loopback addresses only"
    )]
    Public(SocketAddr),
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on `{address}`: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        reason: String,
    },
    /// The data folder, or something in it, cannot be opened.
    #[error("cannot open `{}`: {reason}", path.display())]
    Data {
        /// Its path.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The folder belongs to another log.
    #[error(
        "the data folder belongs to {made} (`{}`), but the settings name {asked}: its state is that of another log",
        path.display()
    )]
    OtherLog {
        /// The file that shows it.
        path: PathBuf,
        /// The log that the folder belongs to.
        made: &'static str,
        /// The log that the settings name.
        asked: &'static str,
    },
    /// The Kafka log cannot be opened.
    #[error("{0}")]
    Kafka(String),
}

impl StartError {
    /// The stable code of this error in the documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "LAN-0001",
            Self::InUse { .. } => "LAN-0002",
            Self::Public(_) => "LAN-0003",
            Self::Listen { .. } => "LAN-0004",
            Self::Data { .. } => "LAN-0005",
            Self::OtherLog { .. } => "LAN-0006",
            Self::Kafka(_) => "LAN-0007",
        }
    }

    /// What to do about it, in one sentence.
    #[must_use]
    pub fn help(&self) -> &'static str {
        codes::find(self.code()).map_or("", |code| code.help)
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// A server that folds and listens.
pub struct Server {
    app: Arc<App>,
    log: ChosenLog,
    listener: TcpListener,
    address: SocketAddr,
    // The last field, so that the folder is unlocked only when everything in it is
    // closed.
    data: DataDir,
}

impl Server {
    /// Opens the data folder, starts folding, and listens. Requests are answered once
    /// [`Server::run_until`] runs.
    ///
    /// # Errors
    /// [`StartError`]; everything that was opened is closed in this case.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        config.check()?;
        let address = config.http.listen;
        if !address.ip().is_loopback() {
            return Err(StartError::Public(address));
        }
        let refused =
            |error: std::io::Error| StartError::Listen { address, reason: error.to_string() };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let opened = tokio::task::spawn_blocking(move || open(config)).await;
        let (app, log, data) = opened.unwrap_or_else(|panicked| {
            Err(StartError::Data { path: PathBuf::new(), reason: panicked.to_string() })
        })?;
        tracing::info!(%address, "listening");
        Ok(Self { app, log, listener, address, data })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for tools in the same process. All its methods may block.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.app.engine
    }

    /// Serves until `shutdown` is ready. Then it refuses new events, ends the feeds
    /// with 4501, commits all folded events, and closes the log.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { app, log, listener, data, .. } = self;
        let stopping = app.stopping.clone();
        let tasks = TaskTracker::new();
        tasks.spawn(upkeep::retention(Arc::clone(&app), log.clone(), stopping.clone()));
        tasks.spawn(upkeep::instances(Arc::clone(&app), stopping.clone()));
        #[cfg(feature = "kafka")]
        if let Some(kafka) = &app.kafka {
            tasks.spawn(upkeep::positions(Arc::clone(&app), log.clone(), stopping.clone()));
            if kafka.takes_dead_letters() {
                let (app, kafka) = (Arc::clone(&app), Arc::clone(kafka));
                let file = data.dead_letters();
                tasks.spawn(crate::dead_letters::copy(app, kafka, file, stopping.clone()));
            }
        }
        if app.config.upkeep.heartbeats {
            tasks.spawn(upkeep::heartbeats(Arc::clone(&app), log.clone(), stopping.clone()));
        }
        if app.config.verify.every_hours > 0 {
            tasks.spawn(verify::at_times(Arc::clone(&app)));
        }
        tasks.close();
        let router = api::router(Arc::clone(&app));
        let serving = tokio::spawn({
            let (http, stopping) = (app.config.http.clone(), stopping.clone());
            async move { api::serve(listener, router, &http, stopping).await }
        });
        shutdown.await;
        tracing::info!("shutting down");
        stopping.cancel();
        if serving.await.is_err() {
            tracing::error!("the HTTP server panicked");
        }
        app.feeds.close();
        let patience = Duration::from_millis(app.config.http.shutdown_ms_max);
        if tokio::time::timeout(patience, app.feeds.wait()).await.is_err() {
            tracing::warn!(left = app.feeds.len(), "feeds were cut off at shutdown");
        }
        tasks.wait().await;
        app.verifications.close();
        app.verifications.wait().await;
        let closed = tokio::task::spawn_blocking(move || {
            app.engine.shutdown();
            upkeep::report_offsets(&app.engine, &log);
            log.close();
            drop(app);
            drop(data);
        });
        if closed.await.is_err() {
            tracing::error!(
                "closing panicked: events that were not committed are folded again at the next start"
            );
        }
        tracing::info!("stopped");
    }
}

/// Opens everything, and starts the engine's threads.
pub(crate) fn open(config: ServerConfig) -> Result<(Arc<App>, ChosenLog, DataDir), StartError> {
    let metrics = telemetry::metrics();
    let data = DataDir::open(&config.data)?;
    let log = choose(&config, &data)?;
    let port = log.port();
    let stores = StateDir::open(data.state(), config.store.clone());
    let stores: Arc<dyn StateStores> = Arc::new(stores.map_err(store_error(data.state()))?);
    let catalog = CatalogFile::open(data.catalog()).map_err(store_error(data.catalog()))?;
    let files = PluginFiles::open(data.plugins()).map_err(store_error(data.plugins()))?;
    let mut plugin = config.plugin.clone();
    plugin.cache_dir.get_or_insert_with(|| data.cache());
    let host = PluginHost::new(plugin)
        .map_err(|error| StartError::Data { path: data.cache(), reason: error.to_string() })?;
    let plugins = Arc::new(Plugins::new(files, host, Arc::clone(&stores)));
    let commits = Arc::new(Commits::new(log.clone()));
    let ports = Ports {
        log: Arc::clone(&port),
        stores,
        catalog: Arc::new(catalog),
        publish: Arc::<Commits>::clone(&commits),
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        plugins: Arc::<Plugins>::clone(&plugins),
    };
    let engine = Engine::open(config.engine.clone(), ports).map_err(engine_error(&config))?;
    let lag = {
        let engine = Arc::clone(&engine);
        move |name: &str| engine.lag(name).map(|(events, ms)| Lag { events, ms })
    };
    let hub = Hub::new(Arc::<Engine>::clone(&engine), Arc::new(lag), config.live.clone());
    commits.connect(&hub);
    let appended = watch::Sender::new(());
    let readers = appended.subscribe();
    port.on_append(Arc::new(move |_, _| {
        appended.send_replace(());
    }));
    if let Err(error) = plugins.sweep(&engine) {
        tracing::warn!(%error, "unused plugins could not be removed");
    }
    engine.start_with(give_way);
    let app = App {
        #[cfg(feature = "kafka")]
        kafka: log.kafka().cloned(),
        log: port,
        engine,
        hub,
        plugins,
        metrics,
        appended: readers,
        committed: commits.changed(),
        queries: Semaphore::new(config.http.queries_max),
        bodies: Arc::new(Semaphore::new(config.http.bodies_max)),
        unpacking: Arc::new(Semaphore::new(config.http.bodies_max)),
        append_fault: Mutex::default(),
        probe: DiskProbe::new(data.probe()),
        feeds: TaskTracker::new(),
        verifications: TaskTracker::new(),
        stopping: CancellationToken::new(),
        config,
    };
    Ok((Arc::new(app), log, data))
}

/// Opens the log that the settings name. A data folder belongs to the log with which it
/// was created: its offsets mean nothing in another log.
fn choose(config: &ServerConfig, data: &DataDir) -> Result<ChosenLog, StartError> {
    #[cfg(feature = "kafka")]
    if config.kafka.is_on() {
        if data.log().exists() {
            return Err(StartError::OtherLog {
                path: data.log(),
                made: "the embedded log",
                asked: "Kafka",
            });
        }
        let log = KafkaLog::open(data.kafka(), config.kafka.clone());
        return Ok(ChosenLog::Kafka(Arc::new(log.map_err(kafka_error)?)));
    }
    if data.kafka().exists() {
        return Err(StartError::OtherLog {
            path: data.kafka(),
            made: "Kafka",
            asked: "the embedded log",
        });
    }
    let log = EmbeddedLog::open(data.log(), config.log.clone()).map_err(log_error(data.log()))?;
    Ok(ChosenLog::Embedded(Arc::new(log)))
}

#[cfg(feature = "kafka")]
fn kafka_error(error: lantern_kafka::OpenError) -> StartError {
    use lantern_kafka::OpenError;
    match error {
        OpenError::Setting(error) => {
            StartError::Config(ConfigError(format!("in section `log.kafka`: {error}")))
        }
        OpenError::Data { path, reason } => StartError::Data { path, reason },
        other => StartError::Kafka(other.to_string()),
    }
}

fn log_error(path: PathBuf) -> impl FnOnce(OpenError) -> StartError {
    move |error| match error {
        OpenError::InUse(path) => StartError::InUse { path, pid: None },
        OpenError::Setting { .. } => StartError::Config(ConfigError(error.to_string())),
        other => StartError::Data { path, reason: other.to_string() },
    }
}

fn store_error(path: PathBuf) -> impl FnOnce(StoreError) -> StartError {
    move |error| match error {
        StoreError::InUse(path) => StartError::InUse { path: path.into(), pid: None },
        other => StartError::Data { path, reason: other.to_string() },
    }
}

fn engine_error(config: &ServerConfig) -> impl FnOnce(EngineError) -> StartError {
    let path = config.data.clone();
    move |error| StartError::Data { path, reason: error.to_string() }
}

/// Lowers the priority of the calling thread, which folds slow projections. Otherwise
/// each of its steps would take a processor for milliseconds from the threads that
/// answer requests, sync and serve readers.
#[cfg(target_os = "linux")]
fn give_way() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "the priority of a folding thread could not be lowered");
    }
}

/// On other systems a priority applies to the whole process.
#[cfg(not(target_os = "linux"))]
fn give_way() {}
