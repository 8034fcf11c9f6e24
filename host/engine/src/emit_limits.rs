//! Defines the limits for emitted events, which ensure that every log can store an emitted event
//! and read it back. Records of other producers in Kafka topics have the same limits. An emitted
//! event over a limit would be read back as an unreadable record.

use lantern_core::{NewEvent, Timestamp};
use serde::de::IgnoredAny;
use thiserror::Error;

/// The maximum number of bytes in a subject.
const SUBJECT_BYTES_MAX: usize = 4_096;
/// The maximum depth to which the data may be nested.
const JSON_DEPTH_MAX: usize = 64;

/// Why an emitted event is not allowed: a log could not store it and read it back. The text is for
/// the plugin's author.
#[derive(Debug, Error)]
pub(crate) enum EmitError {
    #[error(
        "the subject of an emitted `{kind}` has {bytes} bytes, and the limit is {SUBJECT_BYTES_MAX}"
    )]
    SubjectTooLong { kind: String, bytes: usize },
    #[error(
        "the subject of an emitted `{kind}` is `{}`: control characters are not allowed in attributes",
        subject.escape_debug()
    )]
    ControlCharacter { kind: String, subject: String },
    #[error(
        "the time of an emitted `{kind}` is {time} us since 1970: times are from the year 1 to the year 9999"
    )]
    TimeOutOfRange { kind: String, time: Timestamp },
    #[error("the data of an emitted `{kind}` is not JSON: {excerpt}")]
    NotJson { kind: String, excerpt: String, source: serde_json::Error },
    #[error("the data of an emitted `{kind}` is nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep { kind: String },
}

/// Checks the subject, the time and the data of `event`.
///
/// # Errors
/// Returns [`EmitError`] for the first limit that is exceeded.
pub(crate) fn check(event: &NewEvent) -> Result<(), EmitError> {
    let kind = || event.kind.clone();
    let bytes = event.subject.len();
    if bytes > SUBJECT_BYTES_MAX {
        return Err(EmitError::SubjectTooLong { kind: kind(), bytes });
    }
    if event.subject.chars().any(char::is_control) {
        let subject = event.subject.clone();
        return Err(EmitError::ControlCharacter { kind: kind(), subject });
    }
    if event.time != Timestamp::MIN && !event.time.is_in_range() {
        return Err(EmitError::TimeOutOfRange { kind: kind(), time: event.time });
    }
    if let Err(source) = serde_json::from_slice::<IgnoredAny>(&event.data) {
        let data = String::from_utf8_lossy(&event.data);
        let excerpt = data.chars().take(80).flat_map(char::escape_debug).collect();
        return Err(EmitError::NotJson { kind: kind(), excerpt, source });
    }
    if depth(&event.data) > JSON_DEPTH_MAX {
        return Err(EmitError::TooDeep { kind: kind() });
    }
    Ok(())
}

/// Returns the depth to which arrays and objects are nested in `json`, which must be valid.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_no_log_could_return_is_refused() {
        let event = NewEvent { kind: "t".into(), data: b"{}".to_vec(), ..NewEvent::default() };
        assert!(check(&event).is_ok());
        let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat().into_bytes();
        type EventChange<'a> = &'a dyn Fn(&mut NewEvent);
        let cases: [(&str, EventChange<'_>); 6] = [
            ("5000 bytes", &|event| event.subject = "x".repeat(5_000)),
            ("`a\\nb`", &|event| event.subject = "a\nb".into()),
            ("year 9999", &|event| event.time = Timestamp(i64::MAX)),
            ("year 1", &|event| event.time = Timestamp(Timestamp::FIRST.0 - 1)),
            ("not JSON: {", &|event| event.data = b"{".to_vec()),
            ("64 levels", &|event| event.data = nested(65)),
        ];
        for (words, change) in cases {
            let mut changed = event.clone();
            change(&mut changed);
            let error = check(&changed).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        for data in [nested(64), br#""\"[[[[""#.to_vec()] {
            assert!(check(&NewEvent { data, ..event.clone() }).is_ok());
        }
    }
}
