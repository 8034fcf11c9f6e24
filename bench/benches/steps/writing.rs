//! Measures the path of a guest's rows into the write buffer, the state file and the feed.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::{SinkExt as _, StreamExt as _};
use lantern_core::{
    ApplyOutcome, Attributes, Batch, CommitSink, EventRef, Events, FieldKind, FieldSpec, Host,
    Instance, InstantiateError, Manifest, Offset, OnFailure, PartitionId, Plugin, PublishedCommit,
    ShardId, ShardStore, Space, SpaceWrites, StateStores, TableChanges, TableId, TableSpec,
    Timestamp, VersionId, View, ViewError, Views, Writes,
};
use lantern_engine::{EngineConfig, EventList, FoldOptions, fold};
use lantern_live::{Hub, LiveConfig};
use lantern_store::{StateDir, StoreConfig};
use tempfile::TempDir;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

/// A plugin without Wasm. It puts a row under each event's subject. If configured, it reads the
/// previous row first.
struct Puts {
    manifest: Manifest,
    gets: bool,
}

fn integer(name: &str) -> FieldSpec {
    FieldSpec { name: name.into(), kind: FieldKind::Integer, ..FieldSpec::default() }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        name: "puts".into(),
        version: "1.0.0".into(),
        description: String::new(),
        subscribes: vec!["key.hit".into()],
        attributes: Attributes { subject: true, ..Attributes::default() },
        tables: vec![TableSpec {
            name: "rows".into(),
            description: String::new(),
            public: true,
            per_tenant: false,
            fields: ["count", "cents"].map(integer).into(),
            newest_by: None,
            retention_us: None,
        }],
        members: Vec::new(),
        emits: Vec::new(),
        cycle_depth_max: None,
        event_time: None,
        on_failure: OnFailure::ParkEvent,
        parameters: None,
    }
}

struct Putting {
    gets: bool,
}

impl Plugin for Puts {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        Ok(Box::new(Putting { gets: self.gets }))
    }
}

impl Instance for Putting {
    fn apply(&mut self, batch: &Batch, mut host: Box<dyn Host>, _: u64) -> ApplyOutcome {
        for index in 0..batch.events.len() {
            let event = batch.events.get(index);
            if self.gets {
                let found = host.get(TableId(0), event.subject).expect("reading does not fail");
                std::hint::black_box(found);
            }
            let cause = batch.cause_of_event(index);
            host.put(cause, TableId(0), event.subject, ROW).expect("writing does not fail");
        }
        ApplyOutcome {
            host,
            result: Ok(()),
            fuel: 1,
            memory_bytes: 0,
            elapsed: std::time::Duration::ZERO,
        }
    }
}

pub(crate) const ROW: &[u8] = br#"{"count":17,"cents":123456}"#;

/// Creates a plugin that puts rows and reads none.
pub(crate) fn putting(manifest: Manifest) -> Arc<dyn Plugin> {
    Arc::new(Puts { manifest, gets: false })
}

fn event_list(count: u64, keys: u64) -> EventList {
    let mut events = Events::new();
    for index in 0..count {
        let (id, key) = (index.to_string(), format!("k{:08}", index * 7_919 % keys));
        assert!(events.push(&EventRef {
            id: &id,
            source: "s",
            kind: "key.hit",
            subject: &key,
            data: b"{}",
            ..EventRef::default()
        }));
    }
    EventList::new(&events)
}

/// Measures a fold by a plugin that costs almost nothing, into a state in memory:
/// gathering, the buffer of a call, the write buffer, and one commit at the end.
fn overlay(bencher: Bencher<'_, '_>, gets: bool, keys: u64) {
    const EVENTS: u64 = 100_000;
    let list = event_list(EVENTS, keys);
    let dir = TempDir::new().expect("there is room for a folder");
    let stores = StateDir::open(dir.path(), StoreConfig::default()).expect("the folder is ours");
    let plugin: Arc<dyn Plugin> = Arc::new(Puts { manifest: manifest(), gets });
    let options = FoldOptions::batches_of(16_384);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let config = EngineConfig::default();
        let folded = fold(&plugin, &list, list.partition(), &stores, &config, options, &mut |_| ());
        assert_eq!(folded.expect("the fold ends").applied, EVENTS);
    });
}

#[divan::bench(args = [1_000, 100_000], sample_count = 20, sample_size = 1)]
fn overlay_put(bencher: Bencher<'_, '_>, keys: u64) {
    overlay(bencher, false, keys);
}

#[divan::bench(args = [1_000, 100_000], sample_count = 20, sample_size = 1)]
fn overlay_get_put(bencher: Bencher<'_, '_>, keys: u64) {
    overlay(bencher, true, keys);
}

fn key(number: u64) -> Vec<u8> {
    format!("k{number:08}").into_bytes()
}

fn rows(keys: impl Iterator<Item = u64>) -> Writes {
    let rows: SpaceWrites = keys.map(|number| (key(number), Some(ROW.to_vec()))).collect();
    Writes::from([(Space::Table(TableId(0)), rows)])
}

fn commits(bencher: Bencher<'_, '_>, held: u64, writes: &[Writes]) {
    let dir = TempDir::new().expect("there is room for a folder");
    let stores = StateDir::open(dir.path(), StoreConfig::default()).expect("the folder is ours");
    let id = ShardId {
        projection: "puts".into(),
        version: VersionId("v1".into()),
        rebuild: 0,
        partition: PartitionId(0),
    };
    let store = stores.open(&id).expect("a fresh state opens");
    if held > 0 {
        store.commit(&rows(0..held)).expect("there is room");
    }
    let count: usize = writes[0].values().map(SpaceWrites::len).sum();
    let mut next = writes.iter().cycle();
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        store.commit(next.next().expect("it never ends")).expect("there is room");
    });
}

/// Measures a durable commit of adjacent rows.
#[divan::bench(args = [1, 100, 10_000], sample_count = 30, sample_size = 1)]
fn commit(bencher: Bencher<'_, '_>, rows_written: u64) {
    commits(bencher, 0, &[rows(0..rows_written)]);
}

/// Measures a durable commit of rows that are spread over a table of a million rows.
#[divan::bench(args = [100, 10_000], sample_count = 20, sample_size = 1)]
fn commit_scattered(bencher: Bencher<'_, '_>, rows_written: u64) {
    const HELD: u64 = 1_000_000;
    let scattered = |round: u64| {
        rows((0..rows_written).map(move |n| (round * rows_written + n) * 7_368_787 % HELD))
    };
    commits(bencher, HELD, &(0..20).map(scattered).collect::<Vec<_>>());
}

/// A source of views of a table without rows.
struct Empty {
    manifest: Arc<Manifest>,
    store: Arc<dyn ShardStore>,
}

impl Views for Empty {
    fn view(&self, projection: &str) -> Result<View, ViewError> {
        Ok(View::new(
            projection.into(),
            VersionId("v1".into()),
            "e1".into(),
            self.manifest.clone(),
            vec![(PartitionId(0), self.store.snapshot()?)],
        )?)
    }

    fn view_version(&self, projection: &str, _: &VersionId) -> Result<View, ViewError> {
        self.view(projection)
    }
}

/// Measures the time from a commit of rows until a subscriber has read them: encoding, the
/// ring, the session and the frame, over a pipe in memory.
#[divan::bench(args = [1, 100, 1_000], sample_count = 100, sample_size = 1)]
fn feed(bencher: Bencher<'_, '_>, rows_changed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs nothing");
    let dir = TempDir::new().expect("there is room for a folder");
    let stores = StateDir::open(dir.path(), StoreConfig::default()).expect("the folder is ours");
    let store = stores.scratch().expect("there is memory");
    let views = Arc::new(Empty { manifest: Arc::new(manifest()), store });
    let hub = Hub::new(views, None, Arc::new(|_| None), None, LiveConfig::default());
    let mut socket = runtime.block_on(subscribed(&hub));
    let (mut pos, mut acknowledged) = (0, 1);
    bencher.counter(ItemsCount::new(rows_changed)).bench_local(|| {
        pos += 1;
        let up = (0..rows_changed).map(|n| (format!("k{n:08}"), ROW.to_vec())).collect();
        hub.committed(&Arc::new(PublishedCommit {
            projection: "puts".into(),
            version: VersionId("v1".into()),
            epoch: "e1".into(),
            partition: PartitionId(0),
            pos,
            next: Offset(pos),
            checkpoint: lantern_core::Checkpoint::default(),
            event_time: Timestamp(0),
            durable: true,
            tables: vec![TableChanges { table: TableId(0), up, del: Vec::new() }],
        }));
        runtime.block_on(async {
            while !hear(&mut socket).await.contains(r#""t":"delta""#) {}
            acknowledged += 1;
            let ack = format!(r#"{{"t":"ack","n":{acknowledged}}}"#);
            socket.send(Message::text(ack)).await.expect("the pipe is open");
        });
    });
}

type Socket = WebSocketStream<tokio::io::DuplexStream>;

/// Connects a subscriber, and waits until it has received its first snapshot.
async fn subscribed(hub: &Arc<Hub>) -> Socket {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(hub.clone().serve(near, std::future::pending::<()>()));
    let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    for message in [r#"{"t":"hello"}"#, r#"{"t":"sub","id":1,"table":"puts/rows"}"#] {
        socket.send(Message::text(message)).await.expect("the pipe is open");
    }
    while !hear(&mut socket).await.contains(r#""t":"snap""#) {}
    socket.send(Message::text(r#"{"t":"ack","n":1}"#)).await.expect("the pipe is open");
    socket
}

async fn hear(socket: &mut Socket) -> String {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(_)) => (),
            other => panic!("the session ended: {other:?}"),
        }
    }
}
