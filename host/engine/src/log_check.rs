//! Checks that the log is still the one that a state was folded from. An offset alone does not
//! prove this: a log that was recreated or restored has other events at the same offsets.

use lantern_core::{Log, Offset};

use crate::state::ShardState;
use crate::stop_reason::StopReason;

/// Checks the identity and the incarnation of the shard's partition.
///
/// # Errors
/// Returns [`StopReason::Halt`] if the log is not the one that the state was folded from.
pub(crate) fn check_history(state: &mut ShardState, log: &dyn Log) -> Result<(), StopReason> {
    check_identity(state, log)?;
    check_incarnation(state, log)
}

/// Checks that the log was not restored from a backup that is older than the shard's state. Such a
/// log has other events at offsets that the shard has already folded.
fn check_incarnation(state: &ShardState, log: &dyn Log) -> Result<(), StopReason> {
    let (was, next) = (state.meta.incarnation, state.meta.next);
    match log.incarnation_at(state.id.partition, next) {
        Some(is) if was != 0 && next > Offset(0) && is != was => {
            check_end(state, log)?;
            Err(StopReason::Halt(format!(
                "the log has other events before offset {next} than the state was folded from: it was restored from a copy and continued differently; rebuild the projection (`lantern plugin rebuild`), or delete it"
            )))
        }
        _ => Ok(()),
    }
}

/// Records which incarnation of the log wrote the event before the state's next offset. This must
/// be called before each commit if the next offset has moved.
pub(crate) fn record_incarnation(state: &mut ShardState, log: &dyn Log) {
    let next = state.meta.next;
    if let Some(incarnation) = log.incarnation_at(state.id.partition, next) {
        state.meta.incarnation = if next == Offset(0) { 0 } else { incarnation };
    }
}

/// Checks that the partition was not recreated. A recreated partition has other events at the
/// offsets that the shard has already folded.
fn check_identity(state: &mut ShardState, log: &dyn Log) -> Result<(), StopReason> {
    let partition = state.id.partition;
    let Some(is) = log.identity(partition) else { return Ok(()) };
    match &state.meta.folded {
        Some(was) if **was == *is => Ok(()),
        Some(was) => {
            let name = log.partition_name(partition).unwrap_or_else(|| partition.to_string());
            Err(StopReason::Halt(format!(
                "partition {name} is not the one that was folded up to offset {}: it was deleted and recreated (its id was {was} and is {is}); rebuild the projection from the events that are there now (`lantern plugin rebuild`), or delete it",
                state.meta.next
            )))
        }
        None => {
            state.meta.folded = Some(is.to_string());
            Ok(())
        }
    }
}

/// Checks that the log does not end before the shard's next offset. If the log ends earlier, it has
/// lost events. New events would get offsets that the shard has already passed, and the shard would
/// skip them.
///
/// # Errors
/// Returns [`StopReason::Halt`] if events were lost, [`StopReason::Fault`] if the log cannot be
/// read.
pub(crate) fn check_end(state: &ShardState, log: &dyn Log) -> Result<(), StopReason> {
    let end = log.bounds(state.id.partition).map_err(|e| StopReason::Fault(e.to_string()))?.end;
    let next = state.meta.next;
    if end < next {
        return Err(StopReason::Halt(format!(
            "the state has folded up to offset {next}, and the log ends at {end}: it has lost events; stop the server and run `lantern doctor`"
        )));
    }
    Ok(())
}
