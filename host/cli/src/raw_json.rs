//! JSON exactly as a server sent it. Rows and events are printed unchanged. If they
//! were parsed into this program's numbers and strings, `1e400` or a number of twenty
//! digits would change, and one such value would make a whole page unreadable.

use std::collections::BTreeMap;

use lantern_server::cloudevents::json_text;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::output;

/// A JSON value as it was written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct RawJson(Box<RawValue>);

impl RawJson {
    /// `json` unchanged; `null` if it is not JSON.
    pub(crate) fn new(json: &str) -> Self {
        let null = || RawValue::from_string("null".into()).expect("null is JSON");
        Self(RawValue::from_string(json.to_owned()).unwrap_or_else(|_| null()))
    }

    /// The members of an object; none if it is not an object.
    pub(crate) fn members(&self) -> BTreeMap<String, &RawValue> {
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }
}

/// A value as the cell of a table: strings without quotes.
pub(crate) fn cell(value: Option<&&RawValue>) -> String {
    match value.map(|value| value.get()) {
        None | Some("null") => String::new(),
        Some(json) => output::printable(json_text(json).as_deref().unwrap_or(json)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_they_were_written() {
        let row = RawJson::new(
            r#"{"n":1e400,"w":18446744073709551617,"t":"half \ud83d","x":[0.10],"z":null}"#,
        );
        let members = row.members();
        let shown = |name: &str| cell(members.get(name));
        assert_eq!(shown("n"), "1e400");
        assert_eq!(shown("w"), "18446744073709551617");
        assert_eq!(shown("t"), "half \u{FFFD}");
        assert_eq!(shown("x"), "[0.10]");
        assert_eq!((shown("z"), shown("absent")), (String::new(), String::new()));
        assert!(serde_json::to_string(&row).unwrap().contains("1e400"));
        assert!(RawJson::new("{").members().is_empty());
    }
}
