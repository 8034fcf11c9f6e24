//! Tests invariant 8 of `docs/proof.md`, for parsers: every parser returns a value or a clear error
//! for any bytes. It never panics, and its memory and time are proportional to the input. If a
//! format has an encoder, a decoded value that is encoded and decoded again must be the same value.
//!
//! For each parser there is a function that runs it on bytes, and panics if the claim does not
//! hold. The fuzz targets in `tests/fuzz` call the same functions, and keep the inputs that they
//! find in `tests/fuzz/corpus`. The experiment first tries all of these inputs, and then mutations
//! of its own.

mod events;
mod mutate;
mod requests;
mod stored;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;

use crate::{Claim, Counts, Run};

pub use events::{binary, cloudevents_batch, cloudevents_structured, ndjson, time};
pub(crate) use mutate::mutated;
pub use requests::{
    configuration, events_query, feed_message, resume_token, table_cursor, table_query,
};
pub use stored::{chunk, log_record, manifest, records, shard_record};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 8,
    name: "malformed-requests",
    holds: "every parser answers any bytes with a value or a clear error",
    counts: Counts { ci: 5_000, longer: 500_000, of: "inputs to each parser" },
    experiment: try_parsers,
};

/// A parser that the experiment tests.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// The parser's name. The function, the fuzz target and the folder of the corpus have the same
    /// name.
    pub name: &'static str,
    /// Runs the parser on the given bytes. Panics if the parser does something wrong.
    pub parse: fn(&[u8]),
    /// Returns inputs that are valid, or nearly valid.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every parser; each has a fuzz target and a corpus.
pub const PARSERS: &[Parser] = &[
    parser("binary", binary, events::binary_seeds),
    parser("chunk", chunk, stored::chunk_seeds),
    parser("cloudevents_batch", cloudevents_batch, events::batch_seeds),
    parser("cloudevents_structured", cloudevents_structured, events::structured_seeds),
    parser("configuration", configuration, requests::configuration_seeds),
    parser("events_query", events_query, requests::events_query_seeds),
    parser("feed_message", feed_message, requests::feed_message_seeds),
    parser("log_record", log_record, stored::log_record_seeds),
    parser("manifest", manifest, stored::manifest_seeds),
    parser("ndjson", ndjson, events::ndjson_seeds),
    parser("records", records, stored::records_seeds),
    parser("resume_token", resume_token, requests::resume_token_seeds),
    parser("shard_record", shard_record, stored::shard_record_seeds),
    parser("table_cursor", table_cursor, requests::table_cursor_seeds),
    parser("table_query", table_query, requests::table_query_seeds),
    parser("time", time, events::time_seeds),
];

const fn parser(name: &'static str, parse: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Parser {
    Parser { name, parse, seeds }
}

/// The size of the largest input, in bytes.
const INPUT_BYTES_MAX: usize = 256 << 10;
/// The maximum time for an input of that size, even on a busy machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

/// Returns the folder of a parser's corpus.
#[must_use]
pub fn corpus_folder(parser: &str) -> PathBuf {
    lantern_tests::root().join("tests/fuzz/corpus").join(parser)
}

/// Reads a parser's corpus, in the order of file names.
///
/// # Errors
/// Fails if it cannot be read, or is empty.
pub fn corpus(parser: &str) -> Result<Vec<Vec<u8>>> {
    let folder = corpus_folder(parser);
    let entries = fs::read_dir(&folder).with_context(|| format!("`{}`", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    ensure!(!paths.is_empty(), "`{}` is empty", folder.display());
    paths.iter().map(|path| Ok(fs::read(path)?)).collect()
}

fn try_parsers(run: &mut Run<'_>) -> Result<()> {
    let mut pools = Vec::new();
    for parser in PARSERS {
        let mut pool = corpus(parser.name)?;
        run.add("inputs kept", pool.len() as f64);
        for input in &pool {
            attempt(parser, input)?;
        }
        for seed in (parser.seeds)() {
            attempt(parser, &seed)?;
            pool.push(seed);
        }
        pools.push(pool);
    }
    run.cases(|run, seed| {
        let mut rng = Rng::with_seed(seed);
        for (parser, pool) in PARSERS.iter().zip(&pools) {
            let mut input = mutated(pool, &mut rng);
            input.truncate(INPUT_BYTES_MAX);
            let took = attempt(parser, &input)?;
            run.most("slowest input, ms", took.as_secs_f64() * 1_000.0);
        }
        run.add("inputs tried", PARSERS.len() as f64);
        Ok(())
    });
    Ok(())
}

/// Runs a parser on one input. Returns how long it took.
fn attempt(parser: &Parser, input: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| (parser.parse)(input)));
    let took = started.elapsed();
    let name = parser.name;
    if let Err(panic) = ended {
        let said = crate::run::message(&*panic);
        anyhow::bail!("{name}: {said}; the input is {}", input.escape_ascii());
    }
    ensure!(took < INPUT_TIME_MAX, "{name} took {took:?} for {}", input.escape_ascii());
    Ok(took)
}
