//! Tests `lantern dev`, from the saved file to the rows.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use lantern_tests::{PATIENCE, lantern_with_interpreters};
use serde_json::{Value, json};

use crate::line;

/// A running `lantern dev --json`. It is killed when this value is dropped.
struct Dev {
    child: Child,
    lines: Receiver<Value>,
}

impl Dev {
    fn start(project: &Path, arguments: &[&str]) -> Self {
        let mut child = lantern_with_interpreters()
            .args(["dev", "--json", "--no-open", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .arg(project)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                println!("dev: {line}");
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for the next line for which `wanted` holds.
    fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("the line comes");
            if wanted(&line) {
                return line;
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

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
    let dev = Dev::start(dir.path(), &[]);
    let row = dev.wait_for(|line| line["table"] == "by_product");
    assert_eq!(row["row"], json!({"orders": 1}));

    std::fs::write(&file, declaration("      orders: count()\n      cents: sum(data.cents)\n"))
        .unwrap();
    let plan = dev.wait_for(|line| line["plan"].is_object());
    assert_eq!(plan["plan"]["compatible"], json!(["+ field by_product.cents: integer"]));
    assert_eq!(plan["plan"]["activated"], true);
    let row = dev.wait_for(|line| line["table"] == "by_product");
    assert_eq!(row["row"], json!({"orders": 1, "cents": 250}));

    std::fs::write(&file, declaration("      cents: sum(data.cents)\n")).unwrap();
    let plan = dev.wait_for(|line| line["plan"].is_object());
    assert_eq!(plan["plan"]["breaking"], json!(["- field by_product.orders: integer"]));
    assert_eq!(plan["plan"]["activated"], false);

    // The command sends all saved sample events. The log leaves out those that it already contains.
    let more = line(1, "order.placed", "u1", data) + &line(2, "order.placed", "u1", data);
    std::fs::write(dir.path().join("events.ndjson"), more).unwrap();
    let row = dev.wait_for(|line| line["table"] == "by_product");
    assert_eq!(row["row"], json!({"orders": 2, "cents": 500}));
}
