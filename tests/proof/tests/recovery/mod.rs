//! Tests kinds of damage that have occurred in other systems, and the recovery from each, with the
//! real binary.

use std::fs;
use std::path::{Path, PathBuf};

use lantern_tests::{Server, guest, run};
use redb::{ReadableTable, TableDefinition};
use serde_json::{Value, json};

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn line(n: u64, kind: &str) -> String {
    let subject = format!("s{}", n % 5);
    let event = json!({
        "specversion": "1.0", "id": n.to_string(), "source": "test", "type": kind,
        "subject": subject, "time": "2026-03-01T12:00:00Z", "data": {},
    });
    format!("{event}\n")
}

/// The data folder of a stopped server, with a projection over some events.
struct Stopped {
    _temporary: tempfile::TempDir,
    folder: PathBuf,
    rows: Vec<(String, Value)>,
}

const SETTINGS: [&str; 2] = ["log.chunk_events_max=10", "log.disk_reserve_bytes=1"];

async fn stopped(events: u64) -> Stopped {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("data");
    let server = start(&folder);
    for n in 0..events {
        server.events(line(n, "probe.sent")).await.unwrap();
    }
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let rows = server.rows("rogue/seen").await.unwrap();
    assert!(!rows.is_empty());
    server.terminate().unwrap();
    Stopped { _temporary: temporary, folder, rows }
}

fn start(folder: &Path) -> Server {
    Server::start_in(folder, "127.0.0.1:0", &SETTINGS).unwrap()
}

impl Stopped {
    fn state(&self) -> PathBuf {
        let projection = self.folder.join("state/rogue");
        let build = fs::read_dir(projection).unwrap().next().unwrap().unwrap();
        build.path().join("0.redb")
    }

    /// Runs the doctor. Returns its exit code and its report.
    fn doctor(&self, more: &[&str]) -> (i32, Value) {
        let data = self.folder.display().to_string();
        let arguments = [&["doctor", "--json", "--data", &data], more].concat();
        let output = run(&arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    }

    /// Damages the log's chunk that begins at offset `first`.
    fn harm_chunk(&self, first: u64, change: impl Fn(&mut Vec<u8>)) {
        let database = redb::Database::create(self.folder.join("log.redb")).unwrap();
        let write = database.begin_write().unwrap();
        {
            let table = TableDefinition::<(u32, u64), &[u8]>::new("chunks");
            let mut table = write.open_table(table).unwrap();
            let mut bytes = table.get((0, first)).unwrap().unwrap().value().to_vec();
            change(&mut bytes);
            table.insert((0, first), bytes.as_slice()).unwrap();
        }
        write.commit().unwrap();
    }
}

fn finding<'a>(report: &'a Value, what: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|f| f["what"].as_str().unwrap().starts_with(what));
    found.unwrap_or_else(|| panic!("no `{what}` in {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_detected_quarantined_and_folded_again() {
    let stopped = stopped(45).await;
    assert_eq!(stopped.doctor(&[]).0, 0);
    let path = stopped.state();
    let mut bytes = fs::read(&path).unwrap();
    let fields = bytes.windows(6).enumerate().filter(|(_, word)| *word == b"events");
    let places: Vec<_> = fields.map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "rows have a field of this name");
    places.iter().for_each(|at| bytes[*at] ^= 1);
    fs::write(&path, &bytes).unwrap();
    let (code, report) = stopped.doctor(&[]);
    assert_eq!(code, 1, "{report:#}");
    let state = finding(&report, "state of `rogue`");
    assert_eq!(state["health"], "damaged");
    assert!(state["places"][0].as_str().unwrap().contains("0.redb"), "{state}");
    assert!(state["way_out"].as_str().unwrap().contains("--repair"), "{state}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "looking changes nothing");
    let (code, report) = stopped.doctor(&["--repair"]);
    assert_eq!((code, &finding(&report, "state of")["health"]), (0, &json!("repaired")));
    let server = start(&stopped.folder);
    server.caught_up("rogue").await.unwrap();
    assert_eq!(server.rows("rogue/seen").await.unwrap(), stopped.rows);
    assert!(verify(&server).await.0, "the same again");
    server.terminate().unwrap();
    assert_eq!(stopped.doctor(&[]).0, 0);
    let aside = stopped.folder.join("damaged/rogue");
    assert_eq!(fs::read_dir(aside).unwrap().count(), 1, "the damaged state is kept");
}

/// Runs the verification. Returns whether it found no difference, and the output of the command.
async fn verify(server: &Server) -> (bool, String) {
    let url = server.url.clone();
    let output = tokio::task::spawn_blocking(move || run(&["verify", "--server", &url]).unwrap());
    let output = output.await.unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_not_what_the_log_gives_is_named() {
    let stopped = stopped(45).await;
    {
        let database = redb::Database::create(stopped.state()).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(Bytes::new("table/0")).unwrap();
            let row = table.get(&b"s3"[..]).unwrap().unwrap().value().to_vec();
            let mut row: Value = serde_json::from_slice(&row).unwrap();
            row["events"] = json!(4_711);
            table.insert(&b"s3"[..], row.to_string().as_bytes()).unwrap();
        }
        write.commit().unwrap();
    }
    let server = start(&stopped.folder);
    server.caught_up("rogue").await.unwrap();
    let (same, text) = verify(&server).await;
    assert!(!same, "{text}");
    for word in ["DIFFERS", "seen", "key `s3`", "events: the log gives 9", "4711", "LAN-0217"] {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
    let status = server.get("/v1/projections/rogue").await.unwrap();
    assert_eq!(status["verified"]["verdict"], "differs");
    let metrics = server.text("/metrics").await.unwrap();
    assert!(metrics.contains("lantern_verify_differences_total{projection=\"rogue\"} 1"));
    // The recovery is a rebuild of the version.
    let version = status["active"].as_str().unwrap();
    let path = format!("/v1/projections/rogue/versions/{version}/rebuild");
    server.request(reqwest::Method::POST, &path, "application/json", Vec::new()).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let (same, text) = verify(&server).await;
    assert!(same && text.contains("the same"), "{text}");
    assert_eq!(server.rows("rogue/seen").await.unwrap(), stopped.rows);
}

/// In nats-server #7549, one flipped bit lost records in the middle. Here a flipped bit may affect
/// only its own chunk.
#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_takes_its_own_chunk_along_and_no_other() {
    let stopped = stopped(45).await;
    stopped.harm_chunk(20, |bytes| bytes[60] ^= 1);
    let (code, report) = stopped.doctor(&[]);
    assert_eq!(code, 1);
    let log = finding(&report, "log of events");
    let place = log["places"][0].as_str().unwrap();
    assert!(place.contains("partition 0") && place.contains("offsets 20 to 29 are lost"), "{log}");
    let server = start(&stopped.folder);
    for (from, whole) in [(0, true), (10, true), (20, false), (30, true), (40, true)] {
        let path = format!("/v1/events?from={from}&limit=5");
        let (status, answer) =
            server.request(reqwest::Method::GET, &path, "", Vec::new()).await.unwrap();
        assert_eq!(status == 200, whole, "{from}: {answer}");
        if !whole {
            assert_eq!(answer["code"], "LAN-0324");
            assert!(answer["help"].as_str().unwrap().contains("lantern doctor"));
        }
    }
    // The server accepts new events, and still reports the damage.
    server.events(line(100, "probe.sent")).await.unwrap();
    assert!(server.get("/v1/events?from=20&limit=5").await.is_err());
    // A fold stops at the damage, and reports the place.
    let (same, text) = verify(&server).await;
    assert!(!same && text.contains("partition 0 at offset 20"), "{text}");
    let again = server.push("again", &guest("rogue"), r#"{"fixed":false}"#).await.unwrap();
    assert!(
        again.0 >= 400 && again.1.to_string().contains("partition 0 at offset 20"),
        "{again:?}"
    );
}

/// In KurrentDB #1653, the last but one chunk was never verified. Here it must be verified like any
/// other.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_but_one_chunk_is_verified_like_any_other() {
    let stopped = stopped(45).await;
    let before = fs::read(stopped.folder.join("log.redb")).unwrap();
    for first in [0, 10, 20, 30, 40] {
        stopped.harm_chunk(first, |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x10;
        });
        let (code, report) = stopped.doctor(&[]);
        let log = finding(&report, "log of events");
        assert_eq!(code, 1, "{log}");
        assert_eq!(log["places"].as_array().unwrap().len(), 1, "{log}");
        let place = log["places"][0].as_str().unwrap();
        assert!(place.contains(&format!("offsets {first} to")), "{log}");
        fs::write(stopped.folder.join("log.redb"), &before).unwrap();
    }
}

/// In fluss #2941, a torn log with an intact index prevented the server from starting. Here the
/// server must start.
#[tokio::test(flavor = "multi_thread")]
async fn an_intact_index_over_a_torn_chunk_does_not_keep_the_server_down() {
    let stopped = stopped(45).await;
    stopped.harm_chunk(40, |bytes| bytes.truncate(bytes.len() / 2));
    let server = start(&stopped.folder);
    assert_eq!(server.rows("rogue/seen").await.unwrap(), stopped.rows);
    assert!(server.get("/v1/events?from=30&limit=5").await.is_ok());
    assert!(server.get("/v1/events?from=40&limit=5").await.is_err());
    server.events(line(100, "probe.sent")).await.unwrap();
    assert!(server.get("/v1/events?from=45&limit=5").await.is_ok());
    assert!(server.get("/v1/events?from=40&limit=5").await.is_err(), "it is still told");
    let (same, text) = verify(&server).await;
    assert!(!same && text.contains("partition 0 at offset 40"), "{text}");
}

/// In kafka #8812, a server served recovered data that was never synced. The corresponding case
/// here is that the tables contain events that the log has lost. The server must halt the
/// projection. Otherwise the projection would skip the next events.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_ahead_of_the_log_halt_with_the_reason() {
    let mut stopped = stopped(45).await;
    let older = fs::read(stopped.folder.join("log.redb")).unwrap();
    let server = start(&stopped.folder);
    for n in 45..60 {
        server.events(line(n, "probe.sent")).await.unwrap();
    }
    server.caught_up("rogue").await.unwrap();
    server.terminate().unwrap();
    fs::write(stopped.folder.join("log.redb"), older).unwrap();
    let (code, report) = stopped.doctor(&[]);
    assert_eq!(code, 1);
    let place = finding(&report, "state of")["places"][0].as_str().unwrap().to_owned();
    assert!(place.contains("offset 60") && place.contains("ends at 45"), "{place}");
    let server = start(&stopped.folder);
    let status = server.until("rogue", |s| s["versions"][0]["activity"] == "halted").await;
    let reason = status.unwrap()["versions"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("lantern doctor"), "{reason}");
    server.terminate().unwrap();
    assert_eq!(stopped.doctor(&["--repair"]).0, 0);
    let server = start(&stopped.folder);
    server.caught_up("rogue").await.unwrap();
    assert_eq!(server.rows("rogue/seen").await.unwrap(), stopped.rows);
    stopped.rows.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_plugins_and_catalogues_are_named_and_a_running_server_is_left_alone() {
    let stopped = stopped(10).await;
    let plugins = fs::read_dir(stopped.folder.join("plugins")).unwrap();
    let plugin = plugins.map(|p| p.unwrap().path()).next().unwrap();
    let wasm = fs::read(&plugin).unwrap();
    fs::write(&plugin, &wasm[1..]).unwrap();
    let (code, report) = stopped.doctor(&[]);
    assert_eq!((code, &finding(&report, "plugin of `rogue`")["health"]), (1, &json!("damaged")));
    fs::write(&plugin, wasm).unwrap();
    let server = start(&stopped.folder);
    let data = stopped.folder.display().to_string();
    let output = run(&["doctor", "--data", &data]).unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LAN-0002"));
    server.terminate().unwrap();
    let catalog = stopped.folder.join("catalog.redb");
    let mut bytes = fs::read(&catalog).unwrap();
    let at = bytes.windows(6).position(|w| w == b"active").unwrap();
    bytes[at] ^= 1;
    fs::write(&catalog, bytes).unwrap();
    let (code, report) = stopped.doctor(&["--repair"]);
    assert_eq!((code, &finding(&report, "catalogue")["health"]), (1, &json!("damaged")));
    // The server also reports the missing catalogue, and does not begin with a new one.
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("lantern doctor"), "{said}");
    assert!(said.contains("catalog.redb"), "{said}");
}
