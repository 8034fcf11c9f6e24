//! Tests invariant 16 of `docs/proof.md`: if a plugin depends on its instance's memory from some
//! event on, and is therefore non-deterministic, a second fold of a live batch or a verification
//! finds it. A deterministic plugin is never reported.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use lantern_core::fake::{
    CountingRandom, ManualClock, MemoryCatalog, MemoryLog, MemoryStores, RecordingSink,
};
use lantern_core::{Event, PartitionId, Timestamp};
use lantern_engine::{Engine, EngineConfig, ParkedSelection, Ports, Upload, Verdict};

use crate::engine::KINDS;
use crate::test_projection::{self, Flaws, Kind, NAME, Policy, Reading, SECOND, Shelf};
use crate::{Claim, Counts, Run};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 16,
    name: "late",
    holds: "a plugin that depends on its memory from some event on is found, and an honest one is never accused",
    counts: Counts { ci: 60, longer: 5_000, of: "logs, each with an honest plugin and another" },
    experiment: |run| {
        run.cases(|run, seed| {
            honest(seed, Flaws::default())?;
            let found = dishonest(seed)?;
            run.add("found by second folds", f64::from(u8::from(found.by_second_folds)));
            run.add("found by a verification", f64::from(u8::from(found.by_verification)));
            Ok(())
        });
        Ok(())
    },
};

const P0: PartitionId = PartitionId(0);
/// The maximum number of events for which a dishonest plugin is honest.
const HONEST_EVENTS_MAX: u64 = 600;
/// The minimum number of batches after the event at which the plugin becomes
/// non-deterministic. A verification drops the instance before one batch in three, so with
/// this many batches it finds the plugin.
const BATCHES_AFTER: u64 = 60;

/// Records which checks found a plugin to be non-deterministic.
struct Found {
    by_second_folds: bool,
    by_verification: bool,
}

/// Runs the check for honest plugins on plugins with the given bugs.
pub fn honest_plugins(run: &mut Run<'_>, flaws: Flaws) {
    run.cases(|_, seed| honest(seed, flaws));
}

/// Checks that an honest plugin is never reported, with any events and any decisions of operators.
fn honest(seed: u64, flaws: Flaws) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let kind = KINDS[rng.usize(..KINDS.len())];
    let every = [1, 2, 20][rng.usize(..3)];
    let mut world = World::new(&mut rng, kind, flaws, every)?;
    for _ in 0..rng.u8(1..4) {
        let count = rng.u64(1..500);
        world.append(&mut rng, count, true)?;
        if rng.bool() {
            let all = ParkedSelection { all: true, ..ParkedSelection::default() };
            world.engine.retry(NAME, None, &all)?;
        }
        if rng.bool() {
            world.restart()?;
        }
    }
    let Found { by_second_folds, by_verification } = world.accused()?;
    ensure!(!by_second_folds, "the second fold of a batch accuses an honest plugin");
    ensure!(!by_verification, "a verification accuses an honest plugin");
    Ok(())
}

/// Checks that a dishonest plugin is found, and that the finding is kept over a
/// restart.
fn dishonest(seed: u64) -> Result<Found> {
    let mut rng = Rng::with_seed(seed);
    let kind = Kind { offset: 0, mended: false, on_failure: Policy::ParkEvent };
    let from = rng.u64(1..HONEST_EVENTS_MAX);
    let flaws = Flaws { late: Some(from), ..Flaws::default() };
    let every = [0, 1, 5, 1_000][rng.usize(..4)];
    let mut world = World::new(&mut rng, kind, flaws, every)?;
    world.append(&mut rng, from, false)?;
    let count = BATCHES_AFTER * world.config.batch_events_max as u64;
    world.append(&mut rng, count, false)?;
    let found = world.accused()?;
    ensure!(
        found.by_second_folds || found.by_verification,
        "a plugin that is dishonest from offset {from} on is not found in {count} events"
    );
    ensure!(
        found.by_second_folds || every != 1,
        "each batch was folded a second time, and a plugin that is dishonest from offset {from} on was not found by it"
    );
    world.restart()?;
    let kept = world.known()?;
    ensure!(
        kept.by_second_folds == found.by_second_folds
            && kept.by_verification == found.by_verification,
        "what was found is not known after a restart"
    );
    Ok(found)
}

struct World {
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
    ports: Ports,
    config: EngineConfig,
    engine: Arc<Engine>,
    /// The number of events that were appended.
    appended: u64,
    time: i64,
}

impl World {
    fn new(rng: &mut Rng, kind: Kind, flaws: Flaws, every: u64) -> Result<Self> {
        let log = Arc::new(MemoryLog::new(1, [1, 7, 50][rng.usize(..3)]));
        let clock = Arc::new(ManualClock::at(Timestamp(SECOND)));
        let shelf = Arc::new(Shelf::default());
        let plugin = test_projection::plugin(kind, flaws);
        shelf.put(&test_projection::sha256(kind), plugin.clone());
        let ports = Ports {
            log: log.clone(),
            stores: Arc::new(MemoryStores::new()),
            catalog: Arc::new(MemoryCatalog::new()),
            publish: Arc::new(RecordingSink::new()),
            clock: clock.clone(),
            random: Arc::new(CountingRandom::default()),
            plugins: shelf,
            traces: None,
        };
        let config = EngineConfig {
            batch_events_max: [1, 3, 8, 20][rng.usize(..4)],
            batch_timers_max: [1, 1_000][rng.usize(..2)],
            parked_in_a_row_max: u64::MAX,
            second_fold_every: every,
            ..EngineConfig::default()
        };
        let engine = Engine::open(config.clone(), ports.clone())?;
        engine.attach();
        let upload = Upload { check: false, ..Upload::new(plugin, test_projection::sha256(kind)) };
        engine.upload(upload)?;
        let world = Self { log, clock, ports, config, engine, appended: 0, time: 0 };
        world.settle();
        Ok(world)
    }

    fn settle(&self) {
        for _ in 0..4 {
            while self.engine.turn_once() {}
            self.clock.advance(Duration::from_secs(2));
        }
    }

    fn restart(&mut self) -> Result<()> {
        self.engine = Engine::open(self.config.clone(), self.ports.clone())?;
        self.engine.attach();
        self.settle();
        Ok(())
    }

    /// Appends `count` events, in pieces: events of any kind, or values of few
    /// subjects in quick succession.
    fn append(&mut self, rng: &mut Rng, count: u64, any: bool) -> Result<()> {
        let end = self.appended + count;
        while self.appended < end {
            let piece = rng.u64(1..200).min(end - self.appended);
            let events: Vec<_> = (0..piece).map(|_| self.event(rng, any)).collect();
            self.log.append_to(P0, events);
            self.settle();
        }
        let status = self.engine.status_of(NAME)?;
        let shard = status.versions[0].shards.first().context("a version without a shard")?;
        ensure!(shard.activity == "idle", "it is {}: {:?}", shard.activity, shard.reason);
        Ok(())
    }

    fn event(&mut self, rng: &mut Rng, any: bool) -> Event {
        let step = if any { rng.i64(-SECOND..3 * SECOND) } else { rng.i64(0..SECOND / 5) };
        self.time = (self.time + step).max(0);
        let reading = match rng.u8(..20) {
            0 if any => Reading::Bad,
            1 if any => Reading::Trap,
            2 if any => Reading::BadTimer,
            3 if any => Reading::Foreign,
            4 if any => Reading::Loud,
            _ => Reading::Value(rng.i64(0..50)),
        };
        let tenant = if any { ["", "a", "b"][rng.usize(..3)] } else { "a" };
        let (id, subject) = (format!("e{}", self.appended), format!("s{}", rng.u8(..6)));
        self.appended += 1;
        test_projection::event(&id, tenant, &subject, self.time, reading)
    }

    /// Verifies the projection. Returns the checks that report its plugin.
    fn accused(&self) -> Result<Found> {
        let status = self.engine.verify(NAME, None)?.run(&mut |_| true);
        ensure!(
            matches!(status.verdict, Verdict::Same | Verdict::Differs),
            "the verification ended {:?}: {status:?}",
            status.verdict
        );
        self.known()
    }

    /// Returns the findings that the projection's status reports.
    fn known(&self) -> Result<Found> {
        let status = self.engine.status_of(NAME)?;
        let verified = status.verified.context("it was verified")?;
        let shard = status.versions[0].shards.first().context("a version without a shard")?;
        Ok(Found {
            by_second_folds: shard.second_fold_differences > 0,
            by_verification: verified.verdict == Verdict::Differs,
        })
    }
}
