//! A change of a row, and what has caused it.

use lantern_core::{Offset, PartitionId, TableId, Timestamp};

/// A change of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The table.
    pub table: TableId,
    /// The row's key.
    pub key: String,
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the event. For a timer or an expiry, this is the next offset at the time of
    /// the change.
    pub offset: Offset,
    /// What has changed the row.
    pub cause: ChangeCause,
    /// The watermark; [`Timestamp::MIN`] before the first one.
    pub watermark: Timestamp,
    /// The row before.
    pub before: Option<Vec<u8>>,
    /// The row after the change; `None` if the change deleted it.
    pub after: Option<Vec<u8>>,
    /// What the plugin logged.
    pub logs: Vec<ChangeLogLine>,
}

impl RowChange {
    /// The bytes of both rows.
    pub(crate) fn bytes(&self) -> usize {
        [&self.before, &self.after].into_iter().flatten().map(Vec::len).sum()
    }
}

/// What has changed a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeCause {
    /// The event at the offset.
    Event,
    /// The retry of a parked event.
    Retry {
        /// The shard's next offset when the event was retried.
        at: Offset,
    },
    /// A timer.
    Timer {
        /// Its key.
        key: String,
        /// The time for which the timer was set.
        at: Timestamp,
        /// The offset of the event that set the timer.
        set_by: Offset,
    },
    /// The end of the row's retention.
    Expiry,
}

/// A line that the plugin logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeLogLine {
    /// `debug`, `info`, …
    pub level: String,
    /// The message.
    pub message: String,
}
