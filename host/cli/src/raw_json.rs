//! Shows JSON values in the cells of a table exactly as a server sent them, except for sketches.

use lantern_api::RawJson;
use lantern_server::cloudevents::json_text;
use serde_json::value::RawValue;

use crate::output;

/// The numbers in a sketch of percentiles, in the order of `docs/sketches.md`.
const PERCENTILES: [&str; 8] = ["count", "min", "p50", "p75", "p90", "p95", "p99", "max"];

/// Returns a JSON value as the text of a cell. A string has no quotes. A sketch is shown by its
/// numbers alone: the estimate of a distinct count, or the percentiles.
pub(crate) fn cell(value: Option<&&RawValue>) -> String {
    match value.map(|value| value.get()) {
        None | Some("null") => String::new(),
        Some(json) => match sketch(json) {
            Some(numbers) => output::printable(&numbers),
            None => output::printable(json_text(json).as_deref().unwrap_or(json)),
        },
    }
}

/// Returns the numbers of a sketch; `None` if `json` is not a sketch.
fn sketch(json: &str) -> Option<String> {
    let json = json.starts_with('{').then(|| RawJson::new(json))?;
    let members = json.members();
    members.get("sketch").filter(|bytes| bytes.get().starts_with('"'))?;
    if members.len() == 2 {
        return Some(members.get("estimate")?.get().to_owned());
    }
    let numbers = PERCENTILES.map(|name| Some(format!("{name} {}", members.get(name)?.get())));
    let numbers: Option<Vec<_>> = numbers.into_iter().collect();
    numbers.filter(|_| members.len() == PERCENTILES.len() + 1).map(|numbers| numbers.join(", "))
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

    #[test]
    fn of_a_sketch_only_its_numbers_are_shown() {
        let shown =
            |json: &str| cell(RawJson::new(&format!("{{\"v\":{json}}}")).members().get("v"));
        assert_eq!(shown(r#"{"estimate":3,"sketch":"ASYW"}"#), "3");
        let percentiles = r#"{"count":3,"min":1,"p50":2,"p75":3,"p90":3,"p95":3,"p99":3,"max":3,"sketch":"Awg="}"#;
        assert_eq!(shown(percentiles), "count 3, min 1, p50 2, p75 3, p90 3, p95 3, p99 3, max 3");
        let others =
            [r#"{"estimate":3}"#, r#"{"sketch":"a","name":"b"}"#, r#"{"sketch":1,"estimate":2}"#];
        others.into_iter().for_each(|json| assert_eq!(shown(json), json));
    }
}
