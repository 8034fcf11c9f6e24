//! Tests the server's page in a real browser, which the test controls over WebDriver
//! (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lantern_tests::{PATIENCE, Server, guest, run, without};
use serde_json::{Value, json};

use crate::line;

/// A browser with one window, and the driver that controls it.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) async fn open(url: &str) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // The driver has a process group of its own, so that the browser can be ended together
            // with it.
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is installed");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        // The line is "ChromeDriver was started successfully on port 12345."
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("successfully on port ").map(|(_, port)| port.to_owned())
            })
            .expect("chromedriver says its port");
        std::thread::spawn(move || lines.for_each(drop));
        let port = port.trim_end_matches('.');
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1400,1000",
        ];
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments: Vec<&str> = arguments.into_iter().chain([data.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome",
            "goog:chromeOptions": {"args": arguments}}}});
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let base = format!("http://127.0.0.1:{port}/session");
        let made: Value =
            http.post(&base).json(&wanted).send().await.unwrap().json().await.unwrap();
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}"));
        let browser = Self { driver, session: format!("{base}/{id}"), http, _profile: profile };
        browser.call("url", &json!({"url": url})).await;
        browser
    }

    async fn call(&self, command: &str, body: &Value) -> Value {
        let url = format!("{}/{command}", self.session);
        let answer: Value =
            self.http.post(url).json(body).send().await.unwrap().json().await.unwrap();
        answer["value"].clone()
    }

    /// Runs a script in the page, and returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.call("execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Clicks the element that the CSS selector finds, as soon as it exists.
    pub(crate) async fn click(&self, selector: &str) {
        let started = Instant::now();
        let click = format!(
            "const found = document.querySelector({}); found?.click(); return Boolean(found)",
            json!(selector)
        );
        while self.run(&click).await != true {
            assert!(started.elapsed() < PATIENCE, "the page has no `{selector}`");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page's text contains `wanted`.
    pub(crate) async fn shows(&self, wanted: &str) -> String {
        let started = Instant::now();
        loop {
            let text = self.run("return document.body.innerText").await;
            let text = text.as_str().unwrap_or_default();
            if text.contains(wanted) {
                return text.to_owned();
            }
            assert!(started.elapsed() < PATIENCE, "the page does not show `{wanted}`: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // If only the driver is killed, its browsers continue to run.
        let kill = format!("kill -s KILL -- -{}", self.driver.id());
        drop(Command::new("sh").args(["-c", &kill]).status());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// Returns whether the page cannot be tested. It cannot if Node.js, which builds the page, or
/// Chromium, which shows it, is missing.
pub(crate) fn no_page() -> bool {
    let missing =
        ["chromedriver", "chromium", "node", "npm"].into_iter().find(|name| without(name));
    if let Some(program) = missing {
        println!("skipped: `{program}` is missing");
    }
    missing.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_rows_as_they_change_and_hostile_text_as_text() {
    if no_page() {
        return;
    }
    let server = Server::start(&[]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let hostile = r#"{"text":"<img src=x onerror=\"document.title='owned'\">"}"#;
    server.events(line(1, "probe.sent", "first-subject", hostile)).await.unwrap();
    let browser = Browser::open(&server.url).await;
    browser.shows("up to date").await;
    browser.click("a[href='/t/rogue/seen']").await;
    let text = browser.shows("first-subject").await;
    assert!(text.contains("rogue"), "{text}");
    assert!(text.contains("<img src=x onerror="), "{text}");
    // The page updates itself without a reload. This variable would not survive a reload.
    browser.run("window.still = 'here'").await;
    server
        .events(line(2, "probe.sent", "second-subject", r#"{"text":"forty-two"}"#))
        .await
        .unwrap();
    browser.shows("second-subject").await;
    browser.shows("forty-two").await;
    let images = "return document.querySelectorAll('main img').length";
    assert_eq!(browser.run(images).await, 0);
    // The page warns of two problems: a projection that is up to date has parked events, and a new
    // version of another projection was not activated.
    let broken = r#"{"by_subject":true}"#;
    server.project("strict", &guest("rogue"), broken).await.unwrap();
    server.events(line(3, "probe.sent", "third", r#"{"do":"fail"}"#)).await.unwrap();
    browser.click("nav a[href='/']").await;
    browser.shows("1 parked").await;
    let (status, answer) = server.push("rogue", &guest("rogue"), broken).await.unwrap();
    assert!(status < 300, "{answer}");
    browser.shows("Not activated: version").await;
    assert_eq!(browser.run("return window.still").await, "here");
    assert_ne!(browser.run("return document.title").await, "owned");
    assert_eq!(browser.run(images).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_shows_on_page_list_status_and_ready_also_after_a_restart() {
    // Each batch has one event, and is folded a second time.
    let settings = ["engine.second_fold_every=1", "engine.batch_events_max=1"];
    let mut server = Server::start(&settings).unwrap();
    // The log is empty, so the check at the upload finds nothing.
    server.project("rogue", &guest("rogue"), r#"{"cheat_from":0}"#).await.unwrap();
    let lines = (0..50).map(|n| line(n, "probe.sent", "s", "{}"));
    server.events(lines.collect::<String>()).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let url = server.url.clone();
    let at = ["--server", url.as_str()];
    let verified = run(&[&["verify", "rogue"][..], &at].concat()).unwrap();
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let findings = ["the plugin is the first suspect", "differs from a second fold of the log"];
    for restarts in 0..2 {
        if restarts > 0 {
            server.kill().unwrap();
            server.restart().unwrap();
        }
        let status = server.get("/v1/projections/rogue").await.unwrap();
        let ready = server.get("/readyz").await.unwrap();
        let list = run(&[&["plugin", "list"][..], &at].concat()).unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        let row = list.lines().find(|text| text.contains("rogue")).unwrap();
        assert!(list.contains("differs") && row.contains(" yes "), "{list}");
        for (index, finding) in findings.iter().enumerate() {
            let differs = status["versions"][0]["differs"][index].as_str().unwrap();
            assert!(differs.contains(finding), "{status}");
            let warning = ready["warnings"][index].as_str().unwrap();
            assert!(warning.contains(finding), "{ready}");
            assert!(list.contains(finding), "{list}");
        }
        if no_page() {
            continue;
        }
        let browser = Browser::open(&url).await;
        let text = browser.shows("Differs from the log: it is not deterministic").await;
        assert!(findings.iter().all(|finding| text.contains(finding)), "{text}");
        let badge = "return document.querySelector('.row .badge.bad').lastChild.textContent";
        assert_eq!(browser.run(badge).await, "differs");
    }
}
