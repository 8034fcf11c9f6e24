//! Limits for emitted events, so that any log can store them and read them back. They
//! equal the limits for events from outside that are read from a Kafka topic: an emitted
//! event over them would be read back as an unreadable record.

use lantern_core::{NewEvent, Timestamp};
use serde::de::IgnoredAny;

/// The most bytes of a subject.
const SUBJECT_BYTES_MAX: usize = 4_096;
/// How deep the data may be nested.
const JSON_DEPTH_MAX: usize = 64;

/// Checks the subject, the time and the data of `event`.
///
/// # Errors
/// A text for the plugin's author that names the violation.
pub(crate) fn check(event: &NewEvent) -> Result<(), String> {
    let kind = &event.kind;
    let bytes = event.subject.len();
    if bytes > SUBJECT_BYTES_MAX {
        return Err(format!(
            "the subject of an emitted `{kind}` has {bytes} bytes, and the limit is {SUBJECT_BYTES_MAX}"
        ));
    }
    if event.subject.chars().any(char::is_control) {
        return Err(format!(
            "the subject of an emitted `{kind}` is `{}`: control characters are not allowed in attributes",
            event.subject.escape_debug()
        ));
    }
    if event.time != Timestamp::MIN && !event.time.is_in_range() {
        return Err(format!(
            "the time of an emitted `{kind}` is {} us since 1970: times are from the year 1 to the year 9999",
            event.time
        ));
    }
    if serde_json::from_slice::<IgnoredAny>(&event.data).is_err() {
        let data = String::from_utf8_lossy(&event.data);
        let excerpt: String = data.chars().take(80).flat_map(char::escape_debug).collect();
        return Err(format!("the data of an emitted `{kind}` is not JSON: {excerpt}"));
    }
    if depth(&event.data) > JSON_DEPTH_MAX {
        return Err(format!(
            "the data of an emitted `{kind}` is nested deeper than {JSON_DEPTH_MAX} levels"
        ));
    }
    Ok(())
}

/// The nesting depth of `json`, which is valid.
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
        assert_eq!(check(&event), Ok(()));
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
            let error = check(&changed).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        for data in [nested(64), br#""\"[[[[""#.to_vec()] {
            assert_eq!(check(&NewEvent { data, ..event.clone() }), Ok(()));
        }
    }
}
