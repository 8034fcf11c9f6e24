//! Tests that if the reader accepts a text, `serde_json` parses it to the same value. This must be
//! so for every text and type.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use proptest::prelude::*;
use serde::Deserializer;
use serde::de::{self, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::reader::special;
use super::*;

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code, reason = "it is shown by Debug")]
struct Plain<'a> {
    #[serde(borrow)]
    a: Cow<'a, str>,
    #[serde(default)]
    b: i64,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "it is shown by Debug")]
struct Strict {
    a: Option<bool>,
    #[serde(alias = "d")]
    b: Option<Box<Strict>>,
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code, reason = "it is shown by Debug")]
struct Rare<'a> {
    #[serde(borrow, default)]
    a: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient")]
    b: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Returns a type that uses a default value if there is an error.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    Ok(u8::deserialize(deserializer).unwrap_or(7))
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Choice {
    A,
    B(i64),
    C { a: bool },
}

#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "it is shown by Debug")]
enum Any {
    Number(i64),
    Text(String),
    List(Vec<Any>),
    Object(BTreeMap<String, Any>),
}

/// A type that reads only a part of an object.
#[derive(Debug)]
#[allow(dead_code, reason = "it is shown by Debug")]
struct First(Option<(String, Option<u8>)>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<First, A::Error> {
                Ok(First(map.next_key()?.map(|key| (key, map.next_value().ok()))))
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// Checks that `from_str`, and the reader if it accepts `text`, give the same result as
/// `serde_json`.
fn same<'a, T: Deserialize<'a> + Debug>(text: &'a str) -> Result<(), String> {
    let theirs: Result<T, _> = serde_json::from_str(text);
    let show = |result: &Result<T, serde_json::Error>| match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    };
    let theirs = show(&theirs);
    let mut results = vec![show(&from_str(text))];
    results.extend(read::<T>(text).map(|value| format!("{value:?}")));
    match results.iter().find(|ours| **ours != theirs) {
        Some(ours) => Err(format!("{text:?} as {}: {ours}, not {theirs}", type_name::<T>())),
        None => Ok(()),
    }
}

fn type_name<T>() -> &'static str {
    std::any::type_name::<T>()
}

fn same_as_all(text: &str) -> Result<(), String> {
    same::<Value>(text)?;
    same::<Plain<'_>>(text)?;
    same::<Strict>(text)?;
    same::<Rare<'_>>(text)?;
    same::<Choice>(text)?;
    same::<Any>(text)?;
    same::<First>(text)?;
    same::<de::IgnoredAny>(text)?;
    same::<Vec<First>>(text)?;
    same::<Vec<Choice>>(text)?;
    same::<Vec<Option<f64>>>(text)?;
    same::<Vec<f32>>(text)?;
    same::<Vec<i128>>(text)?;
    same::<BTreeMap<Choice, Value>>(text)?;
    same::<BTreeMap<i32, Value>>(text)?;
    same::<BTreeMap<Option<Cow<'_, str>>, Option<Vec<char>>>>(text)?;
    same::<BTreeMap<String, de::IgnoredAny>>(text)?;
    same::<(u8, i16, Cow<'_, str>)>(text)?;
    same::<(&str, ())>(text)?;
    same::<[u64; 2]>(text)?;
    same::<Option<Box<RawValue>>>(text)?;
    same::<f64>(text)?;
    same::<i64>(text)?;
    same::<u64>(text)?;
    same::<u8>(text)?;
    same::<&str>(text)?;
    same::<String>(text)?;
    same::<bool>(text)?;
    same::<serde_json::Number>(text)
}

/// Generates JSON of every kind, and some text that is nearly JSON.
fn json() -> impl Strategy<Value = String> {
    let space = "[ \n\t\r]{0,1}";
    let text = prop_oneof![
        4 => "\"[a-d]\"",
        2 => "\"[ -~]{0,20}\"".prop_map(|text| text.replace('\\', "/")),
        1 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => r#""[a-zü]{0,9}(\\[\\"/bfnrtux]|\\u00[0-9a-fA-F]{2}|\\ud83d\\ude00|\\ud83d){1,2}[a-z]{0,9}""#,
    ];
    let number = prop_oneof![
        3 => "-?[0-9]{1,3}",
        2 => "-?[1-9][0-9]{0,21}",
        1 => any::<f64>().prop_map(|number| number.to_string()),
        1 => "-?[0-9]{1,2}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{0,3})?",
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
    ];
    let word = prop_oneof!["null|true|false", "nul|tru|falsey"];
    let leaf = prop_oneof![4 => text.clone(), 4 => number, 1 => word];
    let spaced = (space, leaf, space).prop_map(|(before, leaf, after)| before + &leaf + &after);
    let key = prop_oneof![6 => "\"[abcd]\"", 1 => "\"-?[0-9]{1,2}\"", 1 => text];
    spaced.prop_recursive(4, 24, 5, move |inner| {
        let member = (key.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            2 => prop::collection::vec(member, 0..5).prop_map(|list| format!("{{{}}}", list.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_reads_as_serde_json_does(text in json()) {
        same_as_all(&text).unwrap();
    }

    /// Tests texts that are cut off, or have an additional or a changed character.
    #[test]
    fn it_reads_damaged_text_as_serde_json_does(
        text in json(),
        place: prop::sample::Index,
        with in "[\\]\\[{}:,\"\\\\0e.\\- a\u{0}\u{1}ü]?",
        how in 0..3,
    ) {
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let at = ends[place.index(ends.len())];
        let suffix = match how {
            0 => "",
            1 => &text[at..],
            _ => &text[at + text[at..].chars().next().unwrap().len_utf8()..],
        };
        same_as_all(&format!("{}{with}{suffix}", &text[..at])).unwrap();
    }

    #[test]
    fn the_first_special_byte_is_marked(bytes: [u8; 8]) {
        let first = bytes.iter().position(|byte| matches!(byte, 0..b' ' | b'"' | b'\\'));
        let marks = special(u64::from_le_bytes(bytes));
        prop_assert_eq!((marks != 0).then(|| marks.trailing_zeros() as usize / 8), first);
    }
}

#[test]
fn known_corners_are_read_as_serde_json_reads_them() {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let (some, more, most) = (deep(40), deep(120), deep(130));
    let corners = [
        "",
        " ",
        "\0",
        "1\0",
        "{}",
        "{} x",
        "{\"a\":\"x\",}",
        "[1,]",
        "[,1]",
        "{,}",
        "-",
        "-0",
        "01",
        "-01",
        "1.",
        "1e",
        "1e999",
        "[1e999]",
        "{\"a\":\"x\",\"z\":1e999}",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "\"\\ud800\"",
        "{\"a\":\"x\",\"z\":\"\\ud800\"}",
        "{\"a\":\"x\",\"z\":\"\\x\"}",
        "\"a\nb\"",
        "\"a\u{7f}b\"",
        "{\"a\":\"x\",\"a\":\"y\"}",
        "{\"\\u0061\":\"x\"}",
        "{\"a\":\"\\\"\"}",
        "[\"x\",1]",
        "{\"a\":1,\"b\":\"no\"}",
        "{\"b\":300,\"a\":\"x\"}",
        "{\"b\":[1],\"c\":{}}",
        "\u{feff}{}",
        "{\"a\":null}",
        "{\"c\":{\"a\":true}}",
        "\"a\"",
        "nullx",
        "[nulll]",
        "tru",
        &some,
        &more,
        &most,
    ];
    for text in corners {
        same_as_all(text).unwrap();
    }
}

#[test]
fn a_member_is_read_no_further_than_to_its_end() {
    let glances = [
        (r#"{"a":"x"}"#, Some("x")),
        (r#" { "b" : [1, {"a": "no"}], "a" : "ü" , nothing more"#, Some("ü")),
        (r#"{"b":"\"","a":""}"#, Some("")),
        (r#"{"a":"caf\u00e9"}"#, None),
        (r#"{"a":1,"a":"x"}"#, None),
        (r#"{"b":"x"}"#, None),
        (r#"{"b":x,"a":"x"}"#, None),
        (r#"["a","x"]"#, None),
        (r#"{"a""#, None),
        ("", None),
    ];
    for (text, expected) in glances {
        assert_eq!(member(text, "a"), expected, "{text}");
    }
}

/// Tests that the reader itself parses common JSON. A reader that leaves every text to `serde_json`
/// would pass all other tests, but would be slow.
#[test]
fn common_json_is_not_parsed_twice() {
    let shop = r#"{"a":"p7","country":"GB","quantity":3,"b":-18201,"c":[{"d":1.5e3},"x\n",null]}"#;
    assert!(read::<Plain<'_>>(shop).is_some());
    assert!(read::<Value>(shop).is_some());
    assert!(read::<Vec<f64>>("[1, 2.5, -3e-2]").is_some());
    assert!(read::<Strict>("{\n  \"a\": true,\n  \"b\": {\"a\": null}\n}\n").is_some());
    assert!(read::<Vec<Choice>>(r#"["a", {"b": 1}, {"c": {"a": true}}]"#).is_some());
    assert!(read::<Plain<'_>>(r#"{"a":"caf\u00e9"}"#).is_some_and(|it| it.a == "café"));
    assert!(read::<Plain<'_>>(r#"{"a":"x","b":"1"}"#).is_none());
}
