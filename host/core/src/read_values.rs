//! Values that were asked for, many at once.

use std::ops::Range;

/// The values under a list of keys, by their places in the list. Their bytes are in
/// one buffer: nothing is allocated for each.
#[derive(Clone, Debug, Default)]
pub struct ReadValues {
    bytes: Vec<u8>,
    slots: Vec<ValueSlot>,
}

#[derive(Clone, Debug)]
enum ValueSlot {
    /// It was not looked up yet.
    Unknown,
    Absent,
    At(Range<usize>),
}

impl ReadValues {
    /// Begins again with `keys` keys of which nothing is known; keeps its memory.
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

    /// Notes the value of the key at `index`, or that there is none.
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

    /// Looks up with `get` those of `keys` that were not looked up yet.
    ///
    /// # Errors
    /// The first that `get` has.
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

    /// The value of the key at `index`; `None` if there is none, or it was not
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
