//! Parses durations that people write in requests and on the command line.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// The forms of a duration that are accepted, for error texts.
pub const DURATION_FORMS: &str = "write it as `250ms`, `5s`, `90 minutes`, `14d` or `1 week`";

/// Parses a duration: a whole number of seconds, a duration in ISO 8601, or numbers with units as
/// in jiff's "friendly" format. A day has 24 hours. Months and years are refused because they have
/// no fixed length.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let span: Span = text.parse().ok()?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return None;
    }
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        for (text, expected) in [
            ("6h", hours(6)),
            ("14d", hours(14 * 24)),
            ("1 week", hours(7 * 24)),
            ("2 weeks 1 day", hours(15 * 24)),
            ("1h30m", Some(Duration::from_secs(5_400))),
            ("90 minutes", Some(Duration::from_secs(5_400))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5s", Some(Duration::from_millis(1_500))),
            ("PT5S", Some(Duration::from_secs(5))),
            ("5", Some(Duration::from_secs(5))),
            ("0s", Some(Duration::ZERO)),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        for wrong in
            ["", "s", "-1s", "1 month", "2y", "soon", "5 parsecs", "1e9", "99999999999999d"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
