//! Runs verifications in parallel with all other work, limits their speed as the settings require,
//! and reports their results.

use std::sync::Arc;
use std::time::Duration;

use lantern_core::VersionId;
use lantern_engine::{EngineError, ProjectionStatus, Verdict, Verification, VerifyStatus};
use tokio::task::JoinHandle;

use super::throttle::Throttle;
use crate::app::App;
use crate::problem::Problem;

/// How long the schedule waits for a verification that a person has started.
const BUSY_WAIT: Duration = Duration::from_secs(60);

/// Starts a verification, and returns its status.
pub(crate) async fn begin(
    app: &Arc<App>,
    name: &str,
    version: Option<VersionId>,
) -> Result<VerifyStatus, Problem> {
    let (engine, name) = (Arc::clone(&app.engine), name.to_owned());
    let begun = move |_: &App| Ok(engine.verify(&name, version.as_ref())?);
    let verification = app.blocking(begun).await?;
    let status = verification.status().clone();
    drop(spawn(app, verification));
    Ok(status)
}

/// Verifies every active version, one after another, at the configured intervals until the server
/// stops.
pub(crate) async fn at_times(app: Arc<App>) {
    let every = Duration::from_secs(app.config.verify.every_hours.saturating_mul(3_600));
    while wait(&app, every).await {
        let (engine, stopping) = (Arc::clone(&app.engine), app.tasks.stopping.clone());
        let listed = tokio::task::spawn_blocking(move || engine.status()).await;
        let active = listed.unwrap_or_default().into_iter().filter(|p| p.active.is_some());
        for projection in active {
            if let Some(took) = takes_too_long(&projection, every) {
                tracing::info!(
                    projection = projection.name,
                    ?took,
                    "a projection is not verified on schedule: the last run took more than a tenth of `verify.every_hours`"
                );
                continue;
            }
            loop {
                let (engine, name) = (Arc::clone(&app.engine), projection.name.clone());
                let begun = tokio::task::spawn_blocking(move || engine.verify(&name, None)).await;
                match begun {
                    Ok(Ok(verification)) => {
                        if spawn(&app, verification).await.is_err() {
                            tracing::error!(projection = projection.name, "verifying panicked");
                        }
                        break;
                    }
                    Ok(Err(EngineError::Verifying)) if wait(&app, BUSY_WAIT).await => {}
                    // The projection was deleted in the meantime, or the server stops.
                    _ => break,
                }
            }
            if stopping.is_cancelled() {
                return;
            }
        }
    }
}

/// Returns how long the last verification took, if it is too long for one verification in each
/// interval `every`; otherwise `None`.
fn takes_too_long(projection: &ProjectionStatus, every: Duration) -> Option<Duration> {
    let last = projection.verified.as_ref()?;
    let took = Duration::from_millis(last.took_ms);
    (took > every / 10).then_some(took)
}

/// Waits for `time`. Returns `false` if the server begins to stop before that.
async fn wait(app: &App, time: Duration) -> bool {
    tokio::time::timeout(time, app.tasks.stopping.cancelled()).await.is_err()
}

fn spawn(app: &Arc<App>, verification: Verification) -> JoinHandle<()> {
    let own = Arc::clone(app);
    app.tasks.verifications.spawn_blocking(move || run(&own, verification))
}

fn run(app: &App, verification: Verification) {
    let projection = verification.projection().to_owned();
    tracing::info!(
        projection,
        version = verification.status().version,
        "a verification has started"
    );
    let mut throttle = Throttle::new(app.config.verify.thread_percent);
    let mut counted = 0;
    let status = verification.run(&mut |status| {
        metrics::counter!("lantern_verify_events_total", "projection" => projection.clone())
            .increment(status.events - counted);
        counted = status.events;
        throttle.pause(&app.tasks.stopping);
        !app.tasks.stopping.is_cancelled()
    });
    log_result(&projection, &status);
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn log_result(projection: &str, status: &VerifyStatus) {
    let VerifyStatus { version, events, took_ms, differences, .. } = status;
    let reason = status.reason.as_deref().unwrap_or_default();
    match status.verdict {
        Verdict::Same => tracing::info!(
            projection,
            version,
            events,
            took_ms,
            "a verification has ended: the tables agree with the log"
        ),
        Verdict::Differs => {
            let first = status.partitions.iter().find_map(|shard| {
                let first = shard.first.as_ref()?;
                Some(format!(
                    "partition {}, table `{}`, key `{}`: the log gives {}, the state has {}",
                    shard.partition,
                    first.table,
                    first.key,
                    first.expected.as_deref().unwrap_or("no row"),
                    first.found.as_deref().unwrap_or("no row")
                ))
            });
            let first = first.unwrap_or_else(|| reason.to_owned());
            tracing::error!(
                projection,
                version,
                differences,
                first,
                code = "LAN-0217",
                "the tables differ from the log"
            );
        }
        // This is not logged as a warning, because it may be an effect of the settings: for
        // instance, retention has deleted the beginning of the log.
        Verdict::Unverifiable => {
            tracing::info!(projection, version, reason, "a projection cannot be verified")
        }
        verdict => tracing::warn!(
            projection,
            version,
            ?verdict,
            reason,
            "a verification has ended without a result"
        ),
    }
    let name = projection.to_owned();
    let verdict = format!("{:?}", status.verdict).to_lowercase();
    metrics::counter!(
        "lantern_verify_runs_total", "projection" => name.clone(), "verdict" => verdict
    )
    .increment(1);
    metrics::counter!("lantern_verify_differences_total", "projection" => name.clone())
        .increment((*differences).max(u64::from(status.verdict == Verdict::Differs)));
    let gauge = |metric: &'static str, value: f64| {
        metrics::gauge!(metric, "projection" => name.clone()).set(value);
    };
    let ended_us = status.started_us as f64 + *took_ms as f64 * 1e3;
    gauge("lantern_verify_last_run_seconds", ended_us / 1e6);
    gauge("lantern_verify_last_took_seconds", *took_ms as f64 / 1e3);
    gauge("lantern_verify_last_events", *events as f64);
    // Without a verdict, the previous one is kept.
    if matches!(status.verdict, Verdict::Same | Verdict::Differs) {
        gauge("lantern_verify_last_same", f64::from(u8::from(status.verdict == Verdict::Same)));
    }
}
