//! Tests invariant 10 of `docs/proof.md`: over Kafka, a crash of Lantern or of the broker has no
//! effect on the result.
//!
//! One case is one `kill -9` while events are appended to a topic with four partitions of a real
//! broker, and folded. Every sixth case kills the broker while Lantern runs; the others kill
//! Lantern. After each kill an independent consumer reads the topics, and the experiment checks:
//! - No acknowledged event is missing, occurs twice, or has another partition or offset.
//! - The tables count each event once.
//! - Each emitted event occurs once among the committed records.
//! - After every sixth kill, the state of every shard equals, entry by entry, a new fold of the
//!   same topic.

mod check;
mod topic;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fastrand::Rng;
use lantern_tests::kafka::{self, Broker};
use lantern_tests::{Launch, PATIENCE, Server, guest, without};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::topic::Topic;
use crate::ledger::{self, Ledger, Outcome, SendMethod};
use crate::{Claim, Counts, Run};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 10,
    name: "kafka",
    holds: "over Kafka, each acknowledged event has its effect once, whatever process is killed",
    counts: Counts { ci: 6, longer: 240, of: "kills" },
    experiment: try_out,
};

/// The number of partitions of the topic.
const PARTITIONS: u32 = 4;
/// The number of kills in one world, before a new world replaces it.
const KILLS: u64 = 12;
/// The interval of kills of the broker. If the number of a kill is a multiple of this one, the kill
/// ends the broker instead of Lantern, and afterwards all states are compared with a clean fold.
const BROKER_EVERY: u64 = 6;
/// The time between the first acknowledged event and the kill, in milliseconds.
const AFTER_MS: std::ops::Range<u64> = 5..400;
/// The time between the kill of the broker and its restart, in milliseconds.
const AWAY_MS: std::ops::Range<u64> = 0..2_000;

/// The setting that names the topic for derived events.
const DERIVED: &str = "log.kafka.emit_topic";
/// The setting with which the names of consumer groups begin.
const GROUP: &str = "log.kafka.group_prefix";

/// The name of the projection that counts probes and emits echoes.
const COUNTS: &str = "counts";
/// Parameters with which the test plugin `rogue` does not misbehave.
const HARMLESS: &str = r#"{"fixed":true}"#;
/// The name of the projection that parks events.
const PARKING: &str = "parking";
/// The name of the projection that uses timers.
const ALERTS: &str = "alerts";
/// Parameters of the projection with timers. The windows of this projection close often, and it
/// compares each window with the two windows before.
const WINDOWS: &str = r#"{"type":"probe.sent","window_s":2,"lookback":2,"drop_pct":50,"z":null,"lateness_s":1,"clock":[]}"#;

/// Small batches and frequent commits, so that kills happen at many different points of the
/// work. Heartbeats are off, because a heartbeat could move event time between two reads of
/// a table.
const SETTINGS: [&str; 4] = [
    "engine.commit_ms=10",
    "engine.batch_events_max=200",
    "engine.parked_in_a_row_max=100000",
    "upkeep.heartbeats=false",
];

/// A server over a topic, and everything that is known about it.
struct World {
    home: TempDir,
    broker: Arc<Mutex<Broker>>,
    server: Server,
    ledger: Mutex<Ledger>,
    /// The topic that serves as the log.
    events: Topic,
    /// The topic of derived events, if it is not the log itself.
    derived: Option<Topic>,
    kills: u64,
}

fn try_out(run: &mut Run<'_>) -> Result<()> {
    if without("kafka") {
        eprintln!("skipped: no Kafka");
        run.count(run.requested_cases());
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let broker = Arc::new(Mutex::new(kafka::start()?));
    let (mut world, mut kills) = (None, 0);
    run.cases(|run, seed| {
        kills += 1;
        // The next case does not use a world in which a case failed.
        let mut going = match world.take() {
            Some(world) => world,
            None => runtime.block_on(World::new(seed, cache.path(), Arc::clone(&broker)))?,
        };
        cycle(run, &runtime, &mut going, seed, kills % BROKER_EVERY == 0)?;
        if going.kills < KILLS {
            world = Some(going);
        }
        Ok(())
    });
    Ok(())
}

/// Runs one case, which is one kill.
fn cycle(
    run: &mut Run<'_>,
    runtime: &Runtime,
    world: &mut World,
    seed: u64,
    of_broker: bool,
) -> Result<()> {
    let mut random = Rng::with_seed(seed);
    world.kills += 1;
    let victim = if of_broker { "the broker" } else { "Lantern" };
    let ended = runtime.block_on(async {
        if of_broker {
            world.kill_broker(&mut random).await?;
        } else {
            world.kill_lantern(&mut random).await?;
        }
        let started = Instant::now();
        world.settle().await?;
        run.add("derived events found once", world.check().await? as f64);
        run.most("longest recovery, ms", started.elapsed().as_secs_f64() * 1_000.0);
        if of_broker {
            run.add("entries compared with a clean fold", world.compare().await? as f64);
        }
        anyhow::Ok(())
    });
    ended.with_context(|| format!("kill {} of a world, of {victim}", world.kills))?;
    run.add("events acknowledged", std::mem::take(&mut world.ledger.lock().fresh) as f64);
    run.add(&format!("kills of {victim}"), 1.0);
    Ok(())
}

impl World {
    async fn new(seed: u64, cache: &Path, broker: Arc<Mutex<Broker>>) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let (events, derived, address) = {
            let broker = broker.lock();
            let events = Topic::new(&broker, "events", PARTITIONS)?;
            // Projections emit events either into the log itself or into a separate topic.
            let derived = seed.is_multiple_of(2).then(|| Topic::new(&broker, "derived", 2));
            (events, derived.transpose()?, broker.address())
        };
        let mut settings: Vec<String> = SETTINGS.iter().map(|&s| s.to_owned()).collect();
        settings.push(format!("plugin.cache_dir={:?}", cache.display().to_string()));
        if let Some(derived) = &derived {
            settings.push(format!("{DERIVED}={}", derived.name));
        }
        let server = Server::launch(Launch {
            folder: home.path().join("data"),
            address: "127.0.0.1:0".into(),
            log: Some(format!("kafka://{address}/{}", events.name)),
            settings,
            grouped: true,
            ..Launch::default()
        })?;
        for (name, plugin, parameters) in [
            (COUNTS, "rogue", HARMLESS),
            (PARKING, "rogue", "{}"),
            (ALERTS, "rate-alerts", WINDOWS),
        ] {
            server.project(name, &guest(plugin), parameters).await?;
        }
        let ledger = Mutex::new(Ledger::new(seed));
        Ok(Self { home, broker, server, ledger, events, derived, kills: 0 })
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Kills Lantern while clients send events and it folds them, and starts it again.
    async fn kill_lantern(&mut self, random: &mut Rng) -> Result<()> {
        let wait = Duration::from_millis(random.u64(AFTER_MS));
        let (server, ledger, over) = (&self.server, &self.ledger, AtomicBool::new(false));
        let kill = async {
            wait_for_first_event(ledger).await?;
            tokio::time::sleep(wait).await;
            over.store(true, Ordering::SeqCst);
            server.kill_group()
        };
        with_clients(server, ledger, &over, kill).await?;
        self.server.kill()?;
        self.server.restart().context("the server does not start again")
    }

    /// Kills the broker while Lantern runs, and starts it again after a while. Clients send
    /// events all the time.
    async fn kill_broker(&mut self, random: &mut Rng) -> Result<()> {
        let wait = Duration::from_millis(random.u64(AFTER_MS));
        let away = Duration::from_millis(random.u64(AWAY_MS));
        let (server, ledger, over) = (&self.server, &self.ledger, AtomicBool::new(false));
        let broker = Arc::clone(&self.broker);
        let kill = async {
            wait_for_first_event(ledger).await?;
            tokio::time::sleep(wait).await;
            let restarted = tokio::task::spawn_blocking(move || {
                let mut broker = broker.lock();
                broker.kill()?;
                std::thread::sleep(away);
                broker.restart()
            });
            restarted.await??;
            // From here on, Lantern must accept events again without a restart.
            ledger.lock().fresh = 0;
            wait_for_first_event(ledger)
                .await
                .context("the broker is back, and Lantern takes nothing")?;
            over.store(true, Ordering::SeqCst);
            Ok(())
        };
        with_clients(server, ledger, &over, kill).await
    }

    /// Sends every event that had no answer again, until all are acknowledged.
    async fn settle(&self) -> Result<()> {
        let started = Instant::now();
        while self.ledger.lock().unknown() > 0 {
            ensure!(started.elapsed() < PATIENCE, "events are refused without an end");
            take(&self.server, &self.ledger, SendMethod::Single).await?;
        }
        Ok(())
    }
}

/// Waits until the first event is acknowledged.
async fn wait_for_first_event(ledger: &Mutex<Ledger>) -> Result<()> {
    let started = Instant::now();
    let before = ledger.lock().acknowledged();
    while ledger.lock().acknowledged() == before {
        ensure!(started.elapsed() < PATIENCE, "nothing is acknowledged");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Lets clients send events until `over` is set, while `kill` runs.
async fn with_clients(
    server: &Server,
    ledger: &Mutex<Ledger>,
    over: &AtomicBool,
    kill: impl Future<Output = Result<()>>,
) -> Result<()> {
    let client = async |manner: SendMethod| {
        while !over.load(Ordering::SeqCst) {
            take(server, ledger, manner).await?;
        }
        anyhow::Ok(())
    };
    let all = async {
        tokio::try_join!(
            kill,
            client(SendMethod::Lines(200)),
            client(SendMethod::Batch(40)),
            client(SendMethod::Single),
        )
    };
    tokio::time::timeout(2 * PATIENCE, all).await.context("a client hangs")??;
    Ok(())
}

/// Sends one request. Events that are refused for now, or get no answer, are sent again later.
async fn take(server: &Server, ledger: &Mutex<Ledger>, manner: SendMethod) -> Result<()> {
    match ledger::try_send(server, ledger, manner).await? {
        Outcome::Acknowledged => return Ok(()),
        Outcome::Refused(503, _) | Outcome::Silence => (),
        Outcome::Refused(status, answer) => bail!("events are answered with {status}: {answer}"),
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}

/// Waits until `done` is true. Fails after a time limit, with a description of what is
/// missing.
async fn eventually(
    what: &str,
    mut done: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let started = Instant::now();
    while let Some(missing) = done().await? {
        if started.elapsed() > PATIENCE {
            return Err(anyhow!("{what}: {missing}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
