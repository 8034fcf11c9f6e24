//! Sends spans to the collector over OTLP (HTTP, protobuf). If the collector does not answer, spans
//! wait in the queue up to its limit; nothing else waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};

use crate::config::TracingConfig;
use crate::otlp::{self, Origin};
use crate::queue::{DropReason, SpanQueue, count_dropped};
use crate::tracer::Tracer;

/// How often a batch is sent before it is dropped.
const TRIES: u32 = 4;
/// The maximum size of a collector's answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The wait before the second try. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long the last spans may take when the server stops.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// The least time between two log lines about a collector that does not accept spans.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Sends the spans of a tracer to the collector.
pub struct Exporter {
    queue: Arc<SpanQueue>,
    client: Client,
    url: Url,
    origin: Origin,
    export: Duration,
    /// When the last failure was logged; `None` if the collector accepted the last spans.
    logged: Option<Instant>,
}

/// Why a batch was not accepted.
struct ExportError {
    reason: String,
    /// Whether another try may succeed.
    retry: bool,
}

impl Exporter {
    /// Creates the exporter of `tracer`.
    ///
    /// # Errors
    /// Returns a sentence if a setting is wrong, or if the HTTP client cannot be created.
    pub fn new(tracer: &Tracer, config: &TracingConfig) -> Result<Self, String> {
        let url = config.url()?.ok_or("`otlp_endpoint` is not set")?;
        let client = Client::builder()
            .timeout(Duration::from_millis(config.timeout_ms_max))
            // The address names the collector itself.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("the client for the collector cannot be created: {error}"))?;
        let instance = hex::encode(crate::span::new_trace());
        Ok(Self {
            queue: Arc::clone(&tracer.queue),
            client,
            url,
            origin: Origin::new(&config.service_name, &instance),
            export: Duration::from_millis(config.export_ms),
            logged: None,
        })
    }

    /// Sends spans until `stopping` completes. Then it tries once to send the spans that wait.
    pub async fn run(mut self, stopping: impl Future<Output = ()>) {
        tokio::select! {
            never = self.export_all() => match never {},
            () = stopping => {}
        }
        let last = async {
            while let Some((batch, spans)) = self.next_batch() {
                if let Err(error) = self.post(batch).await {
                    self.dropped(&error, spans);
                    return;
                }
            }
        };
        // The server does not wait longer for a collector that does not answer.
        let _ = tokio::time::timeout(LAST_PATIENCE, last).await;
    }

    async fn export_all(&mut self) -> std::convert::Infallible {
        loop {
            let _ = tokio::time::timeout(self.export, self.queue.batch_waits.notified()).await;
            while let Some((batch, spans)) = self.next_batch() {
                self.deliver(batch, spans).await;
            }
        }
    }

    /// Returns the next spans, encoded, with their number; `None` if no spans wait.
    fn next_batch(&self) -> Option<(Vec<u8>, u64)> {
        let spans = self.queue.take_batch();
        let count = spans.len() as u64;
        (count > 0).then(|| (otlp::encode(&self.origin, spans), count))
    }

    /// Sends a batch. If the collector does not accept it after several tries, it is dropped.
    async fn deliver(&mut self, batch: Vec<u8>, spans: u64) {
        let mut wait = FIRST_WAIT;
        for tries in 1.. {
            match self.post(batch.clone()).await {
                Ok((rejected, reason)) => return self.accepted(spans, rejected, &reason),
                Err(error) if error.retry && tries < TRIES => {
                    self.log_failure(&error, "they are sent again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => return self.dropped(&error, spans),
            }
        }
    }

    /// Sends a batch once. Returns how many spans the collector rejected, and why.
    async fn post(&self, batch: Vec<u8>) -> Result<(u64, String), ExportError> {
        let request = self.client.post(self.url.clone());
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(batch);
        let mut answer = request.send().await.map_err(|error| unreachable_collector(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let retry = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            );
            return Err(ExportError { reason: format!("it answers {status}"), retry });
        }
        let mut body = Vec::new();
        while let Some(piece) =
            answer.chunk().await.map_err(|error| unreachable_collector(&error))?
        {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(otlp::rejected(&body))
    }

    fn accepted(&mut self, spans: u64, rejected: u64, reason: &str) {
        let rejected = rejected.min(spans);
        metrics::counter!("lantern_trace_exported_spans_total").increment(spans - rejected);
        count_dropped(DropReason::Rejected, rejected);
        if rejected > 0 {
            tracing::debug!(rejected, reason, "the trace collector rejected spans");
        }
        if self.logged.take().is_some() {
            tracing::info!(collector = %self.url, "the trace collector accepts spans again");
        }
    }

    fn dropped(&mut self, error: &ExportError, spans: u64) {
        count_dropped(DropReason::Collector, spans);
        self.log_failure(error, "they are dropped");
    }

    /// Counts a failure, and logs it if the last log line is old enough.
    fn log_failure(&mut self, error: &ExportError, then: &str) {
        metrics::counter!("lantern_trace_export_failures_total").increment(1);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let (collector, reason) = (&self.url, &error.reason);
            tracing::warn!(%collector, reason, "the trace collector did not accept spans; {then}");
        }
    }
}

/// Describes why a request got no answer, with its causes.
fn unreachable_collector(error: &reqwest::Error) -> ExportError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    ExportError { reason, retry: true }
}
