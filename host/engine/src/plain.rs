//! Rows as nearly all are, told to be JSON objects at a glance.

use serde::de::IgnoredAny;

/// Whether `value` is a JSON object.
pub(crate) fn is_json_object(value: &[u8]) -> bool {
    is_flat(value).is_some()
        || (value.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(value).is_ok())
}

/// Whether `value` is an object without white space, of members that are whole
/// numbers, ASCII text without escapes, `true`, `false` or `null`. That takes a
/// fifth of the time it takes `serde_json`, to which all else is left.
#[inline]
fn is_flat(value: &[u8]) -> Option<()> {
    let mut rest = value.strip_prefix(b"{")?;
    if rest == b"}" {
        return Some(());
    }
    loop {
        rest = after_text(rest)?.strip_prefix(b":")?;
        rest = match rest.first()? {
            b'"' => after_text(rest)?,
            b't' => rest.strip_prefix(b"true")?,
            b'f' => rest.strip_prefix(b"false")?,
            b'n' => rest.strip_prefix(b"null")?,
            _ => after_integer(rest)?,
        };
        match rest {
            [b',', more @ ..] => rest = more,
            b"}" => return Some(()),
            _ => return None,
        }
    }
}

#[inline]
fn after_text(bytes: &[u8]) -> Option<&[u8]> {
    let text = bytes.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| !matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'));
    text[end?..].strip_prefix(b"\"")
}

#[inline]
fn after_integer(bytes: &[u8]) -> Option<&[u8]> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    let zero_first = end > 1 && digits[0] == b'0';
    (end > 0 && !zero_first).then(|| &digits[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Nearly as they are, or just so.
        #[test]
        fn what_is_told_at_a_glance_is_what_serde_tells(
            members in prop::collection::vec(
                (
                    r#""[a-c \u{7f}ü\\\u{1f}]{0,3}"?"#,
                    r#" ?(-?0?[0-9]{0,20}(\.5|e1)?|"[ -~]{0,3}"|true|false|null|tru|\[1\]|\{\})"#,
                ),
                0..4,
            ),
            end in r"\}|\}\}|,\}||\} ",
        ) {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            let text = format!("{{{}{end}", members.join(","));
            let object = serde_json::from_str::<serde_json::Map<_, _>>(&text).is_ok();
            prop_assert_eq!(is_json_object(text.as_bytes()), object, "{}", text);
            if is_flat(text.as_bytes()).is_some() {
                prop_assert!(object, "{}", text);
            }
        }
    }

    #[test]
    fn rows_as_they_are_take_no_parser() {
        let rows = [
            r#"{"count":1,"cents":-20}"#,
            r#"{"text":"a b/c","flag":true,"none":null,"zero":0}"#,
            "{}",
        ];
        assert!(rows.iter().all(|row| is_flat(row.as_bytes()).is_some()));
        let others = [r#"{"a":1.5}"#, r#"{"a":"ü"}"#, r#"{"a": 1}"#, r#"{"a":[1]}"#];
        assert!(others.iter().all(|row| is_flat(row.as_bytes()).is_none()));
        assert!(others.iter().all(|row| is_json_object(row.as_bytes())));
        assert!(!is_json_object(b"[]") && !is_json_object(b"1") && !is_json_object(b""));
    }
}
