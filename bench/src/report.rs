//! Represents the results of measurements: medians, and points that are printed as a table or as
//! one JSON object.

use std::time::Instant;

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Options;
use crate::process::{self, Usage};

/// The measurements of one phase of a benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) wall_s: f64,
    /// The user and system time of all threads of the process.
    pub(crate) cpu_s: f64,
    /// The highest resident memory of the process.
    pub(crate) peak_rss_mib: f64,
    /// Whether the tables contain exactly the expected rows.
    pub(crate) exact: bool,
    /// The size of the state files at the end, in bytes.
    pub(crate) state_bytes: u64,
    /// Bytes that the process has written to disk. A page that is written several times
    /// counts each time.
    pub(crate) written_bytes: u64,
}

/// A stopwatch that measures the time and resources from [`Stopwatch::start`] to
/// [`Stopwatch::stop`].
pub(crate) struct Stopwatch {
    started: Instant,
    cpu: cpu_time::ProcessTime,
    written_bytes: u64,
}

impl Stopwatch {
    pub(crate) fn start() -> Result<Self> {
        let written_bytes = process::written_bytes()?;
        Ok(Self { started: Instant::now(), cpu: cpu_time::ProcessTime::now(), written_bytes })
    }

    pub(crate) fn stop(&self) -> Result<Measured> {
        Ok(Measured {
            wall_s: self.started.elapsed().as_secs_f64(),
            cpu_s: self.cpu.elapsed().as_secs_f64(),
            peak_rss_mib: Usage::of(std::process::id())?.peak_rss_mib(),
            exact: false,
            state_bytes: 0,
            written_bytes: process::written_bytes()? - self.written_bytes,
        })
    }
}

/// Computes the medians of Lantern's folds and of the plain Rust folds, as a JSON object. It
/// includes the medians of `rebuilds` if that is not empty.
pub(crate) fn sides(
    benchmark: &str,
    options: &Options,
    folds: &[Measured],
    rebuilds: &[Measured],
    natives: &[Measured],
) -> Value {
    let million = options.events as f64 / 1e6;
    let of = |all: &[Measured], pick: fn(&Measured) -> f64| median(all.iter().map(pick).collect());
    let exact = folds.iter().chain(rebuilds).chain(natives).all(|m| m.exact);
    let cpu = of(folds, |m| m.cpu_s) / million;
    let native_cpu = of(natives, |m| m.cpu_s) / million;
    let rate = options.events as f64 / of(folds, |m| m.wall_s);
    let mut result = serde_json::json!({
        "benchmark": benchmark,
        "events": options.events,
        "cpu_s_per_million": cpu,
        "native_cpu_s_per_million": native_cpu,
        "ratio": cpu / native_cpu,
        "events_per_s": rate,
        "native_events_per_s": options.events as f64 / of(natives, |m| m.wall_s),
        "peak_rss_mib": of(folds, |m| m.peak_rss_mib),
        "native_peak_rss_mib": of(natives, |m| m.peak_rss_mib),
        "state_bytes_per_event":
            folds[0].state_bytes as f64 / options.events as f64,
        "written_bytes_per_event":
            of(folds, |m| m.written_bytes as f64) / options.events as f64,
        "exact": exact,
    });
    if !rebuilds.is_empty() {
        result["rebuild_cpu_s_per_million"] = (of(rebuilds, |m| m.cpu_s) / million).into();
        let rate = options.events as f64 / of(rebuilds, |m| m.wall_s);
        result["rebuild_events_per_s"] = rate.into();
    }
    result
}

/// Adds the members of `more` to `result`, and replaces those of the same name.
pub(crate) fn merge(result: &mut Value, more: Value) {
    if let (Value::Object(result), Value::Object(more)) = (result, more) {
        result.extend(more);
    }
}

/// Prints the result of [`sides`], to which members may have been added.
///
/// # Errors
/// Fails if the tables of a phase were not exact.
pub(crate) fn print_result(options: &Options, result: &Value) -> Result<()> {
    if options.json {
        println!("{result}");
    } else {
        println!("{}", serde_json::to_string_pretty(result)?);
    }
    ensure!(result["exact"] == true, "the tables are not what they must be");
    Ok(())
}

/// Computes the median of `values`; the higher of the two middle ones if their number is even.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures all `points` one after another, in each of several rounds. Returns the
/// figures of each point, by round. `name` returns the name of a point, which is
/// printed before its measurement.
pub(crate) async fn in_turn<P>(
    rounds: usize,
    points: &[P],
    name: impl Fn(&P) -> String,
    mut measure: impl AsyncFnMut(&P) -> Result<Figures>,
) -> Result<Vec<Vec<Figures>>> {
    let mut figures = vec![Vec::new(); points.len()];
    for round in 1..=rounds.max(1) {
        for (point, figures) in points.iter().zip(&mut figures) {
            eprintln!("round {round}: {}", name(point));
            figures.push(measure(point).await?);
        }
    }
    Ok(figures)
}

/// One line of a result: names and values of columns, in the order of printing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Point(Vec<(&'static str, Value)>);

impl Point {
    /// Creates the point with the name `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self::default().with("point", name)
    }

    /// Adds a column to the point.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Adds a column with the median of each figure over all rounds, in the order of
    /// the first round.
    pub(crate) fn with_medians(mut self, rounds: &[Figures]) -> Self {
        for (name, _) in rounds.first().into_iter().flatten() {
            let of = |round: &Figures| round.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
            self.0.push((*name, rounded(median(rounds.iter().filter_map(of).collect()))));
        }
        self
    }

    fn columns(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

/// The measurements of one round of a point, each with its name.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// Rounds a value to four significant digits, because the measurements are not more precise than
/// that.
fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return value.into();
    }
    let digits = (3.0 - value.abs().log10().floor()).clamp(0.0, 9.0);
    let scale = 10_f64.powf(digits);
    ((value * scale).round() / scale).into()
}

/// Prints the result of `benchmark`.
pub(crate) fn print(benchmark: &str, json: bool, points: &[Point]) {
    if json {
        let object = |point: &Point| {
            point.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let points = points.iter().map(|p| Value::Object(object(p))).collect::<Vec<_>>();
        let machine = machine();
        let result =
            serde_json::json!({ "benchmark": benchmark, "machine": machine, "points": points });
        println!("{result}");
        return;
    }
    for alike in points.chunk_by(|a, b| a.columns() == b.columns()) {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(alike[0].columns());
        for point in alike {
            table.add_row(point.0.iter().map(|(_, value)| format_value(value)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}\n");
    }
}

fn format_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Describes the machine on which the benchmark runs, and its load, because other programs may run
/// on it.
fn machine() -> Map<String, Value> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or_default();
    let load = read("/proc/loadavg");
    let mut machine = Map::new();
    machine.insert("cpu".into(), model.into());
    machine
        .insert("cores".into(), std::thread::available_parallelism().map_or(0, usize::from).into());
    machine.insert("load".into(), load.split(' ').next().unwrap_or_default().into());
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_keeps_four_digits() {
        let cases = [(1234.56, 1235.0), (0.001_234_56, 0.001_235), (0.0, 0.0), (12.3456, 12.35)];
        for (value, expected) in cases {
            assert_eq!(rounded(value), Value::from(expected), "{value}");
        }
    }

    #[test]
    fn rounds_become_medians() {
        let rounds = [3.0, 1.0, 2.0].map(|n| vec![("a", n), ("b", 10.0 * n)]);
        let point = Point::new("p").with_medians(&rounds);
        assert_eq!(
            point.0,
            [("point", Value::from("p")), ("a", Value::from(2.0)), ("b", Value::from(20.0))]
        );
    }
}
