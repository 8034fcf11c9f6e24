//! Defines the messages that a client sends.

use std::collections::BTreeMap;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::object::object;
use crate::query::Aggregates;
use crate::shape::TableShape;

/// A message of a client. Its member `t` names its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum ClientMessage {
    /// The first message, and sent only once.
    Hello {
        /// Identifies the reader. Accepted, and without effect yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// Subscribes to a table.
    Sub(Box<Subscribe>),
    /// Ends a subscription.
    Unsub {
        /// The subscription's `id`.
        id: u64,
    },
    /// Replaces the token of `hello`. Accepted, and without effect yet.
    Auth {
        /// The new token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// Acknowledges data frames.
    Ack {
        /// How many data frames were received on this connection so far.
        n: u64,
    },
    /// The answer to `ping`.
    Pong,
}

/// A condition: field, operator and value, as in `["cents", ">=", 100]`. The value of `in`
/// is an array.
pub type Condition = (String, String, Value);

/// A subscription to a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscribe {
    /// Chosen by the client, and not in use by another subscription of the connection.
    pub id: u64,
    /// `projection/table`; the active version is read.
    pub table: String,
    /// Conditions that must all hold; only rows that fulfil them are sent.
    #[serde(rename = "where", default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The fields in the rows, in this order; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cols: Option<Vec<String>>,
    /// Sends groups of rows in place of rows.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "roll_up")]
    pub rollup: Option<RollUp>,
    /// Whether changes may be merged; `state` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Mode>"))]
    pub mode: Option<String>,
    /// The minimum time between two deltas, in milliseconds; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_ms: Option<u64>,
    /// The last `tok` that the client received for this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The shape for which the client was written. If the table's shape is another one in what the
    /// query uses, other than by additional fields, the server refuses or ends the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<TableShape>,
    /// Members that this release does not know. A server refuses a message with such members: if it
    /// ignored them, it would send other rows than the client asked for.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub unknown: Map<String, Value>,
}

/// A roll-up: groups of rows, with aggregates of each group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RollUp {
    /// The timestamp field to which `start`, `end` and `bucket` refer. If the table has only one
    /// such field, this member may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Rows at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Rows before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The length of the buckets: a number and `s`, `m`, `h`, `d`, `w`, `mo` or `y`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The fields by which rows are grouped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// The aggregates of each group, by the names of their columns: `{"n": ["count"], "revenue":
    /// ["sum", "cents"]}`.
    #[serde(skip_serializing_if = "Aggregates::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, Vec<String>>"))]
    pub agg: Aggregates,
    /// What buckets without rows contain: `zero`, `null` or `previous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<String>,
    /// The time zone of buckets and of times without an offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
}

/// A roll-up that is read from an object.
struct RollUpObject(RollUp);

impl<'de> Deserialize<'de> for RollUpObject {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        object(json).map(Self)
    }
}

fn roll_up<'de, D: Deserializer<'de>>(json: D) -> Result<Option<RollUp>, D::Error> {
    Ok(Option::<RollUpObject>::deserialize(json)?.map(|object| object.0))
}

/// A `sub` that cannot be read although its `id` can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSubscribe {
    /// The `id` in the `sub`.
    pub id: u64,
    /// The member that is wrong.
    pub member: &'static str,
    /// What is wrong with the `sub`, and its correct form.
    pub detail: String,
}

/// The members of a [`Subscribe`] as JSON texts that are not parsed yet.
type RawMembers = BTreeMap<String, Box<RawValue>>;

impl Subscribe {
    /// Finds out why `text` is not a valid [`ClientMessage`]. `None` if it is not a `sub` with an
    /// `id`.
    #[must_use]
    pub fn diagnose(text: &str) -> Option<BadSubscribe> {
        let members: RawMembers = serde_json::from_str(text).ok()?;
        let kind: String = read(&members, "t").ok()??;
        let id = read(&members, "id").ok()??;
        if kind != "sub" {
            return None;
        }
        let checks: [(&'static str, &str, Option<String>); 8] = [
            (
                "table",
                "write `projection/table`",
                match read::<String>(&members, "table") {
                    Ok(None) => Some("it is missing".into()),
                    found => found.err(),
                },
            ),
            (
                "where",
                "write an array of conditions, each `[FIELD, OPERATOR, VALUE]`, such as `[[\"cents\", \">=\", 100]]`",
                read::<Vec<Condition>>(&members, "where").err(),
            ),
            (
                "cols",
                "write an array of names of fields",
                read::<Option<Vec<String>>>(&members, "cols").err(),
            ),
            (
                "rollup",
                "write an object with `bucket`, `by` and `agg`, such as `{\"by\": [\"country\"], \"agg\": {\"n\": [\"count\"], \"sum\": [\"sum\", \"cents\"]}}`",
                read::<Option<RollUpObject>>(&members, "rollup").err(),
            ),
            ("mode", "write `state` or `changes`", read::<Option<String>>(&members, "mode").err()),
            (
                "rate_ms",
                "write a whole number of milliseconds",
                read::<Option<u64>>(&members, "rate_ms").err(),
            ),
            (
                "resume",
                "write the text of the last `tok`",
                read::<Option<String>>(&members, "resume").err(),
            ),
            (
                "shape",
                "write the shape that `lantern types` writes, or an object with the kinds of the fields that the client reads, such as `{\"fields\": {\"country\": \"text\", \"cents\": \"integer\"}}`",
                shape_error(&members),
            ),
        ];
        let (member, form, error) =
            checks.into_iter().find_map(|(member, form, error)| Some((member, form, error?)))?;
        Some(BadSubscribe { id, member, detail: format!("`{member}`: {error}: {form}") })
    }
}

/// Reads a member; `None` if it is missing.
fn read<T: serde::de::DeserializeOwned>(
    members: &RawMembers,
    name: &str,
) -> Result<Option<T>, String> {
    let Some(json) = members.get(name) else { return Ok(None) };
    serde_json::from_str(json.get()).map(Some).map_err(|error| error.to_string())
}

/// Returns what is wrong with `shape`, if anything is. The error has no line and column, because it
/// names the field.
fn shape_error(members: &RawMembers) -> Option<String> {
    let json: Value = serde_json::from_str(members.get("shape")?.get()).ok()?;
    let shape: Result<Option<TableShape>, _> = serde_json::from_value(json);
    shape.err().map(|error| error.to_string())
}

/// How changes are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The newest state. If changes of one key come faster than they can be sent, they are merged.
    #[default]
    State,
    /// Every change separately. A reader that is too slow is disconnected. When it connects again,
    /// it continues where it stopped.
    Changes,
}

impl Mode {
    /// The mode called `name` in the protocol.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::State, Self::Changes].into_iter().find(|mode| mode.name() == name)
    }

    /// The name of the mode in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Changes => "changes",
        }
    }
}

impl ClientMessage {
    /// The message as the text of a frame.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_the_protocol_describes_them() {
        let subscribe = |mode: Option<Mode>, rate_ms, resume: Option<&str>| {
            ClientMessage::Sub(Box::new(Subscribe {
                id: 1,
                table: "a/b".into(),
                mode: mode.map(|mode| mode.name().into()),
                rate_ms,
                resume: resume.map(str::to_owned),
                ..Subscribe::default()
            }))
        };
        let filtered = Subscribe {
            id: 2,
            table: "a/b".into(),
            conditions: vec![
                ("c".into(), "in".into(), serde_json::json!(["DE", 1])),
                ("d".into(), ">=".into(), serde_json::json!(1.5)),
            ],
            cols: Some(vec!["c".into()]),
            rollup: Some(RollUp {
                bucket: Some("1h".into()),
                by: vec!["c".into()],
                agg: Aggregates(vec![
                    ("z".into(), vec!["count".into()]),
                    ("a".into(), vec!["sum".into(), "d".into()]),
                ]),
                fill: Some("zero".into()),
                ..RollUp::default()
            }),
            shape: Some(TableShape::new([("d", "number", "s"), ("c", "text", "")], false)),
            ..Subscribe::default()
        };
        for (message, text) in [
            (ClientMessage::Hello { token: None }, r#"{"t":"hello"}"#),
            (ClientMessage::Hello { token: Some("x".into()) }, r#"{"t":"hello","token":"x"}"#),
            (subscribe(None, None, None), r#"{"t":"sub","id":1,"table":"a/b"}"#),
            (
                subscribe(Some(Mode::Changes), Some(5), Some("tok")),
                r#"{"t":"sub","id":1,"table":"a/b","mode":"changes","rate_ms":5,"resume":"tok"}"#,
            ),
            (
                ClientMessage::Sub(Box::new(filtered)),
                r#"{"t":"sub","id":2,"table":"a/b","where":[["c","in",["DE",1]],["d",">=",1.5]],"cols":["c"],"rollup":{"bucket":"1h","by":["c"],"agg":{"z":["count"],"a":["sum","d"]},"fill":"zero"},"shape":{"hash":"f6b841947306b22d","fields":{"c":"text","d":"number"},"units":{"d":"s"},"per_tenant":false}}"#,
            ),
            (ClientMessage::Unsub { id: 1 }, r#"{"t":"unsub","id":1}"#),
            (ClientMessage::Auth { token: None }, r#"{"t":"auth"}"#),
            (ClientMessage::Ack { n: 42 }, r#"{"t":"ack","n":42}"#),
            (ClientMessage::Pong, r#"{"t":"pong"}"#),
        ] {
            assert_eq!(message.text(), text);
            assert_eq!(serde_json::from_str::<ClientMessage>(text).unwrap(), message);
        }
    }

    #[test]
    fn unknown_members_of_a_subscription_are_kept_apart() {
        let text = r#"{"t":"sub","id":1,"table":"a/b","where":[],"rate_ms":5,"order":"a"}"#;
        let ClientMessage::Sub(sub) = serde_json::from_str(text).unwrap() else { panic!("no sub") };
        assert_eq!(sub.rate_ms, Some(5));
        assert_eq!(sub.unknown.keys().collect::<Vec<_>>(), ["order"]);
    }

    #[test]
    fn the_wrong_member_of_a_subscription_is_named() {
        for (members, member) in [
            (r#""id":1"#, "table"),
            (r#""id":1,"table":7"#, "table"),
            (r#""id":1,"table":"a/b","where":{}"#, "where"),
            (r#""id":1,"table":"a/b","where":[["a","="]]"#, "where"),
            (r#""id":1,"table":"a/b","where":[["a","=",1e999]]"#, "where"),
            (r#""id":1,"table":"a/b","cols":"a""#, "cols"),
            (r#""id":1,"table":"a/b","rollup":[1]"#, "rollup"),
            (r#""id":1,"table":"a/b","rollup":[null]"#, "rollup"),
            (r#""id":1,"table":"a/b","rollup":{"agg":{"n":"count"}}"#, "rollup"),
            (r#""id":1,"table":"a/b","rollup":{"having":1}"#, "rollup"),
            (r#""id":1,"table":"a/b","mode":1"#, "mode"),
            (r#""id":1,"table":"a/b","rate_ms":-1"#, "rate_ms"),
            (r#""id":1,"table":"a/b","resume":{}"#, "resume"),
            (r#""id":1,"table":"a/b","shape":"9f00""#, "shape"),
            (r#""id":1,"table":"a/b","shape":[{}]"#, "shape"),
            (r#""id":1,"table":"a/b","shape":{"fields":{"n":null}}"#, "shape"),
        ] {
            let text = format!("{{\"t\":\"sub\",{members}}}");
            assert!(serde_json::from_str::<ClientMessage>(&text).is_err(), "{text}");
            let bad = Subscribe::diagnose(&text).unwrap();
            assert_eq!((bad.id, bad.member), (1, member), "{text}");
            assert!(bad.detail.starts_with(&format!("`{member}`: ")), "{}", bad.detail);
        }
        for text in [r#"{"t":"sub"}"#, r#"{"t":"sub","id":"1"}"#, r#"{"t":"x","id":1}"#, "[]"] {
            assert_eq!(Subscribe::diagnose(text), None);
        }
    }
}
