//! Tests that the metrics follow Prometheus' rules, as promlint checks them. The test reads the
//! source code, so it also finds metrics that no other test creates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::telemetry::{FAMILIES, MetricKind};

/// Returns the metrics that the host's source code passes to the macros `counter!`, `gauge!` and
/// `histogram!`, with their kinds. `prefix` is the beginning of the macros' names, such as
/// `describe_`.
fn named(prefix: &str) -> BTreeMap<String, MetricKind> {
    let mut names = BTreeMap::new();
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders = vec![host.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name() != Some("target".as_ref()) {
                folders.push(path);
            } else if path.extension() == Some("rs".as_ref()) {
                find(prefix, &std::fs::read_to_string(path).unwrap(), &mut names);
            }
        }
    }
    names
}

/// The metrics that crates describe themselves.
pub(super) fn described() -> BTreeSet<String> {
    named("describe_").into_keys().collect()
}

fn find(prefix: &str, source: &str, names: &mut BTreeMap<String, MetricKind>) {
    for (word, kind) in [
        ("counter", MetricKind::Counter),
        ("gauge", MetricKind::Gauge),
        ("histogram", MetricKind::Histogram),
    ] {
        for (_, rest) in source
            .match_indices(&format!("{prefix}{word}!("))
            .map(|(at, found)| source.split_at(at + found.len()))
        {
            if let Some(rest) = rest.trim_start().strip_prefix('"') {
                names.insert(rest.split('"').next().unwrap().to_owned(), kind);
            }
        }
    }
}

#[test]
fn every_family_has_a_description_and_the_name_that_its_kind_asks_for() {
    let used = named("");
    assert!(used.len() > 30, "the sources were not found");
    let mut described: BTreeMap<String, MetricKind> = named("describe_");
    for (kind, name, help) in FAMILIES {
        assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        assert!(described.insert((*name).to_owned(), *kind).is_none(), "{name} is described twice");
    }
    for (name, kind) in &used {
        assert_eq!(described.get(name), Some(kind), "{name} has no description of its kind");
        assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name} is a {kind:?}");
        for unit in ["_ms", "_us", "_millis", "_minutes", "_kib", "_mib", "_percent"] {
            assert!(!name.contains(unit), "{name} is not in seconds, bytes or a ratio");
        }
    }
}

/// The families of a scrape, checked by the rules of promlint.
pub(super) fn lint(text: &str) -> BTreeSet<String> {
    let (mut helped, mut typed, mut families) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty(), "{line}");
                assert!(helped.insert((*name).to_owned()), "two HELP lines: {name}");
            }
            ["#", "TYPE", name, kind] => {
                assert!(
                    typed.insert((*name).to_owned(), *kind).is_none(),
                    "two TYPE lines: {name}"
                );
            }
            [sample, ..] if !sample.is_empty() && *sample != "#" => {
                let name = sample.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                    name.strip_suffix(suffix).filter(|b| typed.contains_key(*b))
                });
                families.insert(base.unwrap_or(name).to_owned());
            }
            _ => (),
        }
    }
    for name in &families {
        assert!(helped.contains(name), "{name} has no HELP");
        let kind = typed.get(name).unwrap_or_else(|| panic!("{name} has no TYPE"));
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name} is a {kind}");
    }
    families
}

#[tokio::test]
async fn a_scrape_is_clean_and_names_the_release_and_the_process() {
    let fixture = Fixture::new();
    fixture.project(counts()).await;
    fixture.post("/v1/events", crate::cloudevents::NDJSON, event("1", "t", "s")).await.expect_ok();
    let text = fixture.get("/metrics").await.expect_ok().text;
    let families = lint(&text);
    for name in [
        "lantern_build_info",
        "process_cpu_seconds_total",
        "process_open_fds",
        "lantern_version_info",
    ] {
        assert!(families.contains(name), "{name}: {text}");
    }
    let state = |line: &&str| line.contains("state=") && !line.starts_with("lantern_version_info");
    assert_eq!(text.lines().find(state), None);
}

#[tokio::test]
async fn names_from_outside_make_no_series() {
    let fixture = Fixture::new();
    for n in 0..20 {
        let method = Method::from_bytes(format!("FETCH{n}").as_bytes()).unwrap();
        fixture.send(request(method, &format!("/v1/nowhere/{n}"), &[], "")).await;
    }
    let text = fixture.get("/metrics").await.expect_ok().text;
    assert!(!text.contains("FETCH") && !text.contains("nowhere"), "{text}");
    assert!(text.contains("method=\"other\""), "{text}");
}
