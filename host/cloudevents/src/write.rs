//! Writes events in structured mode.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern_core::{EventRef, Timestamp};

use super::{format_time, is_json};

/// Appends `event` to `out` as one JSON object in structured mode, on one line.
pub fn write_event(event: &EventRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    member(out, "id", event.id);
    member(out, "source", event.source);
    member(out, "type", event.kind);
    for (name, value) in [
        ("subject", event.subject),
        ("tenant", event.tenant),
        ("dataschema", event.dataschema),
        ("datacontenttype", event.datacontenttype),
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
    data(event, out);
    out.push(b'}');
}

fn data(event: &EventRef<'_>, out: &mut Vec<u8>) {
    if event.data.is_empty() {
        return;
    }
    if is_json(event.datacontenttype) {
        out.extend_from_slice(b",\"data\":");
        // JSON strings hold no raw line ends, so those there are stand between
        // members.
        out.extend(event.data.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
        return;
    }
    match std::str::from_utf8(event.data) {
        // Text that is mostly escapes would take more than it does in base64.
        Ok(text) if escaped_bytes(text) <= text.len() / 3 + ESCAPES_BYTES => {
            member(out, "data", text);
        }
        _ => member(out, "data_base64", &BASE64_STANDARD.encode(event.data)),
    }
}

/// How many bytes escapes may add to a text before it is written as base64, besides
/// a third of its length.
const ESCAPES_BYTES: usize = 1_024;

/// How many bytes escapes add to `text` in JSON.
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
