//! Implements a projection in memory, with every state that it ever had. It implements the port
//! from which the feed reads. The tests of `host/live` and `clients/rust` include this file, too.

#![allow(dead_code, unreachable_pub, reason = "each who includes it uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lantern_core::fake::MemoryShard;
use lantern_core::{
    Checkpoint, CommitSink as _, FieldKind, FieldSpec, KeyRange, Manifest, Merge, Offset,
    PartitionId, PublishedCommit, ReadStore, RollUps, ShardMeta, ShardPoint, ShardStore as _,
    Space, TableChanges, TableId, TableSpec, Timestamp, VersionId, View, ViewError, Views, Writes,
};
use lantern_live::{Hub, Lag, LiveConfig};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

/// The name of the projection in every world.
pub const PROJECTION: &str = "shop";
/// The rows of a table by key, in the form in which the feed has them.
pub type Rows = BTreeMap<String, Value>;
/// The value of the column `n` of each row, by key.
pub type Numbers = BTreeMap<String, i64>;
/// A change of a row: the table, the key, and the new value of `n`, or `None` to delete the row.
pub type Write<'a> = (u32, &'a str, Option<i64>);

/// One projection with two public tables (`a`, `b`) and a private one (`c`).
pub struct World {
    state: Mutex<State>,
    /// The feed to which commits are published.
    pub hub: Mutex<Option<Arc<Hub>>>,
}

struct State {
    epoch: Option<String>,
    epochs: u64,
    manifest: Arc<Manifest>,
    shards: Vec<Shard>,
    /// The states of all versions that served readers before the current one, oldest first.
    before: Vec<Vec<Shard>>,
    /// Each state that ever existed, by epoch and commit.
    history: HashMap<(String, u64), Moment>,
    /// The commits that are made but not published yet.
    unpublished: Vec<Arc<PublishedCommit>>,
    views: u64,
}

#[derive(Default)]
struct Shard {
    store: Arc<MemoryShard>,
    meta: ShardMeta,
    rows: [Numbers; 2],
    /// The commits without a sync, which a crash undoes, oldest first.
    unsynced: Vec<Unsynced>,
}

/// A commit that was not followed by a sync.
struct Unsynced {
    meta: ShardMeta,
    tables: Vec<TableChanges>,
    /// The rows of the shard's two public tables after the commit.
    rows: [Numbers; 2],
}

/// The maximum number of commits of a shard that may lack a sync.
const UNSYNCED: usize = 12;

/// The state of the world after one commit.
#[derive(Default)]
struct Moment {
    rows: [Arc<Numbers>; 2],
    /// For each table, whether the commit that led to this state wrote to it.
    touched: [bool; 2],
    /// The sum of the next offsets of all shards after the commit.
    next: u64,
    /// Whether a crash has undone the commit.
    lost: bool,
}

fn manifest() -> Manifest {
    let field = |name: &str, kind, merge| FieldSpec {
        name: name.into(),
        kind,
        unit: if kind == FieldKind::Integer { "EUR".into() } else { String::new() },
        merge,
    };
    let fields =
        vec![field("k", FieldKind::Text, Merge::Same), field("n", FieldKind::Integer, Merge::Sum)];
    let table = |name: &str, public| TableSpec {
        name: name.into(),
        public,
        fields: if public { fields.clone() } else { Vec::new() },
        ..TableSpec::default()
    };
    let tables = vec![table("a", true), table("b", true), table("c", false)];
    Manifest { name: PROJECTION.into(), tables, ..Manifest::default() }
}

fn row(key: &str, n: i64) -> Value {
    json!({"k": key, "n": n})
}

impl World {
    /// Creates a world with one version, which has no rows.
    pub fn new(partitions: usize) -> Arc<Self> {
        let state = State {
            epoch: None,
            epochs: 0,
            manifest: Arc::new(manifest()),
            shards: Vec::new(),
            before: Vec::new(),
            history: HashMap::new(),
            unpublished: Vec::new(),
            views: 0,
        };
        let world = Arc::new(Self { state: Mutex::new(state), hub: Mutex::default() });
        world.activate(partitions);
        world
    }

    /// Starts a feed over this world. From now on commits are published to it.
    pub fn serve(self: &Arc<Self>, config: LiveConfig) -> Arc<Hub> {
        self.serve_with(config, None)
    }

    /// Like [`Self::serve`], for a feed whose clients can subscribe to the roll-ups that `roll_ups`
    /// creates.
    pub fn serve_with(
        self: &Arc<Self>,
        config: LiveConfig,
        roll_ups: Option<Arc<dyn RollUps>>,
    ) -> Arc<Hub> {
        config.check().expect("the settings can work");
        let lag = Arc::new(|_: &str| Some(Lag { events: 3, ms: 12 }));
        let hub = Hub::new(self.clone(), roll_ups, lag, None, config);
        *self.hub.lock() = Some(hub.clone());
        hub
    }

    /// Activates another version, which has no rows.
    pub fn activate(&self, partitions: usize) -> String {
        let fresh = (0..partitions).map(|_| Shard::default()).collect();
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.shards, fresh);
        state.before.push(before);
        self.take_over(state)
    }

    /// Activates the previously active version again, unchanged. Does nothing if there is no
    /// such version.
    pub fn roll_back(&self) {
        let mut state = self.state.lock();
        // The first entry describes the time before the first version, so it cannot be activated.
        if state.before.len() > 1 {
            state.shards = state.before.pop().unwrap_or_default();
            self.take_over(state);
        }
    }

    /// Makes the states in `shards` serve readers from now on, under a new epoch.
    fn take_over(&self, mut state: MutexGuard<'_, State>) -> String {
        state.epochs += 1;
        let epoch = format!("{}.v.0", state.epochs);
        state.epoch = Some(epoch.clone());
        let pos = state.shards.iter().map(|shard| shard.meta.pos).sum();
        let rows = [0, 1].map(|table| Arc::new(merged(&state.shards, table)));
        let next = next(&state.shards);
        state
            .history
            .insert((epoch.clone(), pos), Moment { rows, touched: [true; 2], next, lost: false });
        state.shards.iter_mut().for_each(|shard| shard.unsynced.clear());
        state.unpublished.clear();
        drop(state);
        self.announce(Some(&epoch));
        epoch
    }

    /// Gives the public table `b` another name, by activating another version.
    pub fn rename_b(&self, name: &str) {
        let mut manifest = manifest();
        manifest.tables[1].name = name.into();
        self.state.lock().manifest = Arc::new(manifest);
    }

    /// Declares the public table `a` in another way, with another version.
    pub fn alter_a(&self, alter: impl FnOnce(&mut TableSpec)) {
        let mut manifest = manifest();
        alter(&mut manifest.tables[0]);
        self.state.lock().manifest = Arc::new(manifest);
    }

    /// Replaces the name of the field `n` of all tables, with another version.
    pub fn rename_n(&self, name: &str) {
        let mut manifest = manifest();
        let fields = manifest.tables.iter_mut().flat_map(|table| &mut table.fields);
        fields.filter(|field| field.name == "n").for_each(|field| field.name = name.into());
        self.state.lock().manifest = Arc::new(manifest);
    }

    /// Deletes the projection.
    pub fn delete(&self) {
        self.state.lock().epoch = None;
        self.announce(None);
    }

    fn announce(&self, epoch: Option<&str>) {
        if let Some(hub) = &*self.hub.lock() {
            hub.activated(PROJECTION, epoch);
        }
    }

    /// Makes a commit with the given changes, and publishes it. Returns its number.
    pub fn commit(&self, partition: u32, writes: &[Write<'_>]) -> u64 {
        let pos = self.commit_unpublished(partition, writes);
        self.publish();
        pos
    }

    /// Makes a commit and does not publish it, like an engine before it publishes.
    pub fn commit_unpublished(&self, partition: u32, writes: &[Write<'_>]) -> u64 {
        let mut state = self.state.lock();
        let epoch = state.epoch.clone().expect("a version is served");
        let shard = &mut state.shards[partition as usize];
        shard.meta.pos += 1;
        shard.meta.next = Offset(shard.meta.next.0 + 10);
        shard.meta.max_time = Timestamp(shard.meta.pos.cast_signed());
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
            space.insert(key.as_bytes(), value.as_deref());
        }
        let touched = [0, 1].map(|table| tables.contains_key(&table));
        let tables: Vec<_> = tables.into_values().collect();
        let point = ShardPoint::of(&shard.meta);
        // Like the engine, the world logs no commit without changes.
        if !tables.is_empty() {
            let change_key = TableChanges::key(point, shard.meta.pos);
            let encoded = TableChanges::encode(&tables);
            stored.entry(Space::Changes).or_default().insert(&change_key, Some(&encoded));
        }
        write_meta(&mut stored, &shard.meta);
        shard.store.commit(&stored).expect("no fault is planted");
        let commit = PublishedCommit {
            projection: PROJECTION.into(),
            version: VersionId("v".into()),
            epoch: epoch.clone(),
            partition: PartitionId(partition),
            pos: shard.meta.pos,
            next: shard.meta.next,
            checkpoint: Checkpoint::of([&shard.meta]),
            event_time: shard.meta.max_time,
            durable: true,
            tables,
        };
        let pos = state.shards.iter().map(|shard| shard.meta.pos).sum();
        let before = state.history.get(&(epoch.clone(), pos - 1)).map(|at| at.rows.clone());
        let rows = before.expect("positions leave no gap");
        let rows = [0, 1].map(|table| match touched[table] {
            true => Arc::new(merged(&state.shards, table)),
            false => rows[table].clone(),
        });
        let shard = &mut state.shards[partition as usize];
        let unsynced = Unsynced {
            meta: shard.meta.clone(),
            tables: commit.tables.clone(),
            rows: shard.rows.clone(),
        };
        shard.unsynced.push(unsynced);
        if shard.unsynced.len() > UNSYNCED {
            shard.unsynced.clear();
        }
        let next = next(&state.shards);
        state.history.insert((epoch, pos), Moment { rows, touched, next, lost: false });
        state.unpublished.push(Arc::new(commit));
        pos
    }

    /// Publishes all commits that are not published yet.
    pub fn publish(&self) {
        let commits = std::mem::take(&mut self.state.lock().unpublished);
        if let Some(hub) = &*self.hub.lock() {
            commits.iter().for_each(|commit| hub.committed(commit));
        }
    }

    /// Simulates a crash of the server that undoes some or all of the commits without a sync. The
    /// events of these commits are committed again under numbers that were never used. One new
    /// commit may contain the events of several lost commits. `below` returns a random number below
    /// its argument.
    pub fn crash(&self, below: &mut dyn FnMut(usize) -> usize) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(epoch) = state.epoch.clone() else { return };
        state.unpublished.clear();
        // The commits of several shards have no known order, so readers see only the last one.
        let is_one = state.shards.len() == 1;
        for index in 0..state.shards.len() {
            let shard = &mut state.shards[index];
            let kept = below(shard.unsynced.len() + 1);
            let lost = std::mem::take(&mut shard.unsynced).split_off(kept);
            let mut number = shard.meta.pos + below(5) as u64;
            let mut stored = Writes::new();
            let mut log = Vec::new();
            for Unsynced { meta, .. } in &lost {
                log.push((TableChanges::key(ShardPoint::of(meta), meta.pos), None));
                let moment = state.history.get_mut(&(epoch.clone(), meta.pos));
                if let Some(moment) = moment.filter(|_| is_one) {
                    moment.lost = true;
                }
            }
            let mut rest = lost.as_slice();
            while !rest.is_empty() {
                let (group, later) = rest.split_at(rest.len().min(1 + below(3)));
                rest = later;
                number += 1;
                let last = &group[group.len() - 1];
                let tables = in_one(group);
                if !tables.is_empty() {
                    let key = TableChanges::key(ShardPoint::of(&last.meta), number);
                    log.push((key, Some(TableChanges::encode(&tables))));
                }
                shard.meta.pos = number;
                let touched = [0, 1].map(|table| tables.iter().any(|t| t.table == TableId(table)));
                if is_one {
                    let rows = [0, 1].map(|table| Arc::new(last.rows[table].clone()));
                    let moment = Moment { rows, touched, next: last.meta.next.0, lost: false };
                    state.history.insert((epoch.clone(), number), moment);
                }
            }
            let entries = stored.entry(Space::Changes).or_default();
            for (key, value) in &log {
                entries.insert(key, value.as_deref());
            }
            write_meta(&mut stored, &shard.meta);
            shard.store.commit(&stored).expect("no fault is planted");
        }
        let commit = state.shards.iter().map(|shard| shard.meta.pos).sum();
        let rows = [0, 1].map(|table| Arc::new(merged(&state.shards, table)));
        let moment = state.history.entry((epoch, commit)).or_default();
        (moment.rows, moment.next) = (rows, next(&state.shards));
    }

    /// Deletes the change log of the state, up to the newest commit.
    pub fn forget_changes(&self) {
        let mut state = self.state.lock();
        for shard in &mut state.shards {
            let mut stored = Writes::new();
            let all = KeyRange::all();
            let old = shard.store.scan(Space::Changes, &all, usize::MAX, false);
            let old = old.expect("no fault is planted");
            let gone = old.into_iter().map(|(key, _)| (key, None)).collect();
            stored.insert(Space::Changes, gone);
            shard.meta.changes_from = ShardPoint::of(&shard.meta);
            shard.unsynced.clear();
            write_meta(&mut stored, &shard.meta);
            shard.store.commit(&stored).expect("no fault is planted");
        }
    }

    /// Makes the next read of the store fail.
    pub fn fail_next_read(&self) {
        let error = lantern_core::StoreError::Io("planted".into());
        self.state.lock().shards[0].store.fail_next_read(error);
    }

    /// Returns the rows that a table had at a commit.
    ///
    /// # Panics
    /// Panics if the table did not exist at that commit.
    pub fn rows_at(&self, epoch: &str, pos: u64, table: usize) -> Rows {
        let numbers = self.numbers_at(epoch, pos, table);
        let numbers = numbers.unwrap_or_else(|| panic!("{epoch} never was at {pos}"));
        numbers.iter().map(|(key, n)| (key.clone(), row(key, *n))).collect()
    }

    /// Returns the values of `n` that a table had at a commit; `None` if the table did not exist at
    /// that commit.
    pub fn numbers_at(&self, epoch: &str, pos: u64, table: usize) -> Option<Arc<Numbers>> {
        let state = self.state.lock();
        state.history.get(&(epoch.to_owned(), pos)).map(|at| at.rows[table].clone())
    }

    /// Returns the number of commits after `from`, up to `to`, that wrote to a table. If a commit
    /// was made again after a crash, it does not count if the state at `from` already contains its
    /// events.
    pub fn writes_between(&self, epoch: &str, from: u64, to: u64, table: usize) -> usize {
        let state = self.state.lock();
        let at = |pos| state.history.get(&(epoch.to_owned(), pos));
        let had = at(from).map_or(0, |at| at.next);
        // If a crash undid the last commit, the client received its changes before the crash.
        let before = at(to).is_some_and(|at| at.lost);
        let wrote = |at: &&Moment| at.touched[table] && at.next > had && (before || !at.lost);
        (from + 1..=to).filter_map(at).filter(wrote).count()
    }

    /// Returns the current epoch and the number of the newest commit.
    pub fn head(&self) -> (String, u64) {
        let state = self.state.lock();
        let epoch = state.epoch.clone().expect("a version is served");
        (epoch, state.shards.iter().map(|shard| shard.meta.pos).sum())
    }

    /// Returns the number of times that a view of the state was opened.
    pub fn views(&self) -> u64 {
        self.state.lock().views
    }
}

/// Merges the changes of several commits into those of one commit.
fn in_one(commits: &[Unsynced]) -> Vec<TableChanges> {
    let mut tables: BTreeMap<u32, BTreeMap<String, Option<Vec<u8>>>> = BTreeMap::new();
    for changes in commits.iter().flat_map(|commit| &commit.tables) {
        let rows = tables.entry(changes.table.0).or_default();
        rows.extend(changes.up.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        rows.extend(changes.del.iter().map(|key| (key.clone(), None)));
    }
    let changes = |(table, rows): (u32, BTreeMap<String, Option<Vec<u8>>>)| {
        let mut changes = TableChanges { table: TableId(table), ..TableChanges::default() };
        for (key, value) in rows {
            match value {
                Some(value) => changes.up.push((key, value)),
                None => changes.del.push(key),
            }
        }
        changes
    };
    tables.into_iter().map(changes).collect()
}

fn write_meta(stored: &mut Writes, meta: &ShardMeta) {
    let meta = serde_json::to_vec(meta).expect("numbers always encode");
    stored.entry(Space::Meta).or_default().insert(ShardMeta::KEY, Some(&meta));
}

fn next(shards: &[Shard]) -> u64 {
    shards.iter().map(|shard| shard.meta.next.0).sum()
}

fn merged(shards: &[Shard], table: usize) -> Numbers {
    shards.iter().fold(Numbers::new(), |sums, shard| add(sums, &shard.rows[table]))
}

/// Adds the values of one shard's rows to the sums over the other shards.
fn add(mut sums: Numbers, rows: &Numbers) -> Numbers {
    for (key, n) in rows {
        match sums.get_mut(key) {
            Some(sum) => *sum += n,
            None => drop(sums.insert(key.clone(), *n)),
        }
    }
    sums
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
