//! Writes the engine's status as Prometheus metrics.
//!
//! The values are calculated when Prometheus reads the metrics, and are not stored. So a deleted
//! version is missing at the next read, and idle versions take no time in between.

use std::fmt::Write as _;

use lantern_engine::{ProjectionStatus, ShardStatus};

/// A metric of a shard: its name, its type, its help text, and the function that returns its value.
type Metric = (&'static str, &'static str, &'static str, fn(&ShardStatus) -> f64);

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
const METRICS: [Metric; 22] = [
    ("lantern_shard_next_offset", "gauge", "Next offset to read.", |s| s.next as f64),
    ("lantern_shard_lag_events", "gauge", "Events not read yet.", |s| known(s.lag_events)),
    ("lantern_shard_lag_seconds", "gauge", "Event time not applied yet, in seconds.", |s| {
        known(s.lag_ms) / 1e3
    }),
    ("lantern_shard_commits_total", "counter", "Commits.", |s| s.commit as f64),
    ("lantern_shard_applied_total", "counter", "Events applied.", |s| s.applied as f64),
    ("lantern_shard_late_total", "counter", "Events older than the watermark.", |s| s.late as f64),
    ("lantern_shard_parked_events", "gauge", "Events parked now.", |s| s.parked as f64),
    ("lantern_shard_timers_fired_total", "counter", "Timers fired.", |s| s.timers_fired as f64),
    ("lantern_shard_emitted_total", "counter", "Events emitted.", |s| s.emitted as f64),
    (
        "lantern_shard_emitted_per_second",
        "gauge",
        "Events emitted per second, recent average.",
        |s| s.emitted_per_s,
    ),
    ("lantern_shard_unsent_events", "gauge", "Emitted events that are not in the log yet.", |s| {
        s.unsent as f64
    }),
    (
        "lantern_shard_ahead_total",
        "counter",
        "Events too far ahead of their append to move the watermark.",
        |s| s.ahead as f64,
    ),
    ("lantern_shard_durable_offset", "gauge", "Offset up to which events are durable.", |s| {
        s.durable as f64
    }),
    ("lantern_shard_emit_depth", "gauge", "Highest emit depth of an emitted event.", |s| {
        f64::from(s.emit_depth)
    }),
    (
        "lantern_shard_second_fold_differences_total",
        "counter",
        "Batches with a different result when they were folded a second time.",
        |s| s.second_fold_differences as f64,
    ),
    ("lantern_shard_fuel_total", "counter", "Fuel used since the start.", |s| s.fuel as f64),
    (
        "lantern_shard_apply_seconds_total",
        "counter",
        "Time spent in the plugin since the start, in seconds.",
        |s| s.apply_us as f64 / 1e6,
    ),
    ("lantern_shard_memory_bytes", "gauge", "Linear memory of the instance, in bytes.", |s| {
        s.memory_bytes as f64
    }),
    ("lantern_shard_state_bytes", "gauge", "The state on disk, in bytes.", |s| {
        s.state_bytes as f64
    }),
    (
        "lantern_shard_event_timestamp_seconds",
        "gauge",
        "Highest event time applied, in seconds since 1970.",
        // NaN means that there was no event yet. 0 would mean the year 1970.
        |s| s.event_time_us.map_or(f64::NAN, |us| us as f64 / 1e6),
    ),
    ("lantern_shard_halted", "gauge", "1 if the shard is halted until an operator acts.", |s| {
        f64::from(u8::from(s.activity == "halted"))
    }),
    ("lantern_shard_faulted", "gauge", "1 if the shard has a fault; the host tries again.", |s| {
        f64::from(u8::from(s.activity == "faulted"))
    }),
];

/// The metric that has the state of each version as a label. The other metrics have no such label,
/// because then every activation would end the time series of their counters and begin new ones.
const VERSION_INFO: &str = "lantern_version_info";

/// Appends the metrics of all shards of all versions.
pub(super) fn write(projections: &[ProjectionStatus], out: &mut String) {
    write_versions(projections, out);
    for (name, kind, help, value) in METRICS {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for projection in projections {
            for version in &projection.versions {
                for shard in &version.shards {
                    let _ = writeln!(
                        out,
                        "{name}{{projection=\"{}\",version=\"{}\",partition=\"{}\"}} {}",
                        escaped(&projection.name),
                        escaped(&version.id),
                        shard.partition,
                        value(shard)
                    );
                }
            }
        }
    }
}

fn write_versions(projections: &[ProjectionStatus], out: &mut String) {
    let help = "All versions and their states; always 1.";
    let _ = write!(out, "# HELP {VERSION_INFO} {help}\n# TYPE {VERSION_INFO} gauge\n");
    for projection in projections {
        for version in &projection.versions {
            let _ = writeln!(
                out,
                "{VERSION_INFO}{{projection=\"{}\",version=\"{}\",state=\"{}\"}} 1",
                escaped(&projection.name),
                escaped(&version.id),
                escaped(&version.state),
            );
        }
    }
}

/// Converts a count to the value of a metric. An unknown count is NaN, because 0 would look like a
/// good value.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn known(count: Option<u64>) -> f64 {
    count.map_or(f64::NAN, |count| count as f64)
}

/// Escapes the value of a label.
pub(super) fn escaped(label: &str) -> String {
    escaped_help(label).replace('"', "\\\"")
}

/// Escapes a help text. Quotes in it stay as they are.
pub(super) fn escaped_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}
