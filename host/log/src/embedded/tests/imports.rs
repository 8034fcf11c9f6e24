//! Tests imports: events from another log keep their append times.

use super::*;

fn import(log: &EmbeddedLog, events: &[Event], times: &[i64]) -> Result<Appended, LogError> {
    let (send, receive) = channel();
    let times = times.iter().map(|time| Timestamp(*time)).collect();
    log.import(columns(events), times, Box::new(move |result| send.send(result).unwrap()));
    receive.recv().unwrap()
}

fn times(log: &EmbeddedLog) -> Vec<i64> {
    let (mut next, mut all) = (Offset(0), Vec::new());
    while let LogRead::Chunk(chunk) = log.read(P0, next, &TypeFilter::everything()).unwrap() {
        let indices = chunk.index_of(next)..chunk.events.len();
        all.extend(indices.map(|index| chunk.appended(index).unwrap().0));
        next = chunk.end();
    }
    all
}

#[test]
fn an_import_keeps_append_times_over_chunks_and_restarts() {
    let folder = LogFolder::new();
    let mut log = folder.open(&small());
    let mut expected = Vec::new();
    for piece in 0..20_u64 {
        if piece == 10 {
            drop(log);
            log = folder.open(&small());
        }
        let events = numbered(piece * 9..piece * 9 + 9);
        let stamps: Vec<i64> = (0..9).map(|n| piece.cast_signed() * 100 + n).collect();
        import(&log, &events, &stamps).unwrap();
        // The events are sent again, as after a lost connection.
        let again = import(&log, &events, &stamps).unwrap();
        assert!(again.events.iter().all(|event| event.duplicate));
        expected.extend(stamps);
    }
    assert_eq!(times(&log), expected);
    assert_eq!(read_all(&log, P0), numbered(0..180));
}

#[test]
fn nothing_is_imported_next_to_other_events() {
    let folder = LogFolder::new();
    let log = folder.open(&small());
    import(&log, &numbered(0..2), &[5, 6]).unwrap();
    append(&log, &numbered(2..3)).unwrap();
    let refused = import(&log, &numbered(3..4), &[7]);
    assert!(matches!(refused, Err(LogError::NoImport(_))), "{refused:?}");
    let uneven = import(&log, &numbered(3..4), &[]);
    assert!(matches!(uneven, Err(LogError::NoImport(_))), "{uneven:?}");
    assert_eq!(read_all(&log, P0).len(), 3);
}
