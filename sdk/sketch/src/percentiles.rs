//! Computes percentiles by counting values in log-linear buckets, as `HdrHistogram` does.

use alloc::vec::Vec;
use core::fmt;

use crate::DecodeError;

/// The maximum number of buckets in a sketch, which is enough for all integers of 64 bits.
pub const PERCENTILES_BUCKETS_MAX: usize = 2 * BUCKETS as usize;

/// The number of significant bits of a value that decide its bucket.
const VALUE_BITS: u32 = 7;
/// The number of buckets for the values from 0 to 2⁶³ − 1.
const BUCKETS: i16 = bucket_of_natural(i64::MAX as u64) + 1;

const FORM: u8 = 3;

/// Percentiles of integers.
///
/// The minimum, the maximum and the count are exact. A percentile whose value is from −128 to 127
/// is exact too. Any other percentile differs by at most 1/128 (0.8 %) from the value that has this
/// rank. Merging is commutative and associative.
///
/// A sketch needs 16 bytes in memory for each bucket with values. There are about 64 buckets
/// for each doubling from the smallest to the largest value, and at most 7,424. When stored, a
/// bucket needs two or three bytes.
///
/// Values are integers so that sums and buckets are the same everywhere. Choose
/// the unit accordingly (milliseconds, cents), or see [`Self::add_number`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Percentiles {
    /// The number of values in each bucket, in ascending order. Buckets without values are left
    /// out.
    buckets: Vec<Bucket>,
    /// The smallest and the largest value; 0 if there are no values.
    bounds: (i64, i64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Bucket {
    index: i16,
    count: u64,
}

impl fmt::Debug for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Percentiles({} values, median {:?})", self.count(), self.percentile(50))
    }
}

impl Percentiles {
    /// Creates the sketch of no values.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: Vec::new(), bounds: (0, 0) }
    }

    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: i64) {
        self.add_times(value, 1);
    }

    /// Adds a value that occurred `times` times.
    #[inline]
    pub fn add_times(&mut self, value: i64, times: u64) {
        if times == 0 {
            return;
        }
        self.widen((value, value));
        self.add_to_bucket(Bucket { index: bucket_of(value), count: times });
    }

    /// Adds `value · scale`, rounded to the nearest integer. A half is rounded away from zero: 1.25
    /// with a scale of 10 becomes 13. All numbers that the sketch returns are then in this unit.
    /// Use the same scale for all values.
    ///
    /// Returns whether the value was added. It is not added if it is not finite or does not fit 64
    /// bits.
    #[must_use]
    pub fn add_number(&mut self, value: f64, scale: u32) -> bool {
        let rounded = round_scaled(value, scale);
        if let Some(value) = rounded {
            self.add(value);
        }
        rounded.is_some()
    }

    /// Extends the smallest and the largest value so that they include `bounds`. Call it before a
    /// value is added to its bucket.
    fn widen(&mut self, bounds: (i64, i64)) {
        self.bounds = if self.buckets.is_empty() {
            bounds
        } else {
            (self.bounds.0.min(bounds.0), self.bounds.1.max(bounds.1))
        };
    }

    fn add_to_bucket(&mut self, added: Bucket) {
        match self.buckets.binary_search_by_key(&added.index, |bucket| bucket.index) {
            Ok(place) => {
                let count = &mut self.buckets[place].count;
                *count = count.saturating_add(added.count);
            }
            Err(place) => self.buckets.insert(place, added),
        }
    }

    /// Adds the values of `other`: the result is the sketch of the values of both.
    pub fn merge(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        self.widen(other.bounds);
        for bucket in &other.buckets {
            self.add_to_bucket(*bucket);
        }
    }

    /// Returns the number of bytes of memory that the sketch takes in addition to its own size.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Returns whether no value was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Returns the number of values that were added; at most 2⁶⁴ − 1.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.count))
    }

    /// Returns the smallest value; `None` if there are no values.
    #[must_use]
    pub fn min(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.bounds.0)
    }

    /// Returns the largest value that was added.
    #[must_use]
    pub fn max(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.bounds.1)
    }

    /// Returns the smallest value such that `percent` of 100 values are not greater (the nearest
    /// rank). With 50 it is the median. `None` if there are no values.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<i64> {
        self.quantile(u32::from(percent), 100)
    }

    /// Returns the value at the rank `⌈count · part / whole⌉`, but at least at rank 1. The 99.9th
    /// percentile is `quantile(999, 1000)`. `None` if there are no values, or if `whole` is 0.
    #[must_use]
    pub fn quantile(&self, part: u32, whole: u32) -> Option<i64> {
        let count = u128::from(self.count());
        let rank = (count * u128::from(part)).checked_div(u128::from(whole))?;
        let exact = rank * u128::from(whole) == count * u128::from(part);
        let rank = (rank + u128::from(!exact)).clamp(1, count.max(1));
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|bucket| {
            seen += u128::from(bucket.count);
            seen >= rank
        })?;
        Some(middle(bucket.index).clamp(self.bounds.0, self.bounds.1))
    }

    /// Divides the values into `classes` classes of equal size, and returns the upper bounds of all
    /// classes except the last. With 4 classes, these are the quartiles. Returns no bounds if there
    /// are no values.
    #[must_use]
    pub fn class_bounds(&self, classes: u32) -> Vec<i64> {
        (1..classes).filter_map(|class| self.quantile(class, classes)).collect()
    }

    /// Returns the number of the class of `value`, if the values are divided into `classes` classes
    /// of equal size. Class 0 has the smallest values. The number is that of the
    /// [`Self::class_bounds`] that are less than `value`. With 4 classes, class 3 is the quarter
    /// with the largest values.
    #[must_use]
    pub fn class_of(&self, value: i64, classes: u32) -> u32 {
        let bounds = self.class_bounds(classes);
        bounds.partition_point(|bound| *bound < value) as u32
    }

    /// Returns the bytes of the sketch. They are equal for equal sketches, and different for
    /// different ones.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(21 + 3 * self.buckets.len());
        bytes.push(FORM);
        if self.is_empty() {
            return bytes;
        }
        write_varint(zigzag(self.bounds.0), &mut bytes);
        write_varint(zigzag(self.bounds.1), &mut bytes);
        let mut next = -BUCKETS;
        for bucket in &self.buckets {
            write_varint((bucket.index - next) as u64, &mut bytes);
            write_varint(bucket.count, &mut bytes);
            next = bucket.index + 1;
        }
        bytes
    }

    /// Reads a sketch from the bytes that [`Self::encode`] has written.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if `bytes` are not those of a sketch.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = match bytes.split_first() {
            Some((&FORM, rest)) => rest,
            Some(_) => return Err(DecodeError::Form),
            None => return Err(DecodeError::Length),
        };
        if rest.is_empty() {
            return Ok(Self::new());
        }
        let bounds = (unzigzag(read_varint(&mut rest)?), unzigzag(read_varint(&mut rest)?));
        let mut buckets = Vec::new();
        let mut next = -BUCKETS;
        while !rest.is_empty() {
            let gap = read_varint(&mut rest)?;
            let count = read_varint(&mut rest)?;
            let index = i16::try_from(gap).ok().and_then(|gap| next.checked_add(gap));
            let index = index.filter(|index| *index < BUCKETS).ok_or(DecodeError::Value)?;
            if count == 0 {
                return Err(DecodeError::Value);
            }
            buckets.push(Bucket { index, count });
            next = index + 1;
        }
        let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
            return Err(DecodeError::Length);
        };
        let ends = (bucket_of(bounds.0), bucket_of(bounds.1));
        let one = buckets.len() == 1 && first.count == 1;
        if ends != (first.index, last.index) || bounds.0 > bounds.1 || one && bounds.0 != bounds.1 {
            return Err(DecodeError::Value);
        }
        Ok(Self { buckets, bounds })
    }
}

/// Calculates `value · scale`, rounded to the nearest integer and away from zero at a half. `None`
/// if the result is not finite or does not fit 64 bits.
#[must_use]
pub fn round_scaled(value: f64, scale: u32) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let scaled = value * f64::from(scale);
    if !(-LIMIT..LIMIT).contains(&scaled) {
        return None;
    }
    let whole = scaled as i64;
    let rest = scaled - whole as f64;
    let up = i64::from(rest >= 0.5) - i64::from(rest <= -0.5);
    whole.checked_add(up)
}

/// Returns the bucket of a value. A negative value is in the negative bucket of `!value`, so −1 is
/// like 0. Unlike a negation, `!` also works for the smallest integer.
const fn bucket_of(value: i64) -> i16 {
    if value >= 0 { bucket_of_natural(value as u64) } else { !bucket_of_natural(!value as u64) }
}

const fn bucket_of_natural(value: u64) -> i16 {
    let bits = u64::BITS - value.leading_zeros();
    let shift = bits.saturating_sub(VALUE_BITS);
    ((shift << (VALUE_BITS - 1)) as u64 + (value >> shift)) as i16
}

/// Returns the value with which a bucket is reported.
const fn middle(index: i16) -> i64 {
    if index >= 0 { middle_of_natural(index as u64) } else { !middle_of_natural(!index as u64) }
}

const fn middle_of_natural(index: u64) -> i64 {
    if index < 1 << VALUE_BITS {
        return index as i64;
    }
    let shift = (index >> (VALUE_BITS - 1)) - 1;
    let lowest = (index - (shift << (VALUE_BITS - 1))) << shift;
    let width = 1_u64 << shift;
    (lowest + (width - 1) / 2) as i64
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads an integer at the beginning of `bytes`, and removes it. The integer must be in its
/// shortest form.
fn read_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(DecodeError::Length)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return Err(DecodeError::Value);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = *byte != 0 || shift == 0;
            return if shortest { Ok(value) } else { Err(DecodeError::Value) };
        }
    }
    Err(DecodeError::Value)
}

#[cfg(test)]
mod tests;
