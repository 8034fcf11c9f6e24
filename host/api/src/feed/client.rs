//! The messages that a client sends.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// A subscription to a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscribe {
    /// Chosen by the client, and not in use by another subscription of the connection.
    pub id: u64,
    /// `projection/table`; the active version is read.
    pub table: String,
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
    /// Members that this release does not know. A server refuses them: if it ignored
    /// them, it would send other rows than the client asked for.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub unknown: Map<String, Value>,
}

/// How changes are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The newest state: changes of one key are merged if they come faster than they
    /// can be sent.
    #[default]
    State,
    /// Every change separately. A reader that is too slow is disconnected, and
    /// continues where it stopped.
    Changes,
}

impl Mode {
    /// The mode called `name` in the protocol.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::State, Self::Changes].into_iter().find(|mode| mode.name() == name)
    }

    /// The name in the protocol.
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
                unknown: Map::new(),
            }))
        };
        for (message, text) in [
            (ClientMessage::Hello { token: None }, r#"{"t":"hello"}"#),
            (ClientMessage::Hello { token: Some("x".into()) }, r#"{"t":"hello","token":"x"}"#),
            (subscribe(None, None, None), r#"{"t":"sub","id":1,"table":"a/b"}"#),
            (
                subscribe(Some(Mode::Changes), Some(5), Some("tok")),
                r#"{"t":"sub","id":1,"table":"a/b","mode":"changes","rate_ms":5,"resume":"tok"}"#,
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
        let text = r#"{"t":"sub","id":1,"table":"a/b","where":[],"rate_ms":5}"#;
        let ClientMessage::Sub(sub) = serde_json::from_str(text).unwrap() else { panic!("no sub") };
        assert_eq!(sub.rate_ms, Some(5));
        assert_eq!(sub.unknown.keys().collect::<Vec<_>>(), ["where"]);
    }
}
