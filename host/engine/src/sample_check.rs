//! Looks for the members of event data that a plugin declares in a sample of the log.
//!
//! A misspelled member causes no error: it is missing in every event, and a sum over it stays 0.
//! Therefore the answer to an upload contains a warning if a declared member has no value in any
//! event of the sample.

use std::collections::{BTreeMap, BTreeSet};

use lantern_core::{FieldKind, Manifest, Member, decode_members};
use serde_json::{Map, Value};

use crate::event_list::EventList;

/// The maximum number of event types that a warning names.
const TYPES_MAX: usize = 3;

/// Counts what the events of the sample have under the name of one member.
#[derive(Default)]
struct MemberCounts {
    /// The number of events in which the member has a value of its kind.
    valid: u64,
    /// For each event type, the number of events in which the member is missing or null.
    missing: BTreeMap<String, u64>,
    /// For each event type, the number of events whose member is of another kind than declared.
    mismatched: BTreeMap<String, u64>,
}

/// Returns a warning for each member declared in `manifest` that has no value in any event of
/// `sample`. Each is a sentence for the person who uploads the plugin.
#[must_use]
pub fn sample_warnings(manifest: &Manifest, sample: &[EventList]) -> Vec<String> {
    if manifest.members.is_empty() {
        return Vec::new();
    }
    let mut counted = Sample::new(manifest);
    sample.iter().for_each(|events| counted.add(events));
    counted.warnings()
}

struct Sample<'a> {
    manifest: &'a Manifest,
    /// For each event type to which the plugin subscribes, the number of events in the sample.
    events: BTreeMap<String, u64>,
    counts: Vec<MemberCounts>,
    /// The names of all members that occur in the sample.
    names: BTreeSet<String>,
}

impl<'a> Sample<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let counts = manifest.members.iter().map(|_| MemberCounts::default()).collect();
        Self { manifest, events: BTreeMap::new(), counts, names: BTreeSet::new() }
    }

    fn add(&mut self, sample: &EventList) {
        let filter = self.manifest.filter();
        for chunk in sample.chunks() {
            let (events, types) = (&chunk.events, chunk.events.type_names());
            let data = &events.columns().data;
            let columns = decode_members(&self.manifest.members, data);
            for (index, kind) in events.types().iter().enumerate() {
                let kind = types[usize::from(*kind)].as_str();
                if !filter.matches(kind) {
                    continue;
                }
                *self.events.entry(kind.to_owned()).or_default() += 1;
                if let Ok(data) = serde_json::from_slice::<Map<String, Value>>(data.get(index)) {
                    self.names.extend(data.into_iter().map(|(name, _)| name));
                }
                for (counts, column) in self.counts.iter_mut().zip(&columns) {
                    if column.validity[index / 8] >> (index % 8) & 1 == 1 {
                        counts.valid += 1;
                    } else if column.mismatched.binary_search(&(index as u32)).is_ok() {
                        *counts.mismatched.entry(kind.to_owned()).or_default() += 1;
                    } else {
                        *counts.missing.entry(kind.to_owned()).or_default() += 1;
                    }
                }
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let members = self.manifest.members.iter().zip(&self.counts);
        members.filter_map(|(member, counts)| self.warning(member, counts)).collect()
    }

    fn warning(&self, member: &Member, counts: &MemberCounts) -> Option<String> {
        if counts.valid > 0 || self.events.is_empty() {
            return None;
        }
        let name = &member.name;
        if !counts.mismatched.is_empty() {
            let events = self.in_events(&counts.mismatched);
            return Some(format!("`data.{name}` is not {} in {events}", words(member.kind)));
        }
        let events = self.in_events(&counts.missing);
        let declared = |other: &&String| self.manifest.members.iter().all(|it| it.name != **other);
        let similar = self
            .names
            .iter()
            .filter(declared)
            .map(|other| (strsim::osa_distance(name, other), other))
            .filter(|(distance, other)| *distance <= other.len().max(name.len()).div_ceil(3))
            .min();
        Some(match similar {
            Some((_, similar)) => {
                format!("`data.{name}` is missing in {events}: did you mean `data.{similar}`?")
            }
            None => format!("`data.{name}` is missing in {events}"),
        })
    }

    /// Returns the numbers in `counts` as text: `1,000 of 1,000 `order.placed`` for each type.
    fn in_events(&self, counts: &BTreeMap<String, u64>) -> String {
        let mut texts: Vec<String> = counts
            .iter()
            .take(TYPES_MAX)
            .map(|(kind, count)| {
                let all = self.events.get(kind).copied().unwrap_or_default();
                format!("{} of {} `{kind}`", grouped(*count), grouped(all))
            })
            .collect();
        if counts.len() > TYPES_MAX {
            texts.push(format!("{} more types", counts.len() - TYPES_MAX));
        }
        texts.join(", ")
    }
}

/// Returns a number as text, with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn words(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Integer => "an integer",
        FieldKind::Number => "a number",
        FieldKind::Text => "text",
        FieldKind::Boolean => "true or false",
        FieldKind::Timestamp => "an RFC 3339 timestamp",
        FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => "JSON",
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::{EventRef, Events};

    use super::*;

    fn manifest(members: &[(&str, FieldKind)]) -> Manifest {
        let members =
            members.iter().map(|(name, kind)| Member { name: (*name).into(), kind: *kind });
        Manifest {
            subscribes: vec!["order.*".into()],
            members: members.collect(),
            ..Manifest::default()
        }
    }

    fn warnings(members: &[(&str, FieldKind)], data: &[(&str, &str)]) -> Vec<String> {
        let mut events = Events::new();
        for (kind, data) in data {
            let event = EventRef { kind, data: data.as_bytes(), ..EventRef::default() };
            assert!(events.push(&event));
        }
        let manifest = manifest(members);
        let mut sample = Sample::new(&manifest);
        sample.add(&EventList::new(&events));
        sample.warnings()
    }

    #[test]
    fn a_member_without_any_value_is_reported_with_the_most_similar_name() {
        let order = ("order.placed", r#"{"cents": 5, "user": "a", "note": null}"#);
        let view = ("page.viewed", r#"{"cent": 5}"#);
        let events = [vec![order; 1_000], vec![view]].concat();
        assert_eq!(
            warnings(&[("cent", FieldKind::Integer), ("user", FieldKind::Text)], &events),
            ["`data.cent` is missing in 1,000 of 1,000 `order.placed`: did you mean `data.cents`?"]
        );
        assert_eq!(
            warnings(&[("region", FieldKind::Text), ("user", FieldKind::Integer)], &events),
            [
                "`data.region` is missing in 1,000 of 1,000 `order.placed`",
                "`data.user` is not an integer in 1,000 of 1,000 `order.placed`",
            ]
        );
    }

    #[test]
    fn a_member_that_some_event_has_is_not_reported() {
        let events = [("order.placed", r#"{"cents": 5}"#), ("order.paid", "{}")];
        assert!(warnings(&[("cents", FieldKind::Integer)], &events).is_empty());
        assert!(warnings(&[("cents", FieldKind::Integer)], &[]).is_empty());
    }
}
