//! Creates events for tests.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An event for a test. The test sets its attributes, or reads it from the JSON of a CloudEvent.
///
/// ```
/// # use lantern_sdk::testing::TestEvent;
/// let event = TestEvent::new("order.placed")
///     .at("2026-03-01T12:00:00Z")
///     .subject("u1")
///     .data(r#"{"product": "p1", "cents": 250}"#);
/// # let _ = event;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct TestEvent {
    pub(crate) kind: String,
    pub(crate) time: Timestamp,
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) subject: String,
    pub(crate) tenant: String,
    pub(crate) dataschema: String,
    pub(crate) datacontenttype: String,
    pub(crate) extensions: String,
    pub(crate) data: Vec<u8>,
}

impl TestEvent {
    /// Creates an event of the type `kind` with the time 1970-01-01T00:00:00Z and the data `{}`.
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            time: Timestamp::default(),
            id: String::new(),
            source: "test".to_owned(),
            subject: String::new(),
            tenant: String::new(),
            dataschema: String::new(),
            datacontenttype: "application/json".to_owned(),
            extensions: "{}".to_owned(),
            data: b"{}".to_vec(),
        }
    }

    /// Sets the time, which is a text in RFC 3339.
    ///
    /// # Panics
    /// Panics if `time` is not RFC 3339.
    pub fn at(self, time: &str) -> Self {
        let time = time.parse().unwrap_or_else(|error| panic!("{error}"));
        self.time(time)
    }

    /// Sets the time.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// Sets `id`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets `source`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets `subject`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Sets `tenant`.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Sets all other extension attributes, as a JSON object.
    pub fn extensions(mut self, json: impl Into<String>) -> Self {
        self.extensions = json.into();
        self
    }

    /// Sets the data to these bytes, whether they are JSON or not.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = data.into();
        self
    }

    /// Sets the data to the JSON of `data`.
    ///
    /// # Panics
    /// Panics if it cannot be written as JSON.
    pub fn json(self, data: &impl Serialize) -> Self {
        let data = serde_json::to_vec(data);
        self.data(data.unwrap_or_else(|error| panic!("data: {error}")))
    }

    /// Reads an event from a CloudEvent in the JSON format.
    ///
    /// # Errors
    /// Returns the reason if `json` is not an event.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let event: CloudEvent<'_> = serde_json::from_str(json)?;
        let extensions = serde_json::to_string(&event.extensions)?;
        let data = event.data.map_or("null", serde_json::value::RawValue::get);
        Ok(Self {
            kind: event.kind.into_owned(),
            time: event.time,
            id: event.id.into_owned(),
            source: event.source.into_owned(),
            subject: event.subject.into_owned(),
            tenant: event.tenant.into_owned(),
            dataschema: event.dataschema.into_owned(),
            datacontenttype: event.datacontenttype.into_owned(),
            extensions,
            data: data.as_bytes().to_vec(),
        })
    }
}

#[derive(Deserialize)]
struct CloudEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    time: Timestamp,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, default)]
    subject: Cow<'a, str>,
    #[serde(borrow, default)]
    tenant: Cow<'a, str>,
    #[serde(borrow, default)]
    dataschema: Cow<'a, str>,
    #[serde(borrow, default)]
    datacontenttype: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a serde_json::value::RawValue>,
    #[serde(rename = "specversion")]
    _specversion: Cow<'a, str>,
    #[serde(flatten)]
    extensions: BTreeMap<String, serde_json::Value>,
}

/// Reads events from a text with one CloudEvent, as a JSON object, on each line.
///
/// # Panics
/// At the first line that is not an event.
#[must_use]
pub fn read_ndjson(text: &str) -> Vec<TestEvent> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            TestEvent::from_json(line)
                .unwrap_or_else(|error| panic!("line {}: {error}", number + 1))
        })
        .collect()
}
