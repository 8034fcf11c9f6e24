//! Reads the columns of the contract.

use crate::bindings::lantern::projection::types::Column;
use crate::error::Error;

const BOUNDS: Error = Error::Batch("a column's ends are out of bounds");

/// A column of byte strings. It is checked once, so that reading it cannot fail.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    ends: &'a [u32],
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// Checks `column`, which must have `count` values, or none at all.
    ///
    /// # Errors
    /// Returns [`Error::Batch`] if it has another number of values.
    pub(crate) fn new(column: &'a Column, count: usize) -> Result<Self, Error> {
        let ends = column.ends.as_slice();
        if !ends.is_empty() && ends.len() != count {
            return Err(Error::Batch("a column does not have one value per event"));
        }
        let last = ends.last().map_or(0, |end| *end as usize);
        if !ends.is_sorted() || last != column.bytes.len() {
            return Err(BOUNDS);
        }
        Ok(Self { ends, bytes: &column.bytes })
    }

    /// Returns the value at `index`; empty if the column has none.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &'a [u8] {
        let (start, end) = range(self.ends, index);
        &self.bytes[start..end]
    }
}

/// A column of texts. The whole column is checked to be UTF-8 at once, which is several times
/// faster than checking each value.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'a> {
    ends: &'a [u32],
    text: &'a str,
}

impl<'a> Texts<'a> {
    /// Checks `column`, which must have `count` values, or none at all. All values must be UTF-8.
    ///
    /// # Errors
    /// Returns [`Error::Batch`] if this is not so.
    pub(crate) fn new(column: &'a Column, count: usize) -> Result<Self, Error> {
        let values = Values::new(column, count)?;
        let text = std::str::from_utf8(values.bytes)
            .map_err(|_| Error::Batch("an attribute is not UTF-8"))?;
        let whole = |end: &u32| text.is_char_boundary(*end as usize);
        if !values.ends.iter().all(whole) {
            return Err(Error::Batch("an attribute is not UTF-8"));
        }
        Ok(Self { ends: values.ends, text })
    }

    /// Returns the text at `index`; empty if the column has none.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &'a str {
        let (start, end) = range(self.ends, index);
        &self.text[start..end]
    }
}

#[inline]
fn range(ends: &[u32], index: usize) -> (usize, usize) {
    match ends.get(index) {
        Some(end) => {
            let start = if index == 0 { 0 } else { ends[index - 1] };
            (start as usize, *end as usize)
        }
        None => (0, 0),
    }
}
