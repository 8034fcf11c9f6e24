//! Tests scripts and declarations, which are sources that an interpreter runs. Here the guest `toy`
//! takes the place of every real interpreter.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lantern_tests::{Server, guest, lantern, lantern_with_interpreters, root};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::line;

const TOTALS: &str = "# totals\nname totals\ncount order.placed\nfail order.odd\n";

/// Creates a folder in which every interpreter is the guest `toy`.
fn interpreters() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["python.wasm", "javascript.wasm", "declare.wasm"] {
        std::fs::copy(guest("toy"), folder.path().join(name)).unwrap();
    }
    folder
}

fn setting(folder: &Path) -> String {
    format!("plugin.interpreters_dir={}", folder.display())
}

async fn post(server: &Server, query: &str, media: &str, source: &str) -> (u16, Value) {
    let path = format!("/v1/versions{query}");
    server.request(Method::POST, &path, media, source.into()).await.unwrap()
}

/// Uploads a source, and waits until its version serves readers. Returns the version.
async fn serve(server: &Server, query: &str, media: &str, source: &str) -> String {
    let (status, answer) = post(server, query, media, source).await;
    assert_eq!(status, 201, "{answer}");
    let version = answer["version"].as_str().unwrap().to_owned();
    let name = answer["projection"].as_str().unwrap();
    server.until(name, |now| now["active"] == version.as_str()).await.unwrap();
    server.caught_up(name).await.unwrap();
    version
}

fn orders() -> String {
    let kind = |n: u64| if n.is_multiple_of(3) { "order.odd" } else { "order.placed" };
    (0..300_u64).map(|n| line(n, kind(n), &format!("s{}", n % 4), "{}")).collect()
}

fn version<'a>(status: &'a Value, id: &str) -> &'a Value {
    let versions = status["versions"].as_array().unwrap();
    versions.iter().find(|version| version["id"] == id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_each_kind_is_folded_and_is_the_same_after_a_restart() {
    let folder = interpreters();
    let mut server = Server::start(&[&setting(folder.path())]).unwrap();
    server.events(orders()).await.unwrap();
    let kinds = [
        ("py", "text/x-python"),
        ("js", "text/javascript"),
        ("ts", "text/typescript"),
        ("yaml", "application/yaml"),
        ("json", "application/json"),
    ];
    for (extension, media) in kinds {
        let source = TOTALS.replace("totals", extension);
        let query = format!("?source_name=totals.{extension}");
        let id = serve(&server, &query, media, &source).await;
        let status = server.get(&format!("/v1/projections/{extension}")).await.unwrap();
        let shown = &version(&status, &id)["source"];
        assert_eq!(shown["name"], format!("totals.{extension}"), "{status:#}");
        assert_eq!(shown["bytes"], source.len(), "{status:#}");
        assert!(!status.to_string().contains("count order.placed"), "lists have no text");
        let path = format!("/v1/projections/{extension}/versions/{id}/source");
        assert_eq!(server.text(&path).await.unwrap(), source);
    }
    let mut before = Vec::new();
    for (extension, _) in kinds {
        before.push(server.lines(&format!("{extension}/counts")).await.unwrap());
    }
    assert!(before[0].contains("\"events\":"), "{}", before[0]);
    assert!(before.iter().all(|rows| *rows == before[0]));
    // The folder of the interpreters is now missing. But the server has stored the interpreters
    // with the versions.
    folder.close().unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    server.events(line("new", "order.placed", "s0", "{}")).await.unwrap();
    for (extension, _) in kinds {
        server.caught_up(extension).await.unwrap();
        let rows = server.rows(&format!("{extension}/counts")).await.unwrap();
        let total: u64 = rows.iter().map(|(_, row)| row["events"].as_u64().unwrap()).sum();
        assert_eq!(total, 201, "{rows:?}");
        let verified = Command::new(lantern())
            .args(["verify", extension, "--server", &server.url])
            .output()
            .unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn source_parameters_and_interpreter_identify_a_version() {
    let folder = interpreters();
    let server = Server::start(&[&setting(folder.path())]).unwrap();
    server.events(orders()).await.unwrap();
    let first = serve(&server, "?source_name=a.py", "text/x-python", TOTALS).await;
    let (status, again) = post(&server, "?source_name=a.py", "text/x-python", TOTALS).await;
    assert_eq!((status, again["version"].as_str()), (200, Some(first.as_str())), "{again}");
    let other = format!("{TOTALS}# more\n");
    let second = serve(&server, "?source_name=a.py", "text/x-python", &other).await;
    let third = serve(&server, "?source_name=b.py", "text/x-python", &other).await;
    // A form changes a parameter of the projection.
    let form = "--x\r\ncontent-disposition: form-data; name=\"parameters\"\r\n\r\n{\"step\":2}\r\n\
                --x\r\ncontent-disposition: form-data; name=\"source\"; filename=\"b.py\"\r\n\r\n\
                SOURCE\r\n--x--\r\n"
        .replace("SOURCE", &other);
    let before = server.rows("totals/counts").await.unwrap();
    let fourth = serve(&server, "", "multipart/form-data; boundary=x", &form).await;
    let after = server.rows("totals/counts").await.unwrap();
    for ((_, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(after["events"].as_u64(), before["events"].as_u64().map(|events| 2 * events));
    }
    // With an upgraded interpreter, an upload creates another version and changes no existing
    // version.
    let upgraded = folder.path().join("python.wasm");
    let mut bytes = std::fs::read(&upgraded).unwrap();
    // The bytes are a custom section, which changes nothing except the hash of the interpreter.
    bytes.extend([0, 5, 4, b'n', b'o', b't', b'e']);
    std::fs::write(&upgraded, bytes).unwrap();
    let fifth = serve(&server, "?source_name=b.py", "text/x-python", &other).await;
    let mut ids = vec![&first, &second, &third, &fourth, &fifth];
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{ids:?}");
    let status = server.get("/v1/projections/totals").await.unwrap();
    assert_eq!(version(&status, &third)["sha256"], version(&status, &first)["sha256"]);
    assert_ne!(version(&status, &fifth)["sha256"], version(&status, &first)["sha256"]);
    let path = format!("/v1/projections/totals/versions/{first}");
    let (deleted, answer) = server.request(Method::DELETE, &path, "", Vec::new()).await.unwrap();
    assert_eq!(deleted, 204, "{answer}");
    let text = server.text(&format!("{path}/source")).await.unwrap();
    assert!(text.contains("LAN-0202"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_source_is_not_compiled_and_its_first_row_is_there_in_a_moment() {
    let folder = interpreters();
    let server = Server::start(&[&setting(folder.path())]).unwrap();
    server.events(orders()).await.unwrap();
    serve(&server, "", "text/x-python", TOTALS).await;
    let compiled = |metrics: String| {
        let line = metrics.lines().find(|l| l.starts_with("lantern_plugin_compiles_total{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(compiled(server.text("/metrics").await.unwrap()), Some(1));
    let started = Instant::now();
    serve(&server, "", "text/x-python", &TOTALS.replace("totals", "second")).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(compiled(server.text("/metrics").await.unwrap()), Some(1));
    assert_eq!(server.rows("second/counts").await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_are_wrong_are_refused_with_the_place() {
    let folder = interpreters();
    std::fs::remove_file(folder.path().join("javascript.wasm")).unwrap();
    let server =
        Server::start(&[&setting(folder.path()), "plugin.limits.source_bytes_max=1000"]).unwrap();
    let missing = folder.path().join("javascript.wasm").display().to_string();
    let long = "#".repeat(1_001);
    for (query, media, source, status, code, words) in [
        ("?source_name=a.py", "text/x-python", "name a\nsum x", 422, "LAN-0129", "a.py:2:1: `sum`"),
        ("", "text/x-python", "", 422, "LAN-0129", "projection.py:1: no `name`"),
        ("?source_name=a.py", "text/x-python", &long, 413, "LAN-0128", "`a.py` has 1001 bytes"),
        ("?source_name=a.rb", "text/x-python", "", 422, "LAN-0130", "`a.rb`"),
        ("?source_name=a.js", "text/x-python", "", 422, "LAN-0130", "`a.js`"),
        ("?source_name=b%2Fa.py", "text/x-python", "", 422, "LAN-0130", "no folders"),
        ("?source_name=a.ts", "text/typescript", "name a", 422, "LAN-0132", &missing),
        ("", "text/x-ruby", "", 415, "LAN-0411", "text/x-ruby"),
    ] {
        let (answered, answer) = post(&server, query, media, source).await;
        assert_eq!((answered, answer["code"].as_str()), (status, Some(code)), "{answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(words), "`{detail}` does not say `{words}`");
    }
    let bytes = b"name a\n# \xFF\n".to_vec();
    let (status, answer) =
        server.request(Method::POST, "/v1/versions", "text/x-python", bytes).await.unwrap();
    assert_eq!((status, answer["code"].as_str()), (422, Some("LAN-0131")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("line 2 of the source"), "{answer}");
    // An interpreter needs a source, and a plugin that is no interpreter accepts none.
    let (status, answer) = server.push("toy", &guest("toy"), "").await.unwrap();
    assert_eq!((status, answer["code"].as_str()), (422, Some("LAN-0126")), "{answer}");
    assert_eq!(server.get("/v1/projections").await.unwrap()["projections"], Value::Array(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_a_source_like_a_plugin() {
    let folder = interpreters();
    let server = Server::start(&[&setting(folder.path())]).unwrap();
    let source = folder.path().join("totals.py");
    let events = folder.path().join("events.ndjson");
    std::fs::write(&source, TOTALS).unwrap();
    std::fs::write(&events, orders()).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(lantern())
            .args(arguments)
            .env("LANTERN_SERVER", &server.url)
            .env("LANTERN_PLUGIN__INTERPRETERS_DIR", folder.path())
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (source, events) = (source.to_str().unwrap(), events.to_str().unwrap());
    let (code, out, err) = run(&["plugin", "check", source, "--events", events]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("100 events failed") || err.contains("100"), "{out}{err}");
    let (code, out, err) = run(&["test", events, source, "--allow-parked"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("s0") && out.contains("deterministic"), "{out}{err}");
    assert!(folder.path().join("cache/lantern/compiled").is_dir());
    server.events(orders()).await.unwrap();
    let (code, out, err) =
        run(&["plugin", "push", source, "--parameters", "{\"step\":3}", "--wait"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (_, out, _) = run(&["plugin", "status", "totals"]);
    assert!(out.contains("source       totals.py"), "{out}");
    assert_eq!(run(&["plugin", "source", "totals"]).1, TOTALS);
    std::fs::write(source, "name totals\ntotal order.placed\n").unwrap();
    for arguments in [["plugin", "push", source], ["plugin", "check", source]] {
        let (code, out, err) = run(&arguments);
        assert_eq!(code, Some(5), "{out}{err}");
        assert!(err.contains("LAN-0129") && err.contains("totals.py:2:1: `total`"), "{out}{err}");
    }
}

/// The same declarations as in the tests of `plugins/declare`, through the command line and the
/// compiled interpreter.
#[test]
fn each_broken_declaration_is_refused_by_the_host_with_its_place() {
    let folder = root().join("plugins/declare/src/tests/broken");
    let scratch = TempDir::new().unwrap();
    let mut refused = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        // The messages there begin with this name.
        let source = scratch.path().join("test.yaml");
        std::fs::copy(&path, &source).unwrap();
        let mut check = lantern_with_interpreters();
        let output = check.args(["plugin", "check"]).arg(&source).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{}: {told}", path.display());
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let place = expected.split(": ").next().unwrap();
        assert!(place.starts_with("test.yaml:"), "{expected}");
        assert!(told.contains("LAN-0129") && told.contains(place), "{}: {told}", path.display());
        refused += 1;
    }
    assert!(refused >= 90, "{refused}");
}
