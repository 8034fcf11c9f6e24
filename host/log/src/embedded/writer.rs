//! Implements the writer, the only thread that writes to the file. It writes several appends in one
//! commit, and recovers from faults.
//!
//! An append is acknowledged only after its transaction is on disk. After a fault of the file, the
//! writer refuses waiting appends and drops the cached pages of the file. Then it opens and loads
//! the file again, with backoff.
//!
//! After that, the file may or may not contain the events of the failed commit. These events were
//! never acknowledged. If a client sends them again, the deduplication window recognizes those that
//! are stored, because it is loaded from the file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern_core::{
    Appended, AppendedEvent, Attributes, EventRef, Events, Identity, KnownEvent, LogError, Offset,
    PartitionId, Timestamp,
};
use lantern_redb_file::{OpenFile, forget_cached_pages};
use redb::{Database, ReadableTable as _, WriteTransaction};
use tracing::{debug, error, info, warn};

use super::append_plan::{AppendPlan, AppendTimes, TYPES_MAX};
use super::chunk_meta::{EventIdentities, IDENTITIES_MAX};
use super::codec::Encoder;
use super::queue::{PendingAppend, Shared, WriterWork, answer};
use super::retention;
use super::tables::{
    self, CHUNKS, Fault, IDENTITIES, INCARNATIONS, INDEX, LOG, PARTITIONS, State, TYPES, caught,
};

/// The waits before the file is opened again after a fault: the first wait and the longest wait.
const REOPEN_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(crate) struct Writer {
    shared: Arc<Shared>,
    state: State,
    encoder: Encoder,
}

/// A group of appends before it is written. Each event has its partition and offset already.
struct RoutedAppends {
    results: Vec<Appended>,
    /// The new events of each partition.
    fresh: Vec<Vec<Events>>,
    /// The identities of the new events of each partition.
    identities: Vec<Vec<Identity>>,
    events: u64,
    duplicates: u64,
    /// The number of duplicates whose content differs from that of the stored event.
    differing: u64,
    /// The append times of the new events of each partition, if the events are imported from
    /// another log; otherwise `None`.
    kept_times: Option<Vec<Vec<Timestamp>>>,
}

/// A partition that has new events, whose readers must be woken.
struct WakeUp {
    partition: PartitionId,
    /// The types of the new events; `None` if they are not known.
    types: Option<Vec<String>>,
}

/// Closes the log when the writer's thread ends, even after a panic.
struct CloseGuard(Arc<Shared>);

impl Drop for CloseGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, state: State) -> Self {
        let encoder = Encoder::new(shared.config.compression);
        Self { shared, state, encoder }
    }

    /// Executes commands until the log is closed.
    pub(crate) fn run(mut self) {
        let _end = CloseGuard(Arc::clone(&self.shared));
        loop {
            let fault = match self.shared.next_work() {
                WriterWork::Commit(group) => self.commit(group),
                WriterWork::Maintain(maintenance) => {
                    let result = self.database().and_then(|db| {
                        let (shared, state) = (&self.shared, &mut self.state);
                        caught(|| retention::maintain(&db, shared, state, &maintenance))
                    });
                    let fault = result.as_ref().err().is_some_and(Fault::is_of_the_file);
                    let result = result.map_err(LogError::from);
                    let fault = result.as_ref().err().filter(|_| fault).cloned();
                    // The caller may no longer wait for the answer.
                    drop(maintenance.reply.try_send(result));
                    fault
                }
                WriterWork::Reopen => {
                    Some(LogError::Unavailable("the file could not be read".into()))
                }
                WriterWork::Close => return,
            };
            if let Some(why) = fault
                && !self.reopen(&why)
            {
                return;
            }
        }
    }

    fn database(&self) -> Result<Arc<OpenFile>, Fault> {
        let database = self.shared.database.read();
        Ok(Arc::clone(
            database.as_ref().expect("it is missing only while the writer opens it again"),
        ))
    }

    /// Makes a group of appends durable, and answers each of them. Returns an error if the file
    /// must be opened again.
    fn commit(&mut self, group: Vec<PendingAppend>) -> Option<LogError> {
        let bytes = group.iter().map(|pending| pending.bytes).sum();
        if let Err(full) = self.shared.check_room(bytes) {
            fail(group, &full);
            self.shared.answered(bytes);
            return None;
        }
        if let Some(refused) = self.refuse_import(&group) {
            fail(group, &refused);
            self.shared.answered(bytes);
            return None;
        }
        let started = Instant::now();
        let (mut routed, dones) = self.route(group);
        let outcome = caught(|| self.write(&mut routed));
        let fault = match outcome {
            Ok(woken) => {
                metrics::histogram!("lantern_log_commit_seconds").record(started.elapsed());
                debug!(appends = dones.len(), events = routed.events, bytes, "appended");
                self.publish(&woken);
                metrics::counter!("lantern_log_events_total").increment(routed.events);
                metrics::counter!("lantern_log_bytes_total").increment(bytes as u64);
                if routed.duplicates > 0 {
                    self.shared.add_duplicates(routed.duplicates, routed.differing);
                }
                for (done, appended) in dones.into_iter().zip(routed.results) {
                    answer(done, Ok(appended));
                }
                None
            }
            Err(fault) => {
                let why = LogError::from(fault);
                error!(%why, "events could not be appended");
                dones.into_iter().for_each(|done| answer(done, Err(why.clone())));
                // After a failure, the state in memory contains changes that the file may not have.
                Some(why)
            }
        };
        self.shared.answered(bytes);
        fault
    }

    /// Returns an error if the group contains an import, but the log has events that were not
    /// imported.
    fn refuse_import(&self, group: &[PendingAppend]) -> Option<LogError> {
        if group.iter().all(|pending| pending.appended.is_none()) {
            return None;
        }
        let mut partitions = self.state.partitions.iter().zip(&self.state.imported);
        let other = partitions.any(|(state, imported)| state.row.end != *imported);
        other.then(|| {
            LogError::NoImport(
                "the log already holds events that were not imported: start with a new data folder"
                    .into(),
            )
        })
    }

    /// Gives each event its partition and offset. For a duplicate, these are the ones of the event
    /// that the log already has.
    fn route(
        &mut self,
        group: Vec<PendingAppend>,
    ) -> (RoutedAppends, Vec<lantern_core::AppendDone>) {
        let count = self.state.partitions.len();
        let mut routed = RoutedAppends {
            results: Vec::with_capacity(group.len()),
            fresh: vec![Vec::new(); count],
            identities: vec![Vec::new(); count],
            events: 0,
            duplicates: 0,
            differing: 0,
            kept_times: None,
        };
        let mut ends: Vec<Offset> = self.state.partitions.iter().map(|p| p.row.end).collect();
        let dones = group
            .into_iter()
            .map(|PendingAppend { events, identities, appended: times, done, .. }| {
                let appended = self.assign_offsets(&events, &identities, &mut ends, &mut routed);
                if let Some(times) = times {
                    let kept = routed.kept_times.insert(vec![Vec::new(); count]);
                    for (event, time) in appended.iter().zip(times).filter(|(e, _)| !e.duplicate) {
                        kept[event.partition.0 as usize].push(time);
                    }
                }
                copy_new(events, &appended, &mut routed.fresh);
                routed.results.push(Appended { events: appended });
                done
            })
            .collect();
        (routed, dones)
    }

    fn assign_offsets(
        &mut self,
        events: &Events,
        identities: &[Identity],
        ends: &mut [Offset],
        routed: &mut RoutedAppends,
    ) -> Vec<AppendedEvent> {
        let window = &mut self.state.window;
        let mut appended = Vec::with_capacity(events.len());
        for index in 0..events.len() {
            let identity = identities.get(index);
            if let Some(seen) = identity.and_then(|identity| window.find(identity)) {
                let KnownEvent { partition, offset, differs } = seen;
                routed.duplicates += 1;
                if differs {
                    routed.differing += 1;
                    let EventRef { source, id, .. } = events.get(index);
                    warn!(
                        %partition, %offset, source, id,
                        "an event was not appended: the event at this offset has the same tenant, source and id, but other content"
                    );
                }
                appended.push(AppendedEvent { partition, offset, duplicate: true, differs });
                continue;
            }
            let partition_index = match ends.len() {
                1 => 0,
                count => partition_of(&events.get(index), count),
            };
            let partition =
                PartitionId(u32::try_from(partition_index).expect("partitions are few"));
            let offset = ends[partition_index];
            ends[partition_index] = offset.next();
            if let Some(identity) = identity {
                window.push(*identity, partition, offset);
                routed.identities[partition_index].push(*identity);
            }
            routed.events += 1;
            appended.push(AppendedEvent { partition, offset, duplicate: false, differs: false });
        }
        appended
    }

    /// Writes the group in one durable transaction, and then updates the state in memory. Returns
    /// the partitions that have new events.
    fn write(&mut self, routed: &mut RoutedAppends) -> Result<Vec<WakeUp>, Fault> {
        if routed.events == 0 {
            return Ok(Vec::new());
        }
        let now = (self.shared.now)();
        let mut plans = Vec::new();
        let mut woken = Vec::new();
        for (partition_index, mut fresh) in
            std::mem::take(&mut routed.fresh).into_iter().enumerate()
        {
            if fresh.is_empty() {
                continue;
            }
            fresh.iter_mut().for_each(|events| events.fill_times(now));
            let partition = &mut self.state.partitions[partition_index];
            let types: BTreeSet<_> = fresh.iter().flat_map(Events::type_names).cloned().collect();
            let types = Some(types.into_iter().collect());
            woken.push(WakeUp { partition: partition.partition, types });
            let times = match &mut routed.kept_times {
                Some(kept) => AppendTimes::Kept(std::mem::take(&mut kept[partition_index])),
                None => AppendTimes::Now(now),
            };
            plans.push(partition.plan(
                partition_index,
                fresh,
                times,
                &self.shared.config,
                &mut self.encoder,
            ));
        }
        let identities = self.records_of(&routed.identities);
        let database = self.database()?;
        let imports = routed.kept_times.is_some();
        let (next, stored) = self.write_plans(&database, &plans, &identities, imports)?;
        (self.state.identities_next, self.state.identities_stored) = (next, stored);
        self.state.window.trim();
        metrics::counter!("lantern_log_commits_total").increment(1);
        for plan in plans {
            let incarnations = &mut self.state.incarnations[plan.partition_index];
            if incarnations.newest() != Some(self.state.incarnation) {
                let start = self.state.partitions[plan.partition_index].row.end;
                incarnations.push(start, self.state.incarnation);
                *self.shared.incarnations.write() = self.state.incarnations.clone();
            }
            if imports {
                self.state.imported[plan.partition_index] = plan.row.end;
            }
            let state = &mut self.state.partitions[plan.partition_index];
            let chunks: Vec<_> = plan.written.iter().map(|w| Arc::clone(&w.chunk)).collect();
            if let Some(from) = state.committed(plan) {
                self.shared.cache.forget(state.partition, from, state.row.end);
            }
            chunks.into_iter().for_each(|chunk| self.shared.cache.insert(chunk));
        }
        Ok(woken)
    }

    fn records_of(&self, identities: &[Vec<Identity>]) -> Vec<EventIdentities> {
        let mut records = Vec::new();
        for (state, hashes) in self.state.partitions.iter().zip(identities) {
            let mut first = state.row.end;
            for hashes in hashes.chunks(IDENTITIES_MAX) {
                records.push(EventIdentities {
                    partition: state.partition,
                    first,
                    hashes: hashes.to_vec(),
                });
                first = Offset(first.0 + hashes.len() as u64);
            }
        }
        records
    }

    fn write_plans(
        &self,
        database: &Database,
        plans: &[AppendPlan],
        identities: &[EventIdentities],
        imports: bool,
    ) -> Result<(u64, u64), Fault> {
        let transaction = self.state.begin_write(database, &self.shared.config)?;
        let (mut next, mut stored) = (self.state.identities_next, self.state.identities_stored);
        {
            let mut chunks = transaction.open_table(CHUNKS)?;
            let mut index = transaction.open_table(INDEX)?;
            let mut rows = transaction.open_table(PARTITIONS)?;
            let mut types = transaction.open_table(TYPES)?;
            for plan in plans {
                let state = &self.state.partitions[plan.partition_index];
                let partition = state.partition.0;
                for small in state.run.iter().filter(|_| plan.absorbs) {
                    chunks.remove((partition, small.first.0))?;
                    index.remove((partition, small.first.0))?;
                }
                for written in &plan.written {
                    let key = (partition, written.chunk.offset(0).0);
                    chunks.insert(key, written.encoded.bytes.as_slice())?;
                    index.insert(key, written.meta.encode().as_slice())?;
                }
                self.write_incarnation(&transaction, plan.partition_index)?;
                if imports {
                    let key = tables::imported_key(partition);
                    transaction.open_table(LOG)?.insert(key.as_str(), plan.row.end.0)?;
                }
                rows.insert(partition, plan.row.encode().as_slice())?;
                for (name, count) in &plan.types {
                    match count {
                        0 => drop(types.remove((partition, name.as_str()))?),
                        count => drop(types.insert((partition, name.as_str()), *count)?),
                    }
                }
            }
            let mut table = transaction.open_table(IDENTITIES)?;
            for record in identities {
                table.insert(next, record.encode().as_slice())?;
                next += 1;
                stored += record.hashes.len() as u64;
            }
            stored = forget_oldest(&mut table, stored, self.shared.config.dedup_window_events)?;
        }
        transaction.commit()?;
        Ok((next, stored))
    }

    /// Stores the incarnation of this opening of the log. This is part of the transaction that
    /// appends its first events to a partition.
    fn write_incarnation(
        &self,
        to: &WriteTransaction,
        partition_index: usize,
    ) -> Result<(), Fault> {
        let mut incarnations = self.state.incarnations[partition_index].clone();
        if incarnations.newest() == Some(self.state.incarnation) {
            return Ok(());
        }
        let (partition, start) = {
            let state = &self.state.partitions[partition_index];
            (state.partition.0, state.row.end)
        };
        let mut table = to.open_table(INCARNATIONS)?;
        if let Some(forgotten) = incarnations.push(start, self.state.incarnation) {
            table.remove((partition, forgotten.0))?;
        }
        table.insert((partition, start.0), self.state.incarnation)?;
        Ok(())
    }

    /// Publishes the new records of the partitions to readers, and wakes the readers.
    fn publish(&self, woken: &[WakeUp]) {
        if woken.is_empty() {
            return;
        }
        publish_rows(&self.shared, &self.state);
        let wakers = self.shared.wakers.read().clone();
        for waker in &wakers {
            woken.iter().for_each(|woken| waker(woken.partition, woken.types.as_deref()));
        }
    }

    /// Opens the file again after a fault, and repeats this until it succeeds. Returns `false` if
    /// the log is closed in the meantime.
    fn reopen(&mut self, why: &LogError) -> bool {
        self.shared.go_down(why);
        *self.shared.database.write() = None;
        self.shared.cache.clear();
        metrics::counter!("lantern_log_faults_total").increment(1);
        let mut wait = REOPEN_WAIT.0;
        loop {
            match self.try_open() {
                Ok(()) => break,
                Err(error) => error!(%error, "the log cannot be opened again yet"),
            }
            if self.shared.wait_closed(wait) {
                return false;
            }
            wait = (wait * 2).min(REOPEN_WAIT.1);
        }
        info!("the log is open again");
        self.shared.come_up();
        let all = self.state.partitions.iter();
        let all = all.map(|state| WakeUp { partition: state.partition, types: None });
        self.publish(&all.collect::<Vec<_>>());
        true
    }

    fn try_open(&mut self) -> Result<(), super::OpenError> {
        let path = self.shared.path.clone().unwrap_or_default();
        if let Some(path) = &self.shared.path {
            drop_cached_pages(path)
                .map_err(|error| tables::open_error(Fault::Redb(error.into()), path))?;
        }
        let database =
            caught(|| Ok((self.shared.open)()?)).map_err(|f| tables::open_error(f, &path))?;
        let database = OpenFile::from(database);
        self.state = tables::load(&database, &self.shared.config, &path)?;
        *self.shared.incarnations.write() = self.state.incarnations.clone();
        publish_rows(&self.shared, &self.state);
        *self.shared.database.write() = Some(Arc::new(database));
        Ok(())
    }
}

fn publish_rows(shared: &Shared, state: &State) {
    *shared.rows.write() = state.partitions.iter().map(|p| p.row).collect();
    if let Some(file) = shared.path.as_ref().and_then(|path| std::fs::metadata(path).ok()) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lantern_log_bytes_on_disk").set(file.len() as f64);
    }
}

/// Drops the cached pages of the file. After a failed sync, the operating system may have pages
/// that are marked as written but never reached the disk. Such pages must not be read.
fn drop_cached_pages(path: &std::path::Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    file.sync_all()?;
    forget_cached_pages(&file)?;
    Ok(())
}

/// Removes the oldest records of identities, which the deduplication window no longer needs.
fn forget_oldest(
    table: &mut redb::Table<'_, u64, &'static [u8]>,
    mut stored: u64,
    window: u32,
) -> Result<u64, Fault> {
    /// The maximum number of records that one commit removes. It keeps commits short if
    /// `log.dedup_window_events` was lowered.
    const REMOVED_MAX: usize = 64;
    for _ in 0..REMOVED_MAX {
        if stored <= u64::from(window) {
            break;
        }
        // Damaged records are not included in `stored`.
        let count =
            |bytes: &[u8]| EventIdentities::decode(bytes).map_or(0, |i| i.hashes.len() as u64);
        let first = table.first()?.map(|(key, value)| (key.value(), count(value.value())));
        let Some((key, count)) = first else {
            break;
        };
        if stored - count < u64::from(window) {
            break;
        }
        table.remove(key)?;
        stored -= count;
    }
    Ok(stored)
}

/// Copies those events that are not duplicates to their partitions.
fn copy_new(events: Events, appended: &[AppendedEvent], fresh: &mut [Vec<Events>]) {
    let whole = appended.iter().all(|a| !a.duplicate && a.partition == appended[0].partition);
    if let (true, Some(first)) = (whole, appended.first())
        && fresh[first.partition.0 as usize].is_empty()
    {
        fresh[first.partition.0 as usize].push(events);
        return;
    }
    let mut start = 0;
    for run in appended.chunk_by(|a, b| a.partition == b.partition && a.duplicate == b.duplicate) {
        let range = start..start + run.len();
        start = range.end;
        if run[0].duplicate {
            continue;
        }
        let builders = &mut fresh[run[0].partition.0 as usize];
        let fits = builders
            .last()
            .is_some_and(|b| b.type_names().len() + events.type_names().len() <= TYPES_MAX);
        if !fits {
            builders.push(Events::new());
        }
        let builder = builders.last_mut().expect("one was pushed if there was none");
        let copied = builder.extend_from(&events, range, Attributes::all());
        assert!(copied, "the number of types was checked");
    }
}

fn fail(group: Vec<PendingAppend>, why: &LogError) {
    group.into_iter().for_each(|pending| answer(pending.done, Err(why.clone())));
}

/// Returns the partition of an event; see [`super::LogConfig::partitions`].
pub(crate) fn partition_of(event: &EventRef<'_>, count: usize) -> usize {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    };
    if event.subject.is_empty() {
        add(event.source.as_bytes());
        add(&[0]);
        add(event.id.as_bytes());
    } else {
        add(event.subject.as_bytes());
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^= hash >> 33;
    usize::try_from(hash % count as u64).expect("partitions are few")
}
