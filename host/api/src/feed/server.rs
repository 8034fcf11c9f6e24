//! Defines the messages that the server sends.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::RawJson;
use crate::shape::ShapeChange;

/// A message of the server. Its member `t` names its kind. `snap`, `delta` and `tick`
/// are data frames, which a client acknowledges; all others are control frames.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum ServerMessage {
    /// The answer to `hello`.
    Welcome(Welcome),
    /// The subscription is open.
    Ok(Subscribed),
    /// Rows of the table; all parts together replace all rows that the client has.
    Snap(Snapshot),
    /// The changes of the table from one commit to another.
    Delta(Delta),
    /// Nothing changed in this table, but the commit moved or the subscription is idle.
    Tick(Tick),
    /// The client cannot continue from its rows: a `snap` follows.
    Reset(Reset),
    /// The server refused a subscription.
    Err(Refused),
    /// An open subscription has ended.
    End(Ended),
    /// Asks for a `pong`.
    Ping,
    /// Only in an event stream: the server closes it. A WebSocket has a close frame for this.
    Close(Closing),
}

/// The members of `welcome`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// How often the server sends `ping` and, on an idle subscription, `tick`, in
    /// milliseconds.
    pub heartbeat_ms: u64,
    /// Limits that a client needs to know.
    pub limits: FrameLimits,
}

/// The limits of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FrameLimits {
    /// The maximum number of subscriptions.
    pub subs: usize,
    /// The maximum number of bytes of a frame to the client.
    pub frame: usize,
    /// The maximum number of data frames that are not acknowledged.
    pub window: u32,
}

/// The members of `ok`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscribed {
    /// The subscription's `id`.
    pub id: u64,
    /// The channel of the subscription. The subscription's frames contain it in place of `id`.
    pub ch: u64,
    /// The fields of the rows, in order.
    pub fields: Vec<Field>,
    /// The hash of the table's shape: its fields with kinds and units, and whether keys begin with
    /// a tenant. For a roll-up it is the shape of the table whose rows are grouped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Whether the token was accepted. If so, the client keeps its rows; if not, a snapshot
    /// follows.
    pub resumed: bool,
    /// Only if resumed: the commit of the client's rows, which the next frame continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
}

/// A field of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Field {
    /// The JSON object's key.
    pub name: String,
    /// `integer`, `number`, `text`, `boolean`, `timestamp` or `json`, or a sketch:
    /// `distinct` or `percentiles`.
    pub kind: String,
    /// A unit for people; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

/// The members of `snap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// The channel.
    pub ch: u64,
    /// Identifies one history of the table. Commits of different epochs cannot be compared.
    pub epoch: String,
    /// The commit of the rows; the same in all parts.
    pub commit: u64,
    /// Rows by key.
    #[cfg_attr(feature = "schema", schemars(with = "Rows"))]
    pub rows: BTreeMap<String, RawJson>,
    /// Whether another part follows.
    pub more: bool,
    /// The next offset of each partition: the first offset that the rows do not contain. Only in
    /// the last part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Offsets"))]
    pub offsets: BTreeMap<u32, u64>,
    /// Only in the last part: the token to resume from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok: Option<String>,
}

/// The members of `delta`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Delta {
    /// The channel.
    pub ch: u64,
    /// The commit that the client has.
    pub from: u64,
    /// The commit after the changes.
    pub to: u64,
    /// Rows that were written, by key.
    #[cfg_attr(feature = "schema", schemars(with = "Rows"))]
    pub up: BTreeMap<String, RawJson>,
    /// Keys that were deleted.
    pub del: Vec<String>,
    /// Whether another part with the same `from` and `to` follows. Missing in the last part.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
    /// Whether several commits were merged; missing if not. Only in the last part.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merged: bool,
    /// The next offset of each partition: the first offset that the rows do not contain. Only in
    /// the last part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Offsets"))]
    pub offsets: BTreeMap<u32, u64>,
    /// Only in the last part: the token to resume from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok: Option<String>,
}

/// The members of `tick`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tick {
    /// The channel.
    pub ch: u64,
    /// The commit that the client has.
    pub from: u64,
    /// The newest commit; equal to `from` if it has not moved.
    pub to: u64,
    /// How far the projection is behind its log, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// The next offset of each partition: the first offset that the rows do not contain.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Offsets"))]
    pub offsets: BTreeMap<u32, u64>,
    /// The token to resume from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok: Option<String>,
}

/// How far a projection is behind its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lag {
    /// Events in the log that the projection has not applied.
    pub events: u64,
    /// Milliseconds.
    pub ms: u64,
}

/// The members of `reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reset {
    /// The channel.
    pub ch: u64,
    /// Why the client cannot continue.
    pub why: ResetReason,
    /// The table's fields, if they may have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<Field>>,
    /// The hash of the table's shape, as in `ok`, if `fields` is present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
}

/// Why a subscription starts again with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The table has another epoch.
    Epoch,
    /// The token is of the same epoch and of another history.
    History,
    /// The change log does not reach back to the token.
    TooOld,
    /// There were more changes than the server merges.
    Overflow,
    /// The token is of another table or release, or is not a token.
    Fields,
    /// A reason of a later release.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other,
}

impl ResetReason {
    /// The name of the reason in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::History => "history",
            Self::TooOld => "too_old",
            Self::Overflow => "overflow",
            Self::Fields => "fields",
            Self::Other => "other",
        }
    }
}

/// The members of `err`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// The subscription's `id`.
    pub id: u64,
    /// A stable identifier: `no_such_table`, `not_active`, `unavailable`, `not_supported`,
    /// `too_large`, `id_in_use`, `too_many_subs` or `shape`. It can also be a code of the HTTP API:
    /// `LAN-0426`, `LAN-0427` or `LAN-0428`.
    pub code: Cow<'static, str>,
    /// A sentence for people.
    pub msg: String,
    /// Whether the same subscription can succeed later.
    pub retry: bool,
    /// The wrong member of `sub` or of its `rollup`. Only with `LAN-0426` and `shape`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<Cow<'static, str>>,
    /// Only with `LAN-0427`: the setting of the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<Cow<'static, str>>,
    /// Only with `shape`: what differs from the shape for which the client was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ShapeChange>,
}

/// The members of `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ended {
    /// The subscription's `id`.
    pub id: u64,
    /// A sentence for people; `unsubscribed` after `unsub`.
    pub why: String,
    /// `shape` if the table no longer has the shape for which the client was written. The code of the
    /// HTTP API if the query is the reason: `LAN-0426`, `LAN-0427` or `LAN-0428`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
    /// Only with `shape`: what differs from the shape for which the client was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ShapeChange>,
}

/// The members of `close`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Closing {
    /// The code that a WebSocket would be closed with; see [`super::close`].
    pub code: u16,
    /// A sentence for people.
    pub why: String,
}

/// Rows by key, in the schema.
#[cfg(feature = "schema")]
type Rows = BTreeMap<String, serde_json::Map<String, serde_json::Value>>;

/// Offsets by partition, in the schema.
#[cfg(feature = "schema")]
type Offsets = BTreeMap<String, u64>;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl ServerMessage {
    /// The message as the text of a frame.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always encode")
    }

    /// Reads the text of a frame. If this release does not know the kind of the message, the
    /// function returns `None`, and a client can ignore the message. Unknown members are ignored
    /// too.
    ///
    /// # Errors
    /// Fails if the text is not a message of the protocol.
    // `Deserialize` is not derived. A derived implementation would first read the members into a
    // buffer, and raw rows cannot be read from such a buffer.
    pub fn parse(text: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match &*kind(text)? {
            "welcome" => Self::Welcome(serde_json::from_str(text)?),
            "ok" => Self::Ok(serde_json::from_str(text)?),
            "snap" => Self::Snap(serde_json::from_str(text)?),
            "delta" => Self::Delta(serde_json::from_str(text)?),
            "tick" => Self::Tick(serde_json::from_str(text)?),
            "reset" => Self::Reset(serde_json::from_str(text)?),
            "err" => Self::Err(serde_json::from_str(text)?),
            "end" => Self::End(serde_json::from_str(text)?),
            "ping" => Self::Ping,
            "close" => Self::Close(serde_json::from_str(text)?),
            _ => return Ok(None),
        }))
    }
}

/// The member `t` of a message, which names the kind of the message.
fn kind(text: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        t: Cow<'a, str>,
    }

    // The server writes `t` as the first member. Then the kind is known before the rows, so the
    // rows are read only once, later.
    let first = text.strip_prefix("{\"t\":\"").and_then(|rest| rest.split_once('"'));
    match first {
        Some((kind, _)) if !kind.contains('\\') => Ok(Cow::Borrowed(kind)),
        _ => Ok(serde_json::from_str::<Kind<'_>>(text)?.t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_protocol_page_is_read_and_written_unchanged() {
        for text in [
            r#"{"t":"welcome","heartbeat_ms":15000,"limits":{"subs":64,"frame":262144,"window":32}}"#,
            r#"{"t":"ok","id":1,"ch":7,"fields":[{"name":"product","kind":"text"},{"name":"cents","kind":"integer","unit":"EUR"}],"resumed":false}"#,
            r#"{"t":"ok","id":1,"ch":7,"fields":[],"shape":"0123456789abcdef","resumed":true,"commit":14}"#,
            r#"{"t":"snap","ch":7,"epoch":"k3","commit":4812,"rows":{"p1":{"cents":1e400}},"more":true}"#,
            r#"{"t":"snap","ch":7,"epoch":"k3","commit":4812,"rows":{"p2":{"cents":340}},"more":false,"offsets":{"0":90204},"tok":"x"}"#,
            r#"{"t":"delta","ch":7,"from":4812,"to":4815,"up":{"p1":{"cents":355}},"del":["p9"],"more":true}"#,
            r#"{"t":"delta","ch":7,"from":4812,"to":4815,"up":{},"del":[],"merged":true,"offsets":{"0":90210},"tok":"x"}"#,
            r#"{"t":"tick","ch":7,"from":4815,"to":4820,"lag":{"events":0,"ms":12},"offsets":{"0":90211},"tok":"x"}"#,
            r#"{"t":"reset","ch":7,"why":"too_old"}"#,
            r#"{"t":"err","id":1,"code":"no_such_table","msg":"x","retry":false}"#,
            r#"{"t":"err","id":1,"code":"LAN-0426","msg":"x","retry":false,"parameter":"where"}"#,
            r#"{"t":"err","id":1,"code":"LAN-0427","msg":"x","retry":false,"setting":"query.groups_max"}"#,
            r#"{"t":"end","id":1,"why":"x"}"#,
            r#"{"t":"end","id":1,"why":"x","code":"LAN-0428"}"#,
            r#"{"t":"end","id":1,"why":"x","code":"shape","changes":[{"field":"n","before":"integer (s)"},{"before":"key","after":"tenant, key"}]}"#,
            r#"{"t":"ping"}"#,
            r#"{"t":"close","code":4501,"why":"x"}"#,
        ] {
            let message = ServerMessage::parse(text).unwrap().unwrap();
            assert_eq!(message.text(), text);
        }
    }

    #[test]
    fn kinds_members_and_reasons_of_later_releases_are_no_errors() {
        assert_eq!(ServerMessage::parse(r#"{"t":"expiring","in":60}"#).unwrap(), None);
        let ping = ServerMessage::parse(r#"{ "sent": 5, "t": "p\u0069ng" }"#).unwrap();
        assert_eq!(ping, Some(ServerMessage::Ping));
        let reset = ServerMessage::parse(r#"{"t":"reset","ch":1,"why":"access"}"#).unwrap();
        let expected = Reset { ch: 1, why: ResetReason::Other, fields: None, shape: None };
        assert_eq!(reset, Some(ServerMessage::Reset(expected)));
        assert!(ServerMessage::parse(r#"{"t":"tick","ch":1}"#).is_err());
        assert!(ServerMessage::parse("[]").is_err());
    }
}
