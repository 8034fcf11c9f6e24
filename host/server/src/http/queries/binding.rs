//! Puts the values of parameters into a query.

use std::collections::BTreeMap;

use http::Uri;
use lantern_api::{ParameterKind, QueryBody, QueryDefinition, QueryParameter, RawJson};
use lantern_core::{parse_rfc3339, similar};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::http::params::{FormatName, Params, with_query};
use crate::http::tables::TableQuery;
use crate::problem::Problem;

/// The names that parameters of a definition cannot have.
pub(super) const RESERVED: [&str; 6] =
    ["limit", "cursor", "export", "format", "min_offset", "wait"];

/// The values of the parameters in a request, as text, by the names of the parameters.
pub(super) type Given = BTreeMap<String, String>;

/// The parameters of every named query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunParameters {
    /// The maximum number of rows or groups. It replaces the limit in the definition.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// Whether to send the whole result from one committed state, without pages: `1` or
    /// `true`.
    #[serde(deserialize_with = "crate::http::params::flag")]
    export: bool,
    /// The format of the answer, in place of `Accept`.
    #[param(inline)]
    format: Option<FormatName>,
    /// Answer with a state that contains the events at these offsets.
    min_offset: Option<String>,
    /// How long to wait for `min_offset`: `5s`.
    wait: Option<String>,
}

impl RunParameters {
    /// Reads the parameters of a request. Returns those that every named query has, and those that
    /// this query defines.
    pub(super) fn read(uri: &Uri) -> Result<(Self, Given), Problem> {
        let (mut of_run, mut given) = (Vec::new(), Given::new());
        for part in uri.query().unwrap_or_default().split('&') {
            // The name of a parameter may be percent-encoded.
            let decoded = Params::<Vec<(String, String)>>::read(&with_query(&[part])?)?.0;
            for (name, value) in decoded {
                if RESERVED.contains(&name.as_str()) {
                    of_run.push(part);
                } else if given.insert(name.clone(), value).is_some() {
                    let detail =
                        format!("`{name}` is given twice: separate several values by commas");
                    return Err(wrong(&name, detail));
                }
            }
        }
        Ok((Params::<Self>::read(&with_query(&of_run)?)?.0, given))
    }

    pub(super) fn apply(self, mut which: TableQuery) -> Result<TableQuery, Problem> {
        which.limit = self.limit.or(which.limit);
        which.cursor = self.cursor;
        which.export = self.export;
        which.format = self.format;
        which.min_offset = self.min_offset;
        which.wait = self.wait;
        which.check()?;
        Ok(which)
    }
}

/// A parameter that a query uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UsedParameter<'q> {
    pub(super) name: &'q str,
    /// The member of the query that uses the parameter.
    pub(super) member: &'static str,
    pub(super) in_condition: bool,
}

impl UsedParameter<'_> {
    /// Returns whether only the parameter's default can be used to check a definition. This is so
    /// if the member does not accept a sample value such as `a` or `1`.
    pub(super) fn needs_default(&self) -> bool {
        ["bucket", "order", "tz"].contains(&self.member)
    }
}

/// The parameters that `query` uses.
pub(super) fn used_parameters(query: &QueryBody) -> Vec<UsedParameter<'_>> {
    let members = members(query).into_iter().filter_map(|(member, text)| {
        let name = reference(text.as_deref()?)?;
        Some(UsedParameter { name, member, in_condition: false })
    });
    let conditions = query.conditions.iter().filter_map(|(_, _, value)| {
        let name = reference(value.get().strip_prefix('"')?.strip_suffix('"')?)?;
        Some(UsedParameter { name, member: "where", in_condition: true })
    });
    members.chain(conditions).collect()
}

/// The members that may be parameters.
fn members(query: &QueryBody) -> [(&'static str, &Option<String>); 8] {
    [
        ("prefix", &query.prefix),
        ("from", &query.from),
        ("to", &query.to),
        ("start", &query.start),
        ("end", &query.end),
        ("bucket", &query.bucket),
        ("order", &query.order),
        ("tz", &query.tz),
    ]
}

/// Returns the name of the parameter if `text` has the form `$NAME`. A text that begins with `$$`
/// is not a parameter.
fn reference(text: &str) -> Option<&str> {
    text.strip_prefix('$').filter(|name| !name.starts_with('$'))
}

/// Returns the query of `definition`, with its parameters replaced by the values in `given`.
pub(super) fn bind(definition: &QueryDefinition, given: &Given) -> Result<QueryBody, Problem> {
    for name in given.keys() {
        if !definition.parameters.contains_key(name) {
            return Err(unknown(definition, name));
        }
    }
    // `None` for an optional parameter without a value.
    let value_of = |name: &str| -> Result<Option<Vec<BoundValue>>, Problem> {
        let parameter = definition.parameters.get(name).ok_or_else(|| unknown(definition, name))?;
        let given = given.get(name).filter(|value| !(parameter.optional && value.is_empty()));
        match given.or(parameter.default.as_ref()) {
            Some(text) => values(name, parameter, text).map(Some),
            None if parameter.optional => Ok(None),
            None => {
                let form = form(parameter);
                let detail = format!("`{name}` is missing: add `{name}={form}`");
                Err(wrong(name, detail))
            }
        }
    };
    let mut query = definition.query.clone();
    let mut conditions = Vec::with_capacity(query.conditions.len());
    for (field, operator, value) in std::mem::take(&mut query.conditions) {
        let text = serde_json::from_str::<String>(value.get()).ok();
        let value = match text.as_deref().map(|text| (reference(text), text)) {
            None => value,
            Some((None, text)) => RawJson::new(&Value::from(unescaped(text)).to_string()),
            Some((Some(name), _)) => {
                let Some(values) = value_of(name)? else { continue };
                condition_value(&values, definition.parameters[name].list)
            }
        };
        conditions.push((field, operator, value));
    }
    query.conditions = conditions;
    let QueryBody { prefix, from, to, start, end, bucket, order, tz, .. } = &mut query;
    for member in [prefix, from, to, start, end, bucket, order, tz] {
        let Some(text) = member else { continue };
        *member = match reference(text) {
            Some(name) => value_of(name)?.and_then(|values| Some(values.into_iter().next()?.text)),
            None => Some(unescaped(text).to_owned()),
        };
    }
    Ok(query)
}

fn unescaped(text: &str) -> &str {
    if text.starts_with("$$") { &text[1..] } else { text }
}

fn condition_value(values: &[BoundValue], list: bool) -> RawJson {
    let values: Vec<&str> = values.iter().map(|value| value.json.as_str()).collect();
    match values.as_slice() {
        [value] if !list => RawJson::new(value),
        values => RawJson::new(&format!("[{}]", values.join(","))),
    }
}

/// The value of a parameter: the text of the request, and the same value as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BoundValue {
    text: String,
    json: String,
}

/// The values of a parameter in `text`.
pub(super) fn values(
    name: &str,
    parameter: &QueryParameter,
    text: &str,
) -> Result<Vec<BoundValue>, Problem> {
    let value = |text: &str| {
        let json = json(parameter.kind, text).ok_or_else(|| {
            let (kind, form) = (parameter.kind.name(), form(parameter));
            let text: String = text.chars().take(128).collect();
            wrong(name, format!("`{name}` is `{text}`, which is no {kind}: write `{name}={form}`"))
        })?;
        Ok(BoundValue { text: text.to_owned(), json })
    };
    if parameter.list {
        text.split(',').map(|text| value(text.trim())).collect()
    } else {
        Ok(vec![value(text)?])
    }
}

/// Returns `text` as a JSON value of `kind`; `None` if it is not of this kind.
fn json(kind: ParameterKind, text: &str) -> Option<String> {
    let quoted = || Value::from(text).to_string();
    match kind {
        ParameterKind::Text => Some(quoted()),
        ParameterKind::Integer => text.parse::<i128>().ok().map(|number| number.to_string()),
        ParameterKind::Number => {
            let number = serde_json::from_str::<Value>(text).ok()?;
            number.is_number().then(|| text.to_owned())
        }
        ParameterKind::Boolean => matches!(text, "true" | "false").then(|| text.to_owned()),
        ParameterKind::Timestamp => {
            let is_time = parse_rfc3339(text).is_some()
                || parse_rfc3339(&format!("{text}T00:00:00Z")).is_some();
            is_time.then(quoted)
        }
    }
}

/// An example of a parameter's values.
fn form(parameter: &QueryParameter) -> &'static str {
    match (parameter.kind, parameter.list) {
        (ParameterKind::Text, false) => "TEXT",
        (ParameterKind::Text, true) => "TEXT,TEXT",
        (ParameterKind::Integer, false) => "10",
        (ParameterKind::Integer, true) => "10,20",
        (ParameterKind::Number, false) => "1.5",
        (ParameterKind::Number, true) => "1.5,2",
        (ParameterKind::Boolean, _) => "true",
        (ParameterKind::Timestamp, _) => "2026-03-01T12:00:00Z",
    }
}

fn unknown(definition: &QueryDefinition, name: &str) -> Problem {
    let names = || definition.parameters.keys().map(String::as_str);
    let hint = similar(name, names())
        .map(|similar| format!(": did you mean `{similar}`?"))
        .unwrap_or_default();
    let known: Vec<String> = names().chain(RESERVED).map(|name| format!("`{name}`")).collect();
    let name: String = name.chars().take(128).collect();
    let detail = format!("the query has no parameter `{name}`{hint}; it has {}", known.join(", "));
    wrong(&name, detail)
}

fn wrong(name: &str, detail: String) -> Problem {
    Problem::new("LAN-0432", detail).with("parameter", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(text: &str) -> QueryDefinition {
        serde_json::from_str(text).unwrap()
    }

    fn given(values: &[(&str, &str)]) -> Given {
        values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    const ALL: &str = r#"{"table":"p/t","parameters":{
        "country":{"kind":"text"},"min":{"kind":"integer","default":"7"},
        "ids":{"kind":"integer","list":true,"optional":true},
        "since":{"kind":"timestamp","optional":true}},
        "query":{"where":[["country","=","$country"],["cents",">=","$min"],["id","in","$ids"],
            ["note","=","$$5"],["n","=",3]],"start":"$since","prefix":"$$x"}}"#;

    #[test]
    fn values_take_the_places_of_their_parameters() {
        let bound = |values| serde_json::to_value(bind(&definition(ALL), &given(values)).unwrap());
        assert_eq!(
            bound(&[("country", "D\"E"), ("ids", "1, -2"), ("since", "2026-03-01")]).unwrap(),
            serde_json::json!({
                "where": [["country", "=", "D\"E"], ["cents", ">=", 7], ["id", "in", [1, -2]],
                          ["note", "=", "$5"], ["n", "=", 3]],
                "start": "2026-03-01", "prefix": "$x",
            })
        );
        // Conditions and members that use an optional parameter without a value are left out.
        assert_eq!(
            bound(&[("country", ""), ("min", "9"), ("ids", "")]).unwrap(),
            serde_json::json!({
                "where": [["country", "=", ""], ["cents", ">=", 9], ["note", "=", "$5"], ["n", "=", 3]],
                "prefix": "$x",
            })
        );
    }

    #[test]
    fn a_wrong_parameter_is_named_with_the_fix() {
        for (values, parameter, words) in [
            (vec![], "country", "add `country=TEXT`"),
            (vec![("country", "a"), ("min", "x")], "min", "no integer: write `min=10`"),
            (vec![("country", "a"), ("min", "")], "min", "no integer"),
            (vec![("country", "a"), ("ids", "1,b")], "ids", "`b`"),
            (vec![("country", "a"), ("since", "today")], "since", "2026-03-01T12:00:00Z"),
            (vec![("contry", "a")], "contry", "did you mean `country`?"),
        ] {
            let problem = bind(&definition(ALL), &given(&values)).unwrap_err();
            assert_eq!((problem.code.as_str(), problem.status), ("LAN-0432", 400));
            assert_eq!(problem.more["parameter"], parameter);
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
    }

    #[test]
    fn the_parameters_of_a_request_are_separated() {
        let read = |query: &str| RunParameters::read(&format!("/?{query}").parse().unwrap());
        let (run, of_query) = read("country=D%26E&limit=5&export=1&format=csv&x=").unwrap();
        assert_eq!(of_query, given(&[("country", "D&E"), ("x", "")]));
        assert_eq!((run.limit, run.export, run.format), (Some(5), true, Some(FormatName::Csv)));
        assert_eq!(read("l%69mit=5").unwrap().0.limit, Some(5));
        assert_eq!(read("").unwrap().1, given(&[]));
        assert_eq!(read("a=1&a=2").unwrap_err().more["parameter"], "a");
        assert_eq!(read("limit=x").unwrap_err().code, "LAN-0403");
    }
}
