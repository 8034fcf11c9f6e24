//! Groups the parked events of a version by reason. For each reason it counts the events that
//! failed, and the events that wait behind them.

use std::collections::BTreeMap;

use lantern_core::{ParkedKind, ParkedRecord, VersionId};

use crate::parked_events::committed_page;
use crate::status_queries::halted;
use crate::{Engine, EngineError};

/// The number of parked events that are read at a time.
const PAGE: usize = 1_000;
/// The maximum number of groups in an answer.
const REASONS_MAX: usize = 100;
/// The number of characters of two reasons that are compared. If these characters are equal, the
/// events are in the same group.
const REASON_CHARS_MAX: usize = 400;

/// The parked events of a version, in groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedSummary {
    /// The number of events that are parked now.
    pub total: u64,
    /// How many of the parked events and timers failed.
    pub failed: u64,
    /// How many of the parked events wait behind a failed event of their subject.
    pub waiting: u64,
    /// The groups, each with one reason, the largest first; at most 100.
    pub reasons: Vec<ParkedReason>,
    /// The number of groups that were left out.
    pub more_reasons: u64,
}

/// The parked events that have the same reason. Numbers in the reason may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedReason {
    /// The reason of the first event in the group.
    pub reason: String,
    /// The number of events and timers that failed for this reason.
    pub failed: u64,
    /// The number of events that wait behind these failed events.
    pub waiting: u64,
    /// The partition of the first event in the group.
    pub partition: u32,
    /// The offset of the first event in the group.
    pub offset: u64,
}

impl Engine {
    /// Groups the parked events of a version by reason. `None` as `version` means the active
    /// version.
    ///
    /// # Errors
    /// Returns [`EngineError`] if there is no such version, or if its state cannot be read.
    pub fn parked_summary(
        &self,
        projection: &str,
        version: Option<&VersionId>,
    ) -> Result<ParkedSummary, EngineError> {
        let build = self.chosen(projection, version)?;
        let mut groups = Groups::default();
        for handle in &build.handles {
            let store = handle.store.as_ref().ok_or_else(|| halted(handle))?;
            let mut from = Vec::new();
            loop {
                let page = committed_page(&**store, &mut from, PAGE)?;
                if page.is_empty() {
                    break;
                }
                for (_, record) in page {
                    groups.add(handle.id.partition.0, &record);
                }
            }
            groups.blocked_by.clear();
        }
        Ok(groups.summary())
    }
}

#[derive(Default)]
struct Groups {
    by_reason: BTreeMap<String, ParkedReason>,
    /// For each tenant and subject, the reason of the first failed event.
    blocked_by: BTreeMap<(String, String), String>,
}

impl Groups {
    /// Adds a parked record to its group. The records of a partition must be added in order of
    /// their offsets.
    fn add(&mut self, partition: u32, record: &ParkedRecord) {
        let of = (record.event.tenant.clone(), record.event.subject.clone());
        let waits = record.kind == ParkedKind::Waiting;
        let key = match self.blocked_by.get(&of) {
            Some(key) if waits => key.clone(),
            // The failed event behind which this event waited has been dropped.
            _ if waits => String::new(),
            _ => alike(&record.reason),
        };
        if !waits && !matches!(record.kind, ParkedKind::Timer(..)) {
            self.blocked_by.entry(of).or_insert_with(|| key.clone());
        }
        let group = self.by_reason.entry(key).or_insert_with(|| ParkedReason {
            reason: record.reason.clone(),
            partition,
            offset: record.offset.0,
            ..ParkedReason::default()
        });
        *if waits { &mut group.waiting } else { &mut group.failed } += 1;
    }

    fn summary(self) -> ParkedSummary {
        let mut reasons: Vec<_> = self.by_reason.into_values().collect();
        // This sort is stable, so groups of equal size stay in the order of their text.
        reasons.sort_by_key(|group| std::cmp::Reverse(group.failed + group.waiting));
        let failed = reasons.iter().map(|group| group.failed).sum();
        let waiting = reasons.iter().map(|group| group.waiting).sum();
        let more_reasons = reasons.len().saturating_sub(REASONS_MAX) as u64;
        reasons.truncate(REASONS_MAX);
        ParkedSummary { total: failed + waiting, failed, waiting, reasons, more_reasons }
    }
}

/// Replaces each number in `reason`, so that `no product 17` and `no product 4` become equal.
fn alike(reason: &str) -> String {
    let mut out = String::new();
    let mut digits = false;
    for c in reason.chars().take(REASON_CHARS_MAX) {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !digits {
            out.push('#');
        }
        digits = c.is_ascii_digit();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_core::{Event, Offset, Timestamp};

    fn record(offset: u64, subject: &str, kind: ParkedKind, reason: &str) -> ParkedRecord {
        ParkedRecord {
            kind,
            offset: Offset(offset),
            event: Event { subject: subject.into(), ..Event::default() },
            watermark: Timestamp(0),
            reason: reason.into(),
            backtrace: String::new(),
            attempts: 1,
        }
    }

    #[test]
    fn waiting_events_are_counted_with_the_reason_of_the_one_in_front() {
        let mut groups = Groups::default();
        groups.add(0, &record(3, "a", ParkedKind::Event, "no product 17"));
        groups.add(0, &record(4, "b", ParkedKind::Event, "no product 4"));
        groups.add(0, &record(5, "a", ParkedKind::Waiting, ""));
        groups.add(0, &record(6, "c", ParkedKind::Event, "no cents"));
        groups.add(0, &record(7, "b", ParkedKind::Waiting, ""));
        let summary = groups.summary();
        assert_eq!((summary.total, summary.failed, summary.waiting), (5, 3, 2));
        let first = &summary.reasons[0];
        assert_eq!((first.failed, first.waiting, first.offset), (2, 2, 3));
        assert_eq!(first.reason, "no product 17");
        assert_eq!(summary.reasons[1].reason, "no cents");
    }
}
