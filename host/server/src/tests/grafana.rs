//! The files in `docs/grafana`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lantern_api::QueryDefinition;

use super::metrics::lint;
use super::tables::filled;
use super::*;
use crate::telemetry::FAMILIES;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/grafana")
}

/// The files with this ending, with their texts.
fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(!files.is_empty(), "{} has no `.{ending}`", folder.display());
    files
}

/// The metrics that a text names, without the endings of histograms.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("lantern_") || word.starts_with("process_"));
    words.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned()).collect()
}

#[tokio::test]
async fn every_metric_in_the_files_for_grafana_exists() {
    let fixture = filled().await;
    let scrape = fixture.get("/metrics").await.expect_ok();
    let mut known = lint(&scrape.text);
    known.extend(FAMILIES.iter().map(|(_, name, _)| (*name).to_owned()));
    known.extend(super::metrics::described());
    let mut named = BTreeSet::new();
    for (path, text) in files(&folder(), "json").into_iter().chain(files(&folder(), "yml")) {
        for metric in metrics(&text) {
            assert!(known.contains(&metric), "{}: there is no `{metric}`", path.display());
            named.insert(metric);
        }
    }
    assert!(named.len() > 15, "{named:?}");
}

#[test]
fn the_files_for_grafana_can_be_parsed() {
    for (path, text) in files(&folder(), "json") {
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{}", path.display());
        for panel in panels {
            assert!(panel["gridPos"]["w"].as_u64().is_some(), "{panel}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
        }
    }
    for (path, text) in files(&folder(), "yml") {
        for event in saphyr_parser::Parser::new_from_str(&text) {
            event.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
    let alerts = fs::read_to_string(folder().join("alerts.yml")).unwrap();
    for rule in [
        "lantern_shard_lag_seconds > 300",
        "lantern_shard_halted",
        "lantern_shard_parked_events",
        "lantern_disk_available_bytes",
    ] {
        assert!(alerts.contains(rule), "{rule}");
    }
}

#[test]
fn the_dashboard_over_named_queries_uses_those_in_the_folder() {
    let dashboard = fs::read_to_string(folder().join("revenue.json")).unwrap();
    for (path, text) in files(&folder().join("queries"), "json") {
        let query: QueryDefinition = serde_json::from_str(&text).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(dashboard.contains(&format!("/v1/queries/{name}")), "{name}");
        crate::http::check_definition(&query).unwrap();
    }
    let used = dashboard.matches("/v1/queries/").count();
    assert_eq!(used, files(&folder().join("queries"), "json").len());
}

#[tokio::test]
async fn a_table_and_a_roll_up_are_metrics_with_a_limit() {
    let fixture = Fixture::with(|config| config.query.prometheus_rows_max = 3);
    fixture.project(counts()).await;
    let body: String =
        (0..3).map(|i| event(&i.to_string(), "t", &format!("s{i}")) + "\n").collect();
    fixture.post("/v1/events", crate::cloudevents::NDJSON, body).await.expect_ok();
    let table = "/v1/tables/counts/by_subject?format=prometheus";
    let answer = fixture.until(table, |answer| answer.text.contains("s2")).await.expect_ok();
    assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(lint(&answer.text), BTreeSet::from(["counts_by_subject_count".to_owned()]));
    let line = "counts_by_subject_count{key=\"s0\",subject=\"s0\"} 1\n";
    assert!(answer.text.contains(line), "{}", answer.text);
    let groups = fixture.get(&format!("{table}&by=count&agg=count()%20as%20n")).await.expect_ok();
    assert!(groups.text.ends_with("counts_by_subject_n{count=\"1\"} 3\n"), "{}", groups.text);
    let one = fixture.get(&format!("{table}&limit=1&order=-count")).await.expect_ok();
    assert_eq!(one.text.lines().count(), 3);
    fixture.get(&format!("{table}&cols=subject")).await.is_problem("LAN-0426", "no field of kind");
    fixture.get(&format!("{table}&export=1")).await.is_problem("LAN-0403", "`export`");
    fixture.get(&format!("{table}&limit=4")).await.is_problem("LAN-0403", "1 to 3");
    fixture
        .post("/v1/events", "application/cloudevents+json", event("9", "t", "s9"))
        .await
        .expect_ok();
    let many = fixture.until(table, |answer| answer.status != 200).await;
    many.is_problem("LAN-0427", "the limit is 3 (`query.prometheus_rows_max`)");
}
