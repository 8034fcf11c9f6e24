//! Tests loading: which uploads are accepted, the errors for all others, and the cache.

use std::fs;
use std::path::{Path, PathBuf};

use lantern_core::{
    Attributes, EventTime, FieldKind, FieldSpec, Manifest, Member, Merge, OnFailure, TableSpec,
    VersionSource,
};
use lantern_plugin::{Compiler, PluginConfig, PluginHost, PluginLimits};

use crate::guest::{Guest, WIT};
use crate::{config, host, host_with, load, refused, says};

#[test]
fn the_manifest_arrives_whole() {
    let mut guest = Guest::new();
    guest.manifest = Manifest {
        name: "revenue".into(),
        version: "0.1.0".into(),
        description: "Sums € per product".into(),
        subscribes: vec!["order.placed".into(), "cart.*".into()],
        attributes: Attributes { id: true, tenant: true, extensions: true, ..Default::default() },
        members: vec![
            Member { name: "product".into(), kind: FieldKind::Text },
            Member { name: "cents".into(), kind: FieldKind::Integer },
        ],
        tables: vec![
            TableSpec {
                name: "revenue".into(),
                description: "by product".into(),
                public: true,
                per_tenant: true,
                fields: vec![
                    FieldSpec {
                        name: "cents".into(),
                        kind: FieldKind::Integer,
                        unit: "EUR".into(),
                        merge: Merge::Sum,
                    },
                    FieldSpec {
                        name: "seen".into(),
                        kind: FieldKind::Timestamp,
                        unit: String::new(),
                        merge: Merge::Newest,
                    },
                    FieldSpec {
                        name: "users".into(),
                        kind: FieldKind::Distinct,
                        unit: String::new(),
                        merge: Merge::Sketch,
                    },
                    FieldSpec {
                        name: "delays".into(),
                        kind: FieldKind::Percentiles,
                        unit: "ms".into(),
                        merge: Merge::Sketch,
                    },
                ],
                newest_by: Some("seen".into()),
                retention_us: Some(86_400_000_000),
            },
            TableSpec { name: "scratch".into(), ..TableSpec::default() },
        ],
        emits: vec!["alert.raised".into()],
        cycle_depth_max: Some(3),
        event_time: Some(EventTime { allowed_lateness_us: 5_000_000, tick_us: 1_000_000 }),
        on_failure: OnFailure::Halt,
        parameters: Some("{\"type\":\"object\"}".into()),
    };
    assert_eq!(*load(&guest).manifest(), guest.manifest);
}

#[test]
fn a_component_is_accepted_as_well_as_a_module() {
    let component = wit_component::ComponentEncoder::default()
        .module(&Guest::new().build())
        .and_then(|mut encoder| encoder.encode())
        .unwrap();
    assert_eq!(host().load(&component, "").unwrap().manifest().name, "guest");
}

#[test]
fn a_module_with_the_contracts_exports_needs_no_description() {
    assert_eq!(host().load(&Guest::new().module(), "").unwrap().manifest().name, "guest");
}

#[test]
fn a_file_that_is_no_plugin_is_named_in_the_error() {
    let host = host();
    says(&refused(&host, b""), "LAN-0101", &["it is empty"]);
    let text = refused(&host, b"fn main() {}\n");
    says(&text, "LAN-0101", &["begins with the text `fn main()", "upload the .wasm file"]);
    let module = wat::parse_str("(module (memory (export \"memory\") 1))").unwrap();
    says(&refused(&host, &module), "LAN-0104", &["without a `component-type` section"]);
    let cut = &Guest::new().build()[..200];
    says(&refused(&host, cut), "LAN-0107", &["this WebAssembly is invalid"]);
    let mut broken = Guest::new().build();
    broken.truncate(broken.len() - 40);
    assert!(matches!(refused(&host, &broken).code(), "LAN-0106" | "LAN-0107"));
}

#[test]
fn uploads_and_parameters_have_a_size() {
    let limits = PluginLimits {
        upload_bytes_max: 10_000,
        parameters_bytes_max: 3,
        ..PluginLimits::default()
    };
    let host = host_with(limits);
    let error = refused(&host, &[0; 10_001]);
    says(&error, "LAN-0102", &["10001 bytes", "10000", "`plugin.limits.upload_bytes_max`"]);
    let error = host.load(&Guest::new().build(), "1234").err().unwrap();
    says(&error, "LAN-0103", &["4 bytes", "`plugin.limits.parameters_bytes_max`"]);
}

#[test]
fn the_error_names_the_platform_that_a_module_is_for() {
    for (module, why) in [
        ("wasi_snapshot_preview1", "wasm32-wasip1"),
        ("env", "not linked in"),
        ("__wbindgen_placeholder__", "wasm-bindgen"),
    ] {
        let mut guest = Guest::new();
        guest.imports = format!("(import \"{module}\" \"f\" (func $f))");
        let error = refused(&host(), &guest.build());
        says(&error, "LAN-0105", &[&format!("imports `f` from `{module}`"), why]);
    }
}

/// Returns a guest whose world has `extra` in addition to the contract's imports.
fn world_with(packages: &str, extra: &str, import: &str) -> Guest {
    let mut guest = Guest::new();
    let contract = WIT.replacen("package lantern:projection@0.2.0;", "", 1);
    guest.wit = format!(
        "package test:guest;
         world guest {{ include lantern:projection/projection@0.2.0; {extra} }}
         {packages}
         package lantern:projection@0.2.0 {{ {contract} }}"
    );
    guest.world = Some("guest");
    guest.imports = import.into();
    guest.fields = "(func (export \"unused\") (call $f))".into();
    guest
}

#[test]
fn an_import_that_is_not_the_contracts_is_named() {
    let guest = world_with(
        "package acme:mail@1.0.0 { interface send { now: func(); } }",
        "import acme:mail/send@1.0.0;",
        "(import \"acme:mail/send@1.0.0\" \"now\" (func $f))",
    );
    let error = refused(&host(), &guest.build());
    says(
        &error,
        "LAN-0108",
        &["`acme:mail/send@1.0.0`", "it has `lantern:projection/", "tables@0.2.0`"],
    );

    let guest = world_with("", "import shout: func();", "(import \"$root\" \"shout\" (func $f))");
    says(&refused(&host(), &guest.build()), "LAN-0108", &["imports `shout`"]);
}

#[test]
fn wasi_is_refused_where_it_is_off_and_the_network_always() {
    let guest = world_with(
        "package wasi:clocks@0.2.0 { interface wall-clock { now: func(); } }",
        "import wasi:clocks/wall-clock@0.2.0;",
        "(import \"wasi:clocks/wall-clock@0.2.0\" \"now\" (func $f))",
    );
    let off = PluginConfig { allow_wasi: false, ..config(None, PluginLimits::default()) };
    let error = refused(&PluginHost::new(off).unwrap(), &guest.build());
    says(&error, "LAN-0110", &["`wasi:clocks/wall-clock@0.2.0`", "wasm32-unknown-unknown"]);
    // The contract's `now` returns a date, and this one returns nothing. A check of names does not
    // find this difference, but linking does.
    says(&refused(&host(), &guest.build()), "LAN-0113", &["wall-clock"]);

    let guest = world_with(
        "package wasi:sockets@0.2.0 { interface network { f: func(); } }",
        "import wasi:sockets/network@0.2.0;",
        "(import \"wasi:sockets/network@0.2.0\" \"f\" (func $f))",
    );
    says(&refused(&host(), &guest.build()), "LAN-0110", &["has no network"]);
}

#[test]
fn the_error_names_the_version_of_another_contract() {
    let mut guest = Guest::new();
    guest.wit = WIT.replace("@0.2.0", "@0.3.0");
    let error = refused(&host(), &guest.renamed("@0.2.0", "@0.3.0"));
    says(
        &error,
        "LAN-0109",
        &["built for version 0.3.0 of the contract (it imports `lantern:", "has version 0.2.0"],
    );
    // Later releases of version 0.2 only add functions. So a plugin that was built for
    // such a release can be loaded if it uses none of the added functions.
    guest.wit = WIT.replace("@0.2.0", "@0.2.9");
    let plugin = host().load(&guest.renamed("@0.2.0", "@0.2.9"), "").unwrap();
    assert_eq!(plugin.manifest().name, "guest");
}

/// Loads a plugin for contract 0.1.0. `tests/old/contract-0.1.0.wasm` is `tests/guests/rogue`,
/// compiled by the last release with that contract.
#[test]
fn a_plugin_of_the_first_contract_is_refused_and_the_error_names_the_sdk_to_rebuild_with() {
    let old = include_bytes!("../old/contract-0.1.0.wasm");
    let error = refused(&host(), old);
    let expected = ["built for version 0.1.0 of the contract", "this host has version 0.2.0"];
    says(&error, "LAN-0109", &expected);
    assert!(error.help().contains("rebuild the plugin with the SDK"), "{}", error.help());
}

#[test]
fn the_error_prints_a_function_of_another_signature_next_to_the_right_one() {
    let wit = WIT.replace(
        "get: func(table: table-id, key: string)",
        "get: func(table: table-id, key: list<u8>)",
    );
    let mut guest = Guest::new().import("tables", "get", "(param i32 i32 i32 i32)");
    guest.wit = wit;
    let error = refused(&host(), &guest.build());
    says(
        &error,
        "LAN-0111",
        &[
            "`lantern:projection/tables@0.2.0#get`",
            "`func(table: u32, key: list<u8>) -> option<list<u8>>` in the plugin",
            "but `func(table: u32, key: string) -> option<list<u8>>` in version 0.2.0",
        ],
    );

    let mut guest = Guest::new().import("tables", "frob", "");
    guest.wit = WIT.replace("interface tables {", "interface tables { frob: func();");
    let error = refused(&host(), &guest.build());
    says(&error, "LAN-0108", &["`lantern:projection/tables@0.2.0#frob`", "it has `get`, `put`"]);
}

#[test]
fn the_error_lists_the_exports_of_a_component_of_another_world() {
    let component = wat::parse_str(
        "(component
           (core module $m (func (export \"f\")))
           (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i \"f\")))
           (export \"hello\" (func $f)))",
    )
    .unwrap();
    let error = refused(&host(), &component);
    says(
        &error,
        "LAN-0112",
        &["does not export `lantern:projection/projector@0.2.0`", "it exports `hello`"],
    );
    let empty = wat::parse_str("(component)").unwrap();
    says(&refused(&host(), &empty), "LAN-0112", &["it exports nothing"]);
}

#[test]
fn features_that_are_off_are_refused() {
    for (field, expected) in [
        ("(func (export \"x\") (return_call $apply_it)) (func $apply_it)", "tail calls"),
        (
            "(func (export \"x\") (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))",
            "relaxed",
        ),
    ] {
        let mut guest = Guest::new();
        guest.fields = field.into();
        says(&refused(&host(), &guest.build()), "LAN-0107", &[expected]);
    }
    let mut guest = Guest::new();
    guest.memory = "2 2 shared";
    assert_eq!(refused(&host(), &guest.build()).code(), "LAN-0107");
}

#[test]
fn a_guest_may_have_several_memories_and_their_sizes_are_limited_together() {
    let mut guest = Guest::new();
    guest.fields = "(memory $other 4)".into();
    load(&guest);
    let limits = PluginLimits { memory_bytes_max: 5 << 16, ..PluginLimits::default() };
    let error = refused(&host_with(limits), &guest.build());
    says(&error, "LAN-0119", &["`plugin.limits.memory_bytes_max`"]);
}

#[test]
fn setup_that_fails_traps_or_never_ends_has_an_error_of_its_own() {
    let limits = PluginLimits { fuel_setup: 100_000, ..PluginLimits::default() };
    let host = host_with(limits);

    let mut says_no = Guest::new();
    let text = says_no.text("`window` is missing");
    let (address, length) = text.split_once(") (").unwrap();
    let says_no = says_no.setup(&format!(
        "(i32.store8 (i32.const 1024) (i32.const 1))
         (i32.store (i32.const 1032) {address})) (i32.store (i32.const 1036) ({length})"
    ));
    says(&refused(&host, &says_no.build()), "LAN-0120", &["`window` is missing"]);

    let traps = Guest::new().setup("unreachable");
    let error = refused(&host, &traps.build());
    says(&error, "LAN-0121", &["a panic or abort"]);
    assert!(error.backtrace().contains("setup"), "{}", error.backtrace());

    let spins = Guest::new().setup("(loop $forever (br $forever))");
    let error = refused(&host, &spins.build());
    says(&error, "LAN-0122", &["used up its fuel of 100000", "`plugin.limits.fuel_setup`"]);

    let mut starts = Guest::new();
    starts.fields = "(func $spin (loop $forever (br $forever))) (start $spin)".into();
    says(&refused(&host, &starts.build()), "LAN-0122", &["used up its fuel"]);

    let mut writes = Guest::new().import("tables", "put", "(param i32 i32 i32 i32 i32 i32)");
    let key = writes.text("k");
    let writes = writes.setup(&format!("(call $put (i32.const 0) (i32.const 0) {key} {key})"));
    says(&refused(&host, &writes.build()), "LAN-0121", &["`tables.put` outside of `apply`"]);
}

/// Returns an interpreter that refuses every source text that is not empty. Its message is the
/// text.
fn interpreter() -> Guest {
    let mut guest = Guest::new().import("source", "text", "(param i32)");
    guest.world = Some("interpreter");
    guest.setup(
        // The source is read to another address than the manifest, so an empty source does not
        // change the manifest.
        "(call $text (i32.const 512))
         (if (i32.load (i32.const 516)) (then
           (i32.store8 (i32.const 1024) (i32.const 1))
           (i32.store (i32.const 1032) (i32.load (i32.const 512)))
           (i32.store (i32.const 1036) (i32.load (i32.const 516)))))",
    )
}

#[test]
fn an_interpreter_gets_the_source_and_its_refusal_is_the_error() {
    let host = host_with(PluginLimits { source_bytes_max: 12, ..PluginLimits::default() });
    let load = |bytes: &[u8], text: &str| {
        host.load_with(bytes, "", Some(&VersionSource::new("totals.py", text))).err()
    };
    let bytes = interpreter().build();
    let empty = VersionSource::new("totals.py", "");
    let in_use = host.load_with(&bytes, "", Some(&empty)).expect("it accepts an empty source");
    let error = load(&bytes, "totals.py:3").expect("it was to be refused");
    says(&error, "LAN-0129", &["the source is refused: totals.py:3"]);
    let error = load(&bytes, "totals.py:1234").expect("it was to be refused");
    says(&error, "LAN-0128", &["`totals.py` has 14 bytes", "`plugin.limits.source_bytes_max`"]);
    says(&refused(&host, &bytes), "LAN-0126", &["without a source"]);
    let error = load(&Guest::new().build(), "").expect("it was to be refused");
    says(&error, "LAN-0127", &["`totals.py`"]);
    assert_eq!(host.compiled(), 2, "sources of one interpreter share its code");
    drop(in_use);
}

#[test]
fn manifests_are_checked() {
    let mut guest = Guest::new();
    guest.manifest.name = "No Name".into();
    says(&refused(&host(), &guest.build()), "LAN-0124", &["`No Name`"]);
    let mut guest = Guest::new();
    guest.option = Some("turbo");
    says(&refused(&host(), &guest.build()), "LAN-0124", &["the option `turbo`"]);
}

#[test]
fn an_instance_too_large_from_the_start_is_refused() {
    let mut guest = Guest::new();
    guest.memory = "2000";
    let error = refused(&host(), &guest.build());
    says(&error, "LAN-0119", &["more than 64 MiB of memory (`plugin.limits.memory_bytes_max`)"]);
    let mut guest = Guest::new();
    guest.fields = "(table 300000 funcref)".into();
    let error = refused(&host(), &guest.build());
    says(&error, "LAN-0119", &["200000 table elements (`plugin.limits.table_elements_max`)"]);
}

#[test]
fn the_same_code_with_other_parameters_is_compiled_once() {
    // The first letter of the parameters becomes the first letter of the manifest's name.
    let guest = Guest::new()
        .setup("(if (local.get $len) (then (i32.store8 (i32.load (i32.const 1032)) (i32.load8_u (local.get $ptr)))))");
    let host = host();
    let bytes = guest.build();
    let [a, b] = ["a", "b"].map(|parameters| host.load(&bytes, parameters).unwrap());
    assert_eq!([&*a.manifest().name, &*b.manifest().name], ["auest", "buest"]);
    assert_eq!(host.compiled(), 1);
    drop((a, b));
    host.load(&bytes, "").unwrap();
    assert_eq!(host.compiled(), 2, "unused code is not kept in memory");
}

fn compiled_file(cache: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(cache)
        .unwrap()
        .filter_map(|folder| fs::read_dir(folder.unwrap().path()).ok())
        .flatten()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.pop().unwrap()
}

#[test]
fn a_restart_finds_the_code_and_a_tampered_file_is_compiled_again() {
    let cache = tempfile::tempdir().unwrap();
    let bytes = Guest::new().build();
    let open = || PluginHost::new(config(Some(cache.path()), PluginLimits::default())).unwrap();
    let first = open();
    first.load(&bytes, "").unwrap();
    assert_eq!(first.compiled(), 1);

    let second = open();
    second.load(&bytes, "").unwrap();
    assert_eq!(second.compiled(), 0);

    let path = compiled_file(cache.path());
    let mut code = fs::read(&path).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    fs::write(&path, &code).unwrap();
    let third = open();
    third.load(&bytes, "").unwrap();
    assert_eq!(third.compiled(), 1);
    assert_ne!(fs::read(&path).unwrap(), code, "the damaged file was replaced");

    // The code comes from another host. It is not damaged, but its hash was made with another key.
    fs::write(cache.path().join("key"), [1; 32]).unwrap();
    let fourth = open();
    fourth.load(&bytes, "").unwrap();
    assert_eq!(fourth.compiled(), 1);
}

#[test]
fn cached_code_does_not_get_round_a_stricter_setting() {
    let cache = tempfile::tempdir().unwrap();
    let mut guest = world_with(
        "package wasi:random@0.2.0 { interface random { get-random-u64: func() -> u64; } }",
        "import wasi:random/random@0.2.0;",
        "(import \"wasi:random/random@0.2.0\" \"get-random-u64\" (func $g (result i64)))",
    );
    guest.fields = "(func $f (drop (call $g))) (export \"unused\" (func $f))".into();
    let bytes = guest.build();
    let open = |allow_wasi| {
        let config =
            PluginConfig { allow_wasi, ..config(Some(cache.path()), PluginLimits::default()) };
        PluginHost::new(config).unwrap()
    };
    open(true).load(&bytes, "").unwrap();
    let strict = open(false);
    says(&refused(&strict, &bytes), "LAN-0110", &["without WASI"]);
    assert_eq!(strict.compiled(), 0);
}

#[test]
fn concurrent_loads_of_one_plugin_wait_for_one_compilation() {
    let host = host();
    let bytes = Guest::new().build();
    let plugins: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| host.load(&bytes, "").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(plugins.len(), 8);
    assert_eq!(host.compiled(), 1);
}

#[test]
fn too_many_pieces_are_counted_and_named() {
    let mut guest = Guest::new();
    guest.fields = "(table 1 funcref)".repeat(20);
    let limits = PluginLimits { tables_max: 10, ..PluginLimits::default() };
    let error = refused(&host_with(limits), &guest.build());
    says(&error, "LAN-0119", &["more than 10 tables (`plugin.limits.tables_max`)"]);
    let limits = PluginLimits { core_instances_max: 0, ..PluginLimits::default() };
    let error = refused(&host_with(limits), &Guest::new().build());
    says(&error, "LAN-0119", &["0 core instances (`plugin.limits.core_instances_max`)"]);
    let limits = PluginLimits { memories_max: 0, ..PluginLimits::default() };
    let error = refused(&host_with(limits), &Guest::new().build());
    says(&error, "LAN-0119", &["`plugin.limits.memories_max`"]);
}

#[test]
fn handles_past_their_limit_trap() {
    let mut guest = world_with(
        "package wasi:io@0.2.0 { interface streams { resource output-stream; } }
         package wasi:cli@0.2.0 { interface stdout {
             use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; } }",
        "import wasi:cli/stdout@0.2.0;",
        "(import \"wasi:cli/stdout@0.2.0\" \"get-stdout\" (func $take (result i32)))",
    );
    guest.fields = String::new();
    let take = |times: usize| "(drop (call $take))".repeat(times);
    let limits = || PluginLimits { handles_max: 50, ..PluginLimits::default() };
    guest.setup = format!("{}{}", take(10), Guest::new().setup);
    host_with(limits()).load(&guest.build(), "").unwrap();
    guest.setup = format!("{}{}", take(60), Guest::new().setup);
    says(
        &refused(&host_with(limits()), &guest.build()),
        "LAN-0121",
        &["50 handles", "handles_max"],
    );
}

/// Returns a guest with one function that takes very long to compile: it has nested blocks, and
/// many locals that must be merged at the end of each block.
fn bomb() -> Vec<u8> {
    const LOCALS: usize = 800;
    const BLOCKS: usize = 1_500;
    let mut body = String::new();
    for n in 0..LOCALS {
        body += &format!("(local $l{n} i32)");
    }
    body += &"(loop ".repeat(BLOCKS);
    for n in 0..BLOCKS {
        let (a, b) = (n % LOCALS, (n * 7 + 1) % LOCALS);
        body += &format!(
            "(local.set {a} (i32.add (local.get {b}) (memory.size)))
             (br_if {} (local.get {a})))",
            n % (BLOCKS - n)
        );
    }
    let mut guest = Guest::new();
    guest.fields = format!("(func (export \"bomb\") {body})");
    guest.build()
}

#[test]
fn a_compiler_that_takes_too_much_is_ended() {
    let bomb = bomb();
    assert!(bomb.len() < 64 << 10, "{} bytes", bomb.len());
    let with = |change: fn(&mut PluginLimits)| {
        let mut limits = PluginLimits::default();
        change(&mut limits);
        refused(&host_with(limits), &bomb)
    };
    let error = with(|limits| limits.compile_cpu_s = 1);
    says(
        &error,
        "LAN-0114",
        &["more than 1 s of processor time; raise `plugin.limits.compile_cpu_s`"],
    );
    let error = with(|limits| limits.compile_wall_s = 1);
    says(&error, "LAN-0116", &["longer than 1 s; raise `plugin.limits.compile_wall_s`"]);
    let error = with(|limits| limits.compile_memory_bytes = 100 << 20);
    says(
        &error,
        "LAN-0115",
        &["104857600 bytes of memory", "`plugin.limits.compile_memory_bytes`"],
    );
}

#[test]
fn a_compiler_that_cannot_start_is_the_hosts_fault() {
    let config = PluginConfig {
        compiler: Compiler::Child { command: Some("/nowhere/lantern".into()) },
        ..PluginConfig::default()
    };
    let error = refused(&PluginHost::new(config).unwrap(), &Guest::new().build());
    says(&error, "LAN-0125", &["/nowhere/lantern"]);
}

#[test]
fn a_program_that_is_not_the_compiler_is_detected() {
    for command in ["/bin/true", "/bin/false", "/bin/cat"] {
        let config = PluginConfig {
            compiler: Compiler::Child { command: Some(command.into()) },
            ..PluginConfig::default()
        };
        let error = refused(&PluginHost::new(config).unwrap(), &Guest::new().build());
        assert_eq!(error.code(), "LAN-0117", "{command}: {error}");
    }
}

#[test]
fn unknown_configuration_keys_are_errors() {
    let unknown: Result<PluginConfig, _> =
        serde_json::from_str("{\"limits\":{\"memory_mb_max\":1}}");
    assert!(unknown.unwrap_err().to_string().contains("memory_mb_max"));
    let known: PluginConfig =
        serde_json::from_str("{\"limits\":{\"memory_bytes_max\":1}}").unwrap();
    assert_eq!(known.limits.memory_bytes_max, 1);
    assert_eq!(known.limits.apply_ms, PluginLimits::default().apply_ms);
}
