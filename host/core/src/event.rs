//! Represents CloudEvents 1.0 events, as single events and in columns.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Column, Timestamp};

/// One CloudEvents 1.0 event. An empty string means that an optional attribute is absent;
/// CloudEvents does not allow empty attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The event's id, unique within `source`.
    pub id: String,
    /// The sender of the event.
    pub source: String,
    /// The event type, for example `order.placed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the event is about. Events of one subject keep their order, also when parked.
    pub subject: String,
    /// When the event happened. If the sender gave no time, this is the time at which the event was
    /// appended.
    pub time: Timestamp,
    /// The event's extension attribute `tenant`.
    pub tenant: String,
    /// The URI of the schema that `data` follows.
    pub dataschema: String,
    /// The media type of `data`; empty means JSON.
    pub datacontenttype: String,
    /// All other extension attributes as one JSON object; empty if there are none.
    pub extensions: String,
    /// The bytes of the payload.
    pub data: Vec<u8>,
}

/// An event with borrowed attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// See [`Event::id`].
    pub id: &'a str,
    /// See [`Event::source`].
    pub source: &'a str,
    /// See [`Event::kind`].
    pub kind: &'a str,
    /// See [`Event::subject`].
    pub subject: &'a str,
    /// See [`Event::time`].
    pub time: Timestamp,
    /// See [`Event::tenant`].
    pub tenant: &'a str,
    /// See [`Event::dataschema`].
    pub dataschema: &'a str,
    /// See [`Event::datacontenttype`].
    pub datacontenttype: &'a str,
    /// See [`Event::extensions`].
    pub extensions: &'a str,
    /// See [`Event::data`].
    pub data: &'a [u8],
}

impl Event {
    /// Borrows the event.
    #[must_use]
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef {
            id: &self.id,
            source: &self.source,
            kind: &self.kind,
            subject: &self.subject,
            time: self.time,
            tenant: &self.tenant,
            dataschema: &self.dataschema,
            datacontenttype: &self.datacontenttype,
            extensions: &self.extensions,
            data: &self.data,
        }
    }
}

impl EventRef<'_> {
    /// Returns a copy that owns its strings.
    #[must_use]
    pub fn to_owned(&self) -> Event {
        Event {
            id: self.id.into(),
            source: self.source.into(),
            kind: self.kind.into(),
            subject: self.subject.into(),
            time: self.time,
            tenant: self.tenant.into(),
            dataschema: self.dataschema.into(),
            datacontenttype: self.datacontenttype.into(),
            extensions: self.extensions.into(),
            data: self.data.into(),
        }
    }

    /// Returns the emit depth. It is 0 for an event from outside. For an emitted event, it is one
    /// more than the depth of the event that caused it.
    #[must_use]
    pub fn depth(&self) -> u32 {
        if !crate::is_host_source(self.source) || self.extensions.is_empty() {
            return 0;
        }
        let members: Option<serde_json::Value> = serde_json::from_str(self.extensions).ok();
        let depth = members.as_ref().and_then(|members| members.get(DEPTH_EXTENSION));
        let number = depth.and_then(|depth| match depth {
            // In headers of Kafka records the depth is text.
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        number.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Returns the number of bytes of all attributes together, without the time.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.id.len()
            + self.source.len()
            + self.kind.len()
            + self.subject.len()
            + self.tenant.len()
            + self.dataschema.len()
            + self.datacontenttype.len()
            + self.extensions.len()
            + self.data.len()
    }
}

/// The name of the extension attribute that contains [`EventRef::depth`].
pub const DEPTH_EXTENSION: &str = "lanterndepth";

/// The maximum number of distinct event types in one [`Events`]. [`Events::push`] refuses an event
/// with one more type.
const TYPES_MAX: usize = u16::MAX as usize;

/// Events in columns. Text columns contain UTF-8; [`Events::push`] and
/// [`Events::from_columns`] ensure it.
#[derive(Clone, Debug, Default)]
pub struct Events {
    times: Vec<Timestamp>,
    type_names: Vec<String>,
    types: Vec<u16>,
    index: HashMap<String, u16>,
    columns: Columns,
}

/// The byte columns of [`Events`]. A column that was requested has one value for each event; any
/// other column is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The values of the attribute `id`.
    pub id: Column,
    /// The values of the attribute `source`.
    pub source: Column,
    /// The values of the attribute `subject`.
    pub subject: Column,
    /// The values of the extension attribute `tenant`.
    pub tenant: Column,
    /// The values of the attribute `dataschema`.
    pub dataschema: Column,
    /// The values of the attribute `datacontenttype`.
    pub datacontenttype: Column,
    /// All other extension attributes, as one JSON object for each event.
    pub extensions: Column,
    /// The payloads of the events.
    pub data: Column,
}

impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        self.times == other.times
            && self.columns == other.columns
            && self.types.len() == other.types.len()
            && (0..self.len()).all(|i| self.kind(i) == other.kind(i))
    }
}

impl Events {
    /// Creates a list without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates events from decoded columns. Returns `None` if the lengths of the columns differ,
    /// the number of an event's type is out of range, or a text column is not UTF-8. Empty columns
    /// stay empty.
    #[must_use]
    pub fn from_columns(
        times: Vec<Timestamp>,
        type_names: Vec<String>,
        types: Vec<u16>,
        columns: Columns,
    ) -> Option<Self> {
        let len = times.len();
        let fits = types.len() == len
            && types.iter().all(|&t| usize::from(t) < type_names.len())
            && columns.all().iter().all(|c| c.is_empty() || c.len() == len)
            && columns.text().iter().all(|c| is_utf8(c));
        fits.then(|| Self { times, type_names, types, index: HashMap::new(), columns })
    }

    /// Returns how many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns whether there are no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Returns the bytes of all columns in total.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.columns.all().iter().map(|c| c.bytes().len()).sum::<usize>() + self.len() * 12
    }

    /// Appends an event. Returns `false` and adds nothing if the event's type would be the
    /// 65,536th distinct type. The caller must then begin another [`Events`].
    pub fn push(&mut self, event: &EventRef<'_>) -> bool {
        let Some(kind) = self.intern(event.kind) else {
            return false;
        };
        self.types.push(kind);
        self.times.push(event.time);
        let c = &mut self.columns;
        c.id.push(event.id.as_bytes());
        c.source.push(event.source.as_bytes());
        c.subject.push(event.subject.as_bytes());
        c.tenant.push(event.tenant.as_bytes());
        c.dataschema.push(event.dataschema.as_bytes());
        c.datacontenttype.push(event.datacontenttype.as_bytes());
        c.extensions.push(event.extensions.as_bytes());
        c.data.push(event.data);
        true
    }

    /// Appends the events `range` of `from`, but only the columns that `attributes` names. Each
    /// column is copied in one step.
    ///
    /// # Panics
    /// Panics if the range is not within `from`.
    pub fn extend_from(
        &mut self,
        from: &Self,
        range: std::ops::Range<usize>,
        attributes: Attributes,
    ) -> bool {
        let mut map = [u16::MAX; 64];
        for &kind in &from.types[range.clone()] {
            let slot = usize::from(kind);
            let type_index = match map.get(slot) {
                Some(&known) if known != u16::MAX => known,
                _ => match self.intern(&from.type_names[slot]) {
                    Some(type_index) => type_index,
                    None => return false,
                },
            };
            if let Some(known) = map.get_mut(slot) {
                *known = type_index;
            }
            self.types.push(type_index);
        }
        self.times.extend_from_slice(&from.times[range.clone()]);
        let (to, from) = (&mut self.columns, &from.columns);
        let copy = |want: bool, to: &mut Column, from: &Column| {
            if want && !from.is_empty() {
                to.extend_from(from, range.clone());
            }
        };
        copy(attributes.id, &mut to.id, &from.id);
        copy(attributes.source, &mut to.source, &from.source);
        copy(attributes.subject, &mut to.subject, &from.subject);
        copy(attributes.tenant, &mut to.tenant, &from.tenant);
        copy(attributes.dataschema, &mut to.dataschema, &from.dataschema);
        copy(attributes.datacontenttype, &mut to.datacontenttype, &from.datacontenttype);
        copy(attributes.extensions, &mut to.extensions, &from.extensions);
        copy(attributes.data, &mut to.data, &from.data);
        true
    }

    /// Event `index`.
    ///
    /// # Panics
    /// Panics if there is no such event.
    #[must_use]
    pub fn get(&self, index: usize) -> EventRef<'_> {
        let c = &self.columns;
        EventRef {
            id: text(&c.id, index),
            source: text(&c.source, index),
            kind: self.kind(index),
            subject: text(&c.subject, index),
            time: self.times[index],
            tenant: text(&c.tenant, index),
            dataschema: text(&c.dataschema, index),
            datacontenttype: text(&c.datacontenttype, index),
            extensions: text(&c.extensions, index),
            data: c.data.get(index),
        }
    }

    /// Iterates over the events in order.
    pub fn iter(&self) -> impl Iterator<Item = EventRef<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Returns the time of each event.
    #[must_use]
    pub fn times(&self) -> &[Timestamp] {
        &self.times
    }

    /// Returns the type of event `index`.
    ///
    /// # Panics
    /// Panics if there is no such event.
    #[must_use]
    pub fn kind(&self, index: usize) -> &str {
        &self.type_names[usize::from(self.types[index])]
    }

    /// Returns the subject of event `index`.
    #[must_use]
    pub fn subject(&self, index: usize) -> &str {
        text(&self.columns.subject, index)
    }

    /// Returns the tenant of event `index`; empty if the column was not requested.
    #[must_use]
    pub fn tenant(&self, index: usize) -> &str {
        text(&self.columns.tenant, index)
    }

    /// Returns the distinct event types, in order of first appearance.
    #[must_use]
    pub fn type_names(&self) -> &[String] {
        &self.type_names
    }

    /// For each event, the index of its type in [`Events::type_names`].
    #[must_use]
    pub fn types(&self) -> &[u16] {
        &self.types
    }

    /// Returns the columns that store the events' attributes as bytes.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Removes all events and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.types.clear();
        self.type_names.clear();
        self.index.clear();
        let c = &mut self.columns;
        for column in [
            &mut c.id,
            &mut c.source,
            &mut c.subject,
            &mut c.tenant,
            &mut c.dataschema,
            &mut c.datacontenttype,
            &mut c.extensions,
            &mut c.data,
        ] {
            column.clear();
        }
    }

    /// Sets the time of each event without a time (at [`Timestamp::MIN`]) to `time`.
    pub fn fill_times(&mut self, time: Timestamp) {
        for missing in self.times.iter_mut().filter(|t| **t == Timestamp::MIN) {
            *missing = time;
        }
    }

    fn intern(&mut self, kind: &str) -> Option<u16> {
        // The last type is compared first, because most events have the same type as the event
        // before them. Then all types are searched; most logs have few.
        if let Some(&last) = self.types.last()
            && self.type_names[usize::from(last)] == kind
        {
            return Some(last);
        }
        if self.index.len() != self.type_names.len() {
            self.index = (0..).zip(&self.type_names).map(|(i, name)| (name.clone(), i)).collect();
        }
        if let Some(&type_index) = self.index.get(kind) {
            return Some(type_index);
        }
        if self.type_names.len() >= TYPES_MAX {
            return None;
        }
        let type_index = u16::try_from(self.type_names.len()).expect("bounded above");
        self.type_names.push(kind.to_owned());
        self.index.insert(kind.to_owned(), type_index);
        Some(type_index)
    }
}

impl Columns {
    /// Returns all columns, in the order in which the struct declares them.
    #[must_use]
    pub fn all(&self) -> [&Column; 8] {
        [
            &self.id,
            &self.source,
            &self.subject,
            &self.tenant,
            &self.dataschema,
            &self.datacontenttype,
            &self.extensions,
            &self.data,
        ]
    }

    fn text(&self) -> [&Column; 7] {
        let [a, b, c, d, e, f, g, _] = self.all();
        [a, b, c, d, e, f, g]
    }
}

/// Returns whether each value is UTF-8. Each value is UTF-8 if all bytes together are UTF-8 and no
/// value ends within a character.
fn is_utf8(column: &Column) -> bool {
    std::str::from_utf8(column.bytes())
        .is_ok_and(|text| column.ends().iter().all(|&end| text.is_char_boundary(end as usize)))
}

fn text(column: &Column, index: usize) -> &str {
    std::str::from_utf8(column.get(index)).expect("text columns hold UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: &str) -> Event {
        Event { id: id.into(), kind: kind.into(), data: b"{}".to_vec(), ..Event::default() }
    }

    #[test]
    fn events_come_back_as_pushed_and_as_copied() {
        let all: Vec<_> =
            (0..200).map(|i| event(&format!("é{i}"), &format!("t{}", i % 70))).collect();
        let mut events = Events::new();
        for e in &all {
            assert!(events.push(&e.as_ref()));
        }
        let everything = Attributes::all();
        let mut copy = Events::new();
        assert!(copy.extend_from(&events, 5..120, everything));
        assert!(copy.extend_from(&events, 120..200, everything));
        let back: Vec<_> = copy.iter().map(|e| e.to_owned()).collect();
        assert_eq!(back, all[5..]);
    }

    #[test]
    fn columns_that_cut_a_character_are_refused() {
        let mut events = Events::new();
        events.push(&event("é", "t").as_ref());
        let mut columns = events.columns().clone();
        columns.id = Column::from_parts(vec![2], "é".as_bytes().to_vec()).unwrap();
        let parts = |c| Events::from_columns(vec![Timestamp(0)], vec!["t".into()], vec![0], c);
        assert!(parts(columns.clone()).is_some());
        columns.id = Column::from_parts(vec![1], vec![0xC3]).unwrap();
        assert!(parts(columns).is_none());
    }
}
