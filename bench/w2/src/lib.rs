//! Implements the projection of the benchmark W2: hourly final windows per group of keys, and
//! sessions per key, over events of 90 days.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use lantern_sdk::window::{Combine, OpenSessions, OpenWindows, Windows};
use serde::Deserialize;

const HOUR: Duration = Duration::from_secs(3_600);
/// The time after its last event at which a session ends.
const GAP: Duration = Duration::from_secs(1_800);
const LATENESS: Duration = Duration::from_secs(300);

const PARAMETERS: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "tick_s": {
            "type": "integer",
            "minimum": 1,
            "default": 60,
            "description": "the tick of event time, in seconds"
        }
    }
}"#;

#[derive(Tables)]
struct W2 {
    /// Events and cents per hour and group, once the hour is over.
    group_hour: Table<GroupHour>,
    /// Sessions per key, once they are over.
    sessions: Table<Session>,
    /// Events per group that came too late for a window or a session.
    late: Table<Late>,
    #[table(private)]
    open_hours: OpenWindows<Sums>,
    #[table(private)]
    open_sessions: OpenSessions<Sums>,
}

#[derive(Row, Default)]
struct GroupHour {
    #[row(merge = sum)]
    events: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Row)]
struct Session {
    end: Timestamp,
    #[row(merge = sum)]
    events: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Row, Default)]
struct Late {
    #[row(merge = sum)]
    windows: u64,
    #[row(merge = sum)]
    sessions: u64,
}

/// The values of a window or session that is still open.
#[derive(Row, Default)]
struct Sums {
    events: u64,
    cents: i64,
}

impl Sums {
    fn add(&mut self, cents: i64) {
        self.events += 1;
        self.cents += cents;
    }
}

impl Combine for Sums {
    fn combine(&mut self, later: Self) {
        self.events += later.events;
        self.cents += later.cents;
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tick_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tick_s: 60 }
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    group: Cow<'a, str>,
    cents: i64,
}

impl Projection for W2 {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        let settings: Settings = parameters.parse()?;
        if settings.tick_s == 0 {
            return Err(Error::new("parameters: tick_s is 0, give at least 1"));
        }
        Ok(lantern_sdk::manifest!()
            .subscribe(["visit.step"])
            .event_time(LATENESS, Duration::from_secs(settings.tick_s))
            .on_failure(OnFailure::ParkEvent)
            .parameters(PARAMETERS))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let data: Data<'_> = event.data()?;
        let (key, group, hours) = (&*data.key, &*data.group, Windows::tumbling(HOUR));
        if self.open_hours.add(event, hours, group, |sums| sums.add(data.cents))? > 0 {
            self.late.row(group)?.windows += 1;
        }
        let joined = self.open_sessions.add(event, GAP, key, |sums| sums.add(data.cents))?;
        if joined.is_none() {
            self.late.row(group)?.sessions += 1;
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.open_hours.close(timer)? {
            let Sums { events, cents } = closed.value;
            self.group_hour.put((closed.window, &closed.key), GroupHour { events, cents })?;
        }
        for closed in self.open_sessions.close(timer)? {
            let Sums { events, cents } = closed.value;
            let row = Session { end: closed.window.end, events, cents };
            self.sessions.put((closed.window, &closed.key), row)?;
        }
        Ok(())
    }
}

lantern_sdk::export!(W2);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_sdk::testing::{TestEvent, check_determinism};

    use super::*;

    fn step(time: &str, key: &str, cents: i64) -> TestEvent {
        let data = format!(r#"{{"key":"{key}","group":"g1","cents":{cents}}}"#);
        TestEvent::new("visit.step").at(time).data(data)
    }

    #[test]
    fn windows_and_sessions_close_once_and_late_events_are_counted() {
        let events = [
            step("2025-01-01T00:10:00Z", "a", 1),
            step("2025-01-01T00:30:00Z", "a", 2),
            step("2025-01-01T00:50:00Z", "b", 4),
            // The hour, and the session of `a` until 01:00, end at 01:05.
            step("2025-01-01T01:10:00Z", "b", 8),
            // The event is too late for the hour and for the session.
            step("2025-01-01T00:20:00Z", "a", 16),
            // The event is too late for the hour. `b` still has a session at that time.
            step("2025-01-01T00:55:00Z", "b", 32),
            step("2025-01-01T03:00:00Z", "c", 64),
        ];
        let mut host = lantern_sdk::testing::Harness::<W2>::new();
        host.feed(events.clone());
        assert!(host.parked().is_empty() && host.timer_failures().is_empty());
        let rows = |table| {
            let rows = host.rows(table).into_iter();
            rows.map(|(key, row)| format!("{key} {row}")).collect::<Vec<_>>()
        };
        assert_eq!(
            rows("group_hour"),
            [
                r#"2025-01-01T00:00:00Z/g1 {"cents":7,"events":3}"#,
                r#"2025-01-01T01:00:00Z/g1 {"cents":8,"events":1}"#
            ]
        );
        assert_eq!(
            rows("sessions"),
            [
                r#"2025-01-01T00:10:00Z/a {"cents":3,"end":"2025-01-01T01:00:00Z","events":2}"#,
                r#"2025-01-01T00:50:00Z/b {"cents":44,"end":"2025-01-01T01:40:00Z","events":3}"#
            ]
        );
        assert_eq!(rows("late"), [r#"g1 {"sessions":1,"windows":2}"#]);
        for tick in [1, 60] {
            check_determinism::<W2>(&format!(r#"{{"tick_s":{tick}}}"#), &events);
        }
    }
}
