//! Holds the spans that wait for the collector, up to a limit, and limits how many spans are made
//! per second. It never blocks: spans beyond a limit are dropped and counted.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::TracingConfig;
use crate::span::Span;

/// Why spans are dropped. The texts are values of a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// More spans were made than `tracing.spans_per_s_max` allows.
    Rate,
    /// More spans wait for the collector than `tracing.queue_spans_max` allows.
    Queue,
    /// The collector could not be reached, or answered with an error.
    Collector,
    /// The collector accepted a request, but not all of its spans.
    Rejected,
}

/// Counts spans that are dropped, if there are any.
pub(crate) fn count_dropped(reason: DropReason, spans: u64) {
    if spans == 0 {
        return;
    }
    let reason = match reason {
        DropReason::Rate => "rate",
        DropReason::Queue => "queue",
        DropReason::Collector => "collector",
        DropReason::Rejected => "rejected",
    };
    metrics::counter!("lantern_trace_dropped_spans_total", "why" => reason).increment(spans);
}

/// The spans that wait for the collector.
pub(crate) struct SpanQueue {
    waiting: Mutex<Waiting>,
    /// Is notified when a whole batch waits.
    pub(crate) batch_waits: Notify,
    per_s_max: f64,
    spans_max: usize,
    batch_max: usize,
}

struct Waiting {
    spans: VecDeque<Span>,
    /// The number of spans that may be made now. It rises with time, up to the number of a second.
    allowed: f64,
    since: Instant,
}

impl SpanQueue {
    pub(crate) fn new(config: &TracingConfig) -> Self {
        let per_s_max = f64::from(config.spans_per_s_max);
        Self {
            waiting: Mutex::new(Waiting {
                spans: VecDeque::new(),
                allowed: per_s_max,
                since: Instant::now(),
            }),
            batch_waits: Notify::new(),
            per_s_max,
            spans_max: config.queue_spans_max,
            batch_max: config.batch_spans_max,
        }
    }

    /// Returns how many spans may be made now, and why further ones would be dropped.
    pub(crate) fn room(&self) -> (usize, DropReason) {
        let mut waiting = self.waiting.lock();
        waiting.refill(self.per_s_max, Instant::now());
        let allowed = waiting.allowed as usize;
        let free = self.spans_max.saturating_sub(waiting.spans.len());
        if free < allowed { (free, DropReason::Queue) } else { (allowed, DropReason::Rate) }
    }

    /// Adds spans. Those beyond a limit are dropped and counted.
    pub(crate) fn push(&self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let total = spans.len();
        let (allowed, added, waits) = {
            let mut waiting = self.waiting.lock();
            waiting.refill(self.per_s_max, Instant::now());
            let allowed = total.min(waiting.allowed as usize);
            waiting.allowed -= allowed as f64;
            let added = allowed.min(self.spans_max.saturating_sub(waiting.spans.len()));
            waiting.spans.extend(spans.into_iter().take(added));
            (allowed, added, waiting.spans.len() >= self.batch_max)
        };
        if added > 0 {
            metrics::counter!("lantern_trace_spans_total").increment(added as u64);
        }
        count_dropped(DropReason::Rate, (total - allowed) as u64);
        count_dropped(DropReason::Queue, (allowed - added) as u64);
        if waits {
            self.batch_waits.notify_one();
        }
    }

    /// Removes the oldest spans, up to the number that a request to the collector may have.
    pub(crate) fn take_batch(&self) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        let count = waiting.spans.len().min(self.batch_max);
        waiting.spans.drain(..count).collect()
    }
}

impl Waiting {
    fn refill(&mut self, per_s_max: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        (self.allowed, self.since) = ((self.allowed + passed * per_s_max).min(per_s_max), now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lantern_core::TraceTime;

    use super::*;
    use crate::span::{SpanKind, new_span, new_trace};

    fn spans(count: usize) -> Vec<Span> {
        let span = Span {
            name: "fold",
            kind: SpanKind::Internal,
            trace: new_trace(),
            id: new_span(),
            parent: None,
            began: TraceTime(1),
            ended: TraceTime(2),
            attributes: Vec::new(),
            link: None,
            error: None,
        };
        vec![span; count]
    }

    #[test]
    fn spans_beyond_the_rate_and_beyond_the_queue_are_dropped() {
        let config =
            TracingConfig { spans_per_s_max: 10, queue_spans_max: 6, ..TracingConfig::default() };
        let queue = SpanQueue::new(&config);
        queue.push(spans(4));
        assert_eq!(queue.room(), (2, DropReason::Queue));
        queue.push(spans(20));
        assert_eq!(queue.take_batch().len(), 6);
        assert_eq!(queue.room(), (0, DropReason::Rate), "the rate is used up");
        let later = Instant::now() + Duration::from_secs(100);
        let mut waiting = queue.waiting.lock();
        waiting.refill(10.0, later);
        assert!((waiting.allowed - 10.0).abs() < f64::EPSILON, "{}", waiting.allowed);
    }

    #[test]
    fn a_batch_is_no_larger_than_the_setting() {
        let config = TracingConfig { batch_spans_max: 3, ..TracingConfig::default() };
        let queue = SpanQueue::new(&config);
        queue.push(spans(7));
        let sizes = [(); 4].map(|()| queue.take_batch().len());
        assert_eq!(sizes, [3, 3, 1, 0]);
    }
}
