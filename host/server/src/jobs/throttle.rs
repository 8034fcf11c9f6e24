//! Pauses that keep work within its share of a thread.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The minimum length of a pause. Shorter pauses are added up until they reach it.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause. The work between two pauses rarely needs a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Pauses that keep the work within its share of a thread.
pub(super) struct Throttle {
    percent: u32,
    since: Instant,
    saved: Duration,
}

impl Throttle {
    pub(super) fn new(percent: u32) -> Self {
        Self { percent: percent.clamp(1, 100), since: Instant::now(), saved: Duration::ZERO }
    }

    /// Waits for the pause that is due now. It ends early if `stop` is cancelled.
    pub(super) fn pause(&mut self, stop: &CancellationToken) {
        let pause = self.earned();
        if !pause.is_zero() {
            // An error means that the pause is over.
            let _ = Handle::current().block_on(tokio::time::timeout(pause, stop.cancelled()));
            self.since = Instant::now();
        }
    }

    /// The pause that is due now; zero until it is at least [`PAUSE_MIN`].
    fn earned(&mut self) -> Duration {
        self.saved += self.since.elapsed() * (100 - self.percent) / self.percent;
        self.since = Instant::now();
        if self.saved < PAUSE_MIN {
            return Duration::ZERO;
        }
        std::mem::take(&mut self.saved).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_are_in_proportion_to_the_work() {
        let mut throttle = Throttle::new(25);
        throttle.since -= Duration::from_millis(100);
        let rest = throttle.earned();
        assert!((300..400).contains(&rest.as_millis()), "{rest:?}");
        assert_eq!(throttle.earned(), Duration::ZERO);
        throttle.since -= Duration::from_secs(1_000);
        assert_eq!(throttle.earned(), PAUSE_MAX);
        let mut whole = Throttle::new(100);
        whole.since -= Duration::from_secs(1);
        assert_eq!(whole.earned(), Duration::ZERO);
    }
}
