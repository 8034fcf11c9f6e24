//! Reads the trace to which a request or an event belongs (W3C Trace Context).

/// The content of a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The id of the trace.
    pub trace: [u8; 16],
    /// The id of the caller's span.
    pub parent: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. Returns `None` if its form is wrong, or if an id is zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = bytes(version)?;
        let (trace, parent) = (bytes(trace)?, bytes(parent)?);
        let [flags] = bytes(flags)?;
        // Later versions may have more parts; version ff is not allowed.
        let whole = version != 0 || parts.next().is_none();
        let valid = whole && version != 0xff && trace != [0; 16] && parent != [0; 8];
        valid.then_some(Self { trace, parent, sampled: flags & 1 == 1 })
    }

    /// Reads the `traceparent` in the extension attributes of an event, which are a JSON object or
    /// empty.
    #[must_use]
    pub(crate) fn of_event(extensions: &str) -> Option<Self> {
        // Most events have no `traceparent`, so the JSON is parsed only if it may contain one.
        if !extensions.contains("traceparent") {
            return None;
        }
        let members: serde_json::Value = serde_json::from_str(extensions).ok()?;
        Self::parse(members.get("traceparent")?.as_str()?)
    }

    /// Returns the id of the trace in hexadecimal digits.
    #[must_use]
    pub fn trace_hex(&self) -> String {
        hex::encode(self.trace)
    }

    /// Returns the id of the caller's span in hexadecimal digits.
    #[must_use]
    pub fn parent_hex(&self) -> String {
        hex::encode(self.parent)
    }
}

/// Reads lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_continued_only_if_its_text_is_complete() {
        let check = |text: &str, sampled: Option<bool>| {
            let context = TraceContext::parse(text);
            assert_eq!(context.map(|context| context.sampled), sampled, "{text}");
        };
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", Some(true));
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Some(true));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None);
        check("nonsense", None);
        check("", None);
    }

    #[test]
    fn the_trace_of_an_event_is_in_its_extension_attributes() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::of_event(&format!(r#"{{"a":1,"traceparent":"{text}"}}"#));
        assert_eq!(context, TraceContext::parse(text));
        assert_eq!(context.unwrap().trace_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.unwrap().parent_hex(), "00f067aa0ba902b7");
        for without in
            ["", "{}", r#"{"note":"traceparent"}"#, r#"{"traceparent":1}"#, "traceparent"]
        {
            assert_eq!(TraceContext::of_event(without), None, "{without}");
        }
    }
}
