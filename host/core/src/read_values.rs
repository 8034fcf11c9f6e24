//! Implements a buffer for values that are read for many keys at once.

use std::ops::Range;

/// The values for a list of keys, found by the index of the key in the list. The bytes of all
/// values are in one buffer, so a value needs no allocation.
#[derive(Clone, Debug, Default)]
pub struct ReadValues {
    bytes: Vec<u8>,
    slots: Vec<ValueSlot>,
}

#[derive(Clone, Debug)]
enum ValueSlot {
    /// The key has not been looked up yet.
    Unknown,
    Absent,
    At(Range<usize>),
}

impl ReadValues {
    /// Prepares the buffer for `keys` keys that have not been looked up yet. The memory is reused.
    pub fn begin(&mut self, keys: usize) {
        self.bytes.clear();
        self.slots.clear();
        self.slots.resize(keys, ValueSlot::Unknown);
    }

    /// Returns whether the key at `index` has been looked up.
    #[must_use]
    pub fn is_known(&self, index: usize) -> bool {
        !matches!(self.slots[index], ValueSlot::Unknown)
    }

    /// Sets the value of the key at `index`; `None` means that this key has no value.
    pub fn set(&mut self, index: usize, value: Option<&[u8]>) {
        self.slots[index] = match value {
            Some(value) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(value);
                ValueSlot::At(start..self.bytes.len())
            }
            None => ValueSlot::Absent,
        };
    }

    /// Calls `get` for each of the `keys` that was not looked up yet, and stores the result.
    ///
    /// # Errors
    /// Returns the first error of `get`.
    pub fn complete<K: Copy, E>(
        &mut self,
        keys: &[K],
        mut get: impl FnMut(K) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        for (index, key) in keys.iter().enumerate() {
            if !self.is_known(index) {
                self.set(index, get(*key)?.as_deref());
            }
        }
        Ok(())
    }

    /// Returns the value of the key at `index`; `None` if the key has no value, or has not been
    /// looked up.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match &self.slots[index] {
            ValueSlot::At(range) => Some(&self.bytes[range.clone()]),
            ValueSlot::Unknown | ValueSlot::Absent => None,
        }
    }

    /// Returns the number of keys in the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
