//! Commits: what was applied, and the position, in one transaction. Where there
//! is more to fold, a commit is carried out on a thread of its own while the
//! fold goes on above it, one commit of a shard at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use lantern_core::{
    KeyRange, Manifest, ShardMeta, ShardPoint, ShardStore, Space, StoreError, TableChanges,
    TableId, Writes,
};

use crate::layers::Frozen;

/// How many entries of the change log are looked at in one go.
const CHANGES_PAGE: usize = 64;

/// One commit, to be carried out.
#[derive(Clone)]
pub(crate) struct Commit {
    pub(crate) store: Arc<dyn ShardStore>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) changes: Arc<Frozen>,
    /// As of `changes`, with the position of the last commit.
    pub(crate) meta: ShardMeta,
    /// Whether the version serves readers, so that changes are told and kept.
    pub(crate) serves: bool,
    /// The most bytes of the change log.
    pub(crate) changes_bytes_max: u64,
}

/// What became of one.
pub(crate) struct Done {
    pub(crate) meta: ShardMeta,
    pub(crate) tables: Vec<TableChanges>,
}

impl Commit {
    /// Carries it out, on the caller's thread.
    pub(crate) fn run(mut self) -> Result<Done, StoreError> {
        self.meta.pos += 1;
        let mut writes = self.changes.writes();
        let tables = if self.serves { public_changes(&self.manifest, &writes) } else { Vec::new() };
        self.log_changes(&mut writes, &tables)?;
        let record = serde_json::to_vec(&self.meta).expect("numbers always encode");
        writes.entry(Space::Meta).or_default().insert(ShardMeta::KEY, Some(&record));
        self.store.commit(&writes)?;
        Ok(Done { meta: self.meta, tables })
    }

    /// Adds the commit to the change log and lets go of its oldest entries.
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
        // A page at a time, so that one huge entry does not read all others.
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
                let (point, _) = TableChanges::place(&key)
                    .ok_or_else(|| StoreError::Damaged("an entry of the change log".into()))?;
                meta.changes_from = point;
                log.insert(&key, None);
            }
        }
        Ok(())
    }
}

/// What `writes` change in public tables.
fn public_changes(manifest: &Manifest, writes: &Writes) -> Vec<TableChanges> {
    let public = (0..).map(TableId).zip(&manifest.tables).filter(|(_, table)| table.public);
    public
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

/// Has commits carried out beside the fold.
#[derive(Default)]
pub(crate) struct Committers {
    /// How many may be under way. 0 while the engine has no threads: a commit is
    /// then carried out by whoever waits for it, as late as that may be.
    most: AtomicUsize,
    under_way: Arc<AtomicUsize>,
}

impl Committers {
    /// From now on commits have threads of their own, at most so many.
    pub(crate) fn start(&self, most: usize) {
        self.most.store(most, Ordering::Release);
    }

    /// Begins a commit; `None` where the caller has to carry it out, because
    /// enough are under way.
    pub(crate) fn begin(&self, commit: &Commit) -> Option<UnderWay> {
        let most = self.most.load(Ordering::Acquire);
        if most == 0 {
            return Some(UnderWay { how: Some(How::Later(Box::new(commit.clone()))) });
        }
        let more = |count: usize| (count < most).then_some(count + 1);
        self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        let counted = Counted(self.under_way.clone());
        let commit = commit.clone();
        let work = move || {
            let outcome = commit.run();
            drop(counted);
            outcome
        };
        let thread = std::thread::Builder::new().name("commit".into()).spawn(work).ok()?;
        Some(UnderWay { how: Some(How::Thread(thread)) })
    }
}

/// Counts itself off.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A commit that was begun. Whoever lets go of it waits until it has ended, so
/// that nobody opens the state again before.
pub(crate) struct UnderWay {
    how: Option<How>,
}

enum How {
    Thread(JoinHandle<Result<Done, StoreError>>),
    Later(Box<Commit>),
}

impl UnderWay {
    /// Whether waiting for it takes no time.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&self.how, Some(How::Thread(thread)) if thread.is_finished())
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> Result<Done, StoreError> {
        match self.how.take() {
            Some(How::Thread(thread)) => thread.join().unwrap_or_else(|_| {
                // Whether it is durable nobody knows; to commit the same again
                // does no harm.
                Err(StoreError::Io("a commit panicked".into()))
            }),
            Some(How::Later(commit)) => commit.run(),
            None => Err(StoreError::Io("a commit was waited for twice".into())),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(How::Thread(thread)) = self.how.take() {
            // Whoever opens the state sees what became of it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use lantern_core::ReadStore as _;
    use lantern_core::fake::MemoryShard;

    use super::*;
    use crate::layers::Overlay;

    const ROWS: Space = Space::Table(TableId(0));

    /// A state whose commits say that they begin, and wait until they may.
    fn gate(begun: Sender<()>, may: Receiver<()>) -> Arc<MemoryShard> {
        let store = Arc::new(MemoryShard::default());
        store.before_commit(move || {
            begun.send(()).unwrap();
            may.recv().unwrap();
        });
        store
    }

    fn commit(store: &Arc<MemoryShard>, key: &[u8]) -> Commit {
        let mut overlay = Overlay::default();
        overlay.set(ROWS, key, Some(b"x"));
        Commit {
            store: store.clone(),
            manifest: Arc::default(),
            changes: Arc::new(overlay.freeze()),
            meta: ShardMeta::default(),
            serves: false,
            changes_bytes_max: 0,
        }
    }

    #[test]
    fn commits_go_on_beside_the_fold_and_whoever_lets_go_of_one_waits_for_it() {
        let ((begun, begins), (lets, may)) = (channel(), channel());
        let store = gate(begun, may);
        let committers = Committers::default();
        let later = committers.begin(&commit(&store, b"later")).unwrap();
        assert!(!later.has_ended(), "without threads it is carried out by who waits for it");
        drop(later);
        assert_eq!(store.get(ROWS, b"later").unwrap(), None);

        committers.start(1);
        let first = committers.begin(&commit(&store, b"first")).unwrap();
        begins.recv().unwrap();
        assert!(!first.has_ended());
        assert!(committers.begin(&commit(&store, b"second")).is_none(), "one is under way");
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
        // Nobody hears that it begins.
        let store = gate(begun, may);
        let committers = Committers::default();
        committers.start(1);
        let under_way = committers.begin(&commit(&store, b"key")).unwrap();
        assert!(under_way.wait().is_err_and(|error| error.to_string().contains("panicked")));
        assert!(committers.begin(&commit(&store, b"key")).is_some(), "it is counted off");
    }
}
