//! Notes the next offsets of projections in the log, so that other programs can read them.
//!
//! Noting the offset of each commit would not be enough. Events to which a projection does not
//! subscribe advance its offset without a commit. And the activation of a version that has folded
//! the whole log needs no commit.

use std::sync::Arc;

use lantern_core::{CommittedOffsets, Offset, PartitionId};
use lantern_engine::Engine;

use super::{every, until};
use crate::app::App;

/// Notes the offsets as often as the log commits them, until the server stops.
pub(super) async fn note(app: Arc<App>, offsets: Arc<dyn CommittedOffsets>) {
    let mut ticks = every(offsets.commit_interval());
    while until(&app.tasks.stopping, ticks.tick()).await.is_some() {
        let (engine, offsets) = (Arc::clone(&app.engine), Arc::clone(&offsets));
        let work = tokio::task::spawn_blocking(move || note_once(&engine, &*offsets));
        if work.await.is_err() {
            tracing::error!("noting offsets panicked");
        }
    }
}

/// Notes the offsets once more before the log is closed. This blocks.
pub(crate) fn note_all(app: &App) {
    if let Some(offsets) = &app.log_services.offsets {
        note_once(&app.engine, &**offsets);
    }
}

/// Notes the durable offset of each active version.
fn note_once(engine: &Engine, offsets: &dyn CommittedOffsets) {
    for projection in engine.status() {
        let serving =
            projection.versions.iter().find(|v| projection.active.as_ref() == Some(&v.id));
        for shard in serving.iter().flat_map(|version| &version.shards) {
            let (partition, next) = (PartitionId(shard.partition), Offset(shard.durable));
            offsets.note_offset(&projection.name, partition, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::fake::MemoryOffsets;

    use super::*;
    use crate::tests::{Fixture, counts, event};

    #[tokio::test]
    async fn the_next_offset_of_each_active_version_is_noted() {
        let fixture = Fixture::new();
        let offsets = MemoryOffsets::default();
        note_once(&fixture.app.engine, &offsets);
        assert!(offsets.noted().is_empty(), "there is no projection");

        fixture.project(counts()).await;
        let body = ["1", "2", "3"].map(|id| event(id, "t", id)).join("\n") + "\n";
        fixture.post("/v1/events", "application/x-ndjson", body).await.expect_ok();
        // Only durable commits are noted.
        let path = "/v1/projections/counts";
        fixture.until(path, |answer| answer.text.contains("\"durable\":3")).await;
        note_once(&fixture.app.engine, &offsets);
        let noted: Vec<_> = offsets.noted().into_iter().collect();
        assert_eq!(noted, [(("counts".to_owned(), PartitionId(0)), Offset(3))]);
    }
}
