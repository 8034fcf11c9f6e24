//! Tests invariant 13 of `docs/proof.md`: the experiments find bugs. Bugs are planted, one at a
//! time, and the experiment that should find the bug must find it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

use crate::engine::Planted;
use crate::model::Flaw;
use crate::planted::{Logs, Stores};
use crate::power::Flawed;
use crate::test_projection::Flaws;
use crate::{Claim, Counts, Plan, Run, engine, export, histories, late, power, replay};

/// The maximum number of cases within which a bug must be found. Most bugs are found within ten.
const CASES_MAX: u64 = 3_000;

/// The claim that this experiment tests: invariant 13.
pub const CLAIM: Claim = Claim {
    invariant: 13,
    name: "teeth",
    holds: "every planted bug is found by the experiment that looks for it",
    counts: Counts { ci: BUGS.len() as u64, longer: 10 * BUGS.len() as u64, of: "planted bugs" },
    experiment: |run| {
        run.cases(|run, seed| {
            // The bugs are planted in the order of the list, independent of the seed.
            let bug = &BUGS[usize::try_from(run.counted())? % BUGS.len()];
            let cases = bug.found(seed)?;
            run.most(&format!("cases until `{}` showed", bug.name), cases as f64);
            Ok(())
        });
        Ok(())
    },
};

/// A planted bug, and the experiment that should find it.
struct Bug {
    name: &'static str,
    planted: BugSite,
}

/// The place of a planted bug.
enum BugSite {
    /// A bug in the disk or the host's stores. The claim `power-loss` must find it.
    Power(Flawed),
    /// A bug in a port of the engine. The claim `fold` must find it.
    Engine(Planted),
    /// A bug in a plugin. The claim `replay` must find it.
    Plugin(Flaws),
    /// A bug in the identities of histories. The claim `histories` must find it.
    Histories(histories::Flawed),
    /// A bug in a plugin that begins late. The claim `late` must find it.
    Late(Flaws),
    /// A bug in the export of a log. The claim `export` must find it.
    Export(export::Flawed),
    /// The bug in redb 4.1.0. The simulated disk must find it.
    Redb,
}

const SOUND: Planted =
    Planted { flaws: HONEST_PLUGIN, stores: None, log: None, unpublished: false, model: None };
const HONEST_PLUGIN: Flaws = Flaws {
    batch_dependent: false,
    remembers: false,
    tenant_of_batch: false,
    coalesces: false,
    late: None,
};
const HONEST: Flawed = Flawed {
    sync_skipped: None,
    folders_unsynced: false,
    acked_early: false,
    position_first: false,
};

const fn store(what: Stores) -> BugSite {
    BugSite::Engine(Planted { stores: Some(what), ..SOUND })
}

const fn model(flaw: Flaw) -> BugSite {
    BugSite::Engine(Planted { model: Some(flaw), ..SOUND })
}

const fn log(what: Logs) -> BugSite {
    BugSite::Engine(Planted { log: Some(what), ..SOUND })
}

const fn history_log(what: Logs) -> BugSite {
    BugSite::Histories(histories::Flawed { same_numbers: false, log: Some(what) })
}

const fn skipped(file: &'static str) -> BugSite {
    BugSite::Power(Flawed { sync_skipped: Some(file), ..HONEST })
}

const BUGS: &[Bug] = &[
    Bug { name: "the log's sync is skipped", planted: skipped("log.redb") },
    Bug { name: "the state's sync is skipped", planted: skipped("0.redb") },
    Bug { name: "the catalogue's sync is skipped", planted: skipped("catalog.redb") },
    Bug {
        name: "folders are not synced",
        planted: BugSite::Power(Flawed { folders_unsynced: true, ..HONEST }),
    },
    Bug {
        name: "an append is acknowledged before it is durable",
        planted: BugSite::Power(Flawed { acked_early: true, ..HONEST }),
    },
    Bug {
        name: "the position is durable before the rows",
        planted: BugSite::Power(Flawed { position_first: true, ..HONEST }),
    },
    Bug { name: "redb 4.1.0", planted: BugSite::Redb },
    Bug { name: "the position is written before the rows", planted: store(Stores::PositionFirst) },
    Bug { name: "a failed commit is ignored", planted: store(Stores::ErrorIgnored) },
    Bug { name: "a commit is written in parts", planted: store(Stores::HalfWritten) },
    Bug { name: "durable commits are not durable", planted: store(Stores::NotDurable) },
    Bug {
        name: "emitted events are sent before they are durable",
        planted: store(Stores::SentEarly),
    },
    Bug {
        name: "the ceiling of commits without a sync is not stored",
        planted: store(Stores::NoCeiling),
    },
    Bug { name: "a timer is lost at a restart", planted: store(Stores::TimerLost) },
    Bug { name: "a retry loses what it wrote", planted: store(Stores::RetryLoses) },
    Bug { name: "a chunk is read from its second event", planted: log(Logs::OffByOne) },
    Bug { name: "emitted events are acknowledged and lost", planted: log(Logs::AckedEarly) },
    Bug { name: "emitted events get new ids", planted: log(Logs::NewIds) },
    Bug {
        name: "commits are not published",
        planted: BugSite::Engine(Planted { unpublished: true, ..SOUND }),
    },
    Bug {
        name: "a row's tenant is looked for in the whole batch",
        planted: BugSite::Engine(Planted {
            flaws: Flaws { tenant_of_batch: true, ..HONEST_PLUGIN },
            ..SOUND
        }),
    },
    Bug {
        name: "rows are judged at the end of the batch",
        planted: BugSite::Engine(Planted {
            flaws: Flaws { coalesces: true, ..HONEST_PLUGIN },
            ..SOUND
        }),
    },
    Bug {
        name: "subjects are parked as of the batch's start",
        planted: model(Flaw::ParkedAsOfBatch(0)),
    },
    Bug {
        name: "a parked subject of one tenant is parked for all",
        planted: model(Flaw::SubjectOfAllTenants),
    },
    Bug { name: "an event far ahead moves the watermark", planted: model(Flaw::AheadMoves) },
    Bug { name: "an unreadable record blocks a subject", planted: model(Flaw::UnreadableBlocks) },
    Bug { name: "projections feed each other without end", planted: model(Flaw::EndlessLoop) },
    Bug {
        name: "an outbox is blocked by an event that the log refuses for good",
        planted: log(Logs::RefusalPasses),
    },
    Bug {
        name: "an epoch has no random part",
        planted: BugSite::Histories(histories::Flawed { same_numbers: true, log: None }),
    },
    Bug {
        name: "a checkpoint ignores the log's incarnation",
        planted: history_log(Logs::OneIncarnation),
    },
    Bug {
        name: "events are read before their incarnation is known",
        planted: log(Logs::IncarnationLate),
    },
    Bug {
        name: "events of two tenants are one if their ids are the same",
        planted: history_log(Logs::TenantIgnored),
    },
    Bug {
        name: "heartbeats are left out of an export",
        planted: BugSite::Export(export::Flawed { heartbeats_left_out: true }),
    },
    Bug {
        name: "what is written depends on the batch",
        planted: BugSite::Plugin(Flaws { batch_dependent: true, ..HONEST_PLUGIN }),
    },
    Bug {
        name: "an instance's memory is trusted",
        planted: BugSite::Plugin(Flaws { remembers: true, ..HONEST_PLUGIN }),
    },
    Bug {
        name: "an instance's memory is trusted from some event on",
        planted: BugSite::Late(Flaws { late: Some(150), ..HONEST_PLUGIN }),
    },
];

impl Bug {
    /// Runs the experiment on the bug. Returns the number of cases until the bug was found.
    fn found(&self, seed: u64) -> Result<u64> {
        let experiment: Box<dyn Fn(&mut Run<'_>)> = match &self.planted {
            BugSite::Redb => return redb_4_1_0(seed),
            BugSite::Power(flawed) => {
                let flawed = *flawed;
                Box::new(move |run| power::images(run, flawed))
            }
            BugSite::Engine(planted) => {
                let planted = *planted;
                Box::new(move |run| engine::histories(run, planted))
            }
            BugSite::Histories(flawed) => {
                let flawed = *flawed;
                Box::new(move |run| histories::histories(run, flawed))
            }
            BugSite::Late(flaws) => {
                let flaws = *flaws;
                Box::new(move |run| late::honest_plugins(run, flaws))
            }
            BugSite::Export(flawed) => {
                let flawed = *flawed;
                Box::new(move |run| export::logs(run, flawed))
            }
            BugSite::Plugin(flaws) => {
                let plugins = [("meter".to_owned(), replay::meter(*flaws))];
                Box::new(move |run| replay::logs(run, &plugins))
            }
        };
        let plan = Plan { cases: CASES_MAX, seed, deadline: None };
        let outcome = Run::until_failure(plan, &ProgressBar::hidden(), |run| experiment(run));
        ensure!(
            !outcome.failures.is_empty(),
            "`{}` was not found in {} cases from seed {seed}",
            self.name,
            outcome.cases
        );
        Ok(outcome.cases)
    }
}

/// Builds redb 4.1.0 with the simulated disk, and runs the experiment on it.
fn redb_4_1_0(seed: u64) -> Result<u64> {
    /// The number of images to try. About one image in a hundred shows the loss in redb 4.1.0.
    const IMAGES: u64 = 20_000;
    let root = lantern_tests::root();
    let manifest = root.join("tests/redb-4.1.0/Cargo.toml");
    let target = root.join("target/redb-4.1.0");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        .args(["--", &IMAGES.to_string(), &seed.to_string()])
        .current_dir(manifest.parent().unwrap_or(Path::new(".")))
        .output()
        .context("cargo cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let image = said.strip_prefix("lost: image ").and_then(|rest| rest.split_once(':'));
    let image = image.with_context(|| {
        format!("redb 4.1.0 lost nothing: {said}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(image.0.parse::<u64>()? - seed + 1)
}
