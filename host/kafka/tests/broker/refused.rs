//! Tests events that a topic never accepts. The answer names each of them with the reason, and says
//! what happened to the other events.

use lantern_core::{Emitted, RejectedEvent};
use rdkafka::admin::{AlterConfig, ResourceSpecifier};

use super::*;

const P0: PartitionId = PartitionId(0);

/// Creates an event of about `bytes` bytes that no codec can compress.
fn large(id: u64, bytes: usize) -> Event {
    let noise: String = (0..bytes).map(|_| fastrand::alphanumeric()).collect();
    Event { data: format!("\"{noise}\"").into_bytes(), ..event(id, "s") }
}

fn rejected(outcome: Result<Appended, LogError>) -> (usize, usize, RejectedEvent) {
    match outcome {
        Err(LogError::Rejected { index, appended, reason }) => (index, appended, reason),
        other => panic!("{other:?}"),
    }
}

fn is_too_large(reason: &RejectedEvent, limit: &str) {
    let text = reason.to_string();
    assert!(matches!(reason, RejectedEvent::TooLarge { .. }), "{text}");
    assert!(text.contains("`2` of `test`") && text.contains(limit), "{text}");
}

#[test]
fn nothing_of_an_append_is_written_if_an_event_cannot_fit_its_topic() {
    let Some(fixture) = Fixture::new("large") else { return };
    fixture.create(&[("max.message.bytes", "10000")]);
    let log = fixture.open(1);
    let outcome = append(&log, [event(1, "s"), large(2, 40_000), event(3, "s")]);
    let (index, appended, reason) = rejected(outcome);
    assert_eq!((index, appended), (1, 0));
    is_too_large(&reason, "10000 (`max.message.bytes`)");
    assert!(all_from(&log, P0, 0).is_empty());
    append(&log, [event(1, "s"), event(3, "s")]).unwrap();
    assert_eq!(numbers(&all_from(&log, P0, 0)), [1, 3]);
}

#[test]
fn an_event_that_only_the_broker_refuses_is_reported_with_the_number_of_appended_ones() {
    let Some(fixture) = Fixture::new("packed") else { return };
    fixture.create(&[("max.message.bytes", "10000")]);
    let mut config = fixture.config(1);
    // The event might be small enough when it is compressed, so only the broker can refuse it.
    config.properties.0.insert("compression.codec".into(), "lz4".into());
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    let outcome = append(&log, [event(1, "s"), large(2, 40_000), event(3, "s")]);
    let (index, appended, reason) = rejected(outcome);
    assert_eq!((index, appended), (1, 2));
    is_too_large(&reason, "`max.message.bytes`");
    let again = append(&log, [event(1, "s"), event(3, "s"), event(4, "s")]).unwrap();
    let duplicates: Vec<bool> = again.events.iter().map(|event| event.duplicate).collect();
    assert_eq!(duplicates, [true, true, false]);
    assert_eq!(numbers(&all_from(&log, P0, 0)), [1, 3, 4]);
}

#[test]
fn events_that_fit_are_never_refused_for_what_is_sent_with_them() {
    let Some(fixture) = Fixture::new("together") else { return };
    fixture.create(&[("max.message.bytes", "10000")]);
    let log = fixture.open(1);
    append(&log, (0..300).map(|id| large(id, 500))).unwrap();
    assert_eq!(all_from(&log, P0, 0).len(), 300);
    // The limit is lowered while the log still knows the previous one.
    let lower = AlterConfig::new(ResourceSpecifier::Topic(&fixture.topic));
    let lower = lower.set("max.message.bytes", "2000");
    let altered = block_on(fixture.admin().alter_configs([&lower], &AdminOptions::new())).unwrap();
    altered[0].as_ref().unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    while let Err(error) = append(&log, (300..400).map(|id| large(id, 500))) {
        assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        assert!(std::time::Instant::now() < until, "{error}");
    }
    assert_eq!(all_from(&log, P0, 0).len(), 400);
}

#[test]
fn a_compacted_topic_takes_no_event_without_a_key() {
    let Some(fixture) = Fixture::new("compacted") else { return };
    fixture.create(&[("cleanup.policy", "compact")]);
    let log = fixture.open(1);
    let (index, appended, reason) = rejected(append(&log, [event(1, "s"), event(2, "")]));
    assert_eq!((index, appended), (1, 0));
    assert!(reason.to_string().contains("compacted"), "{reason}");
    append(&log, [event(1, "s")]).unwrap();
}

#[test]
fn an_emitted_event_that_cannot_fit_leaves_no_transaction_behind() {
    for codec in ["none", "lz4"] {
        let Some(fixture) = Fixture::new("emit-large") else { return };
        fixture.create(&[("max.message.bytes", "10000")]);
        let mut config = fixture.config(1);
        config.properties.0.insert("compression.codec".into(), codec.into());
        let log = KafkaLog::open(fixture.table(), config).unwrap();
        let emit = |first: u64, all: Vec<Event>| {
            let emitted = Emitted { outbox: "o".into(), partition: P0, first, events: events(all) };
            done(|told| log.emit(emitted, told))
        };
        emit(0, vec![event(0, "s")]).unwrap();
        let (index, _, reason) =
            rejected(emit(1, vec![event(1, "s"), large(2, 40_000), event(3, "s")]));
        assert_eq!(index, 1);
        is_too_large(&reason, "`max.message.bytes`");
        let end = || {
            let consumer: rdkafka::consumer::BaseConsumer = fixture.client().create().unwrap();
            use rdkafka::consumer::Consumer as _;
            consumer.fetch_watermarks(&fixture.topic, 0, PATIENCE).unwrap().1
        };
        if codec == "none" {
            // The topic contains only the first event and the marker of its transaction.
            assert_eq!(end(), 2);
        }
        // The events before and after the refused one can be sent. The number of the next event
        // follows the number of the refused event.
        emit(1, vec![event(1, "s")]).unwrap();
        emit(3, vec![event(3, "s"), event(4, "s")]).unwrap();
        emit(3, vec![event(3, "s"), event(4, "s")]).unwrap();
        let until = std::time::Instant::now() + PATIENCE;
        while numbers(&all_from(&log, P0, 0)) != [0, 1, 3, 4] {
            assert!(std::time::Instant::now() < until, "{:?}", all_from(&log, P0, 0));
            log.wait(P0, log.bounds(P0).unwrap().end, Duration::from_millis(50));
        }
    }
}
