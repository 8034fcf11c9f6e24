//! Tests `lantern dev`, from the saved file to the rows.

use std::time::Instant;

use lantern_tests::dev::Dev;
use lantern_tests::lantern_with_interpreters;
use serde_json::json;

use crate::line;

fn declaration(columns: &str) -> String {
    format!(
        "name: totals\nfrom: order.placed\ntables:\n  by_product:\n    key: [data.product]\n    columns:\n{columns}"
    )
}

#[test]
fn a_saved_declaration_shows_its_rows_and_a_breaking_one_waits() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("totals.yaml");
    let data = r#"{"product":"p1","cents":250}"#;
    std::fs::write(dir.path().join("events.ndjson"), line(1, "order.placed", "u1", data)).unwrap();
    std::fs::write(&file, declaration("      orders: count()\n")).unwrap();
    let mut dev = Dev::start(lantern_with_interpreters(), dir.path()).unwrap();
    let row = dev.wait_for(|line| line["table"] == "by_product").unwrap();
    assert_eq!(row["row"], json!({"orders": 1}));

    let saved = Instant::now();
    std::fs::write(&file, declaration("      orders: count()\n      cents: sum(data.cents)\n"))
        .unwrap();
    let plan = dev.wait_for(|line| line["plan"].is_object()).unwrap();
    assert_eq!(plan["plan"]["compatible"], json!(["+ field by_product.cents: integer"]));
    assert_eq!(plan["plan"]["activated"], true);
    let row = dev.wait_for(|line| line["table"] == "by_product").unwrap();
    // `cargo xtask bench dev` measures this time for each kind of project.
    println!("from the saved file to its row: {} ms", saved.elapsed().as_millis());
    assert_eq!(row["row"], json!({"orders": 1, "cents": 250}));

    std::fs::write(&file, declaration("      cents: sum(data.cents)\n")).unwrap();
    let plan = dev.wait_for(|line| line["plan"].is_object()).unwrap();
    assert_eq!(plan["plan"]["breaking"], json!(["- field by_product.orders: integer"]));
    assert_eq!(plan["plan"]["activated"], false);

    // The command sends all saved sample events. The log leaves out those that it already contains.
    let more = line(1, "order.placed", "u1", data) + &line(2, "order.placed", "u1", data);
    std::fs::write(dir.path().join("events.ndjson"), more).unwrap();
    let row = dev.wait_for(|line| line["table"] == "by_product").unwrap();
    assert_eq!(row["row"], json!({"orders": 2, "cents": 500}));
}
