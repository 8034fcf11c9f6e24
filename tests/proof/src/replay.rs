//! Tests invariant 6 of `docs/proof.md`: replay is byte-identical.
//!
//! Real plugins fold random logs in the sandbox. The conditions vary, and must not change the
//! result: the sizes of batches and chunks, the points of commits, the number of threads, dropped
//! instances, failed commits, and a process that ends before the fold does. All states must have
//! the same canonical dump.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use lantern_cli::generate::{Options, Shop};
use lantern_core::fake::{CountingRandom, MemoryCatalog, MemoryLog, RecordingSink};
use lantern_core::{
    Clock, Event, Events, Log, PartitionId, Plugin, ShardId, Timestamp, VersionId, dump,
};
use lantern_engine::{Activation, Engine, EngineConfig, Ports, Upload, version_id};
use lantern_plugin::{Compiler, PluginConfig, PluginHost};
use lantern_store::{StateDir, StoreConfig};

use crate::test_projection::{self, Flaky, Flaws, Kind, Policy, Reading, SECOND, Shelf};
use crate::{Claim, Counts, Run, usage};

/// The guests that fold the logs, in addition to the meter. The last one declares
/// everything that a manifest can declare.
const GUESTS: [&str; 5] = ["revenue", "funnel", "rate-alerts", "flight-delays", usage::GUEST];
/// The maximum time that a fold of a few hundred events may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of ways in which each log is folded.
const WAYS: usize = 4;

/// The claim that this experiment tests: invariant 6.
pub const CLAIM: Claim = Claim {
    invariant: 6,
    name: "replay",
    holds: "the same log gives byte-identical states, with any batches, threads, restarts and dropped instances",
    counts: Counts { ci: 100, longer: 10_000, of: "logs" },
    experiment: |run| {
        let plugins = plugins()?;
        logs(run, &plugins);
        Ok(())
    },
};

/// A plugin together with its name.
pub type Named = (String, Arc<dyn Plugin>);

/// Folds each random log in several ways, and compares the results.
pub fn logs(run: &mut Run<'_>, plugins: &[Named]) {
    run.cases(|run, seed| {
        let mut rng = Rng::with_seed(seed);
        let log = Recorded::random(&mut rng);
        run.add("events", log.count() as f64);
        let first = fold(&log, plugins, FoldVariant::plain())?;
        for _ in 0..WAYS {
            let way = FoldVariant::random(&mut rng);
            let again = fold(&log, plugins, way).with_context(|| format!("folded {way:?}"))?;
            for (shard, hash) in &first {
                let other = again.get(shard).map(String::as_str).unwrap_or("nothing");
                ensure!(other == hash, "{shard:?} is {other}, and was {hash}: {way:?}");
            }
            run.add("folds", 1.0);
        }
        Ok(())
    });
}

/// Loads the compiled example plugins, the guest of [`usage`], and the meter.
///
/// # Errors
/// Fails if a guest is not built, or does not compile.
pub fn plugins() -> Result<Vec<Named>> {
    let mut plugins = vec![("meter".to_owned(), meter(Flaws::default()))];
    for name in GUESTS {
        plugins.push((name.to_owned(), guest(name)?));
    }
    Ok(plugins)
}

/// Compiles a guest.
///
/// # Errors
/// Fails if it is not built, or does not compile.
pub fn guest(name: &str) -> Result<Arc<dyn Plugin>> {
    // These guests are trusted, so they are compiled in this process. Other tests cover
    // the limits of compilation.
    let config = PluginConfig { compiler: Compiler::InProcess, ..PluginConfig::default() };
    let bytes = std::fs::read(lantern_tests::guest(name))?;
    Ok(PluginHost::new(config)?.load(&bytes, "")?)
}

/// Creates the meter with planted bugs.
#[must_use]
pub fn meter(flaws: Flaws) -> Arc<dyn Plugin> {
    test_projection::plugin(
        Kind { offset: 0, mended: false, on_failure: Policy::ParkSubject },
        flaws,
    )
}

/// The events of a log, in one list per partition.
struct Recorded(Vec<Vec<Event>>);

impl Recorded {
    fn random(rng: &mut Rng) -> Self {
        let partitions = rng.usize(1..3);
        let mut events = vec![Vec::new(); partitions];
        let shop = Shop::new(Options { seed: rng.u64(..), ..Options::default() });
        let mut scratch = Vec::new();
        let mut time = 0;
        for number in 0..rng.u64(20..400) {
            let event = match rng.u8(..10) {
                0..4 => {
                    let mut one = Events::new();
                    shop.fill(number..number + 1, &mut one, &mut scratch);
                    one.get(0).to_owned()
                }
                4..7 => {
                    time += rng.i64(-SECOND..3 * SECOND);
                    let reading = match rng.u8(..16) {
                        0 => Reading::Bad,
                        1 => Reading::Trap,
                        2 => Reading::BadTimer,
                        3 => Reading::Foreign,
                        _ => Reading::Value(rng.i64(0..50)),
                    };
                    let subject = format!("s{}", rng.u8(..6));
                    test_projection::event(
                        &format!("e{number}"),
                        ["", "a", "b"][rng.usize(..3)],
                        &subject,
                        time.max(0),
                        reading,
                    )
                }
                7..9 => {
                    time += rng.i64(0..SECOND);
                    usage::random(rng, number, time.max(0), 10)
                }
                _ => flight(rng, number),
            };
            let hash = event.subject.bytes().fold(0_usize, |h, b| h * 31 + usize::from(b));
            events[hash % partitions].push(event);
        }
        Self(events)
    }

    fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn log(&self, chunk_events: usize) -> Arc<MemoryLog> {
        let partitions = u32::try_from(self.0.len()).unwrap_or(1);
        let log = Arc::new(MemoryLog::new(partitions, chunk_events));
        for (partition, events) in (0..).zip(&self.0) {
            log.append_to(PartitionId(partition), events.iter().cloned());
        }
        log
    }
}

/// Generates a flight event, valid or invalid. Every fold must park the same events.
fn flight(rng: &mut Rng, number: u64) -> Event {
    let carrier = ["AA", "DL", "UA", "WN"][rng.usize(..4)];
    let data = match rng.u8(..6) {
        0 => "{}".to_owned(),
        1 => "{\"carrier\":7".to_owned(),
        _ => serde_json::json!({
            "carrier": carrier, "flight": rng.u16(..), "origin": "JFK", "dest": "SFO",
            "scheduled": "2013-01-16T12:59:00Z", "delay_min": rng.i32(-20..200),
            "distance_mi": 2586,
        })
        .to_string(),
    };
    Event {
        id: format!("f{number}"),
        source: "flights".into(),
        kind: ["flight.departed", "flight.arrived", "flight.cancelled"][rng.usize(..3)].into(),
        subject: carrier.into(),
        time: Timestamp(number.cast_signed() * SECOND * 60),
        data: data.into_bytes(),
        ..Event::default()
    }
}

/// A way of folding a log. The result must not depend on it.
#[derive(Clone, Copy, Debug)]
struct FoldVariant {
    batch_events: usize,
    batch_timers: usize,
    /// The number of ticks that one batch may span.
    batch_ticks: usize,
    chunk_events: usize,
    commit_ms: u64,
    threads: usize,
    /// The number of calls that fail through a fault of the host. Such a fault drops the instance.
    faults: u32,
    /// How often the process ends in the middle of the fold.
    restarts: u32,
    /// Whether the process shuts down in order when it ends.
    clean: bool,
    /// A table with eight times this many rows is stored in runs.
    run_rows: u64,
}

impl FoldVariant {
    fn plain() -> Self {
        Self {
            batch_events: 1_000,
            batch_timers: 1_000,
            batch_ticks: 1,
            chunk_events: 4_096,
            commit_ms: 200,
            threads: 1,
            faults: 0,
            restarts: 0,
            clean: true,
            run_rows: 0,
        }
    }

    fn random(rng: &mut Rng) -> Self {
        Self {
            batch_events: [1, 2, 3, 7, 64, 1_000][rng.usize(..6)],
            batch_timers: [1, 2, 1_000][rng.usize(..3)],
            batch_ticks: [1, 3, 4_096, 4_096][rng.usize(..4)],
            chunk_events: [1, 5, 64, 4_096][rng.usize(..4)],
            commit_ms: [0, 0, 5, 200][rng.usize(..4)],
            threads: rng.usize(1..4),
            faults: rng.u32(..6),
            restarts: rng.u32(..4),
            clean: rng.bool(),
            run_rows: [0, 1, 4, 64][rng.usize(..4)],
        }
    }
}

/// A clock with the time of the system.
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Timestamp {
        Timestamp(SECOND)
    }
}

/// Folds `log` with all plugins in parallel. Returns the canonical hash of each
/// shard.
fn fold(
    log: &Recorded,
    plugins: &[Named],
    way: FoldVariant,
) -> Result<BTreeMap<(String, u32), String>> {
    // Other experiments test that states survive a crash. Here the states may be in memory.
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory)?,
        false => tempfile::tempdir()?,
    };
    let config = StoreConfig { run_rows: way.run_rows, ..StoreConfig::default() };
    let stores = Arc::new(StateDir::open(folder.path(), config)?);
    let shelf = Arc::new(Shelf::default());
    let faults = Arc::new(AtomicU32::new(0));
    let log = log.log(way.chunk_events);
    let ports = Ports {
        log: log.clone(),
        stores,
        catalog: Arc::new(MemoryCatalog::new()),
        publish: Arc::new(RecordingSink::new()),
        clock: Arc::new(SystemClock(Instant::now())),
        random: Arc::new(CountingRandom::default()),
        plugins: shelf.clone(),
        traces: None,
    };
    let config = EngineConfig {
        threads: way.threads,
        batch_events_max: way.batch_events,
        batch_timers_max: way.batch_timers,
        batch_ticks_max: way.batch_ticks,
        commit_ms: way.commit_ms,
        fault_wait_ms: 1,
        fault_wait_ms_max: 2,
        parked_in_a_row_max: u64::MAX,
        ..EngineConfig::default()
    };
    let mut engine = Engine::open(config.clone(), ports.clone())?;
    for (name, plugin) in plugins {
        let plugin: Arc<dyn Plugin> = Arc::new(Flaky::new(plugin.clone(), faults.clone()));
        shelf.put(name, plugin.clone());
        // The version does not become active, so that it emits nothing into the log.
        let (activate, check) = (Activation::Never, false);
        let upload = Upload::new(plugin, name.as_str());
        let upload = Upload { name: Some(name.clone()), activate, check, ..upload };
        engine.upload(upload)?;
    }
    engine.start();
    for _ in 0..way.restarts {
        faults.store(way.faults, Ordering::SeqCst);
        std::thread::yield_now();
        // If the process does not end in order, it loses the changes that are applied and not
        // committed.
        if way.clean {
            engine.shutdown();
        } else {
            engine.abandon();
        }
        engine = Engine::open(config.clone(), ports.clone())?;
        engine.start();
    }
    let ended = wait(&engine, &log);
    engine.shutdown();
    ended?;
    hashes(plugins, &ports, &log, folder.path())
}

/// Waits until all shards have folded the whole log.
fn wait(engine: &Engine, log: &MemoryLog) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut behind = None;
        for projection in engine.status() {
            for shard in projection.versions.iter().flat_map(|version| &version.shards) {
                ensure!(
                    shard.activity != "halted",
                    "{} is halted: {:?}",
                    projection.name,
                    shard.reason
                );
                let end = log.bounds(PartitionId(shard.partition))?.end;
                if shard.next < end.0 || shard.activity != "idle" {
                    behind =
                        Some(format!("{} at {}: {}", projection.name, shard.next, shard.activity));
                }
            }
        }
        match behind {
            None => return Ok(()),
            Some(behind) if started.elapsed() > PATIENCE => bail!("{behind}, and goes no further"),
            Some(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn hashes(
    plugins: &[Named],
    ports: &Ports,
    log: &MemoryLog,
    folder: &Path,
) -> Result<BTreeMap<(String, u32), String>> {
    let mut hashes = BTreeMap::new();
    for (name, _) in plugins {
        for partition in 0..log.partitions() {
            let id = ShardId {
                projection: name.clone(),
                version: VersionId(version_id(name, "", None).0),
                rebuild: 0,
                partition: PartitionId(partition),
            };
            let store = ports.stores.open(&id).with_context(|| folder.display().to_string())?;
            hashes.insert((name.clone(), partition), dump::hash(&*store)?);
        }
    }
    Ok(hashes)
}
