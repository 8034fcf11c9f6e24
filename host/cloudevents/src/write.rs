//! Writes events in structured mode.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern_core::{EventRef, Timestamp};

use super::{UNTYPED, format_time, is_json};

/// Appends `event` to `out` as one JSON object in structured mode, on one line. Line ends between
/// the members of the event's data become spaces.
pub fn write_event(event: &EventRef<'_>, out: &mut Vec<u8>) {
    write(event, false, out);
}

/// Appends `event` like [`write_event`], but exactly: a [`Reader`](super::Reader) with
/// [`set_host_events`](super::Reader::set_host_events) reads the same event from it. JSON with line
/// ends, or with white space around it, is written as base64.
pub fn write_exact(event: &EventRef<'_>, out: &mut Vec<u8>) {
    write(event, true, out);
}

fn write(event: &EventRef<'_>, exact: bool, out: &mut Vec<u8>) {
    let untyped = exact && event.datacontenttype.is_empty() && is_spaced(event.data);
    let datacontenttype = if untyped { "application/json" } else { event.datacontenttype };
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    member(out, "id", event.id);
    member(out, "source", event.source);
    member(out, "type", event.kind);
    for (name, value) in [
        ("subject", event.subject),
        ("tenant", event.tenant),
        ("dataschema", event.dataschema),
        ("datacontenttype", datacontenttype),
    ] {
        if !value.is_empty() {
            member(out, name, value);
        }
    }
    if event.time != Timestamp::MIN {
        member(out, "time", &format_time(event.time));
    }
    if let Some(members) = event.extensions.strip_prefix('{').and_then(|e| e.strip_suffix('}'))
        && !members.is_empty()
    {
        out.push(b',');
        out.extend_from_slice(members.as_bytes());
    }
    if untyped {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(UNTYPED.as_bytes());
        out.extend_from_slice(b"\":true");
    }
    data(event, exact, out);
    out.push(b'}');
}

fn data(event: &EventRef<'_>, exact: bool, out: &mut Vec<u8>) {
    if event.data.is_empty() {
        return;
    }
    if is_json(event.datacontenttype) && !(exact && is_spaced(event.data)) {
        out.extend_from_slice(b",\"data\":");
        // A JSON string contains no line ends, so line ends are only between members.
        out.extend(event.data.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
        return;
    }
    match std::str::from_utf8(event.data) {
        // If JSON was written as text, it would become a string.
        Ok(_) if is_json(event.datacontenttype) => {
            member(out, "data_base64", &BASE64_STANDARD.encode(event.data));
        }
        // A text that consists mostly of escapes is shorter in base64.
        Ok(text) if escaped_bytes(text) <= text.len() / 3 + ESCAPES_BYTES => {
            member(out, "data", text);
        }
        _ => member(out, "data_base64", &BASE64_STANDARD.encode(event.data)),
    }
}

/// Returns whether writing `json` as a member on one line would change its white space.
fn is_spaced(json: &[u8]) -> bool {
    json.trim_ascii().len() < json.len() || json.iter().any(|b| matches!(b, b'\n' | b'\r'))
}

/// How many bytes escapes may add to a text, in addition to a third of its length. If the escapes
/// would add more, the text is written as base64, which adds a third.
const ESCAPES_BYTES: usize = 1_024;

/// Returns the number of bytes that escapes add to `text` in JSON.
fn escaped_bytes(text: &str) -> usize {
    let added = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.bytes().map(added).sum()
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(out, value).expect("a string always encodes into memory");
}
