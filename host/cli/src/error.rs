//! How a command fails: what is said, and the exit code a script sees.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use serde::Deserialize;

use crate::output;

/// The exit codes, as `lantern --help` documents them. clap itself leaves with
/// 2 on wrong usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed, or a test found something.
    Failure = 1,
    /// What was typed cannot be meant.
    Usage = 2,
    /// No server answers.
    Unreachable = 3,
    /// There is no such thing.
    NotFound = 4,
    /// The input, or the plugin, was refused.
    Refused = 5,
    /// The server is too busy, and stayed so.
    Busy = 6,
    /// Ended by Ctrl-C in the middle of something.
    Interrupted = 130,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What a script sees.
    pub(crate) exit: Exit,
    /// The stable code `LAN-…`, where the server or the host gave one.
    pub(crate) code: Option<String>,
    /// What happened, for people.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// Single things that are wrong, one a line.
    pub(crate) details: Vec<String>,
}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with nothing but a message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), help: None, details: Vec::new() }
    }

    /// The same, with what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, with its stable code.
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Tells the person (or, with `json`, the script) on standard error.
    pub(crate) fn report(&self, json: bool) {
        let mut err = std::io::stderr().lock();
        // Nobody is left to tell where this fails.
        let text = match json {
            true => output::escaped(&self.to_json().to_string()),
            false => output::lines(&self.to_string()),
        };
        let _ = writeln!(err, "{text}");
    }

    /// The code to leave with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"error": {
            "code": self.code,
            "message": self.message,
            "help": self.help,
            "details": self.details,
            "exit": self.exit as u8,
        }})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "error[{code}]: {}", self.message)?,
            None => write!(f, "error: {}", self.message)?,
        }
        for detail in &self.details {
            write!(f, "\n  {detail}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failure, format!("{error:#}"))
    }
}

/// What the server answers in place of a result: RFC 9457.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// A few words.
    pub(crate) title: String,
    /// What happened.
    pub(crate) detail: String,
    /// The stable code.
    pub(crate) code: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// Single things that are wrong; of rejected events, one an event.
    pub(crate) errors: Vec<serde_json::Value>,
    /// Of NDJSON: how many events were appended before it stopped.
    pub(crate) appended: u64,
    /// Of NDJSON: up to which line all is in the log.
    pub(crate) lines: u64,
}

/// The most single errors that are shown of one answer.
const DETAILS_MAX: usize = 10;

impl Problem {
    /// The failure that an answer of `status` with this body is.
    pub(crate) fn into_failure(self, status: u16) -> Failure {
        let exit = match status {
            404 | 410 => Exit::NotFound,
            429 | 503 => Exit::Busy,
            400..=499 => Exit::Refused,
            _ => Exit::Failure,
        };
        let message = match (self.detail.is_empty(), self.title.is_empty()) {
            (false, _) => self.detail,
            (true, false) => self.title,
            (true, true) => format!("the server answered {status}"),
        };
        let more = self.errors.len().saturating_sub(DETAILS_MAX);
        let mut details: Vec<_> = self.errors.iter().take(DETAILS_MAX).map(detail).collect();
        if more > 0 {
            details.push(format!("and {more} more"));
        }
        let code = (!self.code.is_empty()).then_some(self.code);
        Failure { exit, code, message, help: self.help, details }
    }
}

/// One entry of `errors` as a line.
fn detail(error: &serde_json::Value) -> String {
    let text = |name: &str| error.get(name).and_then(serde_json::Value::as_str);
    let place = error.get("line").or_else(|| error.get("index"));
    let message = text("detail").or_else(|| text("message")).or_else(|| text("error"));
    match (place, message) {
        (Some(place), Some(message)) => {
            let what = if error.get("line").is_some() { "line" } else { "event" };
            format!("{what} {place}: {message}")
        }
        (None, Some(message)) => message.to_owned(),
        _ => error.as_str().map_or_else(|| error.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(status: u16, body: &str, exit: Exit, text: &str) {
        let problem: Problem = serde_json::from_str(body).unwrap();
        let failure = problem.into_failure(status);
        assert_eq!(failure.exit, exit);
        assert_eq!(failure.to_string(), text);
    }

    #[test]
    fn a_problem_becomes_an_error_with_code_details_and_help() {
        check(
            404,
            r#"{"title":"t","detail":"there is no projection `x`","code":"LAN-0201","help":"see `lantern plugin list`","more":1}"#,
            Exit::NotFound,
            "error[LAN-0201]: there is no projection `x`\nhelp: see `lantern plugin list`",
        );
        check(
            400,
            r#"{"detail":"1 of 2 events is refused","errors":[{"index":1,"detail":"no `id`"}]}"#,
            Exit::Refused,
            "error: 1 of 2 events is refused\n  event 1: no `id`",
        );
        check(503, "{}", Exit::Busy, "error: the server answered 503");
        check(500, r#"{"title":"broken"}"#, Exit::Failure, "error: broken");
    }

    #[test]
    fn many_details_are_cut_short_and_counted() {
        let errors: Vec<_> =
            (0..15).map(|i| serde_json::json!({"index": i, "detail": "x"})).collect();
        let problem = Problem { errors, ..Problem::default() };
        let failure = problem.into_failure(400);
        assert_eq!(failure.details.len(), 11);
        assert_eq!(failure.details[10], "and 5 more");
    }
}
