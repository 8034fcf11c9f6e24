//! Values that were asked for, many at once.

use std::ops::Range;

/// The values under a list of keys, by their places in the list. Their bytes are in
/// one buffer: nothing is allocated for each.
#[derive(Clone, Debug, Default)]
pub struct FoundValues {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Debug)]
enum Place {
    /// It was not looked up yet.
    Unknown,
    Absent,
    At(Range<usize>),
}

impl FoundValues {
    /// Begins again with `keys` keys of which nothing is known; keeps its memory.
    pub fn begin(&mut self, keys: usize) {
        self.bytes.clear();
        self.places.clear();
        self.places.resize(keys, Place::Unknown);
    }

    /// Whether the key at `place` was looked up.
    #[must_use]
    pub fn is_known(&self, place: usize) -> bool {
        !matches!(self.places[place], Place::Unknown)
    }

    /// Notes the value of the key at `place`, or that there is none.
    pub fn set(&mut self, place: usize, value: Option<&[u8]>) {
        self.places[place] = match value {
            Some(value) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(value);
                Place::At(start..self.bytes.len())
            }
            None => Place::Absent,
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
        for (place, key) in keys.iter().enumerate() {
            if !self.is_known(place) {
                self.set(place, get(*key)?.as_deref());
            }
        }
        Ok(())
    }

    /// The value of the key at `place`; `None` if there is none, or it was not
    /// looked up.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&[u8]> {
        match &self.places[place] {
            Place::At(range) => Some(&self.bytes[range.clone()]),
            Place::Unknown | Place::Absent => None,
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
