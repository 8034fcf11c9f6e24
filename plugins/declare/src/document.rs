//! Defines a declaration, as a user writes it. The doc comments of its types become the texts of
//! the JSON Schema.

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::deserialize::{Named, Placed};
use crate::problem::Problem;
use crate::yaml;

/// A projection without code: which events it folds into which tables.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Declaration {
    /// The projection's name: lower-case letters, digits and hyphens.
    pub(crate) name: Placed,
    /// A semantic version for people, such as `0.1.0`.
    pub(crate) version: Option<Placed>,
    /// What the projection is for.
    pub(crate) description: Option<Placed>,
    /// The event types: exact (`order.placed`), by prefix (`order.*`) or all (`*`).
    pub(crate) from: OneOrMore,
    /// Only events for which this expression is true are folded.
    pub(crate) r#where: Option<Placed>,
    /// The kinds of fields, where expressions leave them open: `data.price: number`.
    #[serde(default)]
    pub(crate) fields: Named<Kind>,
    /// Parameters of a version, each with its default: `min_cents: 100`.
    #[serde(default)]
    pub(crate) parameters: Named<Parameter>,
    /// What happens to an event that cannot be folded.
    pub(crate) on_failure: Option<OnFailure>,
    /// How often final windows are looked after, such as `10s`. The default is a
    /// sixtieth of the shortest window, from 1 s to 1 min.
    pub(crate) tick: Option<Placed>,
    /// The tables, by name.
    pub(crate) tables: Named<TableDeclaration>,
}

/// A table.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TableDeclaration {
    /// What the table shows.
    pub(crate) description: Option<Placed>,
    /// Only events for which this expression is true change the table.
    pub(crate) r#where: Option<Placed>,
    /// The parts of a row's key: a list of expressions, or a mapping of names to
    /// expressions, whose values are also columns. Without it, the table has one row (or
    /// one for each window).
    #[serde(default)]
    pub(crate) key: Key,
    /// A row for each key and window of event time.
    pub(crate) window: Option<Window>,
    /// Columns by name: `count()`, `sum(data.cents) unit cent`, or an expression that
    /// depends only on the key.
    pub(crate) columns: Named<Placed>,
    /// Whether each row belongs to the tenant of its events.
    #[serde(default)]
    pub(crate) per_tenant: bool,
    /// How long a row is kept after its last change, such as `30d`.
    pub(crate) retention: Option<Placed>,
}

/// Windows of event time; name one of `tumbling`, `hopping` and `session`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Window {
    /// Adjacent windows of this size: `15m`, `1h`, `1d`, `1w`, `month` or `year`.
    pub(crate) tumbling: Option<Placed>,
    /// Overlapping windows of this size, one every `every`.
    pub(crate) hopping: Option<Placed>,
    /// How far apart hopping windows begin.
    pub(crate) every: Option<Placed>,
    /// A session ends when a key has had no event for this long.
    pub(crate) session: Option<Placed>,
    /// The time zone of days, weeks, months and years, such as `Europe/Berlin`. The
    /// default is UTC.
    pub(crate) tz: Option<Placed>,
    /// How much older than the newest event an event may be before it is late. The
    /// default is `1m`.
    pub(crate) lateness: Option<Placed>,
    /// When rows are written.
    pub(crate) emit: Option<Emit>,
}

/// When the rows of windows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Emit {
    /// Once, when the window is over.
    Final,
    /// With every event. This is the default.
    None,
}

/// What happens to an event that cannot be folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnFailure {
    /// It is parked; all others are folded. This is the default.
    ParkEvent,
    /// It is parked, and all later events of its subject wait.
    ParkSubject,
    /// The projection stops.
    Halt,
}

/// The kind of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A whole number of 64 bits, written without fraction.
    Integer,
    /// A number with fraction, as a double.
    Number,
    /// A text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A text in RFC 3339, such as `2026-03-01T12:00:00Z`.
    Timestamp,
}

/// A text, or a list of texts.
#[derive(Debug)]
pub(crate) struct OneOrMore(pub(crate) Vec<Placed>);

/// The key of a table: expressions, each with a name if its value is also a column.
#[derive(Debug, Default)]
pub(crate) struct Key(pub(crate) Vec<(Option<Placed>, Placed)>);

/// A parameter: its default, or a mapping with its kind.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) kind: Option<Kind>,
    pub(crate) default: Option<Placed>,
}

/// The long form of a [`Parameter`].
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct LongParameter {
    /// The kind of its value.
    kind: Kind,
    /// Its value unless the version gives one. Without it, the version must.
    default: Option<Placed>,
}

macro_rules! visitor {
    ($type:ty, $expecting:literal, { $($visit:item)* }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Forms;
                impl<'de> de::Visitor<'de> for Forms {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }

                    $($visit)*
                }
                // Our deserializer then passes a scalar as a list of one element, which still has
                // its place.
                deserializer.deserialize_tuple_struct("$forms", 0, Forms)
            }
        }
    };
}

visitor!(OneOrMore, "a text or a list of texts", {
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element()? {
            texts.push(text);
        }
        Ok(OneOrMore(texts))
    }
});

visitor!(Key, "a list of expressions", {
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Key, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push((None, part));
        }
        Ok(Key(parts))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Key, A::Error> {
        let mut parts = Vec::new();
        while let Some((name, part)) = map.next_entry()? {
            parts.push((Some(name), part));
        }
        Ok(Key(parts))
    }
});

visitor!(Parameter, "a value, or a mapping with `kind` and `default`", {
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Parameter, A::Error> {
        let default = seq.next_element()?;
        if default.is_none() || seq.next_element::<Placed>()?.is_some() {
            return Err(de::Error::custom("a parameter is one value"));
        }
        Ok(Parameter { kind: None, default })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Parameter, A::Error> {
        let long = LongParameter::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Parameter { kind: Some(long.kind), default: long.default })
    }
});

#[cfg(test)]
macro_rules! schema {
    ($type:ty, $name:literal, |$generator:ident| $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let _ = &$generator;
                schemars::json_schema!($schema)
            }
        }
    };
}

#[cfg(test)]
schema!(OneOrMore, "OneOrMore", |generator| {
    "anyOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" }, "minItems": 1 },
    ]
});

#[cfg(test)]
schema!(Key, "Key", |generator| {
    "anyOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" } },
        { "type": "object", "additionalProperties": { "type": "string" } },
    ]
});

#[cfg(test)]
schema!(Parameter, "Parameter", |generator| {
    "anyOf": [
        { "type": ["string", "number", "boolean"] },
        generator.subschema_for::<LongParameter>(),
    ]
});

/// Reads a declaration from YAML or JSON.
///
/// # Errors
/// Returns the first place at which the text is not a declaration.
pub(crate) fn read(source: &str) -> Result<Declaration, Problem> {
    Declaration::deserialize(&yaml::read(source)?)
}
