//! Measures `lantern dev`: the time from saving a file to the changed rows on the terminal.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lantern_tests::dev::Dev;
use lantern_tests::{lantern, root};
use serde_json::Value;

use crate::report::{Figures, Point, print};

/// The number of sample events that are counted in the row that is awaited.
const EVENTS: u64 = 2;

/// The options of this benchmark.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// How often each file is saved.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// The folder of the interpreters.
    #[arg(long, default_value = "target/interpreters")]
    interpreters: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A project of `lantern new` whose source is changed.
struct Project {
    name: &'static str,
    /// The arguments of `lantern new`.
    new: &'static [&'static str],
    source: &'static str,
    /// The text of the source that adds 1 for each event.
    counts: &'static str,
    /// The text that adds `{}` in place of 1.
    adds: &'static str,
}

const PROJECTS: [Project; 4] = [
    Project {
        name: "declaration",
        new: &["--script", "yaml"],
        source: "order-counts.yaml",
        counts: "count()",
        adds: "sum({})",
    },
    Project {
        name: "JavaScript, script",
        new: &["--script", "js"],
        source: "order-counts.js",
        counts: "events += 1",
        adds: "events += {}",
    },
    Project {
        name: "Python, script",
        new: &["--script", "py"],
        source: "order_counts.py",
        counts: "row[\"events\"] += 1",
        adds: "row[\"events\"] += {}",
    },
    Project {
        name: "Rust, project",
        new: &["--lang", "rust"],
        source: "src/lib.rs",
        counts: ".events += 1",
        adds: ".events += {}",
    },
];

/// Measures all projects and prints the figures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut points = Vec::new();
    for project in &PROJECTS {
        let rounds = project.measure(options).with_context(|| project.name)?;
        let slowest = rounds.iter().flatten().map(|(_, ms)| *ms).fold(0.0, f64::max);
        points.push(Point::new(project.name).with("slowest_ms", slowest).with_medians(&rounds));
    }
    print("dev", options.json, &points);
    Ok(())
}

impl Project {
    fn measure(&self, options: &Options) -> Result<Vec<Figures>> {
        let folder = tempfile::tempdir()?;
        self.create(folder.path())?;
        let source = folder.path().join("order-counts").join(self.source);
        let text = std::fs::read_to_string(&source)?;
        ensure!(text.contains(self.counts), "`{}` is not in {}", self.counts, self.source);
        let mut command = Command::new(lantern());
        let interpreters = std::path::absolute(&options.interpreters)?;
        command.env("LANTERN_PLUGIN__INTERPRETERS_DIR", interpreters);
        command.env("XDG_CACHE_HOME", root().join("target/tests-cache"));
        // Cargo's output stays for the next run, so that only the first build takes long.
        command.env("CARGO_TARGET_DIR", root().join("target/new"));
        let mut dev = Dev::start(command, &folder.path().join("order-counts"))?;
        dev.wait_for(|line| is_row(line, EVENTS))?;
        let mut rounds = Vec::new();
        // The first change is not measured: it may compile what later ones find compiled.
        for round in 0..=options.rounds {
            let each = round + 2;
            let changed = text.replace(self.counts, &self.adds.replace("{}", &each.to_string()));
            let start = Instant::now();
            std::fs::write(&source, changed)?;
            dev.wait_for(|line| is_row(line, each * EVENTS))?;
            let ms = start.elapsed().as_secs_f64() * 1e3;
            if round > 0 {
                rounds.push(vec![("saved_to_rows_ms", ms)]);
            }
        }
        Ok(rounds)
    }

    fn create(&self, folder: &Path) -> Result<()> {
        let mut new = Command::new(lantern());
        new.args(["new", "order-counts", "--json"]).args(self.new).current_dir(folder);
        if self.new.contains(&"rust") {
            new.arg("--sdk").arg(root().join("sdk/rust"));
        }
        let output = new.output()?;
        ensure!(output.status.success(), "{new:?}: {}", String::from_utf8_lossy(&output.stderr));
        if self.new.contains(&"rust") {
            // It needs the same versions of packages as the workspace, and downloads nothing.
            let lock = "Cargo.lock";
            std::fs::copy(root().join(lock), folder.join("order-counts").join(lock))?;
        }
        Ok(())
    }
}

fn is_row(line: &Value, events: u64) -> bool {
    line["table"] == "by_type" && line["key"] == "order.placed" && line["row"]["events"] == events
}
