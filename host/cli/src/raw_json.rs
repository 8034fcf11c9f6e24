//! Shows JSON values in the cells of a table exactly as a server sent them.

use lantern_server::cloudevents::json_text;
use serde_json::value::RawValue;

use crate::output;

/// Returns a JSON value as the text of a cell. Strings have no quotes.
pub(crate) fn cell(value: Option<&&RawValue>) -> String {
    match value.map(|value| value.get()) {
        None | Some("null") => String::new(),
        Some(json) => output::printable(json_text(json).as_deref().unwrap_or(json)),
    }
}

#[cfg(test)]
mod tests {
    use lantern_api::RawJson;

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
