//! Retries and drops parked events.

use std::collections::BTreeSet;
use std::sync::Arc;

use lantern_core::{
    Batch, DecisionRecord, Events, Offset, ParkedKind, ParkedRecord, PartitionId, Space,
    UNREADABLE_TYPE,
};

use crate::outbox_writer::{post, traceparent};
use crate::parked_events::{self, parked_page};
use crate::runner::Runner;
use crate::state::ShardState;
use crate::stop_reason::{CallError, StopReason};
use crate::ticks::Ticker;
use crate::{ParkedOutcome, ParkedSelection, ParkedStatus};

/// Carries out an operator's decisions about parked events: retries and drops.
pub(crate) struct Decider<'a> {
    pub(crate) state: &'a mut ShardState,
    pub(crate) runner: &'a mut Runner,
}

impl Decider<'_> {
    /// Retries or drops the selected parked events, and stores this decision with the state. If an
    /// error ends the work early, the outcome of the work so far is returned too.
    pub(crate) fn decide(
        &mut self,
        selection: &ParkedSelection,
        retry: bool,
    ) -> (ParkedOutcome, Result<(), StopReason>) {
        let mut outcome = ParkedOutcome::default();
        // After a fault, the timers for the next offset may not have fired yet. They must fire
        // before the decision, because a fold from the beginning also fires them before it repeats
        // this decision.
        let ended = Ticker { state: self.state, runner: self.runner }
            .tick()
            .and_then(|()| self.act(selection, retry, u64::MAX, &mut outcome));
        if outcome.handled() > 0 {
            let record = DecisionRecord {
                next: self.state.meta.next,
                watermark: self.state.meta.watermark,
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

    /// Repeats a stored decision in another fold, at the same offset as in the live shard. Returns
    /// `false` if the outcome differs.
    pub(crate) fn replay_decision(&mut self, record: &DecisionRecord) -> Result<bool, StopReason> {
        let selection = ParkedSelection::of(record, self.state.id.partition);
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
    ) -> Result<(), StopReason> {
        if retry {
            self.retry_parked(selection, most, outcome)
        } else {
            self.drop_parked(selection, most, outcome)
        }
    }

    fn keep_decision(&mut self, record: &DecisionRecord) {
        let record = record.after(self.state.meta.decided);
        self.state.meta.decided = record.digest;
        if self.state.meta.decisions < DecisionRecord::KEPT_MAX {
            let key = DecisionRecord::key(self.state.meta.decisions);
            self.state.buffer.set(Space::Meta, &key, Some(&record.encode()));
        }
        self.state.meta.decisions += 1;
    }

    /// Applies the selected parked events again, oldest first. If an event succeeds, it is no
    /// longer parked. If it fails, it stays parked with the new reason, and the later events of its
    /// subject stay parked behind it.
    fn retry_parked(
        &mut self,
        selection: &ParkedSelection,
        most: u64,
        outcome: &mut ParkedOutcome,
    ) -> Result<(), StopReason> {
        let mut stuck = BTreeSet::new();
        let mut from = Vec::new();
        loop {
            let page = parked_page(&self.state.buffer, &mut from)?;
            if page.is_empty() {
                return Ok(());
            }
            for (key, record) in page {
                if outcome.handled() >= most {
                    return Ok(());
                }
                let ordered = self.state.parking.blocks(&record);
                let subject = (record.event.tenant.clone(), record.event.subject.clone());
                if !selects(selection, &record) {
                    // A parked event that is not selected still blocks the later events of its
                    // subject.
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
    ) -> Result<(), StopReason> {
        let mut from = Vec::new();
        loop {
            let page = parked_page(&self.state.buffer, &mut from)?;
            if page.is_empty() {
                return Ok(());
            }
            for (key, record) in page {
                if outcome.handled() >= most {
                    return Ok(());
                }
                if selects(selection, &record) {
                    self.state.unpark(&key, &record);
                    outcome.selected += 1;
                    outcome.done += 1;
                }
            }
        }
    }

    fn retry_one(&mut self, key: &[u8], mut record: ParkedRecord) -> Result<bool, StopReason> {
        if record.event.kind == UNREADABLE_TYPE {
            // A plugin cannot apply an unreadable record.
            record.attempts += 1;
            self.state.buffer.set(Space::Parked, key, Some(&record.encode()));
            return Ok(false);
        }
        let batch = Arc::new(self.batch_of(&record));
        // Whether an event stays parked must depend on a call with this event alone, on a fresh
        // instance.
        self.runner.drop_instance();
        match self.runner.call(self.state, &batch, &[], record.offset) {
            Ok(emitted) => {
                // Events that a retry emits are always sent. The retry is a new decision, so they
                // cannot be in the log from before a rebuild.
                post(self.state, emitted, 0, |_| traceparent(&record.event.extensions));
                if !matches!(record.kind, ParkedKind::Timer(..)) {
                    self.state.meta.applied += 1;
                }
                self.state.unpark(key, &record);
                Ok(true)
            }
            Err(CallError::Stop(stop)) => Err(stop),
            Err(CallError::Due(due)) => Err(CallError::due_is_a_fault(due)),
            Err(CallError::Event(error)) => {
                let ShardState { meta, buffer, .. } = &mut *self.state;
                parked_events::note_failed_again(key, &mut record, &error, meta, buffer);
                Ok(false)
            }
        }
    }

    fn batch_of(&self, record: &ParkedRecord) -> Batch {
        let mut batch = Batch {
            partition: self.state.id.partition,
            watermark: self.state.meta.watermark,
            ..Batch::default()
        };
        if let ParkedKind::Timer(timer) = &record.kind {
            batch.timers.push(timer.clone());
        } else {
            let mut whole = Events::new();
            whole.push(&record.event.as_ref());
            batch.events.extend_from(&whole, 0..1, self.state.manifest.attributes_read());
            batch.offsets.push(record.offset.0);
            batch.watermarks.push(self.state.meta.watermark);
            batch.depths.push(record.event.as_ref().depth());
        }
        batch
    }
}

fn selects(selection: &ParkedSelection, record: &ParkedRecord) -> bool {
    selection.names(record.offset, record.tenant(), &record.event.subject)
}

impl ParkedSelection {
    /// Returns the selection of a stored decision about parked events of `partition`.
    pub(crate) fn of(record: &DecisionRecord, partition: PartitionId) -> Self {
        Self {
            all: record.all,
            offsets: record.offsets.clone(),
            partition: partition.0,
            tenant: record.tenant.clone(),
            subject: record.subject.clone(),
        }
    }

    /// Returns whether the selection contains the event of this tenant and subject at `offset`. If
    /// it contains the event, it also contains the emitted events that the event has caused.
    pub(crate) fn names(&self, offset: Offset, tenant: &str, subject: &str) -> bool {
        let Self { all, offsets, partition: _, tenant: of, subject: about } = self;
        let of_tenant = of.as_ref().is_none_or(|of| *of == tenant);
        let tenant_alone = of.is_some() && offsets.is_empty() && about.is_none();
        let named = *all
            || tenant_alone
            || offsets.contains(&offset.0)
            || about.as_ref().is_some_and(|about| *about == subject);
        of_tenant && named
    }
}

/// Returns the description of a parked event in an answer to an operator.
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
