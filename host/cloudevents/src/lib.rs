//! Converts CloudEvents 1.0 from bytes to [`lantern_core::Events`] and back.
//!
//! A [`Reader`] checks everything on which the rest of the host relies:
//!
//! * Required attributes are present, and attributes have allowed types and lengths.
//! * Text is UTF-8, and JSON is valid and not nested too deep.
//! * The time is plausible.
//!
//! It never changes a payload: `data` is kept byte for byte.
//!
//! A client gets an error if its event is invalid. A record of a log on Kafka, however, cannot be
//! corrected and sent again. So the reader that [`Reader::of_log`] creates accepts faults in parts
//! on which Lantern does not depend. For example, an extension attribute never makes a record
//! unreadable. This reader converts the records into a form that a client may send, so an exported
//! event can be imported again.

mod attributes;
mod binary;
mod checks;
mod error;
mod json_scan;
mod members;
mod read;
mod syntax;
mod time;
mod write;

pub use attributes::Attributes;
pub use binary::percent_decode;
pub use checks::{check_json, check_text};
pub use error::EventError;
pub use members::Name;
pub use read::{LineError, Reader};
pub use syntax::json_text;
pub use time::{TimeUnit, format_time, parse_time, read_time, time_of_number};
pub use write::{write_event, write_exact};

/// The media type of one event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a JSON array of events in structured mode.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// The media type of events in structured mode, each on a line of its own.
pub const NDJSON: &str = "application/x-ndjson";
/// The maximum length of `type`, in bytes. Subscriptions in a manifest have the same limit.
pub const TYPE_BYTES_MAX: usize = 255;
/// The maximum length of the value of every other text attribute, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 4_096;
/// The maximum length of the name of an extension attribute, in characters. CloudEvents recommends
/// at most 20, and some connectors use up to 40.
pub const NAME_CHARS_MAX: usize = 255;
/// The maximum number of extension attributes of one event, without those that the host adds.
pub const EXTENSIONS_MAX: usize = 64;
/// The maximum number of extension attributes that the host adds to one event. An exported event
/// has these in addition to the attributes of its sender.
pub const HOST_EXTENSIONS_MAX: usize = 8;
/// The extension attribute that marks an exported event whose data is written as base64, but is
/// JSON without a media type.
const UNTYPED: &str = "lanternuntyped";
/// The maximum number of bytes that the extension attributes of the host add to an event.
const HOST_EXTENSIONS_BYTES: usize = 512;

/// The limits of an event from outside; set in section `ingest` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// The largest event, all attributes and the payload together, in bytes.
    pub event_bytes_max: usize,
    /// How deep JSON may be nested.
    pub json_depth_max: usize,
    /// How far ahead of the server's clock an event's time may be, in seconds. An event further in
    /// the future is refused, because it would move the watermark too far.
    pub time_ahead_s_max: u64,
}

impl EventLimits {
    /// Returns the maximum size of the JSON of an event that is within the limits. The JSON can be
    /// longer than the event: base64 makes the payload a third larger, and a character of an
    /// attribute can take six bytes.
    #[must_use]
    pub fn written_bytes_max(&self) -> usize {
        const ATTRIBUTES_BYTES: usize = 256 << 10;
        // A log is read without a limit, so the calculation must not overflow.
        (self.event_bytes_max / 3).saturating_mul(4).saturating_add(ATTRIBUTES_BYTES)
    }
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { event_bytes_max: 1 << 20, json_depth_max: 64, time_ahead_s_max: 86_400 }
    }
}

/// Returns whether a payload with this media type is JSON. If the media type is empty, the payload
/// is JSON.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let ends_in = |suffix: &str| {
        essence.len() >= suffix.len()
            && essence.as_bytes()[essence.len() - suffix.len()..]
                .eq_ignore_ascii_case(suffix.as_bytes())
    };
    essence.is_empty() || ends_in("/json") || ends_in("+json")
}

#[cfg(test)]
mod tests;
