//! Folds the newest events of the log with a plugin, in memory: for the dry run of an
//! upload.

use std::ops::Range;
use std::sync::Arc;

use lantern_core::{
    Chunk, HEARTBEAT_TYPE, Log, LogRead, Offset, PartitionBounds, PartitionId, Plugin, StateStores,
    TypeFilter, UNREADABLE_TYPE, VersionId, View, read_or_wait,
};

use crate::determinism_check::{FoldOptions, Within, fold_within};
use crate::event_list::{EventList, part};
use crate::{EngineConfig, EngineError, LogLine, ParkedStatus};

/// The maximum number of offsets that are read for each event of the requested sample. It limits
/// the reading if few events have one of the wanted types.
const SPAN_RATIO_MAX: u64 = 16;

/// The result of [`fold_sample`].
pub struct SampleFold {
    /// The tables of all partitions.
    pub view: View,
    /// Events applied.
    pub applied: u64,
    /// Events that could not be applied.
    pub parked: Vec<ParkedStatus>,
    /// How many events the plugin has emitted.
    pub emitted: u64,
    /// What the plugin logged.
    pub logs: Vec<LogLine>,
    /// Why the fold of a partition stopped before the end, if it did.
    pub halted: Option<String>,
    /// Fuel used.
    pub fuel: u64,
}

/// Returns a sample of the newest events whose types match one of `filters`: about `events` events
/// of about `bytes_max` bytes in total, divided equally among the partitions. The sample also has
/// the heartbeats and unreadable records between these events.
///
/// # Errors
/// Returns an error if the log cannot be read.
pub fn newest_events(
    log: &dyn Log,
    filters: &[TypeFilter],
    events: usize,
    bytes_max: usize,
) -> Result<Vec<EventList>, EngineError> {
    let share = |all: usize| (all / log.partitions().max(1) as usize).max(1);
    let (events, bytes_max) = (share(events) as u64, share(bytes_max));
    let is_wanted = |kind: &str| filters.iter().any(|filter| filter.matches(kind));
    let is_kept = |kind: &str| is_wanted(kind) || [HEARTBEAT_TYPE, UNREADABLE_TYPE].contains(&kind);
    let newest = |partition| {
        let bounds = log.bounds(partition)?;
        let from = first_offset(log, (partition, &bounds), &is_wanted, events, bytes_max)?;
        let mut parts = Vec::new();
        read(log, partition, from, bounds.end, &mut |chunk, indices| {
            parts.extend(part(chunk, indices, &is_kept));
        })?;
        Ok(EventList::of(partition, parts))
    };
    (0..log.partitions()).map(PartitionId).map(newest).collect()
}

/// Returns the offset of the oldest event of the sample. The sample has the newest `events` wanted
/// events, or fewer if they have more than `bytes_max` bytes.
fn first_offset(
    log: &dyn Log,
    (partition, bounds): (PartitionId, &PartitionBounds),
    is_wanted: &dyn Fn(&str) -> bool,
    events: u64,
    bytes_max: usize,
) -> Result<Offset, EngineError> {
    let span_max = events.saturating_mul(SPAN_RATIO_MAX);
    let oldest = Offset(bounds.end.0.saturating_sub(span_max)).max(bounds.start);
    let (mut first, mut count, mut bytes) = (bounds.end, 0, 0);
    let (mut to, mut span) = (bounds.end, events);
    while to > oldest {
        let from = Offset(to.0.saturating_sub(span)).max(oldest);
        let mut wanted = Vec::new();
        read(log, partition, from, to, &mut |chunk, indices| {
            let found = indices.filter(|index| is_wanted(chunk.events.kind(*index)));
            wanted
                .extend(found.map(|index| (chunk.offset(index), chunk.events.get(index).bytes())));
        })?;
        for (offset, size) in wanted.into_iter().rev() {
            bytes += size;
            if count == events || bytes > bytes_max {
                return Ok(first);
            }
            count += 1;
            first = offset;
        }
        (to, span) = (from, span.saturating_mul(2));
    }
    Ok(first)
}

/// Reads the events from `from` up to `end`. Passes each chunk to `take`, with the indices of these
/// events in it.
fn read(
    log: &dyn Log,
    partition: PartitionId,
    from: Offset,
    end: Offset,
    take: &mut dyn FnMut(&Chunk, Range<usize>),
) -> Result<(), EngineError> {
    let all = TypeFilter::everything().and(HEARTBEAT_TYPE).and(UNREADABLE_TYPE);
    let mut next = from;
    while next < end {
        match read_or_wait(log, partition, next, &all)? {
            LogRead::End | LogRead::Pending => break,
            LogRead::Skipped { next: after } => next = after,
            LogRead::Chunk(chunk) => {
                take(&chunk, chunk.index_of(next)..chunk.index_of(end));
                next = chunk.end().max(next.next());
            }
        }
    }
    Ok(())
}

/// Folds a sample with `plugin`, beginning with empty tables. `pace` is called between steps with
/// the number of offsets folded, and may block. If it returns an error, the fold ends with that
/// reason.
///
/// # Errors
/// [`EngineError::Ended`] with that reason, [`EngineError::Plugin`] or [`EngineError::Host`] if the
/// plugin or the machine prevents the fold, or an error of the store.
pub fn fold_sample(
    plugin: &Arc<dyn Plugin>,
    version: &VersionId,
    sample: &[EventList],
    stores: &dyn StateStores,
    config: &EngineConfig,
    pace: &mut dyn FnMut(u64) -> Result<(), String>,
) -> Result<SampleFold, EngineError> {
    let mut states = Vec::new();
    let (mut applied, mut emitted, mut fuel, mut before) = (0, 0, 0, 0);
    let (mut parked, mut logs, mut halted) = (Vec::new(), Vec::new(), None);
    for events in sample {
        let from = events.range().from;
        let mut progress = |next: Offset| {
            let folded = before + next.0.saturating_sub(from.0);
            pace(folded).map_err(EngineError::Ended)
        };
        let within = Within { fuel_max: Some(config.check_fuel), progress: &mut progress };
        let options = FoldOptions::batches_of(config.batch_events_max);
        let folded =
            fold_within(plugin, events, events.partition(), stores, config, options, within)?;
        before += events.len() as u64;
        applied += folded.applied;
        emitted += folded.emitted.len() as u64;
        fuel += folded.fuel;
        parked.extend(folded.parked);
        logs.extend(folded.logs);
        halted = halted.or(folded.halted);
        states.push((events.partition(), folded.state.snapshot()?));
    }
    let name = plugin.manifest().name.clone();
    let manifest = Arc::new(plugin.manifest().clone());
    let view = View::new(name, version.clone(), "sample".into(), manifest, states)?;
    Ok(SampleFold { view, applied, parked, emitted, logs, halted, fuel })
}
