//! Implements the clocks of the machine, as the engine and the server read them.

use std::time::{Duration, Instant};

use lantern_core::{Clock, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Returns the current time of day.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// Reads the clocks of the machine.
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
        now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the CPU time of a thread does not include waits. If the CPU time included waits,
    /// a step that waits for the disk would count as one that needs much CPU time.
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
