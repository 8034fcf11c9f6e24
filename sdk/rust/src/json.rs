//! Parses the data of events as JSON. It is fast for simple JSON, and its result is always that of
//! `serde_json`.
//!
//! [`Reader`] reads the text once, eight bytes at a time within strings. It skips members that the
//! type does not name, and borrows text. It passes single values that are rare, such as fractions
//! or text with escapes, to `serde_json`. If it finds an error or something that it does not
//! support, `serde_json` parses the whole text instead. So `Reader` itself reports no errors, and
//! must be correct only for texts that it accepts.

mod deserialize;
mod reader;

use serde::Deserialize;

use reader::Reader;

/// Parses `text` as a `T`, as `serde_json::from_str` does.
#[inline]
pub(crate) fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    match read(text) {
        Some(value) => Ok(value),
        None => parse_with_serde_json(text),
    }
}

/// Returns the text of the member `name` of the object `text`. Parsing stops after this member.
/// Returns `None` if there is no such member, if its text has escapes, or if `text` is not JSON up
/// to this member.
#[inline]
pub(crate) fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = Reader::new(text);
    (reader.peek() == b'{').then(|| reader.member(name))?.ok()?
}

#[cold]
#[inline(never)]
fn parse_with_serde_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// Parses `text` without `serde_json`. Returns `None` if the reader cannot parse it.
#[inline]
fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let mut reader = Reader::new(text);
    let value = T::deserialize(&mut reader).ok()?;
    reader.is_complete().then_some(value)
}

#[cfg(test)]
mod tests;
