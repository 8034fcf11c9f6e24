//! Calculates the pauses between attempts to connect.

use std::time::Duration;

use crate::options::Options;

/// Returns the pause after `failures` failures in a row. It grows exponentially. A random part of
/// up to a half is subtracted, so that clients that failed at the same time do not reconnect at the
/// same time.
pub(crate) fn backoff(options: &Options, failures: u32) -> Duration {
    let longest = options.backoff_min.saturating_mul(2_u32.saturating_pow(failures.min(20)));
    longest.min(options.backoff_max).mul_f64(1.0 - fastrand::f64() / 2.0)
}

/// Returns the longest pause, from which a random part is subtracted as in [`backoff`].
pub(crate) fn longest(options: &Options) -> Duration {
    options.backoff_max.mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let options = Options::default();
        for failures in 0..40 {
            let pause = backoff(&options, failures);
            let whole = options.backoff_min.saturating_mul(1 << failures.min(20));
            let whole = whole.min(options.backoff_max);
            assert!(pause <= whole && pause >= whole / 2, "{failures}: {pause:?}");
        }
    }
}
