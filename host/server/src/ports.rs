//! The small ports that the server itself gives the engine.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use lantern_core::{Clock, CommitSink, PublishedCommit, Random, Timestamp};
use lantern_live::Hub;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::log::ChosenLog;

/// The machine's clocks.
pub(crate) struct SystemClock(Instant);

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn thread_cpu(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.try_into().unwrap_or_default()
    }

    fn wall(&self) -> Timestamp {
        crate::api::now()
    }
}

/// Random numbers, seeded by the operating system.
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn draw(&self) -> u64 {
        fastrand::u64(..)
    }
}

/// Passes commits to the feed and wakes requests that wait for an offset.
///
/// The hub needs the engine to read tables, and the engine needs this to publish. So
/// the hub is connected when both exist, before anything runs. The reference is weak;
/// otherwise the two would keep each other, and the data folder, forever.
pub(crate) struct Commits {
    hub: OnceLock<Weak<Hub>>,
    log: ChosenLog,
    changed: watch::Sender<()>,
}

impl Commits {
    pub(crate) fn new(log: ChosenLog) -> Self {
        Self { hub: OnceLock::new(), log, changed: watch::Sender::new(()) }
    }

    pub(crate) fn connect(&self, hub: &Arc<Hub>) {
        assert!(self.hub.set(Arc::downgrade(hub)).is_ok(), "the hub is connected once");
    }

    /// Changes with every commit and activation.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl CommitSink for Commits {
    fn committed(&self, commit: &Arc<PublishedCommit>) {
        if let Some(hub) = self.hub.get().and_then(Weak::upgrade) {
            hub.committed(commit);
        }
        self.log.tell_position(&commit.projection, commit.partition, commit.next);
        self.changed.send_replace(());
    }

    fn activated(&self, projection: &str, epoch: Option<&str>) {
        if let Some(hub) = self.hub.get().and_then(Weak::upgrade) {
            hub.activated(projection, epoch);
        }
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a step that waits for the disk would look like one that needs much
    /// processor time.
    #[test]
    fn cpu_time_is_that_of_the_thread_and_leaves_waiting_out() {
        let clock = SystemClock::new();
        let (began, waited) = (clock.thread_cpu(), Duration::from_millis(200));
        std::thread::park_timeout(waited);
        let other = std::thread::spawn(|| work(&SystemClock::new(), Duration::from_millis(100)));
        other.join().expect("it only works");
        let between = clock.thread_cpu().saturating_sub(began);
        assert!(between < waited / 4, "{between:?}");
        work(&clock, Duration::from_millis(20));
    }

    fn work(clock: &SystemClock, cpu: Duration) {
        let began = clock.thread_cpu();
        while clock.thread_cpu().saturating_sub(began) < cpu {
            std::hint::spin_loop();
        }
    }
}
