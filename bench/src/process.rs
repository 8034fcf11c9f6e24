//! Reads the resources that a process uses, from `/proc` on Linux.

use anyhow::{Context, Result};

/// The number of clock ticks per second in `/proc` (`USER_HZ`). It is 100 on every architecture
/// used for servers.
const TICKS_A_SECOND: f64 = 100.0;
const KIB: f64 = 1024.0;

/// The resources that a process has used so far, and those that it uses now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// The user and system time of all threads of the process, including threads that have ended.
    pub(crate) cpu_s: f64,
    /// The user and system time of child processes that have ended and for which the process has
    /// waited.
    pub(crate) children_cpu_s: f64,
    pub(crate) rss_kib: f64,
    pub(crate) peak_rss_kib: f64,
    /// The resident memory of the process that does not belong to a file.
    pub(crate) anonymous_kib: f64,
    pub(crate) threads: f64,
    /// The number of times that the threads of the process were put to sleep or interrupted.
    /// Threads that have ended are not included.
    pub(crate) switches: f64,
}

impl Usage {
    /// Reads the resources of the process `pid`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        // The process name comes first. It may contain any characters, also spaces and parentheses.
        let fields = stat.rsplit_once(')').context("no name in stat")?.1;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The manual page proc(5) numbers the fields from 1. The first two are cut off here.
        let seconds = |number: usize| -> Result<f64> {
            let ticks: f64 = fields.get(number - 3).context("stat is short")?.parse()?;
            Ok(ticks / TICKS_A_SECOND)
        };
        let status = read(pid, "status")?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
                .and_then(|number| number.parse::<f64>().ok())
                .with_context(|| format!("no {name} in status"))
        };
        Ok(Self {
            cpu_s: seconds(14)? + seconds(15)?,
            children_cpu_s: seconds(16)? + seconds(17)?,
            rss_kib: of("VmRSS")?,
            peak_rss_kib: of("VmHWM")?,
            anonymous_kib: of("RssAnon")?,
            threads: of("Threads")?,
            switches: switches(pid)?,
        })
    }

    pub(crate) fn peak_rss_mib(&self) -> f64 {
        self.peak_rss_kib / KIB
    }

    pub(crate) fn rss_mib(&self) -> f64 {
        self.rss_kib / KIB
    }
}

/// Returns the bytes that this process has written to disk so far. A page counts each time that it
/// becomes dirty, even if the kernel writes it only once.
pub(crate) fn written_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(line.context("no write_bytes in /proc/self/io")?.trim().parse()?)
}

fn switches(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // The thread may have ended in the meantime.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
        let lines = status.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
        sum += lines
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
            .sum::<f64>();
    }
    Ok(sum)
}

fn read(pid: u32, what: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{what}");
    std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

/// Raises the limit on open files and connections of this process, and of the processes
/// that it starts, to the allowed maximum. Returns the new limit.
pub(crate) fn raise_open_files() -> Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let started = std::time::Instant::now();
        let mut sum = 0_u64;
        while started.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.cpu_s > 0.0 && usage.threads >= 1.0, "{usage:?}");
        assert!(usage.peak_rss_kib >= usage.rss_kib && usage.rss_kib >= usage.anonymous_kib);
    }
}
