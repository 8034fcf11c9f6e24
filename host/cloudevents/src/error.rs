//! Why something is not an event this server takes.

use thiserror::Error;

/// How many characters of an offending value a message quotes.
const QUOTE_CHARS_MAX: usize = 80;

/// Why an event was refused. The text quotes the offending value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// Not UTF-8.
    #[error("byte {at} is not UTF-8: events are UTF-8 JSON")]
    NotUtf8 {
        /// The first bad byte's place, from 0.
        at: usize,
    },
    /// Not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but no object (or, in batch mode, no array).
    #[error("expected {expected}, found `{value}`")]
    Shape {
        /// What should stand here.
        expected: &'static str,
        /// What does.
        value: String,
    },
    /// More bytes than allowed.
    #[error("the event has {bytes} bytes, and the limit is {max}")]
    TooLarge {
        /// Its bytes; of a line that did not end, those read so far.
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
    /// A required attribute is not there.
    #[error("attribute `{0}` is missing: `specversion`, `id`, `source` and `type` are required")]
    Missing(&'static str),
    /// An attribute is empty.
    #[error("attribute `{0}` is empty: give it a value or leave it out")]
    Empty(String),
    /// An attribute is of another type than it must be.
    #[error("attribute `{name}` is `{value}`: it must be {expected}")]
    Type {
        /// Which attribute.
        name: String,
        /// What it is.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Another version of CloudEvents.
    #[error("`specversion` is `{0}`: this server takes `1.0`")]
    SpecVersion(String),
    /// A name that no attribute may have.
    #[error("`{0}` is no attribute name: use lower-case letters and digits, at best 20 or fewer")]
    Name(String),
    /// An attribute is there twice, with different values.
    #[error("attribute `{0}` is there twice, with different values")]
    Twice(String),
    /// More extension attributes than allowed.
    #[error("the event has more than {max} extension attributes")]
    TooManyExtensions {
        /// The limit.
        max: usize,
    },
    /// A text attribute is longer than allowed.
    #[error("attribute `{name}` has {bytes} bytes, and the limit is {max}")]
    TooLong {
        /// Which attribute.
        name: String,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A text attribute holds a control character.
    #[error("attribute `{name}` is `{value}`: control characters are not allowed in attributes")]
    Control {
        /// Which attribute.
        name: String,
        /// Its value.
        value: String,
    },
    /// A type or source that only the host itself may use.
    #[error("`{name}` is `{value}`: {rule}")]
    Reserved {
        /// Which attribute.
        name: &'static str,
        /// Its value.
        value: String,
        /// What belongs to the host.
        rule: &'static str,
    },
    /// Not a time.
    #[error("`time` is `{value}`: write RFC 3339, as `2026-01-31T23:59:59.999Z`{hint}")]
    Time {
        /// Its value.
        value: String,
        /// The text to write, if the value is a number.
        hint: String,
    },
    /// A time before the year 1 or at the end of the year 9999.
    #[error("`time` is `{0}`: times are from 0001-01-01T00:00:00Z to 9999-12-30T21:59:59.999999Z")]
    TimeRange(String),
    /// A number that is no time in its unit.
    #[error(
        "`time` is `{value}`, which is {was} in {unit}; {advice}: correct `time_unit`, leave the time out where there is none, or write times before 1971 as RFC 3339"
    )]
    TimeNumber {
        /// Its value.
        value: String,
        /// The unit in which it was read.
        unit: &'static str,
        /// The time in that unit.
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
    /// JSON with an escape that is half a character.
    #[error("`{0}` is half a character: JSON text must be Unicode")]
    HalfCharacter(String),
    /// Both forms of payload.
    #[error("`data` and `data_base64` are both there: give one of them")]
    DataTwice,
    /// Not base64.
    #[error("`data_base64` is no base64: {0}")]
    Base64(String),
    /// The payload says JSON and is none.
    #[error("the data is declared as JSON and is none: {0}")]
    DataNotJson(String),
    /// A header value that is not percent-encoded UTF-8.
    #[error("header `{name}` is `{value}`: write it in ASCII, percent-encoded UTF-8 for the rest")]
    Header {
        /// Which header.
        name: String,
        /// Its value.
        value: String,
    },
    /// More distinct types at once than the log takes.
    #[error("more than 65,535 distinct types in one request: send fewer at once")]
    TooManyTypes,
}

impl EventError {
    /// The stable code under which the documentation has this error.
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

/// The beginning of `value`, short enough for a message. A sender chooses it, so
/// characters that change how a terminal shows text are escaped.
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

/// Marks and overrides of the direction of text, line and paragraph separators, and
/// characters without a width.
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
