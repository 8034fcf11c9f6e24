//! Reads a file of events that the demo sends at the speed of their times.

use std::collections::VecDeque;
use std::path::Path;

use lantern_server::cloudevents::parse_time;
use serde::Deserialize;

use crate::error::{Exit, Failure, Outcome};
use crate::event_file::EventFile;

/// The maximum number of events that are read before they are needed.
const AHEAD_EVENTS: u64 = 1_000;
/// The maximum number of bytes that are read before they are needed.
const AHEAD_BYTES: usize = 1 << 20;

/// The members of an event that the demo needs.
struct EventHeader {
    id: String,
    time_ms: i64,
}

impl EventHeader {
    fn of(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Event {
            id: String,
            time: String,
        }
        let event: Event = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let time =
            parse_time(&event.time).ok_or_else(|| format!("`{}` is not a time", event.time))?;
        Ok(Self { id: event.id, time_ms: time.millis() })
    }
}

/// The events of the file that were not sent yet.
pub(super) struct Flights {
    source: EventFile,
    ahead: VecDeque<(EventHeader, Vec<u8>)>,
    /// The number of events that were sent or skipped.
    pub(super) passed: u64,
}

impl Flights {
    /// Returns the events in `file` that follow the event with the id `last`. If no event has this
    /// id, returns all events.
    pub(super) fn after(file: &Path, last: Option<&str>) -> Outcome<Self> {
        let open = || -> Outcome<Self> {
            Ok(Self { source: EventFile::open(file)?, ahead: VecDeque::new(), passed: 0 })
        };
        let mut flights = open()?;
        let Some(last) = last else { return Ok(flights) };
        while let Some((head, _)) = flights.next()? {
            if head.id == last {
                return Ok(flights);
            }
        }
        // The log contains events of another file, so no event of this file was sent.
        open()
    }

    /// Returns the time of the next event, in milliseconds since 1970.
    pub(super) fn next_time_ms(&mut self) -> Outcome<Option<i64>> {
        self.fill()?;
        Ok(self.ahead.front().map(|(head, _)| head.time_ms))
    }

    /// Writes the events up to the time `time_ms` to `out`, and returns their number.
    pub(super) fn write_until(&mut self, time_ms: i64, out: &mut Vec<u8>) -> Outcome<u64> {
        let mut events = 0;
        while self.next_time_ms()?.is_some_and(|next| next <= time_ms) {
            if let Some((_, line)) = self.next()? {
                out.extend_from_slice(&line);
                events += 1;
            }
        }
        Ok(events)
    }

    fn next(&mut self) -> Outcome<Option<(EventHeader, Vec<u8>)>> {
        self.fill()?;
        let next = self.ahead.pop_front();
        self.passed += u64::from(next.is_some());
        Ok(next)
    }

    fn fill(&mut self) -> Outcome {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        let Some(piece) = self.source.piece(AHEAD_BYTES, AHEAD_EVENTS)? else { return Ok(()) };
        for (number, line) in (piece.first_line..).zip(piece.bytes.split_inclusive(|b| *b == b'\n'))
        {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let head = EventHeader::of(line).map_err(|e| {
                let message = format!("line {number} of the flights cannot be replayed: {e}");
                Failure::new(Exit::Refused, message).help("every event needs `id` and `time`")
            })?;
            self.ahead.push_back((head, line.to_vec()));
        }
        Ok(())
    }
}
