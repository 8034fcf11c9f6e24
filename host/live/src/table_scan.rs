//! Reads a query's rows from a view and cuts them into encoded parts.

use bytes::Bytes;
use lantern_core::{KeyRange, TableId, View};
use tokio::time::Instant;

use crate::LiveConfig;
use crate::advance::OpenView;
use crate::encode::SnapshotParts;
use crate::subscribe_error::SubscribeError;

/// The number of rows read from a table at a time.
const SCAN_ROWS: usize = 256;

/// Reads a table and cuts it into encoded parts.
pub(crate) struct TableScan<'a> {
    view: &'a View,
    table: TableId,
    range: KeyRange,
    rows: std::vec::IntoIter<lantern_core::Row>,
    ended: bool,
    parts: SnapshotParts,
    rows_max: u64,
    rows_seen: u64,
}

impl<'a> TableScan<'a> {
    pub(crate) fn new(opened: &'a OpenView, table: TableId, config: &LiveConfig) -> Self {
        let partitions = opened.view.offsets().len();
        Self {
            view: &opened.view,
            table,
            range: KeyRange::all(),
            rows: Vec::new().into_iter(),
            ended: false,
            parts: SnapshotParts::new(config.part_bytes(&opened.agreed.epoch, partitions)),
            rows_max: config.snapshot_rows_max,
            rows_seen: 0,
        }
    }

    /// The first parts, until the table ends or is too large to be shared. Also returns
    /// whether they are the whole table.
    pub(crate) fn first_parts(
        &mut self,
        config: &LiveConfig,
        deadline: Instant,
    ) -> Result<(Vec<Bytes>, bool), SubscribeError> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        loop {
            if Instant::now() >= deadline {
                let message = "the snapshot took longer than `snapshot_ms_max`";
                return Err(SubscribeError::Failed(message.into()));
            }
            let (rows, last) = self.next()?;
            bytes += rows.len();
            parts.push(rows);
            if last || bytes > config.snapshot_shared_bytes_max {
                return Ok((parts, last));
            }
        }
    }

    /// The next part, and whether it is the last.
    pub(crate) fn next(&mut self) -> Result<(Bytes, bool), SubscribeError> {
        loop {
            for row in self.rows.by_ref() {
                self.rows_seen += 1;
                if self.rows_seen > self.rows_max {
                    let max = self.rows_max;
                    return Err(SubscribeError::Unsendable(format!(
                        "the table has more than {max} rows: raise `snapshot_rows_max` or read it by pages"
                    )));
                }
                if let Some(part) = self.parts.push(&row.key, &row.value)? {
                    return Ok((part, false));
                }
            }
            if self.ended {
                return Ok((self.parts.finish(), true));
            }
            let rows = self.view.scan(self.table, &self.range, SCAN_ROWS, false)?;
            self.ended = rows.len() < SCAN_ROWS;
            if let Some(last) = rows.last() {
                // The smallest key after the last one.
                self.range.start = [last.key.as_bytes(), &[0]].concat();
            }
            self.rows = rows.into_iter();
        }
    }
}
