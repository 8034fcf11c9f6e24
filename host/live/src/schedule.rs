//! When a subscription may send changes, and when it must send a tick.

use std::time::Duration;

use tokio::time::Instant;

use crate::LiveConfig;
use crate::config::ms;

/// The times at which a subscription may or must send.
pub(crate) struct Schedule {
    /// The least time between two changes.
    rate: Duration,
    /// The earliest time at which changes may be sent.
    pub(crate) rate_at: Instant,
    /// When a tick is due for commits that change no row of the table.
    tick_at: Instant,
    /// The time by which a frame must be sent, so that a client can distinguish a table
    /// without changes from a stale one.
    idle_at: Instant,
    /// Whether a tick is due now, because another table of the projection has moved to a
    /// newer commit.
    pub(crate) tick_now: bool,
}

impl Schedule {
    pub(crate) fn new(now: Instant, rate: Duration) -> Self {
        Self { rate, rate_at: now, tick_at: now, idle_at: now, tick_now: false }
    }

    /// Allows changes at once, and makes a tick due even without changes.
    pub(crate) fn send_at_once(&mut self, now: Instant) {
        (self.rate_at, self.idle_at, self.tick_now) = (now, now, true);
    }

    /// Whether changes may be sent.
    pub(crate) fn may_change(&self, now: Instant) -> bool {
        self.rate_at <= now
    }

    /// Whether a tick is due although the commit did not move.
    pub(crate) fn must_tick_unmoved(&self, now: Instant) -> bool {
        self.tick_now || now >= self.idle_at
    }

    /// Whether a tick is due if the commit moved but no row changed.
    pub(crate) fn must_tick_moved(&self, now: Instant) -> bool {
        self.tick_now || now >= self.tick_at
    }

    /// Notes that changes will be sent now.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.rate_at = now + self.rate;
    }

    /// Notes that a delta, a tick or the last part of a snapshot was sent.
    pub(crate) fn sent(&mut self, now: Instant, config: &LiveConfig) {
        self.tick_now = false;
        self.tick_at = now + ms(config.tick_ms);
        self.idle_at = now + ms(config.heartbeat_ms);
    }

    /// When to check again even if the session is not woken before. Commits that do not
    /// change the table wake no session, so the subscription checks from time to time
    /// whether the projection has a newer commit.
    pub(crate) fn due(&self, now: Instant, config: &LiveConfig) -> Instant {
        let tick_at =
            if self.tick_at > now { self.tick_at } else { now + ms(config.tick_ms.max(1)) };
        let next = if self.rate_at > now { self.rate_at } else { tick_at };
        next.min(self.idle_at)
    }
}
