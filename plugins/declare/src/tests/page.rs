//! Tests the examples in `docs/guide/declarations.md`, and the JSON Schema.

use std::path::Path;

use lantern_sdk::testing::TestEvent;
use serde_json::Value;

use super::{host, try_host};
use crate::document::Declaration;
use crate::expression::functions::FUNCTIONS;

const PAGE: &str = include_str!("../../../../docs/guide/declarations.md");

/// Returns the texts of all code blocks of the page that are marked with this language.
fn blocks<'a>(language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let after = PAGE.split(fence.as_str()).skip(1);
    after.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Returns the expressions on the page, with their values: `` `a` → `b` ``.
fn examples() -> Vec<(String, Value)> {
    let mut examples = Vec::new();
    for (at, _) in PAGE.match_indices("` → `") {
        let before = &PAGE[..at];
        let expression = &before[before.rfind('`').unwrap() + 1..];
        let value = PAGE[at + "` → `".len()..].split('`').next().unwrap();
        examples.push((expression.to_owned(), serde_json::from_str(value).unwrap()));
    }
    examples
}

#[test]
fn every_example_of_the_page_has_the_value_it_says() {
    let event = TestEvent::from_json(blocks("json")[0].trim()).unwrap();
    let examples = examples();
    assert!(examples.len() > FUNCTIONS.len() + 10, "{} examples", examples.len());
    for (expression, value) in examples {
        let column = serde_json::to_string(&format!("last({expression})")).unwrap();
        let number = if expression.contains("data.price") { "data.price: number" } else { "" };
        let source = format!(
            "name: t\nfrom: order.placed\nfields: {{ {number} }}\ntables:\n  t:\n    columns:\n      value: {column}\n"
        );
        let mut host =
            try_host(&source, "").unwrap_or_else(|error| panic!("{expression}: {error}"));
        host.feed([event.clone()]);
        assert!(host.parked().is_empty(), "{expression}: {:?}", host.parked());
        assert_eq!(host.row("t", "all").unwrap()["value"], value, "{expression}");
    }
}

#[test]
fn the_page_has_every_function_and_its_declaration_is_accepted() {
    for signature in FUNCTIONS {
        let row = format!("| `{}(", signature.name);
        assert!(PAGE.contains(&row), "{} is missing in the page", signature.name);
        let called = examples().iter().any(|(it, _)| it.contains(&format!("{}(", signature.name)));
        assert!(called, "{} has no example", signature.name);
    }
    for source in blocks("yaml") {
        host(source);
    }
}

#[test]
fn the_schema_for_editors_is_the_one_of_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/declaration.schema.json");
    let mut schema = schemars::schema_for!(Declaration);
    schema.insert("title".to_owned(), "A declaration of a Lantern projection".into());
    let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    if std::env::var_os("LANTERN_UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "run the tests of `declare` with LANTERN_UPDATE=1");
}

#[test]
fn parameters_come_from_the_version_and_are_checked() {
    let source = "name: t\nfrom: a\nparameters: { least: 5, zone: { kind: text } }\ntables:\n  t:\n    where: data.n >= parameter.least and data.z == parameter.zone\n    columns: { n: count() }\n";
    let error = |parameters: &str| match try_host(source, parameters) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.lines().next().unwrap().to_owned(),
    };
    assert!(try_host(source, r#"{"zone": "x", "least": 6}"#).is_ok());
    assert_eq!(error("{}"), "test.yaml:3:25: the parameter `zone` has no value");
    assert_eq!(
        error(r#"{"zone": "x", "last": 6}"#),
        "test.yaml:1:1: the version gives the parameter `last`, which the declaration does not have"
    );
    assert_eq!(
        error(r#"{"zone": 5}"#),
        "test.yaml:3:25: the version gives 5 for the parameter `zone`, which is of the kind text"
    );
}
