//! Tests, in each language, the path from an empty folder to a live table, with the real tools of
//! the language and the package of its SDK: create, build, test, push and read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use lantern_tests::{
    Launch, Server, build_project, build_project_with, fresh_log, go, interpreter_settings,
    lantern, lantern_with_interpreters, root, with_interpreters, without,
};
use serde_json::{Value, json};

use crate::finish;
use crate::packages::sdk_package;

/// Runs `command` in `folder`, and returns its output. Panics if the command fails.
fn finish_in(folder: &Path, command: &mut Command) -> String {
    finish(command.current_dir(folder))
}

/// Creates a plugin with the given arguments of `lantern new`. Returns its folder.
fn created(folder: &Path, arguments: &[&str]) -> PathBuf {
    let mut new = lantern_with_interpreters();
    new.args(["new", "order-counts", "--json"]).args(arguments);
    finish_in(folder, &mut new);
    folder.join("order-counts")
}

/// Folds the sample events with `plugin`, first without a server and then on one.
async fn folds(folder: &Path, plugin: &Path) {
    folds_on(folder, plugin, &[]).await;
}

/// Like [`folds`], with a server that runs under the program `under`, with its arguments.
async fn folds_on(folder: &Path, plugin: &Path, under: &[&str]) {
    let plugin = plugin.to_str().unwrap();
    let mut test = lantern_with_interpreters();
    let out = finish_in(folder, test.args(["test", "events.ndjson", plugin, "--json"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    let orders = |row: &Value| row["order.placed"]["events"].clone();
    assert_eq!(orders(&report["tables"]["by_type"]), 2, "{report}");
    assert_eq!(report["parked"], json!([]), "{report}");

    let data = tempfile::tempdir().unwrap();
    let server = Server::launch(Launch {
        folder: data.path().join("data"),
        address: "127.0.0.1:0".into(),
        log: fresh_log().unwrap(),
        settings: interpreter_settings().into(),
        under: under.iter().map(|&word| word.into()).collect(),
        ..Launch::default()
    })
    .unwrap();
    let at = ["--server", server.url.as_str()];
    let mut push = lantern_with_interpreters();
    finish_in(folder, push.args(["plugin", "push", plugin, "--wait"]).args(at));
    let mut import = lantern_with_interpreters();
    finish_in(folder, import.args(["events", "import", "events.ndjson", "--wait"]).args(at));
    let page: Value =
        serde_json::from_str(&server.text("/v1/tables/order-counts/by_type").await.unwrap())
            .unwrap();
    assert_eq!(orders(&page["rows"]), 2, "{page}");
}

/// Unpacks the package of the SDK for C or Go into `folder`. Returns its folder, for the option
/// `--sdk`.
fn unpacked_sdk(language: &str, folder: &Path) -> String {
    let package = sdk_package(&format!("lantern-sdk-{language}-"), ".tar.gz");
    finish(Command::new("tar").arg("-xzf").arg(&package).arg("-C").arg(folder));
    let name = package.file_name().unwrap().to_string_lossy();
    let unpacked = folder.join(name.trim_end_matches(".tar.gz"));
    unpacked.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_each_language_and_a_declaration_need_no_tools() {
    if without("python3") || without("npm") {
        return;
    }
    for (script, file) in [
        ("py", "order_counts.py"),
        ("js", "order-counts.js"),
        ("ts", "order-counts.ts"),
        ("yaml", "order-counts.yaml"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = created(dir.path(), &["--script", script]);
        // The environment of the server is empty: without PATH it finds no other program.
        folds_on(&folder, &folder.join(file), &["/usr/bin/env", "-i"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_python_is_created_built_tested_and_pushed() {
    if without("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sdk = sdk_package("lantern_sdk-", ".whl").display().to_string();
    let folder = created(dir.path(), &["--lang", "python", "--sdk", &sdk]);
    let component = build_project(&folder).unwrap();
    let python = folder.join(".venv/bin/python");
    let module = ["-c", "import lantern; print(lantern.__file__)"];
    let module = finish_in(&folder, Command::new(&python).args(module));
    assert!(Path::new(module.trim()).starts_with(folder.join(".venv")), "{module}");
    finish_in(&folder, Command::new(&python).args(["-m", "pytest", "-q"]));
    folds(&folder, &component).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_javascript_or_typescript_is_created_built_tested_and_pushed() {
    if without("npm") {
        return;
    }
    let sdk = sdk_package("lantern-sdk-", ".tgz").display().to_string();
    for language in ["js", "ts"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = created(dir.path(), &["--lang", language, "--sdk", &sdk]);
        let component = build_project(&folder).unwrap();
        // npm makes a link to a folder, and copies the files of a package.
        assert!(!folder.join("node_modules/lantern-sdk").is_symlink());
        finish_in(&folder, Command::new("npm").args(["test", "--silent"]));
        folds(&folder, &component).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_c_is_created_built_tested_and_pushed() {
    if without("python3") || without("tar") {
        return;
    }
    install_zig();
    let dir = tempfile::tempdir().unwrap();
    let sdk = unpacked_sdk("c", dir.path());
    let folder = created(dir.path(), &["--lang", "c", "--sdk", &sdk]);
    // The compiler is found as in an active virtual environment.
    let compiler = root().join("target/zig/bin");
    let others = std::env::var_os("PATH").unwrap();
    let path = std::iter::once(compiler).chain(std::env::split_paths(&others));
    let path = std::env::join_paths(path).unwrap();
    let component = build_project_with(&folder, &[("PATH", &path)]).unwrap();
    finish_in(&folder, Command::new("make").args(["--silent", "test"]));
    folds(&folder, &component).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_go_is_created_built_tested_and_pushed() {
    if without("go") || without("tar") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = created(dir.path(), &["--lang", "go", "--sdk", &unpacked_sdk("go", dir.path())]);
    let component = build_project(&folder).unwrap();
    finish_in(&folder, go().args(["test", "./..."]));
    folds(&folder, &component).await;
}

/// Installs the compiler for WebAssembly, which is a package of Python, in the version that the SDK
/// for C pins. Tests that need it at the same time wait for one installation.
fn install_zig() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let folder = root().join("sdk/c");
        finish_in(&folder, Command::new("make").args(["--silent", "tools"]));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_zig_without_an_sdk_is_built_and_counts_every_event() {
    if without("python3") || without("make") {
        return;
    }
    install_zig();
    let dir = tempfile::tempdir().unwrap();
    let build = format!("BUILD={}", dir.path().display());
    finish(
        Command::new("make")
            .args(["--silent", "-C"])
            .arg(root().join("sdk/by-hand"))
            .args(["build", build.as_str()]),
    );
    let plugin = dir.path().join("counts.wasm");
    // The event types have different lengths, and some have non-ASCII characters.
    let kinds = ["a", "order.placed", "größe", "page.viewed.by.a.user", "b"];
    let mut expected = BTreeMap::new();
    let mut random = crate::random();
    let mut lines = String::new();
    for n in 0..3_000 {
        let kind = kinds[random.usize(..kinds.len())];
        *expected.entry(kind.to_owned()).or_insert(0_u64) += 1;
        lines += &crate::line(n, kind, "s", "{\"text\":\"x\"}");
    }
    let events = dir.path().join("events.ndjson");
    std::fs::write(&events, &lines).unwrap();
    let counted = |rows: Vec<(String, u64)>| {
        assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), expected);
    };
    // The command folds in batches of different sizes, and drops instances.
    let mut test = Command::new(lantern());
    let report: Value =
        serde_json::from_str(&finish(test.arg("test").args([&events, &plugin]).arg("--json")))
            .unwrap();
    assert_eq!((&report["difference"], &report["parked"]), (&Value::Null, &json!([])), "{report}");
    let rows = report["tables"]["by_type"].as_object().unwrap();
    counted(rows.iter().map(|(key, row)| (key.clone(), row["events"].as_u64().unwrap())).collect());

    let server = Server::start(&[]).unwrap();
    server.project("counts", &plugin, "").await.unwrap();
    for part in lines.lines().collect::<Vec<_>>().chunks(700) {
        server.events(part.join("\n") + "\n").await.unwrap();
        server.caught_up("counts").await.unwrap();
    }
    let rows = server.rows("counts/by_type").await.unwrap();
    counted(rows.iter().map(|(key, row)| (key.clone(), row["events"].as_u64().unwrap())).collect());
    // The plugin takes no parameters, so the server must refuse them.
    let (status, refused) = server.push("other", &plugin, "{\"step\":2}").await.unwrap();
    assert_eq!(status, 422, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("takes no parameters"), "{refused}");
}

/// `tests/llms` has ten tasks with independently computed tables, and a projection for each task.
/// The authors of these projections had read only `docs/llms.txt`.
#[test]
fn projections_written_from_the_reference_in_one_file_give_the_expected_tables() {
    if without("python3") || without("npm") {
        return;
    }
    let folder = root().join("tests/llms");
    let mut check = with_interpreters("python3".as_ref());
    println!("{}", finish_in(&folder, check.arg("check.py").arg(lantern())));
}
