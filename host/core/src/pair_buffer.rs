//! Implements a buffer for pairs of keys and values that are read from a store together. It does
//! not allocate memory for each pair.

/// The number of pairs at which a buffer counts as full.
const PAIRS_MAX: usize = 1_024;
/// The number of bytes at which a buffer counts as full.
const BYTES_MAX: usize = 256 << 10;

/// Keys and values, one after another in one allocation.
#[derive(Clone, Debug, Default)]
pub struct PairBuffer {
    bytes: Vec<u8>,
    /// For each pair, the end of its key and the end of its value in `bytes`.
    ends: Vec<(usize, usize)>,
}

impl PairBuffer {
    /// Removes all pairs, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a pair.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// Returns whether the buffer has reached its target size in pairs or in bytes. More pairs can
    /// still be added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ends.len() >= PAIRS_MAX || self.bytes.len() >= BYTES_MAX
    }

    /// Returns the number of pairs that can be added before the buffer is full.
    #[must_use]
    pub fn room(&self) -> usize {
        PAIRS_MAX.saturating_sub(self.ends.len())
    }

    /// Returns the number of pairs in the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the key and the value of the pair at `index`; `None` if there is no such pair.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let (key_end, end) = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some((&self.bytes[start..key_end], &self.bytes[key_end..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_were_added() {
        let mut buffer = PairBuffer::default();
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"", b""), (b"key", b"value")];
        for _ in 0..2 {
            buffer.clear();
            pairs.iter().for_each(|(key, value)| buffer.push(key, value));
            let found: Vec<_> = (0..3).filter_map(|index| buffer.get(index)).collect();
            assert_eq!((found.as_slice(), buffer.get(3)), (&pairs[..], None));
        }
        assert!(!buffer.is_full());
        buffer.push(b"large", &vec![0; BYTES_MAX]);
        assert!(buffer.is_full());
        buffer.clear();
        (0..PAIRS_MAX).for_each(|_| buffer.push(b"k", b"v"));
        assert!(buffer.is_full());
    }
}
