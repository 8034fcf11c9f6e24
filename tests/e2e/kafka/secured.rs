//! Tests brokers that require TLS or authentication.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lantern_tests::kafka::{self, MECHANISMS, PASSWORD, Record, USER};
use lantern_tests::{Launch, PATIENCE, Server, guest};

use super::no_kafka;
use crate::line;

/// Returns the events with the numbers `from` to `to`.
fn probes(from: u64, to: u64) -> String {
    (from..to).map(|n| line(n, "probe.sent", "s", "{}")).collect()
}

/// Describes how to start a server on `folder` over the broker at `address`, with settings of the
/// Kafka client. Only the environment contains the password.
fn launch(folder: &Path, address: &str, settings: &[String], password: &str) -> Launch {
    let variable = format!("LANTERN_LOG__KAFKA__PROPERTIES__SASL__PASSWORD={password}");
    Launch {
        folder: folder.join("data"),
        address: "127.0.0.1:0".into(),
        log: Some(format!("kafka://{address}/events")),
        settings: settings.to_vec(),
        under: vec!["env".into(), variable],
        stderr: Some(folder.join("said")),
        ..Launch::default()
    }
}

fn property(name: &str, value: &str) -> String {
    format!("log.kafka.properties.{name}={value}")
}

/// Creates a token without a signature, which is valid for `seconds` from now on.
fn token(seconds: u64) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = format!(r#"{{"sub":"{USER}","iat":{now},"exp":{}}}"#, now + seconds);
    let encode = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_want_tls_and_sasl_are_read_and_written_by_every_mechanism() {
    if no_kafka() {
        return;
    }
    let broker = kafka::start_secured().unwrap();
    kafka::create_topic(&broker, "events", 1, &[]).unwrap();
    kafka::create_topic(&broker, "letters", 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, token(3_600)).unwrap();
    let authority = property("ssl.ca.location", &broker.certificate().to_string_lossy());
    let tls = vec![property("security.protocol", "SSL"), authority.clone()];
    let mut ways = vec![("TLS".to_owned(), broker.tls_address().unwrap(), tls)];
    for mechanism in MECHANISMS {
        let mut settings = vec![
            property("security.protocol", "SASL_SSL"),
            property("sasl.mechanism", mechanism),
            authority.clone(),
        ];
        settings.push(match mechanism {
            "OAUTHBEARER" => format!("log.kafka.oauth_token_file={}", token_file.display()),
            _ => property("sasl.username", USER),
        });
        ways.push((mechanism.to_owned(), broker.sasl_address().unwrap(), settings));
    }
    let mut sent = 0;
    for (round, (way, address, mut settings)) in (1_u64..).zip(ways) {
        settings.push("log.kafka.dead_letter_topic=letters".into());
        let folder = folder.path().join(&way);
        std::fs::create_dir_all(&folder).unwrap();
        let server = Server::launch(launch(&folder, &address, &settings, PASSWORD))
            .unwrap_or_else(|error| panic!("{way}: {error:#}"));
        // The test uses everything that needs the broker: events over HTTP, emitted events and dead
        // letters.
        server.project("rogue", &guest("rogue"), "").await.unwrap();
        let emitting = line(format!("emit-{round}"), "probe.sent", "s", r#"{"do":"emit"}"#);
        let failing = line(format!("fail-{round}"), "probe.sent", "s", r#"{"do":"fail"}"#);
        let lines = probes(sent, sent + 20) + &emitting + &failing;
        server.events(lines).await.unwrap_or_else(|error| panic!("{way}: {error:#}"));
        sent += 20;
        server.caught_up("rogue").await.unwrap();
        let rows = server.rows("rogue/seen").await.unwrap();
        assert_eq!(rows[0].1["events"], sent + round, "{way}");
        let started = Instant::now();
        loop {
            let emitted = kafka::records(&broker, "events", true).unwrap();
            let emitted = emitted.iter().filter(|r| r.header("ce_type") == Some("echo.sent"));
            let emitted = emitted.count() as u64;
            let letters = kafka::records(&broker, "letters", true).unwrap();
            let parked = |r: &&Record| r.header("ce_id") == Some(&format!("fail-{round}"));
            if emitted == round && letters.iter().filter(parked).count() == 1 {
                break;
            }
            let letters = letters.len();
            assert!(started.elapsed() < PATIENCE, "{way}: {emitted} emitted, {letters} letters");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = std::fs::read_to_string(folder.join("said")).unwrap();
        assert!(!said.contains(PASSWORD), "{way}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_certificate_of_an_unknown_authority_are_reported() {
    if no_kafka() {
        return;
    }
    let broker = kafka::start_secured().unwrap();
    kafka::create_topic(&broker, "events", 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = property("ssl.ca.location", &broker.certificate().to_string_lossy());
    let sasl = [
        property("security.protocol", "SASL_SSL"),
        property("sasl.mechanism", "SCRAM-SHA-512"),
        property("sasl.username", USER),
    ];
    let trusted = [sasl.as_slice(), &[authority]].concat();
    let address = broker.sasl_address().unwrap();
    for (settings, password, words) in [
        (trusted.as_slice(), "of-another-user", ["uthentication", "SASL"]),
        (sasl.as_slice(), PASSWORD, ["ertificate", "verif"]),
    ] {
        let Err(refused) = Server::launch(launch(folder.path(), &address, settings, password))
        else {
            panic!("it starts without {words:?}");
        };
        let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
        let said = format!("{refused:#} {said}");
        assert!(words.iter().all(|word| said.contains(word)), "not {words:?}: {said}");
        assert!(!said.contains(password) && !said.contains(PASSWORD), "{said}");
    }
}
