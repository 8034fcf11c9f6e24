//! Limits how fast a projection's emitted events are appended to the log. Each projection has its
//! own quota (a token bucket), so a projection that emits without end does not slow down the
//! others.

use std::time::Duration;

use parking_lot::Mutex;

/// The quota of one projection. The bucket holds at most the events of one second.
#[derive(Default)]
pub(crate) struct EmitQuota(Mutex<TokenBucket>);

#[derive(Default)]
struct TokenBucket {
    /// How many events could be appended at the time `at`.
    events: f64,
    /// The time for which `events` was calculated. `None` before the first use, when the bucket is
    /// full.
    at: Option<Duration>,
}

impl EmitQuota {
    /// Takes up to `requested` events from the bucket, which is refilled with `per_s` events per
    /// second until `now`. Returns how many events may be appended, at least one.
    ///
    /// # Errors
    /// Returns the time to wait until events may be appended.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of events, far below what a double holds"
    )]
    pub(crate) fn take(
        &self,
        now: Duration,
        requested: usize,
        per_s: u64,
    ) -> Result<usize, Duration> {
        let per_s = per_s.max(1) as f64;
        let mut bucket = self.0.lock();
        let held = match bucket.at {
            Some(at) => bucket.events + now.saturating_sub(at).as_secs_f64() * per_s,
            None => per_s,
        };
        let held = held.min(per_s);
        bucket.at = Some(now);
        bucket.events = held;
        // Each append has a cost of its own, so the caller waits until it can append several events
        // at once.
        let least = (requested as f64).min(per_s / 10.0).max(1.0);
        if held < least {
            return Err(Duration::from_secs_f64((least - held) / per_s));
        }
        let accepted = (requested as f64).min(held.floor());
        bucket.events = held - accepted;
        Ok(accepted as usize)
    }

    /// Returns events to the bucket that were taken but not appended.
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    pub(crate) fn refund(&self, events: usize) {
        self.0.lock().events += events as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_is_taken_over_any_period() {
        let quota = EmitQuota::default();
        let (mut now, mut accepted) = (Duration::from_secs(100), 0);
        let end = now + Duration::from_secs(10);
        while now < end {
            match quota.take(now, 1_000, 5_000) {
                Ok(events) => accepted += events,
                Err(wait) => now += wait,
            }
        }
        // The bucket is full at the start. Afterwards it fills at the given rate.
        assert!((54_000..=55_000).contains(&accepted), "{accepted}");
    }

    #[test]
    fn events_that_were_not_sent_are_refunded() {
        let quota = EmitQuota::default();
        assert_eq!(quota.take(Duration::ZERO, 10, 10), Ok(10));
        assert_eq!(quota.take(Duration::ZERO, 10, 10), Err(Duration::from_millis(100)));
        quota.refund(10);
        assert_eq!(quota.take(Duration::ZERO, 10, 10), Ok(10));
    }
}
