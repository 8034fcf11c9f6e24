//! Tests calls: what the guest passes to the host, what ends a call, and the error texts.

use lantern_core::{
    ApplyError, Cause, FieldKind, Host as _, HostError, Level, Member, Offset, TableId, Timer,
    Timestamp, TrapKind,
};
use lantern_plugin::PluginLimits;

use crate::guest::{Guest, fail};
use crate::{FUEL, Tables, apply, batch, host_with, load};

/// The arguments of a `put` in the first table, with whole columns as key and value.
const PUT_ALL: &str = "(call $put (i32.const 0) (i32.const 0)
    (i32.load offset=104 (local.get $batch)) (i32.load offset=108 (local.get $batch))
    (i32.load offset=184 (local.get $batch)) (i32.load offset=188 (local.get $batch)))";

fn putting() -> Guest {
    Guest::new().import("tables", "put", "(param i32 i32 i32 i32 i32 i32)").apply(PUT_ALL)
}

#[track_caller]
fn trapped(error: ApplyError, kind: TrapKind, expected: &[&str]) -> String {
    let ApplyError::Trapped { kind: found, message, backtrace } = error else {
        panic!("no trap: {error:?}");
    };
    assert_eq!(found, kind, "{message}");
    for expected in expected {
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
    backtrace
}

#[test]
fn a_batch_reaches_the_guest_and_its_writes_the_host() {
    let plugin = load(&putting());
    let (applied, tables) = apply(&*plugin, &batch(1), FUEL);
    applied.result.unwrap();
    let row = &tables.rows[&(0, "u0".into())];
    assert_eq!(row, batch(1).events.get(0).data);
    assert!(applied.fuel > 0 && applied.fuel < FUEL);
    assert_eq!(applied.memory_bytes, 128 << 10);
}

#[test]
fn an_instance_takes_batch_after_batch_of_any_size() {
    let plugin = load(&putting());
    let mut instance = plugin.instantiate().unwrap();
    let mut host: Box<dyn lantern_core::Host> = Box::new(Tables::default());
    for count in [1, 0, 1_000, 3, 16_000, 2] {
        let applied = instance.apply(&batch(count), host, FUEL);
        applied.result.unwrap();
        host = applied.host;
    }
    let tables: Box<Tables> = host.into_any().downcast().unwrap();
    assert_eq!(tables.rows.len(), 6);
}

#[test]
fn every_call_of_the_contract_arrives() {
    let mut guest = Guest::new()
        .import("tables", "put", "(param i32 i32 i32 i32 i32 i32)")
        .import("tables", "get", "(param i32 i32 i32 i32)")
        .import("tables", "delete", "(param i32 i32 i32 i32)")
        .import("tables", "scan", "(param i32 i32 i32 i32 i32 i32 i32 i32)")
        .import("timers", "set", "(param i32 i64 i32 i32)")
        .import("timers", "cancel", "(param i32 i32 i32)")
        .import("logging", "log", "(param i32 i32 i32 i32)")
        .import("outbox", "emit", "(param i32 i32)");
    let [a, b, c] = ["alpha", "beta", "gamma"].map(|text| guest.text(text));
    let (key, len) = a.split_once(") (").unwrap();
    let (key, len) = (format!("{key})"), format!("({len}"));
    // After the scan, the value of a row is written: the key of the second row.
    guest.apply = format!(
        "(call $put (i32.const 1) (i32.const 0) {a} {b})
         (call $put (i32.const 0) (i32.const 0) {c} {a})
         (call $put (i32.const 0) (i32.const 1) {a} {a})
         (call $delete (i32.const 1) (i32.const 1) {a})
         (call $get (i32.const 0) {a} (i32.const 8192))
         (if (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1)) (then unreachable))
         (call $put (i32.const 0) (i32.const 2) {b} (i32.load (i32.const 8196)) (i32.load (i32.const 8200)))
         (call $scan (i32.const 0) {a} (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 0)
           (i32.const 8192))
         (if (i32.ne (i32.load (i32.const 8196)) (i32.const 2)) (then unreachable))
         (call $put (i32.const 0) (i32.const 3) {a}
           (i32.load offset=16 (i32.load (i32.const 8192)))
           (i32.load offset=20 (i32.load (i32.const 8192))))
         (call $set (i32.const 0) (i64.const 77) {a})
         (call $set (i32.const 1) (i64.const 78) {b})
         (call $cancel (i32.const 0) {a})
         (call $log (i32.const 1) (i32.const 3) {c})
         (i32.store (i32.const 8192) (i32.const 1))
         (i32.store (i32.const 8196) {key}) (i32.store (i32.const 8200) {len})
         (i64.store (i32.const 8224) (i64.const 5))
         (i32.store (i32.const 8232) {key}) (i32.store (i32.const 8236) {len})
         (call $emit (i32.const 8192) (i32.const 1))"
    );
    let (applied, tables) = apply(&*load(&guest), &batch(2), FUEL);
    applied.result.unwrap();
    let row = |table: u32, key: &str| {
        tables.rows.get(&(table, key.to_owned())).map(|v| String::from_utf8_lossy(v).into_owned())
    };
    assert_eq!(row(0, "alpha").as_deref(), Some("beta"));
    assert_eq!(row(1, "alpha"), None);
    assert_eq!(row(2, "beta").as_deref(), Some("beta"));
    assert_eq!(row(3, "alpha").as_deref(), Some("gamma"));
    assert_eq!(tables.timers.into_iter().collect::<Vec<_>>(), [("beta".into(), Timestamp(78))]);
    assert_eq!(tables.log, [(Some(Cause(1)), Level::Warn, "gamma".into())]);
    let causes = tables.causes;
    assert_eq!(causes, [1, 0, 0, 1, 0, 0, 0, 1, 0].map(Cause), "of puts, deletes and timer calls");
    let event = &tables.emitted[0];
    assert_eq!((event.cause, event.kind.as_str(), event.time), (Cause(1), "alpha", Timestamp(5)));
    assert_eq!(event.data, b"alpha");
}

#[test]
fn timers_watermark_offsets_and_types_are_where_the_contract_says() {
    // The guest checks each value, and traps if a value is wrong.
    let check = |load: &str, expected: &str| {
        format!("(if (i64.ne {load} (i64.const {expected})) (then unreachable))")
    };
    let field = |at: u32| format!("(i32.load offset={at} (local.get $batch))");
    let body = [
        check("(i64.load32_u (local.get $batch))", "5"),
        check("(i64.load offset=16 (local.get $batch))", "1700000000123456"),
        check(&format!("(i64.load {})", field(4)), "42"),
        check(&format!("(i64.load8_u (i32.load offset=8 {}))", field(4)), "107"),
        check(&format!("(i64.load offset=16 {})", field(4)), "7"),
        check(&format!("(i64.load offset=8 {})", field(24)), "101"),
        check(&format!("(i64.load offset=16 {})", field(32)), "1700000000000002"),
        check(&format!("(i64.load offset=16 {})", field(40)), "1700000000123458"),
        check(&format!("(i64.load32_u offset=12 {})", field(48)), "11"),
        check(&format!("(i64.load16_u offset=2 {})", field(56)), "1"),
        // The guest requests `subject` and `data`, but not `id`.
        check("(i64.load32_u offset=68 (local.get $batch))", "0"),
        check(&format!("(i64.load32_u offset=8 {})", field(96)), "6"),
        check("(i64.load32_u offset=196 (local.get $batch))", "0"),
    ];
    let mut batch = batch(3);
    batch.partition = lantern_core::PartitionId(5);
    batch.timers = vec![Timer { at: Timestamp(42), key: "k".into(), offset: Offset(7), depth: 0 }];
    let (applied, _) = apply(&*load(&Guest::new().apply(&body.concat())), &batch, FUEL);
    applied.result.unwrap();
}

#[test]
fn declared_members_arrive_as_columns() {
    let mut guest = Guest::new();
    guest.manifest.attributes.data = false;
    guest.manifest.members = vec![
        Member { name: "cents".into(), kind: FieldKind::Integer },
        Member { name: "product".into(), kind: FieldKind::Text },
        Member { name: "none".into(), kind: FieldKind::Boolean },
    ];
    let check = |load: &str, expected: &str| {
        format!("(if (i64.ne {load} (i64.const {expected})) (then unreachable))")
    };
    // The batch has one list element for each declared member: the list `validity`, the
    // variant `values` (its case and its payload), and the list `mismatched`.
    let member = |n: u32, at: u32| {
        format!("offset={} (i32.load offset=192 (local.get $batch))", n * 36 + at)
    };
    let list = |n: u32, at: u32| format!("(i32.load {})", member(n, at));
    let body = [
        check("(i64.load32_u offset=196 (local.get $batch))", "3"),
        // `data` itself is not requested.
        check("(i64.load32_u offset=180 (local.get $batch))", "0"),
        check(&format!("(i64.load8_u {})", list(0, 0)), "7"),
        check(&format!("(i64.load8_u {})", member(0, 8)), "0"),
        check(&format!("(i64.load offset=16 {})", list(0, 12)), "2"),
        check(&format!("(i64.load32_u {})", member(0, 32)), "0"),
        check(&format!("(i64.load8_u {})", member(1, 8)), "4"),
        check(&format!("(i64.load32_u offset=8 {})", list(1, 12)), "6"),
        check(&format!("(i64.load8_u offset=5 {})", list(1, 20)), "50"),
        check(&format!("(i64.load8_u {})", list(2, 0)), "0"),
        check(&format!("(i64.load8_u {})", member(2, 8)), "3"),
    ];
    let (applied, _) = apply(&*load(&guest.apply(&body.concat())), &batch(3), FUEL);
    applied.result.unwrap();
}

#[test]
fn fuel_runs_out_at_the_same_point_in_every_run() {
    let plugin = load(&putting());
    let (whole, _) = apply(&*plugin, &batch(10), FUEL);
    whole.result.unwrap();
    // The limit applies separately to the fuel of the guest and to the fuel of the host's work. So
    // the call can succeed with less fuel than their sum. This searches the smallest limit with
    // which it succeeds.
    let (mut low, mut high) = (0, whole.fuel);
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        match apply(&*plugin, &batch(10), middle).0.result {
            Ok(()) => high = middle,
            Err(_) => low = middle,
        }
    }
    for _ in 0..5 {
        let plugin = load(&putting());
        let (applied, _) = apply(&*plugin, &batch(10), high);
        applied.result.unwrap();
        assert_eq!(applied.fuel, whole.fuel);
        let (applied, _) = apply(&*plugin, &batch(10), high - 1);
        let said = applied.result.unwrap_err();
        trapped(said, TrapKind::Fuel, &["used up its fuel", "`engine.fuel_event`"]);
    }
}

#[test]
fn a_loop_without_end_is_ended_by_fuel_and_its_fuel_is_the_same() {
    let plugin = load(&Guest::new().apply("(loop $forever (br $forever))"));
    let used: Vec<_> = (0..3)
        .map(|_| {
            let (applied, _) = apply(&*plugin, &batch(1), 1_000_000);
            trapped(applied.result.unwrap_err(), TrapKind::Fuel, &["the call had 1000000"]);
            applied.fuel
        })
        .collect();
    assert_eq!(used, [used[0]; 3]);
    assert!(used[0] >= 1_000_000);
}

#[test]
fn work_the_engine_does_for_one_instruction_is_fuel_too() {
    // Each iteration is a few instructions and a call into the engine.
    for what in ["(memory.grow (i32.const 60000))", "(table.grow (ref.null func) (i32.const -1))"] {
        let mut guest = Guest::new().apply(&format!(
            "(local $n i32)
             (loop $more (drop {what})
               (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1)))
                 (i32.const 1000))))"
        ));
        guest.fields = "(table 1 funcref)".into();
        let (applied, _) = apply(&*load(&guest), &batch(1), 100_000);
        trapped(applied.result.unwrap_err(), TrapKind::Fuel, &["it used up its fuel"]);
    }
}

#[test]
fn work_the_host_does_is_fuel_too() {
    let mut guest = Guest::new().import("tables", "get", "(param i32 i32 i32 i32)");
    let key = guest.text("k");
    guest.apply =
        format!("(loop $forever (call $get (i32.const 0) {key} (i32.const 8192)) (br $forever))");
    let (applied, _) = apply(&*load(&guest), &batch(1), 1_000_000);
    let said = applied.result.unwrap_err();
    trapped(said, TrapKind::Fuel, &["the call had 1000000", "of which calls to the host used"]);
}

#[test]
fn the_clock_ends_a_call_that_fuel_does_not_and_no_event_is_blamed() {
    let limits = PluginLimits { apply_ms: 1, ..PluginLimits::default() };
    let guest = Guest::new().apply("(loop $forever (br $forever))");
    let plugin = host_with(limits).load(&guest.build(), "").unwrap();
    let (applied, _) = apply(&*plugin, &batch(1), u64::MAX);
    let Err(ApplyError::Fault(said)) = applied.result else { panic!("no fault") };
    assert!(said.contains("1 ms of wall time (`plugin.limits.apply_ms`)"), "{said}");
}

#[test]
fn a_trap_has_a_backtrace_and_the_last_words() {
    let mut guest = Guest::new().import("logging", "log", "(param i32 i32 i32 i32)");
    let words = guest.text("index out of bounds");
    guest.fields = "(func $_ZN7revenue5folds17h0123456789abcdefE unreachable)".into();
    guest.apply = format!(
        "(call $log (i32.const 0) (i32.const 4) {words}) (call $_ZN7revenue5folds17h0123456789abcdefE)"
    );
    let plugin = load(&guest);
    let mut instance = plugin.instantiate().unwrap();
    let applied = instance.apply(&batch(1), Box::new(Tables::default()), FUEL);
    let said = applied.result.unwrap_err();
    let expected = ["a panic or abort", "its last message was: index out of bounds"];
    let backtrace = trapped(said, TrapKind::Trap, &expected);
    assert!(backtrace.contains("revenue::folds"), "{backtrace}");
    assert!(backtrace.contains("apply"), "{backtrace}");

    let again = instance.apply(&batch(1), applied.host, FUEL);
    assert!(matches!(again.result, Err(ApplyError::Fault(_))), "a trapped instance was entered");
}

#[test]
fn a_failure_names_its_event_or_none() {
    for (blamed, expected) in [(Some(1), Some(1)), (None, None), (Some(7), None)] {
        let mut guest = Guest::new();
        let text = guest.text("no such product");
        let plugin = load(&guest.apply(&fail(blamed, &text)));
        let Err(ApplyError::Failed { cause, message }) = apply(&*plugin, &batch(3), FUEL).0.result
        else {
            panic!("no failure");
        };
        assert_eq!(cause, expected.map(Cause));
        assert!(message.starts_with("no such product"));
        assert_eq!(
            message.contains("names 7 as the cause, but the batch has 3"),
            blamed == Some(7),
            "{message}"
        );
    }
}

#[test]
fn memory_beyond_the_limit_is_refused_and_named_if_the_guest_aborts() {
    let grow = "(if (i32.ge_s (memory.grow (i32.const 1024)) (i32.const 0)) (then unreachable))";
    let small = PluginLimits { memory_bytes_max: 4 << 20, ..PluginLimits::default() };
    // A guest that accepts the refusal does not fail.
    let copes = Guest::new().apply(grow);
    let plugin = host_with(small.clone()).load(&copes.build(), "").unwrap();
    apply(&*plugin, &batch(1), FUEL).0.result.unwrap();

    let gives_up = Guest::new().apply(&format!("{grow} unreachable"));
    let plugin = host_with(small).load(&gives_up.build(), "").unwrap();
    let (applied, _) = apply(&*plugin, &batch(1), FUEL);
    let expected =
        ["after it was refused more than 4 MiB of memory (`plugin.limits.memory_bytes_max`)"];
    trapped(applied.result.unwrap_err(), TrapKind::Memory, &expected);
    assert_eq!(applied.memory_bytes, 128 << 10);
}

#[test]
fn stack_and_bounds_are_guarded() {
    let mut guest = Guest::new().apply("(call $deeper)");
    guest.fields = "(func $deeper (call $deeper))".into();
    let (applied, _) = apply(&*load(&guest), &batch(1), FUEL);
    trapped(applied.result.unwrap_err(), TrapKind::Trap, &["call stack exhausted"]);

    let guest = Guest::new().apply("(drop (i32.load (i32.const -4)))");
    let (applied, _) = apply(&*load(&guest), &batch(1), FUEL);
    trapped(applied.result.unwrap_err(), TrapKind::Trap, &["out of bounds memory access"]);
}

/// Calls `put-many` with columns of the given ends and texts. Returns the error of the call. If the
/// call succeeds, it returns the rows that were written, as the text of a fault.
fn put_many(causes: usize, ends: [&[u32]; 2], texts: [&str; 2]) -> ApplyError {
    let mut guest = Guest::new().import(
        "tables",
        "put-many",
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    );
    let [keys, values] = texts.map(|text| guest.text(text));
    let mut body = String::new();
    let mut lists = Vec::new();
    for (n, ends) in ends.iter().enumerate() {
        let at = 8192 + 256 * n;
        for (i, end) in ends.iter().enumerate() {
            body += &format!("(i32.store (i32.const {}) (i32.const {end}))", at + 4 * i);
        }
        lists.push(format!("(i32.const {at}) (i32.const {})", ends.len()));
    }
    body += &format!(
        "(call $put-many (i32.const 12288) (i32.const {causes}) (i32.const 0) {} {keys} {} {values})",
        lists[0], lists[1]
    );
    let (applied, tables) = apply(&*load(&guest.apply(&body)), &batch(1), FUEL);
    match applied.result {
        Err(error) => {
            assert!(tables.rows.is_empty(), "something was put nevertheless");
            error
        }
        Ok(()) => {
            let rows: Vec<_> = tables.rows.into_iter().map(|((_, k), v)| (k, v)).collect();
            ApplyError::Fault(format!("{rows:?}"))
        }
    }
}

#[test]
fn columns_from_the_guest_are_checked() {
    let fine = put_many(2, [&[1, 3], &[0, 2]], ["abc", "xy"]).to_string();
    assert_eq!(fine, "[(\"a\", []), (\"bc\", [120, 121])]");
    for (ends, texts, expected) in [
        ([&[3, 1][..], &[1, 2][..]], ["abc", "xy"], "is before the end"),
        ([&[1, 2], &[1, 2]], ["abc", "xy"], "last end is 2, but it has 3 bytes"),
        ([&[1, 9], &[1, 2]], ["abc", "xy"], "last end is 9"),
        ([&[1, 3], &[2]], ["abc", "xy"], "2 keys but 1 values"),
        ([&[1, 2], &[1, 2]], ["ä", "xy"], "key 0 ends within a character"),
    ] {
        let said = put_many(ends[0].len(), ends, texts);
        trapped(said, TrapKind::HostCall, &["`tables.put-many`", expected]);
    }
    let said = put_many(1, [&[1, 3], &[0, 2]], ["abc", "xy"]);
    trapped(said, TrapKind::HostCall, &["`tables.put-many` was given 2 keys but 1 causes"]);
}

#[test]
fn a_host_error_ends_the_call_and_says_whose_fault_it_is() {
    let mut guest = Guest::new().import("tables", "get", "(param i32 i32 i32 i32)");
    let key = guest.text("k");
    guest.apply = format!("(call $get (i32.const 0) {key} (i32.const 8192))");
    let plugin = load(&guest);
    let run = |broken: HostError| {
        let tables = Tables { broken: Some(broken), ..Tables::default() };
        plugin.instantiate().unwrap().apply(&batch(1), Box::new(tables), FUEL)
    };
    let fault = run(HostError::Fault("disk gone".into())).result.unwrap_err();
    assert!(matches!(fault, ApplyError::Fault(text) if text == "disk gone"));
    let guest = run(HostError::Guest("no table 9".into())).result.unwrap_err();
    let backtrace = trapped(guest, TrapKind::HostCall, &["no table 9"]);
    assert!(backtrace.contains("apply"), "{backtrace}");
}

#[test]
fn reads_and_the_log_are_bounded() {
    let limits = PluginLimits {
        scan_rows_max: 3,
        read_bytes_max: 10,
        log_bytes_max: 8,
        ..PluginLimits::default()
    };
    let host = host_with(limits);
    let run = |guest: Guest, rows: u32, bytes: usize| {
        let mut tables = Tables::default();
        for n in 0..rows {
            tables.put(Cause(0), TableId(0), &format!("k{n}"), &vec![0; bytes]).unwrap();
        }
        let plugin = host.load(&guest.build(), "").unwrap();
        plugin.instantiate().unwrap().apply(&batch(1), Box::new(tables), FUEL)
    };
    let scan = || {
        Guest::new().import("tables", "scan", "(param i32 i32 i32 i32 i32 i32 i32 i32)").apply(
            "(call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
               (i32.const -1) (i32.const 0) (i32.const 8192))",
        )
    };
    run(scan(), 3, 1).result.unwrap();
    let said = run(scan(), 4, 1).result.unwrap_err();
    trapped(said, TrapKind::HostCall, &["more than 3 rows (`plugin.limits.scan_rows_max`)"]);
    let said = run(scan(), 2, 4).result.unwrap_err();
    trapped(said, TrapKind::HostCall, &["more than 10 bytes (`plugin.limits.read_bytes_max`)"]);

    let mut guest = Guest::new().import("logging", "log", "(param i32 i32 i32 i32)");
    let text = guest.text("hello");
    let chatty = guest.apply(&format!("(call $log (i32.const 0) (i32.const 2) {text})").repeat(50));
    let applied = run(chatty, 0, 0);
    applied.result.unwrap();
    let tables: Box<Tables> = applied.host.into_any().downcast().unwrap();
    assert_eq!(tables.log.len(), 2);
    assert!(tables.log[1].2.contains("`plugin.limits.log_bytes_max`"));
}

#[test]
fn the_bytes_passed_to_one_host_call_are_bounded() {
    let limits = PluginLimits { host_call_bytes_max: 64 << 10, ..PluginLimits::default() };
    let guest = Guest::new().import("tables", "put", "(param i32 i32 i32 i32 i32 i32)").apply(
        "(call $put (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 65537))",
    );
    let plugin = host_with(limits).load(&guest.build(), "").unwrap();
    let (applied, tables) = apply(&*plugin, &batch(1), FUEL);
    let expected = ["more than 64 KiB to one host call (`plugin.limits.host_call_bytes_max`)"];
    trapped(applied.result.unwrap_err(), TrapKind::HostCall, &expected);
    assert!(tables.rows.is_empty());
}
