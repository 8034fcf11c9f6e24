//! Represents Kafka records before they are decoded.

use lantern_cloudevents::EventError;
use lantern_core::Timestamp;
use rdkafka::message::{BorrowedHeaders, Headers};

use crate::panic_guard;

/// A record as it is stored in its topic.
#[derive(Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: u64,
    /// The timestamp of the record; 1970 if it has none.
    pub(crate) time: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) headers: &'a dyn Header,
}

/// The headers of a record, which are found by their index.
pub(crate) trait Header {
    /// Returns the number of headers of the record.
    fn count(&self) -> usize;

    /// Returns the name and the value of the header `index`; `None` if the name is not UTF-8.
    fn at(&self, index: usize) -> Option<(&str, Option<&[u8]>)>;
}

impl Header for Option<&BorrowedHeaders> {
    fn count(&self) -> usize {
        self.map_or(0, Headers::count)
    }

    fn at(&self, index: usize) -> Option<(&str, Option<&[u8]>)> {
        let headers = (*self)?;
        // The client library panics if the name of a header is not UTF-8. Everyone who may write to
        // the topic can write such a name.
        let header = panic_guard::catch(|| headers.get(index))?;
        Some((header.key, header.value))
    }
}

#[cfg(test)]
impl Header for Vec<(&str, Option<&[u8]>)> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Option<(&str, Option<&[u8]>)> {
        Some(self[index])
    }
}

fn all(headers: &dyn Header) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    (0..headers.count()).filter_map(move |index| headers.at(index))
}

/// Returns the value of the last header with the name `name`. If several headers have the same
/// name, Kafka uses the last one.
pub(crate) fn last<'a>(headers: &'a dyn Header, name: &str) -> Option<&'a [u8]> {
    all(headers).filter(|(known, _)| *known == name).last().and_then(|(_, value)| value)
}

/// `json` without its byte order mark, which is not part of the text.
pub(crate) fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json)
}

impl<'a> RawRecord<'a> {
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        all(self.headers)
    }

    /// Returns the text of the last header with the name `name`. If several headers have the same
    /// name, Kafka uses the last one.
    ///
    /// # Errors
    /// Returns [`EventError::Header`] if the value is not text.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, EventError> {
        last(self.headers, name).map(|value| text(name, value)).transpose()
    }

    /// Returns the key, if it is text.
    pub(crate) fn key_text(&self) -> Option<&'a str> {
        self.key.and_then(|key| std::str::from_utf8(key).ok())
    }
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, EventError> {
    std::str::from_utf8(value).map_err(|_| not_text(name, value))
}

pub(crate) fn not_text(name: &str, value: &[u8]) -> EventError {
    let short = |text: &str| text.chars().take(80).flat_map(char::escape_default).collect();
    EventError::Header { name: short(name), value: short(&String::from_utf8_lossy(value)) }
}
