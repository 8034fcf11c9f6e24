//! Generates the reference of the settings from their JSON Schema.

use std::fmt::Write;

use serde_json::Value;

const INTRO: &str = "\
# Configuration

No setting is required. Settings come from four places, and a later one overrides an earlier one: \
the defaults below, the file `lantern.toml` in the working folder (or the one that `lantern serve \
--config` names), the environment, flags of `lantern serve`.

In the file, a key belongs to its section:

```toml
data = \"/var/lib/lantern\"

[http]
listen = \"127.0.0.1:7420\"
```

In the environment, its name begins with `LANTERN_`, and two underscores separate section and key: \
`LANTERN_HTTP__LISTEN=127.0.0.1:7420`, `LANTERN_DATA=/var/lib/lantern`. An unknown key is an error \
that names it.

An editor that reads TOML schemas (Taplo, Even Better TOML) completes and checks the file if its \
first line is `#:schema PATH`, with the path of [config.schema.json](config.schema.json).
";

/// Generates the text of the whole document.
pub(super) fn document(schema: &Value) -> String {
    let mut text = INTRO.to_owned();
    section(schema, "", &mut text);
    text
}

/// Writes the settings of a section, and then those of its subsections.
fn section(schema: &Value, path: &str, text: &mut String) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let (sections, settings): (Vec<_>, Vec<_>) =
        properties.iter().partition(|(_, property)| property["properties"].is_object());
    let title = if path.is_empty() { "At the top".into() } else { format!("`[{path}]`") };
    let _ = writeln!(text, "\n## {title}\n");
    // The description of the whole schema is only for readers of the source.
    let docs = prose(schema);
    if !path.is_empty() && !docs.is_empty() {
        let _ = writeln!(text, "{docs}\n");
    }
    if !settings.is_empty() {
        text.push_str("| key | default | |\n|---|---|---|\n");
    }
    for (name, setting) in settings {
        // The column "default" already shows the default. So a sentence about the default at the
        // end of the description is removed.
        let docs = prose(setting);
        let docs = docs.rsplit_once(" Default ").map_or(docs.as_str(), |(docs, _)| docs);
        let docs = format!("{docs}{}", choices(setting)).replace('|', "\\|");
        let _ = writeln!(text, "| `{name}` | {} | {docs} |", default(name, &setting["default"]));
    }
    for (name, inner) in sections {
        let dot = if path.is_empty() { "" } else { "." };
        section(inner, &format!("{path}{dot}{name}"), text);
    }
}

/// Returns the description in a schema, as one line of Markdown without links to code.
fn prose(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    let text = text.replace("[`", "`").replace("`]", "`");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lists the possible values of a setting that has a fixed set of values. Returns an empty text for
/// all others.
fn choices(schema: &Value) -> String {
    let Some(values) = schema["oneOf"].as_array() else { return String::new() };
    let listed = values.iter().map(|value| {
        let name = value["const"].as_str().unwrap_or_default();
        format!("`{name}` ({})", lower(prose(value).trim_end_matches('.')))
    });
    format!(" One of {}.", listed.collect::<Vec<_>>().join(", "))
}

/// Returns `text` with its first letter in lower case, unless it begins with an abbreviation.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

fn default(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        Value::Array(list) if list.is_empty() => "none".into(),
        Value::Object(map) if map.is_empty() => "none".into(),
        Value::Number(number) => match number.as_u64() {
            Some(number) => format!("`{}`{}", grouped(number), unit(name, number)),
            None => format!("`{number}`"),
        },
        other => format!("`{other}`"),
    }
}

/// Formats a number with its digits in groups of three if it has more than four digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len() > 4 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of bytes in the largest unit that divides it. Returns an empty text if no unit
/// does.
fn unit(name: &str, number: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |(bits, _): &&(u32, &str)| number > 0 && number.is_multiple_of(1 << bits);
    let unit = units.iter().filter(|_| name.contains("bytes")).find(fits);
    unit.map_or(String::new(), |(bits, unit)| format!(" ({} {unit})", number >> bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_text_and_its_default() {
        let schema = serde_json::json!({"description": "All.", "properties": {
            "data": {"description": "The folder,\nsee [`Other`].", "default": "data"},
            "how": {"description": "How. Default lz4.", "default": "lz4", "oneOf": [
                {"const": "none", "description": "Not at all."},
                {"const": "lz4", "description": "LZ4."}]},
            "http": {"description": "The HTTP API.", "properties": {
                "body_bytes": {"description": "Bytes. Default 16 MiB.", "default": 16_777_216},
                "names": {"description": "With | a bar.", "default": {}},
                "most": {"default": 3000},
                "age": {"default": null},
                "on": {"default": true},
                "inner": {"properties": {"sum": {"default": 130_816}}},
            }},
        }});
        let text = document(&schema);
        for line in [
            "| `data` | `\"data\"` | The folder, see `Other`. |",
            "| `how` | `\"lz4\"` | How. One of `none` (not at all), `lz4` (LZ4). |",
            "## `[http]`\n\nThe HTTP API.\n\n| key |",
            "| `body_bytes` | `16_777_216` (16 MiB) | Bytes. |",
            "| `names` | none | With \\| a bar. |",
            "| `most` | `3000` |",
            "## `[http.inner]`\n\n| key |",
            "| `sum` | `130_816` |",
            "| `age` | not set |",
            "| `on` | `true` |",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(!text.contains("All."), "{text}");
    }
}
