//! Tests timers, emitted events, failures and parameters.

use lantern_sdk::prelude::*;
use lantern_sdk::testing::{Harness, Level, TestEvent, check_determinism};
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    wait_s: u64,
    on_failure: String,
}

/// Emits a reminder for each event after a while.
#[derive(Tables)]
struct Reminders {
    #[table(private)]
    fired: Table<String>,
    #[table(private)]
    count: Table<u64>,
    #[table(skip)]
    settings: Settings,
}

impl Projection for Reminders {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.settings = parameters.parse()?;
        let on_failure = match &*self.settings.on_failure {
            "" | "park-event" => OnFailure::ParkEvent,
            "park-subject" => OnFailure::ParkSubject,
            "halt" => OnFailure::Halt,
            other => return Err(Error::new(format!("on_failure is `{other}`"))),
        };
        Ok(lantern_sdk::manifest!()
            .subscribe(["told", "cancelled", "failing", "panicking"])
            .attributes([Attribute::Subject])
            .event_time(Duration::from_secs(5), Duration::from_secs(10))
            .emits(["reminded"])
            .on_failure(on_failure)
            .parameters("{}"))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        *self.count.row("all")? += 1;
        let subject = event.subject()?;
        match event.kind() {
            "told" => {
                let wait = Duration::from_secs(self.settings.wait_s);
                event.set_timer(event.time() + wait, subject)
            }
            "cancelled" => event.cancel_timer(subject),
            "failing" => Err(format!("{subject} fails").into()),
            _ => panic!("{subject} panics"),
        }
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        let fired = format!("{} at {} by {}", timer.at(), timer.watermark(), timer.cause());
        self.fired.put(timer.key(), fired)?;
        lantern_sdk::log::info(timer.key());
        timer.emit(NewEvent::new("reminded", &timer.key())?.subject(timer.key()))
    }
}

fn at(kind: &str, subject: &str, seconds: i64) -> TestEvent {
    let time = Timestamp::from_seconds(seconds);
    TestEvent::new(kind).subject(subject).time(time)
}

fn log() -> Vec<TestEvent> {
    vec![
        at("told", "a", 0),
        at("told", "b", 1),
        at("told", "c", 2),
        at("cancelled", "b", 3),
        at("told", "a", 4),
        // From here on the watermark is 30 seconds.
        at("told", "d", 39),
        // This event is late, and its timer is already due. So the timer fires at the next tick.
        at("told", "e", 1),
        at("told", "f", 45),
        at("told", "g", 100),
    ]
}

#[test]
fn timers_fire_once_at_the_tick_that_passes_them() {
    let mut host = Harness::<Reminders>::with_parameters(r#"{"wait_s": 20}"#);
    host.feed(log());
    let fired = host.typed_rows::<String>("fired");
    let expected = [
        ("a", "1970-01-01T00:00:24Z at 1970-01-01T00:00:30Z by 4"),
        ("c", "1970-01-01T00:00:22Z at 1970-01-01T00:00:30Z by 2"),
        ("d", "1970-01-01T00:00:59Z at 1970-01-01T00:01:30Z by 5"),
        ("e", "1970-01-01T00:00:21Z at 1970-01-01T00:00:40Z by 6"),
        ("f", "1970-01-01T00:01:05Z at 1970-01-01T00:01:30Z by 7"),
    ];
    let expected = expected.map(|(key, fired)| (key.to_owned(), fired.to_owned()));
    assert_eq!(fired.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(host.timers().into_keys().collect::<Vec<_>>(), ["g"]);
    assert_eq!(host.watermark().to_string(), "1970-01-01T00:01:30Z");
    let emitted = host.emitted();
    let subjects: Vec<_> = emitted.iter().map(|event| (&*event.subject, event.cause)).collect();
    assert_eq!(subjects, [("c", 2), ("a", 4), ("e", 6), ("d", 5), ("f", 7)]);
    assert_eq!(emitted[0].time.to_string(), "1970-01-01T00:00:22Z");
    assert_eq!(host.logs()[0], (Level::Info, "c".to_owned()));

    host.advance_to(Timestamp::from_seconds(130));
    assert!(host.timers().is_empty());
}

#[test]
fn timers_do_not_depend_on_batches_or_instances() {
    let outcome = check_determinism::<Reminders>(r#"{"wait_s": 20}"#, &log());
    assert_eq!(outcome.emitted.len(), 5);
}

fn failing_log() -> Vec<TestEvent> {
    vec![
        at("told", "a", 0),
        at("failing", "b", 0),
        at("panicking", "c", 0),
        at("told", "b", 0),
        at("told", "d", 0),
    ]
}

fn count(host: &Harness<Reminders>) -> u64 {
    host.typed_rows::<u64>("count").remove("all").unwrap_or_default()
}

#[test]
fn a_failure_or_panic_parks_its_event_and_nothing_else() {
    let outcome = check_determinism::<Reminders>("", &failing_log());
    let reasons: Vec<_> = outcome.parked.iter().map(|it| (it.offset, &*it.reason)).collect();
    assert_eq!(
        reasons,
        [(1, "`failing` at offset 1: b fails"), (2, "the plugin panicked: c panics"),]
    );
    let mut host = Harness::<Reminders>::new();
    host.feed(failing_log());
    assert_eq!(count(&host), 3);
}

#[test]
fn later_events_of_a_parked_subject_wait_behind_it() {
    let mut host = Harness::<Reminders>::with_parameters(r#"{"on_failure": "park-subject"}"#);
    host.feed(failing_log()).feed([at("told", "b", 1), at("told", "e", 1)]);
    let offsets: Vec<_> = host.parked().iter().map(|parked| parked.offset).collect();
    assert_eq!(offsets, [1, 2, 3, 5]);
    assert_eq!(count(&host), 3);
}

#[test]
fn a_projection_that_halts_applies_nothing_more() {
    let mut host = Harness::<Reminders>::with_parameters(r#"{"on_failure": "halt"}"#);
    host.feed(failing_log()).feed([at("told", "e", 1)]);
    assert_eq!(host.halted(), Some("`failing` at offset 1: b fails"));
    assert_eq!(count(&host), 1);
}

#[test]
fn wrong_parameters_are_reported_at_setup() {
    for (parameters, why) in [
        (r#"{"wait": 1}"#, "unknown field `wait`"),
        (r#"{"wait_s": -1}"#, "invalid value"),
        ("{", "EOF"),
        (r#"{"on_failure": "laugh"}"#, "on_failure is `laugh`"),
    ] {
        let error = Harness::<Reminders>::try_with_parameters(parameters).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}

#[derive(Tables)]
struct Careless {
    #[table(private)]
    rows: Table<u64>,
    #[table(skip)]
    calls: u64,
}

impl Projection for Careless {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["*"]))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event.kind() {
            "timer" => event.set_timer(event.time(), "a"),
            "emit" => event.emit(NewEvent::new("surprise", &1)?),
            _ => {
                self.calls += 1;
                self.rows.put("calls", self.calls)
            }
        }
    }
}

#[test]
fn an_option_outside_of_the_manifest_is_refused() {
    let mut host = Harness::<Careless>::new();
    host.feed([TestEvent::new("timer").subject("a"), TestEvent::new("emit").subject("b")]);
    let reasons: Vec<_> = host.parked().iter().map(|parked| &*parked.reason).collect();
    assert!(reasons[0].contains("add `.event_time(lateness, tick)`"), "{reasons:?}");
    assert!(reasons[1].contains("add `.emits([\"surprise\"])`"), "{reasons:?}");
    let error = Harness::<Careless>::try_with_parameters(r#"{"a": 1}"#).err().unwrap();
    assert!(error.contains("takes none"), "{error}");
}

#[test]
#[should_panic(expected = "table `rows`, row \"calls\" is Some(\"1\"), else Some(\"3\")")]
fn state_in_memory_is_detected() {
    let events = ["a", "b", "c"].map(TestEvent::new);
    check_determinism::<Careless>("", &events);
}

#[test]
fn a_broken_manifest_is_reported_at_setup() {
    #[derive(Tables)]
    struct Bad {
        #[table(private, name = "Rows")]
        rows: Table<u64>,
    }

    impl Projection for Bad {
        fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
            Ok(lantern_sdk::manifest!().subscribe(["*"]))
        }

        fn apply(&mut self, _: &Event<'_>) -> Result<(), Error> {
            self.rows.delete("a")
        }
    }

    let error = Harness::<Bad>::try_with_parameters("").err().unwrap();
    assert!(error.contains("the table name `Rows` must be"), "{error}");
}
