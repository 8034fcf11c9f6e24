//! Tests invariant 4 of `docs/proof.md`, second half: a full disk loses nothing, and stops only
//! operations that need room. The server recovers by itself when there is room.
//!
//! The server's folder is on a small file system in memory:
//!
//! 1. Events are sent until they are refused. Then reads and feeds must continue, and the server
//!    must neither end nor use much CPU time.
//! 2. Depending on the seed, the server keeps running, or is killed or stopped and then started on
//!    the full disk.
//! 3. The disk gets room: it is enlarged, or another file on it is deleted.
//!
//! In some cases the log has a disk reserve, in others it has none.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lantern_client::{Client, Options, Status};
use lantern_tests::{Launch, PATIENCE, Server, guest, without};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::ledger::{self, Ledger, Outcome, SendMethod};
use crate::reference_log::{self, Dropped, ReferenceLog};
use crate::{Claim, Counts, Run};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 4,
    name: "full-disk",
    holds: "a full disk loses nothing, and the server continues by itself when there is room",
    counts: Counts { ci: 12, longer: 120, of: "full disks" },
    experiment: try_out,
};

/// The size of the disk in MiB: first the initial size, then the size after it is made larger.
const SIZE_MIB: (u64, u64) = (16, 48);
/// The size of another file on the disk, in bytes. The experiment can delete the file to make room.
const BALLAST_BYTES: usize = 5 << 20;
/// The payload of each event, in bytes.
const PADDING_BYTES: usize = 2 << 10;
/// The number of refused events after which the disk counts as full.
const REFUSALS: usize = 10;
/// The processor time that an idle server may use, in seconds.
const IDLE_CPU_S: f64 = 0.3;

/// A small file system in memory. Dropping this value unmounts it.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts such a file system. Returns `None` if the system does not allow it.
    fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={}m", SIZE_MIB.0);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "lantern-proof"])
            .arg(folder.path())
            .output()?;
        Ok(mounted.status.success().then_some(Self { folder }))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn enlarge(&self) -> Result<()> {
        let size = format!("remount,size={}m", SIZE_MIB.1);
        let done = Command::new("mount").args(["-o", &size]).arg(self.path()).status()?;
        ensure!(done.success(), "the disk cannot be made larger: {done}");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The lazy unmount hides the folder at once. The system frees the memory when the last file
        // is closed.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// What happens to the server while the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Background {
    GoesOn,
    /// Here the server is killed and started on the full disk. KurrentDB #3642 reports a database
    /// that could not start in this situation.
    KilledAndStarted,
    StoppedAndStarted,
}

fn try_out(run: &mut Run<'_>) -> Result<()> {
    let skip = match without("mount") || without("umount") {
        true => Some("`mount` is not installed"),
        false => Disk::mount()?.is_none().then_some("file systems may not be mounted here"),
    };
    if let Some(why) = skip {
        eprintln!("skipped: {why}, so no disk was filled");
        run.count(run.requested_cases());
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    run.cases(|run, seed| {
        let meanwhile = match seed % 3 {
            0 => Background::GoesOn,
            1 => Background::KilledAndStarted,
            _ => Background::StoppedAndStarted,
        };
        let (enlarge, reserve) = (seed / 3 % 2 == 0, seed / 6 % 2 == 0);
        let ended = runtime.block_on(one(run, seed, meanwhile, enlarge, reserve, cache.path()));
        ended.with_context(|| {
            format!("{meanwhile:?}; the disk is made larger: {enlarge}; with a reserve: {reserve}")
        })
    });
    Ok(())
}

async fn one(
    run: &mut Run<'_>,
    seed: u64,
    meanwhile: Background,
    enlarge: bool,
    reserve: bool,
    cache: &Path,
) -> Result<()> {
    let disk = Disk::mount()?.context("it could be mounted before")?;
    let home = tempfile::tempdir()?;
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES])?;
    let settings = [
        "engine.commit_ms=10".to_owned(),
        "engine.fault_wait_ms_max=500".to_owned(),
        "upkeep.heartbeats=false".to_owned(),
        format!("log.disk_reserve_bytes={}", if reserve { 2 << 20 } else { 0 }),
        format!("plugin.cache_dir={:?}", cache.display().to_string()),
    ];
    let said = home.path().join("stderr");
    let data = disk.path().join("data");
    let mut server = Server::launch(Launch {
        folder: data.clone(),
        address: "127.0.0.1:0".into(),
        settings: settings.to_vec(),
        stderr: Some(said.clone()),
        grouped: true,
        ..Launch::default()
    })?;
    for name in ["rogue", "second"] {
        server.project(name, &guest("rogue"), r#"{"fixed":true}"#).await?;
    }
    let ledger = Mutex::new(Ledger::harmless(seed, PADDING_BYTES));
    fill(run, &server, &ledger).await?;
    goes_on(run, &mut server).await?;
    let runs = start_again(run, &mut server, meanwhile, &said).await?;
    let room = Instant::now();
    if enlarge {
        disk.enlarge()?;
    } else {
        fs::remove_file(&ballast)?;
    }
    if !runs {
        server.restart().context("there is room, and it does not start")?;
    }
    recovers(&server, &ledger).await?;
    run.most("longest wait for events to be taken after there was room, ms", {
        room.elapsed().as_secs_f64() * 1_000.0
    });
    ledger::settle(&server, &ledger).await?;
    reference_log::settled(&server).await?;
    compare(run, &mut server, &ledger, home.path(), &data, &settings[..3]).await
}

/// Checks that no acknowledged event is lost, and that the tables equal a clean fold of the log.
async fn compare(
    run: &mut Run<'_>,
    server: &mut Server,
    ledger: &Mutex<Ledger>,
    home: &Path,
    data: &Path,
    settings: &[String],
) -> Result<()> {
    server.stop()?;
    let mut mirror = ReferenceLog::new(home)?;
    mirror.take(data)?;
    ledger.lock().check(&mirror)?;
    run.add("events acknowledged", ledger.lock().acknowledged() as f64);
    let settings = [settings, &["log.disk_reserve_bytes=0".to_owned()]].concat();
    mirror.compare_clean_fold(data, &settings, &Dropped::new()).await?;
    Ok(())
}

/// Sends events until the disk is full. Each refusal must name the full disk as its reason.
async fn fill(run: &mut Run<'_>, server: &Server, ledger: &Mutex<Ledger>) -> Result<()> {
    let (started, mut refused, mut named) = (Instant::now(), 0, false);
    while refused < REFUSALS {
        match ledger::try_send(server, ledger, SendMethod::Batch(200)).await? {
            Outcome::Acknowledged => {}
            Outcome::Refused(status, answer) => {
                refused += 1;
                named |= answer["code"] == "LAN-0322";
                clear(status, &answer)?;
                // The client retries like one that obeys `Retry-After`, but earlier.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Outcome::Silence => bail!("no answer on a full disk"),
        }
        ensure!(started.elapsed() < PATIENCE, "the disk does not get full");
    }
    ensure!(named, "no refusal has the code of a full disk, LAN-0322");
    run.add("refusals", refused as f64);
    Ok(())
}

/// Checks that the answer names the full disk, and tells the operator what to do.
fn clear(status: u16, answer: &Value) -> Result<()> {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_lowercase();
    let full = ["full", "no space", "free"].iter().any(|word| text("detail").contains(word));
    let coded = matches!(answer["code"].as_str(), Some("LAN-0322" | "LAN-0323"));
    ensure!(
        status == 503 && coded && full && !text("help").is_empty(),
        "a full disk is answered with {status}: {answer}"
    );
    Ok(())
}

/// Checks that reads and feeds continue, that the server reports that it is not ready, and
/// that it uses little CPU time.
async fn goes_on(run: &mut Run<'_>, server: &mut Server) -> Result<()> {
    ensure!(server.text("/healthz").await?.contains("ok"), "not alive on a full disk");
    ensure!(!server.rows("rogue/seen").await?.is_empty(), "no rows on a full disk");
    let events = server.get("/v1/events?from=0&limit=5").await?;
    ensure!(events["events"].as_array().is_some_and(|all| all.len() == 5), "{events}");
    let (status, ready) = server.request(Method::GET, "/readyz", "", Vec::new()).await?;
    ensure!(status == 503, "ready with a full disk: {ready}");
    let url = format!("ws{}/v1/feed", server.url.trim_start_matches("http"));
    let client = Client::connect(&url, Options::default()).await?;
    let table = client.table("rogue/seen");
    let live = tokio::time::timeout(PATIENCE / 12, table.wait_for_status(Status::is_live)).await;
    ensure!(live.is_ok(), "no feed on a full disk");
    client.close();
    let before = cpu_s(server.pid())?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = cpu_s(server.pid())? - before;
    run.most("processor seconds in a second on a full disk", used);
    ensure!(used < IDLE_CPU_S, "the server uses {used} s of a second with nothing to do");
    ensure!(server.runs()?, "the server ended on a full disk");
    Ok(())
}

/// Returns the processor time that a process has used, in seconds.
fn cpu_s(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The process name may contain spaces. A tick is 10 ms on every Linux system.
    let (_, rest) = stat.rsplit_once(')').context("a name in parentheses")?;
    let ticks: Result<Vec<f64>, _> = rest.split(' ').skip(12).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() / 100.0)
}

/// If the case demands it, stops or kills the server and starts it again while the disk is still
/// full. Returns whether the server runs afterwards.
async fn start_again(
    run: &mut Run<'_>,
    server: &mut Server,
    meanwhile: Background,
    said: &Path,
) -> Result<bool> {
    match meanwhile {
        Background::GoesOn => return Ok(true),
        Background::KilledAndStarted => server.kill()?,
        Background::StoppedAndStarted => drop(server.stop()?),
    }
    let logged = fs::read_to_string(said)?;
    // A stop makes the state of each shard durable. On a full disk this can fail, and the
    // server must then log a warning.
    let not_durable = meanwhile == Background::KilledAndStarted
        || logged.contains("last commit before the shutdown failed");
    if server.restart().is_err() {
        let words = fs::read_to_string(said)?.split_off(logged.len()).to_lowercase();
        let clear = ["full", "no space", "free"].iter().any(|word| words.contains(word));
        ensure!(clear && words.contains("lan-0005"), "a start on a full disk says: {words}");
        run.add("starts refused on a full disk", 1.0);
        return Ok(false);
    }
    run.add("starts on a full disk", 1.0);
    let path = "/v1/tables/rogue/seen?limit=5";
    let (status, answer) = server.request(Method::GET, path, "", Vec::new()).await?;
    let rows = answer["rows"].as_object().is_some_and(|rows| !rows.is_empty());
    // If the state was not durable, the server may have to fold events again to reach the rows that
    // readers had seen. The disk has no room for that. So the server must refuse reads, and must
    // not show older rows.
    let waits = not_durable && answer["code"] == "LAN-0224";
    ensure!(rows || waits, "after a start on a full disk, {path} gives {status}: {answer}");
    run.add("tables that wait for room after a start", f64::from(u8::from(waits)));
    Ok(true)
}

/// Checks that the server accepts events again without a restart.
async fn recovers(server: &Server, ledger: &Mutex<Ledger>) -> Result<()> {
    let started = Instant::now();
    loop {
        match ledger::try_send(server, ledger, SendMethod::Single).await? {
            Outcome::Acknowledged => break,
            Outcome::Refused(_, answer) => {
                ensure!(started.elapsed() < PATIENCE / 8, "there is room, and still: {answer}");
            }
            Outcome::Silence => bail!("no answer though there is room"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while server.request(Method::GET, "/readyz", "", Vec::new()).await?.0 != 200 {
        ensure!(started.elapsed() < PATIENCE / 8, "there is room, and the server is not ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
