//! Defines spans: the steps of a trace, with their times.

use lantern_core::TraceTime;

/// The id of a trace.
pub(crate) type TraceId = [u8; 16];
/// The id of a span.
pub(crate) type SpanId = [u8; 8];

/// A step that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) kind: SpanKind,
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    pub(crate) parent: Option<Parent>,
    pub(crate) began: TraceTime,
    pub(crate) ended: TraceTime,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// Another trace with which this step has to do: its id, and the id of a span.
    pub(crate) link: Option<(TraceId, SpanId)>,
    /// Why the step failed; `None` if it did not fail.
    pub(crate) error: Option<String>,
}

/// The span that caused another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) id: SpanId,
    /// Whether another process recorded it.
    pub(crate) remote: bool,
}

impl Parent {
    pub(crate) fn local(id: SpanId) -> Option<Self> {
        Some(Self { id, remote: false })
    }

    pub(crate) fn remote(id: SpanId) -> Option<Self> {
        Some(Self { id, remote: true })
    }
}

/// The role of a step between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// The step is within the server.
    Internal,
    /// The step answers a request.
    Server,
    /// The step sends a message to a client.
    Producer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        (value as u64).into()
    }
}

/// Draws the id of a new trace.
pub(crate) fn new_trace() -> TraceId {
    fastrand::u128(1..).to_be_bytes()
}

/// Draws the id of a new span.
pub(crate) fn new_span() -> SpanId {
    fastrand::u64(1..).to_be_bytes()
}
