//! What each version of each projection has done with an event.

use lantern_core::{
    DecisionRecord, HEARTBEAT_TYPE, Manifest, Offset, ParkedKind, PartitionId, ReadStore,
    ShardMeta, Space, StoreError, UNREADABLE_TYPE,
};

use crate::batching::claimed_type;
use crate::event_lookup::event_at;
use crate::parked_events::parked_event;
use crate::registry::VersionBuild;
use crate::status_queries::state_name;
use crate::{Engine, EngineError, ExplainedEvent, ParkedSelection};

/// An event and what was done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventPath {
    /// The event.
    pub event: ExplainedEvent,
    /// One entry for each version of each projection, by projection.
    pub versions: Vec<EventStep>,
}

/// What one version has done with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStep {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The stage of the version's life: `backfilling`, `ready`, `active` or `retired`.
    pub state: &'static str,
    /// The version's next offset in the event's partition, as its readers see it.
    pub next: u64,
    /// What the version has done with the event.
    pub outcome: EventOutcome,
}

/// What a version has done with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// The version has not reached the event yet.
    Pending,
    /// The version does not receive the event; the text is the reason.
    Skipped(String),
    /// The version has applied the event.
    Applied,
    /// The version has parked the event.
    Parked {
        /// Whether the event waits behind a parked event of its subject.
        waits: bool,
        /// Why the event could not be applied.
        reason: String,
        /// How many times the plugin was called with the event.
        attempts: u32,
    },
    /// The version has either applied the event, or has parked it and dropped it later. A drop of
    /// parked events has selected this event, and nothing shows whether it was parked.
    AppliedOrDropped {
        /// The next offset at the drop.
        at: Offset,
    },
    /// The version's state cannot be read; the text is the reason.
    Unreadable(String),
}

impl Engine {
    /// What each version has done with the event at `offset`; `None` if the log has no
    /// event at this offset.
    ///
    /// # Errors
    /// An error of the log or of a store.
    pub fn event_path(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<EventPath>, EngineError> {
        let Some((event, appended)) = event_at(&*self.ports.log, partition, offset)? else {
            return Ok(None);
        };
        let event = ExplainedEvent { event, appended };
        let builds: Vec<_> = {
            let projections = self.registry.read();
            let all = projections.values();
            let builds = all.flat_map(|projection| {
                let versions = projection.record.versions.iter();
                versions.filter_map(move |version| {
                    let build = projection.builds.get(&version.id)?.clone();
                    Some((projection.record.name.clone(), version.state, build))
                })
            });
            builds.collect()
        };
        let mut versions = Vec::with_capacity(builds.len());
        for (projection, state, build) in builds {
            let version = build.version.id.0.clone();
            let (next, outcome) = outcome(&build, partition, offset, &event)?;
            let state = state_name(state);
            versions.push(EventStep { projection, version, state, next, outcome });
        }
        Ok(Some(EventPath { event, versions }))
    }
}

fn outcome(
    build: &VersionBuild,
    partition: PartitionId,
    offset: Offset,
    event: &ExplainedEvent,
) -> Result<(u64, EventOutcome), StoreError> {
    let Some(handle) = build.handles.get(partition.0 as usize) else {
        return Ok((0, EventOutcome::Unreadable("it has no such partition".into())));
    };
    let Some(store) = &handle.store else {
        return Ok((0, EventOutcome::Unreadable(handle.halt_reason())));
    };
    let meta = ShardMeta::of(&**store)?;
    let outcome = match skipped(&build.manifest, event) {
        Some(reason) => EventOutcome::Skipped(reason),
        None if offset >= meta.next => EventOutcome::Pending,
        None => folded(&**store, &meta, partition, offset, event)?,
    };
    Ok((meta.next.0, outcome))
}

/// Why a version does not receive an event; `None` if it receives it.
fn skipped(manifest: &Manifest, event: &ExplainedEvent) -> Option<String> {
    let kind = event.event.kind.as_str();
    match kind {
        HEARTBEAT_TYPE if manifest.event_time.is_some() => {
            Some("a heartbeat only moves the watermark".into())
        }
        UNREADABLE_TYPE => {
            let claimed = claimed_type(&event.event.extensions)?;
            let wanted = manifest.filter().matches(&claimed);
            (!wanted).then(|| format!("the version does not subscribe to `{claimed}`"))
        }
        _ if manifest.filter().matches(kind) => None,
        _ => Some(format!("the version does not subscribe to `{kind}`")),
    }
}

/// What a version has done with an event before its next offset.
fn folded(
    store: &dyn ReadStore,
    meta: &ShardMeta,
    partition: PartitionId,
    offset: Offset,
    event: &ExplainedEvent,
) -> Result<EventOutcome, StoreError> {
    if let Some(record) = parked_event(store, offset)? {
        return Ok(EventOutcome::Parked {
            waits: record.kind == ParkedKind::Waiting,
            reason: record.reason,
            attempts: record.attempts,
        });
    }
    // The newest decisions come last, and their offsets never fall.
    for number in (0..meta.decisions.min(DecisionRecord::KEPT_MAX)).rev() {
        let Some(bytes) = store.get(Space::Meta, &DecisionRecord::key(number))? else { continue };
        let decision = DecisionRecord::decode(&bytes)
            .ok_or_else(|| StoreError::Damaged("a record of a decision".into()))?;
        if decision.next <= offset {
            break;
        }
        let selection = ParkedSelection::of(&decision, partition);
        let (tenant, subject) = (&event.event.tenant, &event.event.subject);
        if !decision.retry && selection.names(offset, tenant, subject) {
            return Ok(EventOutcome::AppliedOrDropped { at: decision.next });
        }
    }
    Ok(EventOutcome::Applied)
}
