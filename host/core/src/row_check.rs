//! Checks the rows of public tables, so that readers can read every row. A row must follow these
//! rules:
//!
//! * A row is a JSON object (UTF-8) that is nested at most [`DEPTH_MAX`] deep.
//! * Each member is a declared field and occurs once. A field that is missing or `null` has no
//!   value.
//! * A value has its field's kind, see [`is_of_kind`].

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{FieldKind, FieldSpec, parse_rfc3339};

/// The maximum depth to which a row may be nested. The row itself counts as 1.
const DEPTH_MAX: usize = 64;
/// The maximum number of fields for which [`glance`] can check that each occurs once.
const GLANCE_FIELDS_MAX: usize = 64;
/// The maximum number of digits that [`glance`] accepts. Every whole number with this many digits
/// fits 64 bits.
const SAFE_DIGITS: usize = 18;
/// The number of characters of a value that an error shows.
const SHOWN_CHARS: usize = 60;

/// Why a row is invalid. The text continues a sentence that begins with the row's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RowError(String);

/// Checks that `value` is a valid row of a table with the fields `fields`.
///
/// # Errors
/// Returns [`RowError`] if the row breaks a rule.
pub fn check_row(fields: &[FieldSpec], value: &[u8]) -> Result<(), RowError> {
    if glance(fields, value).is_some() {
        return Ok(());
    }
    check_whole(fields, value).map_err(RowError)
}

/// Checks a row in a fifth of the time that a parser needs. `None` means that a parser must check
/// the row: it is invalid, or it contains something that this function cannot check. That is white
/// space, escapes, text that is not ASCII, exponents, long numbers, arrays or objects.
#[inline]
fn glance(fields: &[FieldSpec], value: &[u8]) -> Option<()> {
    let mut remaining = value.strip_prefix(b"{")?;
    if remaining == b"}" {
        return Some(());
    }
    if fields.len() > GLANCE_FIELDS_MAX {
        return None;
    }
    let (mut observed, mut expected) = (0_u64, 0);
    loop {
        let (name, after) = take_text(remaining)?;
        // Most rows have their fields in the order of the manifest, so the next field of the
        // manifest is compared first.
        let index = match fields.get(expected) {
            Some(field) if field.name.as_bytes() == name => expected,
            _ => fields.iter().position(|field| field.name.as_bytes() == name)?,
        };
        if observed & (1 << index) != 0 {
            return None;
        }
        observed |= 1 << index;
        expected = index + 1;
        remaining = after_value(fields[index].kind, after.strip_prefix(b":")?)?;
        match remaining {
            [b',', more @ ..] => remaining = more,
            b"}" => return Some(()),
            _ => return None,
        }
    }
}

#[inline]
fn after_value(kind: FieldKind, value: &[u8]) -> Option<&[u8]> {
    use FieldKind::{Boolean, Integer, Json, Number, Text, Timestamp};
    match value.first()? {
        b'"' => {
            let (text, after) = take_text(value)?;
            let fits = match kind {
                Text | Json => true,
                Timestamp => is_time(std::str::from_utf8(text).ok()?),
                _ => false,
            };
            fits.then_some(after)
        }
        b't' if matches!(kind, Boolean | Json) => value.strip_prefix(b"true"),
        b'f' if matches!(kind, Boolean | Json) => value.strip_prefix(b"false"),
        b'n' => value.strip_prefix(b"null"),
        _ => {
            let after = after_integer(value)?;
            match after.first()? {
                b'.' if matches!(kind, Number | Json) => after_fraction(after),
                b',' | b'}' if matches!(kind, Integer | Number | Json) => Some(after),
                _ => None,
            }
        }
    }
}

/// Splits `bytes` into a text without its quotes, and the bytes after the text.
#[inline]
fn take_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = bytes.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| !matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'));
    let (text, after) = text.split_at(end?);
    Some((text, after.strip_prefix(b"\"")?))
}

#[inline]
fn after_integer(bytes: &[u8]) -> Option<&[u8]> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    let zero_first = end > 1 && digits[0] == b'0';
    ((1..=SAFE_DIGITS).contains(&end) && !zero_first).then(|| &digits[end..])
}

#[inline]
fn after_fraction(bytes: &[u8]) -> Option<&[u8]> {
    let digits = bytes.strip_prefix(b".")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    (end > 0 && matches!(digits[end], b',' | b'}')).then(|| &digits[end..])
}

fn check_whole(fields: &[FieldSpec], value: &[u8]) -> Result<(), String> {
    let no_object = || format!("is not a JSON object: {}", quote_value(value));
    let text = std::str::from_utf8(value).map_err(|_| no_object())?;
    if depth(value) > DEPTH_MAX {
        return Err(format!("is nested more than {DEPTH_MAX} deep: {}", quote_value(value)));
    }
    let mut wrong = None;
    let mut row = serde_json::Deserializer::from_str(text);
    let parsed =
        row.deserialize_map(RowVisitor { fields, wrong: &mut wrong }).and_then(|()| row.end());
    match (parsed, wrong) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(wrong)) => Err(wrong),
        (Err(_), None) => Err(no_object()),
    }
}

struct RowVisitor<'r> {
    fields: &'r [FieldSpec],
    /// The error of the first member that is invalid.
    wrong: &'r mut Option<String>,
}

/// The name of a member. It is borrowed from the JSON text unless it has escapes.
#[derive(serde::Deserialize)]
struct BorrowedName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Visitor<'a> for RowVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { fields, wrong } = self;
        let mut refuse = |text: String| {
            *wrong = Some(text);
            A::Error::custom("the row breaks its table's declaration")
        };
        let mut observed = vec![false; fields.len()];
        while let Some(BorrowedName(name)) = map.next_key()? {
            let Some(index) = fields.iter().position(|field| field.name == name) else {
                let name = cut(&name.escape_debug().to_string());
                return Err(refuse(format!(
                    "has the member `{name}`, which the table does not declare as a field"
                )));
            };
            let field = &fields[index];
            if std::mem::replace(&mut observed[index], true) {
                return Err(refuse(format!("has the field `{}` twice", field.name)));
            }
            let json: &RawValue = map.next_value()?;
            if !is_of_kind(field.kind, json.get()) {
                let (value, kind) = (quote_value(json.get().as_bytes()), field.kind.name());
                return Err(refuse(format!(
                    "has {value} in the field `{}`, which is not a value of kind `{kind}`",
                    field.name
                )));
            }
        }
        Ok(())
    }
}

/// Returns whether `json` is `null` or a value of `kind`. The values of the kinds are:
///
/// * `integer`: whole numbers from -2^63 to 2^64 - 1, without fraction and exponent, so not `1.0`.
/// * `number`: numbers that fit a double, so not `1e400`.
/// * `text`: texts without unpaired surrogates.
/// * `timestamp`: RFC 3339 texts in UTC.
/// * `distinct`, `percentiles`: sketches whose stated results follow from their content.
fn is_of_kind(kind: FieldKind, json: &str) -> bool {
    if json == "null" {
        return true;
    }
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    match kind {
        FieldKind::Integer => json.parse::<i64>().is_ok() || json.parse::<u64>().is_ok(),
        FieldKind::Number => is_number && json.parse::<f64>().is_ok_and(f64::is_finite),
        FieldKind::Text => serde_json::from_str::<BorrowedName<'_>>(json).is_ok(),
        FieldKind::Boolean => matches!(json, "true" | "false"),
        FieldKind::Timestamp => serde_json::from_str::<BorrowedName<'_>>(json)
            .is_ok_and(|BorrowedName(text)| is_time(&text)),
        FieldKind::Json => true,
        FieldKind::Distinct => serde_json::from_str::<lantern_sketch::Distinct>(json).is_ok(),
        FieldKind::Percentiles => serde_json::from_str::<lantern_sketch::Percentiles>(json).is_ok(),
    }
}

fn is_time(text: &str) -> bool {
    let utc = text.ends_with(['Z', 'z']) || text.ends_with("+00:00");
    utc && parse_rfc3339(text).is_some_and(|time| time.is_in_range())
}

/// Returns the depth to which arrays and objects are nested in `json`, which may be invalid.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut most, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Returns the beginning of a value, as text for an error.
fn quote_value(value: &[u8]) -> String {
    let head = &value[..value.len().min(4 * SHOWN_CHARS)];
    format!("`{}`", cut(&String::from_utf8_lossy(head).escape_debug().to_string()))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.replace("\\\"", "\""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields() -> Vec<FieldSpec> {
        let field = |(name, kind): (&str, FieldKind)| FieldSpec {
            name: name.into(),
            kind,
            ..FieldSpec::default()
        };
        [
            ("a", FieldKind::Integer),
            ("b", FieldKind::Number),
            ("c", FieldKind::Text),
            ("d", FieldKind::Boolean),
            ("e", FieldKind::Timestamp),
            ("f", FieldKind::Json),
        ]
        .map(field)
        .into()
    }

    proptest! {
        /// Generates members with values that are valid or nearly valid.
        #[test]
        fn a_glance_never_takes_what_a_parser_refuses(
            members in prop::collection::vec(
                (
                    r#""[a-g \u{7f}ü\\\u{1f}]{0,2}"?"#,
                    r#" ?(-?0?[0-9]{0,20}(\.5|\.|e1|\.5e999)?|"[ -~]{0,3}"|"2026-03-01T12:00:00(Z|\+01:00)?"|true|false|null|tru|\[1\]|\{\})"#,
                ),
                0..5,
            ),
            end in r"\}|\}\}|,\}||\} ",
        ) {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            let text = format!("{{{}{end}", members.join(","));
            let fields = fields();
            if glance(&fields, text.as_bytes()).is_some() {
                prop_assert_eq!(check_whole(&fields, text.as_bytes()), Ok(()), "{}", text);
            }
            let object = serde_json::from_str::<serde_json::Map<_, _>>(&text).is_ok();
            if check_row(&fields, text.as_bytes()).is_ok() {
                prop_assert!(object || text.contains("e999"), "{}", text);
            }
        }
    }

    #[test]
    fn rows_as_sdks_write_them_take_no_parser() {
        for row in [
            r#"{"a":-20,"b":0.5,"c":"a b/c","d":true,"e":"2026-03-01T12:00:00.5Z","f":1}"#,
            r#"{"c":"x","a":0}"#,
            r#"{"a":null}"#,
            "{}",
        ] {
            assert!(glance(&fields(), row.as_bytes()).is_some(), "{row}");
        }
    }

    #[test]
    fn each_breach_names_the_field() {
        let deep = format!(r#"{{"f":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        for (row, expected) in [
            (r#"{"a":1.0}"#, "`1.0` in the field `a`, which is not a value of kind `integer`"),
            (r#"{"a":1e3}"#, "not a value of kind `integer`"),
            (r#"{"a":18446744073709551616}"#, "not a value of kind `integer`"),
            (r#"{"a":-9223372036854775809}"#, "not a value of kind `integer`"),
            (r#"{"a":"1"}"#, "`\"1\"` in the field `a`"),
            (r#"{"b":1e400}"#, "field `b`, which is not a value of kind `number`"),
            (r#"{"b":"1"}"#, "not a value of kind `number`"),
            (r#"{"c":1}"#, "field `c`, which is not a value of kind `text`"),
            (r#"{"c":"\ud800"}"#, "not a value of kind `text`"),
            (r#"{"d":1}"#, "not a value of kind `boolean`"),
            (r#"{"e":"2026-03-01"}"#, "not a value of kind `timestamp`"),
            (r#"{"e":"2026-03-01T12:00:00+01:00"}"#, "not a value of kind `timestamp`"),
            (r#"{"a":1,"x":2}"#, "member `x`, which the table does not declare as a field"),
            (r#"{"a":1,"a":1}"#, "field `a` twice"),
            (r#"{"a":1,"\u0061":1}"#, "field `a` twice"),
            (deep.as_str(), "more than 64 deep"),
            ("[]", "is not a JSON object: `[]`"),
            (r#"{"a":1"#, "is not a JSON object"),
            (r#"{"a":1} x"#, "is not a JSON object"),
            ("", "is not a JSON object"),
        ] {
            let reason = check_row(&fields(), row.as_bytes())
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(reason.contains(expected), "{row}: `{reason}` does not say `{expected}`");
        }
        assert!(check_row(&fields(), b"{\"c\":\"\xff\"}").is_err(), "not UTF-8");
    }

    #[test]
    fn values_at_the_bounds_are_accepted() {
        let deep = format!(r#"{{"f":{}{}}}"#, "[".repeat(63), "]".repeat(63));
        for row in [
            r#"{"a":18446744073709551615}"#,
            r#"{"a":-9223372036854775808}"#,
            r#"{"a":-0}"#,
            r#"{"b":1e308}"#,
            r#"{"b":18446744073709551616}"#,
            r#"{"c":"\u00e9\ud83d\ude00 é"}"#,
            r#" { "a" : 1 } "#,
            r#"{"e":"2026-03-01t12:00:00+00:00"}"#,
            r#"{"a":null,"b":null,"c":null,"d":null,"e":null,"f":null}"#,
            r#"{"f":{"x":[1e400,"[[["]}}"#,
            deep.as_str(),
        ] {
            assert_eq!(check_row(&fields(), row.as_bytes()), Ok(()), "{row}");
        }
    }
}
