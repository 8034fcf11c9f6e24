//! Tests incarnations: which opening of the log wrote which events.

use super::*;

fn at(log: &EmbeddedLog, offset: u64) -> Option<u64> {
    log.incarnation_at(P0, Offset(offset))
}

#[test]
fn each_opening_that_appends_has_a_number_of_its_own_and_keeps_it() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    assert_eq!((at(&log, 0), at(&log, 9)), (None, None));
    append(&log, &numbered(0..3)).unwrap();
    append(&log, &numbered(3..5)).unwrap();
    let first = at(&log, 5).unwrap();
    assert_eq!((at(&log, 0), at(&log, 1)), (None, Some(first)));
    drop(log);

    // An opening that appends nothing stores no incarnation.
    drop(folder.open(&small()));
    let log = folder.open(&small());
    assert_eq!(at(&log, 5), Some(first));
    append(&log, &numbered(5..6)).unwrap();
    let second = at(&log, 6).unwrap();
    assert_ne!(first, second);
    assert_eq!(at(&log, 5), Some(first), "the restart came after it");
}

#[test]
fn a_copy_that_goes_on_differently_has_another_number_from_there_on() {
    let (folder, copy) = (LogFolder::new(), LogFolder::new());
    let log = folder.open(&small());
    append(&log, &numbered(0..3)).unwrap();
    drop(log);
    std::fs::copy(folder.file(), copy.file()).unwrap();
    let (log, other) = (folder.open(&small()), copy.open(&small()));
    append(&log, &numbered(3..9)).unwrap();
    append(&other, &numbered(10..16)).unwrap();
    assert_eq!(at(&log, 3), at(&other, 3));
    for offset in 4..=9 {
        assert_ne!(at(&log, offset), at(&other, offset), "offset {offset}");
    }
}
