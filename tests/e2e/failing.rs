//! Tests how much work a failing event takes in Python and JavaScript. The work is measured in fuel
//! and not in time, because the fuel is the same in every run.

use lantern_tests::{lantern_with_interpreters, without};
use serde_json::Value;
use tempfile::TempDir;

use crate::{finish, line};

/// The maximum ratio of the fuel of a failing event to that of a good event.
const TIMES_MAX: f64 = 3.0;

const EVENTS: usize = 1_000;

const PYTHON: &str = r#"
from lantern import Refused, Table, integer, minute, projection, text

by_minute = Table("by_minute", orders=integer("sum"), cents=integer("sum", "cent"))
products = Table("products", orders=integer("sum"), cents=integer("sum", "cent"))


def checked(cents):
    return 100 // (cents + 1)


@projection(
    name="failing",
    subscribes=["order.*"],
    on_failure="park-event",
    members={"product": text, "cents": integer},
    data=False,
)
def apply(event):
    row = by_minute.row((minute(event.time), event.subject))
    row["orders"] += 1
    row["cents"] += event.data["cents"]
    product = products.row(event.data["product"])
    product["orders"] += 1
    product["cents"] += event.data["cents"]
    if event.type != "order.placed":
        if event.type == "order.raised":
            raise ValueError(f"no cents for {event.subject}")
        if event.type == "order.refused":
            raise Refused("refused")
        if event.type == "order.divided":
            checked(-1)
        if event.type == "order.value":
            row["cents"] = "many"
        if event.type == "order.field":
            row["sents"] = 1
        if event.type == "order.key":
            products.row("")
        if event.type == "order.emitted":
            event.emit("order.moved", {})
"#;

const JAVASCRIPT: &str = r#"
import { integer, iso, minute, projection, table, text } from "lantern-sdk";

const byMinute = table("by_minute", { orders: integer("sum"), cents: integer("sum", "cent") });
const products = table("products", { orders: integer("sum"), cents: integer("sum", "cent") });

const checked = (order) => order.lines.length;

export default projection({
  name: "failing",
  subscribes: ["order.*"],
  onFailure: "park-event",
  attributes: ["subject"],
  members: { product: text, cents: integer },
  apply(event) {
    const { product, cents } = event.members;
    const row = byMinute.row(iso(minute(event.time)), event.subject);
    row.orders += 1;
    row.cents += cents;
    const sold = products.row(product);
    sold.orders += 1;
    sold.cents += cents;
    if (event.type === "order.placed") return;
    if (event.type === "order.raised") throw new Error(`no cents for ${event.subject}`);
    if (event.type === "order.refused") throw "refused";
    if (event.type === "order.divided") checked({});
    if (event.type === "order.value") row.cents = "many";
    if (event.type === "order.field") row.sents = 1;
    if (event.type === "order.key") products.row("");
    if (event.type === "order.emitted") event.emit("order.moved", {});
  },
});
"#;

/// A script that changes one row for each event. Its good events take little fuel, so the work of
/// the SDK for a failing event is a larger share. A good event passes the same conditions as a
/// failing one.
const PYTHON_ONE_ROW: &str = r#"
from lantern import Table, integer, minute, projection

by_minute = Table("by_minute", orders=integer("sum"), cents=integer("sum", "cent"))


@projection(
    name="one-row",
    subscribes=["order.*"],
    on_failure="park-event",
    members={"cents": integer},
    data=False,
)
def apply(event):
    row = by_minute.row(minute(event.time))
    row["orders"] += 1
    row["cents"] += event.data["cents"]
    if event.type == "order.raised":
        raise ValueError("no cents")
    if event.type == "order.value":
        row["cents"] = "many"
    if event.type == "order.range":
        row["cents"] = 1 << 70
    if event.type == "order.key":
        by_minute.row("")
    if event.type == "order.zero":
        by_minute.row("a\0b")
    if event.type == "order.fraction":
        by_minute.row(5.5)
"#;

const JAVASCRIPT_ONE_ROW: &str = r#"
import { integer, iso, minute, projection, table } from "lantern-sdk";

const byMinute = table("by_minute", { orders: integer("sum"), cents: integer("sum", "cent") });

export default projection({
  name: "one-row",
  subscribes: ["order.*"],
  onFailure: "park-event",
  members: { cents: integer },
  apply(event) {
    const row = byMinute.row(iso(minute(event.time)));
    row.orders += 1;
    row.cents += event.members.cents;
    if (event.type === "order.raised") throw new Error("no cents");
    if (event.type === "order.value") row.cents = "many";
    if (event.type === "order.range") row.cents = 2 ** 70;
    if (event.type === "order.key") byMinute.row("");
    if (event.type === "order.zero") byMinute.row("a\0b");
    if (event.type === "order.fraction") byMinute.row(5.5);
  },
});
"#;

/// Events that fail: their type, their data, and a part of the reason.
type Way = (&'static str, &'static str, &'static str);

const GOOD: &str = r#"{"product":"p7","cents":5}"#;

/// Folds events with a script. Every twentieth event is good, because a projection is halted if
/// very many events in a row fail. Returns the fuel, and the reason of the first failing event.
fn fold(script: &str, (kind, data, _): Way, folder: &TempDir) -> (f64, usize, String) {
    let lines: String = (0..EVENTS)
        .map(|n| match n % 20 {
            0 => line(n, "order.placed", &format!("s{}", n % 40), GOOD),
            _ => line(n, kind, &format!("s{}", n % 40), data),
        })
        .collect();
    let events = folder.path().join("events.ndjson");
    std::fs::write(&events, lines).unwrap();
    let mut test = lantern_with_interpreters();
    test.args(["test", "--json", "--allow-parked", "--check-events", "0"]);
    let out = finish(test.arg(events).arg(folder.path().join(script)));
    let report: Value = serde_json::from_str(&out).unwrap();
    let parked = report["parked"].as_array().unwrap();
    let reason = parked.first().map(|event| event["reason"].as_str().unwrap().to_owned());
    (report["fuel"].as_f64().unwrap(), parked.len(), reason.unwrap_or_default())
}

fn check(script: &str, text: &str, ways: &[Way]) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join(script), text).unwrap();
    let (fuel, parked, reason) = fold(script, ("order.placed", GOOD, ""), &folder);
    assert_eq!(parked, 0, "{reason}");
    let good = fuel / EVENTS as f64;
    let mut dear = Vec::new();
    for way in ways {
        let (fuel, parked, reason) = fold(script, *way, &folder);
        assert_eq!(parked, EVENTS - EVENTS / 20, "{way:?}: {reason}");
        assert!(reason.contains(way.2), "{way:?}: {reason}");
        let failing = (fuel - good * (EVENTS - parked) as f64) / parked as f64;
        let times = failing / good;
        println!("{script}: {}: {failing:.0} of {good:.0} fuel, {times:.2} times: {reason}", way.0);
        if times > TIMES_MAX {
            dear.push((way.0, times));
        }
    }
    assert!(dear.is_empty(), "{script}: times a good event: {dear:?}");
}

#[test]
fn a_failing_event_of_a_python_script_takes_at_most_three_times_the_fuel_of_a_good_one() {
    if without("python3") {
        return;
    }
    let ways: &[Way] = &[
        ("order.kind", r#"{"product":"p7","cents":"many"}"#, "not of the kind integer"),
        ("order.missing", r#"{"product":"p7"}"#, "`cents` is missing or null"),
        ("order.array", "[1]", "not a JSON object"),
        ("order.raised", GOOD, "ValueError: no cents for s1, at failing.py:28 in apply"),
        ("order.refused", GOOD, "refused, at failing.py:30"),
        ("order.divided", GOOD, "ZeroDivisionError: division by zero, at failing.py:9"),
        ("order.value", GOOD, "field `cents` is 'many', which is not an integer"),
        ("order.field", GOOD, "the field `sents` is not declared"),
        ("order.key", GOOD, "a key cannot be empty, at failing.py:38"),
        ("order.emitted", GOOD, "`order.moved` is not declared"),
    ];
    check("failing.py", PYTHON, ways);
    let ways: &[Way] = &[
        ("order.missing", "{}", "`cents` is missing or null"),
        ("order.raised", GOOD, "ValueError: no cents, at one_row.py:19"),
        ("order.value", GOOD, "field `cents` is 'many', which is not an integer"),
        ("order.range", GOOD, "integers are from -2^63 to 2^64 - 1"),
        ("order.key", GOOD, "a key cannot be empty, at one_row.py:25"),
        ("order.zero", GOOD, "U+0000 cannot be part of a key"),
        ("order.fraction", GOOD, "5.5 is a float"),
    ];
    check("one_row.py", PYTHON_ONE_ROW, ways);
}

#[test]
fn a_failing_event_of_a_javascript_script_takes_at_most_three_times_the_fuel_of_a_good_one() {
    if without("npm") {
        return;
    }
    let ways: &[Way] = &[
        ("order.kind", r#"{"product":"p7","cents":"many"}"#, "`cents` is not a whole number"),
        ("order.missing", r#"{"product":"p7"}"#, "`cents` is missing or null"),
        ("order.array", "[1]", "data is not an object"),
        ("order.raised", GOOD, "failing.js:24:72: Error: no cents for s1"),
        ("order.refused", GOOD, "threw \"refused\""),
        ("order.divided", GOOD, "failing.js:7:"),
        ("order.value", GOOD, "field `cents` is \"many\", not an integer"),
        ("order.field", GOOD, "failing.js:28:"),
        ("order.key", GOOD, "failing.js:29:"),
        ("order.emitted", GOOD, "`order.moved` is not declared"),
    ];
    check("failing.js", JAVASCRIPT, ways);
    let ways: &[Way] = &[
        ("order.missing", "{}", "`cents` is missing or null"),
        ("order.raised", GOOD, "one-row.js:15:"),
        ("order.value", GOOD, "field `cents` is \"many\", not an integer"),
        ("order.range", GOOD, "integers are no longer exact"),
        ("order.key", GOOD, "one-row.js:18:"),
        ("order.zero", GOOD, "U+0000 cannot be part of a key"),
        ("order.fraction", GOOD, "the number 5.5 cannot be part of a key"),
    ];
    check("one-row.js", JAVASCRIPT_ONE_ROW, ways);
}
