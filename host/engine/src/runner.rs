//! Runs the plugin of a shard, one call at a time. If a call succeeds, its writes are applied. If a
//! call fails, its writes and the plugin's instance are dropped.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    ApplyError, Batch, Instance, InstantiateError, Level, Offset, OutboxEvent, Plugin, Timestamp,
};

use crate::call::CallHost;
use crate::rejections::{Rejected, RejectionRoom};
use crate::state::ShardState;
use crate::stop_reason::{CallError, StopReason};
use crate::{EngineConfig, row_watch, second_fold};

/// The maximum number of events in the first batches, before the fuel that an event needs is known.
const EVENTS_FIRST: usize = 256;
/// Decides how large batches are. A batch gets as many events as probably use its fuel limit
/// divided by this number.
const FUEL_HEADROOM: f64 = 2.0;

/// A function that receives a message of a plugin, with its offset and level.
pub(crate) type LogSink = Arc<dyn Fn(Offset, Level, &str) + Send + Sync>;

/// What the plugin has used since the shard was opened, and an estimate of what an event needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) fuel: u64,
    pub(crate) apply_us: u64,
    pub(crate) memory_bytes: u64,
    fuel_per_event: Option<f64>,
}

/// The result of a call that succeeded.
pub(crate) struct AppliedCall {
    /// The events that the plugin has emitted.
    pub(crate) emitted: Vec<OutboxEvent>,
    /// The events that the plugin has rejected, in order.
    pub(crate) rejected: Vec<Rejected>,
}

/// Runs the plugin of one shard. It keeps the instance between calls.
pub(crate) struct Runner {
    pub(crate) plugin: Arc<dyn Plugin>,
    instance: Option<Box<dyn Instance>>,
    logs: LogSink,
    pub(crate) usage: Usage,
    /// The maximum fuel that the plugin may use over all calls. Only a determinism check sets it.
    pub(crate) fuel_max: Option<u64>,
    /// Whether some batches are folded a second time as a sample. It is `false` in determinism
    /// checks and verifications, because these compare two folds themselves.
    sampled: bool,
    /// The time at which the last step that used the plugin began.
    last_used: Duration,
}

impl Runner {
    /// Creates a runner for `plugin`. It has no instance yet.
    pub(crate) fn new(plugin: Arc<dyn Plugin>, logs: LogSink, sampled: bool) -> Self {
        Self {
            plugin,
            instance: None,
            logs,
            usage: Usage::default(),
            fuel_max: None,
            sampled,
            last_used: Duration::ZERO,
        }
    }

    /// Returns whether the next call runs on a fresh instance, because there is none.
    pub(crate) fn is_fresh(&self) -> bool {
        self.instance.is_none()
    }

    /// Drops the instance. A fresh one must give the same results.
    pub(crate) fn drop_instance(&mut self) {
        self.instance = None;
    }

    /// Notes that a step that began at `now` used the plugin.
    pub(crate) fn note_used(&mut self, now: Duration) {
        self.last_used = now;
    }

    /// Drops the instance if it was not used for `idle`. Returns `false` if nothing was dropped.
    pub(crate) fn drop_unused(&mut self, now: Duration, idle: Duration) -> bool {
        if self.instance.is_none() || now.saturating_sub(self.last_used) < idle {
            return false;
        }
        self.instance = None;
        self.usage.memory_bytes = 0;
        true
    }

    /// Returns the number of events for which the fuel of a batch is probably sufficient.
    pub(crate) fn batch_events(&self, config: &EngineConfig) -> usize {
        let most = config.batch_events_max;
        let Some(each) = self.usage.fuel_per_event else {
            return most.min(EVENTS_FIRST);
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate, clamped"
        )]
        let fitting = (config.fuel_event as f64 / 2.0 / FUEL_HEADROOM / each.max(1.0)) as usize;
        fitting.clamp(1, most)
    }

    /// Calls the plugin with `batch`, and returns the emitted events. `dues` are the due times of
    /// the batch's timers. `at` is the offset that is stored with log messages that name no event.
    /// If the plugin rejects an event, the call counts as failed.
    pub(crate) fn call(
        &mut self,
        state: &mut ShardState,
        batch: &Arc<Batch>,
        dues: &[Timestamp],
        at: Offset,
    ) -> Result<Vec<OutboxEvent>, CallError> {
        let applied = self.call_with_room(state, (batch, dues), at, RejectionRoom::default())?;
        Ok(applied.emitted)
    }

    /// Calls the plugin like [`Runner::call`], but the plugin may reject events, up to the number
    /// that can be parked (`room`). If it rejects one event more, the call counts as failed because
    /// of that event.
    pub(crate) fn call_with_room(
        &mut self,
        state: &mut ShardState,
        (batch, dues): (&Arc<Batch>, &[Timestamp]),
        at: Offset,
        room: RejectionRoom,
    ) -> Result<AppliedCall, CallError> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.plugin.instantiate().map_err(|e| CallError::Stop(cannot_start(&e)))?,
        };
        let call = state.begin_call(batch, dues).map_err(CallError::Stop)?;
        let alone = batch.len() == 1;
        let fuel_event = state.config.fuel_event;
        let fuel = if alone { fuel_event } else { fuel_event / 2 };
        let span = tracing::debug_span!(
            "apply",
            projection = %state.id.projection,
            version = %state.id.version,
            partition = %state.id.partition,
            offset = %at,
            events = batch.offsets.len(),
            timers = batch.timers.len(),
        );
        let applied = span.in_scope(|| instance.apply(batch, Box::new(call), fuel));
        let call = applied.host.into_any().downcast::<CallHost>();
        let mut call = call.map_err(|_| {
            CallError::Stop(StopReason::Fault("the plugin host gave back another call".into()))
        })?;
        state.buffer.take_back(std::mem::take(&mut call.applied));
        self.count(batch.offsets.len(), applied.fuel, applied.elapsed, applied.memory_bytes);
        self.check_fuel(at)?;
        if applied.result.is_ok() {
            // On an error the instance is dropped as well, because its memory may still contain the
            // writes of the failed call.
            check_result(state, &call, batch, room)?;
        }
        for (offset, level, message) in &call.logged {
            (self.logs)(offset.unwrap_or(at), *level, message);
        }
        match applied.result {
            Ok(()) => {
                if let Some(&offset) = batch.offsets.first()
                    && self.sampled
                    && second_fold::is_sampled(offset, state.config.second_fold_every)
                {
                    second_fold::fold_again(&*self.plugin, state, (batch, dues), &call)?;
                }
                self.instance = Some(instance);
                if let Some(watch) = &mut state.watch {
                    let recorded = watch.record_call(&state.buffer, state.meta.next, &call, batch);
                    recorded.map_err(|error| CallError::Stop(error.into()))?;
                }
                state.meta.timers_now = call.timers_now;
                state.due_from = state.due_from.min(call.earliest_due());
                state.buffer.accept(call.written);
                let rejected = call.rejections.into_rejected();
                Ok(AppliedCall { emitted: call.emitted, rejected })
            }
            Err(ApplyError::Fault(message)) => Err(CallError::Stop(StopReason::Fault(message))),
            Err(mut error) => {
                // A guest that panics logs the reason before it traps, so the log messages are
                // added to the error.
                if let ApplyError::Trapped { message, .. } = &mut error
                    && let Some((_, Level::Error, logged)) = call.logged.last()
                {
                    *message = format!("{message}: {logged}");
                }
                tracing::debug!(parent: &span, %error, "a call of the plugin failed");
                Err(CallError::Event(error))
            }
        }
    }

    fn count(&mut self, events: usize, fuel: u64, apply: Duration, memory: u64) {
        self.usage.fuel += fuel;
        self.usage.apply_us += u64::try_from(apply.as_micros()).unwrap_or(u64::MAX);
        self.usage.memory_bytes = memory;
        if events > 0 {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let each = fuel as f64 / events as f64;
            // The estimate rises at once and falls slowly, because a batch that runs out of fuel is
            // expensive.
            let known = self.usage.fuel_per_event.unwrap_or(each);
            self.usage.fuel_per_event =
                Some(if each > known { each } else { known * 0.9 + each * 0.1 });
        }
    }

    /// Fails if a determinism check has used too much fuel.
    fn check_fuel(&self, at: Offset) -> Result<(), CallError> {
        match self.fuel_max {
            Some(limit) if self.usage.fuel > limit => {
                Err(CallError::Stop(StopReason::Fault(format!(
                    "folding a sample of the log took more than {limit} fuel (`engine.check_fuel`), up \
                 to offset {at}: make it do less for each event, or lower `engine.check_events`"
                ))))
            }
            _ => Ok(()),
        }
    }
}

/// Checks whether the result of a call that succeeded can be applied.
///
/// # Errors
/// [`CallError::Due`] or [`CallError::Event`] if the call must be repeated with fewer events.
fn check_result(
    state: &mut ShardState,
    call: &CallHost,
    batch: &Batch,
    room: RejectionRoom,
) -> Result<(), CallError> {
    if let Some(due) = call.missed_due() {
        return Err(CallError::Due(due));
    }
    if let Some(Rejected { index, message }) = room.first_without(call.rejections.rejected()) {
        let cause = Some(batch.cause_of_event(*index));
        return Err(CallError::Event(ApplyError::Failed { cause, message: message.clone() }));
    }
    if let Some(watch) = &mut state.watch
        && watch.must_split(&call.written, batch)
    {
        return Err(CallError::Event(row_watch::split_error()));
    }
    Ok(())
}

fn cannot_start(error: &InstantiateError) -> StopReason {
    match error {
        InstantiateError::Host(message) => StopReason::Fault(message.clone()),
        other => StopReason::Halt(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_to_the_limit_and_shrink_with_the_fuel_that_an_event_takes() {
        use lantern_core::fake::NativePlugin;
        use lantern_core::{Host, Manifest};

        let nothing = |_: &Batch, _: &mut dyn Host, _: &mut ()| Ok(());
        let plugin = Arc::new(NativePlugin::new(Manifest::default(), nothing));
        let mut runner = Runner::new(plugin, Arc::new(|_, _, _| ()), false);
        let config = EngineConfig { fuel_event: 1_000_000, ..EngineConfig::default() };
        assert_eq!(runner.batch_events(&config), EVENTS_FIRST);
        runner.count(100, 100, Duration::ZERO, 0);
        assert_eq!(runner.batch_events(&config), config.batch_events_max);
        runner.count(1, 50_000, Duration::ZERO, 0);
        assert_eq!(runner.batch_events(&config), 5, "it rises at once");
        runner.count(100, 100, Duration::ZERO, 0);
        assert_eq!(runner.batch_events(&config), 5, "and falls slowly");
    }
}
