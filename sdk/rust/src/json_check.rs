//! Checks whether all readers can parse the JSON in the field of a row.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Checks that the JSON in `bytes` has at most `depth_max` nested arrays and objects,
/// and that no object has a member twice.
///
/// # Errors
/// Returns what is wrong.
pub(crate) fn check(bytes: &[u8], depth_max: usize) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Nested { depth: 0, depth_max };
    seed.deserialize(&mut reader).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        // The limit of `serde_json` itself is 128 levels.
        _ => too_deep(depth_max),
    })
}

fn too_deep(depth_max: usize) -> String {
    format!("arrays and objects are nested more than {depth_max} deep")
}

#[derive(Clone, Copy)]
struct Nested {
    depth: usize,
    depth_max: usize,
}

impl Nested {
    fn within<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == self.depth_max {
            return Err(E::custom(too_deep(self.depth_max)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let within = self.within()?;
        while items.next_element_seed(within)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let within = self.within()?;
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(within)?;
            if let Some(name) = names.replace(name) {
                return Err(de::Error::custom(format!("an object has the member {name:?} twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn depth_is_bounded_and_members_are_unique() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(deep(64).as_bytes(), 64), Ok(()));
        for depth in [65, 127, 128, 200] {
            let error = check(deep(depth).as_bytes(), 64).unwrap_err();
            assert!(error.contains("nested more than 64 deep"), "{error}");
        }
        assert_eq!(check(br#"{"a":[1,-1,1.5,null,true,"x",{"a":{}}],"b":1}"#, 4), Ok(()));
        let error = check(br#"{"a":[{"b":1,"b":2}]}"#, 64).unwrap_err();
        assert!(error.contains(r#"an object has the member "b" twice"#), "{error}");
    }
}
