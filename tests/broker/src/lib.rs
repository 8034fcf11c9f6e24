//! Runs a real Kafka broker for tests, demos and benchmarks. `cargo xtask kafka --fetch` downloads
//! Apache Kafka from Maven. The broker is one node that is also its own controller (KRaft). It
//! listens on loopback, has bounded memory, and comes with Kafka's own command-line tools.
//!
//! A broker never outlives the process that started it, even if that process is killed. Between the
//! two processes is a shell, which reads a pipe from the starting process, and ends the broker when
//! the pipe closes. [`Broker::start_with`] can give the writing end of the pipe to another process.

mod process;
mod secured;
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use process::Ending;
use process::Guarded;
use secured::Secured;
pub use secured::{MECHANISMS, PASSWORD, USER};
pub use tools::{Group, Lag, Reading};

/// The name of the file that marks a complete download. It is next to Kafka's jars.
pub const DONE: &str = "kafka.done";

/// The maximum time for the start or the end of a broker, and for the answer of a tool.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The id of the broker's cluster. Kafka expects 16 bytes in base64.
const CLUSTER: &str = "TGFudGVybi10ZXN0cy0wMA";

/// The range from which brokers get their ports. It is below the range that the system uses for
/// outgoing connections. Otherwise a client that looks for a stopped broker could get the broker's
/// port as its own, and connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The settings of every broker: one replica of everything, few threads, no waiting for other
/// members, small buffers.
const SETTINGS: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    // Tests of retention and compaction wait until this delay is over, so it is short.
    ("log.initial.task.delay.ms", "1000"),
    ("log.retention.check.interval.ms", "1000"),
    ("log.cleaner.backoff.ms", "500"),
];

/// The settings with which a broker is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder with Kafka's jars.
    pub libs: PathBuf,
    /// The folder in which the broker stores its topics. `None` creates a folder next to `libs`,
    /// which is removed when the broker has ended.
    pub folder: Option<PathBuf>,
    /// The port on which the broker listens; `None` takes a free one.
    pub port: Option<u16>,
    /// The maximum size of the broker's heap, in MiB.
    pub heap_mib: u32,
    /// Further settings of the broker, for instance `message.max.bytes`.
    pub settings: Vec<(String, String)>,
    /// What happens to the broker when the process that started it has ended.
    pub ending: Ending,
    /// Whether the broker also listens with TLS and SASL.
    pub secured: bool,
}

impl Options {
    /// Returns the options of a broker for a test, with the jars in `libs`.
    #[must_use]
    pub fn new(libs: &Path) -> Self {
        Self {
            libs: libs.into(),
            folder: None,
            port: None,
            heap_mib: 512,
            settings: Vec::new(),
            ending: Ending::Kill,
            secured: false,
        }
    }
}

/// A broker, which may be running or not. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Broker {
    options: Options,
    folder: PathBuf,
    temporary: bool,
    ports: [u16; 2],
    secured: Option<Secured>,
    starts: u32,
    process: Option<Guarded>,
}

impl Broker {
    /// Starts a broker, and formats its storage first if it is new. Returns when the
    /// broker answers.
    ///
    /// # Errors
    /// Fails if it does not start. The error contains its output.
    pub fn start(options: Options) -> Result<Self> {
        Self::start_with(options, None)
    }

    /// Like [`Broker::start`], with a `lifeline`, which is the reading end of a pipe. The broker
    /// runs until the pipe's writing end is closed. Any process may hold the writing end.
    ///
    /// # Errors
    /// See [`Broker::start`].
    pub fn start_with(options: Options, lifeline: Option<std::io::PipeReader>) -> Result<Self> {
        ensure!(
            options.libs.join(DONE).is_file(),
            "there is no Kafka in `{}`: run `cargo xtask kafka --fetch`",
            options.libs.display()
        );
        let temporary = options.folder.is_none();
        let folder = options.folder.clone().unwrap_or_else(|| fresh_folder(&options.libs));
        fs::create_dir_all(&folder).with_context(|| format!("`{}`", folder.display()))?;
        let ports = [options.port.map_or_else(free_port, Ok)?, free_port()?];
        let secured = options.secured.then(Secured::new).transpose()?;
        let mut broker =
            Self { options, folder, temporary, ports, secured, starts: 0, process: None };
        broker.format()?;
        broker.run(lifeline)?;
        Ok(broker)
    }

    /// Returns the broker's address, `127.0.0.1:PORT`. A restart keeps the port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Returns the broker's process id; `None` if the broker does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Guarded::pid)
    }

    /// Returns the folder in which the broker stores its topics.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills the broker (`kill -9`), and waits until it has ended. Does nothing if the
    /// broker does not run.
    ///
    /// # Errors
    /// Fails if it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |process| process.end("kill"))
    }

    /// Asks the broker to end, and waits until it has ended. Does nothing if the broker
    /// does not run.
    ///
    /// # Errors
    /// Fails if it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |process| process.end("stop"))
    }

    /// Starts the broker again with the same topics and port. Returns when it answers.
    ///
    /// # Errors
    /// Fails if it does not start. The error contains its output.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.run(None)
    }

    /// Suspends the broker (`SIGSTOP`): connections stay open, and no request is
    /// answered until [`Broker::thaw`].
    ///
    /// # Errors
    /// Fails if it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("the broker does not run")?.signal("STOP")
    }

    /// Resumes a broker that [`Broker::freeze`] has suspended.
    ///
    /// # Errors
    /// Fails if it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("the broker does not run")?.signal("CONT")
    }

    /// Lets the broker continue after this value is dropped. From now on only the
    /// closing of its lifeline ends it; see [`Broker::start_with`].
    pub fn leave(mut self) {
        // Dropping this value neither ends the broker nor waits for it, because another
        // process holds the broker's lifeline.
        drop(self.process.take());
        self.temporary = false;
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn format(&self) -> Result<()> {
        let [port, controller] = self.ports;
        let mut all: BTreeMap<String, String> =
            SETTINGS.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        all.insert("listeners".into(), listeners);
        all.insert("advertised.listeners".into(), format!("PLAINTEXT://127.0.0.1:{port}"));
        all.insert("controller.quorum.voters".into(), format!("1@127.0.0.1:{controller}"));
        all.insert("log.dirs".into(), self.folder.join("topics").display().to_string());
        if let Some(secured) = self.secured {
            secured.configure(&self.folder, &mut all)?;
        }
        all.extend(self.options.settings.iter().cloned());
        let lines: String = all.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(self.configuration(), lines)?;
        let mut format = self.java("kafka.tools.StorageTool");
        format.args(["format", "--ignore-formatted", "--cluster-id", CLUSTER, "--config"]);
        format.arg(self.configuration());
        if self.secured.is_some() {
            format.args(Secured::users());
        }
        tools::answer(&mut format).map(drop)
    }

    fn run(&mut self, lifeline: Option<std::io::PipeReader>) -> Result<()> {
        self.starts += 1;
        let said = self.folder.join(format!("broker-{}.out", self.starts));
        let mut java = Command::new("java");
        java.arg(format!("-Xmx{}m", self.options.heap_mib));
        java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        java.args(["-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info"]);
        self.class_path(&mut java);
        java.arg("kafka.Kafka").arg(self.configuration());
        let remove = self.temporary.then_some(self.folder.as_path());
        let mut process = Guarded::start(&java, &said, self.options.ending, remove, lifeline)?;
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&said).unwrap_or_default();
            if text.contains("Kafka Server started") && TcpStream::connect(self.address()).is_ok() {
                break;
            }
            if !process.lives() || started.elapsed() > PATIENCE {
                drop(process.end("kill"));
                bail!("the broker did not start:\n{}", text.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Prepares a call of Java that runs `class` with Kafka's classes and little output.
    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        self.class_path(&mut java);
        java.arg(class).stdin(Stdio::null());
        java
    }

    fn class_path(&self, java: &mut Command) {
        java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        java.arg("-cp").arg(self.options.libs.join("*"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let ending = match self.options.ending {
            Ending::Kill => self.kill(),
            Ending::Stop => self.stop(),
        };
        // `drop` cannot return an error. If ending the broker fails, the guard (see `process.rs`)
        // ends it when the pipe closes.
        drop(ending);
        if self.temporary {
            drop(fs::remove_dir_all(&self.folder));
        }
    }
}

/// Returns the path of a folder that only this process uses, next to the jars.
fn fresh_folder(libs: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("run-{}-{number}", std::process::id());
    libs.parent().unwrap_or(libs).join(name)
}

/// Finds a port on which no process listens. If another process takes the port before the broker
/// does, the broker fails to start and reports this.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes that start at the same time begin at different ports.
        let step_in_range = (std::process::id().wrapping_mul(61).wrapping_add(step)) % count;
        let port = PORTS.start + u16::try_from(step_in_range)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port from {} to {} is taken", PORTS.start, PORTS.end)
}

/// Writes the broker's address to `to`, as one line for another process to read.
///
/// # Errors
/// Fails if writing fails.
pub fn announce(broker: &Broker, to: &mut impl std::io::Write) -> Result<()> {
    writeln!(to, "Kafka listens at {}", broker.address())?;
    Ok(to.flush()?)
}
