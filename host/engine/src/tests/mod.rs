//! Tests the engine with fakes for all ports, on one thread.

mod comparing;
mod explaining;
mod folding;
mod identity;
mod limits;
mod outbox;
mod parked_events;
mod time;
mod traces;
mod verifying;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lantern_core::fake::{
    AppendClock, CountingRandom, ManualClock, MemoryCatalog, MemoryLog, MemoryStores, NativePlugin,
    RecordingSink, host_error,
};
use lantern_core::{
    ApplyError, Attributes, Batch, Cause, Event, EventTime, EventTraces, FieldKind, FieldSpec,
    Host, KeyRange, Manifest, NewEvent, OnFailure, PartitionId, Plugin, TableId, TableSpec,
    Timestamp, VersionRecord, Views, dump,
};
use parking_lot::Mutex;

use crate::{
    Activation, Engine, EngineConfig, PluginError, PluginSource, Ports, Upload, version_id,
};

pub(super) const P0: PartitionId = PartitionId(0);
pub(super) const SECOND: i64 = 1_000_000;

/// An engine and its ports. [`World::restart`] creates another engine over the same log,
/// states and catalogue, as a new process would.
pub(super) struct World {
    pub(super) log: Arc<MemoryLog>,
    pub(super) stores: Arc<MemoryStores>,
    pub(super) catalog: Arc<MemoryCatalog>,
    pub(super) publish: Arc<RecordingSink>,
    pub(super) clock: Arc<ManualClock>,
    plugins: Arc<Shelf>,
    pub(super) config: EngineConfig,
    pub(super) engine: Arc<Engine>,
}

/// Contains plugins by SHA-256. The tests use short names in place of a SHA-256.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<String, Arc<dyn Plugin>>>, Mutex<Vec<PluginError>>);

impl PluginSource for Shelf {
    fn load(&self, version: &VersionRecord) -> Result<Arc<dyn Plugin>, PluginError> {
        if let Some(error) = self.1.lock().pop() {
            return Err(error);
        }
        let found = self.0.lock().get(&version.sha256).cloned();
        found.ok_or_else(|| PluginError::Unfit("no such plugin".into()))
    }
}

impl World {
    pub(super) fn new(config: EngineConfig) -> Self {
        Self::with_log(config, MemoryLog::new(1, 50))
    }

    pub(super) fn with_log(config: EngineConfig, log: MemoryLog) -> Self {
        Self::with_traces(config, log, None)
    }

    pub(super) fn with_traces(
        config: EngineConfig,
        log: MemoryLog,
        traces: Option<Arc<dyn EventTraces>>,
    ) -> Self {
        let log = Arc::new(log);
        let stores = Arc::new(MemoryStores::new());
        let catalog = Arc::new(MemoryCatalog::new());
        let publish = Arc::new(RecordingSink::new());
        let clock = Arc::new(ManualClock::at(Timestamp(1_000 * SECOND)));
        let plugins = Arc::new(Shelf::default());
        let ports = Ports {
            log: log.clone(),
            stores: stores.clone(),
            catalog: catalog.clone(),
            publish: publish.clone(),
            clock: clock.clone(),
            random: Arc::new(CountingRandom::default()),
            plugins: plugins.clone(),
            traces,
        };
        let engine = Engine::open(config.clone(), ports).unwrap();
        engine.attach();
        Self { log, stores, catalog, publish, clock, plugins, config, engine }
    }

    /// Drops everything that is only in memory, as the end of a process does.
    pub(super) fn restart(&mut self) {
        let ports = self.engine.ports.clone();
        self.engine = Engine::open(self.config.clone(), ports).unwrap();
        self.engine.attach();
    }

    pub(super) fn push(&self, sha: &str, plugin: impl Plugin + 'static) -> crate::Uploaded {
        self.push_as(sha, plugin, Activation::Checked)
    }

    pub(super) fn push_as(
        &self,
        sha: &str,
        plugin: impl Plugin + 'static,
        activate: Activation,
    ) -> crate::Uploaded {
        let plugin: Arc<dyn Plugin> = Arc::new(plugin);
        self.plugins.0.lock().insert(sha.into(), plugin.clone());
        let upload = Upload {
            plugin,
            sha256: sha.into(),
            parameters: String::new(),
            source: None,
            name: None,
            activate,
            check: true,
        };
        self.engine.upload(upload).unwrap()
    }

    /// Runs turns until no shard waits for a turn.
    pub(super) fn settle(&self) {
        let mut turns = 0;
        while self.engine.turn_once() {
            turns += 1;
            assert!(turns < 100_000, "the engine never comes to rest");
        }
    }

    /// Runs turns and advances the clock until no shard waits for a turn or for a time.
    pub(super) fn settle_through_faults(&self) {
        for _ in 0..100 {
            self.settle();
            self.clock.advance(Duration::from_secs(20));
        }
        self.settle();
    }

    pub(super) fn rows(&self, table: &str) -> BTreeMap<String, String> {
        let view = self.engine.view("meter").unwrap();
        let (id, _) = view.manifest().table(table).unwrap();
        let rows = view.scan(id, &KeyRange::all(), usize::MAX, false).unwrap();
        rows.into_iter().map(|r| (r.key, String::from_utf8(r.value).unwrap())).collect()
    }

    /// Returns the shard of the first version of the first projection, which must have one.
    pub(super) fn shard(&self) -> crate::ShardStatus {
        self.engine.status()[0].versions[0].shards[0].clone()
    }

    /// Returns the hash of the state of the active version.
    pub(super) fn state(&self) -> String {
        let record = self.engine.registry.record("meter").unwrap();
        let build = self.engine.registry.build("meter", record.active.as_ref().unwrap()).unwrap();
        let store = build.handles[0].store.clone().unwrap();
        dump::hash(&*store).unwrap()
    }

    pub(super) fn id(&self, sha: &str) -> lantern_core::VersionId {
        version_id(sha, "", None)
    }
}

pub(super) fn event(n: i64, subject: &str, data: &str) -> Event {
    Event {
        id: format!("e{n}"),
        source: "test".into(),
        kind: "m.read".into(),
        subject: subject.into(),
        time: Timestamp(n * SECOND / 4),
        data: data.into(),
        ..Event::default()
    }
}

/// What the plugin [`meter`] does for an event whose data is `bad`.
#[derive(Clone, Copy)]
pub(super) enum Bad {
    Apply,
    Name,
    Trap,
    Reject,
}

pub(super) fn manifest(on_failure: OnFailure) -> Manifest {
    let field = |name: &str, kind| FieldSpec { name: name.into(), kind, ..FieldSpec::default() };
    Manifest {
        name: "meter".into(),
        version: "1.0.0".into(),
        subscribes: vec!["m.*".into()],
        attributes: Attributes { subject: true, data: true, ..Attributes::default() },
        tables: vec![
            TableSpec {
                name: "totals".into(),
                public: true,
                fields: vec![field("n", FieldKind::Integer), field("last", FieldKind::Text)],
                ..TableSpec::default()
            },
            TableSpec { name: "windows".into(), ..TableSpec::default() },
        ],
        emits: vec!["window.closed".into()],
        event_time: Some(EventTime {
            allowed_lateness_us: 2 * SECOND as u64,
            tick_us: SECOND as u64,
        }),
        on_failure,
        ..Manifest::default()
    }
}

/// Counts readings by subject, and by subject and window of 5 seconds, and emits an event when a
/// window closes. Its results depend only on its tables.
pub(super) fn meter(on_failure: OnFailure, bad: Bad) -> NativePlugin {
    NativePlugin::new(manifest(on_failure), move |batch, host, _: &mut ()| {
        for (index, timer) in (0..).zip(&batch.timers) {
            close(batch, host, Cause(index), &timer.key).map_err(host_error)?;
        }
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            if event.data == b"bad" {
                let failed = |cause| ApplyError::Failed { cause, message: "bad data".into() };
                match bad {
                    Bad::Apply => {}
                    Bad::Name => return Err(failed(Some(cause))),
                    Bad::Trap => return Err(failed(None)),
                    Bad::Reject => {
                        host.reject(cause, "bad data").map_err(host_error)?;
                        if on_failure == OnFailure::ParkEvent {
                            continue;
                        }
                        return Ok(());
                    }
                }
            }
            read(host, cause, event.subject, event.time, event.data).map_err(host_error)?;
        }
        Ok(())
    })
}

fn read(
    host: &mut dyn Host,
    cause: Cause,
    subject: &str,
    time: Timestamp,
    data: &[u8],
) -> Result<(), lantern_core::HostError> {
    let (totals, windows) = (TableId(0), TableId(1));
    let n = host.get(totals, subject)?.map_or(0, |row| {
        serde_json::from_slice::<serde_json::Value>(&row).unwrap()["n"].as_u64().unwrap()
    });
    let row = serde_json::json!({"last": String::from_utf8_lossy(data), "n": n + 1}).to_string();
    host.put(cause, totals, subject, row.as_bytes())?;
    let end = (time.0.div_euclid(5 * SECOND) + 1) * 5 * SECOND;
    let key = format!("{end:020}/{subject}");
    let n = host.get(windows, &key)?.map_or(0, |row| row.len());
    host.put(cause, windows, &key, &vec![b'x'; n + 1])?;
    host.set_timer(cause, Timestamp(end), &key)
}

fn close(
    batch: &Batch,
    host: &mut dyn Host,
    cause: Cause,
    key: &str,
) -> Result<(), lantern_core::HostError> {
    let n = host.get(TableId(1), key)?.map_or(0, |row| row.len());
    host.delete(cause, TableId(1), key)?;
    host.emit(NewEvent {
        cause,
        kind: "window.closed".into(),
        subject: key.into(),
        time: batch.watermark,
        data: n.to_string().into_bytes(),
        ..NewEvent::default()
    })
}
