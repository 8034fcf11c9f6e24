//! One turn of one shard: opens it if needed, runs a step, hands what it committed
//! to readers and what it emitted to the log, and decides when it runs again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::{Offset, PartitionId, Plugin, StoreError};
use parking_lot::Mutex;

use crate::outbox::{self, SendLimits, Sending};
use crate::pool::Turn;
use crate::registry::{Build, unopened};
use crate::runner::LogSink;
use crate::shard::{Shard, ShardParts, Step, StepLimits, Stop};
use crate::slot::{Fault, Slot};
use crate::{Engine, LogLine, PluginError};

/// What a step of a shard came to.
struct Stepped {
    step: Step,
    sending: Sending,
}

impl Engine {
    /// One step of one shard, and what follows from it.
    pub(crate) fn turn(&self, slot: &Arc<Slot>) -> Turn {
        if !slot.may_run() {
            return self.rest(slot);
        }
        if slot.store.is_none() {
            return self.open_store(slot);
        }
        let leader = self.registry.leader_of(slot);
        let now = self.ports.clock.monotonic();
        // Before the log is asked: it may wake before this step has ended.
        slot.awaits.store(true, Ordering::Release);
        let mut guard = slot.shard.lock();
        let outcome = self.step(slot, &mut guard, leader.as_ref().map(|l| l.next()), now);
        drop(guard);
        if !matches!(&outcome, Ok(stepped) if stepped.step == Step::Wait) {
            slot.awaits.store(false, Ordering::Release);
        }
        match outcome {
            Ok(stepped) => {
                let turn = self.went_on(slot, stepped.step);
                match (turn, stepped.sending) {
                    (Turn::Rest, Sending::After(wait)) => Turn::After(wait),
                    (turn, _) => turn,
                }
            }
            // Of a version that is being deleted there is nothing to tell.
            Err(_) if slot.deleted.load(Ordering::Acquire) => Turn::Rest,
            Err(Stop::Fault(reason)) => Turn::After(self.note_fault(slot, reason)),
            Err(Stop::Halt(reason)) => {
                tracing::error!(
                    projection = %slot.id.projection, version = %slot.id.version,
                    partition = %slot.id.partition, %reason, "halted"
                );
                metrics::counter!("lantern_engine_halts_total", "projection" => slot.id.projection.clone())
                    .increment(1);
                slot.seen.lock().halted = Some(reason.clone());
                self.note_halt(&slot.id, reason);
                Turn::Rest
            }
        }
    }

    /// Opens a state again that could not be opened for want of something that the
    /// machine may have by now.
    fn open_store(&self, slot: &Slot) -> Turn {
        let opened = self.ports.stores.open(&slot.id).map(drop).map_err(unopened);
        let reason = match opened {
            Ok(()) => {
                let _lifecycle = self.lifecycle.lock();
                match self.open_again(&slot.id.projection) {
                    Ok(()) => {
                        self.registry
                            .slots()
                            .iter()
                            .for_each(|slot| self.scheduler.pool.wake(slot));
                        return Turn::Rest;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(Stop::Halt(reason)) => {
                slot.seen.lock().halted = Some(reason);
                return Turn::Rest;
            }
            Err(Stop::Fault(reason)) => reason,
        };
        Turn::After(self.note_fault(slot, reason))
    }

    /// What follows from a step that did not fail.
    fn went_on(&self, slot: &Slot, step: Step) -> Turn {
        let idle = step == Step::Idle;
        {
            let mut seen = slot.seen.lock();
            (seen.fault, seen.idle) = (None, idle);
        }
        if slot.active.load(Ordering::Acquire) {
            self.registry.followers_of(slot).iter().for_each(|f| self.scheduler.pool.wake(f));
        } else if idle && !slot.caught_up.swap(true, Ordering::AcqRel) && !self.caught_up(slot) {
            return Turn::After(Duration::from_millis(self.config.fault_wait_ms));
        }
        match step {
            Step::More => Turn::Again,
            Step::Idle | Step::Wait => Turn::Rest,
        }
    }

    /// Before a shard rests, what it has applied is committed for readers.
    fn rest(&self, slot: &Slot) -> Turn {
        let mut guard = slot.shard.lock();
        let deleted = slot.deleted.load(Ordering::Acquire);
        let Some(shard) = guard.as_mut().filter(|shard| !deleted && shard.is_dirty()) else {
            return Turn::Rest;
        };
        let now = self.ports.clock.monotonic();
        let committed = self.commit(shard, now);
        slot.note(shard, now);
        match committed {
            Ok(()) => Turn::Rest,
            Err(error) => Turn::After(self.note_fault(slot, error.to_string())),
        }
    }

    /// Opens the shard if it is not open yet, and runs a step.
    fn step(
        &self,
        slot: &Arc<Slot>,
        guard: &mut Option<Shard>,
        leader: Option<Offset>,
        now: Duration,
    ) -> Result<Stepped, Stop> {
        if slot.deleted.load(Ordering::Acquire) {
            return Ok(Stepped { step: Step::Wait, sending: Sending::Nothing });
        }
        if guard.is_none() {
            *guard = Some(self.open_shard(slot)?);
        }
        let shard = guard.as_mut().expect("just opened");
        let limits = StepLimits { now, before: leader, batch_events: None };
        // Only this projection waits while the log takes what it has emitted.
        let full = shard.state.epoch.is_some()
            && outbox::unsent(&shard.state) >= self.config.emit_unsent_max;
        let outcome = if full { shard.hold(now) } else { shard.step(&*self.ports.log, &limits) };
        self.tell_commits(shard);
        let sending = self.send(slot, shard, now);
        slot.note(shard, now);
        slot.seen.lock().outbox.full = full;
        if matches!(outcome, Ok(Step::More)) {
            self.count_intake(slot.id.partition, now);
        }
        let sending = sending?;
        outcome.map(|step| Stepped { step, sending })
    }

    /// Hands committed events of the shard's outbox to the log.
    fn send(&self, slot: &Arc<Slot>, shard: &mut Shard, now: Duration) -> Result<Sending, Stop> {
        if !outbox::has_outbox(&shard.state) || shard.is_dirty() {
            return Ok(Sending::Nothing);
        }
        let (pool, woken) = (Arc::downgrade(&self.scheduler.pool), Arc::downgrade(slot));
        let wake = move || {
            if let (Some(pool), Some(slot)) = (pool.upgrade(), woken.upgrade()) {
                pool.wake(&slot);
            }
        };
        let quota = {
            let mut quotas = self.emit_quotas.lock();
            Arc::clone(quotas.entry(slot.id.projection.clone()).or_default())
        };
        let limits = SendLimits { now, wall: self.ports.clock.wall(), quota: &quota };
        Ok(shard.send(&*self.ports.log, &limits, wake)?)
    }

    /// Notes where the log ends, for the time that a fold still takes.
    fn count_intake(&self, partition: PartitionId, now: Duration) {
        let Some(intake) = self.intake.get(partition.0 as usize) else { return };
        if let Ok(bounds) = self.ports.log.bounds(partition) {
            intake.lock().count(now, bounds.end.0);
        }
    }

    /// Commits what a shard has applied, and tells readers.
    pub(crate) fn commit(&self, shard: &mut Shard, now: Duration) -> Result<(), StoreError> {
        let committed = shard.commit(now);
        self.tell_commits(shard);
        committed
    }

    /// Tells readers what was committed.
    fn tell_commits(&self, shard: &mut Shard) {
        for commit in shard.commits.take_unpublished() {
            self.ports.publish.committed(&commit);
        }
    }

    pub(crate) fn open_shard(&self, slot: &Arc<Slot>) -> Result<Shard, Stop> {
        let gone = || Stop::Halt("the version was deleted".into());
        let (build, emit_from, epoch, logs) = {
            let projections = self.registry.read();
            let projection = projections.get(&slot.id.projection).ok_or_else(gone)?;
            let build = projection.builds.get(&slot.id.version).ok_or_else(gone)?.clone();
            let active = projection.record.active.as_ref() == Some(&slot.id.version);
            let epoch = active.then(|| build.epoch(&projection.record));
            // Of the record, since a flip changes it.
            let version = projection.record.version(&slot.id.version);
            let emit_from = version.map(|v| v.emit_from.clone()).unwrap_or_default();
            (build, emit_from, epoch, projection.logs.clone())
        };
        let mut shard = Shard::open(ShardParts {
            id: slot.id.clone(),
            plugin: self.plugin_of(&build)?,
            store: slot.store.clone().ok_or_else(|| {
                let seen = slot.seen.lock();
                match (&seen.halted, &seen.fault) {
                    (None, Some(fault)) => Stop::Fault(fault.reason.clone()),
                    (reason, _) => Stop::Halt(
                        reason.clone().unwrap_or_else(|| "its state could not be opened".into()),
                    ),
                }
            })?,
            config: self.config.clone(),
            logs: self.log_sink(slot, logs),
            committers: Some(self.scheduler.committers.clone()),
        })?;
        shard.state.epoch = epoch;
        if shard.state.meta.born == 0 {
            shard.state.meta.born = slot.born;
        }
        shard.state.outbox.emits_as = build.version.emits_as();
        let created = build.version.created.0;
        shard.state.outbox.name = format!("{}/{}.{created:x}", slot.id.projection, slot.id.version);
        shard.state.outbox.emit_from =
            emit_from.get(slot.id.partition.0 as usize).copied().unwrap_or_default();
        Ok(shard)
    }

    /// The version's plugin, loaded once for all its shards.
    pub(crate) fn plugin_of(&self, build: &Build) -> Result<Arc<dyn Plugin>, PluginError> {
        let mut plugin = build.plugin.lock();
        if let Some(plugin) = &*plugin {
            return Ok(plugin.clone());
        }
        let loaded = self.ports.plugins.load(&build.version)?;
        if *loaded.manifest() != build.version.manifest {
            return Err(PluginError::Unfit(
                "setup answers another manifest than at upload: rebuild it, or push it again"
                    .into(),
            ));
        }
        *plugin = Some(loaded.clone());
        Ok(loaded)
    }

    fn log_sink(&self, slot: &Slot, lines: Arc<Mutex<VecDeque<LogLine>>>) -> LogSink {
        let (id, clock, most) =
            (slot.id.clone(), self.ports.clock.clone(), self.config.log_lines_max);
        Arc::new(move |offset, level, message| {
            let line = LogLine {
                time_us: clock.wall().0,
                version: id.version.0.clone(),
                partition: id.partition.0,
                offset: offset.0,
                level: format!("{level:?}").to_lowercase(),
                message: message.to_owned(),
            };
            let mut lines = lines.lock();
            if lines.len() >= most {
                lines.pop_front();
            }
            lines.push_back(line);
        })
    }

    fn note_fault(&self, slot: &Slot, reason: String) -> Duration {
        let first = Duration::from_millis(self.config.fault_wait_ms);
        let most = Duration::from_millis(self.config.fault_wait_ms_max);
        let mut seen = slot.seen.lock();
        let wait = seen.fault.as_ref().map_or(first, |fault| (fault.wait * 2).clamp(first, most));
        tracing::warn!(
            projection = %slot.id.projection, version = %slot.id.version,
            partition = %slot.id.partition, %reason, ?wait, "fault, will try again"
        );
        metrics::counter!("lantern_engine_faults_total", "projection" => slot.id.projection.clone())
            .increment(1);
        seen.idle = false;
        seen.fault = Some(Fault { reason, wait });
        wait
    }
}
