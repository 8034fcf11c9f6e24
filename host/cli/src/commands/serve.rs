//! Implements `lantern serve`, which runs the server. `lantern demo` uses the same code.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use lantern_server::{LogFormat, Server, ServerConfig, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{Exit, Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern serve
  lantern serve --data /var/lib/lantern --listen 127.0.0.1:7420
  lantern serve --config lantern.toml --log-format json
  lantern serve --log kafka://localhost:9092/orders
  lantern serve --set engine.threads=2 --set log.retention_age_seconds=2592000
  LANTERN_HTTP__LISTEN=127.0.0.1:8000 lantern serve

Settings come from flags, then the environment (LANTERN_SECTION__KEY), then
lantern.toml, then defaults. Ctrl-C or SIGTERM stops it cleanly; a second one stops it at once.")]
pub(crate) struct Args {
    /// The folder in which the server stores everything [default: data].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The options that `serve`, `demo` and `dev` share.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// The log: `kafka://HOST:PORT/TOPIC`, with several hosts or topics separated by
    /// commas [default: embedded].
    #[arg(long, value_name = "ADDRESS")]
    log: Option<String>,
    /// Where to listen; port 0 selects a free port [default: 127.0.0.1:7420].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The settings file [default: lantern.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another setting, such as `engine.threads=2`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// The format of log lines.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    log_format: Format,
    /// Which messages to log: a level, or several `target=level` separated by commas.
    /// [default: info]
    #[arg(long, value_name = "FILTER", env = "LANTERN_LOG")]
    log_filter: Option<String>,
}

impl Settings {
    /// Logs only warnings and errors, unless the command line sets another filter.
    pub(super) fn log_warnings_only(&mut self) {
        self.log_filter.get_or_insert_with(|| "warn".to_owned());
    }

    /// Sets that interpreters are compiled only when source code needs them. `--set` has priority
    /// over this.
    pub(super) fn compile_only_when_needed(&mut self) {
        self.set.insert(0, ("plugin.compile_interpreters".to_owned(), "false".to_owned()));
    }

    /// Sets that the determinism check of an upload uses `events` events. `--set` has priority over
    /// this.
    pub(super) fn check_events(&mut self, events: u32) {
        self.set.insert(0, ("engine.check_events".to_owned(), events.to_string()));
    }

    /// Keeps compiled plugins in `folder`, unless `--set` names another folder.
    pub(super) fn keep_compiled_in(&mut self, folder: &Path) {
        self.set.insert(0, ("plugin.cache_dir".to_owned(), quoted(&folder.to_string_lossy())));
    }
}

/// The format of log lines.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("give it as `section.key=value`".into()),
    }
}

/// Runs the server until Ctrl-C or SIGTERM.
pub(crate) fn run(args: Args, json: bool) -> Outcome {
    with_server(&args.settings, args.data.as_deref(), json, async |_| std::future::pending().await)
}

/// Starts the server, and calls `work` with its address. The server runs until `work` fails or the
/// process receives a signal to end. Then it stops in an orderly way.
pub(super) fn with_server(
    settings: &Settings,
    data: Option<&Path>,
    json: bool,
    work: impl AsyncFnOnce(String) -> Outcome,
) -> Outcome {
    let format = match settings.log_format {
        Format::Human => LogFormat::Human,
        Format::Json => LogFormat::Json,
    };
    lantern_server::init_tracing(format, settings.log_filter.as_deref().unwrap_or("info"))
        .map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
    let mut flags = settings.set.clone();
    flags.extend(data.map(|data| ("data".to_owned(), quoted(&data.to_string_lossy()))));
    flags.extend(settings.listen.map(|at| ("http.listen".to_owned(), quoted(&at.to_string()))));
    if let Some(log) = &settings.log {
        flags.extend(of_log(log)?);
    }
    let config = ServerConfig::load(settings.config.as_deref(), &flags)
        .map_err(|error| failed(error.into()))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?
        .block_on(serve(config, json, work))
}

/// Converts the address of a log to settings, and returns these.
fn of_log(address: &str) -> Outcome<Vec<(String, String)>> {
    let (servers, topics) = lantern_server::kafka_address(address)
        .map_err(|error| failed(StartError::Config(error)))?;
    let topics: Vec<_> = topics.iter().map(|topic| quoted(topic)).collect();
    Ok(vec![
        ("log.kafka.servers".to_owned(), quoted(&servers)),
        ("log.kafka.topics".to_owned(), format!("[{}]", topics.join(", "))),
    ])
}

/// Writes `text` as a string in TOML.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

async fn serve(
    config: ServerConfig,
    json: bool,
    work: impl AsyncFnOnce(String) -> Outcome,
) -> Outcome {
    // This is created before the server starts, so that no signal is lost while it starts.
    let mut stop = Stop::new()?;
    let data = config.data.clone();
    let server = Server::start(config).await.map_err(failed)?;
    let address = format!("http://{}", server.address());
    // When `running` is dropped, the server stops.
    let (running, stopped) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(server.run_until(async {
        // Nothing is ever sent, so this waits until `running` is dropped.
        let _ = stopped.await;
    }));
    if json {
        output::json(&serde_json::json!({"listening": address, "data": data}));
    } else {
        output::line(format!("lantern listens on {address}, data in {}", data.display()));
    }
    let ended = tokio::select! {
        ended = work(address) => ended,
        () = stop.asked() => Ok(()),
        _ = &mut serving => return Err(Failure::new(Exit::Failure, "the server stopped unexpectedly")),
    };
    output::note(json, "stopping; Ctrl-C again stops it at once");
    drop(running);
    tokio::select! {
        stopped = serving => match stopped {
            Ok(()) => ended,
            Err(panic) => Err(anyhow::Error::from(panic).into()),
        },
        () = stop.asked() => std::process::exit(Exit::Interrupted as i32),
    }
}

pub(super) fn failed(error: StartError) -> Failure {
    let exit = match error {
        StartError::Config(_) | StartError::Public(_) => Exit::Refused,
        _ => Exit::Failure,
    };
    Failure::new(exit, error.to_string()).code(error.code()).help(error.help())
}

/// Receives the signals that ask the process to end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(anyhow::Error::from);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_keys_with_values() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(setting("engine.threads=2"), Ok(pair("engine.threads", "2")));
        assert_eq!(setting("a=b=c"), Ok(pair("a", "b=c")));
        assert!(setting("=2").is_err());
        assert!(setting("x").is_err());
    }
}
