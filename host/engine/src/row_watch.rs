//! Records changes of rows while a shard folds: those of one row, each with the event or timer that
//! caused it, or those that one event causes.
//!
//! A plugin may write a row once for several events of a call. So if a call with several events or
//! timers has written the row, or contains the event, its result is dropped, and smaller calls are
//! tried. The state at the end is the same, because a state does not depend on where batches end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::{ApplyError, Batch, Offset, PartitionId, Space, StoreError, TableId, Timestamp};

use crate::call::CallHost;
use crate::change_set::ChangeSet;
use crate::key_index::hash;
use crate::layered_read::Layer;
use crate::row_change::{ChangeCause, ChangeLogLine, RowChange};
use crate::write_buffer::WriteBuffer;

/// The most events of a batch.
const BATCH_EVENTS_MAX: usize = 1_024;
/// The most log lines that are kept of one change.
const LOG_LINES_MAX: usize = 100;

/// Which changes are recorded.
pub(crate) enum Watched {
    /// Those of a row.
    Row {
        /// The table.
        table: TableId,
        /// The key.
        key: Vec<u8>,
    },
    /// Those that an event causes when it is applied.
    Event {
        /// The event.
        offset: Offset,
        /// The tables whose rows are recorded.
        tables: Vec<TableId>,
        /// Set when the event is applied.
        applied: Arc<AtomicBool>,
    },
}

/// What is watched, and its newest changes.
pub(crate) struct RowWatch {
    watched: Watched,
    /// The most changes kept, and the most bytes of their rows.
    changes_max: usize,
    bytes_max: usize,
    changes: VecDeque<RowChange>,
    bytes: usize,
    /// How many changes there were in total.
    total: u64,
    /// The maximum number of events in the next batch. It is halved after a batch whose call was
    /// split, so that a row that changes often does not cause many calls whose results are dropped.
    batch_events: usize,
}

impl RowWatch {
    pub(crate) fn new(watched: Watched, changes_max: usize, bytes_max: usize) -> Self {
        Self {
            watched,
            changes_max,
            bytes_max,
            changes: VecDeque::new(),
            bytes: 0,
            total: 0,
            batch_events: BATCH_EVENTS_MAX,
        }
    }

    /// How many events the next batch has at most.
    pub(crate) fn next_batch(&mut self) -> usize {
        let next = self.batch_events;
        self.batch_events = (next * 2).min(BATCH_EVENTS_MAX);
        next
    }

    /// How many changes there were, and the newest of them, oldest first.
    pub(crate) fn into_changes(self) -> (u64, VecDeque<RowChange>) {
        (self.total, self.changes)
    }

    /// Adds a change, unless the row has the same value as before.
    fn add(&mut self, change: RowChange) {
        if change.before == change.after {
            return;
        }
        self.total += 1;
        self.bytes += change.bytes();
        self.changes.push_back(change);
        while self.changes.len() > self.changes_max
            || (self.bytes > self.bytes_max && self.changes.len() > 1)
        {
            self.bytes -= self.changes.pop_front().map_or(0, |oldest| oldest.bytes());
        }
    }

    /// Whether a call with `batch` that has written `written` must be split: because several events
    /// or timers of it may have changed the row, or because it has other events than the watched
    /// one.
    pub(crate) fn must_split(&mut self, written: &ChangeSet, batch: &Batch) -> bool {
        if batch.len() < 2 {
            return false;
        }
        match &self.watched {
            Watched::Row { table, key } => {
                let changes = written.changes(Space::Table(*table));
                let is_written = changes.find(hash(key), key).is_some();
                if is_written {
                    self.batch_events = (batch.len() / 2).max(1);
                }
                is_written
            }
            Watched::Event { offset, .. } => batch.offsets.contains(&offset.0),
        }
    }

    /// Records the changes by a call with one event or timer. `buffer` is the state without the
    /// call's writes, and `next` its next offset.
    ///
    /// # Errors
    /// [`StoreError`] if the state cannot be read.
    pub(crate) fn record_call(
        &mut self,
        buffer: &WriteBuffer,
        next: Offset,
        call: &CallHost,
        batch: &Batch,
    ) -> Result<(), StoreError> {
        let rows: Vec<WrittenRow> = match &self.watched {
            Watched::Row { table, key } => {
                let written = call.written.changes(Space::Table(*table));
                let after = written.find(hash(key), key);
                let row = after.map(|after| (*table, key.clone(), after.map(<[u8]>::to_vec)));
                row.into_iter().collect()
            }
            Watched::Event { offset, tables, applied } => {
                let is_event = batch.timers.is_empty() && batch.offsets.first() == Some(&offset.0);
                if !is_event || !call.rejections.rejected().is_empty() {
                    return Ok(());
                }
                applied.store(true, Ordering::Relaxed);
                rows_of(&call.written, tables)
            }
        };
        for (table, key, after) in rows {
            let before = buffer.get(Space::Table(table), &key)?;
            let key = String::from_utf8_lossy(&key).into_owned();
            self.add(change_of((table, key), (before, after), next, call, batch));
        }
        Ok(())
    }

    /// Records that the row under `key` of `table` is deleted because its retention ends at
    /// `watermark`. `buffer` is the state before the deletion, and `next` is the next offset of
    /// that state.
    ///
    /// # Errors
    /// [`StoreError`] if the state cannot be read.
    pub(crate) fn record_expiry(
        &mut self,
        buffer: &WriteBuffer,
        (table, key): (TableId, &[u8]),
        (partition, next): (PartitionId, Offset),
        watermark: Timestamp,
    ) -> Result<(), StoreError> {
        match &self.watched {
            Watched::Row { table: watched, key: of } if *watched == table && of == key => {}
            _ => return Ok(()),
        }
        self.add(RowChange {
            table,
            key: String::from_utf8_lossy(key).into_owned(),
            partition,
            offset: next,
            cause: ChangeCause::Expiry,
            watermark,
            before: buffer.get(Space::Table(table), key)?,
            after: None,
            logs: Vec::new(),
        });
        Ok(())
    }
}

/// A written row: its table, its key, and its value or `None` if it was deleted.
type WrittenRow = (TableId, Vec<u8>, Option<Vec<u8>>);

/// The rows of `tables` that a call has written, the last one in key order first: of changes that
/// are added, the newest are kept.
fn rows_of(written: &ChangeSet, tables: &[TableId]) -> Vec<WrittenRow> {
    let all = written.all().into_iter().rev();
    let rows = all.filter_map(|((space, key), after)| match space {
        Space::Table(table) if tables.contains(&table) => Some((table, key, after)),
        _ => None,
    });
    rows.collect()
}

/// The change of a row by a call with one event or timer.
fn change_of(
    (table, key): (TableId, String),
    (before, after): (Option<Vec<u8>>, Option<Vec<u8>>),
    next: Offset,
    call: &CallHost,
    batch: &Batch,
) -> RowChange {
    let (cause, offset) = match (batch.timers.first(), batch.offsets.first()) {
        (Some(timer), _) => {
            let (key, at) = (timer.key.clone(), timer.at);
            (ChangeCause::Timer { key, at, set_by: timer.offset }, next)
        }
        (None, Some(offset)) if *offset < next.0 => {
            (ChangeCause::Retry { at: next }, Offset(*offset))
        }
        (None, offset) => (ChangeCause::Event, Offset(offset.copied().unwrap_or(next.0))),
    };
    let logs = call.logged.iter().take(LOG_LINES_MAX);
    let logs = logs.map(|(_, level, message)| ChangeLogLine {
        level: level.name().into(),
        message: message.clone(),
    });
    RowChange {
        table,
        key,
        partition: batch.partition,
        offset,
        cause,
        watermark: batch.watermark,
        before,
        after,
        logs: logs.collect(),
    }
}

/// The error of a call that must be split. It names no event, so the batch is halved.
pub(crate) fn split_error() -> ApplyError {
    let message = "the explained event or row must be folded alone".into();
    ApplyError::Failed { cause: None, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(changes_max: usize, bytes_max: usize) -> RowWatch {
        let watched = Watched::Row { table: TableId(0), key: b"k".to_vec() };
        RowWatch::new(watched, changes_max, bytes_max)
    }

    fn change(offset: u64, before: Option<&str>, after: Option<&str>) -> RowChange {
        let row = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        RowChange {
            table: TableId(0),
            key: "k".into(),
            partition: PartitionId(0),
            offset: Offset(offset),
            cause: ChangeCause::Event,
            watermark: Timestamp::MIN,
            before: row(before),
            after: row(after),
            logs: Vec::new(),
        }
    }

    #[test]
    fn the_newest_changes_are_kept_within_the_limits_and_all_are_counted() {
        let mut watch = watch(3, 1_000);
        for n in 0..10 {
            watch.add(change(n, None, Some("row")));
            watch.add(change(n, Some("row"), Some("row")));
        }
        let (total, kept) = watch.into_changes();
        assert_eq!(total, 10, "a write of the same row is no change");
        assert_eq!(kept.iter().map(|change| change.offset.0).collect::<Vec<_>>(), [7, 8, 9]);
        let mut watch = self::watch(100, 250);
        let row = "x".repeat(100);
        (0..10).for_each(|n| watch.add(change(n, None, Some(&row))));
        assert_eq!(watch.changes.len(), 2);
        let large = "x".repeat(1_000);
        watch.add(change(10, None, Some(&large)));
        assert_eq!(watch.changes.len(), 1, "at least one change is kept");
    }
}
