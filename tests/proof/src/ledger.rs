//! Records the events that clients sent: the events that the server acknowledged, with their
//! offsets, and the events without an answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use lantern_tests::Server;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::Value;

use crate::reference_log::ReferenceLog;

/// The source of all events that clients send.
pub(crate) const SOURCE: &str = "client";

/// The number of subjects of probes.
const SUBJECTS: u64 = 12;
/// The time between two events, in milliseconds of event time.
const PACE_MS: u64 = 20;

/// The place of an event in the log: its partition, and the offset in it.
pub(crate) type EventLocation = (u32, u64);

/// An event that a client sends, with its id.
#[derive(Clone)]
struct Sent {
    id: String,
    line: String,
}

/// The account of all events that clients sent.
pub(crate) struct Ledger {
    random: Rng,
    number: u64,
    /// The event time of the next event, in milliseconds.
    clock_ms: u64,
    /// The acknowledged events by id, each with its place in the log if the answer contained it.
    acknowledged: BTreeMap<String, Option<EventLocation>>,
    /// The events that got no answer. Clients must send them again.
    unknown: VecDeque<Sent>,
    /// The number of events acknowledged since this number was last set to 0.
    pub(crate) fresh: u64,
    /// The number of additional bytes in each event.
    padding: usize,
    /// Whether all events are such that no plugin fails or emits because of them.
    harmless: bool,
}

/// The result of a client's request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The server acknowledged all events, so they are in the log.
    Acknowledged,
    /// The server refused them for now, with this status and problem.
    Refused(u16, Value),
    /// There was no answer: the events may be in the log or not.
    Silence,
}

/// The form in which a client sends events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SendMethod {
    /// The client sends one event per request.
    Single,
    /// The client sends JSON arrays of up to this many events.
    Batch(u64),
    /// The client sends lines of JSON, up to this many per request.
    Lines(u64),
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            number: 0,
            clock_ms: 0,
            acknowledged: BTreeMap::new(),
            unknown: VecDeque::new(),
            fresh: 0,
            padding: 0,
            harmless: false,
        }
    }

    /// Returns a ledger of events that make no plugin fail or emit, each with `padding` additional
    /// bytes.
    pub(crate) fn harmless(seed: u64, padding: usize) -> Self {
        Self { padding, harmless: true, ..Self::new(seed) }
    }

    /// Advances event time so far that some windows end.
    pub(crate) fn jump(&mut self) {
        self.clock_ms += self.random.u64(500..4_500);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// Takes up to `count` events to send, first those that got no answer.
    fn next(&mut self, count: u64) -> Vec<Sent> {
        (0..count).map(|_| self.unknown.pop_front().unwrap_or_else(|| self.fresh_event())).collect()
    }

    fn fresh_event(&mut self) -> Sent {
        self.number += 1;
        self.clock_ms += self.random.u64(0..2 * PACE_MS);
        let what = match self.random.u64(0..100) {
            _ if self.harmless => "",
            0..=9 => "emit",
            10..=11 => "fail",
            12..=14 => "need",
            15 => "panic",
            _ => "",
        };
        let subject = format!("s{}", self.random.u64(0..SUBJECTS));
        let id = format!("e{}", self.number);
        // Some events get an earlier time, so they arrive late.
        let at = self.clock_ms.saturating_sub(self.random.u64(0..5) / 4 * 3_000);
        let mut line = line(&id, &subject, at, what);
        if self.padding > 0 {
            let pad: String =
                std::iter::repeat_with(|| self.random.alphanumeric()).take(self.padding).collect();
            line = line.replace(r#""data":{}"#, &format!(r#""data":{{"pad":"{pad}"}}"#));
        }
        Sent { id, line }
    }

    /// Checks that each acknowledged event is in the log, at the place in the answer.
    pub(crate) fn check(&self, mirror: &ReferenceLog) -> Result<()> {
        self.check_locations(|id| mirror.offset(SOURCE, id).map(|offset| (0, offset)))
    }

    /// Like [`Ledger::check`], for a log in which `place` finds a client's event.
    pub(crate) fn check_locations(
        &self,
        location: impl Fn(&str) -> Option<EventLocation>,
    ) -> Result<()> {
        for (id, answered) in &self.acknowledged {
            let found = location(id);
            ensure!(
                found.is_some(),
                "`{id}` was acknowledged (at {answered:?}) and is not in the log"
            );
            ensure!(
                answered.is_none() || *answered == found,
                "`{id}` was acknowledged at {answered:?} and is at {found:?}"
            );
        }
        Ok(())
    }
}

/// Formats an event as a line of JSON.
pub(crate) fn line(id: &str, subject: &str, at_ms: u64, what: &str) -> String {
    let (day, hour) = (1 + at_ms / 86_400_000, at_ms / 3_600_000 % 24);
    let (minute, second, ms) = (at_ms / 60_000 % 60, at_ms / 1_000 % 60, at_ms % 1_000);
    let data = if what.is_empty() { "{}".into() } else { format!(r#"{{"do":"{what}"}}"#) };
    let mut line = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"{SOURCE}","type":"probe.sent","subject":"{subject}""#
    );
    let time = format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
    // A write to a string cannot fail.
    let _ = write!(line, r#","time":"{time}","data":{data}}}"#);
    line
}

/// Sends one request.
///
/// # Errors
/// Fails if an answer of success does not list all events.
pub(crate) async fn try_send(
    server: &Server,
    ledger: &Mutex<Ledger>,
    manner: SendMethod,
) -> Result<Outcome> {
    let (media, count) = match manner {
        SendMethod::Single => ("application/cloudevents+json", 1),
        SendMethod::Batch(most) => ("application/cloudevents-batch+json", most),
        SendMethod::Lines(most) => ("application/x-ndjson", most),
    };
    let events = {
        let mut ledger = ledger.lock();
        let count = if count > 1 { ledger.random.u64(1..=count) } else { 1 };
        ledger.next(count)
    };
    let lines: Vec<_> = events.iter().map(|sent| sent.line.as_str()).collect();
    let body = match manner {
        SendMethod::Batch(_) => format!("[{}]", lines.join(",")),
        SendMethod::Single | SendMethod::Lines(_) => lines.join("\n"),
    };
    let answer = server.request(Method::POST, "/v1/events", media, body.into_bytes()).await;
    let mut ledger = ledger.lock();
    match answer {
        Ok((200, answer)) if !answer.is_null() => {
            acknowledge(&mut ledger, &events, &answer)?;
            Ok(Outcome::Acknowledged)
        }
        Ok((status, answer)) if !answer.is_null() => {
            // If a request of lines fails, some of its events may be in the log.
            ledger.unknown.extend(events);
            Ok(Outcome::Refused(status, answer))
        }
        // If the connection breaks in the middle of an answer, the JSON is incomplete.
        _ => {
            ledger.unknown.extend(events);
            Ok(Outcome::Silence)
        }
    }
}

/// Sends one request. Returns whether the server answered.
///
/// # Errors
/// Fails if the answer is not that all events are in the log.
pub(crate) async fn send(
    server: &Server,
    ledger: &Mutex<Ledger>,
    manner: SendMethod,
) -> Result<bool> {
    match try_send(server, ledger, manner).await? {
        Outcome::Acknowledged => Ok(true),
        Outcome::Refused(status, answer) => bail!("events are answered with {status}: {answer}"),
        Outcome::Silence => Ok(false),
    }
}

fn acknowledge(ledger: &mut Ledger, events: &[Sent], answer: &Value) -> Result<()> {
    let answered = answer["events"].as_array();
    let count =
        answer["appended"].as_u64().unwrap_or(0) + answer["duplicates"].as_u64().unwrap_or(0);
    ensure!(count == events.len() as u64, "{} events are answered with {answer}", events.len());
    for (index, sent) in events.iter().enumerate() {
        let location = answered.and_then(|answered| {
            let event = answered.get(index)?;
            Some((event["partition"].as_u64()?.try_into().ok()?, event["offset"].as_u64()?))
        });
        ensure!(answered.is_none() || location.is_some(), "an event without a location: {answer}");
        ledger.acknowledged.insert(sent.id.clone(), location);
    }
    ledger.fresh += events.len() as u64;
    Ok(())
}

/// Sends events until the server does not answer any more.
///
/// # Errors
/// See [`send`].
pub(crate) async fn keep_sending(
    server: &Server,
    ledger: &Mutex<Ledger>,
    manner: SendMethod,
) -> Result<()> {
    while send(server, ledger, manner).await? {}
    Ok(())
}

/// Sends every event that had no answer again, until all are acknowledged.
///
/// # Errors
/// See [`send`]. Also if the server does not answer.
pub(crate) async fn settle(server: &Server, ledger: &Mutex<Ledger>) -> Result<()> {
    loop {
        let left = ledger.lock().unknown.len();
        if left == 0 {
            return Ok(());
        }
        ensure!(send(server, ledger, SendMethod::Single).await?, "no answer of a server that runs");
    }
}
