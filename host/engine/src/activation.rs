//! Decides whether a version becomes active. The events that it has parked are compared
//! with those that the active version has applied, so that a broken version does not
//! silently replace a working one.

use std::collections::BTreeSet;

use lantern_core::{
    ParkedKind, ParkedRecord, ProjectionRecord, StoreError, UNREADABLE_TYPE, VersionId,
    VersionState,
};
use parking_lot::MutexGuard;

use crate::parked_events::{committed_page, parked_page};
use crate::registry::VersionBuild;
use crate::shard::Shard;
use crate::shard_handle::ShardHandle;
use crate::{ActivationRefused, Engine, EngineError};

/// Whether an uploaded version becomes active by itself once it has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// It does not become active by itself: [`Engine::activate`] activates it.
    Never,
    /// It becomes active unless it has parked events that the active version has applied.
    #[default]
    Checked,
    /// It becomes active even if it has parked such events.
    Forced,
}

impl Activation {
    /// [`Activation::Checked`] if `activate` is true, else [`Activation::Never`].
    #[must_use]
    pub fn checked(activate: bool) -> Self {
        if activate { Self::Checked } else { Self::Never }
    }
}

/// A version with its shards, locked; `None` for one that is not open.
pub(crate) type LockedVersion<'a> = (&'a VersionBuild, &'a [MutexGuard<'a, Option<Shard>>]);

/// Fails if `new` has parked events that `old` has applied. Both versions have the same
/// next offsets. Unreadable records do not count, nor do events that `old` does not
/// subscribe to. Parked events of `old` that an operator has dropped count as applied.
///
/// # Errors
/// [`EngineError::AppliesLess`], or the error of a store.
pub(crate) fn check(
    projection: &str,
    old: LockedVersion<'_>,
    new: LockedVersion<'_>,
) -> Result<(), EngineError> {
    let mut less = ActivationRefused::none(projection, &new.0.version.id, &old.0.version.id);
    let filter = old.0.manifest.filter();
    for (index, handle) in new.0.handles.iter().enumerate() {
        let Some(ahead) = old.0.handles.get(index) else { continue };
        // If the state of the active version is unreadable, it has applied nothing.
        if ahead.store.is_none() {
            continue;
        }
        let mut parked = BTreeSet::new();
        each(ahead, old.1.get(index), |record| {
            parked.insert(identity(&record));
        })?;
        each(handle, new.1.get(index), |record| {
            let event = &record.event;
            let timer = matches!(record.kind, ParkedKind::Timer(..));
            let subscribed =
                timer || (event.kind != UNREADABLE_TYPE && filter.matches(&event.kind));
            if subscribed && !parked.contains(&identity(&record)) {
                less.count(handle.id.partition.0, record);
            }
        })?;
    }
    if less.failed + less.waiting > 0 {
        return Err(EngineError::AppliesLess(Box::new(less)));
    }
    Ok(())
}

impl Engine {
    /// Handles an upload of a version that exists already. If `activate` is
    /// [`Activation::Forced`], activates this version as soon as it has caught up. A
    /// version that has caught up already is activated at once, but only if its activation
    /// was refused before.
    pub(crate) fn force_existing(
        &self,
        projection: &str,
        id: &VersionId,
        activate: Activation,
    ) -> Result<(), EngineError> {
        if activate != Activation::Forced {
            return Ok(());
        }
        {
            let _lifecycle = self.lifecycle.lock();
            let record = self.registry.record(projection)?;
            match record.version(id) {
                Some(version) if version.state == VersionState::Backfilling => {
                    let force = |record: &mut ProjectionRecord| {
                        for version in &mut record.versions {
                            let this = version.id == *id;
                            version.activate_when_ready = this;
                            version.activate_forced = this;
                        }
                    };
                    return self.change(projection, force).map(drop);
                }
                Some(version) if version.not_activated.is_some() => {}
                _ => return Ok(()),
            }
        }
        self.activate(projection, id, true)
    }
}

/// What identifies a parked event or timer across two versions.
fn identity(record: &ParkedRecord) -> (u64, Option<String>) {
    match &record.kind {
        // The offset at which a timer was due may differ by version.
        ParkedKind::Timer(timer) => (u64::MAX, Some(format!("{}/{}", timer.at.0, timer.key))),
        ParkedKind::Event | ParkedKind::Waiting => (record.offset.0, None),
    }
}

/// Calls `take` with every parked record of a shard, in the order of offsets.
fn each(
    handle: &ShardHandle,
    shard: Option<&MutexGuard<'_, Option<Shard>>>,
    mut take: impl FnMut(ParkedRecord),
) -> Result<(), StoreError> {
    const PAGE: usize = 1_000;
    let shard = shard.and_then(|shard| shard.as_ref());
    let mut from = Vec::new();
    loop {
        let page = match (shard, &handle.store) {
            (Some(shard), _) => parked_page(&shard.state.buffer, &mut from)?,
            (None, Some(store)) => committed_page(&**store, &mut from, PAGE)?,
            (None, None) => return Ok(()),
        };
        if page.is_empty() {
            return Ok(());
        }
        page.into_iter().for_each(|(_, record)| take(record));
    }
}
