//! Stores rows in large pieces of memory. So millions of rows do not need an allocation each, and
//! can be freed together.

use std::collections::BTreeMap;

/// Rows begin at multiples of this many bytes.
const UNIT: usize = 8;
/// The size of the header of a row, in bytes. The header contains three little-endian numbers:
///
/// * the length of the key (16 bits);
/// * the number of units of [`UNIT`] bytes that are reserved for the row (16 bits); 0 if the row
///   has a piece of memory of its own;
/// * the length of the value (32 bits).
const HEAD: usize = 8;
/// The size of the first piece of memory, in bytes. Each further piece is twice as large as the
/// piece before it, up to [`PIECE_MOST`].
const PIECE_LEAST: usize = 4 << 10;
/// The maximum size of a piece that several rows share, in bytes. A row of at least a quarter of
/// this size gets a piece of its own.
const PIECE_MOST: usize = 1 << 20;
/// The number of low bits of an address that contain the index of the unit within the piece of
/// memory. The high bits contain the number of the piece.
const UNIT_BITS: u32 = (PIECE_MOST / UNIT).ilog2();

/// The address of a row in a [`RowArena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowAddress(u32);

/// A store for keys and their values in memory.
#[derive(Default)]
pub(crate) struct RowArena {
    pieces: Vec<Vec<u8>>,
    /// The index of the piece that is being filled, and the number of bytes used in it.
    filled: Option<(usize, usize)>,
    bytes: usize,
    /// The addresses of removed rows, by the size of their space in units. New rows use them again.
    /// The entry for size 0 contains the addresses of rows that had a piece of memory of their own,
    /// which is already freed.
    free: BTreeMap<u16, Vec<RowAddress>>,
}

/// The header of a row, decoded.
struct RowHeader {
    key: u16,
    units: u16,
    value: u32,
}

impl RowHeader {
    fn read(row: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h] = *row.first_chunk::<HEAD>().expect("a row has a head");
        Self {
            key: u16::from_le_bytes([a, b]),
            units: u16::from_le_bytes([c, d]),
            value: u32::from_le_bytes([e, f, g, h]),
        }
    }

    fn write(&self, row: &mut [u8]) {
        row[..2].copy_from_slice(&self.key.to_le_bytes());
        row[2..4].copy_from_slice(&self.units.to_le_bytes());
        row[4..HEAD].copy_from_slice(&self.value.to_le_bytes());
    }

    fn value_at(&self) -> usize {
        HEAD + usize::from(self.key)
    }
}

impl RowArena {
    /// Returns the memory that the arena takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(crate) fn key(&self, address: RowAddress) -> &[u8] {
        let row = self.row(address);
        &row[HEAD..RowHeader::read(row).value_at()]
    }

    #[inline]
    pub(crate) fn value(&self, address: RowAddress) -> &[u8] {
        let row = self.row(address);
        let head = RowHeader::read(row);
        let start = head.value_at();
        &row[start..start + head.value as usize]
    }

    /// Stores a row. Returns `None` if the key or the value is too long, or if there are
    /// too many pieces.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Option<RowAddress> {
        let bytes = HEAD + key.len() + value.len();
        let units = if bytes < PIECE_MOST / 4 { bytes.div_ceil(UNIT) } else { 0 };
        let head = RowHeader {
            key: u16::try_from(key.len()).ok()?,
            units: u16::try_from(units).ok()?,
            value: u32::try_from(value.len()).ok()?,
        };
        let address = if units > 0 { self.reserve(head.units)? } else { self.own_piece(bytes)? };
        let row = self.row_mut(address);
        head.write(row);
        row[HEAD..][..key.len()].copy_from_slice(key);
        row[head.value_at()..][..value.len()].copy_from_slice(value);
        Some(address)
    }

    /// Replaces the value of a row if the new value fits. Returns whether it fits.
    pub(crate) fn replace(&mut self, address: RowAddress, value: &[u8]) -> bool {
        let row = self.row_mut(address);
        let head = RowHeader::read(row);
        let end = head.value_at() + value.len();
        let room = if head.units > 0 { usize::from(head.units) * UNIT } else { row.len() };
        let fits = end <= room;
        if let (true, Ok(length)) = (fits, u32::try_from(value.len())) {
            row[head.value_at()..end].copy_from_slice(value);
            RowHeader { value: length, ..head }.write(row);
        }
        fits
    }

    /// Removes a row. Later rows use its space.
    pub(crate) fn remove(&mut self, address: RowAddress) {
        let units = RowHeader::read(self.row(address)).units;
        if units == 0 {
            let piece = std::mem::take(&mut self.pieces[(address.0 >> UNIT_BITS) as usize]);
            self.bytes -= piece.len();
        }
        self.free.entry(units).or_default().push(address);
    }

    /// Reserves space for a row of `units` units.
    fn reserve(&mut self, units: u16) -> Option<RowAddress> {
        if let Some(address) = self.free.get_mut(&units).and_then(Vec::pop) {
            return Some(address);
        }
        let bytes = usize::from(units) * UNIT;
        let filled = self.filled.filter(|(piece, used)| used + bytes <= self.pieces[*piece].len());
        let (piece, used) = match filled {
            Some(filled) => filled,
            None => {
                let last =
                    self.filled.map_or(PIECE_LEAST / 2, |(piece, _)| self.pieces[piece].len());
                let size = (last * 2).max(bytes.next_power_of_two()).min(PIECE_MOST);
                self.add_piece(size)?;
                (self.pieces.len() - 1, 0)
            }
        };
        self.filled = Some((piece, used + bytes));
        // `add_piece` has checked that the address fits into 32 bits.
        Some(RowAddress(u32::try_from((piece << UNIT_BITS) + used / UNIT).ok()?))
    }

    /// Reserves a piece for a single row of `bytes` bytes.
    fn own_piece(&mut self, bytes: usize) -> Option<RowAddress> {
        match self.free.get_mut(&0).and_then(Vec::pop) {
            Some(address) => {
                self.pieces[(address.0 >> UNIT_BITS) as usize] = vec![0; bytes];
                self.bytes += bytes;
                Some(address)
            }
            None => self.add_piece(bytes),
        }
    }

    /// Adds a piece. Returns its first address; `None` if there are too many pieces.
    fn add_piece(&mut self, bytes: usize) -> Option<RowAddress> {
        let piece = u32::try_from(self.pieces.len()).ok()?.checked_mul(1 << UNIT_BITS)?;
        self.pieces.push(vec![0; bytes]);
        self.bytes += bytes;
        Some(RowAddress(piece))
    }

    #[inline]
    fn row(&self, RowAddress(address): RowAddress) -> &[u8] {
        let unit = address & ((1 << UNIT_BITS) - 1);
        &self.pieces[(address >> UNIT_BITS) as usize][unit as usize * UNIT..]
    }

    #[inline]
    fn row_mut(&mut self, RowAddress(address): RowAddress) -> &mut [u8] {
        let unit = address & ((1 << UNIT_BITS) - 1);
        &mut self.pieces[(address >> UNIT_BITS) as usize][unit as usize * UNIT..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum ArenaAction {
        Add(usize, usize),
        Replace(prop::sample::Index, usize),
        Remove(prop::sample::Index),
    }

    fn act() -> impl Strategy<Value = ArenaAction> {
        let bytes = || prop_oneof![16 => 0..60_usize, 2 => 0..9_000_usize, 1 => 0..600_000_usize];
        let any_row = any::<prop::sample::Index>;
        prop_oneof![
            4 => (0..20_usize, bytes()).prop_map(|(key, value)| ArenaAction::Add(key, value)),
            2 => (any_row(), bytes()).prop_map(|(row, value)| ArenaAction::Replace(row, value)),
            1 => any_row().prop_map(ArenaAction::Remove),
        ]
    }

    type Row = (RowAddress, Vec<u8>, Vec<u8>);

    proptest! {
        #[test]
        fn rows_are_what_was_put(acts in prop::collection::vec(act(), 0..200)) {
            let mut arena = RowArena::default();
            let mut rows: Vec<Row> = Vec::new();
            for (number, act) in acts.into_iter().enumerate() {
                let bytes = |len| vec![u8::try_from(number % 256).unwrap(); len];
                match act {
                    ArenaAction::Add(key, value) => {
                        let (key, value) = (bytes(key), bytes(value));
                        let address = arena.add(&key, &value).unwrap();
                        rows.push((address, key, value));
                    }
                    ArenaAction::Replace(row, value) if !rows.is_empty() => {
                        let row = row.index(rows.len());
                        let (address, _, old) = &mut rows[row];
                        let fits = arena.replace(*address, &bytes(value));
                        prop_assert!(fits || value > old.len());
                        if fits {
                            *old = bytes(value);
                        }
                    }
                    ArenaAction::Remove(row) if !rows.is_empty() => {
                        let (address, _, _) = rows.swap_remove(row.index(rows.len()));
                        arena.remove(address);
                    }
                    _ => {}
                }
                for (address, key, value) in &rows {
                    prop_assert_eq!((arena.key(*address), arena.value(*address)), (&**key, &**value));
                }
            }
        }
    }

    #[test]
    fn memory_is_used_again_and_a_key_that_is_too_long_is_not_stored() {
        let mut arena = RowArena::default();
        for n in 0..100_000_u32 {
            let address = arena.add(&n.to_be_bytes(), &[7; 40]).unwrap();
            arena.remove(address);
        }
        assert_eq!(arena.bytes(), PIECE_LEAST);
        for n in 0..10 {
            let large = arena.add(b"key", &vec![n; 3 * PIECE_MOST]).unwrap();
            assert!(arena.value(large).iter().all(|byte| *byte == n));
            assert_eq!(arena.pieces.len(), 2);
            arena.remove(large);
            assert_eq!(arena.bytes(), PIECE_LEAST);
        }
        assert!(arena.add(&[0; 1 << 16], b"").is_none());
    }
}
