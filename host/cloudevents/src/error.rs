//! Why an event is not accepted.

use thiserror::Error;

/// The maximum number of characters of an invalid value in a message.
const QUOTE_CHARS_MAX: usize = 80;

/// Why an event was refused. The text quotes the invalid value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// Not UTF-8.
    #[error("byte {at} is not UTF-8: events are UTF-8 JSON")]
    NotUtf8 {
        /// The index of the first invalid byte, from 0.
        at: usize,
    },
    /// Not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object (or, in batch mode, not an array).
    #[error("expected {expected}, found `{value}`")]
    Shape {
        /// What is expected.
        expected: &'static str,
        /// What was found.
        value: String,
    },
    /// More bytes than allowed.
    #[error("the event has {bytes} bytes, but the limit is {max}")]
    TooLarge {
        /// The size in bytes; for a line that did not end, the bytes read so far.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Nested deeper than allowed.
    #[error("the event is nested deeper than {max} levels")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// A required attribute is missing.
    #[error("attribute `{0}` is missing: `specversion`, `id`, `source` and `type` are required")]
    Missing(&'static str),
    /// An attribute is empty.
    #[error("attribute `{0}` is empty: give it a value or leave it out")]
    Empty(String),
    /// An attribute has the wrong type.
    #[error("attribute `{name}` is `{value}`: it must be {expected}")]
    Type {
        /// The attribute.
        name: String,
        /// The value.
        value: String,
        /// The expected type.
        expected: &'static str,
    },
    /// Another version of CloudEvents.
    #[error("`specversion` is `{0}`: this server accepts `1.0`")]
    SpecVersion(String),
    /// A name that is not allowed for an attribute.
    #[error(
        "`{0}` is not an attribute name: use lower-case letters and digits, preferably 20 or fewer"
    )]
    Name(String),
    /// An attribute occurs twice, with different values.
    #[error("attribute `{0}` occurs twice, with different values")]
    Twice(String),
    /// More extension attributes than allowed.
    #[error("the event has more than {max} extension attributes")]
    TooManyExtensions {
        /// The limit.
        max: usize,
    },
    /// A text attribute is longer than allowed.
    #[error("attribute `{name}` has {bytes} bytes, but the limit is {max}")]
    TooLong {
        /// The attribute.
        name: String,
        /// The size in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A text attribute contains a control character.
    #[error("attribute `{name}` is `{value}`: control characters are not allowed in attributes")]
    Control {
        /// The attribute.
        name: String,
        /// The value.
        value: String,
    },
    /// A type or source that is reserved for the host.
    #[error("`{name}` is `{value}`: {rule}")]
    Reserved {
        /// The attribute.
        name: &'static str,
        /// The value.
        value: String,
        /// What is reserved for the host.
        rule: &'static str,
    },
    /// Not a time.
    #[error("`time` is `{value}`: write RFC 3339, such as `2026-01-31T23:59:59.999Z`{hint}")]
    Time {
        /// The value.
        value: String,
        /// The text to write, if the value is a number.
        hint: String,
    },
    /// A time before the year 1 or at the end of the year 9999.
    #[error("`time` is `{0}`: times are from 0001-01-01T00:00:00Z to 9999-12-30T21:59:59.999999Z")]
    TimeRange(String),
    /// A number that is not a time in its unit.
    #[error(
        "`time` is `{value}`, which is {was} in {unit}; {advice}: correct `time_unit`, leave the time out if there is none, or write times before 1971 as RFC 3339"
    )]
    TimeNumber {
        /// The value.
        value: String,
        /// The unit in which it was read.
        unit: &'static str,
        /// The time in this unit.
        was: String,
        /// The unit that fits.
        advice: String,
    },
    /// A time too far ahead.
    #[error("`time` is `{value}`, more than {max_s} s ahead of this server's clock")]
    TimeAhead {
        /// The time.
        value: String,
        /// The limit, in seconds.
        max_s: u64,
    },
    /// JSON with an escape for half a character.
    #[error("`{0}` is half a character: JSON text must be Unicode")]
    HalfCharacter(String),
    /// Both forms of payload are present.
    #[error("both `data` and `data_base64` are given: give only one of them")]
    DataTwice,
    /// Not base64.
    #[error("`data_base64` is not base64: {0}")]
    Base64(String),
    /// The payload is declared as JSON, but is not JSON.
    #[error("the data is declared as JSON, but is not JSON: {0}")]
    DataNotJson(String),
    /// A header value that is not percent-encoded UTF-8.
    #[error(
        "header `{name}` is `{value}`: write it in ASCII, with other characters as percent-encoded UTF-8"
    )]
    Header {
        /// The header.
        name: String,
        /// The value.
        value: String,
    },
    /// More distinct types in one request than the log accepts.
    #[error("more than 65,535 distinct types in one request: send fewer at once")]
    TooManyTypes,
}

impl EventError {
    /// The stable code of this error in the documentation.
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

/// The beginning of `value`, short enough for a message. The value comes from a sender,
/// so characters that change how a terminal shows text are escaped.
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

/// Whether `c` marks or overrides the direction of text, separates lines or paragraphs, or
/// has no width.
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
