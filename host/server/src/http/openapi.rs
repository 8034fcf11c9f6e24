//! Generates the description of the API (OpenAPI 3.1). This module adds what is the same for every
//! address: names of operations, problems, limits, and media types.
//!
//! The module changes the JSON once, when the server starts. The macros on the functions cannot do
//! this: they support only one media type for each answer, and do not know the settings.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::cloudevents::{ATTRIBUTE_BYTES_MAX, BATCH, NDJSON, STRUCTURED, TYPE_BYTES_MAX};
use crate::config::HttpConfig;
use crate::http::params::{ARROW, PARQUET};
use crate::problem::PROBLEM;

const JSON: &str = "application/json";
const PROBLEM_SCHEMA: &str = "#/components/schemas/Problem";
const EVENT_SCHEMA: &str = "#/components/schemas/CloudEvent";
/// The answers that a request to any address may get.
const ANYWHERE: [(&str, &str); 8] = [
    ("400", "the request or a parameter is malformed"),
    ("403", "the request names another host, or comes from a page that may not call this server"),
    ("408", "the request's headers did not come in time"),
    ("413", "the body is too large"),
    ("415", "the body has a content coding that is not supported"),
    ("431", "the request's headers are too large"),
    ("500", "an error inside the server"),
    ("503", "the server is busy or shutting down; try again after `Retry-After` seconds"),
];

/// Completes the description of the API with the parts that are the same for all addresses.
pub(super) fn complete(api: &OpenApi, config: &HttpConfig) -> Value {
    let mut api = serde_json::to_value(api).expect("a description always encodes");
    api["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    api["components"]["schemas"]["Problem"] = problem();
    api["components"]["schemas"]["CloudEvent"] = event();
    if let Some(schemas) = api["components"]["schemas"].as_object_mut() {
        schemas.values_mut().for_each(name_members);
    }
    let Some(paths) = api["paths"].as_object_mut() else { return api };
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            operation["operationId"] = operation_id(method, path).into();
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            parameters.into_iter().flatten().for_each(|one| bound(one, path, config));
            answers(&mut operation["responses"], path);
        }
    }
    media(&mut api["paths"]);
    api
}

/// Returns the name of an operation, for example `get_tables_projection_table` for `GET
/// /v1/tables/{projection}/{table}`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/v1").split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).fold(method.to_owned(), |id, word| id + "_" + word)
}

/// Describes the keys of maps as strings. The keys of a JSON object are strings even if they are
/// numbers in Rust.
fn name_members(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(names) = members.get_mut("propertyNames")
                && names["type"] == "integer"
            {
                *names = json!({"type": "string", "pattern": "^[0-9]+$"});
            }
            members.values_mut().for_each(name_members);
        }
        Value::Array(items) => items.iter_mut().for_each(name_members),
        _ => (),
    }
}

/// Adds limits to the description of a parameter. If the parameter is optional, it also removes the
/// type `null` from the description.
fn bound(parameter: &mut Value, path: &str, config: &HttpConfig) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let schema = &mut parameter["schema"];
    if let Some(types) = schema["type"].as_array() {
        let first = types.iter().find(|kind| *kind != "null").cloned();
        schema["type"] = first.unwrap_or_default();
    }
    if let Some(choice) = schema["oneOf"].as_array() {
        let choice = choice.iter().find(|one| one["type"] != "null").cloned();
        *schema = choice.unwrap_or_default();
    }
    match name.as_str() {
        "limit" => {
            let parked = path.ends_with("/parked");
            let max = if parked { super::parked::LIMIT_MAX } else { config.query_rows_max };
            (schema["minimum"], schema["maximum"]) = (1.into(), max.into());
        }
        "partition" => schema["maximum"] = u32::MAX.into(),
        "wait" => schema["pattern"] = "^[0-9]+(ms|s|m)?$".into(),
        // A part of a path is never empty.
        "name" | "id" | "projection" | "table" | "code" => schema["minLength"] = 1.into(),
        "time" if !path.starts_with("/v1/tables") => schema["format"] = "date-time".into(),
        _ => (),
    }
}

/// Adds the answers that any address may give, and the media type of problems.
fn answers(answers: &mut Value, path: &str) {
    let Some(answers) = answers.as_object_mut() else { return };
    for answer in answers.values_mut() {
        let content = answer.get_mut("content").and_then(Value::as_object_mut);
        let Some(content) = content else { continue };
        let of_problem = |content: &Map<String, Value>| {
            content.get(JSON).is_some_and(|media| media["schema"]["$ref"] == PROBLEM_SCHEMA)
        };
        if of_problem(content)
            && let Some(media) = content.remove(JSON)
        {
            content.insert(PROBLEM.to_owned(), media);
        }
    }
    for (status, words) in ANYWHERE {
        // The answer 503 of `/readyz` is not a problem.
        if path == "/readyz" && status == "503" {
            continue;
        }
        let known = answers.entry(status).or_insert_with(|| problem_answer(words));
        if known["content"].is_null() {
            *known = problem_answer(words);
        }
    }
    answers.insert("405".into(), problem_answer("the address does not accept this method"));
}

fn problem_answer(words: &str) -> Value {
    json!({"description": words, "content": {PROBLEM: {"schema": {"$ref": PROBLEM_SCHEMA}}}})
}

/// Adds the media types that the macros cannot name.
fn media(paths: &mut Value) {
    let text = |example: &str| json!({"schema": {"type": "string", "example": example}});
    let ok = |paths: &mut Value, path: &str, media: &str, schema: Value| {
        paths[path]["get"]["responses"]["200"]["content"][media] = schema;
    };
    let table = "/v1/tables/{projection}/{table}";
    ok(paths, table, NDJSON, text("{\"key\":\"p1\",\"value\":{\"cents\":340}}\n"));
    ok(paths, table, "text/csv", text("key,product,cents\r\np1,p1,340\r\n"));
    ok(paths, table, "text/plain", text("revenue_by_product_cents{key=\"p1\"} 340\n"));
    for media in [ARROW, PARQUET] {
        ok(paths, table, media, json!({"schema": {"type": "string", "format": "binary"}}));
    }
    let query = "/v1/tables/{projection}/{table}/query";
    let content = paths[table]["get"]["responses"]["200"]["content"].clone();
    paths["/v1/queries/{name}"]["get"]["responses"]["200"]["content"] = content.clone();
    paths[query]["post"]["responses"]["200"]["content"] = content;
    let events = json!({"schema": {"type": "array", "items": {"$ref": EVENT_SCHEMA}}});
    ok(paths, "/v1/events", BATCH, events.clone());
    ok(paths, "/v1/events", NDJSON, text("{\"specversion\":\"1.0\",…}\n"));
    let lines = "one event per line, of any length";
    paths["/v1/events"]["post"]["requestBody"] = json!({
        "required": true,
        "description": "Any other media type is binary mode: attributes in `ce-` headers, the body is the data.",
        "content": {
            STRUCTURED: {"schema": {"$ref": EVENT_SCHEMA}},
            BATCH: events,
            NDJSON: {"schema": {"type": "string", "description": lines}},
        },
    });
    for path in [
        "/v1/projections/{name}/versions",
        "/v1/versions",
        "/v1/versions/dry-run",
        "/v1/plugins/check",
    ] {
        let content = &mut paths[path]["post"]["requestBody"]["content"];
        let bytes = json!({"schema": {"type": "string", "format": "binary"}});
        content["application/wasm"] = bytes;
        for source in [
            "text/x-python",
            "text/javascript",
            "text/typescript",
            "application/yaml",
            "application/json",
        ] {
            content[source] = json!({"schema": {"type": "string"}});
        }
        content["multipart/form-data"] = json!({"schema": {
            "type": "object",
            "anyOf": [{"required": ["plugin"]}, {"required": ["source"]}],
            "additionalProperties": false,
            "properties": {
                "plugin": {"type": "string", "format": "binary"},
                "source": {"type": "string"},
                "parameters": {"type": "string"},
            },
        }});
    }
}

/// Returns the schema of a problem (RFC 9457).
fn problem() -> Value {
    json!({
        "type": "object",
        "description": "A problem (RFC 9457). Some have further members, such as `errors`.",
        "required": ["type", "title", "status", "detail", "code", "help"],
        "properties": {
            "type": {
                "type": "string",
                "format": "uri-reference",
                "description": "Where this kind of error is explained, relative to this server.",
                "pattern": "^/v1/errors/LAN-[0-9]{4}$",
            },
            "title": {"type": "string", "description": "What went wrong, the same for every error of this code."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
            "detail": {"type": "string", "description": "What went wrong here, quoting the value."},
            "code": {"type": "string", "pattern": "^LAN-[0-9]{4}$", "description": "The stable code."},
            "help": {"type": "string", "description": "What to do about it."},
        },
        "additionalProperties": true,
    })
}

/// Returns the schema of an event in the JSON format of CloudEvents 1.0.2.
fn event() -> Value {
    // Control characters are not allowed.
    let text = |max: usize| {
        json!({
            "type": "string", "minLength": 1, "maxLength": max,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        })
    };
    let attribute = text(ATTRIBUTE_BYTES_MAX);
    json!({
        "type": "object",
        "description": "A CloudEvents 1.0 event in structured mode. Lengths are in bytes of UTF-8.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"type": "string", "enum": ["1.0"]},
            "id": attribute,
            "source": {"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX, "format": "uri-reference"},
            "type": text(TYPE_BYTES_MAX),
            "subject": attribute,
            "tenant": attribute,
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string", "example": "application/json"},
            "dataschema": {"type": "string", "format": "uri", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX},
            "data": {},
            "data_base64": {"type": "string", "contentEncoding": "base64"},
        },
        "additionalProperties": {"type": ["string", "boolean", "integer"]},
        "not": {"required": ["data", "data_base64"]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_text_for_keys() {
        let mut schema = json!({"a": [{"propertyNames": {"type": "integer", "minimum": 0}}]});
        name_members(&mut schema);
        assert_eq!(schema["a"][0]["propertyNames"]["type"], "string");
    }

    #[test]
    fn operations_are_named_after_method_and_path() {
        assert_eq!(
            operation_id("get", "/v1/tables/{projection}/{table}"),
            "get_tables_projection_table"
        );
        assert_eq!(operation_id("post", "/v1/dead-letters/resend"), "post_dead_letters_resend");
        assert_eq!(operation_id("get", "/healthz"), "get_healthz");
    }
}
