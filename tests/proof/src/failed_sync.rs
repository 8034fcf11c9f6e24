//! Tests invariant 4 of `docs/proof.md`, first half: after a failed sync, the host closes the file
//! and opens it again. It never acknowledges an event because a later sync of the same open file
//! succeeds.
//!
//! In each case the real server runs under `strace`, which makes the N-th sync of each thread fail,
//! and further syncs after it. The client sends refused events again until they are acknowledged.
//! The experiment then checks two results:
//! - In strace's output, no acknowledgement may follow a failed sync of the log, unless the log's
//!   file was opened again and synced in between.
//! - After a `kill -9` the log must contain all acknowledged events, and the tables must equal a
//!   new fold of the log.
//!
//! The first check is needed because a `kill -9` does not lose writes in the operating system's
//! cache. So after a kill the log could be correct by chance.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use lantern_tests::{Launch, PATIENCE, Server, guest, without};
use parking_lot::Mutex;

use crate::ledger::{self, Ledger, Outcome, SendMethod};
use crate::reference_log::{self, Dropped, ReferenceLog};
use crate::{Claim, Counts, Run};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 4,
    name: "failed-sync",
    holds: "a failed sync ends that writer, and is never retried into an acknowledgement",
    counts: Counts { ci: 20, longer: 500, of: "failed calls" },
    experiment: try_out,
};

/// The highest number of the first sync that fails. The seed selects a number from 1 to this one.
const FIRST: u64 = 20;
/// The number of events that are sent one by one.
const EVENTS: usize = 30;
/// The time between the refusal of an event and the attempt to send it again.
const AGAIN: Duration = Duration::from_millis(20);

/// The system calls that strace makes fail. At least the first twenty cases use the first
/// entry only.
const CALLS: [&str; 5] = [
    "fsync,fdatasync:error=EIO",
    "fsync,fdatasync:error=EIO",
    "pwrite64:error=EIO",
    "pwrite64:error=ENOSPC",
    "ftruncate,fallocate:error=ENOSPC",
];

fn try_out(run: &mut Run<'_>) -> Result<()> {
    if without("strace") {
        eprintln!("skipped: `strace` is not installed, so no sync was failed");
        run.count(run.requested_cases());
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let first = run.seed() / FIRST;
    run.cases(|run, seed| {
        let mut random = Rng::with_seed(seed);
        // In the cases of CI only syncs fail, and no other calls.
        let calls = match (seed / FIRST).saturating_sub(first) {
            0 | 1 => CALLS[0],
            _ => *random.choice(&CALLS).unwrap_or(&CALLS[0]),
        };
        // The server needs a few syncs and a few dozen writes to open the log again and make one
        // commit. If there were fewer calls than that between two faults, no event could ever be
        // accepted.
        let between = if calls.contains("sync") { 7..60 } else { 300..900 };
        let when = format!("{}+{}", 1 + seed % FIRST, random.u64(between));
        let fault = format!("{calls}:when={when}");
        let home = tempfile::tempdir()?;
        let ended = runtime.block_on(one(run, &fault, seed, home.path(), cache.path()));
        ended.with_context(|| {
            let said = fs::read_to_string(home.path().join("stderr")).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(4).collect();
            format!("with `{fault}`; the server said last: {last:?}")
        })
    });
    Ok(())
}

async fn one(run: &mut Run<'_>, fault: &str, seed: u64, home: &Path, cache: &Path) -> Result<()> {
    let (trace, said) = (home.join("trace"), home.join("stderr"));
    let settings = [
        "engine.commit_ms=10".to_owned(),
        "engine.fault_wait_ms=20".to_owned(),
        "log.disk_reserve_bytes=0".to_owned(),
        "upkeep.heartbeats=false".to_owned(),
        format!("plugin.cache_dir={:?}", cache.display().to_string()),
    ];
    let plain = Launch {
        folder: home.join("data"),
        address: "127.0.0.1:0".into(),
        settings: settings.to_vec(),
        stderr: Some(said.clone()),
        grouped: true,
        ..Launch::default()
    };
    let under = Launch { under: strace(&trace, fault), ..plain.clone() };
    let ledger = Mutex::new(Ledger::harmless(seed, 0));
    let mut server = match Server::launch(under.clone()) {
        Ok(server) => Some(server),
        // If a call fails that the server needs for its start, the server may end with a reason. By
        // then it has created its data folder, so a second start under strace needs fewer calls,
        // and either succeeds or fails later.
        Err(_) => {
            refused(run, &said)?;
            let mut whole = Server::launch(plain.clone()).context("a start after a failed one")?;
            upload(&whole).await?;
            whole.stop()?;
            Server::launch(under).ok()
        }
    };
    if let Some(server) = &mut server {
        use_it(run, server, &ledger).await?;
        server.kill()?;
        let seen = look(&fs::read_to_string(&trace)?)?;
        run.add("failed calls", seen.failed as f64);
        run.add("failed syncs of the log", seen.of_log as f64);
    } else {
        refused(run, &said)?;
    }
    let mut server = Server::launch(plain).context("it does not start without faults either")?;
    upload(&server).await?;
    ledger::settle(&server, &ledger).await?;
    reference_log::settled(&server).await?;
    server.stop()?;
    let data = home.join("data");
    let mut mirror = ReferenceLog::new(home)?;
    mirror.take(&data)?;
    ledger.lock().check(&mirror)?;
    ensure!(mirror.end() >= ledger.lock().acknowledged() as u64, "fewer events than acknowledged");
    run.add("events acknowledged", ledger.lock().acknowledged() as f64);
    mirror.compare_clean_fold(&data, &settings, &Dropped::new()).await?;
    Ok(())
}

/// If a server did not start, checks that its output contains the reason and the file concerned.
fn refused(run: &mut Run<'_>, said: &Path) -> Result<()> {
    let words = fs::read_to_string(said)?;
    let clear = words.contains("LAN-0005") && words.contains("data");
    ensure!(clear, "the server does not start, and says no more than: {words}");
    run.add("starts refused", 1.0);
    Ok(())
}

fn strace(trace: &Path, fault: &str) -> Vec<String> {
    let calls = "trace=openat,fsync,fdatasync,pwrite64,ftruncate,fallocate,write,writev,sendto";
    let inject = format!("inject={fault}");
    let path = trace.display().to_string();
    let words = ["strace", "-f", "-qq", "-y", "--seccomp-bpf", "-s", "16", "-o", &path];
    words.iter().chain(&["-e", calls, "-e", &inject]).map(|&word| word.to_owned()).collect()
}

/// Uploads a projection, and tries again while the server refuses it.
async fn upload(server: &Server) -> Result<()> {
    let wasm = fs::read(guest("rogue"))?;
    let started = Instant::now();
    loop {
        let (status, answer) =
            server.push_bytes("rogue", &wasm, r#"{"fixed":true}"#, "?check=false").await?;
        if status < 300 {
            return Ok(());
        }
        let code = answer["code"].as_str().unwrap_or_default();
        ensure!(status >= 500 && code.starts_with("LAN-"), "an upload: {status}: {answer}");
        ensure!(started.elapsed() < PATIENCE / 4, "no upload gets through: {answer}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Sends events one by one, each until it is acknowledged.
async fn use_it(run: &mut Run<'_>, server: &mut Server, ledger: &Mutex<Ledger>) -> Result<()> {
    upload(server).await?;
    let started = Instant::now();
    while ledger.lock().acknowledged() < EVENTS {
        match ledger::try_send(server, ledger, SendMethod::Single).await? {
            Outcome::Acknowledged => continue,
            Outcome::Refused(status, answer) => {
                run.add("events refused", 1.0);
                let code = answer["code"].as_str().unwrap_or_default();
                let clear = matches!(code, "LAN-0322" | "LAN-0323")
                    && !answer["detail"].as_str().unwrap_or_default().is_empty()
                    && !answer["help"].as_str().unwrap_or_default().is_empty();
                ensure!(status == 503 && clear, "a refusal without a reason: {status}: {answer}");
                let path = "/readyz";
                let (status, ready) =
                    server.request(reqwest::Method::GET, path, "", Vec::new()).await?;
                ensure!(status == 503, "ready, though events are refused: {ready}");
            }
            Outcome::Silence => bail!("no answer; the server runs: {}", server.runs()?),
        }
        ensure!(started.elapsed() < PATIENCE / 2, "events are refused without an end");
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// Counts of what strace's output shows.
#[derive(Debug, Default)]
struct AcknowledgedState {
    failed: u64,
    of_log: u64,
}

/// Checks the system calls in the order in which they ended.
fn look(trace: &str) -> Result<AcknowledgedState> {
    let mut seen = AcknowledgedState::default();
    // The first part of each call that did not finish at once, by thread.
    let mut begun: HashMap<&str, String> = HashMap::new();
    // After a failed sync (`broken`), acknowledgements are allowed only after the log's file
    // was opened again (`opened`) and then synced.
    let (mut broken, mut opened) = (None, false);
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        let call = if let Some(part) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, part.to_owned());
            continue;
        } else if let Some((_, rest)) = call.split_once(" resumed>") {
            format!("{}{rest}", begun.remove(thread).unwrap_or_default())
        } else {
            call.to_owned()
        };
        seen.failed += u64::from(call.contains("(INJECTED)"));
        let of_log = call.contains("/log.redb");
        let sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if of_log && sync && call.contains("= -1 ") {
            seen.of_log += 1;
            (broken, opened) = (Some(call), false);
        } else if broken.is_some()
            && of_log
            && call.starts_with("openat(")
            && !call.contains("= -1")
        {
            opened = true;
        } else if let Some(failed) = &broken {
            if of_log && sync {
                ensure!(opened, "after `{failed}` the same file is synced again: `{call}`");
                broken = None;
            } else if call.contains("HTTP/1.1 200") {
                bail!("after `{failed}` there is an acknowledgement: `{call}`");
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_after_a_failed_sync_is_detected() {
        let failed = "7 fdatasync(9</d/log.redb> <unfinished ...>\n8 close(1)\n\
                      7 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n";
        let answer = "8 writev(3<socket:[1]>, [{\"HTTP/1.1 200 OK\"...], 1) = 99\n";
        let open = "7 openat(AT_FDCWD, \"/d/log.redb\", O_RDWR) = 9</d/log.redb>\n";
        let sync = "7 fdatasync(9</d/log.redb>) = 0\n";
        assert!(look(&[failed, answer].concat()).is_err());
        assert!(look(&[failed, open, answer].concat()).is_err());
        assert!(look(&[failed, sync, answer].concat()).is_err());
        assert!(look(&[answer, failed, open, sync, answer].concat()).is_ok());
    }
}
