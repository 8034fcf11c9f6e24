//! Implements a guest for tests of the host's limits. An event can name a misbehaviour, which the
//! guest then shows. The guest counts all other events correctly, so that the counts can be
//! compared with the log.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::Events;
use lantern_sdk::prelude::*;
use serde::Deserialize;

#[derive(Tables)]
struct Rogue {
    /// Events by subject.
    seen: Table<Seen>,
    /// Values that are not part of a row.
    #[table(skip)]
    calls: u64,
    #[table(skip)]
    parameters: Given,
}

#[derive(Row, Default)]
struct Seen {
    #[row(merge = sum)]
    events: u64,
    /// With `cheat_from`, how many events this instance has seen.
    calls: u64,
    text: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    /// Never misbehaves.
    fixed: bool,
    /// From this offset on, rows depend on the instance's memory.
    cheat_from: Option<u64>,
    /// Parks by subject instead of by event.
    by_subject: bool,
    /// `setup` never returns.
    endless_setup: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Order<'a> {
    #[serde(borrow, rename = "do")]
    what: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl Projection for Rogue {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.parameters = parameters.parse()?;
        if self.parameters.endless_setup {
            endless();
        }
        let on_failure = match self.parameters.by_subject {
            true => OnFailure::ParkSubject,
            false => OnFailure::ParkEvent,
        };
        Ok(lantern_sdk::manifest!()
            .subscribe(["probe.*"])
            .attributes([Attribute::Subject])
            .emits(["echo.sent"])
            .on_failure(on_failure)
            .parameters(r#"{"type":"object"}"#))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let order: Order<'_> = event.data()?;
        let subject = event.subject()?.to_owned();
        self.calls += 1;
        let cheats = self.parameters.cheat_from.is_some_and(|from| event.offset() >= from);
        let calls = if cheats { self.calls } else { 0 };
        let row = self.seen.row(&subject)?;
        row.events += 1;
        row.calls = calls;
        row.text = order.text.into_owned();
        if order.what == "emit" {
            event.emit(NewEvent::new("echo.sent", &subject)?.subject(&subject))?;
        }
        if !self.parameters.fixed {
            self.misbehave(&order.what)?;
        }
        Ok(())
    }

    fn prepare(&mut self, events: Events<'_>) -> Result<(), Error> {
        for event in events {
            let order: Order<'_> = event.data()?;
            if order.what == "fail-unnamed" && !self.parameters.fixed {
                return Err(Error::new("told to fail, and not to say why"));
            }
        }
        Ok(())
    }
}

impl Rogue {
    fn misbehave(&mut self, what: &str) -> Result<(), Error> {
        match what {
            "fail" => return Err(Error::new("told to fail")),
            // The event itself may be valid: it can be applied later.
            "need" if self.seen.get("needed")?.is_none() => {
                return Err(Error::new("nothing is seen of `needed` yet"));
            }
            "panic" => panic!("told to panic"),
            "loop" => endless(),
            "recurse" => drop(deeper(&[0; 64], 1)),
            "eat" => {
                let mut eaten: Vec<Vec<u8>> = Vec::new();
                loop {
                    eaten.push(vec![1; 1 << 20]);
                    std::hint::black_box(&eaten);
                }
            }
            "scan" => loop {
                std::hint::black_box(self.seen.scan(&Scan::all())?);
            },
            "key" => self.seen.put("k".repeat(10 << 20).as_str(), Seen::default())?,
            "rows" => {
                for number in 0..400_000_u64 {
                    self.seen.put(number, Seen { text: "x".repeat(64), ..Seen::default() })?;
                }
            }
            "log" => {
                for _ in 0..100_000 {
                    lantern_sdk::log::info("x".repeat(1_000));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn endless() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

#[expect(unconditional_recursion, reason = "running out of stack is the point")]
fn deeper(above: &[u64; 64], depth: u64) -> u64 {
    let mut here = *above;
    here[(depth % 64) as usize] = std::hint::black_box(depth);
    deeper(&here, depth + 1) + here[0]
}

lantern_sdk::export!(Rogue);
