//! Records the steps of traced events: request, fold, commit, publication and frames of the feed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lantern_core::{
    EventRef, EventTraces, FoldCall, FoldOutcome, Offset, PublishedCommit, SentFrame, ShardId,
    Timestamp, TraceTime, TracedCommit, TracedEvent,
};

use crate::config::TracingConfig;
use crate::context::TraceContext;
use crate::ingested::IngestedEvents;
use crate::publish::Publications;
use crate::queue::{SpanQueue, count_dropped};
use crate::span::{Parent, Span, SpanId, SpanKind, TraceId, Value, new_span};

/// The maximum length of an error text in a span, in bytes.
const ERROR_BYTES_MAX: usize = 512;

/// Records the steps of traced events, and queues the spans for the collector.
pub struct Tracer {
    pub(crate) queue: Arc<SpanQueue>,
    pub(crate) ingested: IngestedEvents,
    pub(crate) sample_ratio: f64,
    publications: Publications,
    event_age_max_us: i64,
}

impl Tracer {
    /// Creates a tracer; `None` if `config` names no collector. The caller must have checked
    /// `config` with [`TracingConfig::check`].
    #[must_use]
    pub fn new(config: &TracingConfig) -> Option<Arc<Self>> {
        config.otlp_endpoint.as_ref()?;
        let age_us = config.event_age_s_max.saturating_mul(1_000_000);
        Some(Arc::new(Self {
            queue: Arc::new(SpanQueue::new(config)),
            ingested: IngestedEvents::default(),
            sample_ratio: config.sample_ratio,
            publications: Publications::default(),
            event_age_max_us: i64::try_from(age_us).unwrap_or(i64::MAX),
        }))
    }

    /// Calls `publish`, which passes `commit` to the feed, and records this. `subscriptions`
    /// returns how many subscriptions the projection has.
    pub fn publish(
        &self,
        commit: &PublishedCommit,
        subscriptions: impl FnOnce() -> usize,
        publish: impl FnOnce(),
    ) {
        let Some(committed) = self.publications.take(commit) else { return publish() };
        let (began, subscriptions) = (self.now(), subscriptions());
        let published = with_new_spans(&committed);
        // The events are remembered first, because a client may get the commit at once.
        self.publications.published(commit, began, subscriptions, published.clone());
        publish();
        let times = (began, self.now());
        let spans = committed.iter().zip(&published).map(|(before, event)| {
            let attributes = vec![
                ("lantern.projection", commit.projection.as_str().into()),
                ("lantern.commit", commit.pos.into()),
                ("lantern.feed.subscriptions", subscriptions.into()),
            ];
            step_after(before, ("publish", event.span), times, attributes)
        });
        self.queue.push(spans.collect());
    }

    /// Returns the trace to which `event` belongs if it is recorded, with the span that comes
    /// before the next step of the event.
    fn origin_of(&self, event: &EventRef<'_>) -> Option<(TraceId, Option<Parent>)> {
        let own = TraceContext::of_event(event.extensions);
        if own.is_some_and(|own| !own.sampled) {
            return None;
        }
        match (own, self.ingested.find(event)) {
            (Some(own), known) if known.is_none_or(|(trace, _)| trace != own.trace) => {
                Some((own.trace, Parent::remote(own.parent)))
            }
            (_, known) => known.map(|(trace, span)| (trace, Parent::local(span))),
        }
    }
}

impl EventTraces for Tracer {
    fn now(&self) -> TraceTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TraceTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn wants(&self, appended: Option<Timestamp>) -> bool {
        let now_us = i64::try_from(self.now().0 / 1_000).unwrap_or(i64::MAX);
        appended.is_none_or(|time| now_us.saturating_sub(time.0) <= self.event_age_max_us)
    }

    fn folded<'a>(
        &self,
        shard: &ShardId,
        call: &FoldCall,
        outcome: FoldOutcome<'_>,
        events: &mut dyn Iterator<Item = (Offset, EventRef<'a>)>,
    ) -> Vec<TracedEvent> {
        self.ingested.expire();
        let (ended, (room, reason)) = (self.now(), self.queue.room());
        let (mut traced, mut spans, mut dropped) = (Vec::new(), Vec::new(), 0);
        for (offset, event) in events {
            let Some((trace, parent)) = self.origin_of(&event) else { continue };
            if spans.len() >= room {
                dropped += 1;
                continue;
            }
            let id = new_span();
            traced.push(TracedEvent { offset, trace, span: id });
            spans.push(Span {
                name: "fold",
                kind: SpanKind::Internal,
                trace,
                id,
                parent,
                began: call.began,
                ended,
                attributes: fold_attributes(shard, call, outcome, (offset, &event)),
                link: None,
                error: match outcome {
                    FoldOutcome::Parked(reason) => Some(shortened(reason)),
                    FoldOutcome::Applied | FoldOutcome::Waiting => None,
                },
            });
        }
        count_dropped(reason, dropped);
        self.queue.push(spans);
        traced
    }

    fn committed(&self, shard: &ShardId, commit: &TracedCommit, events: &[TracedEvent]) {
        let committed = with_new_spans(events);
        let spans = events.iter().zip(&committed).map(|(before, event)| {
            let mut attributes = shard_attributes(shard);
            attributes.extend([
                ("lantern.commit", commit.pos.into()),
                ("lantern.commit.first_offset", commit.first.0.into()),
                ("lantern.commit.next_offset", commit.next.0.into()),
                ("lantern.commit.rows", commit.rows.into()),
                ("lantern.commit.durable", commit.durable.into()),
            ]);
            let times = (commit.began, commit.ended);
            step_after(before, ("commit", event.span), times, attributes)
        });
        self.queue.push(spans.collect());
        if commit.published {
            self.publications.add(shard, commit.pos, committed);
        }
    }

    fn sent(&self, frame: &SentFrame<'_>) {
        let mut spans = Vec::new();
        self.publications.sent(frame, |began, events| {
            let times = (began, self.now());
            spans.extend(events.iter().map(|event| {
                let attributes = vec![
                    ("lantern.projection", frame.projection.into()),
                    ("lantern.feed.session", frame.session.into()),
                    ("lantern.feed.subscription", frame.subscription.into()),
                    ("lantern.feed.frame", frame.kind.into()),
                    ("lantern.feed.commit", frame.commit.into()),
                ];
                let span = step_after(event, ("send", new_span()), times, attributes);
                Span { kind: SpanKind::Producer, ..span }
            }));
        });
        self.queue.push(spans);
    }
}

/// Returns `events`, each with a new span for its next step.
fn with_new_spans(events: &[TracedEvent]) -> Vec<TracedEvent> {
    events.iter().map(|event| TracedEvent { span: new_span(), ..*event }).collect()
}

/// Returns the span `name` of a step within the server that follows the span of `before`.
fn step_after(
    before: &TracedEvent,
    (name, id): (&'static str, SpanId),
    (began, ended): (TraceTime, TraceTime),
    attributes: Vec<(&'static str, Value)>,
) -> Span {
    Span {
        name,
        kind: SpanKind::Internal,
        trace: before.trace,
        id,
        parent: Parent::local(before.span),
        began,
        ended,
        attributes,
        link: None,
        error: None,
    }
}

/// Returns the attributes that name a shard.
fn shard_attributes(shard: &ShardId) -> Vec<(&'static str, Value)> {
    vec![
        ("lantern.projection", shard.projection.as_str().into()),
        ("lantern.version", shard.version.0.as_str().into()),
        ("lantern.partition", shard.partition.0.into()),
    ]
}

fn fold_attributes(
    shard: &ShardId,
    call: &FoldCall,
    outcome: FoldOutcome<'_>,
    (offset, event): (Offset, &EventRef<'_>),
) -> Vec<(&'static str, Value)> {
    let outcome = match outcome {
        FoldOutcome::Applied => "applied",
        FoldOutcome::Parked(_) => "parked",
        FoldOutcome::Waiting => "waits behind a parked event",
    };
    let mut attributes = shard_attributes(shard);
    attributes.extend(event_attributes(event));
    attributes.extend([
        ("lantern.offset", offset.0.into()),
        ("lantern.fold.outcome", outcome.into()),
        ("lantern.version.active", call.serves.into()),
        ("lantern.batch.first_offset", call.first.0.into()),
        ("lantern.batch.next_offset", call.next.0.into()),
        ("lantern.batch.events", call.events.into()),
    ]);
    attributes
}

/// Returns the attributes that name an event, as OpenTelemetry's conventions for CloudEvents call
/// them.
pub(crate) fn event_attributes(event: &EventRef<'_>) -> [(&'static str, Value); 3] {
    [
        ("cloudevents.event_id", event.id.into()),
        ("cloudevents.event_source", event.source.into()),
        ("cloudevents.event_type", event.kind.into()),
    ]
}

/// Returns the beginning of `text`, if it is long.
pub(crate) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(ERROR_BYTES_MAX)].to_owned()
}
