//! Counts distinct values with `HyperLogLog`, and exactly as long as there are few values.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use twox_hash::XxHash64;

use crate::DecodeError;

/// The maximum number of distinct values that are counted exactly.
pub const DISTINCT_EXACT_MAX: usize = 512;

const INDEX_BITS: u32 = 12;
const REGISTERS: usize = 1 << INDEX_BITS;
/// The number of bits of a hash that are used: the bits of the index and of the rank.
const ENTRY_BITS: u32 = 40;
const ENTRY_BYTES: usize = 5;
const RANK_BITS: u32 = ENTRY_BITS - INDEX_BITS;
const RANK_MAX: u8 = RANK_BITS as u8 + 1;
/// The size of all registers in bytes. A register has five bits, so eight of them take five bytes.
const DENSE_BYTES: usize = REGISTERS / 8 * 5;

const FORM_SPARSE: u8 = 1;
const FORM_DENSE: u8 = 2;

/// The number of fractional bits in the fixed-point numbers of the estimator.
const POINT: u32 = 60;
const ONE: u128 = 1 << POINT;
/// The number 1 / (2 ln 2) with 63 fractional bits.
const ALPHA: u128 = 6_653_256_548_922_161_246;

/// Counts distinct values. It takes at most 2,561 bytes.
///
/// Up to 512 values the count is exact (two different values count as one with a probability of
/// 2⁻⁴⁰). With more values, the standard error is 1.63 %: in 95 of 100 cases the estimate is within
/// 3.3 % of the true count. Adding a value again changes nothing, and merging is commutative,
/// associative and idempotent.
#[derive(Clone, PartialEq, Eq)]
pub struct Distinct(State);

#[derive(Clone, PartialEq, Eq)]
enum State {
    /// The entries in ascending order; at most [`DISTINCT_EXACT_MAX`].
    Sparse(Vec<u64>),
    /// The registers, eight of them in five bytes.
    Dense(Box<[u8; DENSE_BYTES]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Distinct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distinct({})", self.estimate())
    }
}

impl Distinct {
    /// Creates the sketch of no values.
    #[must_use]
    pub const fn new() -> Self {
        Self(State::Sparse(Vec::new()))
    }

    /// Adds a text to the values.
    #[inline]
    pub fn add(&mut self, text: &str) {
        self.add_bytes(text.as_bytes());
    }

    /// Adds an integer to the values. An integer and its decimal text are the same value.
    pub fn add_integer(&mut self, integer: i64) {
        self.add_bytes(itoa::Buffer::new().format(integer).as_bytes());
    }

    /// Adds a value by its bytes. Two values are the same if their bytes are equal.
    #[inline]
    pub fn add_bytes(&mut self, value: &[u8]) {
        self.add_entry(XxHash64::oneshot(0, value) >> (u64::BITS - ENTRY_BITS));
    }

    fn add_entry(&mut self, entry: u64) {
        match &mut self.0 {
            State::Sparse(entries) => {
                let Err(place) = entries.binary_search(&entry) else {
                    return;
                };
                if entries.len() < DISTINCT_EXACT_MAX {
                    entries.insert(place, entry);
                    return;
                }
                let mut registers = Box::new([0; DENSE_BYTES]);
                for entry in entries.iter().chain([&entry]) {
                    raise_by_entry(&mut registers, *entry);
                }
                self.0 = State::Dense(registers);
            }
            State::Dense(registers) => raise_by_entry(registers, entry),
        }
    }

    /// Adds the values of `other`: the result is the sketch of the values of both.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, State::Sparse(entries)) => {
                for entry in entries {
                    self.add_entry(*entry);
                }
            }
            (State::Sparse(entries), State::Dense(registers)) => {
                let mut registers = registers.clone();
                for entry in &*entries {
                    raise_by_entry(&mut registers, *entry);
                }
                self.0 = State::Dense(registers);
            }
            (State::Dense(registers), State::Dense(others)) => {
                for index in 0..REGISTERS {
                    raise(registers, index, register(others, index));
                }
            }
        }
    }

    /// Returns the number of bytes of memory that the sketch takes in addition to its own size.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            State::Sparse(entries) => entries.capacity() * size_of::<u64>(),
            State::Dense(_) => DENSE_BYTES,
        }
    }

    /// Returns whether no value was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, State::Sparse(entries) if entries.is_empty())
    }

    /// Returns the approximate number of distinct values; at most 2⁴⁰.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        match &self.0 {
            State::Sparse(entries) => entries.len() as u64,
            State::Dense(registers) => {
                let mut counts = [0_u64; RANK_MAX as usize + 1];
                for index in 0..REGISTERS {
                    counts[usize::from(register(registers, index))] += 1;
                }
                estimate(&counts)
            }
        }
    }

    /// Returns the bytes of the sketch. They are equal for equal sketches, and different for
    /// different ones.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match &self.0 {
            State::Sparse(entries) => {
                let mut bytes = Vec::with_capacity(1 + entries.len() * ENTRY_BYTES);
                bytes.push(FORM_SPARSE);
                for entry in entries {
                    bytes.extend_from_slice(&entry.to_be_bytes()[8 - ENTRY_BYTES..]);
                }
                bytes
            }
            State::Dense(registers) => {
                let mut bytes = Vec::with_capacity(1 + DENSE_BYTES);
                bytes.push(FORM_DENSE);
                bytes.extend_from_slice(&registers[..]);
                bytes
            }
        }
    }

    /// Reads a sketch from the bytes that [`Self::encode`] has written.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if `bytes` are not those of a sketch.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&FORM_SPARSE, entries)) => decode_sparse(entries),
            Some((&FORM_DENSE, registers)) => decode_dense(registers),
            Some(_) => Err(DecodeError::Form),
            None => Err(DecodeError::Length),
        }
    }
}

fn decode_sparse(bytes: &[u8]) -> Result<Distinct, DecodeError> {
    let (chunks, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || chunks.len() > DISTINCT_EXACT_MAX {
        return Err(DecodeError::Length);
    }
    let value = |chunk: &[u8; ENTRY_BYTES]| {
        chunk.iter().fold(0, |entry, byte| (entry << 8) | u64::from(*byte))
    };
    let entries: Vec<u64> = chunks.iter().map(value).collect();
    if !entries.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::Value);
    }
    Ok(Distinct(State::Sparse(entries)))
}

fn decode_dense(bytes: &[u8]) -> Result<Distinct, DecodeError> {
    let registers: [u8; DENSE_BYTES] = bytes.try_into().map_err(|_| DecodeError::Length)?;
    let within = (0..REGISTERS).all(|index| register(&registers, index) <= RANK_MAX);
    if !within || registers.iter().all(|byte| *byte == 0) {
        return Err(DecodeError::Value);
    }
    Ok(Distinct(State::Dense(Box::new(registers))))
}

/// Returns the place of the five bits of a register. They are within the two bytes that begin at
/// the returned index. The second number is their distance from the lowest bit of these two bytes.
#[inline]
fn place(index: usize) -> (usize, u32) {
    let bit = index * 5;
    (bit / 8, 11 - (bit % 8) as u32)
}

#[inline]
fn window(registers: &[u8; DENSE_BYTES], byte: usize) -> u16 {
    let low = registers.get(byte + 1).copied().unwrap_or(0);
    u16::from_be_bytes([registers[byte], low])
}

#[inline]
fn register(registers: &[u8; DENSE_BYTES], index: usize) -> u8 {
    let (byte, shift) = place(index);
    (window(registers, byte) >> shift) as u8 & 31
}

/// Raises the register to `rank`, unless it is already as high.
#[inline]
fn raise(registers: &mut [u8; DENSE_BYTES], index: usize, rank: u8) {
    if rank <= register(registers, index) {
        return;
    }
    let (byte, shift) = place(index);
    let cleared = window(registers, byte) & !(31 << shift);
    let [high, low] = (cleared | (u16::from(rank) << shift)).to_be_bytes();
    registers[byte] = high;
    if let Some(next) = registers.get_mut(byte + 1) {
        *next = low;
    }
}

#[inline]
fn raise_by_entry(registers: &mut [u8; DENSE_BYTES], entry: u64) {
    let index = (entry >> RANK_BITS) as usize;
    let rest = entry & ((1 << RANK_BITS) - 1);
    let rank = rest.leading_zeros() - (u64::BITS - RANK_BITS) + 1;
    raise(registers, index, rank as u8);
}

/// Estimates the number of distinct values with Ertl's improved raw estimator ("New cardinality
/// estimation algorithms for `HyperLogLog` sketches", 2017, algorithm 6). This estimator needs
/// neither tables nor different formulas for small and large counts. `counts[k]` is the number of
/// registers with the value `k`.
fn estimate(counts: &[u64; RANK_MAX as usize + 1]) -> u64 {
    let registers = REGISTERS as u128;
    let share = |count: u64| u128::from(count) * (ONE / registers);
    let mut sum = (registers * tau(ONE - share(counts[usize::from(RANK_MAX)]))) >> RANK_BITS;
    for (rank, count) in counts.iter().enumerate().skip(1).take(RANK_BITS as usize) {
        sum += u128::from(*count) * (ONE >> rank);
    }
    sum += registers * sigma(share(counts[0]));
    let limit = 1 << ENTRY_BITS;
    if sum == 0 {
        return limit;
    }
    // This is ALPHA · m² / sum. ALPHA has 63 fractional bits, and the sum has POINT fractional
    // bits.
    let scaled = ALPHA << (2 * INDEX_BITS + POINT - 63);
    let rounded = (scaled + sum / 2) / sum;
    u64::try_from(rounded).map_or(limit, |rounded| rounded.min(limit))
}

/// Calculates `x + x²·1 + x⁴·2 + x⁸·4 + …` for a number less than 1.
fn sigma(mut x: u128) -> u128 {
    let (mut sum, mut weight) = (x, 1);
    loop {
        x = (x * x) >> POINT;
        if x == 0 {
            return sum;
        }
        sum += x * weight;
        weight *= 2;
    }
}

/// Calculates a third of `1 − x − (1 − x^½)²·½ − (1 − x^¼)²·¼ − …` for a number from 0 to 1.
fn tau(mut x: u128) -> u128 {
    if x == 0 || x == ONE {
        return 0;
    }
    let (mut sum, mut halvings) = (ONE - x, 0);
    loop {
        x = (x << POINT).isqrt();
        halvings += 1;
        let rest = ONE - x;
        let term = ((rest * rest) >> POINT) >> halvings;
        if term == 0 {
            return sum / 3;
        }
        sum -= term;
    }
}

#[cfg(test)]
mod tests;
