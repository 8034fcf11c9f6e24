//! End to end: the real binary, real guests, real files, real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod browser;
mod cli;
mod crash;
mod determinism;
mod feed;
mod flights;
mod hostile;
mod operating;
mod versions;

/// An event as a line of JSON.
fn line(id: impl std::fmt::Display, kind: &str, subject: &str, data: &str) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"test\",\"type\":\"{kind}\",\"subject\":\"{subject}\",\"time\":\"2026-01-01T00:00:00Z\",\"data\":{data}}}\n"
    )
}
