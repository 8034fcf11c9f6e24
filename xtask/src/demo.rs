//! Implements `cargo xtask demo`, which builds what the demo needs and then replaces its own
//! process by `lantern demo`.

use std::process::Command;

use anyhow::Result;

use crate::artifacts::{self, Guests};
use crate::metadata::Workspace;
use crate::suite::Summary;
use crate::{kafka, page, shell};

/// The topic of a demo over Kafka, and its number of partitions. It has one partition, as the
/// embedded log has by default. So the demo can find in the topic the event at which it stopped.
const TOPIC: (&str, u32) = ("lantern-demo", 1);
/// The data folder of a demo over Kafka. It is separate, because offsets of a topic
/// have no meaning in another log.
const DATA: &str = "data/demo-kafka";

/// The file of flights that the demo streams. The tests fold the same file.
pub(crate) const FLIGHTS: &str = "tests/data/flights-2013-h1.ndjson.zst";

/// Builds the demo and runs it with `args` until it ends. Over Kafka it also starts a
/// broker, which ends with the demo.
pub(crate) fn run(release: bool, over_kafka: bool, args: &[String]) -> Result<()> {
    prepare(release)?;
    let mut demo = command(release);
    if over_kafka {
        let (topic, partitions) = TOPIC;
        let broker = kafka::keep_for(&mut demo, topic, partitions)?;
        demo.arg("--log").arg(format!("kafka://{broker}/{topic}"));
        if !args.iter().any(|arg| arg.starts_with("--data")) {
            demo.args(["--data", DATA]);
        }
    }
    shell::step("Starting");
    become_it(demo.args(args))
}

/// Builds the server with its web page, and the example plugins.
pub(crate) fn prepare(release: bool) -> Result<()> {
    artifacts::wasm_target()?;
    shell::step("Step 1 of 3: building the example plugins for WebAssembly");
    artifacts::guests(&Workspace::load()?, &[Guests::Plugins])?;
    shell::step("Step 2 of 3: building the web page");
    page::build(&mut Summary::default())?;
    shell::step("Step 3 of 3: building the server (the first time takes some minutes)");
    // With `--workspace`, dependencies get the features that `cargo xtask test` needs, so
    // that it does not build them a second time.
    let mut build = shell::cargo(["build", "--workspace", "--bin", "lantern"]);
    if release {
        build.arg("--release");
    }
    shell::run(&mut build)
}

/// Prepares the command that starts the demo.
pub(crate) fn command(release: bool) -> Command {
    let mut demo = Command::new(artifacts::lantern(if release { "release" } else { "debug" }));
    demo.arg("demo").current_dir(shell::root());
    demo.arg("--plugins").arg(Guests::Plugins.folder());
    demo.arg("--flights").arg(shell::root().join(FLIGHTS));
    demo
}

/// Replaces this process by the demo, so that the demo receives Ctrl-C and all other
/// signals directly.
#[cfg(unix)]
fn become_it(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(anyhow::Error::new(error).context("the demo cannot be started"))
}

#[cfg(not(unix))]
fn become_it(command: &mut Command) -> Result<()> {
    shell::run(command)
}
