//! Tests windows. Each is compared with a calculation over the whole log.

use std::collections::{BTreeMap, BTreeSet};

use lantern_sdk::prelude::*;
use lantern_sdk::testing::{TestEvent, check_determinism};
use lantern_sdk::window::{OpenSessions, OpenWindows, Recent, Windows};
use proptest::prelude::*;
use serde::Deserialize;

const LATENESS_S: i64 = 4;
const TICK_S: i64 = 3;
const SIZE_S: i64 = 10;
const HOP_S: i64 = 5;

/// Has every kind of window over the same events. The keys are subjects, within tenants if there
/// are any.
#[derive(Tables)]
struct All {
    #[table(private)]
    hopping: Table<u64>,
    #[table(private)]
    open_hopping: OpenWindows<u64>,
    #[table(private)]
    sessions: Table<u64>,
    #[table(private)]
    growing_sessions: Table<u64>,
    #[table(private)]
    open_sessions: OpenSessions<u64>,
    #[table(private)]
    sliding: Table<u64>,
    #[table(private)]
    current: Table<u64>,
    #[table(private)]
    recent: Recent<u64>,
    #[table(private)]
    late: Table<u64>,
}

#[derive(Deserialize)]
struct Amount {
    amount: u64,
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds as u64)
}

/// The key under which the events of a subject are added.
enum Of<'a> {
    Untenanted(&'a str),
    Tenant(InTenant<'a, &'a str>),
}

impl Key for Of<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Untenanted(subject) => subject.write(out),
            Self::Tenant(key) => key.write(out),
        }
    }

    fn tenant(&self) -> Option<&str> {
        match self {
            Self::Untenanted(_) => None,
            Self::Tenant(key) => key.tenant(),
        }
    }
}

impl Projection for All {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["*"])
            .attributes([Attribute::Subject, Attribute::Tenant])
            .event_time(seconds(LATENESS_S), seconds(TICK_S)))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let Amount { amount } = event.data()?;
        let (tenant, subject) = (event.tenant()?, event.subject()?);
        let key = || match tenant {
            "" => Of::Untenanted(subject),
            _ => Of::Tenant(InTenant(tenant, subject)),
        };
        let windows = Windows::hopping(seconds(SIZE_S), seconds(HOP_S));
        let late = self.open_hopping.add(event, windows, key(), |sum| *sum += amount)?;
        *self.late.row("hopping")? += late as u64;

        let gap = seconds(HOP_S);
        match self.open_sessions.add(event, gap, key(), |sum| *sum += amount)? {
            Some(session) => {
                let row = |start| (tenant, subject, start);
                for start in session.absorbed {
                    self.growing_sessions.delete(row(start))?;
                }
                let sum = *session.value;
                self.growing_sessions.put(row(session.window.start), sum)?;
            }
            None => *self.late.row("sessions")? += 1,
        }

        match self.recent.add(event, seconds(SIZE_S), key(), amount)? {
            Some(slide) => self.current.put((tenant, subject), slide.values().sum())?,
            None => *self.late.row("recent")? += 1,
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.open_hopping.close(timer)? {
            let key = (&closed.tenant, &closed.key, closed.window);
            assert!(self.hopping.get(key)?.is_none(), "written once");
            self.hopping.put(key, closed.value)?;
        }
        for session in self.open_sessions.close(timer)? {
            let key = (&session.tenant, &session.key, session.window);
            assert!(self.sessions.get(key)?.is_none(), "written once");
            self.sessions.put(key, session.value)?;
        }
        if let Some(advanced) = self.recent.advance(timer)? {
            for slide in advanced.settled() {
                let key = (&advanced.tenant, &advanced.key, slide.at);
                assert!(self.sliding.get(key)?.is_none(), "written once");
                self.sliding.put(key, slide.values().sum())?;
            }
            let key = (&advanced.tenant, &advanced.key);
            self.current.put(key, advanced.current().values().sum())?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Told {
    tenant: &'static str,
    subject: &'static str,
    time: i64,
    amount: u64,
    /// The watermark when the event arrived.
    watermark: i64,
}

/// Generates events whose times increase by small steps. Some are out of order, within and beyond
/// the allowed lateness.
fn told() -> impl Strategy<Value = Vec<Told>> {
    let event = (
        prop::sample::select(vec!["", "", "t/1", "t2"]),
        prop::sample::select(vec!["a", "b/c"]),
        0..6_i64,
        -12..4_i64,
        1..9_u64,
    );
    prop::collection::vec(event, 1..60).prop_map(|events| {
        let mut now = 0;
        let mut newest = i64::MIN;
        let mut all = Vec::new();
        for (tenant, subject, step, disorder, amount) in events {
            let watermark = match newest {
                i64::MIN => i64::MIN,
                _ => (newest - LATENESS_S).div_euclid(TICK_S) * TICK_S,
            };
            now += step;
            let time = now + disorder.min(0);
            newest = newest.max(time);
            all.push(Told { tenant, subject, time, amount, watermark });
        }
        // An event that is much later ends all windows before it.
        all.push(Told {
            tenant: "",
            subject: "end",
            time: now + 1_000,
            amount: 1,
            watermark: (newest - LATENESS_S).div_euclid(TICK_S) * TICK_S,
        });
        all
    })
}

type Sums = BTreeMap<String, u64>;

fn key(told: &Told, time: i64) -> String {
    (told.tenant, told.subject, Timestamp::from_seconds(time)).to_key()
}

fn hopping(log: &[Told]) -> (Sums, u64) {
    let (mut sums, mut late) = (Sums::new(), 0);
    for told in log.iter().filter(|told| told.subject != "end") {
        for start in (-40..1_000).map(|hop| hop * HOP_S) {
            if !(start..start + SIZE_S).contains(&told.time) {
                continue;
            }
            if start + SIZE_S <= told.watermark {
                late += 1;
            } else {
                *sums.entry(key(told, start)).or_default() += told.amount;
            }
        }
    }
    (sums, late)
}

/// A session: its start, its end, its sum, and whether it is closed.
type Session = (i64, i64, u64, bool);

/// Calculates sessions by their definition. Sessions that overlap are joined into one. If the
/// watermark has passed a session, the session stays closed. If the event alone would form a
/// session that is already closed, the event counts only if it is within an open session.
fn sessions(log: &[Told]) -> (Sums, u64) {
    let mut late = 0;
    let mut all: BTreeMap<(&str, &str), Vec<Session>> = BTreeMap::new();
    for told in log {
        for sessions in all.values_mut() {
            for session in sessions {
                session.3 |= session.1 <= told.watermark;
            }
        }
        let sessions = all.entry((told.tenant, told.subject)).or_default();
        let (mut start, mut end, mut sum) = (told.time, told.time + HOP_S, told.amount);
        let touches = |it: &Session| !it.3 && it.0 < told.time + HOP_S && told.time < it.1;
        let within = |it: &Session| touches(it) && it.0 <= told.time;
        if end <= told.watermark && !sessions.iter().any(within) {
            late += 1;
            continue;
        }
        sessions.retain(|it| {
            if touches(it) {
                start = start.min(it.0);
                end = end.max(it.1);
                sum += it.2;
            }
            !touches(it)
        });
        sessions.push((start, end, sum, false));
    }
    let mut sums = Sums::new();
    for ((tenant, subject), sessions) in all {
        for (start, _, sum, _) in sessions {
            let key = (tenant, subject, Timestamp::from_seconds(start)).to_key();
            *sums.entry(key).or_default() += sum;
        }
    }
    (sums, late)
}

fn sliding(log: &[Told]) -> (Sums, u64) {
    let taken = |told: &&Told| told.time + SIZE_S > told.watermark;
    let kept: Vec<&Told> = log.iter().filter(taken).collect();
    let mut sums = Sums::new();
    for (place, told) in log.iter().enumerate() {
        if told.subject == "end" || told.time < told.watermark {
            continue;
        }
        // The window is returned when the watermark passes it. Events that arrive after that are
        // too late for the window.
        let sum = log.iter().enumerate().filter(|(other_place, other)| {
            (other.tenant, other.subject) == (told.tenant, told.subject)
                && (told.time - SIZE_S + 1..=told.time).contains(&other.time)
                && (*other_place <= place || other.watermark <= told.time)
                && taken(other)
        });
        sums.insert(key(told, told.time), sum.map(|(_, other)| other.amount).sum());
    }
    (sums, (log.len() - kept.len()) as u64)
}

fn sums(rows: &BTreeMap<String, Vec<u8>>) -> Sums {
    let number = |row: &Vec<u8>| String::from_utf8_lossy(row).parse().unwrap();
    rows.iter().map(|(key, row)| (key.clone(), number(row))).collect()
}

#[test]
fn an_event_long_past_brings_no_session_back_to_the_start_of_a_closed_one() {
    let told = |seconds: i64, amount: u64| {
        TestEvent::new("told")
            .subject("a")
            .time(Timestamp::from_seconds(seconds))
            .data(format!(r#"{{"amount": {amount}}}"#))
    };
    // After the event at 13, the session from 4 to 9 is closed. The session that begins at 8 is
    // open, and a session of an event at 4 would touch it. After the event at 19, the watermark is
    // 15, so the event at 9 would be late in a session of its own.
    let log = [(4, 1), (13, 2), (8, 4), (4, 8), (9, 16), (16, 32), (19, 64), (9, 128), (1_000, 0)];
    let outcome = check_determinism::<All>("", &log.map(|(at, amount)| told(at, amount)));
    assert_eq!(outcome.parked, vec![]);
    let key = |seconds| ("", "a", Timestamp::from_seconds(seconds)).to_key();
    let expected = [(key(4), 1), (key(8), 2 + 4 + 16 + 32 + 64 + 128)];
    assert_eq!(sums(&outcome.tables["sessions"]), BTreeMap::from(expected));
    assert_eq!(sums(&outcome.tables["late"])["sessions"], 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn windows_are_what_a_computation_over_all_events_says(log in told()) {
        let events: Vec<TestEvent> = log
            .iter()
            .map(|told| {
                TestEvent::new("told")
                    .tenant(told.tenant)
                    .subject(told.subject)
                    .time(Timestamp::from_seconds(told.time))
                    .data(format!(r#"{{"amount": {}}}"#, told.amount))
            })
            .collect();
        let outcome = check_determinism::<All>("", &events);
        prop_assert_eq!(&outcome.parked, &vec![]);
        let late = sums(&outcome.tables["late"]);
        let late = |name: &str| late.get(name).copied().unwrap_or_default();

        let (expected, expected_late) = hopping(&log);
        prop_assert_eq!(sums(&outcome.tables["hopping"]), expected);
        prop_assert_eq!(late("hopping"), expected_late);

        let (expected, expected_late) = sessions(&log);
        let ended: Sums = expected
            .iter()
            .filter(|(key, _)| !key.contains("/end/"))
            .map(|(key, sum)| (key.clone(), *sum))
            .collect();
        prop_assert_eq!(sums(&outcome.tables["sessions"]), ended);
        prop_assert_eq!(sums(&outcome.tables["growing_sessions"]), expected);
        prop_assert_eq!(late("sessions"), expected_late);

        let (expected, expected_late) = sliding(&log);
        prop_assert_eq!(sums(&outcome.tables["sliding"]), expected);
        prop_assert_eq!(late("recent"), expected_late);

        // After the windows have ended, they have no rows and no current values.
        let end = BTreeSet::from(["/end".to_owned()]);
        for (key, sum) in sums(&outcome.tables["current"]) {
            prop_assert_eq!(sum, u64::from(end.contains(&key)), "{}", key);
        }
        prop_assert_eq!(outcome.tables["open_hopping"].len(), 2);
        prop_assert_eq!(outcome.tables["open_sessions"].len(), 1);
        prop_assert_eq!(outcome.tables["recent"].len(), 1);
        prop_assert_eq!(outcome.timers.len(), 4);
    }
}
