//! Tests which steps of traced events the engine reports, and that the reports change nothing.

use lantern_core::{
    EventRef, EventTraces, FoldCall, FoldOutcome, Offset, SentFrame, ShardId, TraceTime,
    TracedCommit, TracedEvent,
};

use super::*;

/// Records what the engine reports. Events with a `traceparent` belong to a trace.
#[derive(Default)]
struct Recorder {
    steps: Mutex<Vec<String>>,
    /// Events that were appended before this time are not recorded.
    wanted_from: Mutex<Option<Timestamp>>,
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.steps.lock())
    }
}

impl EventTraces for Recorder {
    fn now(&self) -> TraceTime {
        TraceTime::default()
    }

    fn wants(&self, appended: Option<Timestamp>) -> bool {
        *self.wanted_from.lock() <= appended
    }

    fn folded<'a>(
        &self,
        _: &ShardId,
        call: &FoldCall,
        outcome: FoldOutcome<'_>,
        events: &mut dyn Iterator<Item = (Offset, EventRef<'a>)>,
    ) -> Vec<TracedEvent> {
        let traced: Vec<_> = events
            .filter(|(_, event)| event.extensions.contains("traceparent"))
            .map(|(offset, _)| TracedEvent { offset, trace: [1; 16], span: [2; 8] })
            .collect();
        let (from, to) = (call.first, call.next);
        self.steps.lock().extend(
            traced.iter().map(|event| format!("{} in {from}..{to} {outcome:?}", event.offset)),
        );
        traced
    }

    fn committed(&self, _: &ShardId, commit: &TracedCommit, events: &[TracedEvent]) {
        let offsets: Vec<_> = events.iter().map(|event| event.offset.0).collect();
        let TracedCommit { first, next, rows, published, .. } = commit;
        let step = format!("{offsets:?} in commit {first}..{next}, {rows} rows, {published}");
        self.steps.lock().push(step);
    }

    fn sent(&self, _: &SentFrame<'_>) {}
}

fn traced(n: i64, subject: &str, data: &str) -> Event {
    Event { extensions: r#"{"traceparent":"x"}"#.into(), ..event(n, subject, data) }
}

fn world(on_failure: OnFailure, recorder: Option<&Arc<Recorder>>) -> World {
    let traces = recorder.map(|recorder| Arc::<Recorder>::clone(recorder) as _);
    let world = World::with_traces(EngineConfig::default(), MemoryLog::new(1, 50), traces);
    world.push("a", meter(on_failure, Bad::Name));
    // A batch ends at the first watermark. So the first event is in a batch of its own.
    world.log.append_to(P0, [event(0, "first", "1")]);
    world.settle();
    world
}

#[test]
fn a_traced_event_is_reported_when_it_is_folded_and_when_it_is_committed() {
    let recorder = Arc::new(Recorder::default());
    let world = world(OnFailure::ParkEvent, Some(&recorder));
    world.log.append_to(P0, [event(1, "a", "1"), traced(2, "b", "1"), event(3, "c", "1")]);
    world.settle();
    // Each event writes a row of each of the two tables.
    let expected = ["2 in 1..4 Applied", "[2] in commit 1..4, 6 rows, true"];
    assert_eq!(recorder.take(), expected);
    world.log.append_to(P0, [event(4, "a", "1")]);
    world.settle();
    assert!(recorder.take().is_empty(), "an event without a trace is not reported");
}

#[test]
fn a_parked_event_and_those_that_wait_behind_it_are_reported() {
    let recorder = Arc::new(Recorder::default());
    let world = world(OnFailure::ParkSubject, Some(&recorder));
    world.log.append_to(P0, [traced(1, "a", "bad"), traced(2, "a", "1"), traced(3, "b", "1")]);
    world.settle();
    let steps = recorder.take();
    let fold = |words: &str| steps.iter().filter(|step| step.contains(words)).count();
    assert_eq!(fold("1 in 1..2 Parked(\"bad data\")"), 1, "{steps:?}");
    assert_eq!(fold("2 in 2..3 Waiting"), 1, "{steps:?}");
    assert_eq!((fold("3 in"), fold("Applied"), fold("commit")), (1, 1, 1), "{steps:?}");
    let (commit, folds) = steps.split_last().unwrap();
    assert_eq!(folds.len(), 3);
    assert!(["[1, 2, 3]", "1..4"].iter().all(|words| commit.contains(words)), "{commit}");
}

#[test]
fn old_events_are_not_reported() {
    let recorder = Arc::new(Recorder::default());
    *recorder.wanted_from.lock() = Some(Timestamp::LAST);
    let world = world(OnFailure::ParkEvent, Some(&recorder));
    world.log.append_to(P0, [traced(1, "a", "1")]);
    world.settle();
    assert!(recorder.take().is_empty());
}

#[test]
fn the_state_does_not_depend_on_traces() {
    let recorder = Arc::new(Recorder::default());
    let states = [None, Some(&recorder)].map(|recorder| {
        let world = world(OnFailure::ParkSubject, recorder);
        for n in 1..200 {
            let data = if n % 50 == 7 { "bad" } else { "1" };
            let event = if n % 3 == 0 { traced(n, "s", data) } else { event(n, "t", data) };
            world.log.append_to(P0, [event]);
            if n % 20 == 0 {
                world.settle();
            }
        }
        world.settle();
        let log: Vec<_> = world.log.events(P0).into_iter().map(|(_, event)| event).collect();
        (world.state(), log)
    });
    assert!(recorder.take().len() > 60);
    assert_eq!(states[0], states[1]);
}
