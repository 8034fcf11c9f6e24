//! Implements `cargo xtask test`, which builds everything and runs all tests and checks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::artifacts::{self, Guests};
use crate::check;
use crate::metadata::Workspace;
use crate::{dist, interpreters, kafka, page, sdk_packages, shell};

/// The script that CI runs. It lists the programs that tests start.
pub(crate) const CI: &str = ".ci/run";

/// A program that a test starts.
pub(crate) struct Tool<'a> {
    pub(crate) program: &'a str,
    /// The Debian package that contains the program.
    package: &'a str,
    /// The text that is printed if the program is missing. It names the parts that are then not
    /// tested.
    shows: &'a str,
}

/// Reads the programs other than cargo that tests start. `script` has a line
/// `need PROGRAM PACKAGE # TEXT` for each program; TEXT names the parts that are not tested without it. A line `need`
/// without a comment names a package that only builds need.
pub(crate) fn tools(script: &str) -> Vec<Tool<'_>> {
    let lines = script.lines().filter_map(|line| line.strip_prefix("need ")?.split_once(" # "));
    let tools = lines.filter_map(|(names, shows)| {
        let (program, package) = names.split_once(' ')?;
        Some(Tool { program, package, shows })
    });
    tools.collect()
}

/// The result of a run: how many tests and checks passed, failed or were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Summary {
    /// Counts a test or check that passed or failed.
    pub(crate) fn count(&mut self, passed: bool) {
        self.passed += u64::from(passed);
        self.failed += u64::from(!passed);
    }

    /// Counts a test or check that could not run, and prints the reason and the remedy.
    pub(crate) fn skip(&mut self, why: &str, help: &str) {
        eprintln!("skipped: {why}\n    help: {help}");
        self.skipped += 1;
    }

    /// Adds the counts of a line of the test runner: `test result: ok. 3
    /// passed; 0 failed; 1 ignored; 0 measured; 0 filtered out`.
    fn read(&mut self, line: &str) {
        let Some(counts) = line.trim().strip_prefix("test result: ") else { return };
        let words: Vec<_> = counts.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => (),
            }
        }
    }

    /// Adds the counts of two runs.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Prints the counts. Fails if anything failed, or if nothing passed or failed.
    pub(crate) fn close(self) -> Result<()> {
        let Self { passed, failed, skipped } = self;
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        match (passed, failed) {
            (_, 1..) => bail!("{failed} failed"),
            (0, 0) => bail!("nothing was run"),
            _ => Ok(()),
        }
    }
}

/// Builds everything, and runs the tests whose names contain `filter`. Without a filter
/// it runs all tests, then the checks.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    let mut summary = Summary::default();
    let without = missing_tools(&mut summary)?;
    artifacts::wasm_target()?;

    let workspace = Workspace::load()?;
    shell::step("Building the guests");
    artifacts::guests(&workspace, &[Guests::Plugins, Guests::Interpreters, Guests::Others])?;

    interpreters::build(&mut summary)?;
    shell::step("Building the web page");
    page::build(&mut summary)?;

    // Binary and tests are built by one command. With two commands cargo would select
    // other features of the dependencies for each, and build the large ones twice.
    shell::step("Building the host and its tests");
    shell::run(&mut shell::cargo(["build", "--workspace", "--all-targets"]))?;

    if dist::TOOLS.iter().all(|tool| !is_missing(tool, &without)) {
        dist::run(Some(artifacts::lantern("debug")))?;
    } else {
        sdk_packages::write(&dist::folder())?;
    }

    shell::step("Running the tests");
    summary = summary.and(tests(filter, &without)?);
    if has_kafka(&without) {
        shell::step("Running the end-to-end tests over Kafka");
        let over = tests_over_kafka(filter, &without)?;
        let Summary { passed, failed, skipped } = over;
        println!("\nover Kafka: {passed} passed, {failed} failed, {skipped} skipped");
        summary = summary.and(over);
    }
    if filter.is_none() {
        interpreters::test(&mut summary, &without)?;
        summary = summary.and(check::run(false)?);
    }
    summary.close()
}

/// The name under which Kafka is listed among the missing programs.
const KAFKA: &str = "kafka";

/// Reports missing programs, and returns their names, separated by commas. Fetches
/// Kafka, which counts as a program.
pub(crate) fn missing_tools(summary: &mut Summary) -> Result<String> {
    let script = std::fs::read_to_string(shell::root().join(CI))?;
    let missing: Vec<_> =
        tools(&script).into_iter().filter(|tool| !shell::installed(tool.program)).collect();
    for Tool { program, package, shows } in &missing {
        summary.skip(
            &format!("`{program}` is not installed: {shows}"),
            &format!("`apt-get install {package}`, or your system's package of that name"),
        );
    }
    if shell::ci() && !missing.is_empty() {
        bail!("CI must have every program; add what is missing to {CI}");
    }
    let mut missing: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    if missing.contains(&"java") {
        missing.push(KAFKA);
    } else if let Err(error) = kafka::fetch() {
        if shell::ci() {
            return Err(error);
        }
        let why = format!("Kafka cannot be fetched, and nothing over it is tested: {error:#}");
        summary.skip(&why, "`cargo xtask kafka --fetch`, with Maven and a way to Maven Central");
        missing.push(KAFKA);
    }
    Ok(missing.join(","))
}

/// Returns the environment variables from which tests get the paths of programs and guests.
pub(crate) fn environment(without: &str) -> [(&'static str, PathBuf); 7] {
    [
        ("LANTERN_BIN", artifacts::lantern("debug")),
        ("LANTERN_PLUGINS", Guests::Plugins.folder()),
        ("LANTERN_GUESTS", Guests::Others.folder()),
        ("LANTERN_INTERPRETERS", interpreters::folder()),
        ("LANTERN_DIST", dist::folder()),
        ("LANTERN_KAFKA_LIBS", kafka::libs()),
        ("LANTERN_WITHOUT", without.into()),
    ]
}

/// Runs `cargo test`, and returns the counts.
fn tests(filter: Option<&str>, without: &str) -> Result<Summary> {
    let mut cargo = shell::cargo(["test", "--workspace", "--no-fail-fast"]);
    cargo.args(filter).envs(environment(without));
    // The tests of `host/kafka` cannot start a broker themselves. They create their own
    // topics on this one.
    let broker = has_kafka(without).then(kafka::for_tests).transpose()?;
    if let Some(broker) = &broker {
        cargo.env("LANTERN_KAFKA", broker.address());
    }
    counted(&mut cargo)
}

fn has_kafka(without: &str) -> bool {
    !is_missing(KAFKA, without)
}

/// Returns whether `program` is one of the missing programs, which commas separate.
fn is_missing(program: &str, without: &str) -> bool {
    without.split(',').any(|missing| missing == program)
}

/// Runs the end-to-end tests again, with each server over a topic of a real broker.
/// Tests of Kafka itself are skipped, because they have already run.
fn tests_over_kafka(filter: Option<&str>, without: &str) -> Result<Summary> {
    let mut cargo = shell::cargo(["test", "--workspace", "--no-fail-fast", "--test", "e2e"]);
    cargo.args(filter).arg("--");
    // The tests of these modules start no server over a log, or are independent of the log.
    for module in
        ["kafka::", "conformance::", "dev::", "failing::", "languages::", "packages::", "rules::"]
    {
        cargo.args(["--skip", module]);
    }
    counted(cargo.envs(environment(without)).env("LANTERN_TEST_LOG", "kafka"))
}

fn counted(cargo: &mut Command) -> Result<Summary> {
    let mut summary = Summary::default();
    let passed = shell::watch(cargo, |line| summary.read(line))?;
    // If a test does not build, or the process of a test dies, no line with counts is printed.
    if !passed && summary.failed == 0 {
        summary.failed = 1;
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_lines_are_summed() {
        let mut summary = Summary::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out",
            "a test printed: 9 passed",
        ] {
            summary.read(line);
        }
        assert_eq!(summary, Summary { passed: 5, failed: 4, skipped: 1 });
        assert!(summary.close().is_err());
    }

    #[test]
    fn a_run_of_nothing_is_no_success() {
        assert!(Summary::default().close().is_err());
        assert!(Summary { passed: 1, failed: 0, skipped: 2 }.close().is_ok());
    }
}
