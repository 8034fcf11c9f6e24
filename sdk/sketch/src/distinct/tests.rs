#![allow(clippy::unwrap_used, reason = "tests")]

extern crate std;

use std::collections::BTreeSet;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn sketch<'a>(values: impl IntoIterator<Item = &'a String>) -> Distinct {
    let mut sketch = Distinct::new();
    for value in values {
        sketch.add(value);
    }
    sketch
}

/// Generates sets of values. Some are small, and some are too large for the exact form.
fn values() -> impl Strategy<Value = Vec<String>> {
    (0..3_000_usize, 0..100_u32).prop_map(|(count, salt)| {
        let count = if salt % 2 == 0 { count % 300 } else { count };
        (0..count).map(|value| format!("{}-{value}", salt % 5)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_sketch_depends_on_the_set_of_values_alone(a in values(), b in values(), c in values()) {
        let (of_a, of_b, of_c) = (sketch(&a), sketch(&b), sketch(&c));
        let merged = |sketches: &[&Distinct]| {
            let mut merged = Distinct::new();
            for other in sketches {
                merged.merge(other);
            }
            merged
        };
        let all = sketch(a.iter().chain(&b).chain(&c));
        prop_assert_eq!(all.encode(), merged(&[&of_a, &of_b, &of_c]).encode());
        prop_assert_eq!(all.encode(), merged(&[&of_c, &of_a, &of_b, &of_a]).encode());
        let of_ab = merged(&[&of_a, &of_b]);
        let of_bc = merged(&[&of_b, &of_c]);
        prop_assert_eq!(all.encode(), merged(&[&of_ab, &of_bc]).encode());
        prop_assert_eq!(all.encode(), sketch(c.iter().rev().chain(&b).chain(&a)).encode());
    }

    #[test]
    fn a_sketch_read_back_is_the_sketch_written(values in values()) {
        let sketch = sketch(&values);
        prop_assert_eq!(&Distinct::decode(&sketch.encode()).unwrap(), &sketch);
        prop_assert_eq!(&Distinct::from_base64(&sketch.to_base64()).unwrap(), &sketch);
        let json = serde_json::to_string(&sketch).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Distinct>(&json).unwrap(), &sketch);
    }

    #[test]
    fn bytes_that_are_read_are_the_bytes_that_would_be_written(
        form in 0..4_u8,
        mut bytes in prop::collection::vec(any::<u8>(), 0..40),
        dense: bool,
    ) {
        if dense {
            bytes.resize(DENSE_BYTES, 0);
        }
        bytes.insert(0, form);
        if let Ok(sketch) = Distinct::decode(&bytes) {
            prop_assert_eq!(sketch.encode(), bytes);
            prop_assert!(sketch.estimate() <= 1 << ENTRY_BITS);
        }
    }
}

#[test]
fn up_to_512_values_are_counted_exactly() {
    for family in ["", "user-", "2026-03-01T00:00:00Z/"] {
        let mut sketch = Distinct::new();
        for value in 1..=512 {
            sketch.add(&format!("{family}{value}"));
            assert_eq!(sketch.estimate(), value);
        }
    }
}

/// Returns the relative errors of the estimates for many sets of `count` values. They are the root
/// mean square and the mean, both in thousandths.
fn errors(count: u64, sets: u64) -> (f64, f64) {
    let (mut squares, mut sum) = (0.0, 0.0);
    for set in 0..sets {
        let mut sketch = Distinct::new();
        for value in 0..count {
            sketch.add_bytes(&(set << 40 | value).to_le_bytes());
        }
        let error = sketch.estimate() as f64 / count as f64 - 1.0;
        squares += error * error;
        sum += error;
    }
    ((squares / sets as f64).sqrt() * 1e3, sum / sets as f64 * 1e3)
}

#[test]
fn the_error_is_as_stated_and_has_no_bias() {
    for count in [600, 2_000, 8_000, 12_000, 20_000, 50_000] {
        let sets = 150;
        let (rms, mean) = errors(count, sets);
        std::println!("{count}: error {rms:.1} ‰, bias {mean:.1} ‰");
        // With 150 sets, the measured error is within 20 % of the stated one, and the bias is
        // within three of its standard errors.
        assert!(rms < 16.3 * 1.2, "{count}: {rms}");
        assert!(mean.abs() < 3.0 * 16.3 / (sets as f64).sqrt(), "{count}: {mean}");
    }
}

/// Tests a sketch of very many values. Its state is drawn directly, register by register.
#[test]
fn thousands_of_millions_of_values_are_counted_too() {
    let mut seed = 7_u64;
    let mut random = move || {
        // This is xorshift64*.
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for count in [1e6, 1e8, 1e9, 1e10, 1e11] {
        let mut errors = vec![];
        for _ in 0..20 {
            let mut sketch = Box::new([0; DENSE_BYTES]);
            for index in 0..REGISTERS {
                // The greatest of n ranks is at most k with the probability (1 − 2⁻ᵏ)ⁿ.
                let uniform = (random() >> 11) as f64 / (1_u64 << 53) as f64;
                let of_register = count / REGISTERS as f64;
                let share = |rank: u8| (1.0 - 0.5_f64.powi(i32::from(rank))).powf(of_register);
                let rank = (0..RANK_MAX).find(|rank| share(*rank) > uniform);
                raise(&mut sketch, index, rank.unwrap_or(RANK_MAX));
            }
            errors.push(Distinct(State::Dense(sketch)).estimate() as f64 / count - 1.0);
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        assert!(mean.abs() < 3.0 * 0.0163 / 20_f64.sqrt(), "{count}: {mean}");
    }
}

/// Calculates the estimate with floating-point numbers, as the author of the estimator published
/// it.
fn estimate_of_floats(counts: &[u64; RANK_MAX as usize + 1]) -> f64 {
    let m = REGISTERS as f64;
    let sigma = |mut x: f64| {
        let (mut y, mut z) = (1.0, x);
        loop {
            x *= x;
            let before = z;
            z += x * y;
            y += y;
            if z == before {
                return z;
            }
        }
    };
    let tau = |mut x: f64| {
        if x == 0.0 || x == 1.0 {
            return 0.0;
        }
        let (mut y, mut z) = (1.0, 1.0 - x);
        loop {
            x = x.sqrt();
            let before = z;
            y *= 0.5;
            z -= (1.0 - x).powi(2) * y;
            if z == before {
                return z / 3.0;
            }
        }
    };
    let mut z = m * tau(1.0 - counts[usize::from(RANK_MAX)] as f64 / m);
    for count in counts[1..usize::from(RANK_MAX)].iter().rev() {
        z = 0.5 * (z + *count as f64);
    }
    z += m * sigma(counts[0] as f64 / m);
    m * m / (2.0 * std::f64::consts::LN_2 * z)
}

proptest! {
    #[test]
    fn the_estimator_is_the_published_one(
        ranks in prop::collection::vec(0..=RANK_MAX, 1..12),
        weights in prop::collection::vec(1..1_000_usize, 12),
    ) {
        let mut counts = [0_u64; RANK_MAX as usize + 1];
        let mut left = REGISTERS;
        for (rank, weight) in ranks.iter().zip(weights) {
            let taken = weight.min(left);
            counts[usize::from(*rank)] += taken as u64;
            left -= taken;
        }
        counts[usize::from(ranks[0])] += left as u64;
        prop_assume!(counts[0] < REGISTERS as u64);
        let expected = estimate_of_floats(&counts).min((1_u64 << ENTRY_BITS) as f64);
        let found = estimate(&counts) as f64;
        prop_assert!((found - expected).abs() <= 0.51 + expected * 1e-9, "{} {}", found, expected);
    }
}

#[test]
fn hostile_bytes_are_refused() {
    let of = |form: u8, bytes: &[u8]| Distinct::decode(&[&[form], bytes].concat()).unwrap_err();
    assert_eq!(Distinct::decode(&[]), Err(DecodeError::Length));
    assert_eq!(of(0, &[]), DecodeError::Form);
    assert_eq!(of(3, &[]), DecodeError::Form);
    assert_eq!(of(FORM_SPARSE, &[0; 4]), DecodeError::Length);
    // These bytes contain the same entry twice, or one entry too many.
    assert_eq!(of(FORM_SPARSE, &[0; 10]), DecodeError::Value);
    let entries: Vec<u8> =
        (0..513_u64).flat_map(|entry| entry.to_be_bytes()[3..].to_vec()).collect();
    assert_eq!(of(FORM_SPARSE, &entries), DecodeError::Length);
    assert!(Distinct::decode(&[&[FORM_SPARSE], &entries[5..]].concat()).is_ok());
    // These bytes have no register that is set, a register that is too large, or the wrong length.
    assert_eq!(of(FORM_DENSE, &[0; DENSE_BYTES]), DecodeError::Value);
    assert_eq!(of(FORM_DENSE, &[0b1111_0000; DENSE_BYTES]), DecodeError::Value);
    assert_eq!(of(FORM_DENSE, &[1; DENSE_BYTES - 1]), DecodeError::Length);
    // These texts have bits after the last byte of base64, or no padding.
    assert_eq!(Distinct::from_base64("AR=="), Err(DecodeError::Base64));
    assert_eq!(Distinct::from_base64("AQ"), Err(DecodeError::Base64));
    assert_eq!(Distinct::from_base64("AQ==").unwrap(), Distinct::new());
}

#[test]
fn registers_are_raised_alone() {
    let mut registers = Box::new([0; DENSE_BYTES]);
    let rank = |index: usize| (index * 7 % 30) as u8;
    for index in (0..REGISTERS).rev() {
        raise(&mut registers, index, rank(index));
        raise(&mut registers, index, 1.min(rank(index)));
    }
    assert!((0..REGISTERS).all(|index| register(&registers, index) == rank(index)));
}

#[test]
fn a_summary_that_is_not_the_sketches_is_refused() {
    let read = |text: &str| serde_json::from_str::<Distinct>(text);
    assert!(read(r#"{"estimate":0,"sketch":"AQ=="}"#).is_ok());
    let error = read(r#"{"estimate":1,"sketch":"AQ=="}"#).unwrap_err();
    assert!(error.to_string().starts_with("the numbers are not those"), "{error}");
    for text in [
        r#"{"estimate":0}"#,
        r#"{"estimate":0,"sketch":"AQ==","more":1}"#,
        r#"{"estimate":0,"sketch":"AQ==","sketch":"AQ=="}"#,
        r#"{"estimate":0.0,"sketch":"AQ=="}"#,
        r#"{"estimate":0,"sketch":"Aw=="}"#,
        "0",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

/// Checks the values that `docs/sketches.md` lists for other implementations.
#[test]
fn the_vectors_of_the_specification_hold() {
    assert_eq!(XxHash64::oneshot(0, b""), 0xef46_db37_51d8_e999);
    assert_eq!(XxHash64::oneshot(0, b"a"), 0xd24e_c4f1_a98c_6e5b);
    let of = |count: u64| {
        let mut sketch = Distinct::new();
        for value in 1..=count {
            sketch.add_integer(value as i64);
        }
        sketch
    };
    let json = |sketch: &Distinct| serde_json::to_string(sketch).unwrap();
    let digest = |sketch: &Distinct| XxHash64::oneshot(0, &sketch.encode());
    assert_eq!(json(&of(0)), r#"{"estimate":0,"sketch":"AQ=="}"#);
    assert_eq!(json(&of(3)), THREE);
    assert!(SPECIFICATION.contains(THREE));
    for (count, estimate, hash) in LARGE {
        let sketch = of(count);
        assert_eq!((count, sketch.estimate(), digest(&sketch)), (count, estimate, hash));
        assert!(SPECIFICATION.contains(&format!("| {count} | {estimate} | `{hash:016x}` |")));
    }
}

const SPECIFICATION: &str = include_str!("../../../../docs/sketches.md");
const THREE: &str = r#"{"estimate":3,"sketch":"ASYWfCr1YCG1Yha3tBJ2Ng=="}"#;
/// The number of values, the estimate, and the XXH64 of the bytes.
const LARGE: [(u64, u64, u64); 5] = [
    (512, 512, 0x88ea_4768_63ef_d049),
    (513, 520, 0x856a_5bdf_bc2e_ea05),
    (10_000, 9_767, 0x7cef_205d_8790_16b2),
    (100_000, 100_105, 0xe32a_3e3e_c532_36aa),
    (1_000_000, 967_830, 0x65a1_b533_5f02_e2ce),
];

#[test]
fn text_and_integers_of_the_same_digits_are_one_value() {
    let mut sketch = Distinct::new();
    sketch.add_integer(-7);
    sketch.add("-7");
    assert_eq!(sketch.estimate(), 1);
    let unique: BTreeSet<u64> =
        (0..1_000_u64).map(|it| XxHash64::oneshot(0, &it.to_le_bytes())).collect();
    assert_eq!(unique.len(), 1_000);
}
