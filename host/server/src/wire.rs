//! Converts the engine's reports to the wire types of [`lantern_api`]. The engine itself does not
//! use the wire types.
//!
//! A call of `convert!` lists each member once, and the list is used for both types. So if only one
//! of the types has a member, the compiler reports an error.

use lantern_api as api;
use lantern_engine as engine;

use crate::cloudevents::format_time;

/// Converts a struct of the engine to the struct of the same name in the API. A call first lists
/// the members that are copied and, after `;`, the members that are converted.
macro_rules! convert {
    ($it:ident, $Type:ident { $($same:ident),* $(; $($other:ident = $value:expr),* $(,)?)? }) => {{
        let engine::$Type { $($same,)* $($($other,)*)? } = $it;
        api::$Type { $($same,)* $($($other: $value,)*)? }
    }};
}

/// Converts the status of a projection.
pub(crate) fn projection(it: engine::ProjectionStatus) -> api::ProjectionStatus {
    convert!(it, ProjectionStatus {
        name, paused, active, previous, epoch;
        versions = versions.into_iter().map(version).collect(),
        verified = verified.map(verification),
    })
}

/// Converts the status of a version.
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

/// Converts the description of source code.
fn source(it: engine::SourceStatus) -> api::SourceStatus {
    convert!(it, SourceStatus { name, bytes, sha256 })
}

/// Converts the description of a table.
fn table(it: engine::TableStatus) -> api::TableStatus {
    convert!(it, TableStatus {
        name, description, public, per_tenant;
        fields = fields.into_iter().map(field).collect(),
    })
}

/// Converts the description of a field.
fn field(it: engine::FieldStatus) -> api::FieldStatus {
    convert!(it, FieldStatus { name, kind, unit })
}

/// Converts the status of a shard.
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

/// Converts an event that is too far in the future to move the watermark.
pub(crate) fn ahead_event(it: engine::AheadStatus) -> api::AheadStatus {
    convert!(it, AheadStatus { offset, id, source, time_us })
}

/// Converts a message of a plugin.
#[must_use]
pub fn log_line(it: engine::LogLine) -> api::LogLine {
    convert!(it, LogLine { time_us, version, partition, offset, level, message })
}

/// Converts the result of an upload.
pub(crate) fn uploaded(it: engine::Uploaded) -> api::Uploaded {
    convert!(it, Uploaded { projection, version, existed, checked_events, warnings })
}

/// Converts a page of parked events.
pub(crate) fn parked_page(it: engine::ParkedPage) -> api::ParkedPage {
    convert!(it, ParkedPage {
        total, waiting, next;
        parked = parked.into_iter().map(parked_event).collect(),
    })
}

/// Converts a parked event.
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

/// Converts the result of a retry or a drop.
pub(crate) fn parked_outcome(it: engine::ParkedOutcome) -> api::ParkedOutcome {
    convert!(it, ParkedOutcome { selected, done, failed, waiting })
}

/// Converts a summary of parked events.
pub(crate) fn parked_summary(it: engine::ParkedSummary) -> api::ParkedSummary {
    convert!(it, ParkedSummary {
        total, failed, waiting, more_reasons;
        reasons = reasons.into_iter().map(parked_reason).collect(),
    })
}

/// Converts a group of parked events with the same reason.
fn parked_reason(it: engine::ParkedReason) -> api::ParkedReason {
    convert!(it, ParkedReason { reason, failed, waiting, partition, offset })
}

/// Converts the status of a verification.
pub(crate) fn verification(it: engine::VerifyStatus) -> api::VerifyStatus {
    convert!(it, VerifyStatus {
        version, reason, started_us, took_ms, percent, events, steps, instances_dropped,
        rows, differences;
        verdict = verdict_of(verdict),
        partitions = partitions.into_iter().map(verified_shard).collect(),
    })
}

/// Converts the verification of a partition.
fn verified_shard(it: engine::VerifiedShard) -> api::VerifiedShard {
    convert!(it, VerifiedShard {
        partition, reason, next, decisions;
        verdict = verdict_of(verdict),
        tables = tables.into_iter().map(verified_table).collect(),
        first = first.map(difference),
    })
}

/// Converts the comparison of a table.
fn verified_table(it: engine::VerifiedTable) -> api::VerifiedTable {
    convert!(it, VerifiedTable { name, rows, differences, expected, found })
}

/// Converts a row that differs.
fn difference(it: engine::VerifyDifference) -> api::VerifyDifference {
    convert!(it, VerifyDifference {
        table, key, expected, found;
        fields = fields.into_iter().map(field_difference).collect(),
    })
}

/// Converts a field that differs.
fn field_difference(it: engine::FieldDifference) -> api::FieldDifference {
    convert!(it, FieldDifference { name, expected, found })
}

/// Converts the verdict of a verification.
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

/// Converts the selection of parked events in a request.
pub(crate) fn selection(it: api::ParkedSelection) -> engine::ParkedSelection {
    let api::ParkedSelection { all, offsets, partition, tenant, subject } = it;
    engine::ParkedSelection { all, offsets, partition, tenant, subject }
}

/// An explanation of a row.
pub(crate) fn explanation(
    version: String,
    it: engine::ExplainedRow,
    commits: Vec<api::CommittedRow>,
) -> api::Explanation {
    let engine::ExplainedRow { incomplete, events, partitions, changes } = it;
    api::Explanation {
        version,
        complete: incomplete.is_none(),
        reason: incomplete,
        events,
        partitions: partitions.into_iter().map(explained_partition).collect(),
        changes: changes.into_iter().map(|(change, event)| row_change(change, event)).collect(),
        commits,
    }
}

fn explained_partition(it: engine::ExplainedShard) -> api::ExplainedPartition {
    let engine::ExplainedShard { partition, next, changes, row: found, agrees } = it;
    api::ExplainedPartition { partition, next, changes, row: row(found.as_deref()), agrees }
}

/// A commit that changed a row.
pub(crate) fn committed_row(it: engine::CommittedRow) -> api::CommittedRow {
    convert!(it, CommittedRow {
        commit;
        partition = partition.0,
        next = next.0,
        row = self::row(row.as_deref()),
    })
}

fn row_change(it: engine::RowChange, event: Option<engine::ExplainedEvent>) -> api::RowChange {
    let (cause, retried_at, timer) = match it.cause {
        engine::ChangeCause::Event => (api::ChangeCause::Event, None, None),
        engine::ChangeCause::Retry { at } => (api::ChangeCause::Retry, Some(at.0), None),
        engine::ChangeCause::Expiry => (api::ChangeCause::Expiry, None, None),
        engine::ChangeCause::Timer { key, at, set_by } => {
            let timer = api::ChangeTimer { key, time: format_time(at), set_by: set_by.0 };
            (api::ChangeCause::Timer, None, Some(timer))
        }
    };
    api::RowChange {
        partition: it.partition.0,
        offset: it.offset.0,
        cause,
        retried_at,
        event: event.map(change_event),
        timer,
        before: row(it.before.as_deref()),
        after: row(it.after.as_deref()),
        logs: it.logs.into_iter().map(change_log).collect(),
    }
}

fn change_event(it: engine::ExplainedEvent) -> api::ChangeEvent {
    let engine::ExplainedEvent { event, appended } = it;
    api::ChangeEvent {
        id: event.id,
        source: event.source,
        kind: event.kind,
        subject: event.subject,
        tenant: event.tenant,
        time: format_time(event.time),
        appended: appended.map(format_time),
    }
}

fn change_log(it: engine::ChangeLogLine) -> api::ChangeLog {
    let engine::ChangeLogLine { level, message } = it;
    api::ChangeLog { level, message }
}

/// A row of a public table, which is a JSON object, on one line.
pub(crate) fn row(value: Option<&[u8]>) -> Option<api::RawJson> {
    let text = String::from_utf8_lossy(value?).replace(['\n', '\r'], " ");
    Some(api::RawJson::new(&text))
}

/// The path of an event.
pub(crate) fn event_path(partition: u32, offset: u64, it: engine::EventPath) -> api::EventPath {
    let engine::EventPath { event, versions } = it;
    let versions = versions.into_iter().map(event_step).collect();
    api::EventPath { partition, offset, event: change_event(event), versions }
}

/// The rows that an event has changed.
pub(crate) fn event_changes(
    request: engine::EventChangesRequest,
    version: String,
    it: engine::ChangedRows,
) -> api::EventChanges {
    let engine::ChangedRows { incomplete, events, applied, total, rows } = it;
    let changed_row = |(table, row): (String, engine::RowChange)| {
        let engine::RowChange { key, cause, before, after, .. } = row;
        let retried_at = match cause {
            engine::ChangeCause::Retry { at } => Some(at.0),
            _ => None,
        };
        let [before, after] = [before, after].map(|row| self::row(row.as_deref()));
        api::ChangedRow { table, key, retried_at, before, after }
    };
    api::EventChanges {
        projection: request.projection,
        version,
        partition: request.partition.0,
        offset: request.offset.0,
        complete: incomplete.is_none(),
        reason: incomplete,
        events,
        applied,
        changed: total,
        rows: rows.into_iter().map(changed_row).collect(),
    }
}

fn event_step(it: engine::EventStep) -> api::EventStep {
    use api::EventOutcome as Outcome;
    let engine::EventStep { projection, version, state, next, outcome } = it;
    let (outcome, reason, attempts, dropped_at) = match outcome {
        engine::EventOutcome::Pending => (Outcome::Pending, None, None, None),
        engine::EventOutcome::Skipped(reason) => (Outcome::Skipped, Some(reason), None, None),
        engine::EventOutcome::Applied => (Outcome::Applied, None, None, None),
        engine::EventOutcome::Parked { waits: true, .. } => (Outcome::Waiting, None, None, None),
        engine::EventOutcome::Parked { reason, attempts, .. } => {
            (Outcome::Parked, Some(reason), Some(attempts), None)
        }
        engine::EventOutcome::AppliedOrDropped { at } => {
            (Outcome::AppliedOrDropped, None, None, Some(at.0))
        }
        engine::EventOutcome::Unreadable(why) => (Outcome::Unreadable, Some(why), None, None),
    };
    let state = state.to_owned();
    api::EventStep { projection, version, state, next, outcome, reason, attempts, dropped_at }
}
