//! Copies parked events to the dead-letter topic, each at least once; the progress is
//! stored in a file next to the state. Also sends them again from there: events that
//! are still parked are retried in the shard that parked them, so that other readers of
//! the event's topic do not receive them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lantern_engine::{EngineError, ParkedOutcome, ParkedSelection, ProjectionStatus};
use lantern_kafka::{DeadLetter, KafkaLog, LetterName};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::App;
use crate::api::parked::ResendResult;
use crate::problem::Problem;

/// The interval between two passes.
const EVERY: Duration = Duration::from_secs(1);
/// The maximum number of events copied at once.
const PAGE: usize = 500;

/// For each shard, the key of the last parked event that was copied, in
/// hexadecimal digits.
type CopyProgress = BTreeMap<String, String>;

/// Copies parked events until `stopping`.
pub(crate) async fn copy(
    app: Arc<App>,
    log: Arc<KafkaLog>,
    file: PathBuf,
    stopping: CancellationToken,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopping.cancelled() => return,
        }
        let (app, log, file) = (Arc::clone(&app), Arc::clone(&log), file.clone());
        let round = tokio::task::spawn_blocking(move || round(&app, &log, &file));
        match round.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "parked events were not copied"),
            Err(error) => tracing::error!(%error, "copying parked events panicked"),
        }
    }
}

fn round(app: &App, log: &KafkaLog, file: &Path) -> Result<(), String> {
    let projections = app.engine.status();
    if projections.iter().all(|projection| parked(projection) == 0) {
        return Ok(());
    }
    let mut progress = read(file)?;
    for projection in &projections {
        let Some(version) =
            projection.versions.iter().find(|v| projection.active.as_ref() == Some(&v.id))
        else {
            continue;
        };
        for shard in version.shards.iter().filter(|shard| shard.parked > 0) {
            let key = format!(
                "{}/{}.{:x}/{}",
                projection.name, version.id, version.created_us, shard.partition
            );
            loop {
                let from = progress.get(&key).map(|mark| hex::decode(mark).unwrap_or_default());
                let found = app
                    .engine
                    .parked_after(&projection.name, shard.partition, from.as_deref(), PAGE)
                    .map_err(|error| error.to_string())?;
                let Some((last, _)) = found.last() else { break };
                let mark = hex::encode(last);
                let letters: Vec<_> = found
                    .into_iter()
                    .map(|(_, record)| DeadLetter {
                        projection: projection.name.clone(),
                        version: version.id.clone(),
                        partition: lantern_core::PartitionId(shard.partition),
                        record,
                    })
                    .collect();
                log.copy(&letters)?;
                metrics::counter!("lantern_dead_letters_total").increment(letters.len() as u64);
                progress.insert(key.clone(), mark);
                write(file, &progress)?;
            }
        }
    }
    Ok(())
}

/// Retries the parked events that the dead-letter topic names: those that no call has
/// sent again before, or all of them with `whole`.
///
/// # Errors
/// Why the topic cannot be read, or why a retry failed. Events that were retried before
/// the error stay retried.
pub(crate) fn resend(app: &App, log: &KafkaLog, whole: bool) -> Result<ResendResult, Problem> {
    let mut resent = ResendResult::default();
    let counts = log.resend(whole, |letters| resend_page(app, letters, &mut resent))?;
    Ok(ResendResult { letters: counts.read, foreign: counts.foreign, ..resent })
}

fn resend_page(
    app: &App,
    letters: &[LetterName],
    resent: &mut ResendResult,
) -> Result<(), Problem> {
    let mut by_shard: BTreeMap<(&str, u32), BTreeSet<u64>> = BTreeMap::new();
    for letter in letters {
        let shard = (letter.projection.as_str(), letter.partition.0);
        by_shard.entry(shard).or_default().insert(letter.offset.0);
    }
    for ((projection, partition), offsets) in by_shard {
        let named = offsets.len() as u64;
        let offsets = offsets.into_iter().collect();
        let which = ParkedSelection { offsets, partition, ..ParkedSelection::default() };
        let outcome = match app.engine.retry(projection, None, &which) {
            Ok(outcome) => outcome,
            // Deleted in the meantime.
            Err(EngineError::NoProjection(_) | EngineError::NoVersion(..)) => {
                ParkedOutcome::default()
            }
            Err(error) => return Err(error.into()),
        };
        resent.applied += outcome.done;
        resent.failed += outcome.failed;
        resent.waiting += outcome.waiting;
        // Several parked timers may have the same offset.
        resent.gone += named.saturating_sub(outcome.selected);
    }
    Ok(())
}

fn parked(projection: &ProjectionStatus) -> u64 {
    projection.versions.iter().flat_map(|v| &v.shards).map(|shard| shard.parked).sum()
}

fn read(file: &Path) -> Result<CopyProgress, String> {
    match std::fs::read(file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| format!("`{}`: {e}", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(CopyProgress::new()),
        Err(error) => Err(format!("`{}`: {error}", file.display())),
    }
}

/// Writes a temporary file and renames it. If a power loss undoes the write, some
/// events are copied again.
fn write(file: &Path, progress: &CopyProgress) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("`{}`: {error}", file.display());
    let aside = file.with_extension("json.new");
    let bytes = serde_json::to_vec_pretty(progress).expect("maps of strings always encode");
    std::fs::write(&aside, bytes).map_err(failed)?;
    std::fs::rename(&aside, file).map_err(failed)
}
