//! Which opening of the log wrote which events.
//!
//! Each opening chooses a random number, and stores it in the same transaction as the first
//! events that it appends to a partition. If a log is restored from a copy and then gets
//! other events than the original, it has other numbers at the offsets of these events. A
//! reader that kept the original's number notices this.

use lantern_core::Offset;

/// The maximum number of incarnations that are kept per partition. If there are more, the
/// oldest are removed. Offsets that a reader kept with a removed incarnation are then
/// refused, as if they belonged to another log.
pub(crate) const INCARNATIONS_MAX: usize = 4_096;

/// The incarnations of one partition, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Incarnations(Vec<(Offset, u64)>);

impl Incarnations {
    /// Adds the next incarnation, which starts at `start`. Returns the start of the one
    /// that was removed to make room.
    pub(crate) fn push(&mut self, start: Offset, incarnation: u64) -> Option<Offset> {
        self.0.push((start, incarnation));
        (self.0.len() > INCARNATIONS_MAX).then(|| self.0.remove(0).0)
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.0.last().map(|(_, incarnation)| *incarnation)
    }

    /// The incarnation that wrote the event before `offset`; `None` before the first
    /// event, or if the incarnation was removed.
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
