//! Sends events in pieces and in order, one request at a time. The rate can be limited. While the
//! server is busy or cannot be reached, requests are repeated after increasing waits.
//!
//! It does no harm to send a piece twice: the log recognizes events by tenant, `source` and `id`.

use std::time::Duration;

use bytes::Bytes;
use lantern_api::EventRejection;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::{Api, ApiError, NDJSON};
use crate::error::{Failure, Outcome};

/// The size of one request in bytes. If the rate is limited, requests may be smaller.
pub(crate) const PIECE_BYTES: usize = 2 << 20;
/// The wait before a piece is sent a second time. Each further wait is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// The maximum wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How many times a piece is tried by default. Together the waits take about two minutes.
pub(crate) const TRIES: u32 = 18;
/// The maximum number of single errors that are kept for the summary.
const ERRORS_MAX: usize = 100;

/// The result for all events that were sent.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sent {
    /// The number of events that were sent and answered.
    pub(crate) events: u64,
    /// The number of events that were appended.
    pub(crate) appended: u64,
    /// The number of events that the log already had.
    pub(crate) duplicates: u64,
    /// The number of events that were refused and left out.
    pub(crate) rejected: u64,
    /// The number of requests that were repeated.
    pub(crate) retries: u64,
    /// What is wrong with the refused events; at most the first 100.
    pub(crate) errors: Vec<EventRejection>,
}

/// Sends pieces of NDJSON to a server.
pub(crate) struct Sender {
    api: Api,
    partial: bool,
    exact: bool,
    tries: u32,
    /// Whether the server has ever answered. A server that has never answered is probably not
    /// running, so the sender does not wait for it.
    answered: bool,
    /// The result of the requests so far.
    pub(crate) sent: Sent,
    /// How many lines of a failed piece are in the log nevertheless.
    pub(crate) lines_of_failed: u64,
}

impl Sender {
    /// Creates a sender to `api`. It tries each piece up to `tries` times. With `partial`, it
    /// leaves out events that the server refuses.
    pub(crate) fn new(api: Api, partial: bool, tries: u32) -> Self {
        Self {
            api,
            partial,
            exact: false,
            tries,
            answered: false,
            sent: Sent::default(),
            lines_of_failed: 0,
        }
    }

    /// Sets how events are appended. With `exact`, they are appended exactly as they were in
    /// another log.
    pub(crate) fn exact(self, exact: bool) -> Self {
        Self { exact, ..self }
    }

    /// Sends one piece with `events` events. Its first line has the number `first_line` in the
    /// file. `on_wait` is called with each wait and its reason.
    pub(crate) async fn send(
        &mut self,
        bytes: Bytes,
        events: u64,
        first_line: u64,
        on_wait: impl Fn(Duration, &str),
    ) -> Outcome {
        let (mut tries, mut before) = (0, 0);
        let pushed = loop {
            tries += 1;
            let answer = match self.exact {
                true => self.api.push_exact(NDJSON, bytes.clone()).await,
                false => self.api.push(NDJSON, bytes.clone(), self.partial).await,
            };
            match answer {
                Ok(pushed) => break pushed,
                Err(error) => {
                    // Some events of the piece may be in the log already. At the next try the
                    // server will report them as duplicates, so they are counted here.
                    let part = PartialAppend::of(&error);
                    before += part.appended;
                    let there = self.answered || !matches!(error, ApiError::Unreachable { .. });
                    let again = there && tries < self.tries;
                    self.answered |= there;
                    let Some(server_wait) = error.passing().filter(|_| again) else {
                        self.sent.appended += before;
                        self.lines_of_failed = part.lines;
                        return Err(in_file(error, first_line));
                    };
                    let wait = server_wait.unwrap_or_else(|| backoff(tries));
                    on_wait(wait, &Failure::from(error).message);
                    self.sent.retries += 1;
                    tokio::time::sleep(wait).await;
                }
            }
        };
        self.answered = true;
        let again = before.min(pushed.duplicates);
        self.sent.events += events;
        self.sent.appended += pushed.appended + again;
        self.sent.duplicates += pushed.duplicates - again;
        self.sent.rejected += pushed.rejected;
        let room = ERRORS_MAX.saturating_sub(self.sent.errors.len());
        let errors = pushed.errors.into_iter().take(room);
        self.sent.errors.extend(errors.map(|error| with_line_number(error, first_line)));
        Ok(())
    }
}

/// Returns the wait before the try number `tries + 1`. The wait varies randomly by up to a tenth.
/// Otherwise many senders would repeat their requests at the same time.
fn backoff(tries: u32) -> Duration {
    let doubled = WAIT_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(WAIT_MAX);
    doubled.mul_f64(0.9 + fastrand::f64() * 0.2)
}

/// What is in the log of a piece that failed.
#[derive(Default)]
struct PartialAppend {
    appended: u64,
    lines: u64,
}

impl PartialAppend {
    fn of(error: &ApiError) -> Self {
        match error {
            ApiError::Refused { refusal, .. } => {
                Self { appended: refusal.appended, lines: refusal.lines }
            }
            _ => Self::default(),
        }
    }
}

/// Replaces the line numbers in `error` by those of the file. The server counts the lines of each
/// request.
fn in_file(mut error: ApiError, first_line: u64) -> Failure {
    if let ApiError::Refused { refusal, .. } = &mut error {
        for entry in &mut refusal.errors {
            *entry = with_line_number(entry.clone(), first_line);
        }
        // The server's help names a parameter of the API. It is replaced by the flag of this
        // command.
        refusal.help = refusal.help.take().map(|help| help.replace("?partial=true", "--partial"));
        // If only one line is invalid, its error is the whole message.
        if let [EventRejection { line: Some(line), detail, .. }] = refusal.errors.as_slice() {
            refusal.detail = format!("line {line}: {detail}");
            refusal.errors.clear();
        }
    }
    Failure::from(error)
}

/// Replaces the line number by that of the file, in which the request begins at `first_line`. The
/// server counts the lines of a request from 1.
fn with_line_number(mut error: EventRejection, first_line: u64) -> EventRejection {
    if let Some(line) = error.line {
        error.line = Some(line + first_line - 1);
        error.index = None;
    }
    error
}

/// Spreads events evenly over time.
pub(crate) struct RateLimiter {
    per_s: f64,
    start: Instant,
    done: f64,
}

/// If the rate is limited, events are sent in about this number of pieces per second. Each piece
/// has at least one event.
const PIECES_PER_S: f64 = 20.0;
/// The maximum number of events in a piece if the rate is limited.
const PACED_PIECE_MAX: u64 = 8_192;

impl RateLimiter {
    /// Creates a limiter for `per_s` events per second.
    pub(crate) fn new(per_s: f64) -> Self {
        Self { per_s, start: Instant::now(), done: 0.0 }
    }

    /// Returns the number of events that should be sent at a time.
    pub(crate) fn piece(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let piece = (self.per_s / PIECES_PER_S).clamp(1.0, PACED_PIECE_MAX as f64) as u64;
        piece
    }

    /// Waits until `events` more events may be sent at this rate. If sending was interrupted, only
    /// the events of one second may be sent at once afterwards.
    pub(crate) async fn wait(&mut self, events: u64) {
        #[expect(clippy::cast_precision_loss, reason = "exact far beyond any count here")]
        let events = events as f64;
        let due = self.start + Duration::from_secs_f64(self.done / self.per_s);
        tokio::time::sleep_until(due).await;
        if due.elapsed() > Duration::from_secs(1) {
            self.start = Instant::now();
            self.done = 0.0;
        }
        self.done += events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert!(backoff(1) < WAIT_FIRST * 2);
        assert!(backoff(3) > WAIT_FIRST * 3);
        assert!(backoff(60) <= WAIT_MAX.mul_f64(1.1));
    }

    #[test]
    fn lines_are_counted_in_the_file() {
        let error = |line, index| EventRejection {
            index,
            line,
            code: "LAN-0304".into(),
            detail: "no id".into(),
        };
        assert_eq!(with_line_number(error(Some(3), Some(2)), 101), error(Some(103), None));
        assert_eq!(with_line_number(error(None, Some(2)), 5), error(None, Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept() {
        let mut pace = RateLimiter::new(1_000.0);
        let start = Instant::now();
        for _ in 0..21 {
            pace.wait(pace.piece()).await;
        }
        assert_eq!(start.elapsed().as_millis(), 1_000);
    }
}
