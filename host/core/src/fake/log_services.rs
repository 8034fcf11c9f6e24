//! Implements the other ports of a log in memory: closing, retention, heartbeats, committed offsets
//! and dead letters.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use super::{MemoryLog, lock};
use crate::{
    AppendDone, CloseLog, CommittedOffsets, DeadLetter, DeadLetterName, DeadLetters,
    DeadLettersRead, Heartbeats, Log, LogError, LogMaintenance, MaintenanceReport, Offset,
    PartitionId, RetentionFloor, Timestamp, TrimmedPartition, heartbeat,
};

impl CloseLog for MemoryLog {
    fn close(&self) {
        self.refuse_appends();
    }
}

/// This log has no retention by age or size: it deletes all events before the floors.
impl LogMaintenance for MemoryLog {
    fn maintain(
        &self,
        _now: Timestamp,
        floor: RetentionFloor<'_>,
    ) -> Result<MaintenanceReport, LogError> {
        let mut report = MaintenanceReport::default();
        for partition in (0..self.partitions()).map(PartitionId) {
            let bounds = self.bounds(partition)?;
            let start = floor(partition).unwrap_or(bounds.end).min(bounds.end);
            if start > bounds.start {
                self.retain_from(partition, start);
                let events = start.0 - bounds.start.0;
                let trimmed =
                    TrimmedPartition { partition, events, start, ..TrimmedPartition::default() };
                report.trimmed.push(trimmed);
            }
        }
        Ok(report)
    }
}

impl Heartbeats for MemoryLog {
    fn accepts_heartbeats(&self, partition: PartitionId) -> bool {
        partition.0 < self.partitions()
    }

    fn append_heartbeat(&self, partition: PartitionId, time: Timestamp, done: AppendDone) {
        self.append_or_hold(heartbeat(partition, time, 0), Some(partition), done);
    }
}

/// Stores committed offsets in memory.
#[derive(Debug, Default)]
pub struct MemoryOffsets {
    offsets: Mutex<BTreeMap<(String, PartitionId), Offset>>,
}

impl MemoryOffsets {
    /// Returns the last offset that was noted for each projection and partition.
    #[must_use]
    pub fn noted(&self) -> BTreeMap<(String, PartitionId), Offset> {
        lock(&self.offsets).clone()
    }
}

impl CommittedOffsets for MemoryOffsets {
    fn note_offset(&self, projection: &str, partition: PartitionId, next: Offset) {
        lock(&self.offsets).insert((projection.to_owned(), partition), next);
    }

    fn commit_interval(&self) -> Duration {
        Duration::from_millis(10)
    }
}

/// Dead letters in memory. Each page that is read has one dead letter.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters {
    inner: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    copies: Vec<DeadLetter>,
    /// The number of copies that calls of `read_copies` have read so far.
    read: usize,
    copy_faults: VecDeque<LogError>,
}

impl MemoryDeadLetters {
    /// Returns the stored copies, in the order in which they were stored.
    #[must_use]
    pub fn copies(&self) -> Vec<DeadLetter> {
        lock(&self.inner).copies.clone()
    }

    /// Makes the next `copy` fail with `error` and store nothing. If this is called several
    /// times, the errors apply to consecutive calls.
    pub fn fail_next_copy(&self, error: LogError) {
        lock(&self.inner).copy_faults.push_back(error);
    }
}

impl DeadLetters for MemoryDeadLetters {
    fn copy(&self, letters: &[DeadLetter]) -> Result<(), LogError> {
        let mut inner = lock(&self.inner);
        if let Some(fault) = inner.copy_faults.pop_front() {
            return Err(fault);
        }
        inner.copies.extend_from_slice(letters);
        Ok(())
    }

    fn read_copies(
        &self,
        from_beginning: bool,
        page: &mut dyn FnMut(&[DeadLetterName]) -> ControlFlow<()>,
    ) -> Result<DeadLettersRead, LogError> {
        let (copies, start) = {
            let inner = lock(&self.inner);
            (inner.copies.clone(), if from_beginning { 0 } else { inner.read })
        };
        let mut read = DeadLettersRead::default();
        for (index, letter) in copies.iter().enumerate().skip(start) {
            let name = DeadLetterName {
                projection: letter.projection.clone(),
                partition: letter.partition,
                offset: letter.record.offset,
            };
            read.read += 1;
            if page(&[name]).is_break() {
                break;
            }
            lock(&self.inner).read = index + 1;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_goes_to_its_partition_and_a_closed_log_refuses_it() {
        let log = MemoryLog::new(3, 10);
        let two = PartitionId(2);
        log.append_heartbeat(two, Timestamp(5), Box::new(|done| assert!(done.is_ok())));
        assert_eq!(log.bounds(two).unwrap().end, Offset(1));
        assert!(!log.accepts_heartbeats(PartitionId(3)));
        let unknown = PartitionId(3);
        log.append_heartbeat(unknown, Timestamp(5), Box::new(|done| assert!(done.is_err())));
        log.close();
        let closed = |done| assert!(matches!(done, Err(LogError::Closed)));
        log.append_heartbeat(two, Timestamp(6), Box::new(closed));
        assert_eq!(log.bounds(two).unwrap().end, Offset(1));
    }

    #[test]
    fn maintenance_deletes_up_to_the_floors() {
        let log = MemoryLog::new(2, 10);
        for partition in [PartitionId(0), PartitionId(1)] {
            for time in 0..4 {
                log.append_heartbeat(partition, Timestamp(time), Box::new(|_| ()));
            }
        }
        let floor = |partition: PartitionId| (partition.0 == 0).then_some(Offset(3));
        let report = log.maintain(Timestamp(0), &floor).unwrap();
        let starts: Vec<_> = report.trimmed.iter().map(|t| (t.start.0, t.events)).collect();
        assert_eq!(starts, [(3, 3), (4, 4)]);
        assert!(log.maintain(Timestamp(0), &floor).unwrap().trimmed.is_empty());
    }
}
