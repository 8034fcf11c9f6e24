//! Records the changes of one row while a shard folds, each with the event or timer that caused it.
//!
//! A plugin may write a row once for several events of a call. So if a call with several events or
//! timers has written the row, its result is dropped, and smaller calls are tried until the row is
//! written by a call with one event or timer. The state at the end is the same, because a state
//! does not depend on where batches end.

use std::collections::VecDeque;

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

/// The row that is watched, and its newest changes.
pub(crate) struct RowWatch {
    table: TableId,
    key: Vec<u8>,
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
    pub(crate) fn new(table: TableId, key: &str, changes_max: usize, bytes_max: usize) -> Self {
        Self {
            table,
            key: key.as_bytes().to_vec(),
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

    fn is_written(&self, written: &ChangeSet) -> bool {
        written.changes(self.space()).find(hash(&self.key), &self.key).is_some()
    }

    fn space(&self) -> Space {
        Space::Table(self.table)
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
}

impl RowWatch {
    /// Whether a call with `events` events and timers that has written `written` must be split, to
    /// find out which of them has changed the row.
    pub(crate) fn must_split(&mut self, written: &ChangeSet, events: usize) -> bool {
        if events < 2 || !self.is_written(written) {
            return false;
        }
        self.batch_events = (events / 2).max(1);
        true
    }

    /// Records the change of the row by a call with one event or timer. `buffer` is the state
    /// before the call's writes, and `next` is the next offset of that state.
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
        let written = call.written.changes(self.space());
        let Some(after) = written.find(hash(&self.key), &self.key) else { return Ok(()) };
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
        self.add(RowChange {
            partition: batch.partition,
            offset,
            cause,
            watermark: batch.watermark,
            before: buffer.get(self.space(), &self.key)?,
            after: after.map(<[u8]>::to_vec),
            logs: logs.collect(),
        });
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
        if self.table != table || self.key != key {
            return Ok(());
        }
        self.add(RowChange {
            partition,
            offset: next,
            cause: ChangeCause::Expiry,
            watermark,
            before: buffer.get(self.space(), key)?,
            after: None,
            logs: Vec::new(),
        });
        Ok(())
    }
}

/// The error of a call that must be split. It names no event, so the batch is halved.
pub(crate) fn split_error() -> ApplyError {
    let message = "the call has changed the explained row for several events".into();
    ApplyError::Failed { cause: None, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(offset: u64, before: Option<&str>, after: Option<&str>) -> RowChange {
        let row = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        RowChange {
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
        let mut watch = RowWatch::new(TableId(0), "k", 3, 1_000);
        for n in 0..10 {
            watch.add(change(n, None, Some("row")));
            watch.add(change(n, Some("row"), Some("row")));
        }
        let (total, kept) = watch.into_changes();
        assert_eq!(total, 10, "a write of the same row is no change");
        assert_eq!(kept.iter().map(|change| change.offset.0).collect::<Vec<_>>(), [7, 8, 9]);
        let mut watch = RowWatch::new(TableId(0), "k", 100, 250);
        let row = "x".repeat(100);
        (0..10).for_each(|n| watch.add(change(n, None, Some(&row))));
        assert_eq!(watch.changes.len(), 2);
        let large = "x".repeat(1_000);
        watch.add(change(10, None, Some(&large)));
        assert_eq!(watch.changes.len(), 1, "at least one change is kept");
    }
}
