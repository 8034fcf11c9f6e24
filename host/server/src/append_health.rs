//! Remembers whether the log accepts events. The readiness of the server depends on it.

use std::time::{Duration, Instant};

use lantern_core::LogError;
use parking_lot::Mutex;

/// How long the server reports that it is not ready after a failed append. Without this limit, a
/// server would stay unready until a client appends again, which no client may do.
const FAULT_LASTS: Duration = Duration::from_secs(30);

/// When and why the log last refused events; `None` once it has accepted events again.
#[derive(Debug, Default)]
pub(crate) struct AppendHealth(Mutex<Option<(Instant, String)>>);

impl AppendHealth {
    /// Remembers whether an append succeeded.
    pub(crate) fn note<T>(&self, appended: &Result<T, LogError>) {
        let mut fault = self.0.lock();
        match appended {
            Ok(_) => *fault = None,
            // The event is the reason, and the log accepts other events.
            Err(LogError::Rejected { .. }) => {}
            Err(error) => *fault = Some((Instant::now(), error.to_string())),
        }
    }

    /// Returns the reason why the log accepts no events, if it has refused some recently.
    pub(crate) fn fault(&self) -> Option<String> {
        let fault = self.0.lock();
        fault.as_ref().filter(|(at, _)| at.elapsed() < FAULT_LASTS).map(|(_, why)| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::RejectedEvent;

    use super::*;

    #[test]
    fn a_fault_lasts_until_the_log_accepts_events_and_a_rejected_event_is_none() {
        let health = AppendHealth::default();
        let reason = RejectedEvent::Refused { event: "e".into(), reason: "r".into() };
        health.note::<()>(&Err(LogError::Rejected { index: 0, appended: 0, reason }));
        assert_eq!(health.fault(), None);
        health.note::<()>(&Err(LogError::Full("/x".into())));
        assert!(health.fault().is_some_and(|why| why.contains("/x")));
        health.note(&Ok(()));
        assert_eq!(health.fault(), None);
    }
}
