#![allow(clippy::unwrap_used, reason = "tests")]

extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use twox_hash::XxHash64;

use super::*;

fn sketch<'a>(values: impl IntoIterator<Item = &'a i64>) -> Percentiles {
    let mut sketch = Percentiles::new();
    for value in values {
        sketch.add(*value);
    }
    sketch
}

fn values() -> impl Strategy<Value = Vec<i64>> {
    let value = prop_oneof![
        -300..300_i64,
        -100_000..10_000_000_i64,
        any::<i64>(),
        prop::sample::select(vec![i64::MIN, i64::MIN + 1, -129, -128, 127, 128, i64::MAX]),
    ];
    prop::collection::vec(value, 0..300)
}

/// Returns the value with the nearest rank among the sorted values themselves.
fn exact(sorted: &[i64], part: u32, whole: u32) -> i64 {
    let rank = (sorted.len() as u64 * u64::from(part)).div_ceil(u64::from(whole)).max(1);
    sorted[rank as usize - 1]
}

/// Returns whether `found` is within 1/128 of `value`.
fn near(found: i64, value: i64) -> bool {
    let (found, value) = (i128::from(found), i128::from(value));
    (found - value).abs() * 128 <= value.abs()
}

proptest! {
    #[test]
    fn a_sketch_depends_on_the_values_alone(a in values(), b in values(), c in values()) {
        let merged = |parts: &[&Vec<i64>]| {
            let mut merged = Percentiles::new();
            for part in parts {
                merged.merge(&sketch(*part));
            }
            merged
        };
        let all = sketch(a.iter().chain(&b).chain(&c));
        prop_assert_eq!(all.encode(), merged(&[&a, &b, &c]).encode());
        prop_assert_eq!(all.encode(), merged(&[&c, &b, &a]).encode());
        let mut right = sketch(&a);
        right.merge(&merged(&[&b, &c]));
        prop_assert_eq!(all.encode(), right.encode());
    }

    #[test]
    fn a_sketch_read_back_is_the_sketch_written(values in values()) {
        let sketch = sketch(&values);
        prop_assert_eq!(&Percentiles::decode(&sketch.encode()).unwrap(), &sketch);
        let json = serde_json::to_string(&sketch).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Percentiles>(&json).unwrap(), &sketch);
    }

    #[test]
    fn quantiles_are_within_one_in_128(mut values in values(), part in 0..=1_000_u32) {
        prop_assume!(!values.is_empty());
        let sketch = sketch(&values);
        values.sort_unstable();
        let (found, expected) = (sketch.quantile(part, 1_000).unwrap(), exact(&values, part, 1_000));
        prop_assert!(near(found, expected), "{} for {}", found, expected);
        prop_assert_eq!(sketch.min(), values.first().copied());
        prop_assert_eq!(sketch.max(), values.last().copied());
        prop_assert_eq!(sketch.count(), values.len() as u64);
    }

    #[test]
    fn buckets_are_in_the_order_of_their_values(a: i64, b: i64, near in -300..300_i64) {
        for (a, b) in [(a, b), (a, a.wrapping_add(near)), (near, near.wrapping_mul(3))] {
            let (a, b) = (a.min(b), a.max(b));
            prop_assert!(bucket_of(a) <= bucket_of(b));
            prop_assert_eq!(bucket_of(middle(bucket_of(a))), bucket_of(a));
        }
    }

    #[test]
    fn bytes_that_are_read_are_the_bytes_that_would_be_written(
        bounds: (i8, i8),
        mut bytes in prop::collection::vec(prop_oneof![0..9_u8, any::<u8>()], 0..40),
        raw: bool,
    ) {
        // Some bytes are nearly valid.
        let mut head = vec![FORM];
        if !raw {
            write_varint(zigzag(i64::from(bounds.0)), &mut head);
            write_varint(zigzag(i64::from(bounds.1)), &mut head);
            write_varint((bucket_of(i64::from(bounds.0)) + BUCKETS) as u64, &mut head);
            bytes.retain(|byte| *byte < 9);
        }
        head.append(&mut bytes);
        if let Ok(sketch) = Percentiles::decode(&head) {
            prop_assert_eq!(sketch.encode(), head);
        }
    }

    #[test]
    fn numbers_are_rounded_as_decimal_text_is(units in -1_000_000_i64..1_000_000, half: bool) {
        // If the unit is a power of two, halves are exact.
        let value = units as f64 + if half { 0.5 } else { 0.0 };
        let up = if half && units >= 0 { units + 1 } else { units };
        let expected = if half && units < 0 { units } else { up };
        // −7 + 0.5 is −6.5. It becomes −7, which is farther from zero.
        prop_assert_eq!(round_scaled(value, 1), Some(expected));
        prop_assert_eq!(round_scaled(value / 4.0, 4), Some(expected));
    }
}

#[test]
fn numbers_that_do_not_fit_are_not_added() {
    let mut sketch = Percentiles::new();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9.3e18, -9.3e18] {
        assert!(!sketch.add_number(value, 1), "{value}");
    }
    assert!(sketch.is_empty());
    assert!(sketch.add_number(1.25, 10) && sketch.add_number(-9_223_372_036_854_775_808.0, 1));
    assert_eq!((sketch.min(), sketch.max()), (Some(i64::MIN), Some(13)));
}

/// Checks percentiles of values as applications have them. The values are calculated by the inverse
/// distribution function for `1..=n`, so nothing is random.
#[test]
fn percentiles_of_common_distributions_are_within_one_in_128() {
    let n = 50_000_u32;
    let of = |inverse: &dyn Fn(f64) -> f64| -> Vec<i64> {
        (0..n).map(|it| inverse((f64::from(it) + 0.5) / f64::from(n)) as i64).collect()
    };
    let distributions: [(&str, Vec<i64>); 5] = [
        ("uniform", of(&|u| u * 1e6)),
        ("exponential", of(&|u| -(1.0 - u).ln() * 12_000.0)),
        ("pareto", of(&|u| 1_000.0 / (1.0 - u).powf(0.8))),
        ("logistic, around 0", of(&|u| (u / (1.0 - u)).ln() * 40_000.0)),
        ("two groups", of(&|u| if u < 0.7 { 200.0 + 50.0 * u } else { 80_000.0 * u })),
    ];
    for (name, values) in distributions {
        let sketch = sketch(&values);
        for percent in [1, 25, 50, 75, 90, 95, 99] {
            let (found, expected) =
                (sketch.percentile(percent).unwrap(), exact(&values, u32::from(percent), 100));
            assert!(near(found, expected), "{name}, {percent}: {found} for {expected}");
        }
        let bytes = sketch.encode().len();
        std::println!("{name}: {} buckets, {bytes} bytes", sketch.buckets.len());
        assert!(bytes < 4_096, "{name}: {bytes}");
    }
}

#[test]
fn classes_have_equally_many_values() {
    let sketch = sketch(&(1..=100).collect::<Vec<i64>>());
    assert_eq!(sketch.class_bounds(4), [25, 50, 75]);
    let classes: Vec<u32> =
        [0, 25, 26, 50, 51, 75, 76, 1_000].map(|v| sketch.class_of(v, 4)).into();
    assert_eq!(classes, [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(sketch.class_of(5, 0), 0);
    assert_eq!(Percentiles::new().class_of(5, 4), 0);
}

#[test]
fn a_sketch_of_all_integers_is_bounded() {
    let mut sketch = Percentiles::new();
    for index in -BUCKETS..BUCKETS {
        sketch.add_times(middle(index), u64::MAX);
    }
    assert_eq!(sketch.buckets.len(), PERCENTILES_BUCKETS_MAX);
    assert_eq!(PERCENTILES_BUCKETS_MAX, 7_424);
    assert_eq!(sketch.count(), u64::MAX);
    assert!(sketch.encode().len() < 90_000);
}

#[test]
fn hostile_bytes_are_refused() {
    let of = |bytes: &[u8]| Percentiles::decode(&[&[FORM], bytes].concat());
    assert_eq!(Percentiles::decode(&[]), Err(DecodeError::Length));
    assert_eq!(Percentiles::decode(&[1]), Err(DecodeError::Form));
    let good = sketch(&[5, 5, 9]).encode();
    assert!(Percentiles::decode(&good).is_ok());
    for end in 2..good.len() {
        assert!(Percentiles::decode(&good[..end]).is_err(), "{end}");
    }
    // This is the value 5 (zigzag 10) once, in bucket 5, whose gap is 3712 + 5.
    assert!(of(&[10, 10, 0x85, 0x1d, 1]).is_ok());
    let refused = [
        (vec![10, 10], DecodeError::Length),
        (vec![10, 10, 0x85, 0x1d, 0], DecodeError::Value),
        (vec![10, 12, 0x85, 0x1d, 1], DecodeError::Value),
        (vec![12, 10, 0x85, 0x1d, 1], DecodeError::Value),
        (vec![10, 10, 0x85, 0x9d, 0, 1], DecodeError::Value),
        (vec![10, 10, 0x85, 0x7d, 1], DecodeError::Value),
        (vec![0xff; 11], DecodeError::Value),
    ];
    for (bytes, why) in refused {
        assert_eq!(of(&bytes), Err(why), "{bytes:?}");
    }
}

#[test]
fn varints_hold_all_integers() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
        let mut bytes = Vec::new();
        write_varint(value, &mut bytes);
        assert_eq!(read_varint(&mut &bytes[..]), Ok(value));
    }
    for value in [i64::MIN, -1, 0, 1, i64::MAX] {
        assert_eq!(unzigzag(zigzag(value)), value);
    }
}

/// Checks the values that `docs/sketches.md` lists for other implementations.
#[test]
fn the_vectors_of_the_specification_hold() {
    let json = |sketch: &Percentiles| serde_json::to_string(sketch).unwrap();
    assert_eq!(json(&Percentiles::new()), EMPTY);
    assert_eq!(json(&sketch(&[3, 1, 2])), SMALL);
    assert_eq!(json(&sketch(&[i64::MIN, -1_000, -1, 0, 1_000, 1_000_000, i64::MAX])), WIDE);
    assert!([EMPTY, SMALL, WIDE].iter().all(|json| SPECIFICATION.contains(json)));
    let squares: Vec<i64> = (1..=1_000).map(|it| it * it).collect();
    let sketch = sketch(&squares);
    let numbers = [50, 75, 90, 95, 99].map(|percent| sketch.percentile(percent).unwrap());
    assert_eq!(numbers, [250_879, 561_151, 806_911, 905_215, 978_943]);
    let bytes = sketch.encode();
    assert_eq!((bytes.len(), XxHash64::oneshot(0, &bytes)), (998, 0xb3b0_e67a_09c1_a5af));
    let error =
        serde_json::from_str::<Percentiles>(&SMALL.replace("p50\":2", "p50\":3")).unwrap_err();
    assert!(error.to_string().starts_with("the numbers are not"), "{error}");
}

const SPECIFICATION: &str = include_str!("../../../../docs/sketches.md");
const EMPTY: &str = r#"{"count":0,"min":null,"p50":null,"p75":null,"p90":null,"p95":null,"p99":null,"max":null,"sketch":"Aw=="}"#;
const SMALL: &str = r#"{"count":3,"min":1,"p50":2,"p75":3,"p90":3,"p95":3,"p99":3,"max":3,"sketch":"AwIGgR0BAAEAAQ=="}"#;
const WIDE: &str = r#"{"count":7,"min":-9223372036854775808,"p50":0,"p75":1003519,"p90":9187343239835811839,"p95":9187343239835811839,"p99":9187343239835811839,"max":9223372036854775807,"sketch":"A////////////wH+//////////8BAAHCGgG7AgEAAbwCAfwEAcQVAQ=="}"#;
