use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{FieldReader, FieldSpans};

fn fields() -> Vec<FieldSpec> {
    use FieldKind::{Boolean, Distinct, Integer, Number, Text, Timestamp};
    [
        ("cents", Integer),
        ("share", Number),
        ("country", Text),
        ("paid", Boolean),
        ("at", Timestamp),
        ("users", Distinct),
    ]
    .map(|(name, kind)| FieldSpec { name: name.into(), kind, ..FieldSpec::default() })
    .into()
}

fn holds(condition: &Condition, row: &str) -> bool {
    let filter = Filter::new(vec![condition.clone()]).unwrap();
    let reader = FieldReader::new(&fields(), filter.fields());
    filter.matches(&reader.read(row.as_bytes(), &mut FieldSpans::default()))
}

/// Checks that `condition` holds for the rows `yes` and not for the rows `no`.
fn check(condition: &str, yes: &[&str], no: &[&str]) {
    let parsed = Condition::parse(&fields(), condition).unwrap();
    for row in yes {
        assert!(holds(&parsed, row), "{condition} does not hold for {row}");
    }
    for row in no {
        assert!(!holds(&parsed, row), "{condition} holds for {row}");
    }
}

#[test]
fn conditions_compare_values_by_their_kind() {
    check("cents >= 100", &[r#"{"cents":100}"#], &[r#"{"cents":99}"#, "{}"]);
    check(
        "cents<18446744073709551615",
        &[r#"{"cents":9}"#],
        &[r#"{"cents":18446744073709551615}"#],
    );
    check("share = 2.5", &[r#"{"share":2.50}"#, r#"{"share":25e-1}"#], &[r#"{"share":2}"#]);
    check("country=DE", &[r#"{"country":"DE"}"#], &[r#"{"country":"D"}"#, r#"{"country":null}"#]);
    check(r#"country = "a, b""#, &[r#"{"country":"a, b"}"#], &[r#"{"country":"\"a, b\""}"#]);
    check("country > Z", &[r#"{"country":"a"}"#, r#"{"country":"Zz"}"#], &[r#"{"country":"Z"}"#]);
    check(
        "country prefix D",
        &[r#"{"country":"D"}"#, r#"{"country":"DE"}"#],
        &[r#"{"country":"ED"}"#],
    );
    check("country in DE, FR", &[r#"{"country":"FR"}"#], &[r#"{"country":"IT"}"#, "{}"]);
    check(
        r#"country in "a,b",c"#,
        &[r#"{"country":"a,b"}"#, r#"{"country":"c"}"#],
        &[r#"{"country":"a"}"#],
    );
    check(r#"cents in [1, 3]"#, &[r#"{"cents":3}"#], &[r#"{"cents":2}"#]);
    check("paid != true", &[r#"{"paid":false}"#], &[r#"{"paid":true}"#, "{}"]);
    check(
        "at >= 2026-03-01T12:00:00Z",
        &[r#"{"at":"2026-03-01T12:00:00.5Z"}"#, r#"{"at":"2026-03-01T13:00:00+01:00"}"#],
        &[r#"{"at":"2026-03-01T12:30:00+01:00"}"#],
    );
}

#[test]
fn a_missing_value_fulfils_only_the_comparison_with_null() {
    let (missing, null, given) = ("{}", r#"{"country":null}"#, r#"{"country":"null"}"#);
    check("country = null", &[missing, null], &[given]);
    check("country != null", &[given], &[missing, null]);
    check("country = \"null\"", &[given], &[missing, null]);
    check("country != DE", &[given], &[missing, null]);
    check("country < z", &[given], &[missing, null]);
    check("users = null", &[missing], &[r#"{"users":{"estimate":0,"sketch":"AQ=="}}"#]);
}

#[test]
fn a_refused_condition_names_the_field_and_the_fix() {
    for (condition, words) in [
        ("cent >= 100", &["no field `cent`", "did you mean `cents`?", "`country`"][..]),
        ("nothing = 1", &["no field `nothing`; it has `cents`"]),
        ("cents = ten", &["`ten` is no value", "`cents`", "`integer`", "whole number"]),
        ("cents = 1.5", &["`1.5`", "whole number"]),
        ("cents = -9223372036854775809", &["-2^63"]),
        ("share = inf", &["`inf`", "`number`"]),
        ("paid > true", &["`>` does not apply", "`paid`", "use `=` or `!=`"]),
        ("paid = yes", &["`true` or `false`"]),
        ("cents prefix 1", &["`prefix`", "for text"]),
        ("at = yesterday", &["RFC 3339"]),
        ("users = 3", &["`users`", "`= null`"]),
        ("country", &["is no condition", "cents >= 100"]),
        ("= 3", &["is no condition"]),
        ("country like D", &["is no condition"]),
        ("country inDE", &["is no condition"]),
        ("country = \"DE", &["closing quote"]),
        ("cents in 1,,2", &["`` is no value"]),
    ] {
        let error = Condition::parse(&fields(), condition).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{condition}: {error} lacks {word}");
        }
    }
    let many = (0..=FILTER_VALUES_MAX).map(Value::from).collect::<Vec<_>>();
    let error = Condition::of_json(&fields(), "cents", "in", &json!(many)).unwrap_err();
    assert_eq!(error, FilterError::Values { field: "cents".into(), count: FILTER_VALUES_MAX + 1 });
    let one = Condition::parse(&fields(), "cents = 1").unwrap();
    assert_eq!(
        Filter::new(vec![one; FILTER_CONDITIONS_MAX + 1]),
        Err(FilterError::Conditions(FILTER_CONDITIONS_MAX + 1))
    );
}

#[test]
fn json_and_text_give_the_same_conditions() {
    for (text, name, operator, json) in [
        ("cents >= 100", "cents", ">=", json!(100)),
        ("cents in 3,1", "cents", "in", json!([1, 3])),
        ("share = 1", "share", "=", json!(1)),
        ("country = DE", "country", "=", json!("DE")),
        ("country = null", "country", "=", Value::Null),
        ("paid = true", "paid", "=", json!(true)),
        ("at < 2026-03-01T12:00:00Z", "at", "<", json!("2026-03-01T12:00:00Z")),
    ] {
        let parsed = Condition::parse(&fields(), text).unwrap();
        assert_eq!(Condition::of_json(&fields(), name, operator, &json).unwrap(), parsed, "{text}");
    }
    for (name, operator, json) in [
        ("cents", ">=", json!("100")),
        ("cents", "in", json!(1)),
        ("cents", "in", json!([])),
        ("cents", "in", json!([null])),
        ("cents", "<", Value::Null),
        ("cents", "==", json!(1)),
        ("country", "=", json!(1)),
        ("at", "=", json!(1)),
    ] {
        assert!(Condition::of_json(&fields(), name, operator, &json).is_err(), "{name} {json}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_a_panic(text in "(cents|country|at|x)? ?(=|!=|<=|in|prefix)? ?.{0,12}") {
        let _ = Condition::parse(&fields(), &text);
    }

    #[test]
    fn conditions_on_integers_are_those_of_arithmetic(
        value in -3_i64..4, other in -3_i64..4, operator in 0_usize..6,
    ) {
        let operators = ["=", "!=", "<", "<=", ">", ">="];
        let expected = [
            value == other, value != other, value < other,
            value <= other, value > other, value >= other,
        ];
        let parsed = Condition::parse(&fields(), &format!("cents {} {other}", operators[operator])).unwrap();
        prop_assert_eq!(holds(&parsed, &format!("{{\"cents\":{value}}}")), expected[operator]);
    }
}
