//! Determines the effect of an import on projections that use event time: how many of its events
//! were late, and from when on the tables contain its events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lantern_api::{ProjectionStatus, VersionStatus};

use crate::api::{Answer, Api};
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The interval at which the status of the projections is requested.
const POLL: Duration = Duration::from_secs(1);
/// The interval at which the status of the projections is requested while the command waits for a
/// change.
const POLL_WAITING: Duration = Duration::from_millis(200);

/// Counts the events that were late since the import began.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The number of late events when the import began, by projection and version.
    before: BTreeMap<(String, String), u64>,
}

impl Lateness {
    /// Begins to count. `now` is the status of the projections when the import begins.
    pub(super) fn begin(now: &[ProjectionStatus]) -> Self {
        let active = now.iter().filter_map(|p| Some((p, active(p)?)));
        let before = active.map(|(p, v)| ((p.name.clone(), v.id.clone()), v.late));
        Self { before: before.collect() }
    }

    /// Returns the number of late events since the import began, for each projection that had some.
    /// A version that became active since then is left out: it folds the whole log, so its late
    /// events need not be from the import.
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

    /// Prints a warning for each projection as soon as it has late events. It never ends.
    pub(super) async fn warn(&self, api: &Api, print: impl Fn(String)) {
        let mut warned = BTreeSet::new();
        loop {
            tokio::time::sleep(POLL).await;
            // If the server cannot be reached, the import itself reports this.
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

/// Returns whether the tables of all active versions contain the log up to `ends`, by partition.
pub(super) fn applied(now: &[ProjectionStatus], ends: &[u64]) -> bool {
    now.iter().filter_map(active).all(|version| behind(version, ends) == 0)
}

/// Returns how many offsets before `ends` the tables of a version do not contain.
fn behind(version: &VersionStatus, ends: &[u64]) -> u64 {
    let behind = version.shards.iter().map(|shard| {
        let end = ends.get(shard.partition as usize).copied().unwrap_or(0);
        // If the version does not subscribe to events, it skips them without a commit.
        let at_rest = shard.next >= end && shard.activity == "idle";
        if at_rest { 0 } else { end.saturating_sub(shard.durable) }
    });
    behind.sum()
}

/// Returns the end of each partition of the log.
pub(super) async fn ends(api: &Api) -> Answer<Vec<u64>> {
    let partitions = api.status().await?.partitions;
    Ok(partitions.into_iter().map(|partition| partition.end.unwrap_or(0)).collect())
}

/// Waits until the tables of all active versions contain the log up to `ends`. Then it returns the
/// status of the projections.
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
                    "projection `{name}` has stopped with {} events to apply: {why}",
                    output::count(behind)
                );
                return Err(Failure::new(Exit::Failure, message).help(format!(
                    "all events are in the log; correct the cause, then continue with `lantern plugin resume {name}`"
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

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_api::ShardStatus;

    fn projection(late: u64, shards: &[(u64, u64, &str)]) -> ProjectionStatus {
        let shards: Vec<_> = (0..)
            .zip(shards)
            .map(|(partition, (next, durable, activity))| ShardStatus {
                partition,
                next: *next,
                durable: *durable,
                activity: (*activity).into(),
                ..ShardStatus::default()
            })
            .collect();
        let version = serde_json::json!({
            "id": "v1", "sha256": "", "parameters": "", "plugin_version": "", "description": "",
            "state": "active", "activity": "running", "reason": null, "created_us": 0,
            "percent": 100.0, "events_per_s": 0.0, "eta_s": null, "late": late, "tables": [],
            "subscribes": [], "shards": shards, "emitted_per_s": 0.0,
        });
        serde_json::from_value(serde_json::json!({
            "name": "p", "paused": false, "active": "v1", "previous": null, "epoch": "",
            "versions": [version],
        }))
        .expect("a status as the server answers it")
    }

    #[test]
    fn late_events_are_counted_from_the_beginning_of_the_import() {
        let lateness = Lateness::begin(&[projection(7, &[])]);
        assert!(lateness.since(&[projection(7, &[])]).is_empty());
        let since = lateness.since(&[projection(10, &[])]);
        assert_eq!(since.get("p"), Some(&3));
        // After a rebuild the numbers begin at 0 again.
        assert!(lateness.since(&[projection(2, &[])]).is_empty());
    }

    #[test]
    fn tables_contain_the_log_once_it_is_durable_or_nothing_is_left_to_commit() {
        for (shards, contains) in [
            (&[(10, 10, "running")][..], true),
            (&[(10, 4, "running")], false),
            (&[(10, 4, "idle")], true),
            (&[(9, 9, "idle")], false),
            (&[(10, 10, "idle"), (3, 3, "running")], false),
            (&[(12, 11, "running"), (5, 5, "idle")], true),
        ] {
            assert_eq!(applied(&[projection(0, shards)], &[10, 5]), contains, "{shards:?}");
        }
    }
}
