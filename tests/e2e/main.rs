//! Runs the end-to-end tests, with the real binary, real guests, real files and real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod browser;
mod cases;
mod cli;
mod conformance;
mod crash;
mod determinism;
mod dev;
mod event_stream;
mod explain;
mod failing;
mod feed;
mod flights;
mod hostile;
mod kafka;
mod languages;
mod operating;
mod packages;
mod reports;
mod rules;
mod scripts;
mod standards;
mod traces;
mod versions;

use std::process::Command;

/// Formats an event as a line of JSON.
fn line(id: impl std::fmt::Display, kind: &str, subject: &str, data: &str) -> String {
    line_at(0, id, kind, subject, data)
}

/// Formats an event as a line of JSON. Its time is `ms` milliseconds after the beginning of 2026,
/// within the first day.
fn line_at(ms: u64, id: impl std::fmt::Display, kind: &str, subject: &str, data: &str) -> String {
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    assert!(hour < 24, "the day is over");
    let time = format!("2026-01-01T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000);
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"test\",\"type\":\"{kind}\",\"subject\":\"{subject}\",\"time\":\"{time}\",\"data\":{data}}}\n"
    )
}

/// Runs `command` to its end, and returns its output. Panics if the command fails.
fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{errors}", output.status);
    out
}

/// Creates a random generator whose results can be repeated: its seed is printed, and can be set
/// with `LANTERN_SEED`.
fn random() -> fastrand::Rng {
    let seed = std::env::var("LANTERN_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("LANTERN_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
