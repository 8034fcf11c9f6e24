//! Represents a row as the server sent it.

use std::sync::Arc;

use lantern_api::RawJson;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A row of a table. It is a JSON object, which is parsed only when the caller reads it.
#[derive(Clone, Debug)]
pub struct Row(Arc<RawValue>);

impl Row {
    /// Returns the JSON of the row, as text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// Parses the row as a `T`.
    ///
    /// # Errors
    /// Fails if the row is not a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl From<Box<RawValue>> for Row {
    fn from(json: Box<RawValue>) -> Self {
        Self(json.into())
    }
}

impl From<RawJson> for Row {
    fn from(json: RawJson) -> Self {
        json.into_inner().into()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(from).map(Self::from)
    }
}
