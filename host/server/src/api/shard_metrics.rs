//! The engine's status as Prometheus metrics.
//!
//! Written at each scrape, not kept in the recorder: a deleted version is then
//! gone from the next scrape, and a thousand idle ones cost nothing between.

use std::fmt::Write as _;

use lantern_engine::{ProjectionStatus, ShardStatus};

/// A metric of a shard: its name, type, help and value.
type Metric = (&'static str, &'static str, &'static str, fn(&ShardStatus) -> f64);

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
const METRICS: [Metric; 16] = [
    ("lantern_shard_next_offset", "gauge", "next offset to read", |s| s.next as f64),
    ("lantern_shard_lag_events", "gauge", "events not read yet", |s| known(s.lag_events)),
    ("lantern_shard_lag_seconds", "gauge", "event time not applied yet", |s| known(s.lag_ms) / 1e3),
    ("lantern_shard_commits_total", "counter", "commits made", |s| s.commit as f64),
    ("lantern_shard_applied_total", "counter", "events applied", |s| s.applied as f64),
    ("lantern_shard_late_total", "counter", "events older than the watermark", |s| s.late as f64),
    ("lantern_shard_parked", "gauge", "events parked now", |s| s.parked as f64),
    ("lantern_shard_timers_fired_total", "counter", "timers fired", |s| s.timers_fired as f64),
    ("lantern_shard_emitted_total", "counter", "events emitted", |s| s.emitted as f64),
    ("lantern_shard_fuel_total", "counter", "fuel used since the start", |s| s.fuel as f64),
    ("lantern_shard_apply_seconds_total", "counter", "time in the plugin since the start", |s| {
        s.apply_us as f64 / 1e6
    }),
    ("lantern_shard_memory_bytes", "gauge", "linear memory of the instance", |s| {
        s.memory_bytes as f64
    }),
    ("lantern_shard_state_bytes", "gauge", "the state on disk", |s| s.state_bytes as f64),
    ("lantern_shard_event_time_seconds", "gauge", "highest event time applied, since 1970", |s| {
        s.event_time_us.unwrap_or(0) as f64 / 1e6
    }),
    ("lantern_shard_halted", "gauge", "1 where a person is needed", |s| {
        f64::from(u8::from(s.activity == "halted"))
    }),
    ("lantern_shard_faulted", "gauge", "1 where the host has a fault and tries again", |s| {
        f64::from(u8::from(s.activity == "faulted"))
    }),
];

/// Appends the metrics of all shards of all versions.
pub(super) fn write(projections: &[ProjectionStatus], out: &mut String) {
    for (name, kind, help, value) in METRICS {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for projection in projections {
            for version in &projection.versions {
                for shard in &version.shards {
                    let _ = writeln!(
                        out,
                        "{name}{{projection=\"{}\",version=\"{}\",state=\"{}\",partition=\"{}\"}} {}",
                        escaped(&projection.name),
                        escaped(&version.id),
                        escaped(&version.state),
                        shard.partition,
                        value(shard)
                    );
                }
            }
        }
    }
}

/// What is not known is no number: never 0, which would say that all is well.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn known(count: Option<u64>) -> f64 {
    count.map_or(f64::NAN, |count| count as f64)
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
