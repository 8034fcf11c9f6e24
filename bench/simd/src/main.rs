//! Runs the plain Rust fold of W1 with a SIMD parser (`sonic-rs`) instead of `serde_json`. It folds
//! the lines of the file that its argument names, and prints the measurements as JSON.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use native::{Line, Tables};

#[allow(dead_code, reason = "the same file is the fold with `serde_json`")]
#[path = "../../src/native.rs"]
mod native;

/// The number of lines for which the tables are compared with those of `serde_json`.
const CHECKED_LINES: u64 = 100_000;

fn main() -> Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).context("give the file of events")?.into();
    let (started, cpu) = (Instant::now(), cpu_time::ProcessTime::now());
    let tables = fold(&path, u64::MAX, fold_line)?;
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    let checked = fold(&path, CHECKED_LINES, fold_line)?;
    let expected = fold(&path, CHECKED_LINES, native::fold_line)?;
    let exact = !tables.product.is_empty() && checked == expected;
    println!("{}", serde_json::json!({ "wall_s": wall_s, "cpu_s": cpu_s, "exact": exact }));
    Ok(())
}

/// Folds at most `most` lines of the file `path`.
fn fold(
    path: &Path,
    most: u64,
    fold_line: impl Fn(&[u8], &mut Tables) -> Result<()>,
) -> Result<Tables> {
    let mut tables = Tables::default();
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    for _ in 0..most {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        fold_line(&line, &mut tables)?;
    }
    Ok(tables)
}

fn fold_line(line: &[u8], tables: &mut Tables) -> Result<()> {
    sonic_rs::from_slice::<Line<'_>>(line)?.fold(tables);
    Ok(())
}
