//! Measures queries over a table of a million rows in the state file: the rows of a filter, the
//! first rows in the order of a field, and roll-ups.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use lantern_core::{
    FieldKind, FieldSpec, KeyRange, Manifest, PartitionId, ShardId, Space, StateStores, TableId,
    TableSpec, VersionId, View, Writes,
};
use lantern_query::{
    AggregateRequest, Budget, Cancel, ConditionRequest, PageSize, Plan, QueryConfig, QueryRequest,
};
use lantern_store::{StateDir, StoreConfig};
use tempfile::TempDir;

const ROWS: u32 = 1_000_000;
const COMMIT_ROWS: u32 = 50_000;
const COUNTRIES: [&str; 8] = ["DE", "FR", "IT", "ES", "PL", "NL", "BE", "AT"];

fn table() -> TableSpec {
    let field = |name: &str, kind| FieldSpec { name: name.into(), kind, ..FieldSpec::default() };
    let fields = vec![
        field("minute", FieldKind::Timestamp),
        field("product", FieldKind::Text),
        field("country", FieldKind::Text),
        field("cents", FieldKind::Integer),
        field("orders", FieldKind::Integer),
    ];
    TableSpec { name: "by_minute".into(), public: true, fields, ..TableSpec::default() }
}

/// Creates a row of about 100 bytes. There are 100 products a minute.
fn row(number: u32) -> (Vec<u8>, Option<Vec<u8>>) {
    let (minute, product) = (number / 100, number % 100);
    let (day, hour, minute) = (1 + minute / 1_440, minute / 60 % 24, minute % 60);
    let time = format!("2026-01-{day:02}T{hour:02}:{minute:02}:00Z");
    let country = COUNTRIES[number as usize * 7 % 8];
    let cents = number.wrapping_mul(2_654_435_761) % 100_000;
    let orders = 1 + number % 9;
    let value = format!(
        r#"{{"minute":"{time}","product":"product {product}","country":"{country}","cents":{cents},"orders":{orders}}}"#
    );
    (format!("{time}|{product:03}").into_bytes(), Some(value.into_bytes()))
}

/// Opens a view of the table. Returns the view and the folder that contains the table.
fn view() -> (View, TempDir) {
    let dir = TempDir::new().expect("there is room for a folder");
    let stores = StateDir::open(dir.path(), StoreConfig::default()).expect("the folder is ours");
    let (projection, version) = ("bench".to_owned(), VersionId("v".into()));
    let (rebuild, partition) = (0, PartitionId(0));
    let id =
        ShardId { projection: projection.clone(), version: version.clone(), rebuild, partition };
    let store = stores.open(&id).expect("a fresh state opens");
    for first in (0..ROWS).step_by(COMMIT_ROWS as usize) {
        let rows = (first..first + COMMIT_ROWS).map(row).collect();
        let writes = Writes::from([(Space::Table(TableId(0)), rows)]);
        store.commit(&writes).expect("there is room");
    }
    let manifest = Manifest { tables: vec![table()], ..Manifest::default() };
    let snapshot = store.snapshot().expect("the state is readable");
    let view =
        View::new(projection, version, "e".into(), Arc::new(manifest), vec![(partition, snapshot)]);
    (view.expect("the state is readable"), dir)
}

fn request(name: &str) -> QueryRequest {
    let group = |bucket: Option<&str>, by: &str, agg: &str| QueryRequest {
        bucket: bucket.map(str::to_owned),
        by: vec![by.to_owned()],
        aggregates: AggregateRequest::parse_all(agg).expect("they are well-formed"),
        ..QueryRequest::default()
    };
    match name {
        "country" => group(None, "country", "sum(cents),count()"),
        "hour and country" => group(Some("1h"), "country", "sum(cents),count()"),
        "day of a zone" => QueryRequest {
            tz: Some("Europe/Berlin".into()),
            ..group(Some("1d"), "country", "sum(cents),count()")
        },
        "percentile" => group(None, "product", "p95(cents)"),
        "top 10" => QueryRequest { order: Some("-cents".into()), ..QueryRequest::default() },
        _ => QueryRequest {
            conditions: vec![ConditionRequest::Text("cents >= 99990".into())],
            ..QueryRequest::default()
        },
    }
}

const REQUESTS: [&str; 6] =
    ["country", "hour and country", "day of a zone", "percentile", "top 10", "filter"];

#[divan::bench(args = REQUESTS, sample_count = 5, sample_size = 1)]
fn query(bencher: Bencher<'_, '_>, name: &str) {
    let (view, _dir) = view();
    let plan = Plan::new(&table(), &request(name)).expect("the query is well-formed");
    let config = QueryConfig { run_ms_max: 600_000, ..QueryConfig::default() };
    let size = PageSize { rows: if name == "top 10" { 10 } else { 10_000 }, bytes: 8 << 20 };
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let (source, range) = (view.rows(TableId(0)), KeyRange::all());
        let mut budget = Budget::new(&config, Cancel::default());
        let found = if plan.is_roll_up() {
            plan.groups(&source, &range, None, size, &mut budget).map(|page| page.groups.len())
        } else {
            plan.rows(&source, &range, None, size, &mut budget).map(|page| page.rows.len())
        };
        assert!(found.expect("the query is within its limits") > 0);
    });
}
