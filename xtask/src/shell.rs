//! Runs other programs, and prints what it runs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
        .to_path_buf()
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target`.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Whether a missing tool is a failure.
pub(crate) fn ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Says what is being done, on standard error.
pub(crate) fn step(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\n\x1b[1m==> {what}\x1b[0m");
    } else {
        eprintln!("\n==> {what}");
    }
}

/// Cargo, as it was called, in the repository.
pub(crate) fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root());
    // Set by `cargo run` for this program alone; others would rebuild for them.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// The command as a person would type it.
fn typed(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs it, its output passed through; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = typed(command);
    eprintln!("    {text}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("`{text}` cannot be started"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    eprintln!("    took {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs it and returns what it printed; an error, with what it complained of,
/// if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = typed(command);
    let out = command.output().with_context(|| format!("`{text}` cannot be started"))?;
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("`{text}` failed ({})\n{}", out.status, errors.trim());
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{text}` printed no UTF-8"))
}

/// Runs it, passes each line of its standard output on and to `see`; whether it
/// succeeded.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    let text = typed(command);
    eprintln!("    {text}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{text}` cannot be started"))?;
    let stdout = child.stdout.take().expect("it is piped");
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        see(&String::from_utf8_lossy(&line));
    }
    Ok(child.wait()?.success())
}

/// Whether a program of this name is on the path.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
