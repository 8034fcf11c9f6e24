//! Reads a log for callers that may block.

use std::time::Duration;

use crate::{Log, LogError, LogRead, Offset, PartitionId, TypeFilter};

/// [`read_or_wait`] waits at most this many times, for [`WAIT`] each time.
const WAITS_MAX: u32 = 30;
const WAIT: Duration = Duration::from_secs(1);

/// Like [`Log::read`], but blocks while the read is pending.
///
/// # Errors
/// Returns the errors of [`Log::read`]; [`LogError::Unavailable`] if the read is still pending
/// after half a minute.
pub fn read_or_wait(
    log: &dyn Log,
    partition: PartitionId,
    from: Offset,
    types: &TypeFilter,
) -> Result<LogRead, LogError> {
    for _ in 0..WAITS_MAX {
        match log.read(partition, from, types)? {
            LogRead::Pending => log.wait(partition, from, WAIT),
            answer => return Ok(answer),
        }
    }
    let waited = WAITS_MAX;
    Err(LogError::Unavailable(
        format!(
            "no event of partition {partition} from offset {from} on arrived within {waited} s"
        )
        .into(),
    ))
}
