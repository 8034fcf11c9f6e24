//! Implements second folds, which detect a plugin that passed the determinism check at its upload
//! but is not deterministic. Before the result of a sampled live batch is merged, a fresh instance
//! folds the batch again over the same state. The results are compared, and the second one is
//! dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use lantern_core::{
    ApplyError, Batch, FoldDifference, Manifest, Plugin, Space, TableId, Timestamp, TrapKind,
};

use crate::call::CallHost;
use crate::rejections::Rejected;
use crate::state::ShardState;
use crate::stop_reason::{CallError, StopReason};

/// How many bytes of a key or value the report of a difference shows.
const SHOWN_BYTES_MAX: usize = 200;

/// Returns whether the batch at `offset` belongs to the sample. About one batch in `every` does.
/// This depends on the offset alone, not on when events arrive.
pub(crate) fn is_sampled(offset: u64, every: u64) -> bool {
    every > 0 && mixed(offset).is_multiple_of(every)
}

/// Folds `batch` again and compares the result with `first`. If the results differ, the difference
/// is stored in the state and logged. `dues` are the due times of the batch's timers.
pub(crate) fn fold_again(
    plugin: &dyn Plugin,
    state: &mut ShardState,
    (batch, dues): (&Arc<Batch>, &[Timestamp]),
    first: &CallHost,
) -> Result<(), CallError> {
    // If the machine lacks a resource, this says nothing about the plugin, so there is no second
    // fold.
    let Ok(mut instance) = plugin.instantiate() else { return Ok(()) };
    let offset = batch.offsets.first().copied().unwrap_or_default();
    let call = state.begin_call(batch, dues).map_err(CallError::Stop)?;
    // The second call gets the full fuel of a single event. This call may need more than the first
    // one: a fresh instance has no cache and must read rows again.
    let applied = instance.apply(batch, Box::new(call), state.config.fuel_event);
    let call = applied.host.into_any().downcast::<CallHost>().map_err(|_| {
        CallError::Stop(StopReason::Fault("the plugin host gave back another call".into()))
    })?;
    let second = *call;
    let difference = match applied.result {
        Ok(()) => difference(&state.manifest, offset, first, &second),
        Err(ApplyError::Fault(_) | ApplyError::Trapped { kind: TrapKind::Fuel, .. }) => None,
        Err(error) => Some(FoldDifference {
            offset,
            what: "outcome of the call".into(),
            key: String::new(),
            first: Some("it succeeded".into()),
            second: Some(error.to_string()),
        }),
    };
    state.buffer.take_back(second.applied);
    state.meta.second_folds.batches += 1;
    let Some(difference) = difference else { return Ok(()) };
    tracing::error!(
        projection = %state.id.projection, version = %state.id.version,
        partition = %state.id.partition, offset, what = difference.what,
        key = difference.key, code = "LAN-0222",
        "a second fold of the same batch gave another result: the plugin is not deterministic"
    );
    let reason = format!(
        "the plugin is not deterministic: folded a second time, the batch at offset {offset} gives another {} under key `{}` (`engine.second_fold_halts`)",
        difference.what, difference.key
    );
    state.meta.second_folds.differences += 1;
    state.meta.second_folds.last = Some(difference);
    if state.config.second_fold_halts {
        return Err(CallError::Stop(StopReason::Halt(reason)));
    }
    Ok(())
}

fn difference(
    manifest: &Manifest,
    offset: u64,
    first: &CallHost,
    second: &CallHost,
) -> Option<FoldDifference> {
    let (left, right) = (first.written.all(), second.written.all());
    let differing = left
        .iter()
        .find(|(key, value)| right.get(*key) != Some(value))
        .map(|(key, _)| key)
        .or_else(|| right.keys().find(|key| !left.contains_key(*key)));
    if let Some((space, key)) = differing {
        let entry = (*space, key.clone());
        return Some(FoldDifference {
            offset,
            what: name_of(manifest, *space),
            key: excerpt(key),
            first: written(&left, &entry),
            second: written(&right, &entry),
        });
    }
    let rejected = [first, second].map(|call| call.rejections.rejected());
    if rejected[0] != rejected[1] {
        let text = |rejected: &[Rejected]| {
            rejected.iter().map(|one| format!("{}: {}", one.index, one.message)).collect::<Vec<_>>()
        };
        let [first, second] = rejected.map(|one| excerpt(text(one).join("; ").as_bytes()));
        return Some(FoldDifference {
            offset,
            what: "list of rejected events".into(),
            key: String::new(),
            first: Some(first),
            second: Some(second),
        });
    }
    if first.emitted == second.emitted {
        return None;
    }
    let index = first.emitted.iter().zip(&second.emitted).position(|(l, r)| l != r);
    let index = index.unwrap_or(first.emitted.len().min(second.emitted.len()));
    let event = |call: &CallHost| call.emitted.get(index).map(|event| excerpt(&event.data));
    Some(FoldDifference {
        offset,
        what: "emitted event".into(),
        key: index.to_string(),
        first: event(first),
        second: event(second),
    })
}

fn name_of(manifest: &Manifest, space: Space) -> String {
    match space {
        Space::Table(TableId(table)) => {
            let declared = manifest.tables.get(table as usize);
            format!("row in table `{}`", declared.map_or("?", |table| table.name.as_str()))
        }
        Space::TimersByTime | Space::TimersByKey => "timer".into(),
        _ => "entry of the state".into(),
    }
}

type WriteSet = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

/// Returns the value that a fold wrote under `entry`, as text; `None` if it wrote none.
fn written(all: &WriteSet, entry: &(Space, Vec<u8>)) -> Option<String> {
    let value = all.get(entry)?;
    Some(value.as_deref().map_or_else(|| "deleted".to_owned(), excerpt))
}

/// Returns the beginning of a key or value, as text.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    String::from_utf8_lossy(cut).escape_debug().to_string().replace("\\\"", "\"")
}

/// Mixes the bits of `offset` (the finisher of SplitMix64, Steele et al. 2014), so that
/// neighbouring offsets are not selected together.
fn mixed(offset: u64) -> u64 {
    let mut z = offset.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
