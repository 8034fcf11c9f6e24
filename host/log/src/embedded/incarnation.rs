//! Records the incarnations of the log. An incarnation identifies the opening of the log that wrote
//! an event.
//!
//! Each opening of the log draws a random number. It stores the number in the transaction that
//! appends its first events to a partition. If a log is restored from a copy and then gets other
//! events than the original, the numbers at the offsets of these events differ from those in the
//! original. A reader that has stored the original's number notices this.

use lantern_core::Offset;

/// The maximum number of incarnations that are kept for each partition. If there are more, the
/// oldest are removed. A reader may have stored an offset with a removed incarnation. This offset
/// is refused, as if it belonged to another log.
pub(crate) const INCARNATIONS_MAX: usize = 4_096;

/// The incarnations of one partition, oldest first, each with the first offset that it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Incarnations(Vec<(Offset, u64)>);

impl Incarnations {
    /// Adds an incarnation that begins at the offset `start`. If the oldest incarnation is removed
    /// to make room, returns the offset at which that incarnation began.
    pub(crate) fn push(&mut self, start: Offset, incarnation: u64) -> Option<Offset> {
        self.0.push((start, incarnation));
        (self.0.len() > INCARNATIONS_MAX).then(|| self.0.remove(0).0)
    }

    /// Returns the number of the newest incarnation.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.0.last().map(|(_, incarnation)| *incarnation)
    }

    /// Returns the incarnation that wrote the event before `offset`. `None` if there is no event
    /// before it, or if the incarnation was removed.
    pub(crate) fn before(&self, offset: Offset) -> Option<u64> {
        let index = self.0.partition_point(|(start, _)| *start < offset);
        index.checked_sub(1).map(|index| self.0[index].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_belongs_to_the_opening_that_wrote_the_event_before_it() {
        let mut incarnations = Incarnations::default();
        assert_eq!(incarnations.before(Offset(5)), None);
        incarnations.push(Offset(0), 7);
        incarnations.push(Offset(10), 8);
        let at = [0, 1, 10, 11, 99].map(|offset| incarnations.before(Offset(offset)));
        assert_eq!(at, [None, Some(7), Some(7), Some(8), Some(8)]);
        assert_eq!(incarnations.newest(), Some(8));
    }

    #[test]
    fn the_oldest_incarnations_are_removed() {
        let mut incarnations = Incarnations::default();
        for start in 0..INCARNATIONS_MAX as u64 {
            assert_eq!(incarnations.push(Offset(start), start), None);
        }
        assert_eq!(incarnations.push(Offset(9_999), 1), Some(Offset(0)));
        assert_eq!(incarnations.before(Offset(1)), None);
    }
}
