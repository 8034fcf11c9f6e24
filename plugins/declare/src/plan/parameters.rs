//! Represents the parameters of a declaration.

use lantern_sdk::Timestamp;
use serde_json::{Map, Value, json};

use crate::deserialize::{Named, Placed};
use crate::document::{Kind, Parameter};
use crate::expression::compile::Constant;
use crate::problem::{Place, Problem};

/// Returns the values of the parameters: those that the version gives, and defaults for the others.
///
/// # Errors
/// Fails if a default or a given value has the wrong kind, or if a parameter has neither.
pub(super) fn values(
    declared: &Named<Parameter>,
    given: &Map<String, Value>,
) -> Result<Vec<(String, Kind, Constant)>, Problem> {
    if let Some(name) = given.keys().find(|name| declared.0.iter().all(|it| it.0.text != **name)) {
        let problem = Problem::new(
            Place::default(),
            format!(
                "the version gives the parameter `{name}`, which the declaration does not have"
            ),
        );
        let known = declared.0.iter().map(|(name, _)| name.text.as_str());
        return Err(problem.suggest(name, known, "the parameters are"));
    }
    let mut values = Vec::new();
    for (name, parameter) in &declared.0 {
        let kind = kind(parameter);
        let value = match given.get(&name.text) {
            Some(value) => of_json(value, kind).ok_or_else(|| {
                let why = format!(
                    "the version gives {value} for the parameter `{}`, which is of the kind {}",
                    name.text,
                    kind.name()
                );
                Problem::new(name.place, why)
            })?,
            None => match &parameter.default {
                Some(default) => of_text(&default.text, kind).ok_or_else(|| {
                    let why = format!("`{}` is not of the kind {}", default.text, kind.name());
                    Problem::new(default.place, why)
                })?,
                None => {
                    let why = format!("the parameter `{}` has no value", name.text);
                    return Err(Problem::new(name.place, why)
                        .help("give it with the version, or add a `default`"));
                }
            },
        };
        values.push((name.text.clone(), kind, value));
    }
    Ok(values)
}

/// Returns the kind that the declaration states, or that of the default value.
fn kind(parameter: &Parameter) -> Kind {
    let of = |default: &Placed| {
        let text = default.text.as_str();
        if default.quoted {
            Kind::Text
        } else if text == "true" || text == "false" {
            Kind::Boolean
        } else if text.parse::<i64>().is_ok() {
            Kind::Integer
        } else if text.starts_with(|it: char| it.is_ascii_digit() || it == '-')
            && text.parse::<f64>().is_ok_and(f64::is_finite)
        {
            Kind::Number
        } else {
            Kind::Text
        }
    };
    match (parameter.kind, &parameter.default) {
        (Some(kind), _) => kind,
        (None, Some(default)) => of(default),
        (None, None) => Kind::Text,
    }
}

fn of_text(text: &str, kind: Kind) -> Option<Constant> {
    Some(match kind {
        Kind::Integer => Constant::Integer(text.parse().ok()?),
        Kind::Number => Constant::Number(text.parse().ok().filter(|it: &f64| it.is_finite())?),
        Kind::Boolean => Constant::Boolean(text.parse().ok()?),
        Kind::Timestamp => Constant::Timestamp(text.parse::<Timestamp>().ok()?),
        Kind::Text => Constant::Text(text.into()),
    })
}

fn of_json(value: &Value, kind: Kind) -> Option<Constant> {
    match (kind, value) {
        (Kind::Integer, value) => value.as_i64().map(Constant::Integer),
        (Kind::Number, value) => value.as_f64().map(Constant::Number),
        (Kind::Boolean, value) => value.as_bool().map(Constant::Boolean),
        (Kind::Text | Kind::Timestamp, Value::String(text)) => of_text(text, kind),
        _ => None,
    }
}

/// Returns the JSON Schema of the parameters.
pub(super) fn schema(declared: &Named<Parameter>) -> String {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, parameter) in &declared.0 {
        let kind = kind(parameter);
        let mut schema = match kind {
            Kind::Timestamp => json!({ "type": "string", "format": "date-time" }),
            Kind::Text => json!({ "type": "string" }),
            other => json!({ "type": other.name() }),
        };
        match parameter.default.as_ref().and_then(|it| of_text(&it.text, kind)) {
            Some(default) => schema["default"] = to_json(&default),
            None => required.push(name.text.clone()),
        }
        properties.insert(name.text.clone(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema.to_string()
}

fn to_json(value: &Constant) -> Value {
    match value {
        Constant::Null => Value::Null,
        Constant::Boolean(value) => json!(value),
        Constant::Integer(value) => json!(value),
        Constant::Number(value) => json!(value),
        Constant::Text(value) => json!(value),
        Constant::Timestamp(value) => json!(value.to_string()),
    }
}
