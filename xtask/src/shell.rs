//! Runs other programs, and prints their command lines.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Returns the root folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
        .to_path_buf()
}

/// Returns the folder to which cargo writes its results: `CARGO_TARGET_DIR`, or `target`.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Returns whether this is a run of CI (`CI=true`), in which a missing tool is a failure.
pub(crate) fn ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Prints the current step on standard error.
pub(crate) fn step(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\n\x1b[1m==> {what}\x1b[0m");
    } else {
        eprintln!("\n==> {what}");
    }
}

/// Prepares a command that runs the cargo with which xtask was started, in the root folder.
pub(crate) fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root());
    // `cargo run` has set these variables for xtask. If they stayed set, cargo would build other
    // packages again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Formats the command as a user would type it.
fn typed(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs the command and shows its output. Fails if the command fails.
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

/// Runs the command and returns its standard output. If the command fails, the error
/// contains its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = typed(command);
    let out = command.output().with_context(|| format!("`{text}` cannot be started"))?;
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("`{text}` failed ({})\n{}", out.status, errors.trim());
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{text}` printed no UTF-8"))
}

/// Runs the command, prints each line of its standard output, and passes the line to
/// `see`. Returns whether the command succeeded.
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

/// Creates a virtual environment of Python in `folder`, and installs packages with
/// `arguments` of pip.
pub(crate) fn python_environment(folder: &Path, arguments: &[&OsStr]) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut pip = Command::new(folder.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run(pip.args(arguments))
}

/// Prepares a command that runs npm in `folder`, a folder of the repository.
pub(crate) fn npm(folder: &str, arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(root().join(folder));
    npm
}

/// Returns the first of `programs` that is not installed. In CI this is an error.
pub(crate) fn missing<'a>(programs: &[&'a str]) -> Result<Option<&'a str>> {
    let missing = programs.iter().copied().find(|program| !installed(program));
    match missing {
        Some(program) if ci() => bail!("CI must have every program, and `{program}` is missing"),
        _ => Ok(missing),
    }
}

/// Returns whether a folder of `PATH` contains `program`.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
