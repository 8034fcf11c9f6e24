//! Implements the embedded log, which stores partitions of chunks in one redb file.
//!
//! A single thread writes. Appends wait for it in a bounded queue. The thread takes all waiting
//! appends, drops duplicates, and gives each event its partition and offset. Then it writes the
//! events in one durable transaction ([`writer`], [`append_plan`]).
//!
//! Readers look up chunks in an index. It lists the event types of each chunk, so readers can skip
//! chunks without reading them. All readers share the decoded chunks ([`read`], [`chunk_cache`]).
//! The file's tables are in [`tables`], the formats in [`codec`] and [`chunk_meta`].

mod append_plan;
mod check;
mod chunk_cache;
mod chunk_meta;
mod codec;
mod config;
mod encoding;
#[doc(hidden)]
pub mod fuzzing;
mod incarnation;
mod open_error;
mod queue;
mod read;
mod retention;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use lantern_core::{
    AppendDone, CloseLog, EventRef, Events, Heartbeats, Log, LogError, LogMaintenance, LogRead,
    MaintenanceReport, Offset, PartitionBounds, PartitionId, RetentionFloor, Timestamp, TypeFilter,
    Waker,
};
use lantern_redb_file::OpenFile;
use parking_lot::Mutex;
use redb::ReadableDatabase;

pub use check::{LogChecked, LogDamage, check};
pub use config::{CHUNK_EVENTS_LIMIT, Compression, LogConfig, PARTITIONS_LIMIT};
pub use open_error::OpenError;
pub use tables::OpenDatabase;

use queue::{PendingAppend, Shared, WallClock};
use tables::{Fault, TYPES, caught};
use writer::Writer;

/// The maximum number of names that are tried for a heartbeat. An event's partition depends on its
/// identity, which contains the name. With `n` partitions, a name leads to the wanted partition
/// with a probability of `1/n`. A log has at most 1,024 partitions, so this number is enough.
const HEARTBEAT_NAMES_MAX: u32 = 100_000;

/// A log in one file. Dropping it closes it, like [`CloseLog::close`].
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Statistics of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// The statistics of each partition.
    pub partitions: Vec<PartitionStats>,
    /// The number of duplicates that were found since the log was opened.
    pub duplicates: u64,
    /// The size of the file in bytes; 0 if the log is not in a file.
    pub file_bytes: u64,
}

/// The statistics of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// The partition that these statistics describe.
    pub partition: PartitionId,
    /// The offsets and the highest event time of the partition.
    pub bounds: PartitionBounds,
    /// The number of chunks in the partition.
    pub chunks: u64,
    /// The number of bytes that the chunks take on disk. The file rounds large sizes up.
    pub bytes: u64,
    /// The number of events of each type, by name of the type. The first 1,000 types have an entry
    /// each. Two kinds of events are counted under the empty name: events of later types, and
    /// events in chunks with more than 256 types.
    pub types: Vec<(String, u64)>,
}

impl EmbeddedLog {
    /// Opens the log in the file at `path`, and creates it if it is missing. The folder must exist.
    ///
    /// # Errors
    /// Returns [`OpenError`] in these cases:
    ///
    /// * A setting is out of bounds.
    /// * Another process has the file open.
    /// * The file is not a log, or has another format or number of partitions.
    /// * The file is damaged, or cannot be read or written.
    pub fn open(path: impl AsRef<Path>, config: LogConfig) -> Result<Self, OpenError> {
        config.check()?;
        let path = path.as_ref().to_path_buf();
        let io = |error: std::io::Error| tables::open_error(Fault::Redb(error.into()), &path);
        match std::fs::metadata(&path) {
            Ok(file) if file.len() == 0 => {
                // An empty file is a damaged log, because a new log is created under another name.
                // redb would treat it as a new database.
                return Err(OpenError::Damaged { path, what: "the file is empty".into() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::create(&path, &config)?;
            }
            Err(error) => return Err(io(error)),
        }
        let page_cache_bytes = config.page_cache_bytes;
        let file = path.clone();
        let open: OpenDatabase = Arc::new(move || {
            let mut builder = redb::Builder::new();
            builder.set_cache_size(page_cache_bytes).open(&file)
        });
        Self::start(open, config, Some(&path), Arc::new(wall_clock))
    }

    /// Creates the file under a temporary name and renames it. So a file with the final name is
    /// always a complete log, and an empty file with this name is damaged.
    fn create(path: &Path, config: &LogConfig) -> Result<(), OpenError> {
        let io = |error: std::io::Error| tables::open_error(Fault::Redb(error.into()), path);
        let aside = path.with_extension("redb.new");
        match std::fs::remove_file(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let database = caught(|| Ok(redb::Database::create(&aside)?));
        let database = OpenFile::from(database.map_err(|f| tables::open_error(f, &aside))?);
        tables::load(&database, config, &aside)?;
        drop(database);
        std::fs::rename(&aside, path).map_err(io)?;
        // The folder is synced, because otherwise a power loss could remove the name of the file,
        // and with it the log.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    /// Opens the log in the database that `open` returns. After each fault, `open` is called again.
    /// So tests can simulate power loss and disk failures.
    ///
    /// # Errors
    /// Returns the errors of [`EmbeddedLog::open`].
    pub fn open_with(open: OpenDatabase, config: LogConfig) -> Result<Self, OpenError> {
        config.check()?;
        Self::start(open, config, None, Arc::new(wall_clock))
    }

    fn start(
        open: OpenDatabase,
        config: LogConfig,
        path: Option<&Path>,
        now: WallClock,
    ) -> Result<Self, OpenError> {
        describe_metrics();
        let name = path.unwrap_or(Path::new("log"));
        let database = caught(|| Ok(open()?)).map_err(|fault| tables::open_error(fault, name))?;
        let database = OpenFile::from(database);
        let state = tables::load(&database, &config, name)?;
        let rows = state.partitions.iter().map(|p| p.row).collect();
        let path = path.map(Path::to_path_buf);
        let shared = Arc::new(Shared::new(config, path, open, now, database, rows));
        *shared.incarnations.write() = state.incarnations.clone();
        let writer = Writer::new(Arc::clone(&shared), state);
        let thread = std::thread::Builder::new()
            .name("lantern-log".into())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Io { path: name.into(), source: error.into() })?;
        Ok(Self { shared, writer: Mutex::new(Some(thread)) })
    }

    /// Returns the partition to which an event with this identity is appended.
    #[must_use]
    pub fn partition_of(&self, event: &EventRef<'_>) -> PartitionId {
        let count = self.shared.config.partitions;
        let place = writer::partition_of(event, count as usize);
        PartitionId(u32::try_from(place).expect("partitions are few"))
    }

    /// Creates a heartbeat for `partition`. The partition of an event depends on its identity. So
    /// this function tries names until one leads to `partition`.
    fn heartbeat_for(&self, partition: PartitionId, time: Timestamp) -> Option<Events> {
        if !self.accepts_heartbeats(partition) {
            return None;
        }
        (0..HEARTBEAT_NAMES_MAX)
            .map(|name| lantern_core::heartbeat(partition, time, name))
            .find(|events| self.partition_of(&events.get(0)) == partition)
    }

    /// Returns statistics of the log.
    ///
    /// # Errors
    /// Returns [`LogError`] if the log cannot be read.
    pub fn stats(&self) -> Result<LogStats, LogError> {
        let database = self.shared.database()?;
        let rows = self.shared.rows.read().clone();
        let read = || -> Result<Vec<PartitionStats>, Fault> {
            let transaction = database.begin_read()?;
            let types = transaction.open_table(TYPES)?;
            let mut partitions = Vec::with_capacity(rows.len());
            for (number, row) in (0..).zip(&rows) {
                let mut counts = Vec::new();
                for pair in types.range((number, "")..(number + 1, ""))? {
                    let (key, count) = pair?;
                    counts.push((key.value().1.to_owned(), count.value()));
                }
                partitions.push(PartitionStats {
                    partition: PartitionId(number),
                    bounds: row.bounds(),
                    chunks: row.chunks,
                    bytes: row.disk_bytes,
                    types: counts,
                });
            }
            Ok(partitions)
        };
        let file = self.shared.path.as_ref().and_then(|path| std::fs::metadata(path).ok());
        Ok(LogStats {
            partitions: self.shared.guard(caught(read))?,
            duplicates: self.shared.duplicates.load(Ordering::Relaxed),
            file_bytes: file.map_or(0, |file| file.len()),
        })
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl CloseLog for EmbeddedLog {
    /// Closes the log. If the log's own thread calls this, the call returns at once, and the thread
    /// ends by itself.
    fn close(&self) {
        self.shared.close();
        let Some(thread) = self.writer.lock().take() else {
            return;
        };
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the log's writer panicked");
        }
    }
}

impl LogMaintenance for EmbeddedLog {
    fn maintain(
        &self,
        now: Timestamp,
        floor: RetentionFloor<'_>,
    ) -> Result<MaintenanceReport, LogError> {
        retention::ask(&self.shared, now, floor)
    }
}

impl Heartbeats for EmbeddedLog {
    fn accepts_heartbeats(&self, partition: PartitionId) -> bool {
        partition.0 < self.shared.config.partitions
    }

    fn append_heartbeat(&self, partition: PartitionId, time: Timestamp, done: AppendDone) {
        match self.heartbeat_for(partition, time) {
            Some(event) => self.append(event, done),
            None => done(Err(LogError::NoPartition(partition))),
        }
    }
}

impl Log for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.shared.config.partitions
    }

    /// Reports a full disk at once. Otherwise only the next append would detect it.
    fn troubles(&self) -> Vec<String> {
        let full = self.shared.check_room(0).err();
        full.map(|error| error.to_string()).into_iter().collect()
    }

    /// Warns if the machine's clock is behind the append times in the log. Events of senders with a
    /// correct clock then seem to come from the future.
    fn warnings(&self) -> Vec<String> {
        let now = (self.shared.now)();
        let newest = self.shared.rows.read().iter().map(|row| row.appended_last).max();
        let behind_us = newest.map_or(0, |newest| newest.0.saturating_sub(now.0));
        if behind_us <= append_plan::CLOCK_BACK_MAX_US {
            return Vec::new();
        }
        vec![format!(
            "the machine's clock is {} s behind the append time of the newest event: if the clock is wrong, correct it, because events can be refused as too far in the future (`ingest.time_ahead_s_max`); if the clock was ahead before, the next append sets the log's time back and this warning ends",
            behind_us / 1_000_000
        )]
    }

    fn bounds(&self, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        Ok(self.shared.row(partition)?.bounds())
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        wanted: &TypeFilter,
    ) -> Result<LogRead, LogError> {
        self.shared.read(partition, from, wanted)
    }

    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Result<Offset, LogError> {
        self.shared.offset_at(partition, time)
    }

    /// `done` is called on the log's thread or, if the append is refused, at once on the caller's
    /// thread. It must return quickly, and must not wait for the log.
    fn append(&self, events: Events, done: AppendDone) {
        let events = with_all_columns(events);
        let identities = if self.shared.config.dedup_window_events == 0 {
            Vec::new()
        } else {
            events.iter().map(|event| lantern_core::identity(&event)).collect()
        };
        let bytes = events.bytes();
        self.shared.enqueue(PendingAppend { events, identities, appended: None, bytes, done });
    }

    fn import(&self, events: Events, appended: Vec<Timestamp>, done: AppendDone) {
        if appended.len() != events.len() {
            return done(Err(LogError::NoImport("an event lacks its append time".into())));
        }
        let events = with_all_columns(events);
        // The identities are needed if a part of the import is sent again: they show duplicates.
        let identities = events.iter().map(|event| lantern_core::identity(&event)).collect();
        let (bytes, appended) = (events.bytes(), Some(appended));
        self.shared.enqueue(PendingAppend { events, identities, appended, bytes, done });
    }

    fn partition_of(&self, event: &EventRef<'_>) -> Option<PartitionId> {
        Some(Self::partition_of(self, event))
    }

    fn incarnation_at(&self, partition: PartitionId, offset: Offset) -> Option<u64> {
        self.shared.incarnations.read().get(partition.0 as usize)?.before(offset)
    }

    fn on_append(&self, waker: Waker) {
        self.shared.wakers.write().push(waker);
    }
}

/// Returns the same events, with all columns filled as chunks need them.
fn with_all_columns(events: Events) -> Events {
    if events.columns().all().iter().all(|column| column.len() == events.len()) {
        return events;
    }
    let mut filled = Events::new();
    for event in events.iter() {
        assert!(filled.push(&event), "as many types as before");
    }
    filled
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("lantern_log_events_total", "Events appended");
    describe_counter!("lantern_log_bytes_total", Unit::Bytes, "Bytes of events appended");
    describe_counter!("lantern_log_duplicates_total", "Events sent again and not appended");
    describe_counter!(
        "lantern_log_differing_duplicates_total",
        "Events not appended because another event has their tenant, source and id"
    );
    describe_counter!("lantern_log_commits_total", "Durable commits of appends");
    describe_histogram!(
        "lantern_log_commit_seconds",
        Unit::Seconds,
        "Time from taking a group of appends until it is durable"
    );
    describe_gauge!("lantern_log_bytes_on_disk", Unit::Bytes, "Size of the log's file");
    describe_gauge!("lantern_log_queue_bytes", Unit::Bytes, "Events waiting to become durable");
    describe_counter!("lantern_log_chunks_decoded_total", "Chunks decoded for readers");
    describe_counter!("lantern_log_events_let_go_total", "Events deleted by retention");
    describe_counter!("lantern_log_faults_total", "Faults after which the file was opened again");
    describe_counter!(
        "lantern_log_identities_damaged_total",
        "Damaged records of event identities"
    );
}
