//! Implements `cargo xtask fresh`, which tries the first steps of a new user in a fresh clone. Run
//! it before a release.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell;

/// The maximum time until the demo is built and its tables have rows.
const START_MAX: Duration = Duration::from_secs(45 * 60);
/// The maximum time until the demo has ended, and for an answer of its server.
const END_MAX: Duration = Duration::from_secs(30);
/// The time between two checks of the demo.
const LOOK: Duration = Duration::from_millis(500);
/// The address of the demo. It differs from the default address, so that another program may use
/// the default.
const LISTEN: &str = "127.0.0.1:7429";

/// Clones the last commit, and runs the README's commands `cargo xtask test` and `cargo
/// xtask demo` in the clone. With `demo_only` it runs only the demo.
pub(crate) fn run(demo_only: bool) -> Result<()> {
    let clone = shell::target_dir().join("fresh");
    if clone.exists() {
        std::fs::remove_dir_all(&clone)?;
    }
    shell::step("Cloning the last commit");
    let mut git = Command::new("git");
    shell::run(git.args(["clone", "--quiet", "--no-local"]).arg(shell::root()).arg(&clone))?;
    if !demo_only {
        shell::step("cargo xtask test");
        shell::run(in_clone(&clone).args(["xtask", "test"]))?;
    }
    shell::step("cargo xtask demo");
    let mut demo = in_clone(&clone).args(["xtask", "demo", "--listen", LISTEN]).spawn()?;
    let tried = live_rows(&mut demo).and_then(|()| end(&mut demo));
    if tried.is_err() {
        // The call fails if the demo has already ended, which is no error here.
        let _ = demo.kill();
    }
    tried?;
    println!("\na fresh clone works; it can be deleted: {}", clone.display());
    Ok(())
}

fn in_clone(clone: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(clone).env_remove("CARGO_TARGET_DIR");
    cargo
}

/// Waits until tables of the demo have rows.
fn live_rows(demo: &mut Child) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < START_MAX {
        if let Some(status) = demo.try_wait()? {
            bail!("the demo ended by itself ({status})");
        }
        let answer = get("/v1/tables/flight-delays/by_carrier?limit=1").unwrap_or_default();
        if answer.starts_with("HTTP/1.1 200") && answer.contains("\"rows\":{\"") {
            println!(
                "the demo's tables have rows, {:.0} s after the start",
                start.elapsed().as_secs_f64()
            );
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    bail!("the demo showed no rows in {} s", START_MAX.as_secs())
}

fn get(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(LISTEN)?;
    stream.set_read_timeout(Some(END_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ends the demo with the signal that Ctrl-C sends.
fn end(demo: &mut Child) -> Result<()> {
    shell::output(Command::new("kill").args(["-INT", &demo.id().to_string()]))
        .context("the demo cannot be interrupted")?;
    let start = Instant::now();
    while start.elapsed() < END_MAX {
        if let Some(status) = demo.try_wait()? {
            return if status.success() { Ok(()) } else { bail!("the demo ended with {status}") };
        }
        std::thread::sleep(LOOK);
    }
    bail!("the demo did not end in {} s", END_MAX.as_secs())
}
