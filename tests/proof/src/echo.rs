//! Implements a second projection for the experiments in one process. It subscribes to the events
//! that the projection `meter` emits, and emits readings to which `meter` subscribes. So each of
//! the two projections causes events of the other one, up to the emit depth that the host allows.

use std::sync::Arc;

use lantern_core::fake::{NativePlugin, host_error};
use lantern_core::{
    Attributes, Batch, Event, Host, Manifest, NewEvent, OnFailure, Plugin, TableId, TableSpec,
};

use crate::test_projection::{CLOSED, CYCLE_DEPTH_MAX, LARGE, READ};

/// The projection's name.
pub const NAME: &str = "echo";

/// Computes the event with which the projection answers `event`, as its subject and data. Returns
/// `None` if it does not answer.
#[must_use]
pub fn answer(subject: &str, data: &[u8]) -> Option<(String, Vec<u8>)> {
    if data == LARGE.as_bytes() {
        return None;
    }
    // A window's key ends with the subject that the window belongs to.
    let last = subject.rsplit('/').next().unwrap_or_default();
    Some((last.trim_end_matches('!').to_owned(), data.to_owned()))
}

/// Creates the plugin of this projection.
#[must_use]
pub fn plugin() -> Arc<dyn Plugin> {
    let manifest = Manifest {
        name: NAME.into(),
        subscribes: vec![CLOSED.into()],
        emits: vec![READ.into()],
        cycle_depth_max: Some(CYCLE_DEPTH_MAX),
        attributes: Attributes { subject: true, tenant: true, data: true, ..Attributes::default() },
        tables: vec![TableSpec { name: "answered".into(), ..TableSpec::default() }],
        on_failure: OnFailure::ParkEvent,
        ..Manifest::default()
    };
    Arc::new(NativePlugin::new(manifest, |batch: &Batch, host: &mut dyn Host, (): &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let Some((subject, data)) = answer(event.subject, event.data) else { continue };
            let cause = batch.cause_of_event(index);
            host.put(cause, TableId(0), &subject, &data).map_err(host_error)?;
            let (kind, time) = (READ.into(), event.time);
            let answer = NewEvent { cause, kind, subject, time, data, ..NewEvent::default() };
            host.emit(answer).map_err(host_error)?;
        }
        Ok(())
    }))
}

/// Returns whether `event` is an answer that this projection emitted.
#[must_use]
pub fn is_answer(event: &Event) -> bool {
    event.source.strip_prefix("lantern/") == Some(NAME)
}
