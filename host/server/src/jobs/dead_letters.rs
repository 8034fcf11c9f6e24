//! Copies each parked event at least once to the log's dead letters. The progress is stored in a
//! file next to the state.
//!
//! On request, this job also reads the copies. It then retries the parked events that they name, in
//! the shards that parked them. A retry does not append the event to the log again, so other
//! readers of the log do not get the event twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lantern_api::ResendResult;
use lantern_core::{DeadLetter, DeadLetterName, DeadLetters, LogError, PartitionId};
use lantern_engine::{EngineError, ParkedOutcome, ParkedSelection, ProjectionStatus};
use thiserror::Error;

use super::{every, until};
use crate::app::App;
use crate::problem::Problem;

/// The interval between two passes.
const EVERY: Duration = Duration::from_secs(1);
/// The maximum number of events that are copied at once.
const PAGE: usize = 500;

/// For each shard, the key of the last parked event that was copied, in
/// hexadecimal digits.
type CopyProgress = BTreeMap<String, String>;

/// Why parked events were not copied.
#[derive(Debug, Error)]
enum CopyError {
    /// The parked events cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The copies could not be stored.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The file with the progress cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Progress {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}

/// Copies parked events until the server stops.
pub(super) async fn copy(app: Arc<App>, letters: Arc<dyn DeadLetters>, file: PathBuf) {
    let mut ticks = every(EVERY);
    while until(&app.tasks.stopping, ticks.tick()).await.is_some() {
        let (app, letters, file) = (Arc::clone(&app), Arc::clone(&letters), file.clone());
        let pass = tokio::task::spawn_blocking(move || copy_new(&app, &*letters, &file));
        match pass.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "parked events were not copied to the dead-letter topic")
            }
            Err(error) => tracing::error!(%error, "copying parked events panicked"),
        }
    }
}

/// Copies those parked events that were not copied before.
fn copy_new(app: &App, to: &dyn DeadLetters, file: &Path) -> Result<(), CopyError> {
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
                let found = app.engine.parked_after(
                    &projection.name,
                    shard.partition,
                    from.as_deref(),
                    PAGE,
                )?;
                let Some((last, _)) = found.last() else { break };
                let mark = hex::encode(last);
                let letters: Vec<_> = found
                    .into_iter()
                    .map(|(_, record)| DeadLetter {
                        projection: projection.name.clone(),
                        version: version.id.clone(),
                        partition: PartitionId(shard.partition),
                        record,
                    })
                    .collect();
                to.copy(&letters)?;
                metrics::counter!("lantern_dead_letters_total").increment(letters.len() as u64);
                progress.insert(key.clone(), mark);
                write(file, &progress)?;
            }
        }
    }
    Ok(())
}

/// Retries the parked events that dead letters name. These are the dead letters that no earlier
/// call has read, or all dead letters if `from_beginning` is set. The call blocks.
///
/// # Errors
/// Returns the reason if the dead letters cannot be read or a retry fails. Events that were retried
/// before the error stay retried.
pub(crate) fn resend(app: &App, from_beginning: bool) -> Result<ResendResult, Problem> {
    let Some(letters) = &app.log_services.dead_letters else {
        let from = if from_beginning { "the beginning" } else { "the last call's end" };
        let detail = format!("there is no dead-letter topic to read from {from}");
        return Err(Problem::new("LAN-0219", detail));
    };
    resend_from(app, &**letters, from_beginning)
}

fn resend_from(
    app: &App,
    letters: &dyn DeadLetters,
    from_beginning: bool,
) -> Result<ResendResult, Problem> {
    let (mut counts, mut failed) = (ResendResult::default(), None);
    let read = letters.read_copies(from_beginning, &mut |page| match resend_page(
        app,
        page,
        &mut counts,
    ) {
        Ok(()) => ControlFlow::Continue(()),
        Err(problem) => {
            failed = Some(problem);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(ResendResult { letters: read.read, foreign: read.foreign, ..counts }), Err)
}

fn resend_page(
    app: &App,
    letters: &[DeadLetterName],
    counts: &mut ResendResult,
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
            // The projection or version was deleted in the meantime.
            Err(EngineError::NoProjection(_) | EngineError::NoVersion(..)) => {
                ParkedOutcome::default()
            }
            Err(error) => return Err(error.into()),
        };
        counts.applied += outcome.done;
        counts.failed += outcome.failed;
        counts.waiting += outcome.waiting;
        // Several parked timers may have the same offset, so a retry may select more than the dead
        // letters name.
        counts.gone += named.saturating_sub(outcome.selected);
    }
    Ok(())
}

fn parked(projection: &ProjectionStatus) -> u64 {
    projection.versions.iter().flat_map(|v| &v.shards).map(|shard| shard.parked).sum()
}

fn read(file: &Path) -> Result<CopyProgress, CopyError> {
    let failed = |source| CopyError::Progress { path: file.to_path_buf(), source };
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(CopyProgress::new()),
        Err(error) => Err(failed(error)),
    }
}

/// Writes a temporary file and renames it. A power loss may undo this; then some events are copied
/// again.
fn write(file: &Path, progress: &CopyProgress) -> Result<(), CopyError> {
    let failed = |source| CopyError::Progress { path: file.to_path_buf(), source };
    let aside = file.with_extension("json.new");
    let bytes = serde_json::to_vec_pretty(progress).expect("maps of strings always encode");
    std::fs::write(&aside, bytes).map_err(failed)?;
    std::fs::rename(&aside, file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use lantern_core::fake::{MemoryDeadLetters, NativePlugin, host_error};
    use lantern_core::{ApplyError, Plugin, TableId};

    use super::*;
    use crate::tests::{Fixture, counts, event};

    const PARKED: &str = "/v1/projections/counts/parked";

    /// Returns the projection `counts`, changed so that it parks each event until its table has the
    /// row `needed`. The event with the subject `needed` writes this row.
    fn needy() -> Arc<dyn Plugin> {
        Arc::new(NativePlugin::<()>::new(counts().manifest().clone(), |batch, host, ()| {
            for index in 0..batch.events.len() {
                let cause = batch.cause_of_event(index);
                let subject = batch.events.subject(index);
                let needed = host.get(TableId(0), "needed").map_err(host_error)?;
                if subject != "needed" && needed.is_none() {
                    let message = "`needed` is missing".to_owned();
                    return Err(ApplyError::Failed { cause: Some(cause), message });
                }
                let row = serde_json::json!({ "subject": subject, "count": 1 });
                host.put(cause, TableId(0), subject, row.to_string().as_bytes())
                    .map_err(host_error)?;
            }
            Ok(())
        }))
    }

    /// Returns a server whose projection has parked the events `1` and `2`.
    async fn with_two_parked() -> Fixture {
        let fixture = Fixture::new();
        fixture.project(needy()).await;
        append(&fixture, &[event("1", "t", "a"), event("2", "t", "b")]).await;
        fixture.until(PARKED, |answer| answer.json()["total"] == 2).await;
        fixture
    }

    async fn append(fixture: &Fixture, events: &[String]) {
        let body = events.join("\n") + "\n";
        fixture.post("/v1/events", "application/x-ndjson", body).await.expect_ok();
    }

    fn ids(letters: &MemoryDeadLetters) -> Vec<String> {
        letters.copies().into_iter().map(|letter| letter.record.event.id).collect()
    }

    #[tokio::test]
    async fn each_parked_event_is_copied_once_and_again_if_the_progress_is_lost() {
        let fixture = with_two_parked().await;
        let (letters, dir) = (MemoryDeadLetters::default(), tempfile::tempdir().unwrap());
        let file = dir.path().join("letters.json");
        let copy = || copy_new(&fixture.app, &letters, &file);
        letters.fail_next_copy(LogError::Unavailable("no broker".into()));
        assert!(matches!(copy(), Err(CopyError::Log(LogError::Unavailable(_)))));
        assert_eq!((ids(&letters).len(), file.exists()), (0, false));
        for _ in 0..2 {
            copy().unwrap();
            assert_eq!(ids(&letters), ["1", "2"]);
        }
        let first = &letters.copies()[0];
        assert_eq!((first.projection.as_str(), first.partition), ("counts", PartitionId(0)));
        assert!(first.record.reason.contains("`needed` is missing"), "{}", first.record.reason);

        append(&fixture, &[event("3", "t", "c")]).await;
        fixture.until(PARKED, |answer| answer.json()["total"] == 3).await;
        copy().unwrap();
        assert_eq!(ids(&letters), ["1", "2", "3"]);
        std::fs::remove_file(&file).unwrap();
        copy().unwrap();
        assert_eq!(ids(&letters), ["1", "2", "3", "1", "2", "3"]);
        std::fs::write(&file, "half").unwrap();
        assert!(matches!(copy(), Err(CopyError::Progress { path, .. }) if path == file));
    }

    #[tokio::test]
    async fn letters_are_resent_to_the_shard_that_parked_their_events() {
        let fixture = with_two_parked().await;
        let (letters, dir) = (MemoryDeadLetters::default(), tempfile::tempdir().unwrap());
        copy_new(&fixture.app, &letters, &dir.path().join("letters.json")).unwrap();
        let resend = |from_beginning| resend_from(&fixture.app, &letters, from_beginning).unwrap();
        let expected = |letters, applied, failed, gone| ResendResult {
            letters,
            applied,
            failed,
            gone,
            ..ResendResult::default()
        };
        assert_eq!(resend(false), expected(2, 0, 2, 0));
        assert_eq!(resend(false), expected(0, 0, 0, 0), "each letter is read once");
        append(&fixture, &[event("3", "t", "needed")]).await;
        let path = "/v1/tables/counts/by_subject";
        fixture.until(path, |answer| answer.text.contains("needed")).await;
        assert_eq!(resend(true), expected(2, 2, 0, 0));
        assert_eq!(resend(true), expected(2, 0, 0, 2), "they are no longer parked");
        assert_eq!(fixture.get(PARKED).await.json()["total"], 0);
    }
}
