//! When a subscription may send changes, and when it must send a tick.

use std::time::Duration;

use tokio::time::Instant;

use crate::LiveConfig;
use crate::config::ms;

/// See the module.
pub(crate) struct Schedule {
    /// The least time between two changes.
    rate: Duration,
    /// Not before then may changes be sent.
    pub(crate) rate_at: Instant,
    /// When a `tick` is due for commits without changes.
    tick_at: Instant,
    /// A frame is sent by then, so that quiet differs from stale.
    idle_at: Instant,
    /// Another table of the projection has just been brought further.
    pub(crate) tick_now: bool,
}

impl Schedule {
    pub(crate) fn new(now: Instant, rate: Duration) -> Self {
        Self { rate, rate_at: now, tick_at: now, idle_at: now, tick_now: false }
    }

    /// Changes may be sent, and a tick is due even without them.
    pub(crate) fn send_at_once(&mut self, now: Instant) {
        (self.rate_at, self.idle_at, self.tick_now) = (now, now, true);
    }

    /// Whether changes may be sent.
    pub(crate) fn may_change(&self, now: Instant) -> bool {
        self.rate_at <= now
    }

    /// Whether a tick is due though the commit did not move.
    pub(crate) fn must_tick_unmoved(&self, now: Instant) -> bool {
        self.tick_now || now >= self.idle_at
    }

    /// Whether a tick is due if the commit moved and no row changed.
    pub(crate) fn must_tick_moved(&self, now: Instant) -> bool {
        self.tick_now || now >= self.tick_at
    }

    /// Changes were taken to be sent.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.rate_at = now + self.rate;
    }

    /// The client got a new commit.
    pub(crate) fn sent(&mut self, now: Instant, config: &LiveConfig) {
        self.tick_now = false;
        self.tick_at = now + ms(config.tick_ms);
        self.idle_at = now + ms(config.heartbeat_ms);
    }

    /// When to look again though nothing happened. Commits that do not change the
    /// table wake no session, so whether the commit moved is looked up now and then.
    pub(crate) fn due(&self, now: Instant, config: &LiveConfig) -> Instant {
        let tick_at =
            if self.tick_at > now { self.tick_at } else { now + ms(config.tick_ms.max(1)) };
        let next = if self.rate_at > now { self.rate_at } else { tick_at };
        next.min(self.idle_at)
    }
}
