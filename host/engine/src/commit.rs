//! Implements commits. A commit writes the applied changes and the next offset in one transaction.
//! If there is more to fold, the commit runs on a thread of its own in parallel to the fold. A
//! shard has at most one commit in progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lantern_core::{
    Ceiling, EventTraces, KeyRange, Manifest, Offset, PublishedCommit, ShardMeta, ShardPoint,
    ShardStore, Space, StoreError, TableChanges, Timestamp, TraceTime, Writes,
};

use crate::EngineConfig;
use crate::change_set::PendingChanges;
use crate::sync_policy::{CommitSync, SyncPolicy};

/// The number of entries of the change log that are read at once.
const CHANGES_PAGE: usize = 64;

/// A commit that is ready to run.
#[derive(Clone)]
pub(crate) struct Commit {
    pub(crate) store: Arc<dyn ShardStore>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) changes: Arc<PendingChanges>,
    /// The shard's record after `changes`. Its commit number is still that of the previous commit.
    pub(crate) meta: ShardMeta,
    /// Whether the version serves readers. If so, the changes are published and added to the change
    /// log.
    pub(crate) serves: bool,
    /// The maximum number of bytes in the change log.
    pub(crate) changes_bytes_max: u64,
    /// Whether the shard has changed since the last commit. If so, this commit gets a number of its
    /// own. Otherwise this commit only makes the last commit durable.
    pub(crate) is_new: bool,
    pub(crate) sync: CommitSync,
    /// The ceiling that this commit stores if it is durable: how far later commits without a sync
    /// may go.
    pub(crate) ceiling: Ceiling,
    /// The approximate size of `changes`, in bytes.
    pub(crate) bytes: usize,
    /// Measures the commit; `None` if it contains no traced event.
    pub(crate) clock: Option<Arc<dyn EventTraces>>,
}

/// When a commit ran, and what it wrote, for traces.
pub(crate) struct CommitTiming {
    pub(crate) began: TraceTime,
    pub(crate) ended: TraceTime,
    /// The number of rows that the commit wrote or deleted.
    pub(crate) rows: usize,
}

/// The result of a commit.
pub(crate) struct CommitOutcome {
    pub(crate) meta: ShardMeta,
    pub(crate) tables: Vec<TableChanges>,
    pub(crate) is_new: bool,
    pub(crate) sync: CommitSync,
    pub(crate) bytes: usize,
    /// `None` if the commit contains no traced event.
    pub(crate) timing: Option<CommitTiming>,
}

impl CommitOutcome {
    /// Returns whether the commit is durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.sync != CommitSync::Later
    }
}

impl Commit {
    /// Runs the commit on the caller's thread.
    pub(crate) fn run(mut self) -> Result<CommitOutcome, StoreError> {
        let begun = self.clock.take().map(|clock| (clock.now(), clock));
        self.meta.pos += u64::from(self.is_new);
        let mut writes = self.changes.writes();
        let rows = if begun.is_some() { changed_rows(&writes) } else { 0 };
        let tables = if self.serves { public_changes(&self.manifest, &writes) } else { Vec::new() };
        self.log_changes(&mut writes, &tables)?;
        self.note_changed_tables(&mut writes);
        if self.sync != CommitSync::Later {
            self.meta.ceiling = self.ceiling;
        }
        let record = serde_json::to_vec(&self.meta).expect("numbers always encode");
        writes.entry(Space::Meta).or_default().insert(ShardMeta::KEY, Some(&record));
        match self.sync {
            CommitSync::Now | CommitSync::Close => self.store.commit(&writes)?,
            CommitSync::Later => self.store.commit_unsynced(&writes)?,
        }
        let timing = begun.map(|(began, clock)| CommitTiming { began, ended: clock.now(), rows });
        let Self { meta, is_new, sync, bytes, .. } = self;
        Ok(CommitOutcome { meta, tables, is_new, sync, bytes, timing })
    }

    /// Stores for each changed public table that this commit was the last one to change it.
    fn note_changed_tables(&self, writes: &mut Writes) {
        let point = ShardPoint::of(&self.meta).to_key();
        for (table, _) in self.manifest.public_tables() {
            if writes.get(&Space::Table(table)).is_some_and(|rows| !rows.is_empty()) {
                let record = writes.entry(Space::Meta).or_default();
                record.insert(&TableChanges::last_key(table), Some(&point));
            }
        }
    }

    /// Adds the commit to the change log and removes its oldest entries.
    fn log_changes(
        &mut self,
        writes: &mut Writes,
        tables: &[TableChanges],
    ) -> Result<(), StoreError> {
        let meta = &mut self.meta;
        if !self.serves {
            meta.changes_from = ShardPoint::of(meta);
            return Ok(());
        }
        if tables.is_empty() {
            return Ok(());
        }
        let entry = TableChanges::encode(tables);
        meta.changes_bytes += entry.len() as u64;
        let log = writes.entry(Space::Changes).or_default();
        log.insert(&TableChanges::key(ShardPoint::of(meta), meta.pos), Some(&entry));
        // The entries are read in pages, so that a very large entry is not in memory together with
        // all others.
        while meta.changes_bytes > self.changes_bytes_max {
            let start = TableChanges::key(meta.changes_from, u64::MAX);
            let range = KeyRange { start, end: None };
            let oldest = self.store.scan(Space::Changes, &range, CHANGES_PAGE, false)?;
            if oldest.is_empty() {
                break;
            }
            for (key, value) in oldest {
                if meta.changes_bytes <= self.changes_bytes_max {
                    break;
                }
                meta.changes_bytes = meta.changes_bytes.saturating_sub(value.len() as u64);
                let (point, _) = TableChanges::parse_change_key(&key)
                    .ok_or_else(|| StoreError::Damaged("an entry of the change log".into()))?;
                meta.changes_from = point;
                log.insert(&key, None);
            }
        }
        Ok(())
    }
}

/// Returns the number of rows that `writes` changes, in all tables.
fn changed_rows(writes: &Writes) -> usize {
    let tables = writes.iter().filter(|(space, _)| matches!(space, Space::Table(_)));
    tables.map(|(_, pairs)| pairs.len()).sum()
}

/// Those changes in `writes` that belong to public tables.
fn public_changes(manifest: &Manifest, writes: &Writes) -> Vec<TableChanges> {
    manifest
        .public_tables()
        .filter_map(|(table, _)| {
            let pairs = writes.get(&Space::Table(table))?;
            let mut changes = TableChanges { table, ..TableChanges::default() };
            for (key, value) in pairs {
                let key = String::from_utf8_lossy(key).into_owned();
                match value {
                    Some(value) => changes.up.push((key, value.to_vec())),
                    None => changes.del.push(key),
                }
            }
            Some(changes)
        })
        .collect()
}

/// The threads that run commits in parallel to the fold.
#[derive(Default)]
pub(crate) struct CommitThreads {
    /// The maximum number of commits that run at the same time on threads of their own. The number
    /// is 0 until the engine starts its threads. Until then, the caller that waits for a commit
    /// runs the commit.
    most: AtomicUsize,
    running: Arc<AtomicUsize>,
}

impl CommitThreads {
    /// Allows up to `most` commits to run at the same time on threads of their own.
    pub(crate) fn start(&self, most: usize) {
        self.most.store(most, Ordering::Release);
    }

    /// Begins a commit on a thread of its own. Returns `None` if the maximum number of commits is
    /// running; the caller must then run the commit.
    pub(crate) fn begin(&self, commit: &Commit) -> Option<PendingCommit> {
        let most = self.most.load(Ordering::Acquire);
        if most == 0 {
            return Some(PendingCommit {
                execution: Some(Execution::OnWait(Box::new(commit.clone()))),
            });
        }
        let more = |count: usize| (count < most).then_some(count + 1);
        self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        let counted = CommitGuard(self.running.clone());
        let commit = commit.clone();
        let work = move || {
            let outcome = commit.run();
            drop(counted);
            outcome
        };
        let thread = std::thread::Builder::new().name("commit".into()).spawn(work).ok()?;
        Some(PendingCommit { execution: Some(Execution::Thread(thread)) })
    }
}

/// Counts a running commit as long as this value exists.
struct CommitGuard(Arc<AtomicUsize>);

impl Drop for CommitGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A commit that has begun. Dropping it waits until its thread has ended. Otherwise the state could
/// be opened again while the thread still writes.
pub(crate) struct PendingCommit {
    execution: Option<Execution>,
}

enum Execution {
    Thread(JoinHandle<Result<CommitOutcome, StoreError>>),
    /// The commit runs when the caller waits for it.
    OnWait(Box<Commit>),
}

impl PendingCommit {
    /// Returns whether the commit has ended, so that waiting for it takes no time.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&self.execution, Some(Execution::Thread(thread)) if thread.is_finished())
    }

    /// Waits until the commit has ended, and returns its result.
    pub(crate) fn wait(mut self) -> Result<CommitOutcome, StoreError> {
        match self.execution.take() {
            Some(Execution::Thread(thread)) => thread.join().unwrap_or_else(|_| {
                // The commit may be durable or not. Committing the same changes again does no harm.
                Err(StoreError::Io("a commit panicked".into()))
            }),
            Some(Execution::OnWait(commit)) => commit.run(),
            None => Err(StoreError::Io("a commit was waited for twice".into())),
        }
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        if let Some(Execution::Thread(thread)) = self.execution.take() {
            // The result is ignored: the next reader of the state sees what was committed.
            let _ = thread.join();
        }
    }
}

/// The commits of one shard: the one in progress, the last durable one, and those that readers do
/// not see yet.
pub(crate) struct CommitPipeline {
    /// The threads that run commits in parallel to the fold; `None` if the fold runs each commit
    /// itself.
    committers: Option<Arc<CommitThreads>>,
    pending: Option<PendingCommit>,
    /// The commits that are not published to readers yet, in order.
    unpublished: Vec<Arc<PublishedCommit>>,
    /// The time at which the last commit began.
    last: Duration,
    /// The next offset and the watermark of the last commit.
    committed: (Offset, Timestamp),
    pub(crate) sync: SyncPolicy,
    /// The next offset that the last commit contains, whether it has ended or not.
    in_commit: Offset,
}

impl CommitPipeline {
    /// Creates the pipeline of a state. `meta` is the state's record, which is durable.
    pub(crate) fn new(
        committers: Option<Arc<CommitThreads>>,
        config: &EngineConfig,
        meta: &ShardMeta,
        recovers: bool,
    ) -> Self {
        Self {
            committers,
            pending: None,
            unpublished: Vec::new(),
            last: Duration::ZERO,
            committed: (meta.next, meta.watermark),
            sync: SyncPolicy::new(config, meta, recovers),
            in_commit: meta.next,
        }
    }

    /// Returns whether this shard serves the engine. A shard in a fold for a determinism check or a
    /// verification does not.
    pub(crate) fn is_live(&self) -> bool {
        self.committers.is_some()
    }

    /// Returns whether a commit is in progress.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns whether a commit was in progress and has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.pending.as_ref().is_some_and(PendingCommit::has_ended)
    }

    /// Returns the time since the last commit began.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last)
    }

    /// Returns the next offset that the newest commit contains. That commit may be in progress, and
    /// need not be durable.
    pub(crate) fn in_commit(&self) -> Offset {
        self.in_commit.max(self.committed.0)
    }

    /// Returns the next offset of the last commit that succeeded.
    pub(crate) fn committed_next(&self) -> Offset {
        self.committed.0
    }

    /// Returns whether the watermark has moved since the last commit.
    pub(crate) fn is_behind(&self, watermark: Timestamp) -> bool {
        self.committed.1 != watermark
    }

    /// Returns whether the next offset or the watermark has moved since the last commit.
    pub(crate) fn has_moved(&self, meta: &ShardMeta) -> bool {
        self.committed != (meta.next, meta.watermark)
    }

    /// Runs `commit` on the caller's thread. No other commit may be in progress.
    pub(crate) fn run(
        &mut self,
        commit: Commit,
        now: Duration,
    ) -> Result<CommitOutcome, StoreError> {
        (self.last, self.in_commit) = (now, commit.meta.next);
        commit.run()
    }

    /// Begins `commit` in parallel to the fold and returns `None`. If no thread is free, runs the
    /// commit on the caller's thread and returns the result. No other commit of the shard may be in
    /// progress.
    pub(crate) fn begin(
        &mut self,
        commit: Commit,
        now: Duration,
    ) -> Option<Result<CommitOutcome, StoreError>> {
        let begun = self.committers.as_ref().and_then(|committers| committers.begin(&commit));
        match begun {
            Some(pending) => {
                (self.last, self.in_commit) = (now, commit.meta.next);
                self.pending = Some(pending);
                None
            }
            None => Some(self.run(commit, now)),
        }
    }

    /// Waits for the commit in progress, and returns its result; `None` if there is none.
    pub(crate) fn wait(&mut self) -> Option<Result<CommitOutcome, StoreError>> {
        self.pending.take().map(PendingCommit::wait)
    }

    /// Notes that a commit succeeded. `published` is what readers get of it.
    pub(crate) fn succeeded(
        &mut self,
        outcome: &CommitOutcome,
        published: Option<PublishedCommit>,
    ) {
        let CommitOutcome { meta, sync, bytes, is_new, .. } = outcome;
        self.committed = (meta.next, meta.watermark);
        self.sync.committed(meta, *sync, *bytes, self.last, *is_new);
        self.unpublished.extend(published.map(Arc::new));
    }

    /// Notes that a commit failed. Its changes will be committed again.
    pub(crate) fn failed(&mut self) {
        self.in_commit = self.committed.0;
    }

    /// Returns the commits that are not published yet, in order, and removes them from the
    /// pipeline.
    pub(crate) fn take_unpublished(&mut self) -> Vec<Arc<PublishedCommit>> {
        std::mem::take(&mut self.unpublished)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use lantern_core::fake::MemoryShard;
    use lantern_core::{ReadStore as _, TableId};

    use super::*;
    use crate::change_set::ChangeSet;

    const ROWS: Space = Space::Table(TableId(0));

    /// Returns a state for tests. Each of its commits sends a message to `begun`, and then waits
    /// for a message from `may`.
    fn gate(begun: Sender<()>, may: Receiver<()>) -> Arc<MemoryShard> {
        let store = Arc::new(MemoryShard::default());
        store.before_commit(move || {
            begun.send(()).unwrap();
            may.recv().unwrap();
        });
        store
    }

    fn commit(store: &Arc<MemoryShard>, key: &[u8]) -> Commit {
        let mut overlay = ChangeSet::default();
        overlay.set(ROWS, key, Some(b"x"));
        Commit {
            store: store.clone(),
            manifest: Arc::default(),
            changes: Arc::new(overlay.freeze()),
            meta: ShardMeta::default(),
            serves: false,
            changes_bytes_max: 0,
            is_new: true,
            sync: CommitSync::Now,
            ceiling: Ceiling::default(),
            bytes: 0,
            clock: None,
        }
    }

    #[test]
    fn commits_run_in_parallel_to_the_fold_and_dropping_one_waits_for_it() {
        let ((begun, begins), (lets, may)) = (channel(), channel());
        let store = gate(begun, may);
        let committers = CommitThreads::default();
        let later = committers.begin(&commit(&store, b"later")).unwrap();
        assert!(!later.has_ended(), "without threads it runs when the caller waits for it");
        drop(later);
        assert_eq!(store.get(ROWS, b"later").unwrap(), None);

        committers.start(1);
        let first = committers.begin(&commit(&store, b"first")).unwrap();
        begins.recv().unwrap();
        assert!(!first.has_ended());
        assert!(committers.begin(&commit(&store, b"second")).is_none(), "one is running");
        lets.send(()).unwrap();
        assert_eq!(first.wait().unwrap().meta.pos, 1);
        assert_eq!(store.get(ROWS, b"first").unwrap().as_deref(), Some(&b"x"[..]));

        let third = committers.begin(&commit(&store, b"third")).unwrap();
        begins.recv().unwrap();
        lets.send(()).unwrap();
        drop(third);
        assert!(store.get(ROWS, b"third").unwrap().is_some(), "it has ended");
    }

    #[test]
    fn a_commit_that_panics_has_failed() {
        let ((begun, _), (_, may)) = (channel(), channel());
        // There is no receiver for the message that a commit sends when it begins.
        let store = gate(begun, may);
        let committers = CommitThreads::default();
        committers.start(1);
        let pending = committers.begin(&commit(&store, b"key")).unwrap();
        assert!(pending.wait().is_err_and(|error| error.to_string().contains("panicked")));
        assert!(committers.begin(&commit(&store, b"key")).is_some(), "it is counted off");
    }
}
