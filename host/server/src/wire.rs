//! Converts the engine's reports to the wire types of [`lantern_api`]. The engine does not use
//! the wire types.
//!
//! `convert!` lists each member once and uses the list for both types, so a member that only
//! one of them has is a compile error.

use lantern_api as api;
use lantern_engine as engine;

/// Converts a struct of the engine to the struct of the same name in the API. A call first
/// lists the members that stay as they are and, after `;`, those that are converted.
macro_rules! convert {
    ($it:ident, $Type:ident { $($same:ident),* $(; $($other:ident = $value:expr),* $(,)?)? }) => {{
        let engine::$Type { $($same,)* $($($other,)*)? } = $it;
        api::$Type { $($same,)* $($($other: $value,)*)? }
    }};
}

/// A projection.
pub(crate) fn projection(it: engine::ProjectionStatus) -> api::ProjectionStatus {
    convert!(it, ProjectionStatus {
        name, paused, active, previous, epoch;
        versions = versions.into_iter().map(version).collect(),
        verified = verified.map(verification),
    })
}

/// A version.
pub(crate) fn version(it: engine::VersionStatus) -> api::VersionStatus {
    convert!(it, VersionStatus {
        id, sha256, parameters, plugin_version, description, state, activity, reason,
        created_us, percent, events_per_s, intake_per_s, eta_s, parked, waiting, late,
        not_activated, differs, subscribes;
        source = source.map(self::source),
        tables = tables.into_iter().map(table).collect(),
        shards = shards.into_iter().map(shard).collect(),
    })
}

/// A source.
fn source(it: engine::SourceStatus) -> api::SourceStatus {
    convert!(it, SourceStatus { name, bytes, sha256 })
}

/// A table.
fn table(it: engine::TableStatus) -> api::TableStatus {
    convert!(it, TableStatus {
        name, description, public, per_tenant;
        fields = fields.into_iter().map(field).collect(),
    })
}

/// A field.
fn field(it: engine::FieldStatus) -> api::FieldStatus {
    convert!(it, FieldStatus { name, kind, unit })
}

/// A shard.
fn shard(it: engine::ShardStatus) -> api::ShardStatus {
    convert!(it, ShardStatus {
        partition, activity, reason, next, committed, durable, end, lag_events, lag_ms,
        commit, applied, late, parked, waiting, unreadable_left_out, timers_fired, emitted,
        emitted_per_s, unsent, refused, held_by_unsent, emit_depth, second_folds,
        second_fold_differences, second_fold_last, ahead, watermark_us, event_time_us, fuel,
        apply_us, memory_bytes, state_bytes;
        ahead_last = ahead_last.map(ahead_event),
    })
}

/// An event far ahead of its append.
pub(crate) fn ahead_event(it: engine::AheadStatus) -> api::AheadStatus {
    convert!(it, AheadStatus { offset, id, source, time_us })
}

/// A plugin's message.
#[must_use]
pub fn log_line(it: engine::LogLine) -> api::LogLine {
    convert!(it, LogLine { time_us, version, partition, offset, level, message })
}

/// The result of an upload.
pub(crate) fn uploaded(it: engine::Uploaded) -> api::Uploaded {
    convert!(it, Uploaded { projection, version, existed, checked_events, warnings })
}

/// A page of parked events.
pub(crate) fn parked_page(it: engine::ParkedPage) -> api::ParkedPage {
    convert!(it, ParkedPage {
        total, waiting, next;
        parked = parked.into_iter().map(parked_event).collect(),
    })
}

/// A parked event.
#[must_use]
pub fn parked_event(it: engine::ParkedStatus) -> api::ParkedStatus {
    convert!(
        it,
        ParkedStatus {
            partition,
            offset,
            kind,
            id,
            source,
            event_type,
            tenant,
            subject,
            time_us,
            data,
            reason,
            backtrace,
            attempts
        }
    )
}

/// The result of a retry or a drop.
pub(crate) fn parked_outcome(it: engine::ParkedOutcome) -> api::ParkedOutcome {
    convert!(it, ParkedOutcome { selected, done, failed, waiting })
}

/// Parked events in groups.
pub(crate) fn parked_summary(it: engine::ParkedSummary) -> api::ParkedSummary {
    convert!(it, ParkedSummary {
        total, failed, waiting, more_reasons;
        reasons = reasons.into_iter().map(parked_reason).collect(),
    })
}

/// A group of parked events.
fn parked_reason(it: engine::ParkedReason) -> api::ParkedReason {
    convert!(it, ParkedReason { reason, failed, waiting, partition, offset })
}

/// A verification.
pub(crate) fn verification(it: engine::VerifyStatus) -> api::VerifyStatus {
    convert!(it, VerifyStatus {
        version, reason, started_us, took_ms, percent, events, steps, instances_dropped,
        rows, differences;
        verdict = verdict_of(verdict),
        partitions = partitions.into_iter().map(verified_shard).collect(),
    })
}

/// A partition of a verification.
fn verified_shard(it: engine::VerifiedShard) -> api::VerifiedShard {
    convert!(it, VerifiedShard {
        partition, reason, next, decisions;
        verdict = verdict_of(verdict),
        tables = tables.into_iter().map(verified_table).collect(),
        first = first.map(difference),
    })
}

/// A compared table.
fn verified_table(it: engine::VerifiedTable) -> api::VerifiedTable {
    convert!(it, VerifiedTable { name, rows, differences, expected, found })
}

/// A row that differs.
fn difference(it: engine::VerifyDifference) -> api::VerifyDifference {
    convert!(it, VerifyDifference {
        table, key, expected, found;
        fields = fields.into_iter().map(field_difference).collect(),
    })
}

/// A field that differs.
fn field_difference(it: engine::FieldDifference) -> api::FieldDifference {
    convert!(it, FieldDifference { name, expected, found })
}

/// How a state compares.
fn verdict_of(it: engine::Verdict) -> api::Verdict {
    match it {
        engine::Verdict::Running => api::Verdict::Running,
        engine::Verdict::Same => api::Verdict::Same,
        engine::Verdict::Differs => api::Verdict::Differs,
        engine::Verdict::Unverifiable => api::Verdict::Unverifiable,
        engine::Verdict::Failed => api::Verdict::Failed,
        engine::Verdict::Stopped => api::Verdict::Stopped,
    }
}

/// The parked events that a request selects.
pub(crate) fn selection(it: api::ParkedSelection) -> engine::ParkedSelection {
    let api::ParkedSelection { all, offsets, partition, tenant, subject } = it;
    engine::ParkedSelection { all, offsets, partition, tenant, subject }
}
