//! Reads a member of a JSON object that is nested in another one.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::document::Kind;
use crate::expression::evaluate::Value;

/// Reads the value under `path` in `json`, as the host decodes a member of this kind. It is null if
/// a member is missing or null, and `None` if it has another kind or occurs twice.
pub(crate) fn read<'a>(json: &'a str, path: &[Box<str>], kind: Kind) -> Option<Value<'a>> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = PathSeed(path).deserialize(&mut reader).ok()?;
    match found {
        Found::Missing => Some(Value::Null),
        Found::Twice => None,
        Found::Json(json) => value(json, kind),
    }
}

fn value(json: &str, kind: Kind) -> Option<Value<'_>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let text = || serde_json::from_str::<Text<'_>>(json).ok().map(|Text(text)| text);
    match kind {
        Kind::Integer => json.parse().ok().map(Value::Integer),
        Kind::Number => {
            let number = serde_json::from_str::<f64>(json).ok()?;
            number.is_finite().then_some(Value::Number(number))
        }
        Kind::Boolean => serde_json::from_str(json).ok().map(Value::Boolean),
        Kind::Text => text().map(Value::Text),
        Kind::Timestamp => text()?.parse().ok().map(Value::Timestamp),
    }
}

enum Found<'a> {
    Missing,
    Twice,
    Json(&'a str),
}

struct PathSeed<'p>(&'p [Box<str>]);

impl<'de> DeserializeSeed<'de> for PathSeed<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        if self.0.is_empty() {
            let raw = <&RawValue>::deserialize(deserializer)?;
            return Ok(match raw.get() {
                "null" => Found::Missing,
                json => Found::Json(json),
            });
        }
        // Null has no members. Any other value that is not an object has the wrong kind.
        deserializer.deserialize_any(self)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for PathSeed<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(Found::Missing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let (name, rest) = (&self.0[0], &self.0[1..]);
        let mut found = None;
        while let Some(Name(key)) = map.next_key()? {
            if *key != **name {
                map.next_value::<IgnoredAny>()?;
            } else if found.is_none() {
                found = Some(map.next_value_seed(PathSeed(rest))?);
            } else {
                map.next_value::<IgnoredAny>()?;
                found = Some(Found::Twice);
            }
        }
        Ok(found.unwrap_or(Found::Missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_member_is_read_or_missing_or_of_another_kind() {
        let path = |names: &[&str]| names.iter().map(|it| (*it).into()).collect::<Vec<Box<str>>>();
        let json =
            r#"{"a": {"b": 7, "c": null, "t": "ü\n", "n": 1.0}, "d": 1, "e": {"x": 1, "x": 2}}"#;
        let read = |names: &[&str], kind| read(json, &path(names), kind);
        assert_eq!(read(&["a", "b"], Kind::Integer), Some(Value::Integer(7)));
        assert_eq!(read(&["a", "b"], Kind::Number), Some(Value::Number(7.0)));
        assert_eq!(read(&["a", "b"], Kind::Text), None);
        assert_eq!(read(&["a", "n"], Kind::Integer), None);
        assert_eq!(read(&["a", "c"], Kind::Integer), Some(Value::Null));
        assert_eq!(read(&["a", "c", "z"], Kind::Integer), Some(Value::Null));
        assert_eq!(read(&["a", "x"], Kind::Integer), Some(Value::Null));
        assert_eq!(read(&["a", "t"], Kind::Text), Some(Value::Text("ü\n".into())));
        assert_eq!(read(&["d", "x"], Kind::Integer), None);
        assert_eq!(read(&["e", "x"], Kind::Integer), None);
    }
}
