//! Lists the reasons why an event is not accepted.

use thiserror::Error;

/// The maximum number of characters of an invalid value that a message quotes.
const QUOTE_CHARS_MAX: usize = 80;

/// Why an event was refused. The text quotes the invalid value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The event is not UTF-8.
    #[error("byte {at} is not UTF-8: events are UTF-8 JSON")]
    NotUtf8 {
        /// The index of the first invalid byte, counted from 0.
        at: usize,
    },
    /// The event is not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// The event is JSON, but not an object; or a batch is JSON, but not an array.
    #[error("expected {expected}, found `{value}`")]
    Shape {
        /// The form that is expected.
        expected: &'static str,
        /// The beginning of the JSON that was found.
        value: String,
    },
    /// The event has more bytes than allowed.
    #[error("the event has {bytes} bytes, but the limit is {max}")]
    TooLarge {
        /// The size in bytes. If a line did not end, this is the number of its bytes that were
        /// read.
        bytes: usize,
        /// The maximum size, in bytes.
        max: usize,
    },
    /// The JSON of the event is nested deeper than allowed.
    #[error("the event is nested deeper than {max} levels")]
    TooDeep {
        /// The maximum depth of nesting.
        max: usize,
    },
    /// A required attribute is missing.
    #[error("attribute `{0}` is missing: `specversion`, `id`, `source` and `type` are required")]
    Missing(&'static str),
    /// An attribute has an empty value.
    #[error("attribute `{0}` is empty: give it a value or leave it out")]
    Empty(String),
    /// The value of an attribute has the wrong type.
    #[error("attribute `{name}` is `{value}`: it must be {expected}")]
    Type {
        /// The name of the attribute.
        name: String,
        /// The value that is not allowed.
        value: String,
        /// The type that is expected.
        expected: &'static str,
    },
    /// The event has another version of CloudEvents.
    #[error("`specversion` is `{0}`: this server accepts `1.0`")]
    SpecVersion(String),
    /// An attribute has a name that is not allowed.
    #[error(
        "`{0}` is not an attribute name: use lower-case letters and digits, preferably 20 or fewer"
    )]
    Name(String),
    /// An attribute occurs twice with different values.
    #[error("attribute `{0}` occurs twice, with different values")]
    Twice(String),
    /// The event has more extension attributes than allowed.
    #[error("the event has more than {max} extension attributes")]
    TooManyExtensions {
        /// The maximum number of extension attributes.
        max: usize,
    },
    /// The value of a text attribute is longer than allowed.
    #[error("attribute `{name}` has {bytes} bytes, but the limit is {max}")]
    TooLong {
        /// The name of the attribute.
        name: String,
        /// The length of the value in bytes.
        bytes: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The value of a text attribute contains a control character.
    #[error("attribute `{name}` is `{value}`: control characters are not allowed in attributes")]
    Control {
        /// The name of the attribute.
        name: String,
        /// The value that is invalid.
        value: String,
    },
    /// The event has a type or source that is reserved for the host.
    #[error("`{name}` is `{value}`: {rule}")]
    Reserved {
        /// The name of the attribute.
        name: &'static str,
        /// The value that is reserved.
        value: String,
        /// Which values are reserved for the host.
        rule: &'static str,
    },
    /// The value of `time` is not a time.
    #[error("`time` is `{value}`: write RFC 3339, such as `2026-01-31T23:59:59.999Z`{hint}")]
    Time {
        /// The value that is invalid.
        value: String,
        /// If the value is a number: the text that should be written instead.
        hint: String,
    },
    /// The time is before the year 1, or at or after the end of the year 9999.
    #[error("`time` is `{0}`: times are from 0001-01-01T00:00:00Z to 9999-12-30T21:59:59.999999Z")]
    TimeRange(String),
    /// The value is a number that is not a plausible time in its unit.
    #[error(
        "`time` is `{value}`, which is {was} in {unit}; {advice}: correct `time_unit`, leave the time out if there is none, or write times before 1971 as RFC 3339"
    )]
    TimeNumber {
        /// The number that the client sent, as text.
        value: String,
        /// The unit in which the number was read.
        unit: &'static str,
        /// The time that the number means in this unit.
        was: String,
        /// Which unit would be plausible.
        advice: String,
    },
    /// The time is too far in the future.
    #[error("`time` is `{value}`, more than {max_s} s ahead of this server's clock")]
    TimeAhead {
        /// The time that the client sent, as text.
        value: String,
        /// How far in the future a time may be, in seconds.
        max_s: u64,
    },
    /// The JSON contains an escape of only half a character.
    #[error("`{0}` is half a character: JSON text must be Unicode")]
    HalfCharacter(String),
    /// The event has both `data` and `data_base64`.
    #[error("both `data` and `data_base64` are given: give only one of them")]
    DataTwice,
    /// The value of `data_base64` is not base64.
    #[error("`data_base64` is not base64: {0}")]
    Base64(String),
    /// The media type says that the payload is JSON, but it is not JSON.
    #[error("the data is declared as JSON, but is not JSON: {0}")]
    DataNotJson(String),
    /// The value of a header is not percent-encoded UTF-8.
    #[error(
        "header `{name}` is `{value}`: write it in ASCII, with other characters as percent-encoded UTF-8"
    )]
    Header {
        /// The name of the header.
        name: String,
        /// The value that is invalid.
        value: String,
    },
    /// A request contains more distinct event types than the log accepts.
    #[error("more than 65,535 distinct types in one request: send fewer at once")]
    TooManyTypes,
}

impl EventError {
    /// Returns the stable code of this error in the documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. }
            | Self::NotJson(_)
            | Self::HalfCharacter(_)
            | Self::Shape { .. } => "LAN-0301",
            Self::TooLarge { .. } | Self::TooLong { .. } | Self::TooManyExtensions { .. } => {
                "LAN-0302"
            }
            Self::TooDeep { .. } => "LAN-0303",
            Self::Missing(_) | Self::Empty(_) => "LAN-0304",
            Self::Type { .. }
            | Self::Name(_)
            | Self::Twice(_)
            | Self::Control { .. }
            | Self::Header { .. } => "LAN-0305",
            Self::SpecVersion(_) => "LAN-0306",
            Self::Reserved { .. } => "LAN-0307",
            Self::Time { .. } | Self::TimeRange(_) | Self::TimeNumber { .. } => "LAN-0308",
            Self::TimeAhead { .. } => "LAN-0309",
            Self::DataTwice | Self::Base64(_) | Self::DataNotJson(_) => "LAN-0310",
            Self::TooManyTypes => "LAN-0311",
        }
    }
}

/// Returns the beginning of `value`, short enough for a message. The value comes from a sender. So
/// characters that a terminal would interpret are escaped.
pub(super) fn quote(value: &str) -> String {
    let mut quoted = String::new();
    let mut chars = value.chars();
    for c in chars.by_ref().take(QUOTE_CHARS_MAX) {
        if c.is_control() || is_invisible(c) {
            quoted.extend(c.escape_unicode());
        } else {
            quoted.push(c);
        }
    }
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// Returns whether `c` changes the direction of text, separates lines or paragraphs, or has no
/// width.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_cannot_steer_a_terminal() {
        assert_eq!(quote("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(quote(&"é".repeat(81)), format!("{}…", "é".repeat(80)));
        assert_eq!(quote(&"é".repeat(80)), "é".repeat(80));
    }
}
