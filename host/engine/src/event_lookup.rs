//! Reads single events of the log by their offset.

use lantern_core::{
    Event, EventRef, HEARTBEAT_TYPE, Log, LogError, LogRead, Offset, PartitionId, Timestamp,
    TypeFilter, UNREADABLE_TYPE, read_or_wait,
};

/// The event at `offset` without its payload, and its append time, which may be unknown. `None` if
/// the log has no event at this offset.
///
/// # Errors
/// [`LogError`] if the log cannot be read, or does not contain this offset any more.
pub(crate) fn event_at(
    log: &dyn Log,
    partition: PartitionId,
    offset: Offset,
) -> Result<Option<(Event, Option<Timestamp>)>, LogError> {
    let all = TypeFilter::everything().and(HEARTBEAT_TYPE).and(UNREADABLE_TYPE);
    if offset >= log.bounds(partition)?.end {
        return Ok(None);
    }
    let mut next = offset;
    while next <= offset {
        match read_or_wait(log, partition, next, &all)? {
            LogRead::End | LogRead::Pending => return Ok(None),
            LogRead::Skipped { next: after } => next = after,
            LogRead::Chunk(chunk) => {
                let index = chunk.index_of(offset);
                if index < chunk.events.len() && chunk.offset(index) == offset {
                    let event = EventRef { data: &[], ..chunk.events.get(index) };
                    return Ok(Some((event.to_owned(), chunk.appended(index))));
                }
                next = chunk.end().max(next.next());
            }
        }
    }
    Ok(None)
}
