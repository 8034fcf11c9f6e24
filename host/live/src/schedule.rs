//! Determines when a subscription may send changes, and when it must send a tick.

use std::time::Duration;

use tokio::time::Instant;

use crate::LiveConfig;
use crate::config::ms;

/// The times at which a subscription may or must send something.
pub(crate) struct Schedule {
    /// The minimum time between two deltas.
    rate: Duration,
    /// The earliest time at which the next changes may be sent.
    pub(crate) rate_at: Instant,
    /// The time at which a tick is due if commits have changed no row of the table.
    tick_at: Instant,
    /// The latest time at which the next frame must be sent. From it a client knows that a table
    /// without changes is not outdated.
    idle_at: Instant,
    /// Whether a tick is due now, because another table of the projection has moved to a
    /// newer commit.
    pub(crate) tick_now: bool,
}

impl Schedule {
    pub(crate) fn new(now: Instant, rate: Duration) -> Self {
        Self { rate, rate_at: now, tick_at: now, idle_at: now, tick_now: false }
    }

    /// Lets the subscription send its next frame at once: the changes or, if there are none, a
    /// tick.
    pub(crate) fn send_at_once(&mut self, now: Instant) {
        (self.rate_at, self.idle_at, self.tick_now) = (now, now, true);
    }

    /// Returns whether changes may be sent now.
    pub(crate) fn may_change(&self, now: Instant) -> bool {
        self.rate_at <= now
    }

    /// Returns whether a tick is due although the commit did not move.
    pub(crate) fn must_tick_unmoved(&self, now: Instant) -> bool {
        self.tick_now || now >= self.idle_at
    }

    /// Returns whether a tick is due if the commit moved but no row changed.
    pub(crate) fn must_tick_moved(&self, now: Instant) -> bool {
        self.tick_now || now >= self.tick_at
    }

    /// Notes that changes are sent now.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.rate_at = now + self.rate;
    }

    /// Notes that a delta, a tick or the last part of a snapshot was sent.
    pub(crate) fn sent(&mut self, now: Instant, config: &LiveConfig) {
        self.tick_now = false;
        self.tick_at = now + ms(config.tick_ms);
        self.idle_at = now + ms(config.heartbeat_ms);
    }

    /// Returns the time at which the subscription must be asked for a frame even if no signal wakes
    /// the session. Commits that do not change the table wake no session, so the subscription must
    /// check from time to time whether the projection has a newer commit.
    pub(crate) fn due(&self, now: Instant, config: &LiveConfig) -> Instant {
        let tick_at =
            if self.tick_at > now { self.tick_at } else { now + ms(config.tick_ms.max(1)) };
        let next = if self.rate_at > now { self.rate_at } else { tick_at };
        next.min(self.idle_at)
    }
}
