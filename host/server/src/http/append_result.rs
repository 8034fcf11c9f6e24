//! Defines the options and the result of an append. Single bodies and streams both use them.

use lantern_api::{AppendResult, OffsetRange};
use lantern_core::Appended;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

/// The maximum size of a batch that is parsed on the thread of the request, in bytes. A larger
/// batch would delay other requests on this thread, so another thread parses it.
pub(super) const INLINE_BYTES_MAX: usize = 32 << 10;

/// Options for an append.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct AppendQuery {
    /// Whether valid events are appended if others are invalid.
    pub(crate) partial: bool,
    /// Appends events that were exported from another log with `types=*` exactly as they were,
    /// including the host's own events and append times. The body must be NDJSON. The log must be
    /// empty and have the same number of partitions as the other log, and there must be no
    /// projection yet.
    pub(crate) exact: bool,
}

/// Adds the counts of one append to `result` and to the metrics. It is called after every append of
/// a stream, so the events before an error are counted too.
pub(super) fn count(result: &mut AppendResult, appended: &Appended) {
    let (before, duplicates, differing) = (result.appended, result.duplicates, result.differs);
    add(result, appended);
    metrics::counter!("lantern_ingest_appended_total").increment(result.appended - before);
    metrics::counter!("lantern_ingest_duplicates_total").increment(result.duplicates - duplicates);
    metrics::counter!("lantern_ingest_differing_duplicates_total")
        .increment(result.differs - differing);
}

fn add(result: &mut AppendResult, appended: &Appended) {
    for event in &appended.events {
        if event.duplicate {
            result.duplicates += 1;
            result.differs += u64::from(event.differs);
            continue;
        }
        result.appended += 1;
        let offset = event.offset.0;
        let range = result
            .partitions
            .entry(event.partition.0)
            .or_insert(OffsetRange { first: offset, last: offset });
        range.first = range.first.min(offset);
        range.last = range.last.max(offset);
    }
}

/// Converts a value to JSON, as a member of a problem.
pub(super) fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain structs always encode")
}
