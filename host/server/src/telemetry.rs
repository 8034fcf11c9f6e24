//! Sets up the log lines and metrics of the process.

use std::io::{IsTerminal as _, Write};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use MetricKind::{Counter, Gauge, Histogram};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// The log lines are text for people.
    #[default]
    Human,
    /// A JSON object on each line.
    Json,
}

/// Why logging cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TracingError {
    /// The text is not a valid filter for log lines.
    #[error(
        "`{filter}` is not a log filter: {reason}; write a level, or `target=level` separated by commas"
    )]
    Filter {
        /// The text of the filter.
        filter: String,
        /// Why the text is invalid.
        reason: String,
    },
    /// Logging is already set up.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging: writes log lines of the process to standard error, as far as `filter` accepts
/// them. A filter is a level such as `info`, or a list such as `warn,lantern_engine=debug`.
///
/// # Errors
/// Returns [`TracingError`] if the filter is invalid or logging is already set up.
pub fn init_tracing(format: LogFormat, filter: &str) -> Result<(), TracingError> {
    let filter: Targets = filter.parse().map_err(|error: ParseError| TracingError::Filter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| EscapedStderr(std::io::stderr()))
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Human => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines).with(filter);
    subscriber.try_init().map_err(|_| TracingError::Twice)
}

/// A writer to standard error that replaces some characters. Otherwise a sender's text could make a
/// log line look different. The replaced characters are those that change the writing direction,
/// and control characters that the formatter does not escape.
struct EscapedStderr<W>(W);

impl<W: Write> Write for EscapedStderr<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if text.chars().any(hides) {
            let shown: String =
                text.chars().map(|c| if hides(c) { '\u{FFFD}' } else { c }).collect();
            self.0.write_all(shown.as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Returns whether `c` is replaced in log lines. ESC is not replaced, because the formatter writes
/// it for colours; in values the formatter escapes it.
fn hides(c: char) -> bool {
    let control = c.is_control() && !matches!(c, '\n' | '\t' | '\u{1b}');
    let direction = matches!(
        c,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    );
    control || direction || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The upper bounds of the histograms' buckets, in seconds.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The descriptions of the metrics of this crate, and of crates that do not describe their metrics
/// themselves. A test checks that every metric has a description.
pub(crate) const FAMILIES: &[(MetricKind, &str, &str)] = &[
    (Counter, "lantern_dead_letters_total", "Parked events copied to the dead-letter topic."),
    (Counter, "lantern_engine_commits_total", "Commits of a projection's shards."),
    (Counter, "lantern_engine_faults_total", "Faults of the host in a shard."),
    (Counter, "lantern_engine_halts_total", "Times a shard was halted."),
    (Counter, "lantern_feed_closed_total", "Feed sessions closed by the server, by close code."),
    (Counter, "lantern_feed_frames_total", "Frames written to feed sessions, by kind."),
    (Counter, "lantern_feed_merges_total", "Merges of changes for readers that lag."),
    (Counter, "lantern_feed_resets_total", "Subscriptions that were reset, by reason."),
    (Gauge, "lantern_feed_sessions", "Open feed sessions."),
    (Gauge, "lantern_feed_subscriptions", "Subscriptions of all feed sessions."),
    (Counter, "lantern_heartbeats_total", "Heartbeats appended to idle partitions."),
    (Histogram, "lantern_http_request_seconds", "Time to answer a request, by route."),
    (Counter, "lantern_http_requests_total", "Requests answered, by route, method and status."),
    (Counter, "lantern_ingest_appended_total", "Events appended over HTTP."),
    (
        Counter,
        "lantern_ingest_differing_duplicates_total",
        "Events not appended over HTTP because another has their tenant, source and id.",
    ),
    (Counter, "lantern_ingest_duplicates_total", "Events sent again over HTTP."),
    (Counter, "lantern_ingest_refused_total", "Requests whose events were refused, by code."),
    (Counter, "lantern_ingest_rejected_total", "Events refused within accepted requests."),
    (
        Counter,
        "lantern_log_cursors_replaced_total",
        "Kafka cursors that were started again because they received no records.",
    ),
    (Counter, "lantern_plugin_cache_hits_total", "Compiled plugins found in the cache, by place."),
    (Counter, "lantern_plugin_cache_misses_total", "Compiled plugins not found in the cache."),
    (
        Counter,
        "lantern_plugin_cache_refused_total",
        "Files of the cache of compiled plugins that were refused as damaged.",
    ),
    (Histogram, "lantern_plugin_compile_seconds", "Time to compile a plugin."),
    (Counter, "lantern_plugin_compiles_total", "Compilations, by outcome."),
    (Gauge, "lantern_plugin_instances", "Instances of plugins in memory."),
    (Counter, "lantern_plugin_instances_total", "Instances of plugins created."),
    (Counter, "lantern_plugin_traps_total", "Traps of plugins, by kind."),
    (
        Counter,
        "lantern_trace_dropped_spans_total",
        "Spans of traces that the collector did not get, by reason.",
    ),
    (
        Counter,
        "lantern_trace_export_failures_total",
        "Requests with spans that the trace collector did not accept.",
    ),
    (
        Counter,
        "lantern_trace_exported_spans_total",
        "Spans of traces that the collector has accepted.",
    ),
    (Counter, "lantern_trace_spans_total", "Spans of traces that were made for the collector."),
    (Counter, "lantern_verify_differences_total", "Verifications that found a difference."),
    (Counter, "lantern_verify_events_total", "Events folded by verifications."),
    (Counter, "lantern_verify_runs_total", "Verifications that ended, by verdict."),
];

fn describe() {
    for &(kind, name, help) in FAMILIES {
        match kind {
            Counter => metrics::describe_counter!(name, help),
            Gauge => metrics::describe_gauge!(name, help),
            Histogram => metrics::describe_histogram!(name, help),
        }
    }
}

/// Returns the handle of the process's metrics. The first call sets them up.
pub(crate) fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets(&SECONDS)
                .expect("the list of bounds is not empty")
                .build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed: /metrics stays empty");
            }
            describe();
            handle
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_shows_a_senders_text_without_obeying_it() {
        let mut line = Vec::new();
        let text = "refused \u{202e}gnp.exe\u{9b}2J\u{7}ü\n";
        EscapedStderr(&mut line).write_all(text.as_bytes()).unwrap();
        let shown = String::from_utf8(line).unwrap();
        assert_eq!(shown, "refused \u{FFFD}gnp.exe\u{FFFD}2J\u{FFFD}ü\n");
    }
}
