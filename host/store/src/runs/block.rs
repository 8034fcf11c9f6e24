//! Implements the blocks of a run. A block contains rows in key order, and is searched by a binary
//! search. Blocks are part of the file's format.
//!
//! A block consists of the rows, the index at which each row begins (`u32` each), and the number of
//! rows (`u32`). A row consists of the length of its key (`u32`), the length of its value (`u32`;
//! all bits set if the row is deleted), the key and the value. All numbers are little-endian.

use redb::StorageError;

use super::layout::RunError;

/// The length that marks a deleted row. A block contains it in place of a value's length.
const DELETED: u32 = u32::MAX;
const LENGTHS: usize = 8;
const NUMBER: usize = 4;

/// A row: its key and its value. The value is `None` if the row is deleted.
pub(super) type Row<'a> = (&'a [u8], Option<&'a [u8]>);

/// Builds the blocks of a run, one after another.
#[derive(Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Builder {
    /// Returns the size of the block with one more row, in bytes. This row has `row_bytes` bytes of
    /// key and value.
    pub(super) fn bytes_with(&self, row_bytes: usize) -> usize {
        self.bytes.len() + LENGTHS + row_bytes + NUMBER * (self.starts.len() + 2)
    }

    /// Adds a row. Its key must be greater than all keys in the block.
    pub(super) fn push(&mut self, (key, value): Row<'_>) {
        self.starts.push(length(self.bytes.len()));
        self.bytes.extend_from_slice(&length(key.len()).to_le_bytes());
        self.bytes.extend_from_slice(&value.map_or(DELETED, |v| length(v.len())).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// Returns the key of the first row; `None` if the block is empty.
    pub(super) fn first_key(&self) -> Option<&[u8]> {
        let key = number(&self.bytes, 0)?;
        self.bytes.get(LENGTHS..LENGTHS + key as usize)
    }

    /// Completes the block and passes it to `take`. After this the builder is empty, for the next
    /// block.
    pub(super) fn finish<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> R {
        for start in &self.starts {
            self.bytes.extend_from_slice(&start.to_le_bytes());
        }
        self.bytes.extend_from_slice(&length(self.starts.len()).to_le_bytes());
        let result = take(&self.bytes);
        self.bytes.clear();
        self.starts.clear();
        result
    }
}

/// Returns a length as a block stores it. It fits into 32 bits, because redb accepts no value of 4
/// GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a block is far smaller")
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The place of a row's key and value in its block. There is no value if the row is deleted.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowSpan {
    key: (usize, usize),
    value: Option<usize>,
}

impl RowSpan {
    pub(super) fn row<'a>(&self, block: &'a [u8]) -> Row<'a> {
        let (start, end) = self.key;
        (&block[start..end], self.value.map(|value_end| &block[end..value_end]))
    }
}

/// Returns the number of rows in `block`.
pub(super) fn rows(block: &[u8]) -> Result<usize, RunError> {
    let rows = block.len().checked_sub(NUMBER).and_then(|at| number(block, at));
    rows.map(|rows| rows as usize).ok_or_else(damaged)
}

/// Returns the place of row `index` in `block`, which has `rows` rows.
pub(super) fn row_span(block: &[u8], rows: usize, index: usize) -> Result<RowSpan, RunError> {
    let span = || {
        let start = block.len().checked_sub(NUMBER * (rows + 1))?.checked_add(NUMBER * index)?;
        let start = number(block, start)? as usize;
        let (key, value) = (number(block, start)?, number(block, start + NUMBER)?);
        let key = (start + LENGTHS, start + LENGTHS + key as usize);
        let value = (value != DELETED).then_some(key.1 + value as usize);
        let end = value.unwrap_or(key.1);
        (end <= block.len()).then_some(RowSpan { key, value })
    };
    span().ok_or_else(damaged)
}

/// Returns the index of the first row in `block` whose key is at or after `key`.
pub(super) fn lower_bound(block: &[u8], key: &[u8]) -> Result<usize, RunError> {
    let rows = rows(block)?;
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low.midpoint(high);
        if row_span(block, rows, middle)?.row(block).0 < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Returns the row under `key` in `block`. It is `None` if there is none, and `Some(None)` if the
/// row is deleted.
pub(super) fn find<'a>(block: &'a [u8], key: &[u8]) -> Result<Option<Option<&'a [u8]>>, RunError> {
    let (rows, index) = (rows(block)?, lower_bound(block, key)?);
    if index == rows {
        return Ok(None);
    }
    let (actual, value) = row_span(block, rows, index)?.row(block);
    Ok((actual == key).then_some(value))
}

fn damaged() -> RunError {
    StorageError::Corrupted("a block of rows is damaged".into())
}
