//! Runs `lantern dev` and reads what it prints.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::PATIENCE;

/// The number of lines that the error of a missing line contains.
const LINES_SHOWN: usize = 10;

/// A running `lantern dev --json`. It is killed when this value is dropped.
pub struct Dev {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Dev {
    /// Starts the command for `project`, on a free port. `lantern` is the prepared call of the
    /// program.
    ///
    /// # Errors
    /// Fails if the program cannot be started.
    pub fn start(mut lantern: Command, project: &Path) -> Result<Self> {
        let mut child = lantern
            .args(["dev", "--json", "--no-open", "--listen", "127.0.0.1:0"])
            .arg(project)
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().context("it is piped")?);
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Waits for the next line for which `wanted` holds.
    ///
    /// # Errors
    /// Fails if it does not come in time, or if the command ends. The error contains the last
    /// lines.
    pub fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("the line does not come{}", self.last()),
                Err(RecvTimeoutError::Disconnected) => bail!("`lantern dev` ended{}", self.last()),
            };
            let value = serde_json::from_str(&line).with_context(|| line.clone())?;
            self.seen.push(line);
            if wanted(&value) {
                return Ok(value);
            }
        }
    }

    fn last(&self) -> String {
        let first = self.seen.len().saturating_sub(LINES_SHOWN);
        format!("; the last lines are:\n{}", self.seen[first..].join("\n"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
