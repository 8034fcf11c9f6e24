//! Runs a process that never outlives the process that started it. Between the two processes is a
//! shell, the *guard*, which reads a pipe from the starting process. The guard ends the started
//! process when the pipe closes, or on a command.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::PATIENCE;

/// The shell script of the guard. It starts the command in its arguments, prints the process id,
/// and reads one word: `stop`, `kill`, or nothing when the starting process has ended.
const GUARD: &str = r#"
said=$1; ending=$2; remove=$3; shift 3
"$@" >"$said" 2>&1 &
pid=$!
echo "$pid"
read -r word
case $word in
    stop) kill -s TERM "$pid" ;;
    kill) kill -s KILL "$pid" ;;
    *) kill -s "$ending" "$pid" ;;
esac
# Without the redirection the shell would print that the process was killed.
wait "$pid" 2>/dev/null
if [ -z "$word" ] && [ -n "$remove" ]; then rm -rf "$remove"; fi
"#;

/// What happens to a broker when the process that started it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The broker is killed at once.
    Kill,
    /// The broker is asked to end, so that its next start is fast.
    Stop,
}

/// A running process, together with its guard.
#[derive(Debug)]
pub(crate) struct Guarded {
    guard: Child,
    /// The writing end of the guard's pipe; `None` if another process holds it. The process ends
    /// when this end is closed.
    lifeline: Option<ChildStdin>,
    pid: u32,
}

impl Guarded {
    /// Starts `command` and writes its output to the file `said`. The folder `remove` is deleted
    /// when the starting process has ended.
    pub(crate) fn start(
        command: &Command,
        said: &Path,
        ending: Ending,
        remove: Option<&Path>,
        lifeline: Option<std::io::PipeReader>,
    ) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(said);
        shell.arg(match ending {
            Ending::Kill => "KILL",
            Ending::Stop => "TERM",
        });
        shell.arg(remove.unwrap_or(Path::new("")));
        shell.arg(command.get_program()).args(command.get_args());
        // The guard has a process group of its own, because Ctrl-C must reach only the process
        // that uses the broker. That process then ends the broker.
        shell.process_group(0).stdout(Stdio::piped());
        shell.stdin(lifeline.map_or_else(Stdio::piped, Stdio::from));
        let mut guard = shell.spawn().context("`sh` cannot be started")?;
        let lifeline = guard.stdin.take();
        let stdout = guard.stdout.take().context("it was piped")?;
        let mut line = String::new();
        BufReader::new(stdout.take(64)).read_line(&mut line)?;
        let pid = line.trim().parse().with_context(|| format!("`{line}` is no process"))?;
        Ok(Self { guard, lifeline, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns whether the process still runs.
    pub(crate) fn lives(&mut self) -> bool {
        // The file contains "PID (NAME) STATE …". The state `Z` means that the process has ended,
        // but the guard has not waited for it yet.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| state != 'Z')
    }

    /// Sends the process the signal with this name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let kill = format!("kill -s {name} {}", self.pid);
        ensure!(Command::new("sh").args(["-c", &kill]).status()?.success(), "`{kill}` failed");
        Ok(())
    }

    /// Sends `word` to the guard, and waits until the process has ended.
    pub(crate) fn end(mut self, word: &str) -> Result<()> {
        match &mut self.lifeline {
            // The guard has already ended if another program ended the process.
            Some(lifeline) => drop(writeln!(lifeline, "{word}")),
            None => self.signal(if word == "kill" { "KILL" } else { "TERM" })?,
        }
        let started = Instant::now();
        loop {
            if self.guard.try_wait()?.is_some() || (self.lifeline.is_none() && !self.lives()) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                self.signal("KILL")?;
                bail!("process {} did not end when told to `{word}`", self.pid);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
