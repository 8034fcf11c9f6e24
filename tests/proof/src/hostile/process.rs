//! Reads the resources and child processes of the server's process, as the operating system reports
//! them.

use std::fs;

use anyhow::{Context as _, Result};

/// The resources that a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// The memory that the process uses now, in bytes.
    pub memory_bytes: u64,
    /// The highest memory that the process has used so far, in bytes.
    pub memory_bytes_max: u64,
    /// The current number of threads of the process.
    pub threads: u64,
}

impl Usage {
    /// Reads the values of the process `pid`.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("the server's process {pid} is gone"))?;
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("process {pid} is no more than a name: {status}"))
        };
        let kib = |field: &str| number(field).map(|kib: u64| kib << 10);
        Ok(Self {
            memory_bytes: kib("VmRSS:")?,
            memory_bytes_max: kib("VmHWM:")?,
            threads: number("Threads:")?,
        })
    }
}

/// Returns the running processes that `pid` has started.
///
/// # Errors
/// Fails if the system does not report them.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // The process may have ended in the meantime.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        // The program's name is in parentheses and may contain any character.
        let after = stat.rsplit_once(')').map(|(_, after)| after).unwrap_or_default();
        if after.split_whitespace().nth(1) == Some(&pid.to_string()) {
            found.push(child);
        }
    }
    Ok(found)
}
