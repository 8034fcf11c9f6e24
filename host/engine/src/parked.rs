//! Parked events: kept whole, listed, retried and dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, DecisionRecord, Event, Events, KeyRange, Offset, OnFailure, ParkedKind,
    ParkedRecord, ShardStore, Space, StoreError, UNREADABLE_TYPE,
};

use crate::apply::{CallError, explain, traceparent};
use crate::blocked;
use crate::layers;
use crate::shard::{Shard, Stop};
use crate::{ParkedOutcome, ParkedSelection, ParkedStatus};

/// How many parked events are read at once.
const PAGE: usize = 256;

impl Shard {
    /// Adds `record`, and counts it.
    pub(crate) fn store_parked(&mut self, record: &ParkedRecord) {
        let timer = matches!(record.kind, ParkedKind::Timer(..));
        let mut by_offset = record.offset.0.to_be_bytes().to_vec();
        // A number of its own for timers, which share a position.
        let number = if timer { self.meta.timers_fired } else { 0 };
        by_offset.extend_from_slice(&number.to_be_bytes());
        self.overlay.set(Space::Parked, &by_offset, Some(&record.encode()));
        self.meta.parked_total += 1;
        self.meta.parked_now += 1;
        self.meta.waiting_now += u64::from(record.kind == ParkedKind::Waiting);
        if self.blocks(record) {
            let Event { tenant, subject, .. } = &record.event;
            let count = self.blocked.count(tenant, subject) + 1;
            self.set_blocked(tenant, subject, count);
        }
    }

    /// Whether later events of the record's tenant and subject wait behind it. The
    /// subject of an unreadable record is unknown, and a timer has none.
    fn blocks(&self, record: &ParkedRecord) -> bool {
        self.manifest.on_failure == OnFailure::ParkSubject
            && !matches!(record.kind, ParkedKind::Timer(..))
            && record.event.kind != UNREADABLE_TYPE
            && !record.event.subject.is_empty()
    }

    fn set_blocked(&mut self, tenant: &str, subject: &str, count: u64) {
        self.blocked.set(tenant, subject, count);
        let value = (count > 0).then(|| count.to_be_bytes());
        let value = value.as_ref().map(<[u8; 8]>::as_slice);
        self.overlay.set(Space::ParkedSubjects, &blocked::key(tenant, subject), value);
    }

    /// Does with parked events what `decision` says, and keeps it with the
    /// state. Hands back what became of it, also where it ended early.
    pub(crate) fn decide(
        &mut self,
        selection: &ParkedSelection,
        retry: bool,
    ) -> (ParkedOutcome, Result<(), Stop>) {
        let mut outcome = ParkedOutcome::default();
        // A fault may have kept timers from firing for this position; a fold
        // from the beginning fires them before it takes this decision.
        let ended = self.tick().and_then(|()| self.act(selection, retry, u64::MAX, &mut outcome));
        if outcome.handled() > 0 {
            let record = DecisionRecord {
                next: self.meta.next,
                watermark: self.meta.watermark,
                retry,
                all: selection.all,
                offsets: selection.offsets.clone(),
                tenant: selection.tenant.clone(),
                subject: selection.subject.clone(),
                handled: outcome.handled(),
                digest: 0,
            };
            self.keep_decision(&record);
        }
        (outcome, ended)
    }

    /// Takes a decision again, in a fold that has come to its place. `false`
    /// where it comes out otherwise.
    pub(crate) fn decide_again(&mut self, record: &DecisionRecord) -> Result<bool, Stop> {
        let selection = ParkedSelection {
            all: record.all,
            offsets: record.offsets.clone(),
            partition: self.id.partition.0,
            tenant: record.tenant.clone(),
            subject: record.subject.clone(),
        };
        let mut outcome = ParkedOutcome::default();
        self.act(&selection, record.retry, record.handled, &mut outcome)?;
        self.keep_decision(record);
        Ok(outcome.handled() == record.handled)
    }

    fn act(
        &mut self,
        selection: &ParkedSelection,
        retry: bool,
        most: u64,
        outcome: &mut ParkedOutcome,
    ) -> Result<(), Stop> {
        if retry {
            self.retry_parked(selection, most, outcome)
        } else {
            self.drop_parked(selection, most, outcome)
        }
    }

    fn keep_decision(&mut self, record: &DecisionRecord) {
        let record = record.after(self.meta.decided);
        self.meta.decided = record.digest;
        if self.meta.decisions < DecisionRecord::KEPT_MAX {
            let key = DecisionRecord::key(self.meta.decisions);
            self.overlay.set(Space::Meta, &key, Some(&record.encode()));
        }
        self.meta.decisions += 1;
    }

    /// Applies the selected parked events again, oldest first. One that
    /// succeeds is removed with what it wrote; one that fails stays with its new
    /// reason, and those of its subject stay behind it.
    fn retry_parked(
        &mut self,
        selection: &ParkedSelection,
        most: u64,
        outcome: &mut ParkedOutcome,
    ) -> Result<(), Stop> {
        let mut stuck = BTreeSet::new();
        let mut from = Vec::new();
        loop {
            let page = self.parked_page(&from)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            from = after(last);
            for (key, record) in page {
                if outcome.handled() >= most {
                    return Ok(());
                }
                let ordered = self.blocks(&record);
                let subject = (record.event.tenant.clone(), record.event.subject.clone());
                if !selects(selection, &record) {
                    // What is skipped stays in front of its subject's others.
                    if ordered {
                        stuck.insert(subject);
                    }
                    continue;
                }
                outcome.selected += 1;
                if ordered && stuck.contains(&subject) {
                    outcome.waiting += 1;
                    continue;
                }
                if self.retry_one(&key, record)? {
                    outcome.done += 1;
                } else {
                    outcome.failed += 1;
                    if ordered {
                        stuck.insert(subject);
                    }
                }
            }
        }
    }

    /// Removes the selected parked events without applying them.
    fn drop_parked(
        &mut self,
        selection: &ParkedSelection,
        most: u64,
        outcome: &mut ParkedOutcome,
    ) -> Result<(), Stop> {
        let mut from = Vec::new();
        loop {
            let page = self.parked_page(&from)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            from = after(last);
            for (key, record) in page {
                if outcome.handled() >= most {
                    return Ok(());
                }
                if selects(selection, &record) {
                    self.remove_parked(&key, &record);
                    outcome.selected += 1;
                    outcome.done += 1;
                }
            }
        }
    }

    fn retry_one(&mut self, key: &[u8], mut record: ParkedRecord) -> Result<bool, Stop> {
        if record.event.kind == UNREADABLE_TYPE {
            // No plugin can take it: only another reading of the log could.
            record.attempts += 1;
            self.overlay.set(Space::Parked, key, Some(&record.encode()));
            return Ok(false);
        }
        let batch = Arc::new(self.batch_of(&record));
        // Alone and on a fresh instance, as every verdict.
        self.instance = None;
        match self.call(&batch, record.offset) {
            Ok(emitted) => {
                // A person's decision of today, whatever a rebuild did before.
                self.post(emitted, Offset(0), |_| traceparent(&record.event.extensions));
                if !matches!(record.kind, ParkedKind::Timer(..)) {
                    self.meta.applied += 1;
                }
                self.remove_parked(key, &record);
                Ok(true)
            }
            Err(CallError::Stop(stop)) => Err(stop),
            Err(CallError::Event(error)) => {
                self.keep_parked(key, &mut record, &error);
                Ok(false)
            }
        }
    }

    fn keep_parked(&mut self, key: &[u8], record: &mut ParkedRecord, error: &ApplyError) {
        (record.reason, record.backtrace) = explain(error);
        record.attempts += 1;
        if record.kind == ParkedKind::Waiting {
            self.meta.waiting_now = self.meta.waiting_now.saturating_sub(1);
            record.kind = ParkedKind::Event;
        }
        self.overlay.set(Space::Parked, key, Some(&record.encode()));
    }

    fn remove_parked(&mut self, key: &[u8], record: &ParkedRecord) {
        self.overlay.set(Space::Parked, key, None);
        self.meta.parked_now = self.meta.parked_now.saturating_sub(1);
        if record.kind == ParkedKind::Waiting {
            self.meta.waiting_now = self.meta.waiting_now.saturating_sub(1);
        }
        if self.blocks(record) {
            let Event { tenant, subject, .. } = &record.event;
            let left = self.blocked.count(tenant, subject).saturating_sub(1);
            self.set_blocked(tenant, subject, left);
        }
    }

    fn batch_of(&self, record: &ParkedRecord) -> Batch {
        let mut batch = Batch {
            partition: self.id.partition,
            watermark: self.meta.watermark,
            ..Batch::default()
        };
        if let ParkedKind::Timer(timer) = &record.kind {
            batch.timers.push(timer.clone());
        } else {
            let mut whole = Events::new();
            whole.push(&record.event.as_ref());
            batch.events.extend_from(&whole, 0..1, self.manifest.attributes_read());
            batch.offsets.push(record.offset.0);
            batch.watermarks.push(self.meta.watermark);
            batch.depths.push(record.event.as_ref().depth());
        }
        batch
    }

    /// A page of parked records with their keys, from the key `from` on.
    pub(crate) fn parked_page(
        &self,
        from: &[u8],
    ) -> Result<Vec<(Vec<u8>, ParkedRecord)>, StoreError> {
        let range = KeyRange { start: from.to_vec(), end: None };
        let page = layers::scan(&self.layers(), &*self.store, Space::Parked, &range, PAGE, false)?;
        page.into_iter().map(whole).collect()
    }
}

/// A page of the committed parked records in `store`, from the key `from` on.
pub(crate) fn decoded(
    store: &dyn ShardStore,
    from: &[u8],
    limit: usize,
) -> Result<Vec<(Vec<u8>, ParkedRecord)>, StoreError> {
    let range = KeyRange { start: from.to_vec(), end: None };
    store.scan(Space::Parked, &range, limit, false)?.into_iter().map(whole).collect()
}

fn whole((key, value): (Vec<u8>, Vec<u8>)) -> Result<(Vec<u8>, ParkedRecord), StoreError> {
    match ParkedRecord::decode(&value) {
        Some(record) => Ok((key, record)),
        None => Err(StoreError::Damaged("a parked event".into())),
    }
}

/// The key after `key`.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn selects(selection: &ParkedSelection, record: &ParkedRecord) -> bool {
    let ParkedSelection { all, offsets, partition: _, tenant, subject } = selection;
    let of_tenant = tenant.as_ref().is_none_or(|tenant| *tenant == record.tenant());
    let tenant_alone = tenant.is_some() && offsets.is_empty() && subject.is_none();
    let named = *all
        || tenant_alone
        || offsets.contains(&record.offset.0)
        || subject.as_ref().is_some_and(|subject| *subject == record.event.subject);
    of_tenant && named
}

/// What people see of a parked event.
pub(crate) fn status_of(partition: u32, record: ParkedRecord) -> ParkedStatus {
    let kind = match record.kind {
        ParkedKind::Event => "event",
        ParkedKind::Waiting => "waiting",
        ParkedKind::Timer(..) => "timer",
    };
    let tenant = record.tenant().to_owned();
    let (id, time) = match record.kind {
        ParkedKind::Timer(timer) => (timer.key, timer.at),
        _ => (record.event.id, record.event.time),
    };
    ParkedStatus {
        partition,
        offset: record.offset.0,
        kind: kind.into(),
        id,
        source: record.event.source,
        event_type: record.event.kind,
        tenant,
        subject: record.event.subject,
        time_us: time.0,
        data: String::from_utf8_lossy(&record.event.data).into_owned(),
        reason: record.reason,
        backtrace: record.backtrace,
        attempts: record.attempts,
    }
}
