//! Reads the content of a topic with an independent consumer of committed records.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use lantern_tests::kafka::{self, Broker, Record};

use crate::ledger::{EventLocation, SOURCE};
use crate::reference_log::ObservedEvents;

/// The events of a topic, by partition and offset, including all that were ever seen in it.
pub(super) struct Topic {
    pub(super) name: String,
    events: BTreeMap<EventLocation, ObservedEvents>,
    places: HashMap<(String, String), EventLocation>,
}

impl Topic {
    /// Creates the topic on `broker`.
    pub(super) fn new(broker: &Broker, prefix: &str, partitions: u32) -> Result<Self> {
        let name = kafka::fresh_name(prefix);
        kafka::create_topic(broker, &name, partitions, &[])?;
        Ok(Self { name, events: BTreeMap::new(), places: HashMap::new() })
    }

    /// Reads the new records.
    ///
    /// # Errors
    /// Fails if a known event is missing or different, or an event occurs twice.
    pub(super) fn take(&mut self, broker: &Broker) -> Result<()> {
        let records = kafka::records(broker, &self.name, true)?;
        let mut known = 0;
        for record in &records {
            let location = (u32::try_from(record.partition)?, u64::try_from(record.offset)?);
            let seen = seen(record).with_context(|| format!("{}: {location:?}", self.name))?;
            if let Some(before) = self.events.get(&location) {
                ensure!(*before == seen, "{location:?} held {before:?} and holds {seen:?} now");
                known += 1;
                continue;
            }
            let name = (seen.source.clone(), seen.id.clone());
            if let Some(first) = self.places.insert(name, location) {
                let (source, id) = (&seen.source, &seen.id);
                bail!("`{id}` of `{source}` is at {first:?} and at {location:?}");
            }
            self.events.insert(location, seen);
        }
        let lost = self.events.len() - records.len().min(self.events.len());
        ensure!(lost == 0, "{lost} of {} events are gone, {known} are left", self.events.len());
        Ok(())
    }

    /// Partition and offset of each event that clients sent, by id. Includes events behind a
    /// transaction that is neither committed nor aborted.
    ///
    /// # Errors
    /// Fails if an event occurs twice.
    pub(super) fn clients_events(&self, broker: &Broker) -> Result<HashMap<String, EventLocation>> {
        let mut places = HashMap::new();
        for record in kafka::records(broker, &self.name, false)? {
            let seen = seen(&record)?;
            if seen.source != SOURCE {
                continue;
            }
            let location = (u32::try_from(record.partition)?, u64::try_from(record.offset)?);
            if let Some(first) = places.insert(seen.id.clone(), location) {
                bail!("`{}` is at {first:?} and at {location:?}", seen.id);
            }
        }
        Ok(places)
    }

    /// Finds the partition and offset of the event with this source and id.
    pub(super) fn location_of(&self, source: &str, id: &str) -> Option<EventLocation> {
        self.places.get(&(source.to_owned(), id.to_owned())).copied()
    }

    /// Returns all events with their partitions and offsets.
    pub(super) fn events(&self) -> impl Iterator<Item = (EventLocation, &ObservedEvents)> {
        self.events.iter().map(|(location, event)| (*location, event))
    }
}

/// Decodes a record in binary or structured mode of CloudEvents' Kafka binding.
fn seen(record: &Record) -> Result<ObservedEvents> {
    let value = record.value.as_deref().unwrap_or_default();
    let kind = record.header("content-type").unwrap_or_default();
    if kind.starts_with("application/cloudevents+json") {
        let event: serde_json::Value = serde_json::from_slice(value)?;
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let data = event["data"].to_string();
        let (source, id) = (text("source"), text("id"));
        return Ok(ObservedEvents {
            source,
            id,
            kind: text("type"),
            subject: text("subject"),
            data,
        });
    }
    let header = |name: &str| record.header(name).map(str::to_owned);
    Ok(ObservedEvents {
        source: header("ce_source").with_context(|| format!("no `ce_source`: {record:?}"))?,
        id: header("ce_id").with_context(|| format!("no `ce_id`: {record:?}"))?,
        kind: header("ce_type").with_context(|| format!("no `ce_type`: {record:?}"))?,
        subject: header("ce_subject").unwrap_or_default(),
        data: String::from_utf8_lossy(value).into_owned(),
    })
}
