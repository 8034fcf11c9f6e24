//! Computes exact sums of doubles. A sum is rounded once, when it is read. So it does not depend on
//! the order of the values, and a value that was added can be subtracted again.
//!
//! Each finite double is a whole number of units of 2^-1074. The sum of these numbers is kept in
//! limbs (digits) of 32 bits. A limb is stored in 64 bits with a sign, so carries must be passed on
//! only rarely.

/// The exponent of the unit.
const UNIT: i32 = -1074;
const LIMB_BITS: u32 = 32;
const LIMB: i64 = 1 << LIMB_BITS;
/// The bits of a double's mantissa.
const MANTISSA_BITS: u32 = 53;
/// The number of additions after which carries are passed on. Each addition adds less than 2^32 to
/// a limb (a digit of the sum).
const ADDITIONS_MAX: u32 = 1 << 30;

/// An exact sum of doubles.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactSum {
    /// The place of the first limb (digit of the sum): limb `i` counts 2^(32 (base + i)) units of
    /// 2^-1074.
    base: usize,
    limbs: Vec<i64>,
    /// Additions since carries were passed on.
    additions: u32,
}

impl ExactSum {
    /// Adds a finite `value`.
    pub(crate) fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
        let (mantissa, shift) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | 1 << 52, exponent - 1),
        };
        if mantissa == 0 {
            return;
        }
        let place = usize::try_from(shift / u64::from(LIMB_BITS)).expect("it is at most 63");
        let mut units = u128::from(mantissa) << (shift % u64::from(LIMB_BITS));
        self.cover(place, 3);
        for limb in &mut self.limbs[place - self.base..][..3] {
            let part = i64::from(units as u32);
            *limb += if value.is_sign_negative() { -part } else { part };
            units >>= LIMB_BITS;
        }
        self.additions += 1;
        if self.additions == ADDITIONS_MAX {
            carry(&mut self.limbs);
            self.additions = 0;
        }
    }

    /// The memory outside of this value, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.limbs.len() * size_of::<i64>()
    }

    /// Adds limbs (digits of the sum) of 0 until there are `count` limbs from `place` on.
    fn cover(&mut self, place: usize, count: usize) {
        if self.limbs.is_empty() {
            self.base = place;
        }
        if place < self.base {
            self.limbs.splice(..0, std::iter::repeat_n(0, self.base - place));
            self.base = place;
        }
        let limbs = place + count - self.base;
        if self.limbs.len() < limbs {
            self.limbs.resize(limbs, 0);
        }
    }

    /// Returns the double that is nearest to the sum. If two doubles are equally near, returns the
    /// even one. If the sum is larger than any double, returns an infinite value.
    pub(crate) fn value(&self) -> f64 {
        let mut limbs = self.limbs.clone();
        carry(&mut limbs);
        let negative = limbs.last().is_some_and(|last| *last < 0);
        if negative {
            limbs.iter_mut().for_each(|limb| *limb = -*limb);
            carry(&mut limbs);
        }
        // Now each limb is from 0 to 2^32 - 1.
        let Some(top) = limbs.iter().rposition(|limb| *limb != 0) else { return 0.0 };
        let bits = LIMB_BITS * top as u32 + (64 - limbs[top].leading_zeros());
        let dropped = bits.saturating_sub(MANTISSA_BITS);
        let mut mantissa = bits_from(&limbs, dropped);
        if dropped > 0 {
            let half = bits_from(&limbs, dropped - 1) & 1 == 1;
            let rest = (0..dropped - 1).any(|bit| bit_at(&limbs, bit));
            mantissa += u64::from(half && (rest || mantissa & 1 == 1));
        }
        let exponent = UNIT + (LIMB_BITS * self.base as u32 + dropped) as i32;
        let magnitude = scaled(mantissa, exponent);
        if negative { -magnitude } else { magnitude }
    }
}

/// Passes carries on. Afterwards all limbs (digits) except the last are from 0 to 2^32 - 1. If the
/// number is negative, so is the last limb.
fn carry(limbs: &mut Vec<i64>) {
    let mut carried = 0;
    for limb in limbs.iter_mut() {
        let sum = *limb + carried;
        *limb = sum.rem_euclid(LIMB);
        carried = sum.div_euclid(LIMB);
    }
    if carried != 0 {
        limbs.push(carried);
    }
}

fn bit_at(limbs: &[i64], bit: u32) -> bool {
    limbs[(bit / LIMB_BITS) as usize] >> (bit % LIMB_BITS) & 1 == 1
}

/// The lowest 64 bits of the number without its lowest `dropped` bits.
fn bits_from(limbs: &[i64], dropped: u32) -> u64 {
    let first = (dropped / LIMB_BITS) as usize;
    let window = limbs[first..].iter().take(3).rev();
    let window = window.fold(0_u128, |bits, limb| bits << LIMB_BITS | u128::from(*limb as u64));
    (window >> (dropped % LIMB_BITS)) as u64
}

/// `mantissa` times 2 to the power of `exponent`, which must be exact or too large.
fn scaled(mantissa: u64, exponent: i32) -> f64 {
    // Each half is within the range of exponents.
    let power = |exponent: i32| f64::from_bits(((exponent + 1023) as u64) << 52);
    let half = exponent / 2;
    mantissa as f64 * power(half) * power(exponent - half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.value()
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        let tiny = f64::from_bits(1);
        for (values, expected) in [
            (&[][..], 0.0),
            (&[-0.0], 0.0),
            (&[1.0, 1e100, 1.0, -1e100], 2.0),
            (&[1e308, 1e308, -1e308, -1e308, 0.1], 0.1),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[f64::MIN, -1e300], f64::NEG_INFINITY),
            (&[f64::MAX, -f64::MAX, tiny, tiny], 2.0 * tiny),
            (&[0.1; 10], 1.0),
            (&[1.0, f64::EPSILON / 2.0], 1.0),
            (&[1.0, f64::EPSILON / 2.0, tiny], 1.0 + f64::EPSILON),
            (&[-1.0, -f64::EPSILON / 2.0, -tiny], -1.0 - f64::EPSILON),
            (&[4e15, 0.5, 0.5], 4e15 + 1.0),
        ] {
            assert_eq!(sum(values).to_bits(), f64::to_bits(expected), "{values:?}");
        }
    }

    #[test]
    fn the_sum_of_two_is_that_of_the_processor() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut finite = |near: Option<f64>| loop {
            let bits = match near {
                // A value of a similar size, so that bits are cancelled and rounded.
                Some(near) if rng.bool() => near.to_bits() ^ rng.u64(..) >> rng.u32(8..64),
                _ => rng.u64(..) & !((u64::from(rng.bool()) * 0x7ff) << 52),
            };
            let value = f64::from_bits(bits);
            if value.is_finite() {
                return value;
            }
        };
        for _ in 0..100_000 {
            let a = finite(None);
            let b = finite(Some(a));
            assert_eq!(sum(&[a, b]).to_bits(), (a + b + 0.0).to_bits(), "{a:e} + {b:e}");
        }
    }

    #[test]
    fn order_and_values_that_were_taken_back_do_not_matter() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..300 {
            let mut random = || f64::from_bits(rng.u64(..) & !(1 << 62)) * 1e3;
            let values: Vec<f64> = (0..40).map(|_| random()).collect();
            let others: Vec<f64> = (0..40).map(|_| random()).collect();
            let mut mixed: Vec<f64> = others.iter().flat_map(|value| [*value, -value]).collect();
            mixed.extend(&values);
            rng.shuffle(&mut mixed);
            assert_eq!(sum(&mixed).to_bits(), sum(&values).to_bits());
        }
    }

    #[test]
    fn carries_are_passed_on_in_time() {
        for sign in [1.0, -1.0] {
            let mut sum = ExactSum { additions: ADDITIONS_MAX - 3, ..ExactSum::default() };
            for _ in 0..10 {
                sum.add(sign * u64::MAX as f64);
                sum.add(sign * 0.5);
            }
            assert!(sum.additions < 30);
            assert_eq!(sum.value(), sign * (10.0 * u64::MAX as f64 + 5.0));
        }
    }
}
