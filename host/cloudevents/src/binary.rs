//! Reads events in binary mode: the attributes are in `ce-*` headers, and the payload is the body.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lantern_core::Events;

use super::checks::{check_json, check_unicode};
use super::error::quote;
use super::{Attributes, EventError, Reader, is_json};

/// The prefix of the headers that contain attributes.
const PREFIX: &str = "ce-";

impl Reader {
    /// Reads one event in binary mode. An event without a time gets
    /// [`lantern_core::Timestamp::MIN`].
    ///
    /// # Errors
    /// Returns [`EventError`] if the event is invalid. Then nothing was added to `into`.
    pub fn binary(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        into: &mut Events,
    ) -> Result<(), EventError> {
        let attributes = attributes(headers)?;
        self.check_size(body.len())?;
        let datacontenttype = match headers.get(CONTENT_TYPE) {
            Some(value) => {
                let text = String::from_utf8_lossy(value.as_bytes());
                value.to_str().map_err(|_| header_error("content-type", &text))?
            }
            // The payload was not checked to be JSON. It gets a media type, because a payload
            // without one counts as JSON.
            None if body.is_empty() => "",
            None => "application/octet-stream",
        };
        if is_json(datacontenttype) && !body.is_empty() {
            check_json(body, self.limits().json_depth_max)?;
            if let Ok(json) = std::str::from_utf8(body)
                && self.is_strict()
            {
                check_unicode(json)?;
            }
        }
        self.attributes(attributes, datacontenttype, body, into)
    }
}

fn attributes(headers: &HeaderMap) -> Result<Attributes<'_>, EventError> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if attribute == "datacontenttype" {
            return Err(EventError::Name("ce-datacontenttype (use `content-type`)".into()));
        }
        // In structured mode, an attribute `data` would be a second member `data` next to that of
        // the payload.
        if attribute == "data" {
            return Err(EventError::Name("ce-data (the body is the data)".into()));
        }
        let decoded = header_decode(value.as_bytes()).ok_or_else(|| {
            header_error(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))
        })?;
        attributes.set(attribute, Cow::Owned(decoded))?;
    }
    Ok(attributes)
}

fn header_error(name: &str, value: &str) -> EventError {
    EventError::Header { name: quote(name), value: quote(value) }
}

/// Decodes the text of a header's value (HTTP binding 1.0.2, section 3.1.3.2). Earlier versions of
/// the binding wrote quoted strings, so it first removes the quotes. Then it decodes
/// percent-encoded bytes once.
fn header_decode(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    match unquote(value) {
        Some(inner) => percent_decode(&inner),
        None => percent_decode(value),
    }
}

/// Returns the content of `value` without quotes and escapes, if `value` is one quoted string.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value.strip_prefix(b"\"")?.iter();
    let mut inner = Vec::with_capacity(value.len());
    loop {
        match rest.next()? {
            b'"' => return rest.as_slice().is_empty().then_some(inner),
            b'\\' => inner.push(*rest.next()?),
            byte => inner.push(*byte),
        }
    }
}

/// Decodes the percent-encoded text in `value`; `None` if the result is not UTF-8 or the encoding
/// is invalid.
#[must_use]
pub fn percent_decode(value: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match byte {
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                rest = tail;
                let digit = |d: u8| char::from(d).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
