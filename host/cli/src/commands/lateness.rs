//! What an import means for projections that live by event time: how many of
//! its events were late, and when their tables contain it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lantern_engine::{ProjectionStatus, VersionStatus};

use crate::api::{Answer, Api};
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// How often the server is asked for the state of its projections.
const POLL: Duration = Duration::from_secs(1);
/// The same, while a command waits for it to change.
const POLL_WAITING: Duration = Duration::from_millis(200);

/// Counts of late events from one moment on.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// Late events at the beginning, by projection and version.
    before: BTreeMap<(String, String), u64>,
}

impl Lateness {
    /// Begins to count at `now`.
    pub(super) fn begin(now: &[ProjectionStatus]) -> Self {
        let active = now.iter().filter_map(|p| Some((p, active(p)?)));
        let before = active.map(|(p, v)| ((p.name.clone(), v.id.clone()), v.late));
        Self { before: before.collect() }
    }

    /// Late events since the beginning, of projections that had some. A version
    /// that was not active at the beginning is not counted: it meets all of the
    /// log.
    pub(super) fn since(&self, now: &[ProjectionStatus]) -> BTreeMap<String, u64> {
        let active = now.iter().filter_map(|p| Some((p, active(p)?)));
        active
            .filter_map(|(p, v)| {
                let before = self.before.get(&(p.name.clone(), v.id.clone()))?;
                Some((p.name.clone(), v.late.saturating_sub(*before)))
            })
            .filter(|(_, late)| *late > 0)
            .collect()
    }

    /// Warns once for each projection, as soon as it has late events. Never ends.
    pub(super) async fn warn(&self, api: &Api, print: impl Fn(String)) {
        let mut warned = BTreeSet::new();
        loop {
            tokio::time::sleep(POLL).await;
            // If the server is away, the import itself reports it.
            let Ok(now) = api.projections().await else { continue };
            for (name, late) in self.since(&now) {
                if warned.insert(name.clone()) {
                    print(format!(
                        "warning: {} imported events are late for `{name}` so far: the log already \
                         contains events with later times (see `lantern events import --help`)",
                        output::count(late)
                    ));
                }
            }
        }
    }
}

fn active(projection: &ProjectionStatus) -> Option<&VersionStatus> {
    let id = projection.active.as_ref()?;
    projection.versions.iter().find(|version| version.id == *id)
}

/// Whether all active versions have applied the log up to `ends`, by partition.
pub(super) fn applied(now: &[ProjectionStatus], ends: &[u64]) -> bool {
    now.iter().filter_map(active).all(|version| behind(version, ends) == 0)
}

/// How many offsets before `ends` a version has not applied.
fn behind(version: &VersionStatus, ends: &[u64]) -> u64 {
    let end = |partition: u32| ends.get(partition as usize).copied().unwrap_or(0);
    version.shards.iter().map(|shard| end(shard.partition).saturating_sub(shard.next)).sum()
}

/// Where each partition of the log ends.
pub(super) async fn ends(api: &Api) -> Answer<Vec<u64>> {
    let partitions = api.status().await?.partitions;
    Ok(partitions.into_iter().map(|partition| partition.end.unwrap_or(0)).collect())
}

/// Waits until all active versions have applied the log up to `ends`; hands
/// back their last status.
pub(super) async fn wait(
    api: &Api,
    ends: &[u64],
    show: impl Fn(String),
) -> Outcome<Vec<ProjectionStatus>> {
    loop {
        let now = api.projections().await?;
        let mut left = Vec::new();
        for (projection, version) in now.iter().filter_map(|p| Some((p, active(p)?))) {
            let behind = behind(version, ends);
            if behind == 0 {
                continue;
            }
            let name = &projection.name;
            if projection.paused || version.activity == "halted" {
                let why = version.reason.clone().unwrap_or_else(|| "it is paused".into());
                let why = output::printable(&why);
                let message = format!(
                    "`{name}` does not go on, {} events are left: {why}",
                    output::count(behind)
                );
                return Err(Failure::new(Exit::Failure, message).help(format!(
                    "all events are in the log; `lantern plugin resume {name}` lets it go on"
                )));
            }
            left.push(format!(
                "{name}: {} events left, {}",
                output::count(behind),
                super::push::pace(version)
            ));
        }
        if left.is_empty() {
            return Ok(now);
        }
        show(left.join("; "));
        tokio::time::sleep(POLL_WAITING).await;
    }
}
