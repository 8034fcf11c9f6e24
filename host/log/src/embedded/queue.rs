//! Holds the queue of appends, and other state that is shared by the writer's thread, the readers
//! and the callers of appends.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use lantern_core::{
    AppendDone, Events, Identity, LogError, MaintenanceReport, Offset, Timestamp, Waker,
};
use lantern_redb_file::OpenFile;
use parking_lot::{Condvar, Mutex, RwLock};

use super::LogConfig;
use super::chunk_cache::ChunkCache;
use super::chunk_meta::PartitionRow;
use super::incarnation::Incarnations;
use super::tables::OpenDatabase;

/// The maximum number of bytes of events in one commit. It limits how long each append waits.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A function that returns the current time of day.
pub(crate) type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) config: LogConfig,
    /// The path of the file, for messages and to find the free space; `None` if the database is not
    /// in a file.
    pub(crate) path: Option<PathBuf>,
    pub(crate) open: OpenDatabase,
    pub(crate) now: WallClock,
    /// The database. It is `None` after the log was closed, and while the file is opened again
    /// after a fault.
    pub(crate) database: RwLock<Option<Arc<OpenFile>>>,
    /// The record of each partition as of the last commit.
    pub(crate) rows: RwLock<Vec<PartitionRow>>,
    /// The incarnations of each partition.
    pub(crate) incarnations: RwLock<Vec<Incarnations>>,
    pub(crate) cache: ChunkCache,
    pub(crate) wakers: RwLock<Vec<Waker>>,
    /// The number of duplicates found since the log was opened.
    pub(crate) duplicates: AtomicU64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<WriterCommand>,
    /// The number of bytes of the appends that are not answered yet.
    bytes: usize,
    closed: bool,
    /// Why nothing can be appended now; `None` if appends are possible.
    down: Option<LogError>,
    /// Whether a reader has found a fault of the file.
    suspect: bool,
}

enum WriterCommand {
    Append(Box<PendingAppend>),
    Maintain(Maintenance),
}

/// An append that waits for the writer.
pub(crate) struct PendingAppend {
    pub(crate) events: Events,
    /// The identity of each event; empty if deduplication is off.
    pub(crate) identities: Vec<Identity>,
    /// The append times of the events, if they are imported from another log; otherwise `None`.
    pub(crate) appended: Option<Vec<Timestamp>>,
    pub(crate) bytes: usize,
    pub(crate) done: AppendDone,
}

/// A request to delete old events.
pub(crate) struct Maintenance {
    pub(crate) now: Timestamp,
    /// For each partition, the first offset that must be kept; `None` if there is no such bound.
    pub(crate) floors: Vec<Option<Offset>>,
    pub(crate) reply: SyncSender<Result<MaintenanceReport, LogError>>,
}

/// The task that the writer does next.
pub(crate) enum WriterWork {
    Commit(Vec<PendingAppend>),
    Maintain(Maintenance),
    Reopen,
    Close,
}

impl Shared {
    /// Checks that the disk has room for `bytes` of events in addition to the reserve
    /// (`log.disk_reserve_bytes`).
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), LogError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let Ok(disk) = rustix::fs::statvfs(path) else {
            return Ok(()); // If the disk is full, writing fails.
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Twice the number of bytes is needed: the file writes changed pages to new places, and
        // rounds the size of large values up.
        let need = self.config.disk_reserve_bytes + 2 * bytes as u64;
        if free >= need {
            return Ok(());
        }
        Err(LogError::Full(format!(
            "the disk of `{}` has {free} bytes free, but {need} are needed, including `log.disk_reserve_bytes`: free some space, or delete old events with `log.retention_bytes`",
            path.display()
        ).into()))
    }

    pub(crate) fn new(
        config: LogConfig,
        path: Option<PathBuf>,
        open: OpenDatabase,
        now: WallClock,
        database: OpenFile,
        rows: Vec<PartitionRow>,
    ) -> Self {
        Self {
            cache: ChunkCache::new(config.cache_bytes),
            config,
            path,
            open,
            now,
            database: RwLock::new(Some(Arc::new(database))),
            rows: RwLock::new(rows),
            incarnations: RwLock::default(),
            wakers: RwLock::default(),
            duplicates: AtomicU64::new(0),
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Adds an append to the queue. If the append is refused, it is answered at once.
    pub(crate) fn enqueue(&self, pending: PendingAppend) {
        let limit = self.config.queue_bytes;
        let mut queue = self.queue.lock();
        let refusal = if queue.closed {
            LogError::Closed
        } else if let Some(down) = &queue.down {
            down.clone()
        } else if pending.bytes > limit {
            LogError::Unavailable(format!(
                "an append of {} bytes is more than `log.queue_bytes`, {limit}: send it in parts",
                pending.bytes
            ).into())
        } else if queue.bytes + pending.bytes > limit {
            LogError::Unavailable(format!(
                "{} bytes are waiting to become durable (`log.queue_bytes` is {limit}): send it again later",
                queue.bytes
            ).into())
        } else {
            queue.bytes += pending.bytes;
            queue.commands.push_back(WriterCommand::Append(Box::new(pending)));
            drop(queue);
            self.changed.notify_all();
            return;
        };
        drop(queue);
        answer(pending.done, Err(refusal));
    }

    /// Adds a request for maintenance to the queue.
    pub(crate) fn maintain(&self, maintenance: Maintenance) -> Result<(), LogError> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(LogError::Closed);
        }
        if let Some(down) = &queue.down {
            return Err(down.clone());
        }
        queue.commands.push_back(WriterCommand::Maintain(maintenance));
        drop(queue);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for the next task. If appends are waiting, it returns several of them as one group.
    pub(crate) fn next_work(&self) -> WriterWork {
        let mut queue = self.queue.lock();
        loop {
            if std::mem::take(&mut queue.suspect) {
                return WriterWork::Reopen;
            }
            let mut group = Vec::new();
            let mut bytes = 0;
            while let Some(command) = queue.commands.pop_front() {
                match command {
                    WriterCommand::Append(p)
                        if group.is_empty()
                            || (p.appended.is_none() && bytes + p.bytes <= GROUP_BYTES_MAX) =>
                    {
                        bytes += p.bytes;
                        let alone = p.appended.is_some();
                        group.push(*p);
                        if alone {
                            break;
                        }
                    }
                    WriterCommand::Maintain(maintenance) if group.is_empty() => {
                        return WriterWork::Maintain(maintenance);
                    }
                    later => {
                        queue.commands.push_front(later);
                        break;
                    }
                }
            }
            if !group.is_empty() {
                return WriterWork::Commit(group);
            }
            if queue.closed {
                return WriterWork::Close;
            }
            self.changed.wait(&mut queue);
        }
    }

    /// Subtracts the bytes of answered appends from the queue.
    pub(crate) fn answered(&self, bytes: usize) {
        let left = {
            let mut queue = self.queue.lock();
            queue.bytes -= bytes;
            queue.bytes
        };
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lantern_log_queue_bytes").set(left as f64);
    }

    /// Answers all waiting commands with the error `why`. Later appends get the same error, until
    /// [`Self::come_up`] is called.
    pub(crate) fn go_down(&self, why: &LogError) {
        let commands = {
            let mut queue = self.queue.lock();
            queue.down = Some(why.clone());
            queue.suspect = false;
            queue.bytes = 0;
            std::mem::take(&mut queue.commands)
        };
        for command in commands {
            refuse(command, why);
        }
    }

    pub(crate) fn come_up(&self) {
        self.queue.lock().down = None;
    }

    /// Waits until `timeout` has passed or the log is closed. Returns whether it is
    /// closed.
    pub(crate) fn wait_closed(&self, timeout: std::time::Duration) -> bool {
        let mut queue = self.queue.lock();
        let until = std::time::Instant::now() + timeout;
        while !queue.closed {
            if self.changed.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        queue.closed
    }

    /// Stops accepting commands. Those that wait are still executed.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_all();
    }

    /// Refuses the waiting commands and closes the database. It is called when the writer ends,
    /// even after a panic.
    pub(crate) fn end(&self) {
        let commands = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.commands)
        };
        for command in commands {
            refuse(command, &LogError::Closed);
        }
        *self.database.write() = None;
    }

    /// Returns the database, which must be open.
    pub(crate) fn database(&self) -> Result<Arc<OpenFile>, LogError> {
        if let Some(database) = &*self.database.read() {
            return Ok(Arc::clone(database));
        }
        let queue = self.queue.lock();
        Err(match &queue.down {
            Some(down) if !queue.closed => down.clone(),
            _ => LogError::Closed,
        })
    }

    /// Lets the writer open the file again, because redb refuses all reads after a fault.
    pub(crate) fn suspect(&self) {
        self.queue.lock().suspect = true;
        self.changed.notify_all();
    }

    pub(crate) fn add_duplicates(&self, count: u64, differing: u64) {
        self.duplicates.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("lantern_log_duplicates_total").increment(count);
        metrics::counter!("lantern_log_differing_duplicates_total").increment(differing);
    }
}

fn refuse(command: WriterCommand, why: &LogError) {
    match command {
        WriterCommand::Append(pending) => answer(pending.done, Err(why.clone())),
        // The caller may no longer wait for the answer.
        WriterCommand::Maintain(maintenance) => drop(maintenance.reply.try_send(Err(why.clone()))),
    }
}

/// Calls `done` with the result. Even if `done` panics, other appends are answered.
pub(crate) fn answer(done: AppendDone, result: Result<lantern_core::Appended, LogError>) {
    let call = std::panic::AssertUnwindSafe(|| done(result));
    if std::panic::catch_unwind(call).is_err() {
        tracing::error!("the callback of an append panicked");
    }
}
