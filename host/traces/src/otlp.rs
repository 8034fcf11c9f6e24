//! Encodes spans as OTLP (protobuf), and decodes the collector's answer.

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as OtlpSpan, SpanFlags, Status, span, status,
};
use prost::Message as _;

use crate::span::{Span, SpanKind, Value};

/// The flag of a trace that is recorded (W3C Trace Context).
const SAMPLED: u32 = 1;

/// Describes this server to the collector.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    resource: Resource,
}

impl Origin {
    /// Creates the description of the server `service`. `instance` distinguishes processes with
    /// this name.
    pub(crate) fn new(service: &str, instance: &str) -> Self {
        let attributes = vec![
            attribute("service.name", service.into()),
            attribute("service.version", env!("CARGO_PKG_VERSION").into()),
            attribute("service.instance.id", instance.into()),
        ];
        Self { resource: Resource { attributes, ..Resource::default() } }
    }
}

/// Encodes a request to the collector.
pub(crate) fn encode(origin: &Origin, spans: Vec<Span>) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "lantern".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.into_iter().map(otlp_span).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(origin.resource.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// Reads from the collector's answer how many spans it has not accepted, and why. An answer that
/// cannot be decoded counts as one that accepts all spans.
pub(crate) fn rejected(answer: &[u8]) -> (u64, String) {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    (u64::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message)
}

fn otlp_span(span: Span) -> OtlpSpan {
    let remote = span.parent.is_some_and(|parent| parent.remote);
    let mut flags = SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32;
    if remote {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    let kind = match span.kind {
        SpanKind::Internal => span::SpanKind::Internal,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Producer => span::SpanKind::Producer,
    };
    OtlpSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.id.to_vec()).unwrap_or_default(),
        flags,
        name: span.name.into(),
        kind: kind as i32,
        start_time_unix_nano: span.began.0,
        // A clock that was set back must not give a negative duration.
        end_time_unix_nano: span.ended.0.max(span.began.0),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        links: span.link.map(link).into_iter().collect(),
        status: span
            .error
            .map(|message| Status { message, code: status::StatusCode::Error as i32 }),
        ..OtlpSpan::default()
    }
}

fn link((trace, span): ([u8; 16], [u8; 8])) -> span::Link {
    span::Link { trace_id: trace.to_vec(), span_id: span.to_vec(), ..span::Link::default() }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Integer(integer) => any_value::Value::IntValue(integer),
        Value::Boolean(boolean) => any_value::Value::BoolValue(boolean),
    };
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
