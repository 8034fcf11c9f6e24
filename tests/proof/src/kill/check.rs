//! Implements the checks that follow a crash.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::phases::{ALERTS, FLIP, PARKING};
use super::{World, eventually, same};
use crate::ledger;
use crate::reference_log::{self, ObservedEvents};

/// How many of the log's last events are read over the API after each restart.
const TAIL: u64 = 50;

impl World {
    /// Checks everything after a restart.
    pub(super) async fn check(&mut self) -> Result<(u64, u64)> {
        self.check_tail().await?;
        self.check_answers().await?;
        let nothing = Vec::new();
        for name in [FLIP, ALERTS, PARKING[0], PARKING[1]] {
            let path = format!("/v1/projections/{name}/resume");
            let (status, answer) = self
                .server
                .request(Method::POST, &path, "application/json", nothing.clone())
                .await?;
            ensure!(status == 200, "{path}: {status}: {answer}");
        }
        let status = reference_log::settled(&self.server).await?;
        let ready = |status: &Value| {
            let versions = status["versions"].as_array();
            versions.is_some_and(|all| all.iter().all(|v| v["state"] != "backfilling"))
        };
        for projection in status["projections"].as_array().into_iter().flatten() {
            self.server.until(projection["name"].as_str().unwrap_or_default(), ready).await?;
        }
        self.check_counts().await?;
        self.feeds.check(&self.server).await
    }

    /// Checks that the API returns the log that is in the file.
    async fn check_tail(&self) -> Result<()> {
        let end = self.mirror.end();
        let status = self.server.get("/v1/status").await?;
        let shown = &status["partitions"][0];
        ensure!(shown["end"].as_u64() >= Some(end), "the log had {end} events: {shown}");
        let from = end.saturating_sub(TAIL).max(shown["start"].as_u64().unwrap_or(0));
        for (offset, event) in self.log_from(from).await? {
            let Some(known) = self.mirror.events().get(usize::try_from(offset)?) else {
                break;
            };
            // The API encodes JSON again, so the payloads can differ and are not compared.
            let same = (&event.source, &event.id) == (&known.source, &known.id);
            ensure!(
                same && event.subject == known.subject,
                "offset {offset} is shown as {event:?}, and is {known:?}"
            );
        }
        Ok(())
    }

    async fn log_from(&self, mut from: u64) -> Result<Vec<(u64, ObservedEvents)>> {
        let mut events = Vec::new();
        loop {
            let page = self.server.get(&format!("/v1/events?from={from}&limit=10000")).await?;
            for logged in page["events"].as_array().context("`events` is no list")? {
                let text = |name: &str| logged["event"][name].as_str().unwrap_or("").to_owned();
                let data = logged["event"]["data"].to_string();
                let offset = logged["offset"].as_u64().context("an offset")?;
                let (source, id) = (text("source"), text("id"));
                let (kind, subject) = (text("type"), text("subject"));
                events.push((offset, ObservedEvents { source, id, kind, subject, data }));
            }
            if page["next"] == page["end"] {
                return Ok(events);
            }
            from = page["next"].as_u64().context("`next` is no offset")?;
        }
    }

    /// Checks that the server has carried out every change that it answered, and no other changes
    /// except those whose request was pending.
    async fn check_answers(&self) -> Result<()> {
        self.judge_dropping().await?;
        let (active, uploaded, dropped) = {
            let known = self.known.lock();
            (known.active.clone(), known.uploaded.clone(), known.dropped.clone())
        };
        let all = self.server.get("/v1/projections").await?;
        let all = all["projections"].as_array().context("`projections` is no list")?;
        let there: BTreeSet<_> = all
            .iter()
            .flat_map(|projection| {
                let versions = projection["versions"].as_array().into_iter().flatten();
                versions.map(|v| (text(&projection["name"]), text(&v["id"])))
            })
            .collect();
        let lost: Vec<_> = uploaded.difference(&there).collect();
        ensure!(lost.is_empty(), "uploads that were answered are gone: {lost:?}");
        let flip = all.iter().find(|p| p["name"] == FLIP).context("`flip` is gone")?;
        let now = text(&flip["active"]);
        ensure!(
            active.is_empty() || active.contains(&now),
            "`{now}` is active, and only {active:?} may be"
        );
        for (name, offsets) in dropped {
            let parked = self.parked(&name).await?;
            let back = offsets.iter().find(|offset| parked.contains(offset));
            ensure!(back.is_none(), "`{name}` has {back:?} again, which was dropped");
        }
        Ok(())
    }

    /// Finds out whether a drop without an answer was carried out. This check comes first, because
    /// a later retry may apply an event that was not dropped.
    async fn judge_dropping(&self) -> Result<()> {
        let under_way = self.known.lock().dropping.take();
        if let Some((name, offset)) = under_way
            && !self.parked(&name).await?.contains(&offset)
        {
            self.known.lock().dropped.entry(name).or_default().push(offset);
        }
        Ok(())
    }

    /// Returns the offsets of a projection's parked events.
    async fn parked(&self, name: &str) -> Result<BTreeSet<u64>> {
        let mut offsets = BTreeSet::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/projections/{name}/parked?limit=1000{cursor}");
            let page = self.server.get(&path).await?;
            for parked in page["parked"].as_array().context("`parked` is no list")? {
                offsets.insert(parked["offset"].as_u64().context("an offset")?);
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(offsets),
            }
        }
    }

    /// Checks that the tables count each probe once. A separate computation gives the expected
    /// counts.
    async fn check_counts(&self) -> Result<()> {
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        let probes = self.mirror.events().iter().filter(|event| event.kind == "probe.sent");
        probes.for_each(|probe| *expected.entry(&probe.subject).or_default() += 1);
        let rows = self.server.rows("flip/seen").await?;
        let found: BTreeMap<&str, u64> = rows
            .iter()
            .map(|(key, row)| (key.as_str(), row["events"].as_u64().unwrap_or(0)))
            .collect();
        ensure!(found == expected, "`flip` counts {found:?}, and the log holds {expected:?}");
        Ok(())
    }

    /// Compares all states with a clean fold. Returns how many entries were compared.
    pub(super) async fn compare(&mut self) -> Result<u64> {
        self.server.stop()?;
        self.server.restart()?;
        ledger::settle(&self.server, &self.ledger).await?;
        reference_log::settled(&self.server).await?;
        self.retry_parked().await?;
        reference_log::settled(&self.server).await?;
        eventually("derived events", async || self.derived().await).await?;
        reference_log::settled(&self.server).await?;
        self.server.stop()?;
        self.mirror.take(&self.data())?;
        self.ledger.lock().check(&self.mirror)?;
        let dropped = self.known.lock().dropped.clone();
        let settings = super::with(&self.settings, &[super::NO_HEARTBEATS]);
        let compared = self.mirror.compare_clean_fold(&self.data(), &settings, &dropped).await?;
        self.server.restart()?;
        self.check_counts().await?;
        let acknowledged = self.ledger.lock().acknowledged() as u64;
        let sent = self.mirror.events().iter().filter(|e| e.source == ledger::SOURCE);
        let needed = u64::from(self.mirror.offset(ledger::SOURCE, "needed").is_some());
        same("events of clients in the log", sent.count() as u64, acknowledged + needed)?;
        Ok(compared)
    }

    /// Retries all parked events.
    async fn retry_parked(&self) -> Result<()> {
        for name in PARKING {
            let active = self.active(name).await?;
            reference_log::parked(&self.server, name, &active, "retry", &json!({ "all": true }))
                .await?;
        }
        Ok(())
    }

    async fn active(&self, name: &str) -> Result<String> {
        Ok(text(&self.server.get(&format!("/v1/projections/{name}")).await?["active"]))
    }

    /// Checks the events that plugins emitted. If a probe requests an echo, there must be one echo
    /// from each projection that applied the probe. For each row of an alert there must be one
    /// event. Returns a description of what is still missing.
    async fn derived(&self) -> Result<Option<String>> {
        let mut all: Vec<ObservedEvents> = self.mirror.events().to_vec();
        all.extend(self.log_from(self.mirror.end()).await?.into_iter().map(|(_, event)| event));
        let asking: BTreeSet<u64> = (0..)
            .zip(&all)
            .filter(|(_, e)| e.kind == "probe.sent" && e.data.contains("emit"))
            .map(|(offset, _)| offset)
            .collect();
        for name in [FLIP, PARKING[0], PARKING[1]] {
            let source = format!("lantern/{name}");
            let mut caused = BTreeSet::new();
            for echo in all.iter().filter(|event| event.source == source) {
                let cause = cause(&echo.id)?;
                ensure!(caused.insert(cause), "`{name}` echoes offset {cause} twice: {}", echo.id);
            }
            let strange = caused.difference(&asking).next();
            ensure!(strange.is_none(), "`{name}` echoes offset {strange:?}, which asks for none");
            let mut expected = asking.clone();
            for offset in self.parked(name).await? {
                expected.remove(&offset);
            }
            for offset in self.known.lock().dropped.get(name).into_iter().flatten() {
                expected.remove(offset);
            }
            let missing: Vec<_> = expected.difference(&caused).collect();
            if !missing.is_empty() {
                return Ok(Some(format!("`{name}` has no echo of {missing:?}")));
            }
        }
        let alerts = all.iter().filter(|e| e.source == format!("lantern/{ALERTS}")).count();
        let rows = self.server.rows("alerts/alerts").await?.len();
        if alerts > rows {
            bail!("{alerts} alerts were raised, and the table has {rows}");
        }
        Ok((alerts < rows).then(|| format!("{alerts} of {rows} alerts are in the log")))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Extracts, from the id of a derived event, the offset of the event that caused it.
fn cause(id: &str) -> Result<u64> {
    let part = id.rsplit('/').nth(1).with_context(|| format!("`{id}` names no cause"))?;
    Ok(part.parse()?)
}
