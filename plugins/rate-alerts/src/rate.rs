//! Is a count out of the ordinary?

use crate::settings::Settings;

/// What a count is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) mean: f64,
    /// Of the whole population, not of a sample.
    pub(crate) stddev: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ordinary,
    /// Lower than the mean by as many percent as were given.
    Drop,
    /// Above and below the mean by as many standard deviations.
    High,
    Low,
}

impl Baseline {
    /// Sums are integers, so that rounding happens once, at the end.
    pub(crate) fn of(counts: &[u64]) -> Self {
        let n = counts.len() as u128;
        let sum: u128 = counts.iter().map(|count| u128::from(*count)).sum();
        let squares: u128 = counts.iter().map(|count| u128::from(*count).pow(2)).sum();
        let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
        Self { mean: sum as f64 / n as f64, stddev: variance.sqrt() }
    }

    /// Standard deviations above the mean; none where all counts were equal.
    pub(crate) fn z(&self, count: u64) -> Option<f64> {
        (self.stddev > 0.0).then(|| (count as f64 - self.mean) / self.stddev)
    }

    pub(crate) fn judge(&self, count: u64, settings: &Settings) -> Verdict {
        let dropped = |percent: f64| (count as f64) <= self.mean * (1.0 - percent / 100.0);
        if self.mean > 0.0 && settings.drop_pct.is_some_and(dropped) {
            return Verdict::Drop;
        }
        match (self.z(count), settings.z) {
            (Some(z), Some(limit)) if z >= limit => Verdict::High,
            (Some(z), Some(limit)) if z <= -limit => Verdict::Low,
            _ => Verdict::Ordinary,
        }
    }
}
