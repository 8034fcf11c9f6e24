//! Defines the failures of commands, with their messages, and the exit codes for scripts.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use lantern_api::{EventRejection, Problem};

use crate::output;

/// The exit codes, as `lantern --help` and the guide document them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command failed, or a test found a problem.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No server answers.
    Unreachable = 3,
    /// The named thing does not exist.
    NotFound = 4,
    /// The input, or the plugin, was refused.
    Refused = 5,
    /// The server was too busy during all tries.
    Busy = 6,
    /// Not everything could be checked, so there is no verdict.
    Unchecked = 7,
    /// Ended by Ctrl-C while it was working.
    Interrupted = 130,
}

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code of the command.
    pub(crate) exit: Exit,
    /// The stable code `LAN-…`, if the server or the host gave one.
    pub(crate) code: Option<String>,
    /// What has happened, as a text for people.
    pub(crate) message: String,
    /// What to do about the error.
    pub(crate) help: Option<String>,
    /// Further lines, each about a single error.
    pub(crate) details: Vec<String>,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Creates a failure that has only a message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), help: None, details: Vec::new() }
    }

    /// Adds a text that says what to do about the failure.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the stable code to the failure.
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Prints the failure on standard error, for a person or, with `json`, for a script.
    pub(crate) fn report(&self, json: bool) {
        if json {
            // If this fails, the failure cannot be reported anywhere else.
            let _ = writeln!(std::io::stderr(), "{}", output::escaped(&self.to_json().to_string()));
        } else {
            output::error(self.to_string());
        }
    }

    /// Returns the failure for an invalid command line.
    pub(crate) fn usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut parts = text.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
        let what = parts.next().unwrap_or_default();
        let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
        if let ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand =
            error.kind()
        {
            let usage = usage.unwrap_or("lantern <COMMAND>");
            return Self::new(Exit::Usage, "a command is missing")
                .help(format!("usage: {usage}; `--help` lists the commands"));
        }
        let mut lines = what.lines().map(str::trim);
        let first = lines.next().unwrap_or_default();
        let mut failure = Self::new(Exit::Usage, first.trim_start_matches("error: "));
        failure.details = lines.map(str::to_owned).collect();
        let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
        let usage = usage.map(|usage| format!("usage: {usage}"));
        let help: Vec<_> = tip.map(str::to_owned).into_iter().chain(usage).collect();
        failure.help(if help.is_empty() { "see `--help`".into() } else { help.join("; ") })
    }

    /// Returns the exit code that the process returns.
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

/// The body of an answer that reports an error. Only some errors have all members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    /// What went wrong, in a few words.
    pub(crate) title: String,
    /// What has happened in this case.
    pub(crate) detail: String,
    /// The stable code of the error.
    pub(crate) code: String,
    /// What to do about the error.
    pub(crate) help: Option<String>,
    /// The events that were refused.
    pub(crate) errors: Vec<EventRejection>,
    /// For NDJSON: the number of events that were appended before the stream stopped.
    pub(crate) appended: u64,
    /// For NDJSON: every event up to this line is in the log.
    pub(crate) lines: u64,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let Problem { title, detail, code, help, mut more, .. } = problem;
        let errors = more.remove("errors").and_then(|list| serde_json::from_value(list).ok());
        let number = |name| more.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
        Self {
            title,
            detail,
            code,
            help: (!help.is_empty()).then_some(help),
            errors: errors.unwrap_or_default(),
            appended: number("appended"),
            lines: number("lines"),
        }
    }
}

/// The maximum number of single errors that are shown from one answer.
const DETAILS_MAX: usize = 10;

impl Refusal {
    /// Returns the failure of the command for an answer with the status `status` and this body.
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
        let help = self.help.map(|help| flags_for_parameters(&help));
        Failure { exit, code, message: flags_for_parameters(&message), help, details }
    }
}

/// Pairs of a parameter of the HTTP API and the flag of a command with the same meaning. In texts
/// of the server, the parameter is replaced by the flag.
const FLAGS: &[(&str, &str)] = &[
    ("`?partial=true`", "`--partial`"),
    ("`activate=true`", "without `--no-activate`"),
    ("`wait=`", "`--wait`"),
    ("`wait`", "`--wait`"),
    ("`limit`", "`--limit`"),
    ("`min_offset`", "`--min-offset`"),
    ("`force=true`", "`--force`"),
    ("`prefix`", "`--prefix`"),
    ("`from`", "`--from`"),
    ("`to`", "`--to`"),
    ("`order`", "`--desc`"),
    ("`version`", "`--version-id`"),
    ("`subject`", "`--subject`"),
    ("`offsets`", "`--offset`"),
    ("`partition`", "`--partition`"),
    ("`types`", "`--type`"),
    ("`GET /v1/projections`", "`lantern plugin list`"),
    ("`GET /v1/projections/{name}`", "`lantern plugin status NAME`"),
    ("`GET /v1/status`", "`lantern plugin status NAME`"),
];

fn flags_for_parameters(text: &str) -> String {
    FLAGS.iter().fold(text.to_owned(), |text, (parameter, flag)| text.replace(parameter, flag))
}

/// Returns a refused event, as text on one line.
fn detail(error: &EventRejection) -> String {
    match (error.line, error.index) {
        (Some(line), _) => format!("line {line}: {}", error.detail),
        (None, Some(index)) => format!("event {index}: {}", error.detail),
        (None, None) => error.detail.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(status: u16, body: &str, exit: Exit, text: &str) {
        let problem: Problem = serde_json::from_str(body).unwrap();
        let failure = Refusal::from(problem).into_failure(status);
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
            r#"{"detail":"1 of 2 events is refused","errors":[{"index":1,"code":"LAN-0304","detail":"no `id`"}]}"#,
            Exit::Refused,
            "error: 1 of 2 events is refused\n  event 1: no `id`",
        );
        check(503, "{}", Exit::Busy, "error: the server answered 503");
        check(500, r#"{"title":"broken"}"#, Exit::Failure, "error: broken");
    }

    #[test]
    fn help_names_flags_and_not_parameters_of_the_api() {
        for code in lantern_server::CODES.iter().filter(|code| code.status >= 400) {
            let refusal = Refusal { help: Some(code.help.into()), ..Refusal::default() };
            let help = refusal.into_failure(code.status).help.unwrap_or_default();
            // This program's requests never cause these codes, so the server's help text for them
            // needs no change.
            let own = ["LAN-0212", "LAN-0320", "LAN-04"];
            if own.iter().any(|own| code.code.starts_with(own)) {
                continue;
            }
            for parameter in ["?", "=true", "GET /", "`subject`", "`offsets`"] {
                assert!(!help.contains(parameter), "{}: {help}", code.code);
            }
        }
    }

    #[test]
    fn many_details_are_cut_short_and_counted() {
        let rejection = |index| EventRejection {
            index: Some(index),
            line: None,
            code: "LAN-0304".into(),
            detail: "x".into(),
        };
        let refusal = Refusal { errors: (0..15).map(rejection).collect(), ..Refusal::default() };
        let failure = refusal.into_failure(400);
        assert_eq!(failure.details.len(), 11);
        assert_eq!(failure.details[10], "and 5 more");
    }
}
