//! Implements an interpreter of a small language, for tests of sources. Each line of a source is
//! one of:
//!
//! * `name NAME`: the projection's name
//! * `count TYPE`: counts the events of this type by subject
//! * `fail TYPE`: fails on the events of this type
//! * `# …`: a comment
#![forbid(unsafe_code)]

use lantern_sdk::prelude::*;
use lantern_sdk::source;
use serde::Deserialize;

#[derive(Tables)]
struct Toy {
    /// Events by subject.
    counts: Table<Count>,
    #[table(skip)]
    fails: Vec<String>,
    #[table(skip)]
    given: Given,
}

#[derive(Row, Default)]
struct Count {
    #[row(merge = sum)]
    events: u64,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    /// By how much an event raises the count.
    step: u64,
}

impl Default for Given {
    fn default() -> Self {
        Self { step: 1 }
    }
}

impl Projection for Toy {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.given = parameters.parse()?;
        let source = source();
        let mut name = None;
        let mut types = Vec::new();
        for (number, line) in (1..).zip(source.text.lines()) {
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            match verb {
                "" | "#" => {}
                "name" => name = Some(rest.to_owned()),
                "count" => types.push(rest.to_owned()),
                "fail" => {
                    types.push(rest.to_owned());
                    self.fails.push(rest.to_owned());
                }
                _ => {
                    let position = format!("{}:{number}:1", source.name);
                    return Err(Error::new(format!("{position}: `{verb}` is not a command")));
                }
            }
        }
        let name = name.ok_or_else(|| Error::new(format!("{}:1: no `name`", source.name)))?;
        let manifest = Manifest::new(name, "0.1.0", "Counts events");
        Ok(manifest
            .subscribe(types)
            .attributes([Attribute::Subject])
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let count = self.counts.row(event.subject()?)?;
        count.events += self.given.step;
        if self.fails.iter().any(|kind| kind == event.kind()) {
            return Err(Error::new(format!("`{}` fails", event.kind())));
        }
        Ok(())
    }
}

lantern_sdk::export!(Toy);
