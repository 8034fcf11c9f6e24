//! Implements a column of byte strings, stored one after another.

use thiserror::Error;

/// Byte strings stored one after another: value `i` is `bytes[ends[i - 1]..ends[i]]`, where
/// `ends[-1]` is 0. This is Apache Arrow's variable-size binary layout without the leading zero of
/// its offsets. The `column` of the plugin contract has the same layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

/// Why `ends` and `bytes` that a caller passes are not a valid column.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnError {
    /// The end of a value is before the end of the previous value.
    #[error("column end {end} of value {index} is before the end of the value in front of it")]
    NotRising {
        /// The index of the value whose end is wrong.
        index: usize,
        /// The end that does not fit the column's bytes.
        end: u32,
    },
    /// The last end is not equal to the number of bytes.
    #[error("the column's last end is {end}, but it has {bytes} bytes")]
    WrongLength {
        /// The end of the last value; 0 if there are no values.
        end: u32,
        /// The number of bytes in the column.
        bytes: usize,
    },
}

impl Column {
    /// Creates a column without values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty column with capacity for `values` values of `bytes` bytes in total.
    #[must_use]
    pub fn with_capacity(values: usize, bytes: usize) -> Self {
        Self { ends: Vec::with_capacity(values), bytes: Vec::with_capacity(bytes) }
    }

    /// Creates a column from `ends` and `bytes` after checking them.
    ///
    /// # Errors
    /// Returns [`ColumnError`] if they are not a valid column.
    pub fn from_parts(ends: Vec<u32>, bytes: Vec<u8>) -> Result<Self, ColumnError> {
        let mut before = 0;
        for (index, &end) in ends.iter().enumerate() {
            if end < before {
                return Err(ColumnError::NotRising { index, end });
            }
            before = end;
        }
        if before as usize != bytes.len() {
            return Err(ColumnError::WrongLength { end: before, bytes: bytes.len() });
        }
        Ok(Self { ends, bytes })
    }

    /// Returns how many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Value `index`; empty if the column has no such value, for example because it was
    /// not requested.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        &self.bytes[self.start(index)..end as usize]
    }

    /// Adds a value at the end.
    ///
    /// # Panics
    /// Panics if the column would become larger than 4 GiB; callers limit it far below.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        let end = u32::try_from(self.bytes.len()).expect("a column stays under 4 GiB");
        self.ends.push(end);
    }

    /// Appends the values `range` of `other` with a single copy.
    ///
    /// # Panics
    /// Panics if the range is not within `other`, or the column would become larger than 4 GiB.
    pub fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        let from = other.start(range.start);
        let to = other.ends[range.end - 1] as usize;
        let base = u32::try_from(self.bytes.len()).expect("a column stays under 4 GiB");
        let shift = u32::try_from(from).expect("ends are 32 bits");
        u32::try_from(self.bytes.len() + to - from).expect("a column stays under 4 GiB");
        self.bytes.extend_from_slice(&other.bytes[from..to]);
        self.ends.extend(other.ends[range].iter().map(|end| end - shift + base));
    }

    /// Iterates over the values in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Returns the end of each value in the bytes of all values.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Returns the bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Removes all values and keeps the memory.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }
}

impl<'a> FromIterator<&'a [u8]> for Column {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut column = Self::new();
        for value in values {
            column.push(value);
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_copied_keeps_its_values() {
        let column: Column = [b"a".as_slice(), b"", b"ccc", b"dd"].into_iter().collect();
        let mut copy: Column = [b"x".as_slice()].into_iter().collect();
        copy.extend_from(&column, 1..4);
        assert_eq!(copy.iter().collect::<Vec<_>>(), [b"x".as_slice(), b"", b"ccc", b"dd"]);
    }

    #[test]
    fn wrong_ends_are_refused() {
        assert!(matches!(
            Column::from_parts(vec![2, 1], vec![0, 0]),
            Err(ColumnError::NotRising { index: 1, end: 1 })
        ));
        assert!(matches!(
            Column::from_parts(vec![3], vec![0]),
            Err(ColumnError::WrongLength { end: 3, bytes: 1 })
        ));
        assert!(matches!(
            Column::from_parts(vec![], vec![0]),
            Err(ColumnError::WrongLength { end: 0, bytes: 1 })
        ));
        assert!(Column::from_parts(vec![0, 1], vec![0]).is_ok());
    }
}
