//! The messages of the protocol that this client uses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Field;

/// The WebSocket subprotocol.
pub(crate) const SUBPROTOCOL: &str = "lantern.v1.json";

/// A message from the client.
#[derive(Debug, Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(crate) enum Say<'a> {
    Hello {
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
    },
    Sub {
        id: u64,
        table: &'a str,
        mode: &'a str,
        #[serde(skip_serializing_if = "is_zero")]
        rate_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        resume: Option<&'a str>,
    },
    Unsub {
        id: u64,
    },
    Ack {
        n: u64,
    },
    Pong,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Say<'_> {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always encode")
    }
}

/// A message from the server: one struct for all of them, since raw rows cannot be read
/// through a tagged enum.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Heard {
    pub(crate) t: String,
    pub(crate) id: u64,
    pub(crate) ch: u64,
    pub(crate) heartbeat_ms: u64,
    pub(crate) limits: Limits,
    pub(crate) fields: Option<Vec<Field>>,
    pub(crate) resumed: bool,
    pub(crate) epoch: String,
    /// In a snapshot: its commit; in `ok`: the commit to continue from.
    pub(crate) commit: Option<u64>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) offsets: BTreeMap<u32, u64>,
    pub(crate) rows: BTreeMap<String, Box<RawValue>>,
    pub(crate) up: BTreeMap<String, Box<RawValue>>,
    pub(crate) del: Vec<String>,
    pub(crate) more: bool,
    pub(crate) merged: bool,
    pub(crate) tok: Option<String>,
    pub(crate) lag: Option<Lag>,
    pub(crate) why: String,
    pub(crate) code: String,
    pub(crate) msg: String,
    pub(crate) retry: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    pub(crate) window: u64,
}

/// How far the projection is behind its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Lag {
    /// Events in the log that it has not applied.
    pub events: u64,
    /// Milliseconds.
    pub ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_protocol_page_is_understood() {
        let texts = [
            r#"{"t":"welcome","heartbeat_ms":15000,"expires":1790000000,"limits":{"subs":64,"frame":262144,"window":32}}"#,
            r#"{"t":"ok","id":1,"ch":7,"fields":[{"name":"product","kind":"text"},{"name":"cents","kind":"integer","unit":"EUR"}],"resumed":false}"#,
            r#"{"t":"snap","ch":7,"epoch":"k3","commit":4812,"rows":{"p1":{"product":"p1","cents":340}},"more":false,"offsets":{"0":90204},"tok":"x"}"#,
            r#"{"t":"delta","ch":7,"from":4812,"to":4815,"up":{"p1":{"product":"p1","cents":355}},"del":["p9"],"merged":true,"offsets":{"0":90210},"tok":"x"}"#,
            r#"{"t":"tick","ch":7,"from":4815,"to":4820,"lag":{"events":0,"ms":12},"offsets":{"0":90211},"tok":"x"}"#,
            r#"{"t":"reset","ch":7,"why":"epoch"}"#,
            r#"{"t":"err","id":1,"code":"no_such_table","msg":"x","retry":false}"#,
            r#"{"t":"end","id":1,"why":"x"}"#,
            r#"{"t":"expiring","in":60}"#,
            r#"{"t":"ping"}"#,
        ];
        for text in texts {
            let heard: Heard = serde_json::from_str(text).unwrap();
            assert!(text.contains(&format!("\"t\":\"{}\"", heard.t)));
        }
    }
}
