//! Tests damage, and disks that fail or lose power.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use redb::{ReadableDatabase, ReadableTable, StorageBackend};

use super::*;
use crate::{OpenDatabase, OpenError};

fn damage(folder: &LogFolder, table: &str, key: (u32, u64), change: impl Fn(&mut Vec<u8>)) {
    let database = raw(folder);
    let write = database.begin_write().unwrap();
    {
        let table = redb::TableDefinition::<(u32, u64), &[u8]>::new(table);
        let mut table = write.open_table(table).unwrap();
        let mut bytes = table.get(key).unwrap().unwrap().value().to_vec();
        change(&mut bytes);
        table.insert(key, bytes.as_slice()).unwrap();
    }
    write.commit().unwrap();
}

fn filled() -> (LogFolder, LogConfig) {
    let folder = LogFolder::new();
    let config = LogConfig { chunk_events_max: 10, ..small() };
    let log = folder.open(&config);
    append(&log, &numbered(0..45)).unwrap();
    drop(log);
    (folder, config)
}

#[test]
fn a_damaged_chunk_is_named_and_the_others_are_read() {
    for (first, table) in [(20, "chunks"), (40, "chunks"), (20, "index")] {
        let (folder, config) = filled();
        damage(&folder, table, (0, first), |bytes| bytes[30] ^= 4);
        let log = folder.open(&config);
        let everything = TypeFilter::everything();
        let error = log.read(P0, Offset(first + 3), &everything).unwrap_err();
        assert!(matches!(&error, LogError::Damaged(_)));
        let expected = format!("partition 0 at offset {first}");
        assert!(error.to_string().contains(&expected), "{error}");
        assert!(matches!(log.read(P0, Offset(9), &everything), Ok(LogRead::Chunk(_))));
        // New events can be appended, and the damage is still reported.
        append(&log, &numbered(45..60)).unwrap();
        assert!(log.read(P0, Offset(first + 3), &everything).is_err());
        assert_eq!(read_from(&log, P0, Offset(45)), numbered(45..60));
    }
}

#[test]
fn a_chunk_that_is_missing_or_at_anothers_place_is_damage() {
    let (folder, config) = filled();
    let database = raw(&folder);
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(tables::CHUNKS).unwrap();
        let other = table.get((0, 0)).unwrap().unwrap().value().to_vec();
        table.insert((0, 10), other.as_slice()).unwrap();
        table.remove((0, 20)).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let log = folder.open(&config);
    let error =
        |offset| log.read(P0, Offset(offset), &TypeFilter::everything()).unwrap_err().to_string();
    assert!(error(10).contains("it is the chunk of partition 0 at offset 0"));
    assert!(error(25).contains("partition 0 at offset 20: it is in the index, but it is missing"));
}

#[test]
fn a_log_that_lost_its_last_chunk_does_not_open_as_if_it_had_not() {
    let (folder, config) = filled();
    let database = raw(&folder);
    let write = database.begin_write().unwrap();
    write.open_table(tables::INDEX).unwrap().remove((0, 40)).unwrap();
    write.commit().unwrap();
    drop(database);
    let Err(error) = EmbeddedLog::open(folder.file(), config) else { panic!("it opened") };
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert!(error.to_string().contains("should hold offsets 0 up to 45"), "{error}");
}

#[test]
fn damaged_identities_do_not_keep_the_log_shut() {
    let (folder, config) = filled();
    let database = raw(&folder);
    let write = database.begin_write().unwrap();
    write.open_table(tables::IDENTITIES).unwrap().insert(0, [1, 2, 3].as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(read_all(&folder.open(&config), P0), numbered(0..45));
}

/// A disk in memory. A power loss drops some of the writes that were not synced, in any order. A
/// test can let syncs, writes and reads fail.
#[derive(Debug, Default)]
struct Disk {
    bytes: Mutex<Contents>,
    syncs_fail: AtomicBool,
    full: AtomicBool,
    reads_fail: AtomicBool,
    faults: AtomicU64,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    /// The content of the file that the program reads.
    seen: Vec<u8>,
    /// The content of the file that is certainly on disk.
    synced: Vec<u8>,
    /// The writes since the last sync.
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    fn fail(&self, switch: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
        if switch.load(Ordering::SeqCst) {
            self.faults.fetch_add(1, Ordering::SeqCst);
            return Err(kind.into());
        }
        Ok(())
    }

    /// Creates the disk as it is after a power loss. Of the writes that were not synced, it
    /// contains a random part; of the last of these, it contains only some bytes.
    fn after_power_loss(&self, rng: &mut fastrand::Rng) -> Self {
        let contents = self.bytes.lock().unwrap().clone();
        let mut synced = contents.synced;
        synced.resize(contents.seen.len(), 0);
        for (at, bytes) in contents.unsynced {
            let kept = match rng.u8(..3) {
                0 => 0,
                1 => bytes.len(),
                _ => rng.usize(..=bytes.len()) / 512 * 512,
            };
            let at = usize::try_from(at).unwrap();
            let kept = kept.min(synced.len().saturating_sub(at));
            synced[at..at + kept].copy_from_slice(&bytes[..kept]);
        }
        let contents = Contents { seen: synced.clone(), synced, unsynced: Vec::new() };
        Self { bytes: Mutex::new(contents), ..Self::default() }
    }
}

/// The disk as the log opens it.
#[derive(Debug)]
struct Handle(Arc<Disk>);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.fail(&self.0.reads_fail, io::ErrorKind::Other)?;
        let at = usize::try_from(offset).unwrap();
        let contents = self.0.bytes.lock().unwrap();
        let bytes = contents.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut contents = self.0.bytes.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        if len > contents.seen.len() {
            self.0.fail(&self.0.full, io::ErrorKind::StorageFull)?;
        }
        contents.seen.resize(len, 0);
        // A new length is assumed to reach the disk at once.
        contents.synced.resize(len, 0);
        contents.unsynced.retain(|(at, bytes)| *at as usize + bytes.len() <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.fail(&self.0.syncs_fail, io::ErrorKind::Other)?;
        let mut contents = self.0.bytes.lock().unwrap();
        contents.synced = contents.seen.clone();
        contents.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.fail(&self.0.full, io::ErrorKind::StorageFull)?;
        let mut contents = self.0.bytes.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        contents.seen[at..at + data.len()].copy_from_slice(data);
        contents.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

fn opener(disk: &Arc<Disk>) -> OpenDatabase {
    let disk = Arc::clone(disk);
    Arc::new(move || redb::Builder::new().create_with_backend(Handle(Arc::clone(&disk))))
}

fn on(disk: &Arc<Disk>) -> EmbeddedLog {
    EmbeddedLog::open_with(opener(disk), small()).unwrap()
}

/// Repeats an append until it succeeds, as a client does.
fn until_taken(log: &EmbeddedLog, events: &[Event]) -> Appended {
    loop {
        match append(log, events) {
            Ok(appended) => return appended,
            Err(LogError::Unavailable(_) | LogError::Full(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn no_event_is_acknowledged_after_a_failed_sync_and_the_log_recovers() {
    let disk = Arc::new(Disk::default());
    let log = on(&disk);
    append(&log, &numbered(0..10)).unwrap();
    disk.syncs_fail.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (10..20).map(|n| start(&log, &numbered(n..n + 1))).collect();
    for receive in waiting {
        assert!(matches!(receive.recv().unwrap(), Err(LogError::Unavailable(_))));
    }
    assert!(matches!(append(&log, &numbered(20..21)), Err(LogError::Unavailable(_))));
    assert_eq!(log.bounds(P0).unwrap().end, Offset(10), "nothing of it can be read");
    disk.syncs_fail.store(false, Ordering::SeqCst);
    // Refused events are sent again. Each of them must be in the log once, whether the failed
    // commit has stored it or not.
    for n in 10..21 {
        until_taken(&log, &numbered(n..n + 1));
    }
    let mut found = read_all(&log, P0);
    found.sort_by_key(|event| event.time);
    assert_eq!(found, numbered(0..21));
}

#[test]
fn a_full_disk_is_reported_and_the_log_continues_when_there_is_room() {
    let disk = Arc::new(Disk::default());
    let log = on(&disk);
    append(&log, &numbered(0..10)).unwrap();
    disk.full.store(true, Ordering::SeqCst);
    assert!(matches!(append(&log, &numbered(10..12)), Err(LogError::Full(_))));
    assert_eq!(log.bounds(P0).unwrap().end, Offset(10));
    disk.full.store(false, Ordering::SeqCst);
    until_taken(&log, &numbered(10..12));
    assert_eq!(read_all(&log, P0), numbered(0..12));
}

#[test]
fn appends_are_refused_while_the_disk_has_less_than_its_reserve() {
    let folder = LogFolder::new();
    let log = folder.open(&LogConfig { disk_reserve_bytes: u64::MAX / 2, ..small() });
    // The full disk is reported even before the first append.
    assert!(log.troubles()[0].contains("log.disk_reserve_bytes"), "{:?}", log.troubles());
    let error = append(&log, &numbered(0..1)).unwrap_err();
    assert!(matches!(&error, LogError::Full(why) if why.contains("log.disk_reserve_bytes")));
    assert_eq!(log.bounds(P0).unwrap().end, Offset(0));
}

#[test]
fn a_failed_read_is_reported_and_the_log_recovers() {
    let disk = Arc::new(Disk::default());
    let handles = Arc::clone(&disk);
    let open: OpenDatabase = Arc::new(move || {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(0).create_with_backend(Handle(Arc::clone(&handles)))
    });
    let log = EmbeddedLog::open_with(open, LogConfig { cache_bytes: 0, ..small() }).unwrap();
    append(&log, &numbered(0..500)).unwrap();
    disk.reads_fail.store(true, Ordering::SeqCst);
    let read = log.read(P0, Offset(0), &TypeFilter::everything());
    assert!(matches!(read, Err(LogError::Unavailable(_))), "{read:?}");
    disk.reads_fail.store(false, Ordering::SeqCst);
    let first = loop {
        match log.read(P0, Offset(0), &TypeFilter::everything()) {
            Ok(read) => break read,
            Err(LogError::Unavailable(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(matches!(first, LogRead::Chunk(_)));
    until_taken(&log, &numbered(500..501));
    assert_eq!(read_all(&log, P0), numbered(0..501));
}

#[test]
fn a_file_is_opened_again_and_nothing_is_lost() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    for n in 0..5_u64 {
        append(&log, &numbered(n * 10..n * 10 + 10)).unwrap();
        log.shared.suspect();
        let again = until_taken(&log, &numbered(n * 10 + 9..n * 10 + 10));
        assert!(again.events[0].duplicate, "the window is there again");
    }
    assert_eq!(read_all(&log, P0), numbered(0..50));
    log.close();
}

#[test]
fn acknowledged_events_survive_power_loss_and_a_commit_is_complete_or_absent() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut disk = Arc::new(Disk::default());
    let mut acknowledged = 0_u64;
    for turn in 0..60 {
        let log = on(&disk);
        let found = read_all(&log, P0).len() as u64;
        assert!(found >= acknowledged, "turn {turn}: {found} of {acknowledged} are there");
        assert_eq!(read_all(&log, P0), numbered(0..found), "turn {turn}");
        assert_eq!(found % 5, 0, "turn {turn}: an append is there in part");
        // From one sync on, no sync reaches the disk. So a power loss drops a part of the later
        // writes.
        let good = rng.u64(0..8);
        let mut next = found;
        for _ in 0..good {
            append(&log, &numbered(next..next + 5)).unwrap();
            next += 5;
        }
        acknowledged = next;
        disk.syncs_fail.store(true, Ordering::SeqCst);
        assert!(append(&log, &numbered(next..next + 5)).is_err());
        let crashed = disk.after_power_loss(&mut rng);
        disk.syncs_fail.store(false, Ordering::SeqCst);
        drop(log);
        disk = Arc::new(crashed);
    }
    let database = opener(&disk)().unwrap();
    assert!(database.begin_read().unwrap().list_tables().unwrap().count() >= 6);
}

#[test]
fn a_lost_index_entry_is_not_skipped_by_a_reader_of_other_types() {
    let (folder, config) = (LogFolder::new(), LogConfig { chunk_events_max: 10, ..small() });
    let log = folder.open(&config);
    for (n, kind) in [(0, "odd"), (10, "even"), (20, "even"), (30, "odd")] {
        let events: Vec<_> = (n..n + 10).map(|n| event(&n.to_string(), kind, "s", n)).collect();
        append(&log, &events).unwrap();
    }
    drop(log);
    let database = raw(&folder);
    let write = database.begin_write().unwrap();
    write.open_table(tables::INDEX).unwrap().remove((0, 20)).unwrap();
    write.commit().unwrap();
    drop(database);
    let log = folder.open(&config);
    let (mut next, odd) = (Offset(10), TypeFilter::new(&["odd".into()]));
    let error = loop {
        match log.read(P0, next, &odd) {
            Ok(LogRead::Skipped { next: after }) if after > next => next = after,
            Ok(found) => panic!("{found:?} at {next}"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("no chunk of partition 0 holds offset 20"), "{error}");
}

#[test]
fn an_empty_file_is_damage_and_an_incomplete_log_is_created_again() {
    let folder = LogFolder::new();
    std::fs::write(folder.file(), b"").unwrap();
    let Err(error) = EmbeddedLog::open(folder.file(), small()) else { panic!("it opened") };
    assert!(matches!(&error, OpenError::Damaged { .. }), "{error}");
    std::fs::remove_file(folder.file()).unwrap();
    std::fs::write(folder.file().with_extension("redb.new"), b"half").unwrap();
    let log = EmbeddedLog::open(folder.file(), small()).unwrap();
    append(&log, &numbered(0..3)).unwrap();
    drop(log);
    assert_eq!(read_all(&folder.open(&small()), P0), numbered(0..3));
}

#[test]
fn a_check_names_each_damaged_place_with_its_offsets() {
    let check = |folder: &LogFolder| crate::check(&folder.file(), &mut |_, _| ()).unwrap();
    let (folder, _) = filled();
    let sound = check(&folder);
    assert_eq!((sound.events, sound.chunks, sound.damage.len()), (45, 5, 0), "{sound:?}");
    for (table, first) in [("chunks", 20), ("chunks", 40), ("index", 20)] {
        let (folder, _) = filled();
        damage(&folder, table, (0, first), |bytes| bytes[30] ^= 4);
        let checked = check(&folder);
        assert_eq!(checked.damage.len(), 1, "{checked:?}");
        assert_eq!(checked.damage[0].partition, Some(P0));
        let end = Offset((first + 10).min(45));
        assert_eq!(checked.damage[0].offsets, Some((Offset(first), end)));
    }
    let (folder, _) = filled();
    let database = raw(&folder);
    let write = database.begin_write().unwrap();
    write.open_table(tables::INDEX).unwrap().remove((0, 20)).unwrap();
    write.commit().unwrap();
    drop(database);
    let checked = check(&folder);
    assert_eq!(checked.damage[0].offsets, Some((Offset(20), Offset(30))), "{checked:?}");
}
