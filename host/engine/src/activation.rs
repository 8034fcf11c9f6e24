//! Decides whether a version becomes active. A broken version must not silently replace a working
//! one, so this module looks for events that the new version has parked although the active version
//! has applied them.

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
    /// The version does not become active by itself; [`Engine::activate`] can activate it.
    Never,
    /// The version becomes active unless it has parked events that the active version has applied.
    #[default]
    Checked,
    /// The version becomes active even if it has parked events that the active version has applied.
    Forced,
}

impl Activation {
    /// [`Activation::Checked`] if `activate` is true, otherwise [`Activation::Never`].
    #[must_use]
    pub fn checked(activate: bool) -> Self {
        if activate { Self::Checked } else { Self::Never }
    }
}

/// A version and its locked shards. A shard that is not open is `None`.
pub(crate) type LockedVersion<'a> = (&'a VersionBuild, &'a [MutexGuard<'a, Option<Shard>>]);

/// Compares the events that two versions have parked, before `new` replaces `old`. Both versions
/// must have the same next offsets.
///
/// The comparison ignores unreadable records, and events that `old` does not subscribe to. If an
/// operator has dropped an event that `old` had parked, that event counts as applied by `old`.
///
/// # Errors
/// Returns [`EngineError::AppliesLess`] if `new` has parked events that `old` has applied, or the
/// error of a store.
pub(crate) fn check(
    projection: &str,
    old: LockedVersion<'_>,
    new: LockedVersion<'_>,
) -> Result<(), EngineError> {
    let mut less = ActivationRefused::none(projection, &new.0.version.id, &old.0.version.id);
    let filter = old.0.manifest.filter();
    for (index, handle) in new.0.handles.iter().enumerate() {
        let Some(ahead) = old.0.handles.get(index) else { continue };
        // A version with an unreadable state counts as a version that has applied nothing.
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
    /// Handles an upload of a version that exists already. Without [`Activation::Forced`] the call
    /// does nothing. With [`Activation::Forced`], the version is activated as follows:
    ///
    /// * A version that has not caught up is activated as soon as it has.
    /// * A version that has caught up is activated at once, but only if its activation was refused
    ///   before.
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

/// Returns what identifies a parked event or timer in every version: the offset and, for a timer,
/// its time and key.
fn identity(record: &ParkedRecord) -> (u64, Option<String>) {
    match &record.kind {
        // The offset at which a timer was due may differ between versions.
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
