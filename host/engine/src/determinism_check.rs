//! Folds events into a separate state in memory. The determinism check of an upload and `lantern
//! test` use these folds.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::{
    KeyRange, Log, Manifest, Offset, OutboxEvent, PartitionId, Plugin, ReadStore, ShardId,
    ShardStore, Space, StateStores, StoreError, VersionId, View, dump,
};
use parking_lot::Mutex;

use crate::event_list::EventList;
use crate::outbox_writer;
use crate::parked_actions::status_of;
use crate::runner::LogSink;
use crate::second_fold::excerpt;
use crate::shard::{Shard, ShardParts, StepLimits, StepOutcome};
use crate::stop_reason::StopReason;
use crate::{EngineConfig, EngineError, LogLine, Nondeterminism, ParkedStatus};

/// The seed of the sequence that varies the second fold of [`fold_again`].
const VARIED_SEED: u64 = 4;
/// The maximum number of events in one batch if batch sizes vary.
pub(crate) const VARIED_EVENTS_MAX: usize = 1_024;
/// If instances are dropped, the first are dropped after about one step in this number.
pub(crate) const DROP_EVERY: u64 = 3;
/// Each time this many instances were dropped, instances are dropped a little less often. Starting
/// an interpreter takes as much fuel as hundreds of events.
const DROPS_AT_FIRST: u64 = 8;
/// The minimum number of events with which a plugin is checked. If the fuel of the check is not
/// enough for twice this number of events, the plugin is refused.
const CHECKED_EVENTS_MIN: usize = 100;

/// Options for a fold. The result must be the same for all options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldOptions {
    /// The maximum number of events in one call of the plugin.
    pub batch_events: usize,
    /// If set, the plugin's instance is dropped after about one step in three, and less often as
    /// the fold goes on. The value is the seed that decides after which steps.
    pub drop_instances: Option<u64>,
    /// Whether the size of each batch is chosen from 1, 7, 64 and 1,024 events, up to
    /// `batch_events`. The seed in `drop_instances` decides which size; without a seed the sizes do
    /// not vary.
    pub vary_batches: bool,
}

impl FoldOptions {
    /// Options for batches of at most `events` events, all on one instance.
    #[must_use]
    pub fn batches_of(events: usize) -> Self {
        Self { batch_events: events, drop_instances: None, vary_batches: false }
    }

    /// Returns the maximum number of events in the next batch. `seed` is the current seed, if there
    /// is one.
    fn next_batch(self, seed: Option<u64>) -> usize {
        let most = self.batch_events.max(1);
        let varied = seed.filter(|_| self.vary_batches).map(varied_batch);
        varied.map_or(most, |varied| varied.min(most))
    }
}

/// A function that is called between steps with the next offset to fold.
pub type FoldProgress<'a> = &'a mut dyn FnMut(Offset);

/// The result of a fold.
pub struct FoldResult {
    /// A view of the tables.
    pub view: View,
    /// The events that could not be applied.
    pub parked: Vec<ParkedStatus>,
    /// The events that the plugin emitted, in order.
    pub emitted: Vec<OutboxEvent>,
    /// The messages that the plugin logged.
    pub logs: Vec<LogLine>,
    /// The number of events applied.
    pub applied: u64,
    /// The fuel that the plugin used.
    pub fuel: u64,
    /// The reason why the fold stopped before the end, if it did.
    pub halted: Option<String>,
    /// The state itself, for comparisons.
    pub state: Arc<dyn lantern_core::ShardStore>,
}

/// Folds the partition `partition` of `log` with `plugin` into a state in memory.
///
/// # Errors
/// Returns [`EngineError::Plugin`] or [`EngineError::Host`] if the plugin or the machine prevents
/// the fold, or an error of the log or the store.
pub fn fold(
    plugin: &Arc<dyn Plugin>,
    log: &dyn Log,
    partition: PartitionId,
    stores: &dyn StateStores,
    config: &EngineConfig,
    options: FoldOptions,
    progress: FoldProgress<'_>,
) -> Result<FoldResult, EngineError> {
    let mut progress = |next: Offset| {
        progress(next);
        Ok(())
    };
    let bounds = Within { fuel_max: None, progress: &mut progress };
    fold_within(plugin, log, partition, stores, config, options, bounds).map_err(Into::into)
}

/// Limits a fold, and reports its progress.
pub(crate) struct Within<'a> {
    /// The fold fails if the plugin uses more fuel than this.
    pub(crate) fuel_max: Option<u64>,
    /// A function that is called between steps with the next offset to fold. An error ends the
    /// fold.
    pub(crate) progress: &'a mut dyn FnMut(Offset) -> Result<(), EngineError>,
}

/// Why a fold did not end.
pub(crate) enum FoldError {
    /// The plugin used more fuel than [`Within::fuel_max`].
    Spent {
        /// The offset of the first event that was not applied.
        next: Offset,
        /// A sentence for the author of the plugin.
        reason: String,
    },
    Other(EngineError),
}

impl From<EngineError> for FoldError {
    fn from(error: EngineError) -> Self {
        Self::Other(error)
    }
}

impl From<StoreError> for FoldError {
    fn from(error: StoreError) -> Self {
        Self::Other(error.into())
    }
}

impl From<FoldError> for EngineError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Spent { reason, .. } => Self::Plugin(reason),
            FoldError::Other(error) => error,
        }
    }
}

/// Opens a shard with the state `store`, which has applied no events yet.
fn open_shard(
    plugin: &Arc<dyn Plugin>,
    partition: PartitionId,
    store: Arc<dyn ShardStore>,
    config: &EngineConfig,
    logs: LogSink,
) -> Result<Shard, EngineError> {
    let id = ShardId {
        projection: plugin.manifest().name.clone(),
        version: VersionId("check".into()),
        rebuild: 0,
        partition,
    };
    let parts = ShardParts {
        id,
        plugin: plugin.clone(),
        store,
        config: Arc::new(config.clone()),
        logs,
        committers: None,
        recovers: false,
    };
    let mut shard = Shard::open(parts).map_err(|stop| match stop {
        StopReason::Fault(reason) => EngineError::Host(reason),
        StopReason::Halt(reason) => EngineError::Plugin(reason),
    })?;
    // With an epoch, the shard behaves like that of an active version: it keeps emitted events, so
    // that they can be compared.
    shard.state.epoch = Some("check".into());
    Ok(shard)
}

pub(crate) fn fold_within(
    plugin: &Arc<dyn Plugin>,
    log: &dyn Log,
    partition: PartitionId,
    stores: &dyn StateStores,
    config: &EngineConfig,
    options: FoldOptions,
    within: Within<'_>,
) -> Result<FoldResult, FoldError> {
    let Within { fuel_max, progress } = within;
    let store = stores.scratch()?;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let logs = line_sink(lines.clone(), config.log_lines_max, partition);
    let mut shard = open_shard(plugin, partition, store.clone(), config, logs)?;
    shard.runner.fuel_max = fuel_max;
    let mut pattern = options.drop_instances;
    let (mut halted, mut dropped) = (None, 0);
    loop {
        let batch_events = options.next_batch(pattern);
        let limits =
            StepLimits { now: Duration::ZERO, before: None, batch_events: Some(batch_events) };
        match shard.step(log, &limits) {
            // `Idle` means that the whole log is folded. `Wait` means that a read of the log is
            // pending. That does not happen here: every caller folds an `EventList`, which is in
            // memory.
            Ok(StepOutcome::Idle | StepOutcome::Wait) => break,
            Ok(StepOutcome::More) => {}
            Err(StopReason::Halt(reason)) => {
                halted = Some(reason);
                break;
            }
            Err(StopReason::Fault(reason)) => {
                let spent = fuel_max.is_some_and(|most| shard.runner.usage.fuel > most);
                // If the fuel was used up, the plugin is the cause. Every other fault is a fault of
                // the machine.
                return Err(match spent {
                    true => FoldError::Spent { next: shard.state.meta.next, reason },
                    false => EngineError::Host(reason).into(),
                });
            }
        }
        progress(shard.state.meta.next)?;
        if let Some(seed) = &mut pattern {
            *seed = next_pattern(*seed);
            if seed.is_multiple_of(DROP_EVERY + dropped / DROPS_AT_FIRST) {
                shard.runner.drop_instance();
                dropped += 1;
            }
        }
    }
    shard.commit(Duration::ZERO)?;
    let manifest = shard.state.manifest.clone();
    let view = View::new(
        shard.state.id.projection.clone(),
        shard.state.id.version.clone(),
        "check".into(),
        manifest,
        vec![(partition, store.snapshot()?)],
    )?;
    let logs = lines.lock().clone();
    Ok(FoldResult {
        parked: parked_of(&*store, partition)?,
        emitted: outbox_writer::emitted_events(&shard.state)?,
        logs,
        applied: shard.state.meta.applied,
        fuel: shard.runner.usage.fuel,
        halted,
        view,
        state: store,
    })
}

/// Reads the events for the checks of an upload: the first events of `log` to which `manifest`
/// subscribes. These are [`EngineConfig::check_events`] events in total, divided equally among the
/// partitions.
///
/// # Errors
/// Fails if the log cannot be read.
pub fn sample(
    manifest: &Manifest,
    log: &dyn Log,
    config: &EngineConfig,
) -> Result<Vec<EventList>, EngineError> {
    let events = config.check_events / log.partitions() as usize;
    let partitions = (0..log.partitions()).map(PartitionId);
    partitions.map(|it| EventList::sample(log, it, &manifest.filter(), events)).collect()
}

/// Checks whether a plugin is deterministic. It folds each partition of a sample with batches of
/// 1,000, 7 and 1 events, with and without dropped instances, and compares the results. Returns the
/// number of events in these folds.
///
/// If [`EngineConfig::check_fuel`] is not enough for the whole sample, the plugin is checked with
/// half of the events that it is enough for.
///
/// # Errors
/// Returns [`EngineError::Nondeterministic`] with the first difference, or an error of [`fold`].
pub fn determinism(
    plugin: &Arc<dyn Plugin>,
    sample: &[EventList],
    stores: &dyn StateStores,
    config: &EngineConfig,
) -> Result<u64, EngineError> {
    let mut compared = 0;
    for events in sample.iter().filter(|events| events.len() > 0) {
        compared += compare(plugin, events, stores, config)?;
    }
    Ok(compared)
}

/// Compares the folds of one partition. Returns the number of events in them.
fn compare(
    plugin: &Arc<dyn Plugin>,
    sample: &EventList,
    stores: &dyn StateStores,
    config: &EngineConfig,
) -> Result<u64, EngineError> {
    let folded = |sample: &EventList, batch_events, drop_instances| {
        let options = FoldOptions { batch_events, drop_instances, vary_batches: false };
        let within = Within { fuel_max: Some(config.check_fuel), progress: &mut |_| Ok(()) };
        fold_within(plugin, sample, sample.partition(), stores, config, options, within)
    };
    let shorter;
    // This fold makes the most calls and starts the most instances, so it uses the most fuel.
    let (sample, singly) = match folded(sample, 1, Some(3)) {
        Err(FoldError::Spent { next, .. }) if sample.before(next) >= 2 * CHECKED_EVENTS_MIN => {
            shorter = sample.first(sample.before(next) / 2);
            let singly = folded(&shorter, 1, Some(3));
            (&shorter, singly)
        }
        folded => (sample, folded),
    };
    let singly = singly?;
    let first = folded(sample, 1_000, None)?;
    let how = "one by one instead of in batches of 1,000";
    same(plugin, &first, &singly, sample.len(), how)?;
    drop(singly);
    let others = [
        (7, Some(1), "in batches of 7 instead of 1,000, with instances dropped in between"),
        (1_000, Some(2), "a second time, with instances dropped in between"),
        // No instance is dropped in this fold, because some plugins deviate only after many calls
        // of one instance. In a small sample with dropped instances, none might get that many
        // calls.
        (1, None, "one by one on one instance instead of in batches of 1,000"),
    ];
    for (batch_events, drops, how) in others {
        let other = folded(sample, batch_events, drops)?;
        same(plugin, &first, &other, sample.len(), how)?;
    }
    Ok(sample.len() as u64)
}

/// Folds the partition `partition` of `log` again, in batches of varied sizes and with dropped
/// instances. Compares the result with `first`, which is an earlier fold of the same events.
///
/// # Errors
/// Returns [`EngineError::Nondeterministic`] with the first difference, or an error of [`fold`].
pub fn fold_again(
    plugin: &Arc<dyn Plugin>,
    log: &EventList,
    first: &FoldResult,
    stores: &dyn StateStores,
    config: &EngineConfig,
    progress: FoldProgress<'_>,
) -> Result<(), EngineError> {
    let options = FoldOptions {
        batch_events: VARIED_EVENTS_MAX,
        drop_instances: Some(VARIED_SEED),
        vary_batches: true,
    };
    let again = fold(plugin, log, log.partition(), stores, config, options, progress)?;
    let how = "again, in batches of varied sizes and with instances dropped in between";
    same(plugin, first, &again, log.len(), how)
}

/// Compares two folds of the same `events` events, and returns an error if they differ. `how`
/// describes how `other` was folded.
fn same(
    plugin: &Arc<dyn Plugin>,
    first: &FoldResult,
    other: &FoldResult,
    events: usize,
    how: &str,
) -> Result<(), EngineError> {
    let Some([space, key, left, right]) = difference(plugin, first, other)? else { return Ok(()) };
    let difference =
        Nondeterminism { events: events as u64, how: how.into(), space, key, left, right };
    Err(EngineError::Nondeterministic(Box::new(difference)))
}

/// Returns the first difference between two folds as text: the space, the key and both values.
fn difference(
    plugin: &Arc<dyn Plugin>,
    first: &FoldResult,
    other: &FoldResult,
) -> Result<Option<[String; 4]>, EngineError> {
    let text = |value: Option<Vec<u8>>| match value {
        Some(value) => excerpt(&value),
        None => "nothing".into(),
    };
    if let Some(d) = dump::first_difference(&*first.state, &*other.state)? {
        let space = match d.space {
            Space::Table(table) => {
                let name = plugin.manifest().tables.get(table.0 as usize).map(|t| t.name.clone());
                format!("row in table `{}`", name.unwrap_or_default())
            }
            Space::TimersByTime | Space::TimersByKey => "timer".into(),
            Space::Parked | Space::ParkedSubjects => "parked event".into(),
            _ => "count".into(),
        };
        return Ok(Some([space, excerpt(&d.key), text(d.left), text(d.right)]));
    }
    let longest = first.emitted.len().max(other.emitted.len());
    for index in 0..longest {
        let (left, right) = (first.emitted.get(index), other.emitted.get(index));
        if left != right {
            let event_text = |event: Option<&OutboxEvent>| text(event.map(|e| e.data.clone()));
            let key = index.to_string();
            return Ok(Some(["emitted event".into(), key, event_text(left), event_text(right)]));
        }
    }
    Ok(None)
}

fn parked_of(
    store: &dyn ReadStore,
    partition: PartitionId,
) -> Result<Vec<ParkedStatus>, EngineError> {
    let pairs = store.scan(Space::Parked, &KeyRange::all(), usize::MAX, false)?;
    let records = pairs.iter().filter_map(|(_, value)| lantern_core::ParkedRecord::decode(value));
    Ok(records.map(|record| status_of(partition.0, record)).collect())
}

fn line_sink(lines: Arc<Mutex<Vec<LogLine>>>, most: usize, partition: PartitionId) -> LogSink {
    Arc::new(move |offset, level, message| {
        let mut lines = lines.lock();
        if lines.len() < most {
            lines.push(LogLine {
                time_us: 0,
                version: String::new(),
                partition: partition.0,
                offset: offset.0,
                level: level.name().into(),
                message: message.to_owned(),
            });
        }
    })
}

/// Returns the next number of the pseudo-random sequence that decides which instances are dropped.
/// It is the step of SplitMix64 (Steele et al. 2014).
pub(crate) fn next_pattern(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns the size of a batch, chosen by a number of the sequence of [`next_pattern`].
pub(crate) fn varied_batch(pattern: u64) -> usize {
    const MOST: usize = VARIED_EVENTS_MAX;
    // Other bits of the number decide which instances are dropped. Most batches are large, because
    // small ones take more time.
    [1, 7, 64, MOST, MOST, MOST, MOST, MOST][(pattern >> 61) as usize]
}
