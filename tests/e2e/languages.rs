//! From an empty folder to a live table in each language, with the language's real tools:
//! create, build, test, push, read.

use std::path::{Path, PathBuf};
use std::process::Command;

use lantern_tests::{
    Server, interpreters, lantern, lantern_with_interpreters, root, shared_cache, without,
};
use serde_json::{Value, json};

use crate::finish;

/// Runs `command` in `folder`, which must be a success; returns its output.
fn finish_in(folder: &Path, command: &mut Command) -> String {
    finish(command.current_dir(folder))
}

/// Creates a plugin with `arguments` of `lantern new`.
fn created(folder: &Path, arguments: &[&str]) -> PathBuf {
    let mut new = lantern_with_interpreters();
    new.args(["new", "order-counts", "--json"]).args(arguments);
    finish_in(folder, &mut new);
    folder.join("order-counts")
}

/// Builds the project in `folder`; returns the component.
fn built(folder: &Path) -> PathBuf {
    let mut build = lantern_with_interpreters();
    let out = finish_in(folder, build.args(["build", "--json"]));
    let built: Value = serde_json::from_str(&out).unwrap();
    folder.join(built["file"].as_str().unwrap())
}

/// Folds the sample events with `plugin`, without a server and then on one.
async fn folds(folder: &Path, plugin: &Path) {
    let plugin = plugin.to_str().unwrap();
    let mut test = lantern_with_interpreters();
    let out = finish_in(folder, test.args(["test", "events.ndjson", plugin, "--json"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    let orders = |row: &Value| row["order.placed"]["events"].clone();
    assert_eq!(orders(&report["tables"]["by_type"]), 2, "{report}");
    assert_eq!(report["parked"], json!([]), "{report}");

    let setting = |key: &str, folder: PathBuf| format!("plugin.{key}={}", folder.display());
    let server = Server::start(&[
        &setting("interpreters_dir", interpreters()),
        &setting("cache_dir", shared_cache().join("lantern/compiled")),
    ])
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

/// The SDK's folder, for `--sdk`.
fn sdk(language: &str) -> String {
    root().join("sdk").join(language).display().to_string()
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
        folds(&folder, &folder.join(file)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_python_is_created_built_tested_and_pushed() {
    if without("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = created(dir.path(), &["--lang", "python", "--sdk", &sdk("python")]);
    let component = built(&folder);
    finish_in(&folder, Command::new(folder.join(".venv/bin/python")).args(["-m", "pytest", "-q"]));
    folds(&folder, &component).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_javascript_or_typescript_is_created_built_tested_and_pushed() {
    if without("npm") {
        return;
    }
    for language in ["js", "ts"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = created(dir.path(), &["--lang", language, "--sdk", &sdk("js")]);
        let component = built(&folder);
        finish_in(&folder, Command::new("npm").args(["test", "--silent"]));
        folds(&folder, &component).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_in_c_is_created_built_tested_and_pushed() {
    if without("python3") {
        return;
    }
    // The compiler for WebAssembly is a package of Python.
    let sdk_folder = root().join("sdk/c");
    if !root().join("target/zig/bin/python").is_file() {
        finish_in(&sdk_folder, Command::new("make").args(["--silent", "tools"]));
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = created(dir.path(), &["--lang", "c", "--sdk", &sdk("c")]);
    let component = built(&folder);
    finish_in(&folder, Command::new("make").args(["--silent", "test"]));
    folds(&folder, &component).await;
}

/// `tests/llms` has ten tasks with tables computed independently, and projections whose
/// authors had no other document than `docs/llms.txt`.
#[test]
fn projections_written_from_the_reference_in_one_file_give_the_expected_tables() {
    if without("python3") || without("npm") {
        return;
    }
    let folder = root().join("tests/llms");
    let mut check = Command::new("python3");
    check.arg("check.py").arg(lantern());
    check.env("LANTERN_PLUGIN__INTERPRETERS_DIR", interpreters());
    println!("{}", finish_in(&folder, check.env("XDG_CACHE_HOME", shared_cache())));
}
