//! Runs one turn of one shard. A turn opens the shard if needed, runs a step, publishes its commits
//! to readers, appends its emitted events to the log, and decides when the shard runs again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lantern_core::{Offset, PartitionId, Plugin, StoreError};
use parking_lot::Mutex;

use crate::event_traces::ShardTraces;
use crate::outbox_writer::{self, SendLimits, SendOutcome};
use crate::registry::{VersionBuild, stop_of_open_error};
use crate::run_queues::NextTurn;
use crate::runner::LogSink;
use crate::shard::{Shard, ShardParts, StepLimits, StepOutcome};
use crate::shard_handle::ShardHandle;
use crate::stop_reason::{Fault, StopReason};
use crate::{Engine, LogLine, PluginError};

/// What a step of a shard has done.
struct StepReport {
    step: StepOutcome,
    sending: SendOutcome,
}

impl Engine {
    /// Runs one step of the shard of `handle`, and handles its result.
    pub(crate) fn run_shard_turn(&self, handle: &Arc<ShardHandle>) -> NextTurn {
        if !handle.may_run() {
            return self.schedule_idle(handle);
        }
        if handle.store.is_none() {
            return self.open_store(handle);
        }
        let leader = self.registry.leader_of(handle);
        let now = self.ports.clock.monotonic();
        // This is set before the log is read, because the log may wake the shard even before this
        // step ends.
        handle.awaits_log.store(true, Ordering::Release);
        let mut guard = handle.shard.lock();
        let outcome = self.step(handle, &mut guard, leader.as_ref().map(|l| l.next()), now);
        drop(guard);
        if !matches!(&outcome, Ok(stepped) if stepped.step == StepOutcome::Wait) {
            handle.awaits_log.store(false, Ordering::Release);
        }
        match outcome {
            Ok(stepped) => {
                let turn = self.after_step(handle, stepped.step);
                match (turn, stepped.sending) {
                    (NextTurn::Rest, SendOutcome::After(wait)) => NextTurn::After(wait),
                    (turn, _) => turn,
                }
            }
            // If the version is being deleted, the error is not reported.
            Err(_) if handle.deleted.load(Ordering::Acquire) => NextTurn::Rest,
            Err(StopReason::Fault(reason)) => NextTurn::After(self.note_fault(handle, reason)),
            Err(StopReason::Halt(reason)) => {
                // The shard commits, so that its tables can be read after a restart.
                self.schedule_idle(handle);
                tracing::error!(
                    projection = %handle.id.projection, version = %handle.id.version,
                    partition = %handle.id.partition, %reason, "a shard was halted"
                );
                metrics::counter!("lantern_engine_halts_total", "projection" => handle.id.projection.clone())
                    .increment(1);
                handle.snapshot.lock().halted = Some(reason.clone());
                self.note_halt(&handle.id, reason);
                NextTurn::Rest
            }
        }
    }

    /// Tries again to open a state. The machine lacked a resource when it was first opened.
    fn open_store(&self, handle: &ShardHandle) -> NextTurn {
        let opened = self.ports.stores.open(&handle.id).map(drop).map_err(stop_of_open_error);
        let reason = match opened {
            Ok(()) => {
                let _lifecycle = self.lifecycle.lock();
                match self.open_again(&handle.id.projection) {
                    Ok(()) => {
                        self.registry
                            .handles()
                            .iter()
                            .for_each(|handle| self.scheduler.queues.wake(handle));
                        return NextTurn::Rest;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(StopReason::Halt(reason)) => {
                handle.snapshot.lock().halted = Some(reason);
                return NextTurn::Rest;
            }
            Err(StopReason::Fault(reason)) => reason,
        };
        NextTurn::After(self.note_fault(handle, reason))
    }

    /// Handles the result of a step that did not fail.
    fn after_step(&self, handle: &ShardHandle, step: StepOutcome) -> NextTurn {
        let idle = step == StepOutcome::Idle;
        {
            let mut snapshot = handle.snapshot.lock();
            (snapshot.fault, snapshot.idle) = (None, idle);
            if idle {
                snapshot.read_all_at = Some(self.ports.clock.monotonic());
            }
        }
        if handle.active.load(Ordering::Acquire) {
            self.registry.followers_of(handle).iter().for_each(|f| self.scheduler.queues.wake(f));
        } else if idle && !handle.caught_up.swap(true, Ordering::AcqRel) && !self.caught_up(handle)
        {
            return NextTurn::After(Duration::from_millis(self.config.fault_wait_ms));
        }
        match step {
            StepOutcome::More => NextTurn::Again,
            StepOutcome::Idle | StepOutcome::Wait => NextTurn::Rest,
        }
    }

    /// Commits durably what the shard has applied, before it waits to be woken.
    fn schedule_idle(&self, handle: &ShardHandle) -> NextTurn {
        let mut guard = handle.shard.lock();
        let deleted = handle.deleted.load(Ordering::Acquire);
        let Some(shard) = guard.as_mut().filter(|_| !deleted) else {
            return NextTurn::Rest;
        };
        let now = self.ports.clock.monotonic();
        let committed = shard.close(now);
        self.publish_commits(shard);
        handle.record_step(shard, now);
        match committed {
            Ok(()) => NextTurn::Rest,
            Err(error) => NextTurn::After(self.note_fault(handle, error.to_string())),
        }
    }

    /// Opens the shard if it is not open yet, and runs a step.
    fn step(
        &self,
        handle: &Arc<ShardHandle>,
        guard: &mut Option<Shard>,
        leader: Option<Offset>,
        now: Duration,
    ) -> Result<StepReport, StopReason> {
        if handle.deleted.load(Ordering::Acquire) {
            return Ok(StepReport { step: StepOutcome::Wait, sending: SendOutcome::Nothing });
        }
        if guard.is_none() {
            *guard = Some(self.open_shard(handle)?);
        }
        let shard = guard.as_mut().expect("just opened");
        let limits = StepLimits { now, before: leader, batch_events: None };
        // Only this projection has to wait until the log has accepted its emitted events; the
        // others continue.
        let full = shard.state.epoch.is_some()
            && outbox_writer::unsent(&shard.state) >= self.config.emit_unsent_max;
        let outcome = if full { shard.hold(now) } else { shard.step(&*self.ports.log, &limits) };
        let recovered = self.end_recovery(handle, shard, &outcome, now);
        self.publish_commits(shard);
        let sending = recovered.and_then(|()| self.send(handle, shard, now));
        handle.record_step(shard, now);
        if let Some(due) = shard.commits.sync.due() {
            self.scheduler.queues.wake_to_sync(handle, due);
        }
        handle.snapshot.lock().outbox.full = full;
        if matches!(outcome, Ok(StepOutcome::More)) {
            self.count_intake(handle.id.partition, now);
        }
        let sending = sending?;
        outcome.map(|step| StepReport { step, sending })
    }

    /// Lets readers read again after a crash, once the shard has folded all events whose results
    /// they may have seen before the crash. The shard commits first.
    fn end_recovery(
        &self,
        handle: &ShardHandle,
        shard: &mut Shard,
        outcome: &Result<StepOutcome, StopReason>,
        now: Duration,
    ) -> Result<(), StopReason> {
        if !handle.recovery.is_pending() {
            return Ok(());
        }
        let (meta, partition) = (&shard.state.meta, handle.id.partition);
        // A shard that follows another version stops before the end of the log.
        let at_end = match (outcome, &shard.state.epoch) {
            (Ok(StepOutcome::Idle), Some(_)) => true,
            (Ok(_), _) => self.ports.log.bounds(partition).is_ok_and(|log| meta.next >= log.end),
            (Err(_), _) => false,
        };
        let ticked = shard.state.watermark_due().is_none();
        if handle.recovery.target.is_reached(meta, ticked, at_end) {
            // This commit has a number that no reader has seen. So the number identifies this
            // state, and not one that was lost in the crash.
            shard.commits.sync.end_recovery();
            shard.commit(now)?;
            handle.recovery.pending.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Passes committed events of the shard's outbox to the log.
    fn send(
        &self,
        handle: &Arc<ShardHandle>,
        shard: &mut Shard,
        now: Duration,
    ) -> Result<SendOutcome, StopReason> {
        if !outbox_writer::has_outbox(&shard.state) || shard.is_dirty() {
            return Ok(SendOutcome::Nothing);
        }
        if shard.commits.sync.has_unsynced() {
            // If an emitted event is in the log, it must also be in the state after a crash.
            shard.sync(now)?;
        }
        let (queues, woken) = (Arc::downgrade(&self.scheduler.queues), Arc::downgrade(handle));
        let wake = move || {
            if let (Some(queues), Some(handle)) = (queues.upgrade(), woken.upgrade()) {
                queues.wake(&handle);
            }
        };
        let quota = {
            let mut quotas = self.emit_quotas.lock();
            Arc::clone(quotas.entry(handle.id.projection.clone()).or_default())
        };
        let limits = SendLimits { now, wall: self.ports.clock.wall(), quota: &quota };
        Ok(shard.send(&*self.ports.log, &limits, wake)?)
    }

    /// Notes the end of the log. The remaining time of the fold is estimated from it.
    fn count_intake(&self, partition: PartitionId, now: Duration) {
        let Some(intake) = self.intake.get(partition.0 as usize) else { return };
        if let Ok(bounds) = self.ports.log.bounds(partition) {
            intake.lock().count(now, bounds.end.0);
        }
    }

    /// Commits the applied changes of a shard, and publishes the commit to readers.
    pub(crate) fn commit(&self, shard: &mut Shard, now: Duration) -> Result<(), StoreError> {
        let committed = shard.commit(now);
        self.publish_commits(shard);
        committed
    }

    /// Passes the new commits to the port that publishes them to readers.
    pub(crate) fn publish_commits(&self, shard: &mut Shard) {
        for commit in shard.commits.take_unpublished() {
            self.ports.publish.committed(&commit);
        }
    }

    pub(crate) fn open_shard(&self, handle: &Arc<ShardHandle>) -> Result<Shard, StopReason> {
        let deleted = || StopReason::Halt("the version was deleted".into());
        let (build, emit_from, epoch, logs) = {
            let projections = self.registry.read();
            let projection = projections.get(&handle.id.projection).ok_or_else(deleted)?;
            let build = projection.builds.get(&handle.id.version).ok_or_else(deleted)?.clone();
            let active = projection.record.active.as_ref() == Some(&handle.id.version);
            let epoch = active.then(|| build.epoch(&projection.record));
            // This is read from the record, because an activation changes the record.
            let version = projection.record.version(&handle.id.version);
            let emit_from = version.map(|v| v.emit_from.clone()).unwrap_or_default();
            (build, emit_from, epoch, projection.logs.clone())
        };
        let mut shard = Shard::open(ShardParts {
            id: handle.id.clone(),
            plugin: self.plugin_of(&build)?,
            store: handle.store.clone().ok_or_else(|| {
                let snapshot = handle.snapshot.lock();
                match (&snapshot.halted, &snapshot.fault) {
                    (None, Some(fault)) => StopReason::Fault(fault.reason.clone()),
                    (reason, _) => StopReason::Halt(
                        reason.clone().unwrap_or_else(|| "its state could not be opened".into()),
                    ),
                }
            })?,
            config: self.config.clone(),
            logs: self.log_sink(handle, logs),
            committers: Some(self.scheduler.committers.clone()),
            recovers: handle.recovery.is_pending(),
        })?;
        shard.state.epoch = epoch;
        shard.traces = self.ports.traces.clone().map(ShardTraces::new);
        if shard.state.meta.born == 0 {
            shard.state.meta.born = handle.born;
        }
        shard.state.outbox.emits_as = build.version.emits_as();
        let created = build.version.created.0;
        shard.state.outbox.name =
            format!("{}/{}.{created:x}", handle.id.projection, handle.id.version);
        shard.state.outbox.emit_from =
            emit_from.get(handle.id.partition.0 as usize).copied().unwrap_or_default();
        Ok(shard)
    }

    /// Returns the plugin of the version. The plugin is loaded once for all shards of the version.
    pub(crate) fn plugin_of(&self, build: &VersionBuild) -> Result<Arc<dyn Plugin>, PluginError> {
        let mut plugin = build.plugin.lock();
        if let Some(plugin) = &*plugin {
            return Ok(plugin.clone());
        }
        let loaded = self.ports.plugins.load(&build.version)?;
        if *loaded.manifest() != build.version.manifest {
            return Err(PluginError::Unfit(
                "setup returns a different manifest than at upload: push the plugin again".into(),
            ));
        }
        *plugin = Some(loaded.clone());
        Ok(loaded)
    }

    fn log_sink(&self, handle: &ShardHandle, lines: Arc<Mutex<VecDeque<LogLine>>>) -> LogSink {
        let (id, clock, most) =
            (handle.id.clone(), self.ports.clock.clone(), self.config.log_lines_max);
        Arc::new(move |offset, level, message| {
            let line = LogLine {
                time_us: clock.wall().0,
                version: id.version.0.clone(),
                partition: id.partition.0,
                offset: offset.0,
                level: level.name().into(),
                message: message.to_owned(),
            };
            let mut lines = lines.lock();
            if lines.len() >= most {
                lines.pop_front();
            }
            lines.push_back(line);
        })
    }

    fn note_fault(&self, handle: &ShardHandle, reason: String) -> Duration {
        let first = Duration::from_millis(self.config.fault_wait_ms);
        let most = Duration::from_millis(self.config.fault_wait_ms_max);
        let mut snapshot = handle.snapshot.lock();
        let wait =
            snapshot.fault.as_ref().map_or(first, |fault| (fault.wait * 2).clamp(first, most));
        tracing::warn!(
            projection = %handle.id.projection, version = %handle.id.version,
            partition = %handle.id.partition, %reason, ?wait, "a shard has a fault; the engine tries again"
        );
        metrics::counter!("lantern_engine_faults_total", "projection" => handle.id.projection.clone())
            .increment(1);
        snapshot.idle = false;
        snapshot.fault = Some(Fault { reason, wait });
        wait
    }
}
