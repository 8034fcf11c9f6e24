//! Describes a projection to the host.

use std::time::Duration;

use crate::bindings::lantern::projection::types as wit;
use crate::error::Error;
use crate::members::{EventData, Member};
use crate::table_spec::TableSpec;
use crate::time::micros_of;

/// The maximum length of the name of a projection or a table, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// An attribute of events. A projection gets it only if its manifest requests it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// CloudEvents `id`.
    Id,
    /// CloudEvents `source`.
    Source,
    /// CloudEvents `subject`.
    Subject,
    /// The extension `tenant`.
    Tenant,
    /// CloudEvents `dataschema`.
    Dataschema,
    /// CloudEvents `datacontenttype`.
    Datacontenttype,
    /// All other extensions, as one JSON object per event.
    Extensions,
}

/// What the host does with an event that the projection cannot apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Park the event, and every later event of the same tenant and subject behind it, until an
    /// operator retries or drops it. Use this if each event of a subject depends on the one before.
    /// The price is that one bad event holds back all later events of its subject. All events
    /// without a subject count as one subject.
    #[default]
    ParkSubject,
    /// Park only the event itself. Use this only if the order of events does not matter.
    ParkEvent,
    /// Stop this projection until an operator acts.
    Halt,
}

/// The description of a projection: its name, the events to which it subscribes, and how the host
/// must treat it. Its tables are declared by `#[derive(Tables)]`.
///
/// Begin with [`manifest!`](crate::manifest!), which takes the name, the version and the
/// description from the plugin's `Cargo.toml`.
///
/// ```
/// # use std::time::Duration;
/// # use lantern_sdk::{manifest, Attribute, Manifest, OnFailure};
/// let manifest: Manifest = manifest!()
///     .subscribe(["order.placed", "order.cancelled"])
///     .attributes([Attribute::Tenant])
///     .event_time(Duration::from_secs(5), Duration::from_secs(1))
///     .on_failure(OnFailure::ParkEvent);
/// # let _ = manifest;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Manifest {
    name: String,
    version: String,
    description: String,
    subscribes: Vec<String>,
    attributes: Vec<Attribute>,
    without_data: bool,
    members: Vec<Member>,
    cycle_depth_max: Option<u32>,
    emits: Vec<String>,
    event_time: Option<(Duration, Duration)>,
    on_failure: OnFailure,
    parameters: Option<String>,
    options: Vec<(String, String)>,
}

impl Manifest {
    /// Creates the manifest of a projection. `name` has lower-case letters, digits and hyphens,
    /// `version` is a semantic version, and `description` is a text for people.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            subscribes: Vec::new(),
            attributes: Vec::new(),
            without_data: false,
            members: Vec::new(),
            cycle_depth_max: None,
            emits: Vec::new(),
            event_time: None,
            on_failure: OnFailure::default(),
            parameters: None,
            options: Vec::new(),
        }
    }

    /// Adds event types to those that the projection gets. Each is exact (`order.placed`), by
    /// prefix (`order.*`) or all (`*`).
    pub fn subscribe<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.subscribes.extend(types.into_iter().map(Into::into));
        self
    }

    /// Adds attributes to those that the projection requests. The type, the time, the offset and
    /// the data of an event are always present. So is its tenant if a table is `per_tenant`.
    pub fn attributes(mut self, attributes: impl IntoIterator<Item = Attribute>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// Asks the host to decode the members of events' data that `T` names.
    /// [`Event::members`](crate::Event::members) reads them.
    pub fn members<'a, T: EventData<'a>>(self) -> Self {
        T::MEMBERS.iter().fold(self, |manifest, member| manifest.member(*member))
    }

    /// Asks the host to decode one more member of events' data.
    /// [`Event::member`](crate::Event::member) reads it.
    pub fn member(mut self, member: Member) -> Self {
        if !self.members.contains(&member) {
            self.members.push(member);
        }
        self
    }

    /// Leaves the data out of batches. Use it for a projection that reads only
    /// [`members`](Self::members). Without this call, the data is always present.
    pub fn without_data(mut self) -> Self {
        self.without_data = true;
        self
    }

    /// Allows the projection to be part of a cycle, in which each projection emits events that the
    /// next one receives. `events` is the maximum number of emitted events that cause each other in
    /// a row. Without this call, the host refuses an upload that would complete a cycle.
    pub fn cycle_depth_max(mut self, events: u32) -> Self {
        self.cycle_depth_max = Some(events);
        self
    }

    /// Declares that the projection may emit events of these types.
    pub fn emits<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.emits.extend(types.into_iter().map(Into::into));
        self
    }

    /// Uses event time, and with it timers and windows. Events may be up to `allowed_lateness`
    /// older than the newest one, and timers fire at multiples of `tick`.
    pub fn event_time(mut self, allowed_lateness: Duration, tick: Duration) -> Self {
        self.event_time = Some((allowed_lateness, tick));
        self
    }

    /// Sets what happens to an event that the projection cannot apply. Without this call, the event
    /// is parked, and later events of its subject wait behind it.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Declares that the projection has parameters. The JSON Schema describes them.
    pub fn parameters(mut self, json_schema: impl Into<String>) -> Self {
        self.parameters = Some(json_schema.into());
        self
    }

    /// Sets an option of the host that a later release added.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    pub(crate) fn asked(&self) -> RequestedAttributes {
        let mut asked =
            RequestedAttributes { data: !self.without_data, ..RequestedAttributes::default() };
        for attribute in &self.attributes {
            match attribute {
                Attribute::Id => asked.id = true,
                Attribute::Source => asked.source = true,
                Attribute::Subject => asked.subject = true,
                Attribute::Tenant => asked.tenant = true,
                Attribute::Dataschema => asked.dataschema = true,
                Attribute::Datacontenttype => asked.datacontenttype = true,
                Attribute::Extensions => asked.extensions = true,
            }
        }
        asked
    }

    pub(crate) fn declared_members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn emitted_types(&self) -> &[String] {
        &self.emits
    }

    pub(crate) fn has_event_time(&self) -> bool {
        self.event_time.is_some()
    }

    pub(crate) fn takes_parameters(&self) -> bool {
        self.parameters.is_some()
    }

    /// Converts this manifest to that of the contract, with `tables`.
    ///
    /// # Errors
    /// Returns [`Error::Manifest`] for the rule that is broken.
    pub(crate) fn into_wit<'a>(
        self,
        tables: impl Iterator<Item = &'a TableSpec>,
    ) -> Result<wit::Manifest, Error> {
        let tables: Vec<_> = tables.map(table).collect();
        let mut asked = self.asked();
        asked.tenant |= tables.iter().any(|table| table.per_tenant);
        self.check(&tables)?;
        let event_time = self.event_time.map(|(lateness, tick)| wit::EventTime {
            allowed_lateness: micros_of(lateness) as u64,
            tick: micros_of(tick) as u64,
        });
        Ok(wit::Manifest {
            name: self.name,
            version: self.version,
            description: self.description,
            subscribes: self.subscribes,
            attributes: asked.flags(),
            members: self
                .members
                .iter()
                .map(|member| wit::Member { name: member.name.to_owned(), kind: member.kind })
                .collect(),
            tables,
            emits: self.emits,
            cycle_depth_max: self.cycle_depth_max,
            event_time,
            on_failure: match self.on_failure {
                OnFailure::ParkSubject => wit::OnFailure::ParkSubject,
                OnFailure::ParkEvent => wit::OnFailure::ParkEvent,
                OnFailure::Halt => wit::OnFailure::Halt,
            },
            parameters: self.parameters,
            options: self.options,
        })
    }

    fn check(&self, tables: &[wit::Table]) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Manifest(why));
        let hyphenated = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = |name: &str| {
            name.len() <= NAME_BYTES_MAX
                && name.starts_with(|first: char| first.is_ascii_lowercase())
        };
        if !fits(&self.name) || !self.name.bytes().all(hyphenated) {
            return refuse(format!(
                "the name `{}` must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, beginning with a letter",
                self.name
            ));
        }
        if self.subscribes.is_empty() {
            return refuse("it subscribes to no event type; add `.subscribe([…])`".to_owned());
        }
        for (place, member) in self.members.iter().enumerate() {
            if self.members[..place].iter().any(|other| other.name == member.name) {
                return refuse(format!("the member `{}` is declared with two kinds", member.name));
            }
        }
        for (place, table) in tables.iter().enumerate() {
            let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
            if !fits(&table.name) || !table.name.bytes().all(plain) {
                return refuse(format!(
                    "the table name `{}` must be 1 to {NAME_BYTES_MAX} lower-case letters, digits, `_` and `-`, beginning with a letter",
                    table.name
                ));
            }
            if tables[..place].iter().any(|other| other.name == table.name) {
                return refuse(format!("two tables are named `{}`", table.name));
            }
        }
        if self.event_time.is_some_and(|(_, tick)| micros_of(tick) == 0) {
            return refuse("the tick of event time is shorter than a microsecond".to_owned());
        }
        Ok(())
    }
}

fn table(spec: &TableSpec) -> wit::Table {
    wit::Table {
        name: spec.name.to_owned(),
        description: spec.description.to_owned(),
        public: spec.public,
        per_tenant: spec.per_tenant,
        fields: spec
            .fields
            .iter()
            .map(|field| wit::Field {
                name: field.name.to_owned(),
                kind: field.kind,
                unit: field.unit.to_owned(),
                merge: field.merge,
            })
            .collect(),
        newest_by: spec.newest_by.map(str::to_owned),
        retention: spec.retention_us,
        options: Vec::new(),
    }
}

/// The attributes that a manifest requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestedAttributes {
    pub(crate) id: bool,
    pub(crate) source: bool,
    pub(crate) subject: bool,
    pub(crate) tenant: bool,
    pub(crate) dataschema: bool,
    pub(crate) datacontenttype: bool,
    pub(crate) extensions: bool,
    pub(crate) data: bool,
}

impl RequestedAttributes {
    fn flags(self) -> wit::Attributes {
        [
            (self.id, wit::Attributes::ID),
            (self.source, wit::Attributes::SOURCE),
            (self.subject, wit::Attributes::SUBJECT),
            (self.tenant, wit::Attributes::TENANT),
            (self.dataschema, wit::Attributes::DATASCHEMA),
            (self.datacontenttype, wit::Attributes::DATACONTENTTYPE),
            (self.extensions, wit::Attributes::EXTENSIONS),
            (self.data, wit::Attributes::DATA),
        ]
        .into_iter()
        .filter(|(asked, _)| *asked)
        .fold(wit::Attributes::empty(), |all, (_, flag)| all | flag)
    }
}
