//! Tests redb alone on the simulated disk: the guarantees that Lantern needs from it, without
//! Lantern. `tests/redb-4.1.0` builds the same source code against redb 4.1.0, which is known to
//! lose commits. This shows that the simulated disk reveals the loss.

use std::path::Path;

use fastrand::Rng;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::disk::{Image, SimDisk};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");

/// The number of images that are taken from one history.
const IMAGES: u64 = 50;
/// How many times a recovery is interrupted before it may finish.
const RECOVERIES_MAX: u32 = 4;

/// The history of a database. The marks in the disk's journal are the numbers of acknowledged
/// commits.
struct History {
    disk: SimDisk<u64>,
    steps: usize,
    commits: u64,
}

/// Simulates `images` power losses in histories of a redb file, with seeds from `seed`
/// on. Calls `failed` with the seed and a description if something was lost or broken.
/// Ends early if `failed` returns `true`.
pub fn try_redb(images: u64, seed: u64, mut failed: impl FnMut(u64, String) -> bool) {
    let mut history: Option<(u64, History)> = None;
    for case in seed..seed + images {
        let round = case / IMAGES;
        if history.as_ref().is_none_or(|(of, _)| *of != round) {
            history = Some((round, record(&mut Rng::with_seed(round))));
        }
        let Some((_, history)) = &history else { return };
        if let Err(what) = check(history, &mut Rng::with_seed(case))
            && failed(case, what)
        {
            return;
        }
    }
}

fn open(disk: &SimDisk<u64>) -> Result<Database, String> {
    let path = Path::new("file");
    let file = disk.file(path).ok_or("the file is gone")?;
    let mut builder = Builder::new();
    builder.set_cache_size(1 << 20);
    // redb panics on some files, which counts as a failure, too.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        builder.create_with_backend(file)
    }));
    match opened {
        Ok(opened) => opened.map_err(|error| format!("it does not open: {error}")),
        Err(_) => Err("opening panicked".into()),
    }
}

/// Records a history: makes commits, some in two phases, some with quick repair, and reopens the
/// file.
fn record(rng: &mut Rng) -> History {
    let disk = SimDisk::new(Image::default());
    drop(disk.new_file(Path::new("file")));
    let mut commits = 0;
    let mut database = open(&disk).expect("a new file opens");
    disk.sync_names(Path::new(""));
    disk.mark(0);
    for _ in 0..rng.u64(3..25) {
        if rng.u8(..10) == 0 {
            drop(database);
            database = open(&disk).expect("a closed file opens");
        }
        let mut transaction = database.begin_write().expect("nothing failed before");
        transaction.set_two_phase_commit(rng.u8(..4) > 0);
        transaction.set_quick_repair(rng.bool());
        {
            let mut table = transaction.open_table(TABLE).expect("it is ours");
            let value = vec![(commits % 251) as u8; rng.usize(..6_000)];
            table.insert(commits, value.as_slice()).expect("memory does not fail");
            if commits > 4 && rng.bool() {
                table.remove(rng.u64(..commits - 4)).expect("memory does not fail");
            }
        }
        transaction.commit().expect("memory does not fail");
        commits += 1;
        disk.mark(commits);
    }
    // A crash does not close files. So the history ends before the writes that happen when the file
    // is closed.
    let steps = disk.steps();
    drop(database);
    History { disk, steps, commits }
}

fn check(history: &History, rng: &mut Rng) -> Result<(), String> {
    let at = rng.usize(..=history.steps);
    let Some(acknowledged) = history.disk.marks(at).last().copied() else {
        return Ok(());
    };
    let mut image = history.disk.cut(at, rng);
    for _ in 0..rng.u32(..=RECOVERIES_MAX) {
        let disk = SimDisk::new(image.clone());
        let database = open(&disk)?;
        let at = rng.usize(..=disk.steps());
        image = disk.cut(at, rng);
        // redb panics on some files. Its later writes do not matter.
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(database))));
    }
    let mut database = open(&SimDisk::new(image))?;
    let last = last(&database)?;
    if last < acknowledged || last > history.commits {
        return Err(format!("commit {last} is the last, and {acknowledged} were acknowledged"));
    }
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => Err("it opened and had to be repaired".into()),
        Err(error) => Err(format!("it opened damaged: {error}")),
    }
}

/// Finds the number of the last commit in the database. The rows of that commit must be complete.
fn last(database: &Database) -> Result<u64, String> {
    let read = || -> Result<u64, redb::Error> {
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(TABLE) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
            table => table?,
        };
        let mut last = 0;
        for row in table.iter()? {
            let (key, value) = row?;
            if value.value().iter().any(|byte| *byte != (key.value() % 251) as u8) {
                return Err(redb::Error::Corrupted(format!("row {} is torn", key.value())));
            }
            last = key.value() + 1;
        }
        Ok(last)
    };
    read().map_err(|error| format!("it opened and cannot be read: {error}"))
}
