//! Defines the names that only the host may use: sources, types and extension attributes.

/// The `source` of the events that the host itself creates, such as heartbeats.
pub const HOST_SOURCE: &str = "lantern";
/// The prefix of the `source` of emitted events. The projection's name follows it.
pub const EMITTED_SOURCE_PREFIX: &str = "lantern/";
/// The prefix of the types of events that the host itself creates.
pub const HOST_TYPE_PREFIX: &str = "lantern.";
/// The prefix of extension attributes that only the host sets.
pub const HOST_EXTENSION_PREFIX: &str = "lantern";

/// Returns whether `source` is a source that only the host may use: that of its own events, or that
/// of emitted events.
#[must_use]
pub fn is_host_source(source: &str) -> bool {
    source == HOST_SOURCE || source.starts_with(EMITTED_SOURCE_PREFIX)
}

/// Returns whether `kind` is a type of events that the host itself creates.
#[must_use]
pub fn is_host_type(kind: &str) -> bool {
    kind.starts_with(HOST_TYPE_PREFIX)
}

/// Returns the id of an emitted event. It consists of `emits_as` (which has no slash), the
/// partition, the offset of the event that caused it, and `count`.
#[must_use]
pub fn emitted_id(emits_as: &str, partition: u32, cause: u64, count: u64) -> String {
    format!("{emits_as}/{partition}/{cause}/{count}")
}

/// Returns whether `source` and `id` have the form that the host gives emitted events.
///
/// This does not prove that the host wrote the event, and nothing may rely on it: every program
/// that may write to a Kafka topic can write events of this form.
#[must_use]
pub fn has_emitted_form(source: &str, id: &str) -> bool {
    let Some(projection) = source.strip_prefix(EMITTED_SOURCE_PREFIX) else { return false };
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let number = |text: Option<&str>| text.is_some_and(|text| text.parse::<u64>().is_ok());
    let mut parts = id.rsplitn(4, '/');
    let numbers = (0..3).all(|_| number(parts.next()));
    numbers && parts.next().is_some_and(plain) && plain(projection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emitted_id_has_the_form_of_one() {
        assert!(has_emitted_form("lantern/totals", &emitted_id("a1b2-3", 0, 41, 7)));
        for (source, id) in [
            ("lantern", "a/0/1/2"),
            ("lantern/", "a/0/1/2"),
            ("lantern/a b", "a/0/1/2"),
            ("lantern/a/b", "a/0/1/2"),
            ("/s", "a/0/1/2"),
            ("lantern/totals", "0/1/2"),
            ("lantern/totals", "/0/1/2"),
            ("lantern/totals", "a/x/1/2"),
            ("lantern/totals", "a b/0/1/2"),
            ("lantern/totals", ""),
        ] {
            assert!(!has_emitted_form(source, id), "{source} {id}");
        }
    }

    #[test]
    fn only_the_hosts_own_names_are_reserved() {
        for (source, reserved) in
            [("lantern", true), ("lantern/x", true), ("lanterns", false), ("/lantern/x", false)]
        {
            assert_eq!(is_host_source(source), reserved, "{source}");
        }
        assert!(is_host_type("lantern.heartbeat") && !is_host_type("lantern"));
    }
}
