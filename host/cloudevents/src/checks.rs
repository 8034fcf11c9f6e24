//! Checks attributes and JSON.

use lantern_core::{EventRef, is_host_source, is_host_type};
use serde_json::value::RawValue;

use super::error::quote;
use super::syntax::{is_media_type, is_uri, is_uri_reference, lone_surrogate};
use super::{EventError, NAME_CHARS_MAX, json_scan};

pub(super) fn check_reserved(event: &EventRef<'_>) -> Result<(), EventError> {
    if is_host_type(event.kind) {
        return Err(EventError::Reserved {
            name: "type",
            value: quote(event.kind),
            rule: "types that begin with `lantern.` are reserved for the server",
        });
    }
    if is_host_source(event.source) {
        return Err(EventError::Reserved {
            name: "source",
            value: quote(event.source),
            rule: "`lantern` and `lantern/…` are the sources of the server's own events",
        });
    }
    Ok(())
}

/// Returns the size of an event, which the size limit applies to: the bytes of its payload and its
/// attributes, in whatever form they were sent.
pub(super) fn event_bytes(event: &EventRef<'_>) -> usize {
    let attributes = [
        event.id,
        event.source,
        event.kind,
        event.subject,
        event.tenant,
        event.dataschema,
        event.datacontenttype,
        event.extensions,
    ];
    event.data.len() + attributes.iter().map(|text| text.len()).sum::<usize>()
}

/// Checks that `bytes` are one JSON value that is nested at most `depth_max` deep.
///
/// # Errors
/// Returns an [`EventError`] with the reason if they are not.
pub fn check_json(bytes: &[u8], depth_max: usize) -> Result<(), EventError> {
    let text = utf8(bytes)?;
    if json_scan::is_value(text, depth_max) {
        return Ok(());
    }
    check_depth(text, depth_max)?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(EventError::DataNotJson(error.to_string())),
    }
}

/// Refuses escapes of only half a character, because not every client can read them.
pub(super) fn check_unicode(json: &str) -> Result<(), EventError> {
    match lone_surrogate(json) {
        Some(escape) => Err(EventError::HalfCharacter(escape.to_owned())),
        None => Ok(()),
    }
}

/// Checks the syntax of the attributes that are URIs or media types.
pub(super) fn check_syntax(event: &EventRef<'_>) -> Result<(), EventError> {
    let wrong = |name: &str, value: &str, expected| {
        Err(EventError::Type { name: name.to_owned(), value: quote(value), expected })
    };
    if !is_uri_reference(event.source) {
        return wrong("source", event.source, "a URI reference (RFC 3986), percent-encoded");
    }
    if !event.dataschema.is_empty() && !is_uri(event.dataschema) {
        return wrong("dataschema", event.dataschema, "a URI (RFC 3986), percent-encoded");
    }
    if !event.datacontenttype.is_empty() && !is_media_type(event.datacontenttype) {
        return wrong(
            "datacontenttype",
            event.datacontenttype,
            "a media type, such as `text/plain`",
        );
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), EventError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    if fits { Ok(()) } else { Err(EventError::Name(quote(name))) }
}

/// Checks the length of a text attribute, and that it contains no control characters.
///
/// # Errors
/// Returns an [`EventError`] that names the attribute.
pub fn check_text(name: &str, value: &str, max: usize) -> Result<(), EventError> {
    if value.len() > max {
        return Err(EventError::TooLong { name: quote(name), bytes: value.len(), max });
    }
    // All bytes are first tested together, without a branch for each byte, because nearly every
    // value is plain ASCII. Control characters are refused because of tenants: in keys, U+0000
    // separates the tenant from the rest.
    let suspicious = value.bytes().fold(false, |found, b| found | !(0x20..0x7F).contains(&b));
    if suspicious && value.chars().any(char::is_control) {
        return Err(EventError::Control { name: quote(name), value: quote(value) });
    }
    Ok(())
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, EventError> {
    std::str::from_utf8(bytes).map_err(|error| EventError::NotUtf8 { at: error.valid_up_to() })
}

pub(super) fn not_json(text: &str) -> EventError {
    match serde_json::from_str::<&RawValue>(text) {
        Err(error) => EventError::NotJson(error.to_string()),
        Ok(_) => EventError::NotJson("an element cannot be read".into()),
    }
}

/// Refuses JSON that is nested deeper than `max`. The function first counts the opening brackets. A
/// text with at most `max` of them cannot be nested deeper, and most texts are like this.
pub(super) fn check_depth(text: &str, max: usize) -> Result<(), EventError> {
    // The codes of `[` and `{` differ in one bit, so one comparison finds both. Each piece is so
    // short that its count fits one byte. So the compiler can process 16 or more bytes at a time.
    let opening = |piece: &[u8]| piece.iter().fold(0, |n, b| n + u8::from(b | 0x20 == b'{'));
    let open: usize = text.as_bytes().chunks(255).map(|piece| usize::from(opening(piece))).sum();
    if open <= max {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return Err(EventError::TooDeep { max });
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => (),
        }
    }
    Ok(())
}
