//! Tests invariant 1 of `docs/proof.md`: an acknowledged event survives power loss.

mod disk;
mod folders;
mod redb_only;
mod stack;

use anyhow::ensure;
use fastrand::Rng;

pub use disk::{FalseSyncs, Image, SimDisk};
pub use redb_only::try_redb;
pub use stack::{Flawed, Recorded, record};

use crate::{Claim, Counts, Run};

/// The number of images that are taken from one history.
const IMAGES: u64 = 40;

/// The claim for everything that Lantern stores: invariant 1.
pub const CLAIM: Claim = Claim {
    invariant: 1,
    name: "power-loss",
    holds: "acknowledged events, committed state and catalogue survive a power loss, also during recovery",
    counts: Counts { ci: 2_000, longer: 200_000, of: "images" },
    experiment: |run| {
        images(run, Flawed::default());
        Ok(())
    },
};

/// The claim for redb alone: invariant 1.
pub const REDB: Claim = Claim {
    invariant: 1,
    name: "redb",
    holds: "redb keeps what it acknowledged when power is lost, also while it repairs a file",
    counts: Counts { ci: 2_000, longer: 200_000, of: "images" },
    experiment: |run| {
        run.cases(|_, seed| {
            let mut found = None;
            try_redb(1, seed, |_, what| {
                found = Some(what);
                true
            });
            found.map_or(Ok(()), |what| Err(anyhow::anyhow!(what)))
        });
        Ok(())
    },
};

/// Simulates power losses in histories of the whole host.
pub fn images(run: &mut Run<'_>, flawed: Flawed) {
    let mut recorded: Option<(u64, Recorded)> = None;
    run.cases(|run, seed| {
        let round = seed / IMAGES;
        if recorded.as_ref().is_none_or(|(of, _)| *of != round) {
            let history = record(&mut Rng::with_seed(round), flawed)?;
            run.add("histories", 1.0);
            recorded = Some((round, history));
        }
        let Some((_, history)) = &recorded else { return Ok(()) };
        let mut rng = Rng::with_seed(seed);
        let seen = history.check(&mut rng)?;
        ensure!(seen.events <= history.events(), "there is more in the log than was written");
        run.add("recoveries_cut", f64::from(seen.recoveries));
        run.add("restarts_to_the_end", f64::from(u8::from(seen.went_on)));
        Ok(())
    });
}
