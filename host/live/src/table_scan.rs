//! Reads the rows of a query from a view, and encodes them as parts that fit into frames.

use std::borrow::Cow;

use bytes::Bytes;
use lantern_core::{FieldSpans, KeyRange, View};
use tokio::time::Instant;

use crate::LiveConfig;
use crate::advance::OpenView;
use crate::encode::SnapshotParts;
use crate::shape::SelectedTable;
use crate::subscribe_error::SubscribeError;

/// The number of rows that are read from a table at once.
const SCAN_ROWS: usize = 256;

/// Reads the rows of a table and encodes them in parts.
pub(crate) struct TableScan<'a> {
    view: &'a View,
    table: SelectedTable,
    range: KeyRange,
    spans: FieldSpans,
    rows: std::vec::IntoIter<lantern_core::Row>,
    ended: bool,
    parts: SnapshotParts,
    rows_max: u64,
    rows_sent: u64,
    deadline: Instant,
}

impl<'a> TableScan<'a> {
    pub(crate) fn new(
        opened: &'a OpenView,
        table: SelectedTable,
        config: &LiveConfig,
        deadline: Instant,
    ) -> Self {
        let partitions = opened.view.offsets().len();
        Self {
            view: &opened.view,
            table,
            range: KeyRange::all(),
            spans: FieldSpans::default(),
            rows: Vec::new().into_iter(),
            ended: false,
            parts: SnapshotParts::new(config.part_bytes(&opened.agreed.epoch, partitions)),
            rows_max: config.snapshot_rows_max,
            rows_sent: 0,
            deadline,
        }
    }

    /// Reads parts until the table ends or is too large to be shared. Also returns whether these
    /// parts are the whole table.
    pub(crate) fn first_parts(
        &mut self,
        config: &LiveConfig,
    ) -> Result<(Vec<Bytes>, bool), SubscribeError> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        loop {
            let (rows, last) = self.next()?;
            bytes += rows.len();
            parts.push(rows);
            if last || bytes > config.snapshot_shared_bytes_max {
                return Ok((parts, last));
            }
        }
    }

    /// Reads the next part. Also returns whether it is the last.
    pub(crate) fn next(&mut self) -> Result<(Bytes, bool), SubscribeError> {
        loop {
            for row in self.rows.by_ref() {
                let value = match &self.table.shape.rows {
                    None => Cow::Borrowed(row.value.as_slice()),
                    Some(shape) => match shape.apply(&row.value, &mut self.spans) {
                        Some(value) => value,
                        None => continue,
                    },
                };
                self.rows_sent += 1;
                if self.rows_sent > self.rows_max {
                    return Err(SubscribeError::too_many_rows(self.rows_max));
                }
                if let Some(part) = self.parts.push(&row.key, &value)? {
                    return Ok((part, false));
                }
            }
            if self.ended {
                return Ok((self.parts.finish(), true));
            }
            // The deadline is checked here because a filter can leave out all rows of a large
            // table. Then no part becomes full, and this loop reads the whole table.
            if Instant::now() >= self.deadline {
                let message = "the snapshot took longer than `snapshot_ms_max`";
                return Err(SubscribeError::Failed(message.into()));
            }
            let rows = self.view.scan(self.table.id, &self.range, SCAN_ROWS, false)?;
            self.ended = rows.len() < SCAN_ROWS;
            if let Some(last) = rows.last() {
                // The key that follows `last.key` directly is this key with a zero byte at its end.
                self.range.start = [last.key.as_bytes(), &[0]].concat();
            }
            self.rows = rows.into_iter();
        }
    }
}
