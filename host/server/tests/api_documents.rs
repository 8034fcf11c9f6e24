//! Tests the published documents of the API: `docs/openapi.json` for HTTP and
//! `docs/feed.schema.json` for the feed. Both are generated from `lantern-api`.

use std::path::Path;

use lantern_server::ServerConfig;
use serde_json::Value;

/// Compares the stored document `file` with `made`. If `LANTERN_WRITE_SCHEMA` is set, as `cargo
/// xtask docs` does, it first writes `made` to the file.
fn check(file: &str, made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
    let text = serde_json::to_string_pretty(made).expect("JSON always encodes") + "\n";
    if std::env::var_os("LANTERN_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &text).expect("the folder `docs` can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == text, "docs/{file} is out of date; run `cargo xtask docs`");
}

#[test]
fn the_openapi_document_is_up_to_date() {
    check("openapi.json", &lantern_server::openapi(&ServerConfig::default().http));
}

#[test]
fn the_schema_of_the_feed_is_up_to_date() {
    check("feed.schema.json", &lantern_api::feed::schema());
}
