//! Reads a type from a JSON object only. The implementations that serde derives for structs would
//! also accept an array of the values of their members.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Reads a `T` from an object.
///
/// # Errors
/// Fails if the value is not an object, or the object is not a `T`.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    json: D,
) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }
    json.deserialize_map(Object(PhantomData))
}
