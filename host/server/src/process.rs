//! Reports the standard metrics of a process, under the names that the client libraries of
//! Prometheus use.

use std::fmt::Write as _;
use std::path::Path;

/// A metric without labels: its name, its type, its help text and its value.
type Metric = (&'static str, &'static str, &'static str, f64);

/// Appends the release, and the metrics of this process that the operating system provides.
pub(crate) fn write(out: &mut String) {
    let version = env!("CARGO_PKG_VERSION");
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "# HELP lantern_build_info The running release.\n# TYPE lantern_build_info gauge\n\
         lantern_build_info{{version=\"{version}\"}} 1\n"
    );
    for (name, kind, help, value) in metrics() {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

/// Appends the size and the free space of the disk with the folder `data`.
pub(crate) fn write_disk(data: &Path, out: &mut String) {
    for (name, help, value) in disk(data) {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
}

#[cfg(not(target_os = "linux"))]
fn disk(_data: &Path) -> Vec<(&'static str, &'static str, u64)> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn disk(data: &Path) -> Vec<(&'static str, &'static str, u64)> {
    let Ok(disk) = rustix::fs::statvfs(data) else { return Vec::new() };
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    vec![
        ("lantern_disk_size_bytes", "Size of the disk with the data folder.", bytes(disk.f_blocks)),
        (
            "lantern_disk_available_bytes",
            "Free bytes of the disk with the data folder.",
            bytes(disk.f_bavail),
        ),
    ]
}

/// Other systems have no such files.
#[cfg(not(target_os = "linux"))]
fn metrics() -> Vec<Metric> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn metrics() -> Vec<Metric> {
    let mut metrics = Vec::new();
    let Some(usage) = linux::Usage::read() else { return metrics };
    metrics.extend([
        ("process_cpu_seconds_total", "counter", "CPU time used, in seconds.", usage.cpu_s),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory in use, in bytes.",
            usage.resident_bytes,
        ),
        ("process_virtual_memory_bytes", "gauge", "Address space, in bytes.", usage.virtual_bytes),
        ("process_threads", "gauge", "Threads.", usage.threads),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time, in seconds since 1970.",
            usage.start_s,
        ),
    ]);
    let open = linux::open_files();
    metrics.extend(open.map(|n| ("process_open_fds", "gauge", "Open files.", n)));
    let max = linux::open_files_max();
    metrics
        .extend(max.map(|n| ("process_max_fds", "gauge", "The maximum number of open files.", n)));
    metrics
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    /// The values of `/proc/self/stat` that are used.
    pub(super) struct Usage {
        pub(super) cpu_s: f64,
        pub(super) resident_bytes: f64,
        pub(super) virtual_bytes: f64,
        pub(super) threads: f64,
        pub(super) start_s: f64,
    }

    impl Usage {
        pub(super) fn read() -> Option<Self> {
            let stat = fs::read_to_string("/proc/self/stat").ok()?;
            let boot = fs::read_to_string("/proc/stat").ok()?;
            let boot_s = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
            Self::parse(&stat, boot_s.trim().parse().ok()?)
        }

        /// Parses `/proc/self/stat`; see proc(5). The name at the front may contain spaces and
        /// brackets.
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
        fn parse(stat: &str, boot_s: f64) -> Option<Self> {
            let (_, rest) = stat.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
            // The first of these fields is field 3.
            let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            let page_bytes = rustix::param::page_size() as f64;
            Some(Self {
                cpu_s: (field(14)? + field(15)?) / ticks,
                threads: field(20)?,
                start_s: boot_s + field(22)? / ticks,
                virtual_bytes: field(23)?,
                resident_bytes: field(24)? * page_bytes,
            })
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
    pub(super) fn open_files() -> Option<f64> {
        // One entry is the descriptor of this folder itself, which is open while the folder is
        // read.
        Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
    }

    pub(super) fn open_files_max() -> Option<f64> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_systems_values_of_this_process_are_read() {
            let usage = Usage::read().unwrap();
            assert!(usage.resident_bytes > 1e6 && usage.virtual_bytes > usage.resident_bytes);
            assert!(usage.threads >= 1.0 && usage.start_s > 1.6e9 && usage.cpu_s >= 0.0);
            assert!(open_files().unwrap() >= 3.0 && open_files_max().unwrap() >= 3.0);
            assert!(Usage::parse("1 (a) b) S 1", 0.0).is_none());
        }
    }
}
