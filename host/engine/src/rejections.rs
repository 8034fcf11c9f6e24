//! Implements rejections. During a call, a plugin can reject single events and apply the others.
//! The call then still succeeds, and the rejected events are parked.

use lantern_core::{Batch, Cause, HostError, OnFailure};

/// An event that the plugin has rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The index of the event among the events of the call.
    pub(crate) index: usize,
    /// The reason that the plugin gave.
    pub(crate) message: String,
}

/// The events that the plugin has rejected in one call, and the timers and events for which it has
/// written something.
#[derive(Debug)]
pub(crate) struct Rejections {
    /// For each timer and event of the batch: whether the plugin has written something for it.
    wrote: Vec<bool>,
    timers: usize,
    /// Whether the call ends with the first rejected event.
    ends: bool,
    rejected: Vec<Rejected>,
}

impl Rejections {
    pub(crate) fn of(batch: &Batch, on_failure: OnFailure) -> Self {
        Self {
            wrote: vec![false; batch.len()],
            timers: batch.timers.len(),
            ends: on_failure != OnFailure::ParkEvent,
            rejected: Vec::new(),
        }
    }

    /// Returns the rejected events, in the order of the batch.
    pub(crate) fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Returns the rejected events like [`Rejections::rejected`], without copying them.
    pub(crate) fn into_rejected(self) -> Vec<Rejected> {
        self.rejected
    }

    /// Notes that the plugin wrote a row, set a timer or emitted an event for `cause`.
    ///
    /// # Errors
    /// Returns [`HostError::Guest`] if the event `cause` was rejected, or if an earlier rejection
    /// has ended the call before `cause`.
    pub(crate) fn note_write(&mut self, cause: Cause) -> Result<(), HostError> {
        let index = cause.0 as usize;
        if let Some(wrote) = self.wrote.get_mut(index) {
            *wrote = true;
        }
        let Some(first) = self.rejected.first() else { return Ok(()) };
        let event = index.wrapping_sub(self.timers);
        if self.ends && index >= self.timers && event > first.index {
            return Err(HostError::Guest(format!(
                "the call names {index} as a cause after it has rejected an earlier event: with this `on-failure`, a rejection must end the call"
            )));
        }
        match self.rejected.binary_search_by_key(&event, |rejected| rejected.index) {
            Ok(_) => Err(wrote_for_rejected(index)),
            Err(_) => Ok(()),
        }
    }

    /// Notes that the event `cause` is rejected.
    ///
    /// # Errors
    /// Returns [`HostError::Guest`] if the plugin may not reject it.
    pub(crate) fn reject(&mut self, cause: Cause, message: &str) -> Result<(), HostError> {
        let index = cause.0 as usize;
        if index < self.timers || index >= self.wrote.len() {
            return Err(HostError::Guest(format!(
                "the call rejects {index}, which is not an event of its batch of {} timers and {} events",
                self.timers,
                self.wrote.len() - self.timers
            )));
        }
        if self.wrote[index] {
            return Err(wrote_for_rejected(index));
        }
        let event = index - self.timers;
        if self.rejected.last().is_some_and(|last| self.ends || last.index >= event) {
            return Err(HostError::Guest(format!(
                "the call rejects {index} after another event: reject events in their order, and only one in a call unless `on-failure` is `park-event`"
            )));
        }
        self.rejected.push(Rejected { index: event, message: message.to_owned() });
        Ok(())
    }
}

fn wrote_for_rejected(index: usize) -> HostError {
    HostError::Guest(format!("the call rejects {index}, but has also written for it"))
}

/// How many events that a plugin rejects in a call can be parked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RejectionRoom {
    /// The maximum number of events that can be parked.
    pub(crate) events: u64,
    /// The number of events parked since the last event that was applied.
    pub(crate) in_a_row: u64,
    /// The maximum number of events that may be parked in a row.
    pub(crate) in_a_row_max: u64,
}

impl RejectionRoom {
    /// Returns the first event of `rejected` that exceeds this room, so it cannot be parked. The
    /// plugin is then called again with this event alone.
    pub(crate) fn first_without(self, rejected: &[Rejected]) -> Option<&Rejected> {
        let (mut in_a_row, mut next) = (self.in_a_row, 0);
        (0..).zip(rejected).find_map(|(count, rejected)| {
            if rejected.index > next {
                in_a_row = 0;
            }
            next = rejected.index + 1;
            in_a_row += 1;
            (count >= self.events || in_a_row > self.in_a_row_max).then_some(rejected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(indexes: &[usize]) -> Vec<Rejected> {
        indexes.iter().map(|index| Rejected { index: *index, message: String::new() }).collect()
    }

    #[test]
    fn a_rejected_event_causes_no_write_and_comes_after_the_ones_before_it() {
        let batch =
            Batch { timers: vec![Default::default()], offsets: vec![0; 4], ..Batch::default() };
        let mut rejections = Rejections::of(&batch, OnFailure::ParkEvent);
        rejections.note_write(Cause(0)).unwrap();
        rejections.note_write(Cause(1)).unwrap();
        for bad in [0, 1, 5] {
            assert!(rejections.reject(Cause(bad), "").is_err(), "{bad}");
        }
        rejections.reject(Cause(3), "no").unwrap();
        assert!(rejections.reject(Cause(2), "").is_err());
        assert!(rejections.note_write(Cause(3)).is_err());
        rejections.note_write(Cause(2)).unwrap();
        rejections.note_write(Cause(4)).unwrap();
        assert_eq!(rejections.rejected(), [Rejected { index: 2, message: "no".into() }]);
        let mut ends = Rejections::of(&batch, OnFailure::ParkSubject);
        ends.reject(Cause(2), "").unwrap();
        ends.note_write(Cause(1)).unwrap();
        assert!(ends.note_write(Cause(3)).is_err());
        assert!(ends.reject(Cause(3), "").is_err());
    }

    #[test]
    fn room_is_counted_in_all_and_in_a_row() {
        let room = |events, in_a_row| RejectionRoom { events, in_a_row, in_a_row_max: 2 };
        let first = |room: RejectionRoom, indexes: &[usize]| {
            room.first_without(&rejected(indexes)).map(|rejected| rejected.index)
        };
        assert_eq!(first(room(9, 0), &[0, 1, 3, 4, 6]), None);
        assert_eq!(first(room(9, 0), &[0, 1, 2]), Some(2));
        assert_eq!(first(room(9, 1), &[0, 1]), Some(1));
        assert_eq!(first(room(9, 2), &[1, 2]), None);
        assert_eq!(first(room(3, 0), &[0, 2, 4, 6]), Some(6));
        assert_eq!(first(RejectionRoom::default(), &[5]), Some(5));
    }
}
