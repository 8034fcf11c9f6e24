//! Implements the checks that follow each kill.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lantern_tests::{Launch, PATIENCE, Server};
use serde_json::{Value, json};

use super::{ALERTS, COUNTS, GROUP, PARKING, PARTITIONS, World, eventually};
use crate::ledger::{EventLocation, SOURCE};
use crate::reference_log::{self, ObservedEvents};

impl World {
    /// Checks everything after a kill. Returns how many derived events were found.
    pub(super) async fn check(&mut self) -> Result<u64> {
        // The first check runs immediately after the crash. It also reads uncommitted records. A
        // reader of committed records would not see the records behind a transaction that the crash
        // left open, although these records are not lost.
        let all = self.events.clients_events(&self.broker.lock())?;
        self.ledger.lock().check_locations(|id| all.get(id).copied())?;
        self.settled(&self.server).await?;
        self.check_counts().await?;
        let found = self.check_derived().await?;
        // The second check uses the reader of committed records.
        let events = &self.events;
        self.ledger.lock().check_locations(|id| events.location_of(SOURCE, id))?;
        Ok(found)
    }

    /// Reads the new records of the topics.
    fn take(&mut self) -> Result<()> {
        let broker = self.broker.lock();
        self.events.take(&broker)?;
        self.derived.as_mut().map_or(Ok(()), |derived| derived.take(&broker))
    }

    /// Waits until every version of every projection has folded all of the log.
    async fn settled(&self, server: &Server) -> Result<()> {
        eventually("the fold", async || {
            let all = server.get("/v1/projections").await?;
            let all = all["projections"].as_array().context("`projections` is no list")?;
            let versions = all.iter().flat_map(|p| p["versions"].as_array()).flatten();
            for version in versions {
                let shards = version["shards"].as_array().context("`shards` is no list")?;
                ensure!(shards.len() == PARTITIONS as usize, "not a shard a partition: {version}");
                if let Some(halted) = shards.iter().find(|s| s["activity"] == "halted") {
                    bail!("a shard is halted: {halted:#}");
                }
                let done = |s: &&Value| s["activity"] != "idle" || s["lag_events"] != 0;
                if let Some(behind) = shards.iter().find(done) {
                    return Ok(Some(behind.to_string()));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Checks that the tables count each probe once. A separate computation gives the expected
    /// counts.
    async fn check_counts(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            // The topic may have received refused events later, so it is read again.
            self.take()?;
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            let probes = self.events.events().filter(|(_, event)| event.kind == "probe.sent");
            probes.for_each(|(_, e)| *expected.entry(e.subject.clone()).or_default() += 1);
            let rows = self.server.rows(&format!("{COUNTS}/seen")).await?;
            let count = |row: &Value| row["events"].as_u64().unwrap_or(0);
            let found: BTreeMap<_, _> = rows.into_iter().map(|(k, row)| (k, count(&row))).collect();
            if found == expected {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE / 8,
                "`{COUNTS}` has {found:?}, and the topic {expected:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Checks the events that plugins emitted, and returns the number of echoes and alerts. If a
    /// probe requests an echo, there must be one echo from each projection that applied the probe.
    /// For each row of an alert there must be one event.
    async fn check_derived(&mut self) -> Result<u64> {
        let started = Instant::now();
        loop {
            // This read fails if a topic contains two events with the same source and id.
            self.take()?;
            match self.derived().await? {
                Ok(found) => return Ok(found),
                Err(missing) => ensure!(started.elapsed() < PATIENCE, "{missing}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the number of emitted events, or a description of those that are still missing.
    async fn derived(&self) -> Result<Result<u64, String>> {
        let topic = self.derived.as_ref().unwrap_or(&self.events);
        let of = |name: &str| {
            let source = format!("lantern/{name}");
            topic
                .events()
                .map(|(_, e)| e)
                .filter(move |e| e.source == source)
                .collect::<Vec<&ObservedEvents>>()
        };
        let asking = self.events.events().filter(|(_, e)| {
            e.kind == "probe.sent" && e.source == SOURCE && e.data.contains("emit")
        });
        let asking: BTreeSet<EventLocation> = asking.map(|(location, _)| location).collect();
        let mut found = 0;
        for name in [COUNTS, PARKING] {
            let mut caused = BTreeSet::new();
            for echo in of(name) {
                let cause = cause(&echo.id)?;
                ensure!(caused.insert(cause), "`{name}` echoes {cause:?} twice: {}", echo.id);
            }
            if let Some(strange) = caused.difference(&asking).next() {
                bail!("`{name}` echoes {strange:?}, which asks for none");
            }
            let missing: Vec<_> = asking.difference(&caused).collect();
            if !missing.is_empty() {
                return Ok(Err(format!("`{name}` has no echo of {missing:?}")));
            }
            found += caused.len() as u64;
        }
        let alerts = of(ALERTS).len() as u64;
        let raised = self.raised().await?;
        ensure!(alerts <= raised, "{alerts} alerts in the topic, and {raised} were raised");
        if alerts < raised {
            return Ok(Err(format!("{alerts} of {raised} alerts are in the topic")));
        }
        Ok(Ok(found + alerts))
    }

    /// Returns how many events the shards of [`ALERTS`] have emitted on all partitions.
    async fn raised(&self) -> Result<u64> {
        let status = self.server.get(&format!("/v1/projections/{ALERTS}")).await?;
        let shards = status["versions"][0]["shards"].as_array().context("`shards` is no list")?;
        Ok(shards.iter().filter_map(|shard| shard["emitted"].as_u64()).sum())
    }

    /// Compares all states with a clean fold. Returns how many entries were compared.
    pub(super) async fn compare(&mut self) -> Result<u64> {
        self.server.stop()?;
        let (data, records) = (self.data(), reference_log::catalogue(&self.data())?);
        let home = tempfile::tempdir()?;
        let folder = home.path().join("clean");
        let launched = self.server.launched().clone();
        let mut settings = launched.settings.clone();
        settings.push(format!("{GROUP}=clean-{}", self.events.name));
        let mut clean = Server::launch(Launch {
            folder: folder.clone(),
            address: "127.0.0.1:0".into(),
            settings,
            ..launched
        })?;
        reference_log::push_versions(&clean, &data, &records).await?;
        self.settled(&clean).await?;
        self.server.restart()?;
        // After all parked events that can succeed are retried on both servers, the states
        // must be equal.
        for server in [&self.server, &clean] {
            self.settled(server).await?;
            for (record, version) in reference_log::versions(&records) {
                let all = json!({ "all": true });
                reference_log::parked(server, &record.name, &version.id.0, "retry", &all).await?;
            }
            self.settled(server).await?;
        }
        clean.stop()?;
        self.server.stop()?;
        let compared = reference_log::compare(&data, &records, &folder, PARTITIONS)?;
        self.server.restart()?;
        Ok(compared)
    }
}

/// Extracts, from the id of a derived event, the partition and offset of the event that caused it.
fn cause(id: &str) -> Result<EventLocation> {
    let mut parts = id.rsplit('/').skip(1);
    let mut part = || parts.next().with_context(|| format!("`{id}` names no cause"));
    let (offset, partition) = (part()?.parse()?, part()?.parse()?);
    Ok((partition, offset))
}
