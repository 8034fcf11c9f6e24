//! Checks the syntax of URIs (RFC 3986) and media types (RFC 9110, section 8.3.1), and whether JSON
//! strings are valid Unicode.

use std::borrow::Cow;

/// Returns whether `text` is a URI reference: it contains only characters that RFC 3986 allows, and
/// every percent-encoded byte is complete.
pub(crate) fn is_uri_reference(text: &str) -> bool {
    let mut bytes = text.bytes();
    let mut fragments = 0;
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
                if !(hex(bytes.next()) && hex(bytes.next())) {
                    return false;
                }
            }
            b'#' => fragments += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (),
            _ if b"-._~:/?[]@!$&'()*+,;=".contains(&byte) => (),
            _ => return false,
        }
    }
    fragments <= 1
}

/// Returns whether `text` is a URI: a URI reference that begins with a scheme.
pub(crate) fn is_uri(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && scheme.bytes().all(rest)
        && is_uri_reference(text)
}

/// Returns whether `text` is a media type, with or without parameters.
pub(crate) fn is_media_type(text: &str) -> bool {
    let Some((kind, rest)) = text.split_once('/') else { return false };
    let (subtype, mut rest) = token(rest);
    if kind.is_empty() || !kind.bytes().all(is_token) || subtype.is_empty() {
        return false;
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return true;
        }
        let Some(parameter) = rest.strip_prefix(';') else { return false };
        let parameter = parameter.trim_start_matches([' ', '\t']);
        let (name, value) = token(parameter);
        if name.is_empty() {
            // Another separator at the end is allowed.
            rest = parameter;
            if !rest.is_empty() && !rest.starts_with(';') {
                return false;
            }
            continue;
        }
        let Some(value) = value.strip_prefix('=') else { return false };
        rest = if let Some(inner) = value.strip_prefix('"') {
            match quoted(inner) {
                Some(rest) => rest,
                None => return false,
            }
        } else {
            let (value, rest) = token(value);
            if value.is_empty() {
                return false;
            }
            rest
        };
    }
}

/// Splits `text` into the token at its beginning and the rest.
fn token(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !is_token(b)).unwrap_or(text.len());
    text.split_at(end)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns the text after a quoted string. The first quote of the string was already removed.
fn quoted(text: &str) -> Option<&str> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(&text[at + 1..]),
            b'\\' => drop(bytes.next()),
            _ => (),
        }
    }
    None
}

/// Returns the first escape in `json` that is only half of a character, such as `\ud800`. UTF-8
/// cannot represent it, and most JSON readers refuse it.
pub(crate) fn lone_surrogate(json: &str) -> Option<&str> {
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(step) = bytes[at..].iter().position(|&b| b == b'\\') {
        at += step;
        match surrogate(json, at) {
            Some(Half::Low) => return json.get(at..at + 6),
            Some(Half::High) => {
                if surrogate(json, at + 6) != Some(Half::Low) {
                    return json.get(at..at + 6);
                }
                at += 12;
            }
            // The escape is a backslash, a quote or a letter.
            None => at = (at + 2).min(bytes.len()),
        }
    }
    None
}

/// Returns the text of a JSON string; `None` if `json` is not a string. An escape of half a
/// character becomes U+FFFD, so every row can be shown.
#[must_use]
pub fn json_text(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let mut whole = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(escape) = lone_surrogate(rest) {
        // The search begins at the front, so this is the index of the escape.
        let at = escape.as_ptr() as usize - rest.as_ptr() as usize;
        whole.push_str(&rest[..at]);
        whole.push_str("\\ufffd");
        rest = &rest[at + escape.len()..];
    }
    whole.push_str(rest);
    serde_json::from_str(&whole).ok().map(Cow::Owned)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// Returns whether the escape at `at` is the first or the second half of a character; `None` if it
/// is neither.
fn surrogate(json: &str, at: usize) -> Option<Half> {
    let escape = json.get(at..at + 6)?.strip_prefix("\\u")?;
    match u16::from_str_radix(escape, 16).ok()? {
        0xD800..=0xDBFF => Some(Half::High),
        0xDC00..=0xDFFF => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_those_of_rfc_3986() {
        for good in
            ["/shop", "urn:uuid:6e8b", "https://a.example/%C3%A9?q=1#f", "s", "//h", "?", "a:b"]
        {
            assert!(is_uri_reference(good), "{good}");
        }
        for bad in ["a b", "é", "<x>", "\"", "{}", "a#b#c", "%", "%g1", "%4", "\\"] {
            assert!(!is_uri_reference(bad), "{bad}");
        }
        assert!(is_uri("urn:x") && is_uri("https://a.example/s.json#order"));
        assert!(!is_uri("/s.json") && !is_uri("1a:b") && !is_uri(":b") && !is_uri("a:b c"));
    }

    #[test]
    fn media_types_are_those_of_rfc_9110() {
        for good in [
            "application/json",
            "text/plain; charset=utf-8",
            "text/plain;charset=\"utf-8\" ; x=\"a\\\"b\"",
            "application/vnd.x+json;",
        ] {
            assert!(is_media_type(good), "{good}");
        }
        for bad in [
            "json",
            "/json",
            "text/",
            "text/plain charset",
            "text/plain; charset",
            "a/b; =x",
            "a/b;x=\"",
            "text/ plain",
            "a/b;x=",
            "te xt/plain",
        ] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }

    #[test]
    fn the_text_of_every_json_string_can_be_had() {
        for (json, text) in [
            (r#""plain""#, "plain"),
            (r#""a\n\"b\u00e9\ud83d\ude00""#, "a\n\"b\u{e9}\u{1F600}"),
            (r#""half \ud83d""#, "half \u{FFFD}"),
            (r#""\ude00\ud83d\ud83d\ude00!""#, "\u{FFFD}\u{FFFD}\u{1F600}!"),
            (r#""\\ud800""#, "\\ud800"),
        ] {
            assert_eq!(json_text(json).as_deref(), Some(text), "{json}");
        }
        assert_eq!(json_text("1e400"), None);
        assert_eq!(json_text("\""), None);
    }

    #[test]
    fn half_characters_are_found_and_whole_ones_pass() {
        for good in [r#"{"a":"\ud83d\ude00 \u0041 \\ud800 \" \\"}"#, r"\\\\ud800", "", "plain"] {
            assert_eq!(lone_surrogate(good), None, "{good}");
        }
        for (bad, escape) in [
            (r#""half \ud83d""#, r"\ud83d"),
            (r#""\uDC00""#, r"\uDC00"),
            (r#""\ud800\ud800\udc00""#, r"\ud800"),
            (r#""\ud800\n\udc00""#, r"\ud800"),
            (r#""\\\ud800x""#, r"\ud800"),
        ] {
            assert_eq!(lone_surrogate(bad), Some(escape), "{bad}");
        }
    }
}
