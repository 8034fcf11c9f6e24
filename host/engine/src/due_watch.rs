//! Finds timers that a call sets and that are due before the end of its batch. A batch may span
//! several ticks only if nothing is due at them, so such a call must be repeated with fewer events.

use std::collections::BTreeMap;

use lantern_core::{Batch, Timestamp};

/// Tracks timers that a call sets and that are due before the end of its batch. If a batch ended at
/// every tick, these timers would fire before the later events of the batch.
#[derive(Default)]
pub(crate) struct DueWatch {
    /// The watermark at the batch's last event.
    last: Timestamp,
    /// For each key of a timer, the index of the event that set the timer, and the due time.
    set: BTreeMap<String, (usize, Timestamp)>,
    /// The earliest due time of the timers that should have fired before the call set or cancelled
    /// them again.
    missed: Option<Timestamp>,
    /// The time of the first timer or expiry of a row that the call set.
    pub(crate) earliest: Timestamp,
}

impl DueWatch {
    /// Creates a watch for a call with `batch`.
    pub(crate) fn of(batch: &Batch) -> Self {
        let last = batch.watermarks.last().copied().unwrap_or(batch.watermark);
        Self { last, earliest: Timestamp::MAX, ..Self::default() }
    }

    /// Notes that event `index` sets or cancels the timer with the key `key`. `now` is the
    /// watermark at this event.
    pub(crate) fn used(&mut self, key: &str, index: usize, now: Timestamp) {
        let missed = |(set_by, due): &(usize, Timestamp)| *due <= now || index < *set_by;
        if let Some((_, due)) = self.set.remove(key).filter(missed) {
            self.missed = Some(self.missed.map_or(due, |first| first.min(due)));
        }
    }

    /// Notes that event `index` sets the timer with the key `key` to the time `due`.
    pub(crate) fn set(&mut self, key: &str, index: usize, due: Timestamp) {
        self.earliest = self.earliest.min(due);
        if due <= self.last {
            self.set.insert(key.to_owned(), (index, due));
        }
    }

    /// Returns the earliest due time of the timers that should have fired within the batch.
    pub(crate) fn missed(&self) -> Option<Timestamp> {
        let left = self.set.values().map(|(_, due)| *due);
        left.chain(self.missed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a watch for a batch with events at the watermarks 0, 10, 20 and 30.
    fn watch() -> DueWatch {
        let watermarks = [0, 10, 20, 30].map(Timestamp).to_vec();
        DueWatch::of(&Batch { watermarks, ..Batch::default() })
    }

    #[test]
    fn a_timer_due_at_a_later_event_is_missed_unless_it_is_moved_before() {
        let mut due = watch();
        due.set("late", 0, Timestamp(31));
        assert_eq!(due.missed(), None, "it fires after the batch");
        due.set("moved", 0, Timestamp(20));
        due.used("moved", 1, Timestamp(10));
        assert_eq!(due.missed(), None);
        due.set("kept", 1, Timestamp(25));
        assert_eq!(due.missed(), Some(Timestamp(25)));
        assert_eq!(due.earliest, Timestamp(20));
    }

    #[test]
    fn a_timer_that_is_moved_at_or_after_its_time_was_missed() {
        let mut due = watch();
        due.set("a", 0, Timestamp(20));
        due.used("a", 2, Timestamp(20));
        due.set("a", 2, Timestamp(90));
        assert_eq!(due.missed(), Some(Timestamp(20)));
    }

    #[test]
    fn a_guest_that_names_causes_out_of_order_repeats_the_call() {
        let mut due = watch();
        due.set("a", 3, Timestamp(30));
        due.used("a", 1, Timestamp(10));
        assert_eq!(due.missed(), Some(Timestamp(30)));
    }
}
