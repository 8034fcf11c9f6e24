//! Tests invariant 2 of `docs/proof.md`: an acknowledged event survives a kill of the process, and
//! after the next start the state is the fold of the log, whatever the process was doing.
//!
//! One case is one `kill -9` of the server and its child processes, 5 to 50 ms after a phase of
//! work has begun. After each kill no acknowledged event may be missing, occur twice, or have
//! another offset, and the feeds must resume. After every tenth kill, the experiment compares
//! tables, timers and parked events with a clean fold of the same log, and emitted events with the
//! probes that caused them.

mod check;
mod feeds;
mod phases;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use lantern_tests::{Launch, PATIENCE, Server, guest};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use self::feeds::Feeds;
use self::phases::{ALERTS, FLIP, Known, PARKING, Phase};
use crate::ledger::{self, Ledger, SendMethod};
use crate::reference_log::ReferenceLog;
use crate::{Claim, Counts, Run};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 2,
    name: "kill",
    holds: "an acknowledged event survives a kill of the process, and is applied once",
    counts: Counts { ci: 100, longer: 1_000, of: "kills" },
    experiment: try_out,
};

/// The number of kills of one server, before a new server replaces it.
const KILLS: usize = 20;
/// The number of kills between two comparisons with a clean fold.
const BETWEEN: usize = 10;
/// The time between the beginning of a phase and the kill, in microseconds.
const AFTER_US: std::ops::Range<u64> = 5_000..50_000;

/// The server's settings: small chunks, batches and runs, so that a kill can happen at many
/// different moments.
const SETTINGS: [&str; 6] = [
    "engine.commit_ms=10",
    "engine.batch_events_max=200",
    "engine.parked_in_a_row_max=100000",
    "log.chunk_bytes=4096",
    "log.disk_reserve_bytes=0",
    "store.run_rows=2",
];
/// The setting that turns heartbeats off. A heartbeat could move event time between two reads of a
/// table.
const NO_HEARTBEATS: &str = "upkeep.heartbeats=false";
/// Parameters of the projection with timers. The windows of this projection close often, and it
/// compares each window with the two windows before.
const WINDOWS: &str = r#"{"type":"probe.sent","window_s":2,"lookback":2,"drop_pct":50,"z":null,"lateness_s":1,"clock":[]}"#;

/// A server that is killed again and again, and everything that is known about it.
struct World {
    settings: Vec<String>,
    server: Server,
    /// The data folder. It is declared after the server, because it must not be deleted while the
    /// server runs.
    home: TempDir,
    mirror: ReferenceLog,
    ledger: Mutex<Ledger>,
    known: Mutex<Known>,
    feeds: Feeds,
    phases: Vec<Phase>,
    kills: usize,
}

fn try_out(run: &mut Run<'_>) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut world = None;
    run.cases(|run, seed| {
        // The next case does not use a world in which a case failed.
        let mut going = match world.take() {
            Some(world) => world,
            None => runtime.block_on(World::new(seed, cache.path()))?,
        };
        cycle(run, &runtime, &mut going, seed)?;
        if going.kills < KILLS {
            world = Some(going);
        }
        Ok(())
    });
    Ok(())
}

/// Runs one case, which is one kill.
fn cycle(run: &mut Run<'_>, runtime: &Runtime, world: &mut World, seed: u64) -> Result<()> {
    let mut random = Rng::with_seed(seed);
    let phase = world.phases.pop().context("a phase for each kill")?;
    world.kills += 1;
    let whole = world.kills.is_multiple_of(BETWEEN);
    let ended = runtime.block_on(async {
        world.kill_in(phase, &mut random).await?;
        let started = Instant::now();
        let launch = world.launch(&[NO_HEARTBEATS]);
        world.server.restart_as(launch).context("the server does not start again")?;
        run.most("longest start, ms", started.elapsed().as_secs_f64() * 1_000.0);
        let changes = world.check().await?;
        run.most("feed changes seen by one server's clients", changes.0 as f64);
        if whole {
            run.add("entries compared with a clean fold", world.compare().await? as f64);
        }
        anyhow::Ok(())
    });
    let number = world.kills;
    ended.with_context(|| format!("kill {number} of a server, in the middle of {phase:?}"))?;
    let mut ledger = world.ledger.lock();
    run.add("events acknowledged", std::mem::take(&mut ledger.fresh) as f64);
    run.add("events without an answer", ledger.unknown() as f64);
    run.add(&format!("kills in {phase:?}"), 1.0);
    Ok(())
}

impl World {
    async fn new(seed: u64, cache: &Path) -> Result<Self> {
        let mut random = Rng::with_seed(seed);
        let home = tempfile::tempdir()?;
        let mut settings: Vec<String> = SETTINGS.iter().map(|&s| s.to_owned()).collect();
        settings.push(format!("plugin.cache_dir={:?}", cache.display().to_string()));
        let server = Server::launch(Launch {
            folder: home.path().join("data"),
            address: "127.0.0.1:0".into(),
            settings: with(&settings, &[NO_HEARTBEATS]),
            grouped: true,
            ..Launch::default()
        })?;
        let known = Mutex::new(Known::default());
        let (rogue, alerts) =
            (std::fs::read(guest("rogue"))?, std::fs::read(guest("rate-alerts"))?);
        for (name, wasm, parameters) in [
            (PARKING[0], &rogue, "{}"),
            (PARKING[1], &rogue, r#"{"by_subject":true}"#),
            (FLIP, &rogue, r#"{"fixed":true}"#),
            (ALERTS, &alerts, WINDOWS),
        ] {
            phases::push(&server, &known, name, wasm, parameters).await?.context("an answer")?;
            server.caught_up(name).await?;
        }
        let second = r#"{"fixed":true,"by_subject":true}"#;
        let second = phases::push(&server, &known, FLIP, &rogue, second).await?;
        server.until(FLIP, |status| status["active"].as_str() == second.as_deref()).await?;
        let feeds = Feeds::new(&server, &["flip/seen", "alerts/rates", "rogue/seen"]).await?;
        Ok(Self {
            mirror: ReferenceLog::new(home.path())?,
            home,
            settings,
            server,
            ledger: Mutex::new(Ledger::new(seed)),
            known,
            feeds,
            phases: phases(&mut random),
            kills: 0,
        })
    }

    fn data(&self) -> std::path::PathBuf {
        self.home.path().join("data")
    }

    fn launch(&self, more: &[&str]) -> Launch {
        let settings = with(&self.settings, more);
        Launch { settings, ..self.server.launched().clone() }
    }

    /// Kills the server in the middle of `phase`, and compares the log with the
    /// acknowledged events.
    async fn kill_in(&mut self, phase: Phase, random: &mut Rng) -> Result<()> {
        let settings: &[&str] = match phase {
            Phase::Retention => {
                &[NO_HEARTBEATS, "upkeep.retention_s=1", "log.retention_bytes=20000"]
            }
            Phase::Timers => &["upkeep.idle_ms=20"],
            _ => &[],
        };
        if !settings.is_empty() {
            // At this point the mirror has seen all events that retention may delete.
            self.server.kill()?;
            self.mirror.take(&self.data())?;
            self.server.restart_as(self.launch(settings))?;
        }
        let begun = Notify::new();
        let wait = Duration::from_micros(random.u64(AFTER_US));
        self.known.lock().active.clear();
        let (server, ledger, known) = (&self.server, &self.ledger, &self.known);
        let kill = async {
            tokio::time::timeout(PATIENCE, begun.notified()).await.context("nothing begins")?;
            tokio::time::sleep(wait).await;
            server.kill_group()
        };
        let all = async {
            tokio::try_join!(
                kill,
                phases::drive(phase, server, ledger, known, random, &begun),
                ledger::keep_sending(server, ledger, SendMethod::Single),
                ledger::keep_sending(server, ledger, SendMethod::Batch(10)),
            )
        };
        tokio::time::timeout(PATIENCE / 6, all)
            .await
            .context("a client hangs on a dead server")??;
        self.server.kill()?;
        self.mirror.take(&self.data())?;
        self.ledger.lock().check(&self.mirror)
    }
}

/// Joins `settings` and `more` into one list.
fn with(settings: &[String], more: &[&str]) -> Vec<String> {
    settings.iter().cloned().chain(more.iter().map(|&s| s.to_owned())).collect()
}

/// Chooses the phases of one server's life, in reverse order. In the order of time, each phase of
/// [`Phase::WHOLE`] comes once. After them come phases that may run after retention has deleted
/// events.
fn phases(random: &mut Rng) -> Vec<Phase> {
    let mut whole = Phase::WHOLE.to_vec();
    random.shuffle(&mut whole);
    let mut trimmed = Phase::TRIMMED.to_vec();
    random.shuffle(&mut trimmed);
    trimmed.retain(|phase| *phase != Phase::Retention);
    trimmed.truncate(KILLS - whole.len() - 2);
    trimmed.insert(0, Phase::Retention);
    trimmed.push(Phase::Retention);
    whole.extend(trimmed);
    whole.reverse();
    whole
}

/// Waits until `done` is true. Fails after a time limit, with a description of what is
/// missing.
async fn eventually(
    what: &str,
    mut done: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let Some(missing) = done().await? else {
            return Ok(());
        };
        if started.elapsed() > PATIENCE / 4 {
            bail!("{what}: {missing}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails if two counts differ.
fn same(what: &str, found: u64, expected: u64) -> Result<()> {
    ensure!(found == expected, "{what}: {found}, and {expected} were expected");
    Ok(())
}
