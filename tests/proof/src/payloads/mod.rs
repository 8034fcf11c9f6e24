//! Tests invariant 14 of `docs/proof.md`: if the log accepts a payload, the same value can be read
//! back. A row returns it in every format of the table, and so do the feed, `events tail`, the API,
//! and another server after an import. Any other payload is refused when it arrives.
//!
//! The servers and the command line are real. The guest copies `data` into a row. "The same
//! value" means the same text of numbers, the same UTF-16 code units of text, and the same
//! members in the same order.

mod exact;
mod generate;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lantern_client::{Client, Options};
use lantern_tests::{PATIENCE, Server, guest};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::exact::{Exact, shortened};
use self::generate::{Mode, Payload};
use crate::{Claim, Counts, Run, reference_log};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 14,
    name: "payloads",
    holds: "an accepted payload is the same value everywhere; any other is refused when it arrives",
    counts: Counts { ci: 2_000, longer: 100_000, of: "payloads" },
    experiment: try_out,
};

/// The number of payloads that are sent, folded, read and exported together.
const GROUP: u64 = 500;
/// The table to which the guest copies the payloads.
const TABLE: &str = "docs/docs";
/// Reasons why a row may refuse a payload that the log accepts.
const REASONS: [&str; 2] = ["has the member", "nested more than"];

fn try_out(run: &mut Run<'_>) -> Result<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let mut bench = Bench::new().await?;
        while run.goes_on() {
            let seed = run.seed().wrapping_add(run.counted());
            let count = GROUP.min(run.planned() - run.counted());
            let payloads: Vec<_> = (seed..seed + count).map(Payload::random).collect();
            let mut wrong = Vec::new();
            match bench.group(&payloads, &mut wrong).await {
                Ok(Counted { accepted, refused }) => {
                    run.add("accepted", accepted as f64);
                    run.add("refused", refused as f64);
                }
                Err(error) => wrong.push(error),
            }
            for error in &wrong {
                let (seed, what) = named(error, seed);
                run.fail(seed, what);
            }
            if !wrong.is_empty() && run.goes_on() {
                // After a failed group, new servers are started, so that the failure cannot make
                // the next group fail.
                bench = Bench::new().await?;
            }
            run.count(count);
        }
        if let Some(error) = bench.states().err() {
            run.fail(run.seed(), format!("the states after the imports: {error:#}"));
        }
        Ok(())
    })
}

/// A payload that was not read back correctly.
#[derive(Debug)]
struct Mismatch {
    seed: u64,
    what: String,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mismatch {}

/// Returns the seed of the payload that an error is about; `seed` if it is about no single payload.
fn named(error: &anyhow::Error, seed: u64) -> (u64, String) {
    let seed = error.downcast_ref::<Mismatch>().map_or(seed, |wrong| wrong.seed);
    (seed, format!("{error:#}"))
}

/// Counts of the payloads of a group that the server accepted and refused.
struct Counted {
    accepted: usize,
    refused: usize,
}

/// The two servers of the experiment: events are sent to the first, and imported into the second.
struct Bench {
    first: Server,
    second: Server,
    feed: lantern_client::Table,
    /// The next offsets of the two logs.
    next: [u64; 2],
    groups: u64,
    folder: TempDir,
    // The connection ends when this client is dropped.
    _client: Client,
}

impl Bench {
    async fn new() -> Result<Self> {
        let start = async || {
            let server = Server::start_over(None, &["upkeep.heartbeats=false"])?;
            server.project("docs", &guest("cases"), r#"{"projection":"docs"}"#).await?;
            anyhow::Ok(server)
        };
        let (first, second) = (start().await?, start().await?);
        let url = format!("ws{}/v1/feed", first.url.trim_start_matches("http"));
        let client = Client::connect(&url, Options::default()).await?;
        let (feed, folder) = (client.table(TABLE), TempDir::new()?);
        Ok(Self { first, second, feed, next: [0, 0], groups: 0, folder, _client: client })
    }

    /// Sends a group of payloads, and reads each payload in every possible way. If one way returns
    /// another value, an error is added to `wrong`.
    async fn group(
        &mut self,
        payloads: &[Payload],
        wrong: &mut Vec<anyhow::Error>,
    ) -> Result<Counted> {
        self.groups += 1;
        let refused = self.send(payloads).await?;
        self.first.caught_up("docs").await?;
        let taken = self.accepted(payloads).await?;
        ensure!(
            taken.len() + refused == payloads.len(),
            "{} of {} payloads are in the log, and {refused} were refused",
            taken.len(),
            payloads.len()
        );
        for payload in payloads {
            let there = taken.contains_key(&payload.seed);
            wrong_unless(there || payload.refusable, payload, "it was refused, and is good JSON")?;
        }
        let parked = self.parked().await?;
        let mut kept = taken.clone();
        kept.retain(|seed, _| !parked.contains(seed));
        for (name, media) in readers::FORMATS {
            wrong.extend(self.rows(name, media, &kept).await.err());
        }
        wrong.extend(self.feed(&kept).await.err());
        let tail = self.tail(&taken).map_err(|error| wrong.push(error));
        let export = self.export(&self.first, self.next[0], &taken).await;
        let export = export.map_err(|error| wrong.push(error));
        // The two files are used in turn, because the second log accepts each event only once.
        let file = if self.groups.is_multiple_of(2) { tail } else { export };
        if let Ok(file) = file {
            wrong.extend(self.import(&file, &taken).await.err());
        }
        self.next[0] += taken.len() as u64;
        self.next[1] += taken.len() as u64;
        Ok(Counted { accepted: taken.len(), refused })
    }

    /// Stops the servers, and compares the states that were folded from the two logs. Returns
    /// the number of compared entries.
    fn states(mut self) -> Result<u64> {
        self.first.stop()?;
        self.second.stop()?;
        let records = reference_log::catalogue(self.first.folder())?;
        reference_log::compare(self.first.folder(), &records, self.second.folder(), 1)
    }

    /// Returns the prefix with which the keys of this group's rows begin.
    fn prefix(&self) -> String {
        format!("{:06}/", self.groups)
    }

    /// Formats the event that contains a payload.
    fn event(&self, payload: &Payload) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"{seed}","source":"/payloads","type":"{kind}","subject":"{prefix}{seed}","time":"2026-03-01T12:00:00Z","data":{data}}}"#,
            seed = payload.seed,
            kind = payload.kind(),
            prefix = self.prefix(),
            data = payload.data()
        )
    }

    /// Sends all payloads, each in its own mode. Returns how many the server refused.
    async fn send(&self, payloads: &[Payload]) -> Result<usize> {
        let of = |mode| payloads.iter().filter(move |payload| payload.mode == mode);
        let mut refused = 0;
        let mut lines = String::new();
        for payload in of(Mode::Lines) {
            let _ = writeln!(lines, "{}", self.event(payload));
        }
        let batch: Vec<_> = of(Mode::Batch).map(|payload| self.event(payload)).collect();
        let batch = format!("[{}]", batch.join(","));
        for (media, body) in
            [("application/x-ndjson", lines), ("application/cloudevents-batch+json", batch)]
        {
            if body.len() <= 2 {
                continue;
            }
            let path = "/v1/events?partial=true";
            let (status, answer) = self.post(path, &[("content-type", media)], body).await?;
            ensure!(status == 200, "{media}: {status}: {answer}");
            refused += usize::try_from(answer["rejected"].as_u64().context("no `rejected`")?)?;
        }
        for payload in of(Mode::Structured) {
            let media = [("content-type", "application/cloudevents+json")];
            let answer = self.post("/v1/events", &media, self.event(payload)).await?;
            refused += usize::from(is_refused(payload, &answer)?);
        }
        for payload in of(Mode::Binary) {
            let (seed, subject) =
                (payload.seed.to_string(), format!("{}{}", self.prefix(), payload.seed));
            let headers = [
                ("ce-specversion", "1.0"),
                ("ce-id", &seed),
                ("ce-source", "/payloads"),
                ("ce-type", payload.kind()),
                ("ce-subject", &subject),
                ("ce-time", "2026-03-01T12:00:00Z"),
                ("content-type", "application/json"),
            ];
            let answer = self.post("/v1/events", &headers, payload.data()).await?;
            refused += usize::from(is_refused(payload, &answer)?);
        }
        Ok(refused)
    }

    async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<(u16, Value)> {
        let mut request = reqwest::Client::new().post(format!("{}{path}", self.first.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
    }

    /// Returns the payloads of the group that are in the log, by seed. The `data` of each of these
    /// events must equal its payload.
    async fn accepted<'a>(&self, payloads: &'a [Payload]) -> Result<AcceptedEvents<'a>> {
        let by_seed: BTreeMap<_, _> = payloads.iter().map(|p| (p.seed, p)).collect();
        let mut taken = AcceptedEvents::new();
        let mut from = self.next[0];
        loop {
            let page =
                self.first.text(&format!("/v1/events?partition=0&from={from}&limit=1000")).await?;
            let page = Exact::parse(&page)?;
            let events = page.member("events").context("no `events`")?.elements()?;
            for logged in events {
                let (seed, data) = readers::event(logged)?;
                let payload = *by_seed.get(&seed).context("an event of another group")?;
                same("GET /v1/events", payload, &payload.data(), data)?;
                ensure!(taken.insert(seed, payload).is_none(), "event {seed} is there twice");
            }
            from += events.len() as u64;
            if events.is_empty() || page.member("next") == page.member("end") {
                return Ok(taken);
            }
        }
    }

    /// Returns the seeds of this group's payloads that are parked because no row can contain them.
    /// The reason of each parked event must be one of [`REASONS`].
    async fn parked(&self) -> Result<BTreeSet<u64>> {
        let mut parked = BTreeSet::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/projections/docs/parked?limit=1000{cursor}");
            let page = self.first.get(&path).await?;
            for event in page["parked"].as_array().context("no `parked`")? {
                let (subject, reason) = (event["subject"].as_str(), event["reason"].as_str());
                let reason = reason.context("no `reason`")?;
                ensure!(
                    REASONS.iter().any(|known| reason.contains(known)),
                    "a payload was accepted and is parked: {event}"
                );
                let of_group = subject.and_then(|s| s.strip_prefix(&self.prefix()));
                parked.extend(of_group.map(str::parse::<u64>).transpose()?);
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(parked),
            }
        }
    }

    /// Compares the rows of this group in one format of the table.
    async fn rows(&self, name: &str, media: &str, taken: &AcceptedEvents<'_>) -> Result<()> {
        let rows = self.table(&self.first, media).await?;
        let rows = readers::rows(media, &rows).with_context(|| name.to_owned())?;
        compare(name, &self.prefix(), taken, rows)
    }

    async fn table(&self, server: &Server, media: &str) -> Result<String> {
        let limit = 2 * GROUP;
        let url =
            format!("{}/v1/tables/{TABLE}?prefix={}&limit={limit}", server.url, self.prefix());
        let request = reqwest::Client::new().get(url).header("accept", media);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    /// Waits until the feed's client shows the rows of this group.
    async fn feed(&self, taken: &AcceptedEvents<'_>) -> Result<()> {
        let prefix = self.prefix();
        let shown = || {
            self.feed.with(|rows, _| {
                let of_group =
                    rows.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix));
                of_group.map(|(key, row)| (key.clone(), row.json().to_owned())).collect::<Vec<_>>()
            })
        };
        let started = std::time::Instant::now();
        while shown().len() < taken.len() {
            ensure!(
                started.elapsed() < PATIENCE,
                "the feed shows {} of {} rows, and is {:?}",
                shown().len(),
                taken.len(),
                self.feed.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rows = shown();
        let rows =
            rows.into_iter().map(|(key, json)| Ok((key, readers::doc(&Exact::parse(&json)?)?)));
        compare("feed", &prefix, taken, rows.collect::<Result<_>>()?)
    }

    /// Compares the output of `events tail --json`, and returns it.
    fn tail(&self, taken: &AcceptedEvents<'_>) -> Result<String> {
        let (from, limit) = (self.next[0].to_string(), taken.len().max(1).to_string());
        let words = ["events", "tail", "--from", &from, "--limit", &limit, "--no-follow", "--json"];
        let printed = lantern(&self.first, &words)?;
        all_events("events tail --json", &printed, taken)?;
        Ok(printed)
    }

    /// Exports the log of `server` as NDJSON, beginning at offset `from`, compares it, and returns
    /// it.
    async fn export(
        &self,
        server: &Server,
        from: u64,
        taken: &AcceptedEvents<'_>,
    ) -> Result<String> {
        let url = format!("{}/v1/events?partition=0&from={from}&limit={}", server.url, 2 * GROUP);
        let request = reqwest::Client::new().get(url).header("accept", "application/x-ndjson");
        let export = request.send().await?.error_for_status()?.text().await?;
        all_events("events as NDJSON", &export, taken)?;
        Ok(export)
    }

    /// Imports a file into the second server, and compares its log and rows.
    async fn import(&self, file: &str, taken: &AcceptedEvents<'_>) -> Result<()> {
        let path = self.folder.path().join("export.ndjson");
        std::fs::write(&path, file)?;
        let path = path.to_str().context("a path that is not text")?;
        if !taken.is_empty() {
            lantern(&self.second, &["events", "import", path, "--json"])?;
        }
        self.second.caught_up("docs").await?;
        self.export(&self.second, self.next[1], taken).await.context("after an import")?;
        let media = "application/x-ndjson";
        let rows = [self.table(&self.first, media).await?, self.table(&self.second, media).await?];
        ensure!(rows[0] == rows[1], "rows after an import differ");
        Ok(())
    }
}

/// The payloads that are in the log, by seed.
type AcceptedEvents<'a> = BTreeMap<u64, &'a Payload>;

fn is_refused(payload: &Payload, (status, answer): &(u16, Value)) -> Result<bool> {
    match status {
        200 => Ok(false),
        400 => {
            let coded = answer["code"].as_str().is_some_and(|code| code.starts_with("LAN-"));
            wrong_unless(coded, payload, "it was refused without a code")?;
            Ok(true)
        }
        status => bail!("{status}: {answer}"),
    }
}

fn wrong_unless(right: bool, payload: &Payload, what: &str) -> Result<()> {
    if right {
        return Ok(());
    }
    let what = format!("{what}: {:?} {}", payload.mode, shortened(&payload.data()));
    Err(Mismatch { seed: payload.seed, what }.into())
}

/// Checks that a value that a reader returned equals the payload that was sent.
fn same(reader: &str, payload: &Payload, sent: &str, found: &Exact) -> Result<()> {
    let right = Exact::parse(sent)? == *found;
    let shown = shortened(&format!("{found:?}"));
    wrong_unless(right, payload, &format!("{reader} gives {shown} for"))
}

/// Checks that the rows equal the payloads with the same key.
fn compare(
    reader: &str,
    prefix: &str,
    taken: &AcceptedEvents<'_>,
    rows: Vec<(String, Exact)>,
) -> Result<()> {
    ensure!(rows.len() == taken.len(), "{reader} has {} of {} rows", rows.len(), taken.len());
    for (key, doc) in rows {
        let seed = key.strip_prefix(prefix).and_then(|seed| seed.parse().ok());
        let payload = seed.and_then(|seed: u64| taken.get(&seed));
        let payload = payload.with_context(|| format!("{reader} has a row {key:?}"))?;
        same(reader, payload, &payload.json, &doc)?;
    }
    Ok(())
}

/// Checks that the lines of events contain the payloads.
fn all_events(reader: &str, lines: &str, taken: &AcceptedEvents<'_>) -> Result<()> {
    let mut found = 0;
    for line in lines.lines() {
        let line = Exact::parse(line).with_context(|| reader.to_owned())?;
        let (seed, data) = readers::event(&line)?;
        let payload = taken.get(&seed).with_context(|| format!("{reader} has event {seed}"))?;
        same(reader, payload, &payload.data(), data)?;
        found += 1;
    }
    ensure!(found == taken.len(), "{reader} has {found} of {} events", taken.len());
    Ok(())
}

/// Runs the command line against `server`, and returns its output.
fn lantern(server: &Server, words: &[&str]) -> Result<String> {
    let at = ["--server", server.url.as_str()];
    let output = lantern_tests::run(&[words, at.as_slice()].concat())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`lantern {}`: {errors}", words.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
