//! Checks where each emitted event is: in the log, still in the outbox, refused by the log, or
//! dropped.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use lantern_core::{Event, ReadStore, UNREADABLE_KIND, UNREADABLE_TYPE, emitted_id};
use lantern_engine::fuzzing;

use crate::echo;
use crate::model::{Choice, Emitted};
use crate::test_projection::{CLOSED, LARGE};

/// The content of an emitted event, without its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct What {
    tenant: String,
    subject: String,
    data: String,
    depth: u32,
}

/// Emitted events, with their ids as keys.
pub(super) type ById = BTreeMap<String, What>;

impl From<&Emitted> for What {
    fn from(emitted: &Emitted) -> Self {
        Self {
            tenant: emitted.tenant.clone(),
            subject: emitted.subject.clone(),
            data: emitted.data.clone(),
            depth: emitted.depth,
        }
    }
}

impl From<&Event> for What {
    fn from(event: &Event) -> Self {
        Self {
            tenant: event.tenant.clone(),
            subject: event.subject.clone(),
            data: String::from_utf8_lossy(&event.data).into_owned(),
            depth: event.as_ref().depth(),
        }
    }
}

/// An emitted event that the log refused to accept.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) id: String,
    cause: u64,
    tenant: String,
    subject: String,
    data: Vec<u8>,
}

impl Refused {
    /// Returns the refused events that are set aside in the outbox of `store`.
    pub(super) fn of(store: &dyn ReadStore) -> Result<Vec<Self>> {
        let records = fuzzing::refused(store)?;
        let refused = records.into_iter().map(|record| Self {
            cause: record.offset.0,
            id: record.event.id,
            tenant: record.event.tenant,
            subject: record.event.subject,
            data: record.event.data,
        });
        Ok(refused.collect())
    }

    /// Returns whether the operator's choice includes this event.
    pub(super) fn is_chosen(&self, choice: &Choice) -> bool {
        match choice {
            Choice::All => true,
            Choice::Subject(tenant, subject) => self.tenant == *tenant && self.subject == *subject,
            Choice::Offset(offset) => self.cause == *offset,
        }
    }
}

/// Everything that is known about the events that all versions of the meter emitted.
#[derive(Default)]
pub(super) struct Account<'a> {
    /// The events that must have been sent to the log.
    pub(super) expected: ById,
    /// The events that the log may or may not contain.
    pub(super) perhaps: Option<&'a ById>,
    /// The refused events that are set aside in an outbox.
    pub(super) refused: Vec<Refused>,
    /// The events that the log refused and that were then dropped, or deleted with their version.
    pub(super) gone: Option<&'a BTreeSet<String>>,
}

impl Account<'_> {
    /// Checks that each emitted event is in at most one place. If `whole`, each expected event must
    /// be in exactly one place, and each event must be expected. Otherwise events may be missing or
    /// unexpected: some versions may be in the middle of a tick, and the model has no states within
    /// a tick.
    pub(super) fn check(&self, events: &[Event], whole: bool) -> Result<()> {
        let perhaps = |id: &str| self.perhaps.and_then(|perhaps| perhaps.get(id));
        let gone = |id: &String| self.gone.is_some_and(|gone| gone.contains(id));
        let mut places = BTreeSet::new();
        for event in events.iter().filter(|event| event.kind == CLOSED) {
            let what = What::from(event);
            ensure!(!gone(&event.id), "`{}` was dropped, and is in the log", event.id);
            match self.expected.get(&event.id) {
                Some(other) if *other == what => drop(places.insert(event.id.clone())),
                None if perhaps(&event.id) == Some(&what) => (),
                None if !whole => (),
                other => bail!("emitted `{}` is {what:?}, and should be {other:?}", event.id),
            }
        }
        for refused in &self.refused {
            let Refused { id, data, .. } = refused;
            ensure!(data == LARGE.as_bytes(), "{refused:?} is set aside, and is not large");
            ensure!(!gone(id), "`{id}` was dropped, and is set aside");
            let known = self.expected.contains_key(id) || perhaps(id).is_some();
            ensure!(known || !whole, "{refused:?} is set aside, and was not emitted");
            ensure!(places.insert(id.clone()), "`{id}` is set aside, and is in the log or twice");
        }
        let missing: Vec<_> =
            self.expected.keys().filter(|id| !places.contains(*id) && !gone(id)).collect();
        ensure!(
            !whole || missing.is_empty(),
            "of {} emitted events, {missing:?} are in no place",
            self.expected.len()
        );
        Ok(())
    }
}

/// The answers that the second projection must give to the events of a log.
#[derive(Default)]
pub(super) struct Answers {
    expected: ById,
    /// The offsets of events that the second projection must park. Either its answer would exceed
    /// the emit depth, or the event is an unreadable record of unknown type.
    pub(super) parked: Vec<u64>,
}

impl Answers {
    /// Computes the answers to `events`. Their ids begin with `name`.
    pub(super) fn to(events: &[Event], name: &str, depth_max: u32) -> Self {
        let mut answers = Self::default();
        for (offset, event) in (0..).zip(events) {
            if event.kind == UNREADABLE_TYPE && !event.extensions.contains(UNREADABLE_KIND) {
                answers.parked.push(offset);
            }
            if event.kind != CLOSED {
                continue;
            }
            let Some((subject, data)) = echo::answer(&event.subject, &event.data) else { continue };
            let depth = event.as_ref().depth() + 1;
            if depth > depth_max {
                answers.parked.push(offset);
                continue;
            }
            let id = emitted_id(name, 0, offset, answers.expected.len() as u64);
            let (tenant, data) = (event.tenant.clone(), String::from_utf8_lossy(&data).into());
            answers.expected.insert(id, What { tenant, subject, data, depth });
        }
        answers
    }

    /// Checks that every answer in the log is expected and occurs once. If `whole`, no answer may
    /// be missing.
    pub(super) fn check(&self, events: &[Event], whole: bool) -> Result<()> {
        let mut found = 0;
        for event in events.iter().filter(|event| echo::is_answer(event)) {
            let (what, expected) = (What::from(event), self.expected.get(&event.id));
            ensure!(
                expected == Some(&what),
                "answer `{}` is {what:?}, and should be {expected:?}",
                event.id
            );
            found += 1;
        }
        let all = self.expected.len();
        ensure!(!whole || found == all, "{found} of {all} answers are in the log");
        Ok(())
    }
}
