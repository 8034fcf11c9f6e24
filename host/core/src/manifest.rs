//! Defines the manifest, in which a plugin describes itself, and the rules that a manifest must
//! follow.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The event types, tables and settings of a projection. The plugin contract calls it `manifest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The projection's name: 1 to 64 lower-case letters, digits, `-` or `_`, beginning
    /// with a letter.
    pub name: String,
    /// The version that the author gave the plugin, for people to read. Lantern identifies the code
    /// by a hash instead.
    pub version: String,
    /// A description in one sentence.
    pub description: String,
    /// The event types that the plugin receives. Each entry names one type (`order.placed`), a
    /// prefix (`order.*`) or all types (`*`).
    pub subscribes: Vec<String>,
    /// The attributes of events that the plugin requests.
    pub attributes: Attributes,
    /// Members of the JSON payload that the host decodes and passes to the plugin as columns.
    pub members: Vec<Member>,
    /// The tables of the projection. A [`crate::TableId`] is an index into this list.
    pub tables: Vec<TableSpec>,
    /// The types of the events that the plugin may emit.
    pub emits: Vec<String>,
    /// Allows the projection to be part of a cycle, in which each projection emits events that the
    /// next one receives. The value is the maximum emit depth of these events.
    pub cycle_depth_max: Option<u32>,
    /// The settings of event time. `None` if the projection does not use event time.
    pub event_time: Option<EventTime>,
    /// What happens to an event that the plugin cannot apply.
    pub on_failure: OnFailure,
    /// The JSON Schema of the projection's parameters.
    pub parameters: Option<String>,
}

/// The CloudEvents attributes that a projection requests. It always receives `type` and `time`,
/// which are therefore not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "a set of flags, as the contract has it")]
pub struct Attributes {
    /// Whether the attribute `id` is requested.
    pub id: bool,
    /// Whether the attribute `source` is requested.
    pub source: bool,
    /// Whether the attribute `subject` is requested.
    pub subject: bool,
    /// Whether the extension attribute `tenant` is requested.
    pub tenant: bool,
    /// Whether the attribute `dataschema` is requested.
    pub dataschema: bool,
    /// Whether the attribute `datacontenttype` is requested.
    pub datacontenttype: bool,
    /// Whether all other extension attributes are requested.
    pub extensions: bool,
    /// Whether the payload is requested.
    pub data: bool,
}

impl Attributes {
    /// Returns a request for every attribute.
    #[must_use]
    pub fn all() -> Self {
        Self {
            id: true,
            source: true,
            subject: true,
            tenant: true,
            dataschema: true,
            datacontenttype: true,
            extensions: true,
            data: true,
        }
    }

    /// Returns the attributes that `self` or `others` contains.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self {
            id: self.id || others.id,
            source: self.source || others.source,
            subject: self.subject || others.subject,
            tenant: self.tenant || others.tenant,
            dataschema: self.dataschema || others.dataschema,
            datacontenttype: self.datacontenttype || others.datacontenttype,
            extensions: self.extensions || others.extensions,
            data: self.data || others.data,
        }
    }
}

/// A member of the JSON object in an event's payload. The host decodes it for the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name of the member.
    pub name: String,
    /// The kind that the member's values must have.
    pub kind: FieldKind,
}

/// The settings of event time in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTime {
    /// The allowed lateness in microseconds.
    pub allowed_lateness_us: u64,
    /// The tick in microseconds; at least 1.
    pub tick_us: u64,
}

/// What happens to an event that the plugin cannot apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The event is parked, and later events of its subject wait behind it.
    #[default]
    ParkSubject,
    /// Only this event is parked.
    ParkEvent,
    /// The projection halts until an operator acts.
    Halt,
}

/// A table that a projection declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// The table's name. It has the same form as a projection's name.
    pub name: String,
    /// A description in one sentence.
    pub description: String,
    /// Whether the table is public: its rows are JSON objects, and clients can read them and
    /// subscribe to them.
    pub public: bool,
    /// Whether each row belongs to a tenant. A key then consists of the tenant, U+0000 and the
    /// rest of the key.
    pub per_tenant: bool,
    /// The fields of the table's rows, if the table is public.
    pub fields: Vec<FieldSpec>,
    /// The timestamp field that orders the rows of several partitions. Fields with the merge
    /// `newest` take their value from the row with the latest time in it.
    pub newest_by: Option<String>,
    /// How long a row is kept after its last change, in microseconds.
    pub retention_us: Option<u64>,
}

/// A field of a public table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSpec {
    /// The name of the field: a key of the JSON object.
    pub name: String,
    /// The kind that the field's values have.
    pub kind: FieldKind,
    /// The unit in which the value is displayed, such as `EUR`, `ms` or `%`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// How the values that several partitions have under one key are merged.
    #[serde(default)]
    pub merge: Merge,
}

/// The kinds of values that a field can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// A whole number from -2^63 to 2^64 - 1.
    Integer,
    /// A number.
    Number,
    /// A string.
    #[default]
    Text,
    /// `true` or `false`.
    Boolean,
    /// A time in RFC 3339.
    Timestamp,
    /// Any JSON.
    Json,
    /// A sketch that counts distinct values.
    Distinct,
    /// A sketch of percentiles.
    Percentiles,
}

impl FieldKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Integer,
        Self::Number,
        Self::Text,
        Self::Boolean,
        Self::Timestamp,
        Self::Json,
        Self::Distinct,
        Self::Percentiles,
    ];

    /// Returns the kind with this [`Self::name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns whether the field is a sketch.
    #[must_use]
    pub fn is_sketch(self) -> bool {
        matches!(self, Self::Distinct | Self::Percentiles)
    }

    /// Returns the name of the kind in the plugin contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
            Self::Distinct => "distinct",
            Self::Percentiles => "percentiles",
        }
    }
}

/// How the values of a field are merged if several partitions have a row under the same key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// The values must be equal. If they are not, the value of the lowest partition is used.
    #[default]
    Same,
    /// The sum of the values.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The value of the partition whose row has the latest [`TableSpec::newest_by`].
    Newest,
    /// The union of the sketches.
    Sketch,
}

/// A rule that a manifest breaks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// A name does not have the allowed form.
    #[error(
        "the {what} name `{name}` must be 1 to 64 lower-case letters, digits, `-` or `_`, beginning with a letter"
    )]
    Name {
        /// What has the name: `projection`, `table` or `field`.
        what: &'static str,
        /// The name that is invalid.
        name: String,
    },
    /// Two tables, two members, or two fields of a table have the same name.
    #[error("the {what} `{name}` is in the manifest twice")]
    Twice {
        /// What has the name: `table`, `member` or `field`.
        what: &'static str,
        /// The name that occurs twice.
        name: String,
    },
    /// The manifest has no table.
    #[error("the manifest has no table: a projection needs at least one")]
    NoTable,
    /// The manifest subscribes to no event type.
    #[error(
        "the manifest subscribes to no event type: name at least one, as `order.placed`, `order.*` or `*`"
    )]
    NoSubscription,
    /// A subscription is not a valid pattern of event types.
    #[error("`{0}` is not an event type: write an exact type, a prefix that ends in `*`, or `*`")]
    Subscription(String),
    /// A public table declares no fields.
    #[error(
        "public table `{0}` declares no fields: name the fields of its rows, or make it private"
    )]
    NoFields(String),
    /// The projection would receive the events that it emits.
    #[error(
        "the projection subscribes to `{0}`, which it emits itself, so it would never end: subscribe to narrower types"
    )]
    Loop(String),
    /// An emitted type is a pattern, or is reserved for the host.
    #[error("`{0}` cannot be emitted: name an exact type that does not begin with `lantern.`")]
    Emits(String),
    /// A table has retention, but the manifest has no event time.
    #[error(
        "table `{0}` has a retention, which is counted in event time: declare `event-time`, or leave the retention out"
    )]
    Retention(String),
    /// A field is merged by `newest`, but the table has no `newest_by`.
    #[error(
        "field `{field}` of table `{table}` has merge `newest`: name the table's timestamp field that decides which value is the newest (`newest-by`)"
    )]
    NewestBy {
        /// The name of the table.
        table: String,
        /// The name of the field.
        field: String,
    },
    /// `newest_by` is not a timestamp field of the table.
    #[error(
        "`newest-by` of table `{table}` is `{field}`: name a declared field of kind `timestamp`"
    )]
    NewestByField {
        /// The name of the table.
        table: String,
        /// The name of the field in `newest_by`.
        field: String,
    },
    /// A field breaks this rule: sketches must have the merge `sketch`, and other fields must not
    /// have it.
    #[error(
        "field `{field}` of table `{table}`: declare merge `sketch` for the kinds `distinct` and `percentiles`, and for no other kind"
    )]
    Sketch {
        /// The name of the table.
        table: String,
        /// The name of the field.
        field: String,
    },
    /// The name of a member is empty or too long. Contains its length in bytes.
    #[error("the manifest names a member of `data` with {0} bytes: a name has 1 to 255")]
    Member(usize),
    /// The cycle depth is 0, which would not allow any cycle.
    #[error("`cycle-depth-max` is 0: give at least 1, or leave it out")]
    CycleDepth,
    /// The tick of event time is 0.
    #[error("the event-time tick is 0: give it in microseconds, at least 1")]
    Tick,
    /// The manifest exceeds a limit.
    #[error("the manifest has {count} {what}, and the limit is {limit}")]
    TooMany {
        /// Which parts of the manifest are too many.
        what: &'static str,
        /// How many of these parts the manifest has.
        count: usize,
        /// The maximum number of these parts.
        limit: usize,
    },
    /// The manifest has an option that this host does not know.
    #[error(
        "the manifest has the option `{0}`, but this release supports no options: build the plugin with this release's SDK, or update the server"
    )]
    Option(String),
}

/// The maximum number of tables in a manifest.
const TABLES_MAX: usize = 64;
/// The maximum number of bytes of all texts in a manifest together. The number is limited because
/// each status contains the manifest, and each version is stored with it.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// The maximum number of fields in a table.
const FIELDS_MAX: usize = 256;
/// The maximum number of members of `data` that a manifest may name.
const MEMBERS_MAX: usize = 256;
/// The maximum length of the name of a member, in bytes.
const MEMBER_NAME_BYTES_MAX: usize = 255;
/// The maximum number of subscriptions, and of emitted types.
const TYPES_MAX: usize = 256;

impl Manifest {
    /// Checks every rule that needs neither another plugin nor the log.
    ///
    /// # Errors
    /// Returns [`ManifestError`] for the first rule that is broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        // The size of the texts is checked first, because the messages of the other rules quote
        // these texts.
        at_most("bytes of text", self.text_bytes(), TEXT_BYTES_MAX)?;
        check_name("projection", &self.name)?;
        at_most("tables", self.tables.len(), TABLES_MAX)?;
        at_most("subscriptions", self.subscribes.len(), TYPES_MAX)?;
        at_most("emitted types", self.emits.len(), TYPES_MAX)?;
        if self.tables.is_empty() {
            return Err(ManifestError::NoTable);
        }
        if self.subscribes.is_empty() {
            return Err(ManifestError::NoSubscription);
        }
        for pattern in &self.subscribes {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            if stem.contains('*') || pattern.is_empty() || pattern.len() > 255 {
                return Err(ManifestError::Subscription(pattern.clone()));
            }
        }
        let filter = self.filter();
        for kind in &self.emits {
            if kind.is_empty() || kind.contains('*') || kind.starts_with("lantern.") {
                return Err(ManifestError::Emits(kind.clone()));
            }
            if filter.matches(kind) {
                return Err(ManifestError::Loop(kind.clone()));
            }
        }
        if self.cycle_depth_max == Some(0) {
            return Err(ManifestError::CycleDepth);
        }
        self.check_members()?;
        if self.event_time.is_some_and(|t| t.tick_us == 0) {
            return Err(ManifestError::Tick);
        }
        let mut names = BTreeSet::new();
        for table in &self.tables {
            if !names.insert(&table.name) {
                return Err(ManifestError::Twice { what: "table", name: table.name.clone() });
            }
            if table.retention_us.is_some() && self.event_time.is_none() {
                return Err(ManifestError::Retention(table.name.clone()));
            }
            table.check()?;
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), ManifestError> {
        at_most("members", self.members.len(), MEMBERS_MAX)?;
        let mut names = BTreeSet::new();
        for member in &self.members {
            if !(1..=MEMBER_NAME_BYTES_MAX).contains(&member.name.len()) {
                return Err(ManifestError::Member(member.name.len()));
            }
            if !names.insert(&member.name) {
                return Err(ManifestError::Twice { what: "member", name: member.name.clone() });
            }
        }
        Ok(())
    }

    /// Returns the attributes that are read from the log: those that the plugin requests, and those
    /// that the host needs itself.
    #[must_use]
    pub fn attributes_read(&self) -> Attributes {
        let tenant = !self.emits.is_empty()
            || self.event_time.is_some()
            || self.tables.iter().any(|table| table.per_tenant);
        let data = !self.members.is_empty();
        self.attributes.and(Attributes { tenant, data, ..Attributes::default() })
    }

    /// Returns the number of bytes of all texts in the manifest together.
    fn text_bytes(&self) -> usize {
        let of_field = |field: &FieldSpec| field.name.len() + field.unit.len();
        let of_table = |table: &TableSpec| {
            table.name.len()
                + table.description.len()
                + table.newest_by.as_ref().map_or(0, String::len)
                + table.fields.iter().map(of_field).sum::<usize>()
        };
        [self.name.len(), self.version.len(), self.description.len()].iter().sum::<usize>()
            + self.subscribes.iter().chain(&self.emits).map(String::len).sum::<usize>()
            + self.members.iter().map(|member| member.name.len()).sum::<usize>()
            + self.tables.iter().map(of_table).sum::<usize>()
            + self.parameters.as_ref().map_or(0, String::len)
    }

    /// Returns the filter that matches the event types to which the manifest subscribes.
    #[must_use]
    pub fn filter(&self) -> TypeFilter {
        TypeFilter::new(&self.subscribes)
    }

    /// Returns the id and the declaration of the table named `name`.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<(crate::TableId, &TableSpec)> {
        (0..).map(crate::TableId).zip(&self.tables).find(|(_, table)| table.name == name)
    }

    /// Returns the ids and the declarations of the public tables.
    pub fn public_tables(&self) -> impl Iterator<Item = (crate::TableId, &TableSpec)> {
        (0..).map(crate::TableId).zip(&self.tables).filter(|(_, table)| table.public)
    }

    /// Returns the id and the declaration of the public table named `name`.
    #[must_use]
    pub fn public_table(&self, name: &str) -> Option<(crate::TableId, &TableSpec)> {
        self.table(name).filter(|(_, table)| table.public)
    }
}

/// Splits the key of a row into its tenant and the rest. The tenant is `None` if the row's table is
/// not per tenant.
#[must_use]
pub fn split_key(per_tenant: bool, key: &str) -> (Option<&str>, &str) {
    if !per_tenant {
        return (None, key);
    }
    let (tenant, key) = key.split_once('\0').unwrap_or(("", key));
    (Some(tenant), key)
}

impl TableSpec {
    fn check(&self) -> Result<(), ManifestError> {
        check_name("table", &self.name)?;
        at_most("fields", self.fields.len(), FIELDS_MAX)?;
        if self.public && self.fields.is_empty() {
            return Err(ManifestError::NoFields(self.name.clone()));
        }
        let mut names = BTreeSet::new();
        for field in &self.fields {
            if !names.insert(&field.name) {
                return Err(ManifestError::Twice { what: "field", name: field.name.clone() });
            }
            let (table, name) = (&self.name, &field.name);
            if field.kind.is_sketch() != (field.merge == Merge::Sketch) {
                return Err(ManifestError::Sketch { table: table.clone(), field: name.clone() });
            }
            if field.merge == Merge::Newest && self.newest_by.is_none() {
                return Err(ManifestError::NewestBy { table: table.clone(), field: name.clone() });
            }
        }
        let is_time = |name: &String| {
            let field = self.fields.iter().find(|field| field.name == *name);
            field.is_some_and(|field| field.kind == FieldKind::Timestamp)
        };
        match self.newest_by.as_ref().filter(|name| !is_time(name)) {
            Some(field) => {
                Err(ManifestError::NewestByField { table: self.name.clone(), field: field.clone() })
            }
            None => Ok(()),
        }
    }
}

/// A filter that decides which event types a reader gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeFilter {
    all: bool,
    exact: BTreeSet<String>,
    prefixes: Vec<String>,
}

impl TypeFilter {
    /// Creates a filter from patterns as in [`Manifest::subscribes`].
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        let mut filter = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some("") => filter.all = true,
                Some(prefix) => filter.prefixes.push(prefix.to_owned()),
                None => {
                    filter.exact.insert(pattern.clone());
                }
            }
        }
        filter
    }

    /// Returns a filter that matches every type.
    #[must_use]
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Extends this filter by the type `kind`.
    #[must_use]
    pub fn and(mut self, kind: &str) -> Self {
        self.exact.insert(kind.to_owned());
        self
    }

    /// Returns whether the filter matches the type `kind`. Types that begin with `lantern.` belong
    /// to the host, and only an exact pattern matches them.
    #[must_use]
    pub fn matches(&self, kind: &str) -> bool {
        self.exact.contains(kind)
            || (!kind.starts_with("lantern.")
                && (self.all || self.prefixes.iter().any(|p| kind.starts_with(p.as_str()))))
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), ManifestError> {
    let fits = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if fits { Ok(()) } else { Err(ManifestError::Name { what, name: name.to_owned() }) }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), ManifestError> {
    if count > limit { Err(ManifestError::TooMany { what, count, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Manifest {
        Manifest {
            name: "revenue".into(),
            subscribes: vec!["order.*".into()],
            tables: vec![TableSpec { name: "t".into(), ..TableSpec::default() }],
            ..Manifest::default()
        }
    }

    fn check(change: impl Fn(&mut Manifest), expected: &str) {
        let mut manifest = good();
        change(&mut manifest);
        let message = manifest.check().map_or_else(|e| e.to_string(), |()| "fine".into());
        assert!(message.contains(expected), "{message} does not say {expected}");
    }

    #[test]
    fn each_broken_rule_is_named_with_its_value() {
        check(|_| (), "fine");
        check(|m| m.name = "../x".into(), "`../x`");
        check(|m| m.tables.clear(), "no table");
        check(|m| m.description = "x".repeat(300_000), "bytes of text, and the limit is 262144");
        check(|m| m.tables[0].description = "x".repeat(300_000), "bytes of text");
        check(|m| m.parameters = Some("x".repeat(300_000)), "bytes of text");
        check(|m| m.tables.push(m.tables[0].clone()), "`t` is in the manifest twice");
        check(|m| m.tables[0].public = true, "declares no fields");
        check(|m| m.tables[0].retention_us = Some(1), "`t` has a retention");
        check(|m| m.subscribes.clear(), "no event type");
        check(|m| m.subscribes = vec!["a*b".into()], "`a*b`");
        check(|m| m.emits = vec!["order.x".into()], "never end");
        check(|m| m.emits = vec!["lantern.x".into()], "cannot be emitted");
        check(|m| m.cycle_depth_max = Some(0), "`cycle-depth-max` is 0");
        let member = |name: &str| Member { name: name.into(), kind: FieldKind::Text };
        check(|m| m.members = vec![member("a"), member("ä b")], "fine");
        check(
            |m| m.members = vec![member("a"), member("a")],
            "member `a` is in the manifest twice",
        );
        check(|m| m.members = vec![member("")], "with 0 bytes");
        check(|m| m.members = vec![member("a"); 300], "300 members, and the limit is 256");
        let field = |name: &str, kind, merge| FieldSpec {
            name: name.into(),
            kind,
            merge,
            ..FieldSpec::default()
        };
        let newest = || {
            vec![
                field("at", FieldKind::Timestamp, Merge::Max),
                field("last", FieldKind::Text, Merge::Newest),
            ]
        };
        check(|m| m.tables[0].fields = newest(), "`last` of table `t` has merge `newest`");
        check(
            |m| {
                m.tables[0].fields = newest();
                m.tables[0].newest_by = Some("last".into());
            },
            "`newest-by` of table `t` is `last`",
        );
        check(
            |m| {
                m.tables[0].fields = newest();
                m.tables[0].newest_by = Some("at".into());
            },
            "fine",
        );
        let users = |merge| vec![field("users", FieldKind::Distinct, merge)];
        check(|m| m.tables[0].fields = users(Merge::Same), "field `users` of table `t`");
        check(|m| m.tables[0].fields = users(Merge::Sketch), "fine");
        check(
            |m| m.tables[0].fields = vec![field("n", FieldKind::Integer, Merge::Sketch)],
            "declare merge `sketch`",
        );
        let no_tick = EventTime { allowed_lateness_us: 0, tick_us: 0 };
        check(|m| m.event_time = Some(no_tick), "tick is 0");
    }

    #[test]
    fn the_hosts_own_types_are_matched_only_by_name() {
        let filter = TypeFilter::everything();
        assert!(filter.matches("order.placed"));
        assert!(!filter.matches(crate::HEARTBEAT_TYPE));
        assert!(filter.and(crate::HEARTBEAT_TYPE).matches(crate::HEARTBEAT_TYPE));
    }
}
