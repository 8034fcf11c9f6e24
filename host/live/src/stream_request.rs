//! Reads the subscriptions of a request for an event stream, and describes why a stream is refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lantern_api::feed::BadSubscribe;
use serde_json::value::RawValue;

use crate::cursor::Cursor;
use crate::protocol::{BAD_QUERY, Refused, Subscribe, refused_member};

/// A request for an event stream.
#[derive(Clone, Debug, Default)]
pub struct StreamRequest {
    /// The address of the client, if it is known.
    pub address: Option<SocketAddr>,
    /// The subscriptions: each is `PROJECTION/TABLE`, or a JSON object with the members of a
    /// `sub` message.
    pub subs: Vec<String>,
    /// The `id` of the last event that the client has received.
    pub cursor: Option<String>,
}

/// Why an event stream is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamRefusal {
    /// As many sessions as this limit are open.
    TooManySessions(usize),
    /// A subscription is malformed or cannot be opened.
    Subscription(Refused),
    /// The server failed, or shuts down.
    Failed(String),
}

impl StreamRequest {
    /// Returns the subscriptions with the tokens from which they resume. Also returns the states
    /// that the client shows.
    ///
    /// # Errors
    /// Returns [`Refused`] for the first subscription that cannot be read.
    pub(crate) fn read(&self) -> Result<(Vec<Subscribe>, Cursor), Refused> {
        let texts = (1..).zip(&self.subs);
        let mut subs =
            texts.map(|(place, text)| subscribe(text, place)).collect::<Result<Vec<_>, _>>()?;
        let Some(text) = &self.cursor else { return Ok((subs, Cursor::default())) };
        let Some(mut cursor) = Cursor::decode(text) else {
            // The text is no token either. With it, each subscription starts with a `reset`.
            subs.iter_mut().for_each(|sub| sub.resume = Some(text.clone()));
            return Ok((subs, Cursor::default()));
        };
        cursor.retain(|id| subs.iter().any(|sub| sub.id == id));
        for sub in &mut subs {
            sub.resume = cursor.token(sub.id).or(sub.resume.take());
        }
        Ok((subs, cursor))
    }
}

/// Reads one subscription. `place` is its position in the request, beginning with 1; it is the `id`
/// of the subscription unless the text contains one.
fn subscribe(text: &str, place: u64) -> Result<Subscribe, Refused> {
    let id = place;
    if !text.trim_start().starts_with('{') {
        return Ok(Subscribe { id, table: text.to_owned(), ..Subscribe::default() });
    }
    let wrong = |member: &'static str, msg: String| refused_member(id, BAD_QUERY, msg, member);
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|error| {
            let form = "write `projection/table`, or a JSON object such as `{\"table\": \"projection/table\", \"cols\": [\"cents\"]}`";
            wrong("sub", format!("`sub` is `{text}`: {error}: {form}"))
        })?;
    members.entry("id".to_owned()).or_insert_with(|| raw(&place.to_string()));
    if let Ok(sub) = serde_json::from_str(&written(&members)) {
        return Ok(sub);
    }
    members.insert("t".to_owned(), raw("\"sub\""));
    let Some(BadSubscribe { id, member, detail }) = Subscribe::diagnose(&written(&members)) else {
        let found = members.get("id").map_or("", |id| id.get());
        let detail = format!("`id` is `{found}`: write a whole number from 0 to 2^64 - 1");
        return Err(wrong("id", detail));
    };
    Err(refused_member(id, BAD_QUERY, detail, member))
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("a number or text is JSON")
}

fn written(members: &BTreeMap<String, Box<RawValue>>) -> String {
    serde_json::to_string(members).expect("JSON always encodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Position;

    fn request(subs: &[&str], cursor: Option<String>) -> StreamRequest {
        let subs = subs.iter().map(|&text| text.to_owned()).collect();
        StreamRequest { subs, cursor, address: None }
    }

    #[test]
    fn a_subscription_is_the_name_of_a_table_or_an_object() {
        let (subs, _) = request(
            &[
                "shop/a",
                r#"{"table":"shop/b","where":[["n",">=",12345678901234567890]],"rate_ms":5}"#,
                r#" {"id":9,"table":"shop/a","resume":"t"}"#,
            ],
            None,
        )
        .read()
        .unwrap();
        let ids: Vec<_> = subs.iter().map(|sub| (sub.id, sub.table.as_str())).collect();
        assert_eq!(ids, [(1, "shop/a"), (2, "shop/b"), (9, "shop/a")]);
        assert_eq!(subs[1].conditions[0].2.to_string(), "12345678901234567890");
        assert_eq!((subs[1].rate_ms, subs[2].resume.as_deref()), (Some(5), Some("t")));
    }

    #[test]
    fn the_wrong_member_of_a_subscription_is_named() {
        for (text, id, member) in [
            ("{", 2, "sub"),
            ("{}", 2, "table"),
            (r#"{"table":7}"#, 2, "table"),
            (r#"{"id":5,"table":"a/b","cols":"x"}"#, 5, "cols"),
            (r#"{"table":"a/b","where":[["a"]]}"#, 2, "where"),
            (r#"{"id":-1,"table":"a/b"}"#, 2, "id"),
            (r#"{"id":"x","table":"a/b"}"#, 2, "id"),
        ] {
            let refused = request(&["shop/a", text], None).read().unwrap_err();
            let parameter = refused.parameter.as_deref();
            assert_eq!((refused.id, parameter), (id, Some(member)), "{text}");
            assert!(refused.msg.starts_with(&format!("`{member}`")), "{}", refused.msg);
        }
    }

    #[test]
    fn each_subscription_resumes_from_its_own_state_in_the_cursor() {
        let mut cursor = Cursor::default();
        let position =
            |query| Position { epoch: "e".into(), commit: 3, at: Default::default(), query };
        for (id, query) in [(1, 11), (2, 12), (7, 17)] {
            cursor.insert(id, position(query));
        }
        let subs = ["shop/a", r#"{"id":7,"table":"shop/b"}"#, r#"{"table":"shop/c","resume":"t"}"#];
        let (read, kept) = request(&subs, Some(cursor.encode())).read().unwrap();
        let resumes: Vec<_> = read.iter().map(|sub| sub.resume.clone()).collect();
        assert_eq!(resumes, [cursor.token(1), cursor.token(7), Some("t".to_owned())]);
        assert!(resumes[0].is_some() && resumes[0] != resumes[1]);
        assert_eq!((kept.token(2), kept.token(7)), (None, cursor.token(7)));

        let (read, _) = request(&subs, Some("other".into())).read().unwrap();
        assert!(read.iter().all(|sub| sub.resume.as_deref() == Some("other")));
    }
}
