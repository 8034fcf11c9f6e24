//! Tests invariant 17 of `docs/proof.md`: an exported log is complete, including all events that
//! the host itself appended. If it is imported into a new folder, it gives the same states, entry
//! by entry.
//!
//! The experiment uses two real servers. In the first, heartbeats close windows, and the
//! projection emits events into the log. The second imports the exported log, and appends no
//! heartbeats of its own.

use std::fmt::Write as _;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use lantern_core::{Event, Timestamp};
use lantern_server::cloudevents::format_time;
use lantern_tests::{Launch, PATIENCE, Server, guest};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use crate::test_projection::SECOND;
use crate::{Claim, Counts, Run, reference_log, usage};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 17,
    name: "export",
    holds: "an exported log that is imported elsewhere gives the same states",
    counts: Counts { ci: 2, longer: 300, of: "logs" },
    experiment: |run| {
        logs(run, Flawed::default());
        Ok(())
    },
};

/// The number of partitions of each log.
const PARTITIONS: u32 = 2;
/// The age of the newest reading when it is sent. Only a heartbeat closes its window.
const AGE: i64 = 10 * SECOND;

/// The bug that is planted in the export.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flawed {
    /// Whether the exported log lacks the heartbeats.
    pub heartbeats_left_out: bool,
}

/// Exports and imports random logs.
pub fn logs(run: &mut Run<'_>, flawed: Flawed) {
    run.cases(|run, seed| {
        let entries = Runtime::new()?.block_on(one(seed, flawed))?;
        run.add("entries compared", entries as f64);
        Ok(())
    });
}

async fn one(seed: u64, flawed: Flawed) -> Result<u64> {
    let mut rng = Rng::with_seed(seed);
    let partitions = format!("log.partitions={PARTITIONS}");
    let quiet = [partitions.as_str(), "upkeep.heartbeats=false"];
    let mut first = Server::start_over(None, &[&partitions, "upkeep.idle_ms=50"])?;
    first.project(usage::GUEST, &guest(usage::GUEST), "").await?;
    let readings = lines(&mut rng)?;
    first.events(readings).await?;
    heartbeats(&first).await?;
    // From here on the server appends no heartbeats, so the log no longer grows.
    first.stop()?;
    let settings = quiet.map(str::to_owned).to_vec();
    first.restart_as(Launch { settings, ..first.launched().clone() })?;
    wait_until_idle(&first).await?;

    let export = export(&first, flawed).await?;
    let mut second = Server::start_over(None, &quiet)?;
    let file = NamedTempFile::with_suffix(".ndjson")?;
    std::fs::write(file.path(), &export)?;
    let path = file.path().to_str().context("a path that is not text")?;
    let import = ["events", "import", path, "--exact", "--server", &second.url];
    let output = lantern_tests::run(&import)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the import failed: {errors}");
    second.project(usage::GUEST, &guest(usage::GUEST), "").await?;
    wait_until_idle(&second).await?;
    let again = self::export(&second, Flawed::default()).await?;
    ensure!(again == export || flawed.heartbeats_left_out, "the second log is another");
    first.stop()?;
    second.stop()?;
    let records = reference_log::catalogue(first.folder())?;
    reference_log::compare(first.folder(), &records, second.folder(), PARTITIONS)
}

/// Generates readings of the last minute, as lines of JSON.
fn lines(rng: &mut Rng) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let end = i64::try_from(now.as_micros())? - AGE;
    let mut time = end - rng.i64(SECOND..60 * SECOND);
    let mut lines = String::new();
    let count = rng.u64(50..400);
    let step = (end - time) / i64::try_from(count)?;
    for number in 0..count {
        time += step;
        let event = usage::random(rng, number, time, 20);
        writeln!(lines, "{}", line(&event)?)?;
    }
    Ok(lines)
}

fn line(event: &Event) -> Result<String> {
    let Event { id, source, kind, subject, tenant, time, data, .. } = event;
    let (time, data) = (format_time(Timestamp(time.0)), std::str::from_utf8(data)?);
    let tenant = match tenant.as_str() {
        "" => String::new(),
        tenant => format!(r#","tenant":"{tenant}""#),
    };
    Ok(format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"{kind}","subject":"{subject}","time":"{time}"{tenant},"data":{data}}}"#
    ))
}

/// Waits until each partition has a heartbeat and all windows are closed.
async fn heartbeats(server: &Server) -> Result<()> {
    let started = std::time::Instant::now();
    loop {
        let mut without = 0;
        for partition in 0..PARTITIONS {
            let path = format!("/v1/events?types=lantern.heartbeat&partition={partition}&limit=10");
            let page = server.get(&path).await?;
            without += u32::from(page["events"].as_array().is_none_or(Vec::is_empty));
        }
        if without == 0 {
            return wait_until_idle(server).await;
        }
        if started.elapsed() > PATIENCE {
            bail!("no heartbeat came to {without} partitions");
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Waits until the projection has folded the log, and its emitted events are in the
/// log.
async fn wait_until_idle(server: &Server) -> Result<()> {
    let sent = |status: &serde_json::Value| {
        let shards = status["versions"][0]["shards"].as_array();
        let sent = shards.is_some_and(|shards| shards.iter().all(|shard| shard["unsent"] == 0));
        sent && lantern_tests::folded(status) && !status["active"].is_null()
    };
    server.until(usage::GUEST, sent).await?;
    Ok(())
}

/// Exports the whole log, one partition after the other.
async fn export(server: &Server, flawed: Flawed) -> Result<String> {
    let mut lines = String::new();
    for partition in 0..PARTITIONS {
        let url = format!("{}/v1/events?types=*&partition={partition}&limit=10000", server.url);
        let request = reqwest::Client::new().get(url).header("accept", "application/x-ndjson");
        lines += &request.send().await?.error_for_status()?.text().await?;
    }
    if flawed.heartbeats_left_out {
        let kept = lines.lines().filter(|line| !line.contains("lantern.heartbeat"));
        lines = kept.map(|line| format!("{line}\n")).collect();
    }
    Ok(lines)
}
