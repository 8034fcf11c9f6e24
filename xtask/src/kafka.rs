//! Implements `cargo xtask kafka`, which fetches Apache Kafka and runs a broker.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use lantern_broker::{Broker, Ending, Options};

use crate::shell;

/// The Maven project file that lists Kafka's packages.
const POM: &str = "tests/broker/pom.xml";

/// Returns the folder that contains Kafka's jars. Tests get its path from `LANTERN_KAFKA_LIBS`.
pub(crate) fn libs() -> PathBuf {
    shell::target_dir().join("kafka/libs")
}

/// Fetches Kafka from Maven Central with Maven. If all packages of [`POM`] are already
/// present, it needs neither Maven nor the network.
pub(crate) fn fetch() -> Result<()> {
    let pom = fs::read_to_string(shell::root().join(POM)).with_context(|| POM.to_owned())?;
    // This file is written last, so that an interrupted fetch is repeated.
    let done = libs().join(lantern_broker::DONE);
    if fs::read_to_string(&done).is_ok_and(|of| of == pom) {
        return Ok(());
    }
    shell::step("Fetching Apache Kafka");
    for (program, package) in [("java", "default-jdk-headless"), ("mvn", "maven")] {
        if !shell::installed(program) {
            bail!("`{program}` is not installed\nhelp: `apt-get install {package}`");
        }
    }
    // The folder is deleted first. Otherwise jars of an older version would stay on the class path.
    let _ = fs::remove_dir_all(libs());
    fs::create_dir_all(libs())?;
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", "--quiet", "--file", POM, "dependency:copy-dependencies"]);
    maven.arg("-DincludeScope=runtime");
    maven.arg(format!("-DoutputDirectory={}", libs().display()));
    shell::run(maven.current_dir(shell::root()))?;
    fs::write(done, pom)?;
    Ok(())
}

/// Runs a broker on `port` (7492 by default) until Ctrl-C. Its topics are kept for the
/// next run.
pub(crate) fn run(port: Option<u16>) -> Result<()> {
    fetch()?;
    shell::step("Starting Kafka");
    let broker = Broker::start(options(port.unwrap_or(PORT)))?;
    lantern_broker::announce(&broker, &mut std::io::stdout())?;
    eprintln!("    topics: {}", broker.folder().display());
    let address = broker.address();
    eprintln!("    topics in it: kcat -b {address} -L");
    eprintln!("    Lantern over it: lantern serve --log kafka://{address}/TOPIC");
    eprintln!("    Ctrl-C ends it");
    // The loop ends only with the process, and the broker ends with the process.
    loop {
        std::thread::park();
    }
}

/// Starts a broker for tests. It ends when this process ends, or earlier when it is
/// dropped.
pub(crate) fn for_tests() -> Result<Broker> {
    Broker::start(Options::new(&libs()))
}

/// The default port of a broker that is not for tests.
const PORT: u16 = 7492;

fn options(port: u16) -> Options {
    let folder = Some(shell::target_dir().join("kafka/data"));
    Options { folder, port: Some(port), ending: Ending::Stop, ..Options::new(&libs()) }
}

/// Starts a broker with `topic` and returns its address. The broker runs until the standard input
/// of `user` is closed. So the broker ends when `user` ends, and not when this process ends. The
/// caller must start `user` after this call.
pub(crate) fn keep_for(user: &mut Command, topic: &str, partitions: u32) -> Result<String> {
    fetch()?;
    shell::step("Starting Kafka");
    let (lifeline, held) = std::io::pipe()?;
    let broker = Broker::start_with(options(PORT), Some(lifeline))?;
    broker.create_missing_topic(topic, partitions)?;
    user.stdin(held);
    let address = broker.address();
    eprintln!("    {address}, topic `{topic}`");
    // From here on, only the closing of the pipe ends the broker.
    broker.leave();
    Ok(address)
}
