//! Checks definitions of named queries.

use std::collections::BTreeSet;

use lantern_api::{ParameterKind, QueryDefinition, QueryParameter};

use serde_json::{Map, Value};

use super::super::projections::read_json;
use super::DEFINITION;
use super::binding::{Given, RESERVED, UsedParameter, used_parameters, values};
use crate::problem::Problem;

/// The most bytes of a name.
const NAME_BYTES_MAX: usize = 64;

fn refused(detail: String) -> Problem {
    Problem::new(DEFINITION, detail)
}

/// Reads a definition. Nested objects must not be arrays, because serde would also accept an array
/// of the members' values.
pub(super) fn read(body: &[u8]) -> Result<QueryDefinition, Problem> {
    let members: Map<String, Value> = read_json(body)?;
    let parameters = members.get("parameters").and_then(Value::as_object).into_iter().flatten();
    for (name, value) in members.get_key_value("query").into_iter().chain(parameters) {
        if value.is_array() {
            return Err(refused(format!("`{name}` is an array and must be an object")));
        }
    }
    read_json(body)
}

/// Whether `name` consists of letters, digits, `-` and `_`.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Checks the name under which a document is stored. `kind` is the kind of the document in the
/// problem, and `code` the code of the problem.
pub(in crate::http) fn check_name(
    kind: &str,
    name: &str,
    code: &'static str,
) -> Result<(), Problem> {
    if is_name(name) {
        return Ok(());
    }
    let detail = format!(
        "the name of a {kind} must consist of 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`: `{}`",
        name.chars().take(NAME_BYTES_MAX).collect::<String>()
    );
    Err(Problem::new(code, detail))
}

/// The projection and the table.
pub(super) fn table_of(query: &QueryDefinition) -> Result<(&str, &str), Problem> {
    query.table.split_once('/').ok_or_else(|| {
        let table = &query.table;
        refused(format!("`table` is `{table}`: write it as `PROJECTION/TABLE`"))
    })
}

/// Checks the definition without its table.
pub(crate) fn check(query: &QueryDefinition) -> Result<(), Problem> {
    table_of(query)?;
    for (member, given) in [
        ("cursor", query.query.cursor.is_some()),
        ("min_offset", query.query.min_offset.is_some()),
        ("wait", query.query.wait.is_some()),
        ("export", query.query.export),
    ] {
        if given {
            let detail = format!("`query.{member}` belongs to a request: leave it out");
            return Err(refused(detail));
        }
    }
    let used = used_parameters(&query.query);
    for (name, parameter) in &query.parameters {
        check_parameter(name, parameter)?;
        if !used.iter().any(|used| used.name == *name) {
            let detail =
                format!("the parameter `{name}` is not used: write `\"${name}\"` in the query");
            return Err(refused(detail));
        }
    }
    for used in used {
        let (name, member) = (used.name, used.member);
        let Some(parameter) = query.parameters.get(name) else {
            let detail = format!(
                "`{member}` uses `${name}`: declare `{name}` in `parameters`, or write `$${name}` for a text"
            );
            return Err(refused(detail));
        };
        if parameter.list && !used.in_condition {
            let detail = format!("`{member}` has one value: the parameter `{name}` is a list");
            return Err(refused(detail));
        }
        if used.needs_default() && parameter.default.is_none() && !parameter.optional {
            let detail = format!(
                "`{member}` uses `${name}`: give the parameter a `default`, with which the query is checked"
            );
            return Err(refused(detail));
        }
    }
    Ok(())
}

fn check_parameter(name: &str, parameter: &QueryParameter) -> Result<(), Problem> {
    if !is_name(name) || RESERVED.contains(&name) {
        let detail = format!(
            "`{name}` cannot be the name of a parameter: use letters, digits, `-` and `_`, and none of `{}`",
            RESERVED.join("`, `")
        );
        return Err(refused(detail));
    }
    let Some(default) = &parameter.default else { return Ok(()) };
    if parameter.optional {
        let detail = format!("the parameter `{name}` has a `default`: leave `optional` out");
        return Err(refused(detail));
    }
    match values(name, parameter, default) {
        Ok(_) => Ok(()),
        Err(problem) => Err(refused(format!("the default: {}", problem.detail))),
    }
}

/// Returns two sets of sample values to check a query with: one with all parameters, and one
/// without the optional parameters.
pub(super) fn samples(query: &QueryDefinition) -> [Given; 2] {
    let sample = |parameter: &QueryParameter| match parameter.kind {
        ParameterKind::Text => "a",
        ParameterKind::Integer | ParameterKind::Number => "1",
        ParameterKind::Boolean => "true",
        ParameterKind::Timestamp => "2026-01-01T00:00:00Z",
    };
    let needs_default: BTreeSet<&str> = used_parameters(&query.query)
        .into_iter()
        .filter(UsedParameter::needs_default)
        .map(|used| used.name)
        .collect();
    let given = |optional: bool| -> Given {
        let parameters = query.parameters.iter().filter(|(name, parameter)| {
            let has_sample = !needs_default.contains(name.as_str());
            parameter.default.is_none() && has_sample && (optional || !parameter.optional)
        });
        parameters.map(|(name, parameter)| (name.clone(), sample(parameter).to_owned())).collect()
    };
    [given(true), given(false)]
}
