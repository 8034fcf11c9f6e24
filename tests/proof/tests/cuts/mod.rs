//! Folds a guest that declares everything that a manifest can declare, in the sandbox. The state
//! and the emitted events must not depend on the size of batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use lantern_core::fake::{
    CountingRandom, ManualClock, MemoryCatalog, MemoryLog, MemoryStores, RecordingSink,
};
use lantern_core::{
    ApplyOutcome, Batch, Event, Host, Instance, InstantiateError, KeyRange, Manifest, PartitionId,
    Plugin, ReadStore, ShardId, Timestamp, Views as _, dump,
};
use lantern_engine::{Engine, EngineConfig, ParkedStatus, Ports, Upload, version_id};
use lantern_proof::test_projection::{SECOND, Shelf};
use lantern_proof::{replay, usage};

/// The name of the projection.
const NAME: &str = "usage";
/// The maximum sizes of batches with which the log is folded.
const CUTS: [usize; 3] = [1, 7, 16_384];
/// The number of readings within one second, which is more than the largest batch.
const DENSE: u64 = 17_000;
/// The number of readings that are spread over more than five minutes.
const SPREAD: u64 = 3_000;
/// The number of partitions of the log.
const PARTITIONS: u32 = 2;

/// A plugin that records the size of the largest batch.
struct Measured {
    inner: Arc<dyn Plugin>,
    largest: Arc<AtomicUsize>,
}

struct MeasuredInstance {
    inner: Box<dyn Instance>,
    largest: Arc<AtomicUsize>,
}

impl Plugin for Measured {
    fn manifest(&self) -> &Manifest {
        self.inner.manifest()
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        let (inner, largest) = (self.inner.instantiate()?, Arc::clone(&self.largest));
        Ok(Box::new(MeasuredInstance { inner, largest }))
    }
}

impl Instance for MeasuredInstance {
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> ApplyOutcome {
        self.largest.fetch_max(batch.offsets.len(), Ordering::SeqCst);
        self.inner.apply(batch, host, fuel)
    }
}

/// The result of a fold.
struct Folded {
    engine: Arc<Engine>,
    states: Vec<Box<dyn ReadStore>>,
    /// The events that the projection emitted, by id.
    emitted: BTreeMap<String, Event>,
    largest: usize,
}

/// Folds `log`, the events of each partition, in batches of up to `batch` events, with a version
/// that serves readers and emits. Then appends the events `end` to each partition, and folds these
/// events too.
fn fold(plugin: &Arc<dyn Plugin>, log: &[Vec<Event>], end: &[Event], batch: usize) -> Folded {
    let memory = Arc::new(MemoryLog::new(PARTITIONS, 64));
    let stores = Arc::new(MemoryStores::new());
    let clock = Arc::new(ManualClock::at(Timestamp(SECOND)));
    let shelf = Arc::new(Shelf::default());
    let largest = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(plugin);
    let plugin: Arc<dyn Plugin> = Arc::new(Measured { inner, largest: Arc::clone(&largest) });
    shelf.put(NAME, Arc::clone(&plugin));
    let ports = Ports {
        log: memory.clone(),
        stores: stores.clone(),
        catalog: Arc::new(MemoryCatalog::new()),
        publish: Arc::new(RecordingSink::new()),
        clock: clock.clone(),
        random: Arc::new(CountingRandom::default()),
        plugins: shelf,
        traces: None,
    };
    let config = EngineConfig {
        batch_events_max: batch,
        batch_timers_max: batch,
        parked_in_a_row_max: u64::MAX,
        second_fold_every: 5,
        second_fold_halts: true,
        ..EngineConfig::default()
    };
    let engine = Engine::open(config, ports).unwrap();
    engine.attach();
    let name = Some(NAME.into());
    let upload = Upload { name, check: false, ..Upload::new(plugin, NAME) };
    engine.upload(upload).unwrap();
    let settle = || {
        for _ in 0..10 {
            while engine.turn_once() {}
            clock.advance(Duration::from_secs(1));
        }
    };
    settle();
    for (partition, events) in (0..).map(PartitionId).zip(log) {
        memory.append_to(partition, events.iter().cloned());
    }
    settle();
    // By now the log also has emitted events, to which the projection does not subscribe. The next
    // offset after them is committed together with a later event to which the projection
    // subscribes.
    for partition in (0..PARTITIONS).map(PartitionId) {
        memory.append_to(partition, end.iter().cloned());
    }
    settle();
    let status = engine.status_of(NAME).unwrap();
    let mut states = Vec::new();
    for shard in &status.versions[0].shards {
        assert_eq!(shard.activity, "idle", "{shard:?}");
        assert!(shard.second_folds > 0 && shard.second_fold_differences == 0, "{shard:?}");
        let id = ShardId {
            projection: NAME.into(),
            version: version_id(NAME, "", None),
            rebuild: 0,
            partition: PartitionId(shard.partition),
        };
        states.push(stores.shard(&id).peek());
    }
    let all = (0..PARTITIONS).flat_map(|partition| memory.events(PartitionId(partition)));
    let emitted = all.map(|(_, event)| event).filter(|event| event.kind != usage::READ);
    let emitted = emitted.map(|event| (event.id.clone(), event)).collect();
    Folded { engine, states, emitted, largest: largest.load(Ordering::SeqCst) }
}

impl Folded {
    /// Returns the rows of a public table, by key.
    fn rows(&self, table: &str) -> BTreeMap<String, String> {
        let view = self.engine.view(NAME).unwrap();
        let (id, _) = view.manifest().table(table).unwrap();
        let rows = view.scan(id, &KeyRange::all(), usize::MAX, false).unwrap();
        rows.into_iter().map(|row| (row.key, String::from_utf8(row.value).unwrap())).collect()
    }

    fn parked(&self) -> Vec<ParkedStatus> {
        self.engine.parked(NAME, None, None, None, usize::MAX).unwrap().parked
    }
}

/// Returns readings of the tenants `hand` and `other`, with times in milliseconds. A window is 5 s
/// long, and readings may be 2 s late.
fn by_hand() -> Vec<Event> {
    let readings = [
        (1_000, "hand", "h1", r#"{"meter":"m1","wh":10}"#),
        // This reading is a peak, for which the guest emits an event.
        (2_000, "hand", "h1", r#"{"meter":"m1","wh":95}"#),
        // The value is negative, and the meter has no earlier reading: the event is parked.
        (3_000, "hand", "h2", r#"{"meter":"m2","wh":-5}"#),
        // The event waits, because an earlier event of its subject is parked.
        (4_000, "hand", "h2", r#"{"meter":"m2","wh":7}"#),
        // The same subject of another tenant is not affected, so the event does not wait.
        (4_000, "other", "h2", r#"{"meter":"m2","wh":7}"#),
        // The event would write a row of another tenant: it is parked.
        (4_000, "hand", "h3", r#"{"meter":"m3","wh":1,"owner":"other"}"#),
        // A declared member is missing: the event is parked, and the next event of its subject
        // waits.
        (4_000, "hand", "h1", r#"{"meter":"m1"}"#),
        (5_000, "hand", "h1", r#"{"meter":"m1","wh":20}"#),
        (5_000, "hand", "h4", r#"{"meter":"m1","wh":30}"#),
        // The value is negative, but the meter has had three readings, so the guest accepts it.
        (6_000, "hand", "h4", r#"{"meter":"m1","wh":-4}"#),
        // The watermark reaches 5 s, so the first window closes.
        (7_500, "", "h5", r#"{"meter":"m5","wh":1}"#),
        // The event is too late for its window.
        (4_000, "hand", "h4", r#"{"meter":"m1","wh":2}"#),
    ];
    let event = |(n, (ms, tenant, subject, data)): (usize, (i64, &str, &str, &str))| {
        usage::reading(&format!("h{n}"), tenant, subject, ms * 1_000, data)
    };
    readings.into_iter().enumerate().map(event).collect()
}

/// Returns the kind, tenant, subject and data of the emitted events, sorted.
fn told(folded: &Folded) -> Vec<[String; 4]> {
    let told = |event: &Event| {
        let data = String::from_utf8(event.data.clone()).unwrap();
        [event.kind.clone(), event.tenant.clone(), event.subject.clone(), data]
    };
    let mut told: Vec<_> = folded.emitted.values().map(told).collect();
    told.sort();
    told
}

#[test]
fn a_guest_with_everything_gives_the_rows_that_are_computed_by_hand() {
    let plugin = replay::guest(usage::GUEST).unwrap();
    for batch in CUTS {
        let end = usage::reading("", "", "h6", 7_600_000, r#"{"meter":"m6","wh":0}"#);
        let folded = fold(&plugin, &[by_hand(), Vec::new()], &[end], batch);
        // Rows of two partitions are merged, which changes the order of the members.
        let row = |key: &str, row: &str| {
            (key.to_owned(), serde_json::from_str::<serde_json::Value>(row).unwrap())
        };
        let rows = |table: &str| {
            let rows = folded.rows(table).into_iter();
            rows.map(|(key, json)| row(&key, &json)).collect::<Vec<_>>()
        };
        assert_eq!(
            rows("latest"),
            [
                // The row combines readings of both partitions.
                row("/m5", r#"{"readings":1,"late":0,"wh":1}"#),
                row("/m6", r#"{"readings":2,"late":0,"wh":0}"#),
                row("hand/m1", r#"{"readings":5,"late":1,"wh":2}"#),
                row("other/m2", r#"{"readings":1,"late":0,"wh":7}"#),
            ],
            "batches of {batch}"
        );
        // The total is 10 + 95 + 30 - 4 + 2.
        let bills = [row("hand\0m1", r#"{"wh":133}"#), row("other\0m2", r#"{"wh":7}"#)];
        assert_eq!(rows("bills"), bills, "batches of {batch}");
        let window = "1970-01-01T00:00:00Z";
        let billed = [
            row(&format!("hand\0{window}/m1"), r#"{"wh":105}"#),
            row(&format!("other\0{window}/m2"), r#"{"wh":7}"#),
        ];
        assert_eq!(rows("billed"), billed, "batches of {batch}");
        let parked = folded.parked();
        let parked: Vec<_> = parked.iter().map(|p| (p.offset, p.kind.as_str())).collect();
        let (event, waiting) = ("event", "waiting");
        assert_eq!(
            parked,
            [(2, event), (3, waiting), (5, event), (6, event), (7, waiting)],
            "batches of {batch}"
        );
        let emitted = [
            ["usage.closed", "hand", "m1", r#"{"wh":105}"#],
            ["usage.closed", "other", "m2", r#"{"wh":7}"#],
            ["usage.peak", "hand", "m1", r#"{"wh":95}"#],
        ];
        assert_eq!(told(&folded), emitted, "batches of {batch}");
    }
}

/// Generates many readings, by partition: first `by_hand`, then more readings within one second
/// than the largest batch has, then minutes in which windows close and rows expire.
fn many() -> Vec<Vec<Event>> {
    let mut rng = Rng::with_seed(14);
    let mut log = vec![by_hand(), Vec::new()];
    for number in 0..DENSE + SPREAD {
        let time = match number.checked_sub(DENSE) {
            None => 20 * SECOND + rng.i64(0..SECOND),
            Some(spread) => 21 * SECOND + spread.cast_signed() * SECOND / 10,
        };
        let event = usage::random(&mut rng, number, time, 300);
        let one = number > DENSE && event.subject.len() == 3;
        log[usize::from(one)].push(event);
    }
    log
}

#[test]
fn cuts_of_1_7_and_16384_give_the_same_state_and_the_same_emitted_events() {
    let plugin = replay::guest(usage::GUEST).unwrap();
    let log = many();
    let end = usage::reading("", "", "end", 400 * SECOND, r#"{"meter":"m0","wh":0}"#);
    let folds = CUTS.map(|batch| fold(&plugin, &log, std::slice::from_ref(&end), batch));
    assert_eq!(folds.each_ref().map(|folded| folded.largest), CUTS);
    let first = &folds[2];
    for (other, batch) in folds.iter().zip(CUTS) {
        for (left, right) in first.states.iter().zip(&other.states) {
            let difference = dump::first_difference(&**left, &**right).unwrap();
            assert!(difference.is_none(), "batches of {batch}: {}", difference.unwrap());
        }
        for (id, event) in &other.emitted {
            assert_eq!(Some(event), first.emitted.get(id), "batches of {batch}");
        }
        assert_eq!(other.emitted.len(), first.emitted.len(), "batches of {batch}");
    }
    // The input contains all of these kinds of events.
    let kinds = |kind: &str| first.emitted.values().filter(|event| event.kind == kind).count();
    assert!(kinds("usage.closed") > 100 && kinds("usage.peak") > 500, "{}", first.emitted.len());
    let parked = first.parked();
    let failed = parked.iter().filter(|parked| parked.kind == "event").count();
    assert!(failed > 20 && parked.len() > 2 * failed, "{failed} of {}", parked.len());
    let tenants: Vec<_> = first.rows("bills").into_keys().collect();
    assert!(["a\0m0", "b\0m0", "c\0m0"].iter().all(|key| tenants.contains(&(*key).to_owned())));
    // The last reading moves the watermark by more than the retention. A row's retention
    // counts from the watermark before the event that writes the row, so all rows have
    // expired.
    assert!(first.rows("latest").is_empty());
    let window = "1970-01-01T00:00:05Z";
    assert_eq!(first.rows("billed")[&format!("hand\0{window}/m1")], r#"{"wh":26}"#);
    assert_eq!(first.rows("bills")["hand\0m1"], r#"{"wh":133}"#);
}
