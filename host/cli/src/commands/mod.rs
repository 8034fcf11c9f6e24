//! Contains the commands. Each has a module of its own.

pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod dev;
mod diff;
pub(crate) mod doctor;
mod dry_run;
mod event_path;
pub(crate) mod events;
pub(crate) mod explain;
mod flights;
mod generate;
mod import;
mod lateness;
mod local_host;
pub(crate) mod named_query;
pub(crate) mod new;
pub(crate) mod parked;
pub(crate) mod plugin;
mod project;
mod push;
mod query;
mod screen;
pub(crate) mod serve;
pub(crate) mod table;
mod templates;
pub(crate) mod test;
pub(crate) mod types;
pub(crate) mod verify;
mod watch;

use std::io::{IsTerminal, Write};

use crate::error::{Exit, Failure, Outcome};

/// Asks the user to confirm an action that cannot be undone. If there is no terminal, the action is
/// refused.
fn confirm(question: &str, yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    let refused =
        |message: &str| Failure::new(Exit::Usage, message).help("give --yes to confirm it");
    if !std::io::stdin().is_terminal() {
        return Err(refused(
            "this cannot be undone, and there is no terminal to ask for confirmation",
        ));
    }
    let mut err = std::io::stderr().lock();
    // If the question cannot be shown, the answer is taken as no.
    let _ = write!(err, "{} [y/N] ", crate::output::printable(question)).and_then(|()| err.flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(anyhow::Error::from)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failure, "nothing was done"))
    }
}

/// Returns the folder for this user's compiled plugins, for commands that have no data folder of a
/// server. It is `lantern/compiled` in `XDG_CACHE_HOME` or, if this variable is not set, in
/// `~/.cache`. `None` if the user has no home folder either.
fn user_cache() -> Option<std::path::PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = folder("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| Some(std::path::Path::new(&folder("HOME")?).join(".cache")))?;
    let compiled = cache.join("lantern/compiled");
    // If the folder cannot be created, plugins are compiled each time.
    std::fs::create_dir_all(&compiled).ok().map(|()| compiled)
}

/// Reads parameters from the command line: JSON, or the name of a file with JSON.
fn parameters(text: &str) -> Outcome<String> {
    let inline = text.trim_start().starts_with(['{', '[', '"']);
    let json = if inline {
        text.to_owned()
    } else {
        let path = std::path::Path::new(text);
        String::from_utf8(crate::event_file::read_file(path)?)
            .map_err(|_| Failure::new(Exit::Refused, format!("`{text}` is not UTF-8")))?
    };
    match serde_json::from_str::<serde::de::IgnoredAny>(&json) {
        Ok(_) => Ok(json),
        Err(e) => Err(Failure::new(Exit::Refused, format!("the parameters are not JSON: {e}"))
            .help(
                "give JSON, such as `--parameters '{\"top\":10}'`, or the name of a file with it",
            )),
    }
}

/// Parses a rate on the command line: events per second, above 0.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("give events per second, such as `500` or `500/s`".into()),
    }
}

/// Parses a duration on the command line.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    lantern_server::parse_duration(text).ok_or_else(|| lantern_server::DURATION_FORMS.to_owned())
}

/// Parses `PROJECTION/TABLE` on the command line.
fn table_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((projection, table))
            if !projection.is_empty() && !table.is_empty() && !table.contains('/') =>
        {
            Ok((projection.to_owned(), table.to_owned()))
        }
        _ => Err("give projection and table, such as `revenue/by_product`".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn values_are_checked_when_they_are_typed() {
        assert_eq!(rate("500/s"), Ok(500.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(["0", "-1", "x", "inf", ""].iter().all(|text| rate(text).is_err()));
        assert_eq!(table_name("a/b"), Ok(("a".into(), "b".into())));
        assert!(["a", "a/", "/b", "a/b/c"].iter().all(|text| table_name(text).is_err()));
    }

    #[test]
    fn parameters_are_json_or_a_file_of_it() {
        assert_eq!(parameters("{\"top\":1}").unwrap(), "{\"top\":1}");
        assert_eq!(parameters("{oops").unwrap_err().exit, Exit::Refused);
        assert_eq!(parameters("no/such/file").unwrap_err().exit, Exit::NotFound);
    }
}
