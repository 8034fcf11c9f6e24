//! Decides whether a count is unusual.

use crate::settings::Settings;

/// The basis of the comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) mean: f64,
    /// For the whole population, not for a sample.
    pub(crate) stddev: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ordinary,
    /// Lower than the mean by at least the given percentage.
    Drop,
    /// Above or below the mean by the given number of standard deviations.
    High,
    Low,
}

impl Baseline {
    /// Sums are integers, so there is only one rounding, at the end.
    pub(crate) fn of(counts: &[u64]) -> Self {
        let n = counts.len() as u128;
        let sum: u128 = counts.iter().map(|count| u128::from(*count)).sum();
        let squares: u128 = counts.iter().map(|count| u128::from(*count).pow(2)).sum();
        let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
        Self { mean: sum as f64 / n as f64, stddev: variance.sqrt() }
    }

    /// Standard deviations above the mean; none if all counts were equal.
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
