//! Values that are read for many keys at once.

use std::ops::Range;

/// The values of a list of keys, by index in this list. The bytes of all values are in
/// one buffer, so that no value needs an allocation.
#[derive(Clone, Debug, Default)]
pub struct ReadValues {
    bytes: Vec<u8>,
    slots: Vec<ValueSlot>,
}

#[derive(Clone, Debug)]
enum ValueSlot {
    /// The key was not looked up yet.
    Unknown,
    Absent,
    At(Range<usize>),
}

impl ReadValues {
    /// Starts again with `keys` keys that were not looked up yet; keeps the memory.
    pub fn begin(&mut self, keys: usize) {
        self.bytes.clear();
        self.slots.clear();
        self.slots.resize(keys, ValueSlot::Unknown);
    }

    /// Whether the key at `index` was looked up.
    #[must_use]
    pub fn is_known(&self, index: usize) -> bool {
        !matches!(self.slots[index], ValueSlot::Unknown)
    }

    /// Sets the value of the key at `index`; `None` means that there is none.
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

    /// Looks up the `keys` that were not looked up yet, with `get`.
    ///
    /// # Errors
    /// The first error of `get`.
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

    /// The value of the key at `index`; `None` if there is none, or the key was not
    /// looked up.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match &self.slots[index] {
            ValueSlot::At(range) => Some(&self.bytes[range.clone()]),
            ValueSlot::Unknown | ValueSlot::Absent => None,
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
