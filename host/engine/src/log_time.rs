//! Determines the *log time* of a shard, from which the watermark follows: the highest event time
//! so far, without events that are too far in the future. Which events move the log time depends on
//! the log alone.
//!
//! One event far in the future must not make all later events late. The rule depends on the log:
//!
//! * The embedded log and Kafka topics of type `LogAppendTime` have append times. An event moves
//!   the log time if its own time is at most `engine.ahead_max_s` ahead of its append time.
//! * Kafka topics of type `CreateTime` have only times of the producers' clocks. An event that is
//!   more than `engine.ahead_max_s` ahead of the log time is a *jump*. A jump does not move the log
//!   time at first. If the next [`CONFIRMATIONS`] events are jumps as well, the log time moves to
//!   the earliest of these jumps.
//!
//! A heartbeat moves the log time to its own append time at most. If the log's clock was ahead and
//! was set back, a heartbeat sets the log time back too. Otherwise all events would be late until
//! the clock reached its earlier value again.

use lantern_core::{AheadEvent, AheadEvents, Chunk, ShardMeta, Timestamp};

/// How many further jumps must directly follow a jump to confirm it. A jump is an event far ahead
/// of the log time. Jumps exist only if the log does not know append times.
pub(crate) const CONFIRMATIONS: usize = 5;

/// The log time of one shard (see the module's description), and what is needed to calculate it
/// further.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogTime {
    /// The highest event time so far, without events that are too far in the future.
    pub(crate) max_time: Timestamp,
    ahead: AheadEvents,
}

/// An event of a chunk that may move the log time.
#[derive(Clone, Copy)]
pub(crate) struct TimedEvent<'a> {
    pub(crate) chunk: &'a Chunk,
    /// The event's index in the chunk.
    pub(crate) index: usize,
    pub(crate) heartbeat: bool,
}

impl LogTime {
    /// Returns the log time that is stored in `meta`.
    pub(crate) fn of(meta: &ShardMeta) -> Self {
        Self { max_time: meta.max_time, ahead: meta.ahead.clone() }
    }

    /// Stores the log time in `meta`.
    pub(crate) fn store(self, meta: &mut ShardMeta) {
        meta.max_time = self.max_time;
        meta.ahead = self.ahead;
    }

    /// Takes the next event into account. `bound_us` is how far the event may be in the future, in
    /// microseconds.
    #[inline]
    pub(crate) fn take(&mut self, event: TimedEvent<'_>, bound_us: i64) {
        let time = event.chunk.events.times()[event.index];
        match event.chunk.appended(event.index) {
            Some(appended) => self.take_stamped(event, time, appended, bound_us),
            None => self.take_unstamped(event, time, bound_us),
        }
    }

    #[inline]
    fn take_stamped(
        &mut self,
        event: TimedEvent<'_>,
        time: Timestamp,
        appended: Timestamp,
        bound_us: i64,
    ) {
        let latest = appended.saturating_add(bound_us);
        if self.max_time > latest {
            // The log's clock was set back.
            self.max_time = appended;
        }
        if !self.ahead.unconfirmed.is_empty() {
            self.settle_unconfirmed(bound_us);
        }
        let time = if event.heartbeat { time.min(appended) } else { time };
        if time > latest {
            self.count(named(event, time));
        } else if time > self.max_time {
            self.max_time = time;
        }
    }

    #[inline]
    fn take_unstamped(&mut self, event: TimedEvent<'_>, time: Timestamp, bound_us: i64) {
        let first = self.max_time == Timestamp::MIN;
        if !first && time > self.max_time.saturating_add(bound_us) {
            self.jump(named(event, time), bound_us);
            return;
        }
        self.max_time = self.max_time.max(time);
        if !self.ahead.unconfirmed.is_empty() {
            self.settle_unconfirmed(bound_us);
        }
    }

    /// Handles a jump (an event far ahead of the log time). Enough jumps in a row confirm the
    /// earliest one.
    fn jump(&mut self, event: AheadEvent, bound_us: i64) {
        self.ahead.unconfirmed.push(event);
        if self.ahead.unconfirmed.len() <= CONFIRMATIONS {
            return;
        }
        let earliest = self.ahead.unconfirmed.iter().map(|event| event.time).min();
        self.max_time = self.max_time.max(earliest.unwrap_or(Timestamp::MIN));
        self.absorb(bound_us);
    }

    /// Uses the time of each jump (event far ahead of the log time) that is no longer too far
    /// ahead.
    fn absorb(&mut self, bound_us: i64) {
        let waiting = &mut self.ahead.unconfirmed;
        waiting.sort_by_key(|event| event.time);
        while let Some(event) = waiting.first() {
            if event.time > self.max_time.saturating_add(bound_us) {
                break;
            }
            self.max_time = self.max_time.max(event.time);
            waiting.remove(0);
        }
        waiting.sort_by_key(|event| event.offset);
    }

    /// Ends a row of jumps (events far ahead of the log time). Jumps that are still too far ahead
    /// are left out.
    fn settle_unconfirmed(&mut self, bound_us: i64) {
        self.absorb(bound_us);
        for event in std::mem::take(&mut self.ahead.unconfirmed) {
            self.count(event);
        }
    }

    fn count(&mut self, event: AheadEvent) {
        self.ahead.count += 1;
        self.ahead.last = Some(event);
    }
}

/// Returns the time of event `index` of `chunk`. If the log knows append times, the result is at
/// most `bound_us` after the append time.
pub(crate) fn bounded(chunk: &Chunk, index: usize, bound_us: i64) -> Timestamp {
    let time = chunk.events.times()[index];
    chunk.appended(index).map_or(time, |appended| time.min(appended.saturating_add(bound_us)))
}

fn named(event: TimedEvent<'_>, time: Timestamp) -> AheadEvent {
    let named = event.chunk.events.get(event.index);
    AheadEvent {
        offset: event.chunk.offset(event.index),
        id: named.id.to_owned(),
        source: named.source.to_owned(),
        time,
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::{EventRef, Events, Offset, Offsets, PartitionId};

    use super::*;

    const BOUND: i64 = 60;

    /// Folds events, each given as its time and its append time. The append time `i64::MIN` means
    /// that it is unknown. Returns the log time, the number of events that are too far ahead, and
    /// the offset of the last of them.
    fn fold(events: &[(i64, i64)]) -> (i64, u64, Option<u64>) {
        let mut time = LogTime { max_time: Timestamp::MIN, ..LogTime::default() };
        let chunk = chunk(events);
        for index in 0..events.len() {
            time.take(TimedEvent { chunk: &chunk, index, heartbeat: false }, BOUND);
        }
        let last = time.ahead.last.map(|event| event.offset.0);
        (time.max_time.0, time.ahead.count, last)
    }

    fn chunk(events: &[(i64, i64)]) -> Chunk {
        let mut columns = Events::new();
        for (time, _) in events {
            assert!(columns.push(&EventRef { time: Timestamp(*time), ..EventRef::default() }));
        }
        Chunk {
            partition: PartitionId(0),
            offsets: Offsets::Dense { first: Offset(0) },
            events: columns,
            appended: events.iter().map(|(_, appended)| Timestamp(*appended)).collect(),
        }
    }

    #[test]
    fn an_event_further_ahead_of_its_append_than_the_bound_moves_nothing_and_is_named() {
        assert_eq!(fold(&[(100, 100), (160, 100), (161, 100), (99, 101)]), (160, 1, Some(2)));
        // Old events that are appended again have times before their append times, so all of them
        // can move the log time.
        assert_eq!(fold(&[(1, 10_000), (5_000, 10_000)]), (5_000, 0, None));
        assert_eq!(fold(&[(i64::MAX, 100)]), (i64::MIN, 1, Some(0)));
    }

    #[test]
    fn time_goes_back_with_a_clock_that_was_ahead() {
        assert_eq!(fold(&[(90_000, 90_000), (100, 100)]), (100, 0, None));
        assert_eq!(fold(&[(90_000, 90_000), (70, 100)]), (100, 0, None));
        // The clock is ahead by less than the bound, so the log time is not set back.
        assert_eq!(fold(&[(150, 150), (100, 100)]), (150, 0, None));
    }

    #[test]
    fn a_heartbeat_counts_up_to_its_append_time() {
        let chunk = chunk(&[(500, 100)]);
        let mut time = LogTime { max_time: Timestamp(50), ..LogTime::default() };
        time.take(TimedEvent { chunk: &chunk, index: 0, heartbeat: true }, BOUND);
        assert_eq!((time.max_time, time.ahead.count), (Timestamp(100), 0));
    }

    /// Folds like [`fold`], with a log that does not know append times.
    fn unstamped(times: &[i64]) -> (i64, u64, Option<u64>) {
        fold(&times.iter().map(|time| (*time, i64::MIN)).collect::<Vec<_>>())
    }

    #[test]
    fn without_append_times_a_jump_counts_once_later_events_confirm_it() {
        // The next event shows that the jump (the event far ahead of the log time) was wrong.
        assert_eq!(unstamped(&[100, 9_998, 101]), (101, 1, Some(1)));
        // After a night without events, the events are jumps at first: they are far ahead of the
        // log time. The sixth event confirms the first jump.
        let night = [100, 5_000, 5_001, 5_002, 5_003, 5_004];
        assert_eq!(unstamped(&night), (100, 0, None));
        assert_eq!(unstamped(&[&night[..], &[5_005]].concat()), (5_005, 0, None));
        // An event far ahead of all others is reported once the later events have moved the log
        // time.
        let mixed = [100, 5_000, 99_998, 5_001, 5_002, 5_003, 5_004, 5_005];
        assert_eq!(unstamped(&mixed), (5_005, 1, Some(2)));
        // With few events, the log time is behind the newest event by the number of events that
        // confirm a jump.
        let sparse: Vec<_> = (0..20).map(|n| n * 300).collect();
        assert_eq!(unstamped(&sparse), (14 * 300, 0, None));
    }
}
