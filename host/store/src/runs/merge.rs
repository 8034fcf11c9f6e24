//! Merges the rows of several sources in key order. If several sources have a row under one key,
//! the row of the newest source is used.

use std::cmp::Ordering;
use std::ops::Bound;

use lantern_core::{ChangedPairs, KeyRange};
use redb::{AccessGuard, Range, ReadOnlyTable};

use super::block::{self, Row, RowSpan};
use super::layout::{BlockBytes, RunError, block_key, tagged};

/// Rows in key order, including deleted rows.
pub(super) enum SortedRows<'a> {
    Run(RunCursor),
    Tree(TreeCursor),
    Changes(ChangesCursor<'a>),
}

impl SortedRows<'_> {
    fn row(&self) -> Option<Row<'_>> {
        match self {
            Self::Run(cursor) => cursor.row(),
            Self::Tree(cursor) => cursor.row(),
            Self::Changes(cursor) => cursor.current,
        }
    }

    fn advance(&mut self) -> Result<(), RunError> {
        match self {
            Self::Run(cursor) => cursor.advance(),
            Self::Tree(cursor) => cursor.advance(),
            Self::Changes(cursor) => {
                cursor.advance();
                Ok(())
            }
        }
    }
}

/// Reads the rows of one run within a range.
pub(super) struct RunCursor {
    blocks: Range<'static, BlockBytes, BlockBytes>,
    range: KeyRange,
    reverse: bool,
    block: Option<AccessGuard<'static, BlockBytes>>,
    /// The number of rows in the current block.
    rows: usize,
    index: usize,
    span: Option<RowSpan>,
}

impl RunCursor {
    pub(super) fn new(
        blocks: &ReadOnlyTable<BlockBytes, BlockBytes>,
        run: u64,
        range: &KeyRange,
        reverse: bool,
    ) -> Result<Self, RunError> {
        // The first row of the range can be in the middle of a block. So the search starts at the
        // last block that begins at or before the start of the range.
        let (first, start) = (block_key(run, &[]), block_key(run, &range.start));
        let before = blocks.range::<&[u8]>(first.as_slice()..=start.as_slice())?.next_back();
        let start = before.transpose()?.map_or(first, |(key, _)| key.value().to_vec());
        let end = match &range.end {
            Some(end) => block_key(run, end),
            None => block_key(run + 1, &[]),
        };
        let bounds = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
        let blocks = blocks.range::<&[u8]>(bounds)?;
        let range = range.clone();
        let mut cursor =
            Self { blocks, range, reverse, block: None, rows: 0, index: 0, span: None };
        cursor.next_block()?;
        Ok(cursor)
    }

    fn row(&self) -> Option<Row<'_>> {
        let (block, span) = (self.block.as_ref()?, self.span.as_ref()?);
        Some(span.row(block.value()))
    }

    fn advance(&mut self) -> Result<(), RunError> {
        match self.reverse {
            false if self.index + 1 < self.rows => self.index += 1,
            true if self.index > 0 => self.index -= 1,
            _ => return self.next_block(),
        }
        self.find()
    }

    /// Moves to the first row within the range in the following blocks.
    fn next_block(&mut self) -> Result<(), RunError> {
        loop {
            self.span = None;
            let next = if self.reverse { self.blocks.next_back() } else { self.blocks.next() };
            self.block = next.transpose()?.map(|(_, block)| block);
            let Some(guard) = &self.block else { return Ok(()) };
            let block = guard.value();
            self.rows = block::rows(block)?;
            let edge = match (&self.range.end, self.reverse) {
                (_, false) => Some(block::lower_bound(block, &self.range.start)?),
                (Some(end), true) => block::lower_bound(block, end)?.checked_sub(1),
                (None, true) => self.rows.checked_sub(1),
            };
            if let Some(index) = edge.filter(|index| *index < self.rows) {
                self.index = index;
                return self.find();
            }
        }
    }

    /// Finds the place of the current row. `None` if the row is out of the range.
    fn find(&mut self) -> Result<(), RunError> {
        let Some(guard) = &self.block else { return Ok(()) };
        let block = guard.value();
        let span = block::row_span(block, self.rows, self.index)?;
        let (key, _) = span.row(block);
        let within = match self.reverse {
            false => self.range.end.as_deref().is_none_or(|end| key < end),
            true => key >= self.range.start.as_slice(),
        };
        self.span = within.then_some(span);
        Ok(())
    }
}

/// Reads the rows of a tree within a range.
pub(super) struct TreeCursor {
    pairs: Range<'static, BlockBytes, BlockBytes>,
    /// Whether the first byte of each value tells whether the row is deleted.
    tagged: bool,
    reverse: bool,
    current: Option<(AccessGuard<'static, BlockBytes>, AccessGuard<'static, BlockBytes>)>,
}

impl TreeCursor {
    pub(super) fn new(
        tree: &ReadOnlyTable<BlockBytes, BlockBytes>,
        tagged: bool,
        range: &KeyRange,
        reverse: bool,
    ) -> Result<Self, RunError> {
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let pairs = tree.range::<&[u8]>((Bound::Included(range.start.as_slice()), end))?;
        let mut cursor = Self { pairs, tagged, reverse, current: None };
        cursor.advance()?;
        Ok(cursor)
    }

    fn row(&self) -> Option<Row<'_>> {
        let (key, value) = self.current.as_ref()?;
        let value = value.value();
        Some((key.value(), if self.tagged { tagged(value) } else { Some(value) }))
    }

    fn advance(&mut self) -> Result<(), RunError> {
        let next = if self.reverse { self.pairs.next_back() } else { self.pairs.next() };
        self.current = next.transpose()?;
        Ok(())
    }
}

/// Reads the changes of a commit, which are in memory, in key order.
pub(super) struct ChangesCursor<'a> {
    pairs: ChangedPairs<'a>,
    current: Option<Row<'a>>,
}

impl<'a> ChangesCursor<'a> {
    pub(super) fn new(pairs: ChangedPairs<'a>) -> Self {
        let mut cursor = Self { pairs, current: None };
        cursor.advance();
        cursor
    }

    fn advance(&mut self) {
        self.current = self.pairs.next();
    }
}

/// Merges the rows of several sources.
pub(super) struct Merge<'a> {
    /// The sources of rows that are merged, the newest first.
    sources: Vec<SortedRows<'a>>,
    reverse: bool,
    /// The indexes of the sources that are at the next key, newest first.
    next: Vec<usize>,
}

impl<'a> Merge<'a> {
    /// Creates a merge of `sources`, which must be ordered from newest to oldest. All of them must
    /// have the direction `reverse`.
    pub(super) fn new(sources: Vec<SortedRows<'a>>, reverse: bool) -> Self {
        let mut merge = Self { sources, reverse, next: Vec::new() };
        merge.choose();
        merge
    }

    pub(super) fn row(&self) -> Option<Row<'_>> {
        self.sources[*self.next.first()?].row()
    }

    pub(super) fn advance(&mut self) -> Result<(), RunError> {
        for source in &self.next {
            self.sources[*source].advance()?;
        }
        self.choose();
        Ok(())
    }

    /// Finds the sources that are at the next key. It searches all sources, because there are few:
    /// this takes half the time of a sorted structure.
    fn choose(&mut self) {
        self.next.clear();
        let mut first: Option<&[u8]> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let Some((key, _)) = source.row() else { continue };
            let order =
                first.map(|first| if self.reverse { first.cmp(key) } else { key.cmp(first) });
            match order {
                Some(Ordering::Greater) => continue,
                Some(Ordering::Equal) => {}
                Some(Ordering::Less) | None => {
                    self.next.clear();
                    first = Some(key);
                }
            }
            self.next.push(index);
        }
    }
}
