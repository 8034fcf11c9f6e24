//! Implements conditional requests (RFC 9110, section 13): `If-Match` and `If-None-Match`.

use http::HeaderMap;
use http::header::{AsHeaderName, IF_MATCH, IF_NONE_MATCH};

/// The conditions of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    match_any: Option<Tags>,
    match_none: Option<Tags>,
}

/// The result of checking the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer as if there were no conditions.
    Answer,
    /// Answer 304: the client already has this state.
    NotModified,
    /// Answer 412: the client requires another state.
    Failed,
}

impl Conditions {
    /// Reads the conditions from `headers`.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        Self {
            match_any: Tags::read(headers, IF_MATCH),
            match_none: Tags::read(headers, IF_NONE_MATCH),
        }
    }

    /// Compares the conditions of a read with the current state. `etag` is the strong tag of
    /// this state, with its quotes.
    pub(super) fn evaluate(&self, etag: &str) -> Verdict {
        if self.match_any.as_ref().is_some_and(|tags| !tags.contain(etag, Comparison::Strong)) {
            return Verdict::Failed;
        }
        if self.match_none.as_ref().is_some_and(|tags| tags.contain(etag, Comparison::Weak)) {
            return Verdict::NotModified;
        }
        Verdict::Answer
    }

    /// Whether a write may replace or delete the current state. `etag` is the strong tag of this
    /// state, or `None` if there is none.
    pub(super) fn allow_write(&self, etag: Option<&str>) -> bool {
        match etag {
            Some(etag) => self.evaluate(etag) == Verdict::Answer,
            None => self.match_any.is_none(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The entity tags in one header.
#[derive(Clone, Debug, Default)]
struct Tags {
    any: bool,
    /// Each tag with its quotes, and whether it is weak.
    tags: Vec<(String, bool)>,
}

impl Tags {
    fn read(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Self> {
        let mut tags: Option<Self> = None;
        for value in headers.get_all(name) {
            tags.get_or_insert_default().add(value.to_str().unwrap_or_default());
        }
        tags
    }

    /// Adds the tags in one line of a header. A text that is not a tag matches no state.
    fn add(&mut self, mut line: &str) {
        loop {
            line = line.trim_start_matches([' ', '\t', ',']);
            if line.is_empty() {
                return;
            }
            let (weak, tag) = match line.strip_prefix("W/") {
                Some(tag) => (true, tag),
                None => (false, line),
            };
            let end = match tag.strip_prefix('"') {
                // A tag may contain commas.
                Some(inner) => inner.find('"').map_or(tag.len(), |at| at + 2),
                None => tag.find(',').unwrap_or(tag.len()),
            };
            let (tag, rest) = tag.split_at(end);
            if tag.trim_end() == "*" {
                self.any = true;
            }
            self.tags.push((tag.to_owned(), weak));
            line = rest;
        }
    }

    fn contain(&self, etag: &str, comparison: Comparison) -> bool {
        self.any
            || self
                .tags
                .iter()
                .any(|(tag, weak)| tag == etag && !(*weak && comparison == Comparison::Strong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_allowed_only_on_the_state_that_it_names() {
        let check = |name: &str, value: &str, etag: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            let allowed = Conditions::read(&headers).allow_write(etag);
            assert_eq!(allowed, expected, "{name}: {value} of {etag:?}");
        };
        check("if-match", "\"a\"", Some("\"a\""), true);
        check("if-match", "\"a\"", Some("\"b\""), false);
        check("if-match", "W/\"a\"", Some("\"a\""), false);
        check("if-match", "\"a\"", None, false);
        check("if-match", "*", Some("\"a\""), true);
        check("if-match", "*", None, false);
        check("if-none-match", "*", None, true);
        check("if-none-match", "*", Some("\"a\""), false);
        check("accept", "*", None, true);
    }

    #[test]
    fn tags_are_compared_one_by_one_as_rfc_9110_has_it() {
        let check = |any: &str, none: &str, expected| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(IF_MATCH, any), (IF_NONE_MATCH, none)] {
                if !value.is_empty() {
                    headers.append(name, value.parse().unwrap());
                }
            }
            assert_eq!(Conditions::read(&headers).evaluate("\"b,c\""), expected, "{any} / {none}");
        };
        check("", "", Verdict::Answer);
        check("", r#""a", W/"b,c""#, Verdict::NotModified);
        check("", "*", Verdict::NotModified);
        check("", r#""bb", "b", b,c"#, Verdict::Answer);
        check(r#""a","b,c""#, "", Verdict::Answer);
        check("*", "", Verdict::Answer);
        check(r#"W/"b,c""#, "", Verdict::Failed);
        check(r#""a""#, r#""b,c""#, Verdict::Failed);
        check(r#""b,c""#, r#""b,c""#, Verdict::NotModified);
        check(r#""unclosed"#, "", Verdict::Failed);
    }
}
