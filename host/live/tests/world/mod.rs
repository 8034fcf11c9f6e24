//! Projections in memory, with every state they ever had, behind the port the
//! feed reads them through; and a client that speaks the protocol by hand.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_core::fake::MemoryShard;
use lantern_core::{
    Committed, Field, FieldKind, Manifest, Merge, Offset, PartitionId, Publish as _, ReadStore,
    ShardMeta, ShardStore as _, Space, Table, TableChanges, TableId, Timestamp, VersionId, View,
    ViewError, Views, Writes,
};
use lantern_live::{Hub, Lag, LiveConfig, SessionEnd};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The name of the projection every world has.
pub const PROJECTION: &str = "shop";
pub type Rows = BTreeMap<String, Value>;
/// A change: table, key, and the new `n` or none to delete.
pub type Write<'a> = (u32, &'a str, Option<i64>);

/// One projection with two public tables (`a`, `b`) and a private one (`c`).
pub struct World {
    state: Mutex<State>,
    /// The feed commits are published to.
    pub hub: Mutex<Option<Arc<Hub>>>,
}

struct State {
    epoch: Option<String>,
    epochs: u64,
    manifest: Arc<Manifest>,
    shards: Vec<Shard>,
    /// Rows of each table at each position of each epoch.
    history: HashMap<(String, u64), [Rows; 2]>,
    /// Committed, not yet published.
    unpublished: Vec<Arc<Committed>>,
    views: u64,
}

#[derive(Default)]
struct Shard {
    store: Arc<MemoryShard>,
    meta: ShardMeta,
    rows: [BTreeMap<String, i64>; 2],
}

fn manifest() -> Manifest {
    let field = |name: &str, kind, merge| Field {
        name: name.into(),
        kind,
        unit: if kind == FieldKind::Integer { "EUR".into() } else { String::new() },
        merge,
    };
    let fields =
        vec![field("k", FieldKind::Text, Merge::Same), field("n", FieldKind::Integer, Merge::Sum)];
    let table = |name: &str, public| Table {
        name: name.into(),
        public,
        fields: if public { fields.clone() } else { Vec::new() },
        ..Table::default()
    };
    let tables = vec![table("a", true), table("b", true), table("c", false)];
    Manifest { name: PROJECTION.into(), tables, ..Manifest::default() }
}

fn row(key: &str, n: i64) -> Value {
    json!({"k": key, "n": n})
}

impl World {
    pub fn new(partitions: usize) -> Arc<Self> {
        let state = State {
            epoch: None,
            epochs: 0,
            manifest: Arc::new(manifest()),
            shards: Vec::new(),
            history: HashMap::new(),
            unpublished: Vec::new(),
            views: 0,
        };
        let world = Arc::new(Self { state: Mutex::new(state), hub: Mutex::default() });
        world.activate(partitions);
        world
    }

    /// A feed over this world, which commits are published to from now on.
    pub fn serve(self: &Arc<Self>, config: LiveConfig) -> Arc<Hub> {
        config.check().unwrap();
        let lag = Arc::new(|_: &str| Some(Lag { events: 3, ms: 12 }));
        let hub = Hub::new(self.clone(), lag, config);
        *self.hub.lock() = Some(hub.clone());
        hub
    }

    /// Another version, empty, takes over.
    pub fn activate(&self, partitions: usize) -> String {
        let mut state = self.state.lock();
        state.epochs += 1;
        let epoch = format!("{}.v.0", state.epochs);
        state.epoch = Some(epoch.clone());
        state.shards = (0..partitions).map(|_| Shard::default()).collect();
        state.history.insert((epoch.clone(), 0), Default::default());
        state.unpublished.clear();
        drop(state);
        self.announce(Some(&epoch));
        epoch
    }

    /// Replaces the name of public table `b`, with another version.
    pub fn rename_b(&self, name: &str) {
        let mut manifest = manifest();
        manifest.tables[1].name = name.into();
        self.state.lock().manifest = Arc::new(manifest);
    }

    /// The projection is deleted.
    pub fn delete(&self) {
        self.state.lock().epoch = None;
        self.announce(None);
    }

    fn announce(&self, epoch: Option<&str>) {
        if let Some(hub) = &*self.hub.lock() {
            hub.activated(PROJECTION, epoch);
        }
    }

    /// Commits and publishes; the position reached.
    pub fn commit(&self, partition: u32, writes: &[Write<'_>]) -> u64 {
        let pos = self.commit_unpublished(partition, writes);
        self.publish();
        pos
    }

    /// Commits, as an engine does before it publishes.
    pub fn commit_unpublished(&self, partition: u32, writes: &[Write<'_>]) -> u64 {
        let mut state = self.state.lock();
        let epoch = state.epoch.clone().unwrap();
        let shard = &mut state.shards[partition as usize];
        shard.meta.pos += 1;
        shard.meta.next = Offset(shard.meta.next.0 + 10);
        shard.meta.max_time = Timestamp(i64::try_from(shard.meta.pos).unwrap());
        let mut tables: BTreeMap<u32, TableChanges> = BTreeMap::new();
        let mut stored = Writes::new();
        for (table, key, n) in writes {
            let changes = tables.entry(*table).or_default();
            changes.table = TableId(*table);
            changes.up.retain(|(other, _)| other != key);
            changes.del.retain(|other| other != key);
            let value = n.map(|n| row(key, n).to_string().into_bytes());
            match &value {
                Some(value) => changes.up.push(((*key).into(), value.clone())),
                None => changes.del.push((*key).into()),
            }
            let rows = &mut shard.rows[*table as usize];
            match n {
                Some(n) => rows.insert((*key).into(), *n),
                None => rows.remove(*key),
            };
            let space = stored.entry(Space::Table(TableId(*table))).or_default();
            space.insert(key.as_bytes().to_vec(), value);
        }
        let tables: Vec<_> = tables.into_values().collect();
        let change_key = shard.meta.pos.to_be_bytes().to_vec();
        let encoded = TableChanges::encode(&tables);
        stored.entry(Space::Changes).or_default().insert(change_key, Some(encoded));
        write_meta(&mut stored, &shard.meta);
        shard.store.commit(&stored).unwrap();
        let commit = Committed {
            projection: PROJECTION.into(),
            version: VersionId("v".into()),
            epoch: epoch.clone(),
            partition: PartitionId(partition),
            pos: shard.meta.pos,
            next: shard.meta.next,
            event_time: shard.meta.max_time,
            tables,
        };
        let pos = state.shards.iter().map(|shard| shard.meta.pos).sum();
        let merged = [0, 1].map(|table| merged(&state.shards, table));
        state.history.insert((epoch, pos), merged);
        state.unpublished.push(Arc::new(commit));
        pos
    }

    /// Publishes what was committed.
    pub fn publish(&self) {
        let commits = std::mem::take(&mut self.state.lock().unpublished);
        if let Some(hub) = &*self.hub.lock() {
            commits.iter().for_each(|commit| hub.committed(commit));
        }
    }

    /// Forgets the change log up to the newest position.
    pub fn forget_changes(&self) {
        let mut state = self.state.lock();
        for shard in &mut state.shards {
            let mut stored = Writes::new();
            let old = shard.meta.changes_from + 1..=shard.meta.pos;
            let gone = old.map(|pos| (pos.to_be_bytes().to_vec(), None)).collect();
            stored.insert(Space::Changes, gone);
            shard.meta.changes_from = shard.meta.pos;
            write_meta(&mut stored, &shard.meta);
            shard.store.commit(&stored).unwrap();
        }
    }

    /// The next read of the store fails.
    pub fn fail_next_read(&self) {
        let error = lantern_core::StoreError::Io("planted".into());
        self.state.lock().shards[0].store.fail_next_read(error);
    }

    /// A table's rows at a position.
    pub fn rows_at(&self, epoch: &str, pos: u64, table: usize) -> Rows {
        let state = self.state.lock();
        let rows = state.history.get(&(epoch.to_owned(), pos));
        rows.unwrap_or_else(|| panic!("{epoch} never was at {pos}"))[table].clone()
    }

    /// The newest epoch and position.
    pub fn head(&self) -> (String, u64) {
        let state = self.state.lock();
        (state.epoch.clone().unwrap(), state.shards.iter().map(|shard| shard.meta.pos).sum())
    }

    /// How many views were opened.
    pub fn views(&self) -> u64 {
        self.state.lock().views
    }
}

fn write_meta(stored: &mut Writes, meta: &ShardMeta) {
    let meta = serde_json::to_vec(meta).unwrap();
    stored.entry(Space::Meta).or_default().insert(ShardMeta::KEY.to_vec(), Some(meta));
}

fn merged(shards: &[Shard], table: usize) -> Rows {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for (key, n) in shards.iter().flat_map(|shard| &shard.rows[table]) {
        *sums.entry(key).or_default() += n;
    }
    sums.into_iter().map(|(key, n)| (key.to_owned(), row(key, n))).collect()
}

impl Views for World {
    fn view(&self, projection: &str) -> Result<View, ViewError> {
        let mut state = self.state.lock();
        state.views += 1;
        if projection == "dark" {
            return Err(ViewError::NotActive(projection.into()));
        }
        let Some(epoch) = state.epoch.clone().filter(|_| projection == PROJECTION) else {
            return Err(ViewError::NoProjection(projection.into()));
        };
        let snapshots = (0..).map(PartitionId).zip(&state.shards);
        let snapshots = snapshots
            .map(|(partition, shard)| Ok((partition, shard.store.snapshot()?)))
            .collect::<Result<Vec<(_, Box<dyn ReadStore>)>, lantern_core::StoreError>>()?;
        let manifest = state.manifest.clone();
        Ok(View::new(projection.into(), VersionId("v".into()), epoch, manifest, snapshots)?)
    }

    fn view_version(&self, projection: &str, _: &VersionId) -> Result<View, ViewError> {
        self.view(projection)
    }
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client by hand.
pub struct Wire {
    pub ws: WebSocketStream<DuplexStream>,
    pub session: JoinHandle<SessionEnd>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Wire {
    /// Connects without a word.
    pub async fn silent(hub: &Arc<Hub>, buffer: usize) -> Self {
        let (near, far) = tokio::io::duplex(buffer);
        let (shutdown, down) = oneshot::channel::<()>();
        let down = async move {
            if down.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let session = tokio::spawn(hub.clone().serve(near, down));
        let ws = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        Self { ws, session, shutdown: Some(shutdown) }
    }

    /// Connects and is welcomed.
    pub async fn open(hub: &Arc<Hub>) -> Self {
        let mut wire = Self::silent(hub, 1 << 20).await;
        wire.say(json!({"t":"hello"})).await;
        assert_eq!(wire.hear().await["t"], "welcome");
        wire
    }

    /// Connects and subscribes to a table.
    pub async fn subscribed(hub: &Arc<Hub>, table: &str) -> Self {
        let mut wire = Self::open(hub).await;
        wire.say(json!({"t":"sub","id":1,"table":table})).await;
        assert_eq!(wire.hear().await["t"], "ok");
        wire
    }

    pub async fn say(&mut self, message: Value) {
        self.ws.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message, pings left out.
    pub async fn hear(&mut self) -> Value {
        loop {
            let heard = self.hear_any().await;
            if heard["t"] != "ping" {
                return heard;
            }
        }
    }

    pub async fn hear_any(&mut self) -> Value {
        let message = tokio::time::timeout(PATIENCE, self.ws.next()).await;
        match message.expect("the server says something") {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("no message but {other:?}"),
        }
    }

    /// The next message that is a `kind`.
    pub async fn hear_a(&mut self, kind: &str) -> Value {
        loop {
            let heard = self.hear().await;
            if heard["t"] == kind {
                return heard;
            }
        }
    }

    /// The code the server closes with, whatever it says before.
    pub async fn close_code(mut self) -> u16 {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.ws.next()).await;
            match message.expect("the server closes") {
                Some(Ok(Message::Close(Some(frame)))) => {
                    let code = frame.code.into();
                    // Has the library answer.
                    while let Some(Ok(_)) = self.ws.next().await {}
                    assert_eq!(self.session.await.unwrap(), SessionEnd::Server(code));
                    return code;
                }
                Some(Ok(_)) => {}
                other => panic!("no close but {other:?}"),
            }
        }
    }

    pub fn shut_down(&mut self) {
        let _ = self.shutdown.take().unwrap().send(());
    }
}
