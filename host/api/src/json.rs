//! Keeps JSON values as the text that was written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON value as it was written. Rows and events are passed on unchanged. Parsing them into
/// numbers and strings of a program would change `1e400`, or a number of twenty digits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Keeps `json` as it is. If it is not JSON, the value is `null`.
    #[must_use]
    pub fn new(json: &str) -> Self {
        let null = || RawValue::from_string("null".into()).expect("null is JSON");
        Self(RawValue::from_string(json.to_owned()).unwrap_or_else(|_| null()))
    }

    /// The JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The members of the value if it is an object; none otherwise.
    #[must_use]
    pub fn members(&self) -> BTreeMap<String, &RawValue> {
        serde_json::from_str(self.get()).unwrap_or_default()
    }

    /// The value as serde_json's own type.
    #[must_use]
    pub fn into_inner(self) -> Box<RawValue> {
        self.0
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_as_it_was_read() {
        let text = r#"{"n":1e400,"w":18446744073709551617,"x":[0.10]}"#;
        let value: RawJson = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
        assert_eq!(RawJson::new(text), value);
        assert_eq!(RawJson::new("{").get(), "null");
        assert_eq!(value.members()["n"].get(), "1e400");
        assert!(RawJson::new("[1]").members().is_empty());
    }
}
