//! Starts and controls the server that is measured: the real binary, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lantern_tests::Server;
use serde_json::Value;

use crate::process::Usage;

/// The environment variable from which `lantern_tests` gets the path of the binary.
const BINARY: &str = "LANTERN_BIN";
/// The maximum time that any action of a server may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// The options that all benchmarks of a server have: how the server is started, and how results are
/// printed.
#[derive(Clone, clap::Args)]
pub(crate) struct Common {
    /// Settings of the server, such as `engine.threads=1`.
    #[arg(long)]
    pub(crate) set: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    /// Starts a server on a new folder.
    pub(crate) fn start(&self) -> Result<Server> {
        Server::start(&self.set.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Runs this program again with `LANTERN_BIN` set to the server binary in this program's folder,
/// unless `LANTERN_BIN` is already set. So programs that were built together are measured together.
pub(crate) fn again_with_binary() -> Result<Option<ExitCode>> {
    if std::env::var_os(BINARY).is_some() {
        return Ok(None);
    }
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("lantern");
    ensure!(binary.is_file(), "`{}` does not exist: run `cargo xtask bench`", binary.display());
    let status = std::process::Command::new(own)
        .args(std::env::args_os().skip(1))
        .env(BINARY, binary)
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(ExitCode::from(code.unwrap_or(1))))
}

/// Reads a guest that `cargo xtask bench` has built.
pub(crate) fn guest(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.wasm"));
    ensure!(path.is_file(), "`{}` does not exist: run `cargo xtask bench`", path.display());
    Ok(path)
}

/// Uploads `wasm` as the projection `name`. `query` is, for example, `?check=false`.
pub(crate) async fn push(
    server: &Server,
    name: &str,
    wasm: &[u8],
    parameters: &str,
    query: &str,
) -> Result<()> {
    let (status, answer) = server.push_bytes(name, wasm, parameters, query).await?;
    ensure!((200..300).contains(&status), "pushing `{name}`: {status}: {answer}");
    Ok(())
}

/// Returns `wasm` with an additional custom section that has no meaning. The bytes then differ from
/// those of `wasm`, so the result counts as another plugin.
pub(crate) fn marked(wasm: &[u8], mark: u32) -> Vec<u8> {
    let name = b"bench";
    let mut marked = wasm.to_vec();
    // The section consists of its number 0, its size, the length of its name, its name, and its
    // content.
    marked.extend_from_slice(&[0, 1 + 5 + 4, 5]);
    marked.extend_from_slice(name);
    marked.extend_from_slice(&mark.to_le_bytes());
    marked
}

/// Returns the sum of the positions of all shards of `name`. Fails if one of the shards cannot
/// continue.
pub(crate) async fn position(server: &Server, name: &str) -> Result<u64> {
    position_of(&server.get(&format!("/v1/projections/{name}")).await?)
}

fn position_of(status: &Value) -> Result<u64> {
    let version = &status["versions"][0];
    let activity = version["activity"].as_str().unwrap_or_default();
    if matches!(activity, "halted" | "faulted") {
        bail!("`{}` is {activity}: {}", status["name"], version["reason"]);
    }
    let shards = version["shards"].as_array().context("`shards` is no list")?;
    for shard in shards {
        ensure!(shard["parked"] == 0, "`{}` has parked events", status["name"]);
    }
    shards.iter().map(|s| s["next"].as_u64().context("`next` is no offset")).sum()
}

/// Waits until the projection `name` has folded `events` events.
pub(crate) async fn wait_until_at(server: &Server, name: &str, events: u64) -> Result<()> {
    let started = Instant::now();
    while position(server, name).await? < events {
        ensure!(started.elapsed() < PATIENCE, "`{name}` did not reach {events}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Stops the server, and returns how long that took, in milliseconds.
pub(crate) fn stop(server: &mut Server) -> Result<f64> {
    let started = Instant::now();
    let status = server.stop()?;
    ensure!(status.success(), "the server ended with {status}");
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// Reads the resources that the server uses now.
pub(crate) fn usage(server: &Server) -> Result<Usage> {
    Usage::of(server.pid())
}

/// Computes the total size of all files below `dir`, in bytes.
pub(crate) fn bytes_below(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { bytes_below(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
