//! Lets serde read a tree of [`Node`]s. So the same types are used to read a declaration and to
//! create its JSON Schema.
//!
//! An error contains the place of the node that is wrong. Unknown keys are found here, before serde
//! gets them, because serde does not know the places of keys.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use crate::problem::{Place, Problem};
use crate::yaml::{Node, NodeValue};

/// The name with which [`Placed`] requests a scalar and its place.
const PLACED: &str = "$placed";

/// A text with its place in the declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) text: String,
    pub(crate) quoted: bool,
    pub(crate) place: Place,
}

impl<'de> de::Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlacedVisitor;
        impl<'de> Visitor<'de> for PlacedVisitor {
            type Value = Placed;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Placed, A::Error> {
                let missing = || de::Error::custom("a text");
                let text = seq.next_element()?.ok_or_else(missing)?;
                let quoted = seq.next_element()?.ok_or_else(missing)?;
                let start = seq.next_element()?.ok_or_else(missing)?;
                let end = seq.next_element()?.ok_or_else(missing)?;
                Ok(Placed { text, quoted, place: Place { start, end } })
            }
        }
        deserializer.deserialize_newtype_struct(PLACED, PlacedVisitor)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Placed {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

/// A mapping whose keys are not fixed, in the order of the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named<T>(pub(crate) Vec<(Placed, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: de::Deserialize<'de>> de::Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: de::Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(NamedVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let values = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": values })
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let result = match &self.value {
            NodeValue::Scalar { .. } if self.is_null() => visitor.visit_unit(),
            NodeValue::Scalar { text, quoted: false } => match text.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                text => visitor.visit_borrowed_str(text),
            },
            NodeValue::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            NodeValue::Sequence(items) => visitor.visit_seq(Items(items.iter())),
            NodeValue::Mapping(entries) => {
                visitor.visit_map(Entries { entries: entries.iter(), value: None })
            }
        };
        result.map_err(|problem| problem.or_at(self.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let NodeValue::Mapping(entries) = &self.value else {
            return Err(self.unlike("a mapping", fields));
        };
        for (key, _) in entries {
            let name = key.text().unwrap_or_default();
            if !fields.contains(&name) {
                let problem = Problem::new(key.place, format!("unknown key `{name}`"));
                return Err(problem.suggest(name, fields.iter().copied(), "the keys here are"));
            }
        }
        self.deserialize_any(visitor).map_err(|mut problem| {
            // A missing key has no place, so the error has the place of its mapping's first key.
            if let Some(name) = problem.message.strip_prefix("missing field ") {
                let name = name.trim_matches('`');
                problem.help = Some(format!("add `{name}:` on the same level"));
                problem.message = problem.message.replace("missing field", "missing key");
                problem.place = Some(entries.first().map_or(self.place, |(key, _)| key.place));
            }
            problem
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            NodeValue::Mapping(_) => self.deserialize_any(visitor),
            _ => Err(self.unlike("a mapping", &[])),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        if name != PLACED {
            return visitor.visit_newtype_struct(self);
        }
        match &self.value {
            NodeValue::Scalar { text, quoted } if !self.is_null() => {
                visitor.visit_seq(PlacedParts { text, quoted: *quoted, place: self.place, next: 0 })
            }
            _ => Err(self.unlike("a text", &[])),
        }
    }

    /// Reads a value whose type can have several forms. If the value is a scalar, the type gets it
    /// as a list of one element, which still has its place.
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let result = match &self.value {
            NodeValue::Scalar { .. } if self.is_null() => visitor.visit_unit(),
            NodeValue::Scalar { .. } => visitor.visit_seq(Items(std::slice::from_ref(self).iter())),
            _ => self.deserialize_any(visitor),
        };
        result.map_err(|problem| problem.or_at(self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.text() {
            Some("true" | "false") => self.deserialize_any(visitor),
            _ => Err(self.unlike("`true` or `false`", &[])),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let Some(text) = self.text().filter(|_| !self.is_null()) else {
            return Err(self.unlike("one of the names", variants));
        };
        if !variants.contains(&text) {
            let problem = Problem::new(self.place, format!("unknown value `{text}`"));
            return Err(problem.suggest(text, variants.iter().copied(), "the values here are"));
        }
        visitor.visit_enum(text.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct seq tuple identifier ignored_any
    }
}

impl Node {
    fn unlike(&self, expected: &str, names: &[&str]) -> Problem {
        let problem =
            Problem::new(self.place, format!("{expected} was expected, not {}", self.describe()));
        if names.is_empty() {
            return problem;
        }
        let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        problem.help(format!("the names here are {}", list.join(", ")))
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Problem> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (Node, Node)>,
    value: Option<&'de Node>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Problem> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let value = self.value.take().ok_or_else(|| de::Error::custom("a value was expected"))?;
        seed.deserialize(value).map_err(|problem| problem.or_at(value.place))
    }
}

/// Returns the parts of a [`Placed`], in order.
struct PlacedParts<'de> {
    text: &'de str,
    quoted: bool,
    place: Place,
    next: usize,
}

impl<'de> de::SeqAccess<'de> for PlacedParts<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Problem> {
        self.next += 1;
        let value = match self.next {
            1 => seed.deserialize(StrDeserializer::new(self.text))?,
            2 => seed.deserialize(self.quoted.into_deserializer())?,
            3 => seed.deserialize(self.place.start.into_deserializer())?,
            4 => seed.deserialize(self.place.end.into_deserializer())?,
            _ => return Ok(None),
        };
        Ok(Some(value))
    }
}
