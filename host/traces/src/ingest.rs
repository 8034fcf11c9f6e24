//! Records how events arrive: from the request to their offsets in the log.

use std::sync::Arc;

use lantern_core::{
    Appended, AppendedEvent, EventRef, EventTraces as _, Events, LogError, TraceTime,
};

use crate::context::TraceContext;
use crate::queue::count_dropped;
use crate::span::{Parent, Span, SpanId, SpanKind, TraceId, Value, new_span, new_trace};
use crate::tracer::{Tracer, event_attributes, shortened};

/// The maximum number of events of one append that are followed because their request is traced.
const FOLLOWED_MAX: usize = 256;

/// A request that may bring events.
#[derive(Clone, Copy, Debug)]
pub struct RequestTrace {
    context: Option<TraceContext>,
    began: TraceTime,
}

/// An append in progress that is recorded.
pub struct IngestTrace {
    tracer: Arc<Tracer>,
    began: TraceTime,
    /// The span of the request, if the request itself is traced.
    request: Option<RequestSpan>,
    /// The spans of those events that have a trace of their own.
    events: Vec<EventSpan>,
}

struct RequestSpan {
    trace: TraceId,
    id: SpanId,
    parent: Option<Parent>,
}

struct EventSpan {
    /// The index of the event in the append.
    index: usize,
    context: TraceContext,
    id: SpanId,
    attributes: [(&'static str, Value); 3],
}

impl Tracer {
    /// Notes that a request begins. `traceparent` is the header of this name.
    #[must_use]
    pub fn request(&self, traceparent: Option<&str>) -> RequestTrace {
        RequestTrace { context: traceparent.and_then(TraceContext::parse), began: self.now() }
    }

    /// Notes that `events` are about to be appended. Returns `None` if none of them is traced.
    #[must_use]
    pub fn ingest(self: &Arc<Self>, request: RequestTrace, events: &Events) -> Option<IngestTrace> {
        let request_span = self.request_span(&request);
        let (mut own, mut dropped, (room, reason)) = (Vec::new(), 0, self.queue.room());
        let mut followed = 0;
        for index in 0..events.len() {
            let event = events.get(index);
            match (TraceContext::of_event(event.extensions), &request_span) {
                (Some(context), _) if !context.sampled => {}
                (Some(_), _) if own.len() >= room => dropped += 1,
                (Some(context), _) => own.push(self.event_span(index, context, &event)),
                (None, Some(span)) if followed < FOLLOWED_MAX => {
                    self.ingested.add(&event, span.trace, span.id);
                    followed += 1;
                }
                (None, _) => {}
            }
        }
        count_dropped(reason, dropped);
        let traced = request_span.is_some() || !own.is_empty();
        traced.then(|| IngestTrace {
            tracer: Arc::clone(self),
            began: request.began,
            request: request_span,
            events: own,
        })
    }

    /// Returns the span of a request if the request is traced: its caller records it, or it has no
    /// `traceparent` and is chosen by `sample_ratio`.
    fn request_span(&self, request: &RequestTrace) -> Option<RequestSpan> {
        match &request.context {
            Some(TraceContext { sampled: false, .. }) => None,
            Some(context) => Some(RequestSpan {
                trace: context.trace,
                id: new_span(),
                parent: Parent::remote(context.parent),
            }),
            None if self.sample_ratio > 0.0 && fastrand::f64() < self.sample_ratio => {
                Some(RequestSpan { trace: new_trace(), id: new_span(), parent: None })
            }
            None => None,
        }
    }

    fn event_span(&self, index: usize, context: TraceContext, event: &EventRef<'_>) -> EventSpan {
        let id = new_span();
        self.ingested.add(event, context.trace, id);
        EventSpan { index, context, id, attributes: event_attributes(event) }
    }
}

impl RequestTrace {
    /// Returns the same request, from now on: a request may contain several appends.
    #[must_use]
    pub fn from_now(self, tracer: &Tracer) -> Self {
        Self { began: tracer.now(), ..self }
    }
}

impl IngestTrace {
    /// Records the result of the append.
    pub fn end(self, appended: &Result<Appended, LogError>) {
        let Self { tracer, began, request, events } = self;
        let ended = tracer.now();
        let error = appended.as_ref().err().map(|error| shortened(&error.to_string()));
        let places = appended.as_ref().map(|appended| appended.events.as_slice());
        let places = places.unwrap_or_default();
        let link = request.as_ref().map(|request| (request.trace, request.id));
        let span = |trace, id, parent, attributes| Span {
            name: "ingest",
            kind: SpanKind::Server,
            trace,
            id,
            parent,
            began,
            ended,
            attributes,
            link: link.filter(|(of, _)| *of != trace),
            error: error.clone(),
        };
        let mut spans = Vec::new();
        if let Some(RequestSpan { trace, id, parent }) = request {
            spans.push(span(trace, id, parent, append_attributes(places)));
        }
        for EventSpan { index, context, id, attributes } in events {
            let mut attributes = attributes.to_vec();
            attributes.extend(places.get(index).into_iter().flat_map(place_attributes));
            spans.push(span(context.trace, id, Parent::remote(context.parent), attributes));
        }
        tracer.queue.push(spans);
    }
}

/// Describes an append of several events.
fn append_attributes(places: &[AppendedEvent]) -> Vec<(&'static str, Value)> {
    let mut attributes = vec![("lantern.ingest.events", places.len().into())];
    if let [place] = places {
        attributes.extend(place_attributes(place));
    } else {
        let duplicates = places.iter().filter(|place| place.duplicate).count();
        attributes.push(("lantern.ingest.duplicates", duplicates.into()));
    }
    attributes
}

fn place_attributes(place: &AppendedEvent) -> [(&'static str, Value); 3] {
    [
        ("lantern.partition", place.partition.0.into()),
        ("lantern.offset", place.offset.0.into()),
        ("lantern.ingest.duplicate", place.duplicate.into()),
    ]
}

#[cfg(test)]
mod tests {
    use lantern_core::{
        Event, FoldCall, FoldOutcome, Offset, PartitionId, ShardId, Timestamp, VersionId,
    };

    use super::*;
    use crate::config::TracingConfig;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const SKIPPED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn tracer(config: TracingConfig) -> Arc<Tracer> {
        let otlp_endpoint = Some("http://127.0.0.1:1".into());
        Tracer::new(&TracingConfig { otlp_endpoint, ..config }).unwrap()
    }

    fn events(count: usize, traceparent: Option<&str>) -> Events {
        let mut events = Events::new();
        for index in 0..count {
            let extensions = traceparent.map(|text| format!(r#"{{"traceparent":"{text}"}}"#));
            let event = Event {
                id: index.to_string(),
                source: "test".into(),
                extensions: extensions.unwrap_or_default(),
                ..Event::default()
            };
            assert!(events.push(&event.as_ref()));
        }
        events
    }

    /// Returns how many of `events` belong to a trace when they are folded.
    fn folded(tracer: &Tracer, events: &Events) -> usize {
        let shard = ShardId {
            projection: "p".into(),
            version: VersionId("v".into()),
            rebuild: 0,
            partition: PartitionId(0),
        };
        let mut folded = (0..).map(Offset).zip((0..events.len()).map(|index| events.get(index)));
        tracer.folded(&shard, &FoldCall::default(), FoldOutcome::Applied, &mut folded).len()
    }

    #[test]
    fn a_request_is_followed_for_its_first_events_only() {
        let tracer = tracer(TracingConfig::default());
        let events = events(FOLLOWED_MAX + 10, None);
        let trace = tracer.ingest(tracer.request(Some(SAMPLED)), &events).unwrap();
        trace.end(&Ok(Appended::default()));
        assert_eq!(tracer.queue.take_batch().len(), 1, "one span of the request");
        assert_eq!(folded(&tracer, &events), FOLLOWED_MAX);
    }

    #[test]
    fn an_unsampled_event_makes_no_span() {
        let tracer = tracer(TracingConfig { sample_ratio: 1.0, ..TracingConfig::default() });
        let unsampled = events(3, Some(SKIPPED));
        assert!(tracer.ingest(tracer.request(Some(SKIPPED)), &unsampled).is_none());
        assert!(tracer.ingest(tracer.request(Some(SKIPPED)), &events(3, None)).is_none());
        assert_eq!(folded(&tracer, &unsampled), 0);
        assert!(tracer.queue.take_batch().is_empty());
        assert!(tracer.ingest(tracer.request(None), &events(1, None)).is_some());
    }

    #[test]
    fn events_beyond_the_rate_are_not_followed() {
        let tracer = tracer(TracingConfig { spans_per_s_max: 5, ..TracingConfig::default() });
        let events = events(100, Some(SAMPLED));
        let trace = tracer.ingest(tracer.request(None), &events).unwrap();
        assert_eq!(trace.events.len(), 5);
        trace.end(&Err(LogError::Closed));
        let spans = tracer.queue.take_batch();
        assert_eq!(spans.len(), 5);
        assert_eq!(spans[0].error.as_deref(), Some("the log is closed"));
        assert!(folded(&tracer, &events) <= 5);
    }

    #[test]
    fn events_are_recorded_up_to_their_age() {
        let tracer = tracer(TracingConfig { event_age_s_max: 60, ..TracingConfig::default() });
        let now_us = i64::try_from(tracer.now().0 / 1_000).unwrap();
        let wants = |age_s: i64| tracer.wants(Some(Timestamp(now_us - age_s * 1_000_000)));
        assert!(wants(0) && wants(50) && !wants(70));
        assert!(tracer.wants(None), "a log without append times");
        assert!(!tracer.wants(Some(Timestamp::FIRST)));
    }

    #[test]
    fn a_tracer_without_a_collector_does_not_exist() {
        assert!(Tracer::new(&TracingConfig::default()).is_none());
    }
}
