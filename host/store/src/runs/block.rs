//! A block of a run: rows in the order of their keys, found by halving. Part of
//! the file's format.
//!
//! Rows follow one another, each as the lengths of its key and of its value
//! (`u32`; all ones for a deleted row), its key and its value. After them follow
//! where each begins (`u32`), and last how many there are (`u32`). Numbers are
//! little-endian.

use redb::StorageError;

use super::RunError;

/// The length of a deleted row's value.
const DELETED: u32 = u32::MAX;
const LENGTHS: usize = 8;
const NUMBER: usize = 4;

/// A row: its key, and its value if it is not deleted.
pub(super) type Row<'a> = (&'a [u8], Option<&'a [u8]>);

/// Makes blocks, one after another.
#[derive(Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Builder {
    /// How many bytes the block has with one more row of `row_bytes`.
    pub(super) fn bytes_with(&self, row_bytes: usize) -> usize {
        self.bytes.len() + LENGTHS + row_bytes + NUMBER * (self.starts.len() + 2)
    }

    /// Adds a row, whose key comes after all others.
    pub(super) fn push(&mut self, (key, value): Row<'_>) {
        self.starts.push(length(self.bytes.len()));
        self.bytes.extend_from_slice(&length(key.len()).to_le_bytes());
        self.bytes.extend_from_slice(&value.map_or(DELETED, |v| length(v.len())).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// The first row's key; `None` if there is no row.
    pub(super) fn first_key(&self) -> Option<&[u8]> {
        let key = number(&self.bytes, 0)?;
        self.bytes.get(LENGTHS..LENGTHS + key as usize)
    }

    /// Ends the block and hands it to `take`; the next one begins empty.
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

/// redb takes no value of 4 GiB, and so no block.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a block is far smaller")
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Where a row's key and value are in its block; no value if it is deleted.
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

/// How many rows `block` has.
pub(super) fn rows(block: &[u8]) -> Result<usize, RunError> {
    let rows = block.len().checked_sub(NUMBER).and_then(|at| number(block, at));
    rows.map(|rows| rows as usize).ok_or_else(damaged)
}

/// Where row `index` of the `rows` in `block` is.
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

/// The first row in `block` whose key is not before `key`.
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

/// The row under `key` in `block`, deleted or not.
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
