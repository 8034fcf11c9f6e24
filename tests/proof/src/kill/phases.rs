//! Defines the work that a server does while it is killed. Each phase repeats its work, so that the
//! kill can happen at any moment of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use lantern_tests::{Server, guest};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::ledger::{self, Ledger, SendMethod};

/// The name of the projection whose versions change.
pub(crate) const FLIP: &str = "flip";
/// The names of the projections that park events: the first parks single events, the second all
/// later events of a subject.
pub(crate) const PARKING: [&str; 2] = ["rogue", "ordered"];
/// The name of the projection that uses timers.
pub(crate) const ALERTS: &str = "alerts";
/// The name of the projection that is uploaded and deleted again. It emits no events,
/// because an emitted event that is pending when its projection is deleted may or may not
/// reach the log.
const GONE: &str = "gone";
/// The parameters of [`GONE`].
const QUIET: &str =
    r#"{"type":"probe.sent","window_s":2,"lookback":2,"drop_pct":null,"z":1000000}"#;
/// The maximum number of versions of [`FLIP`] that are kept.
const VERSIONS_KEPT: usize = 4;

/// A phase: the kind of work that the server does when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Several clients send events in batches and as lines.
    Ingest,
    /// Clients send single events, each of which is one commit.
    Commit,
    /// The server folds many acknowledged events.
    Fold,
    /// Event time advances: windows close, and heartbeats are appended.
    Timers,
    /// A plugin that must be compiled is uploaded.
    Upload,
    /// New versions fold the log from its beginning, and become active.
    Backfill,
    /// Versions are activated in turn.
    Flip,
    /// Versions are rolled back.
    Rollback,
    /// Versions are rebuilt in place.
    Rebuild,
    /// Parked events are retried.
    Retry,
    /// Parked events are dropped.
    Drop,
    /// A projection is uploaded and deleted.
    Delete,
    /// Projections are paused and resumed.
    Pause,
    /// The log deletes old events.
    Retention,
}

impl Phase {
    /// The phases that may run while the log is complete.
    pub(crate) const WHOLE: [Self; 13] = [
        Self::Ingest,
        Self::Commit,
        Self::Fold,
        Self::Timers,
        Self::Upload,
        Self::Backfill,
        Self::Flip,
        Self::Rollback,
        Self::Rebuild,
        Self::Retry,
        Self::Drop,
        Self::Delete,
        Self::Pause,
    ];
    /// The phases that may run after retention has deleted events, because none of them
    /// folds the log from its beginning.
    pub(crate) const TRIMMED: [Self; 8] = [
        Self::Retention,
        Self::Ingest,
        Self::Fold,
        Self::Timers,
        Self::Flip,
        Self::Retry,
        Self::Drop,
        Self::Pause,
    ];
}

/// Records the changes that the server has answered, and the changes whose request is pending.
/// After a crash, the server must have made all answered changes. Of the others, it may have made
/// only pending ones.
#[derive(Default)]
pub(crate) struct Known {
    /// The offsets of the events that were dropped, by projection.
    pub(crate) dropped: BTreeMap<String, Vec<u64>>,
    /// The projection and offset of an event whose drop was requested.
    pub(crate) dropping: Option<(String, u64)>,
    /// The versions of [`FLIP`] that may be active: the one whose activation was answered
    /// last, and the one whose activation is requested. Empty if other versions may be active.
    pub(crate) active: Vec<String>,
    /// The projections and versions whose upload the server has answered.
    pub(crate) uploaded: BTreeSet<(String, String)>,
    /// The number of the next upload.
    pub(crate) variant: u64,
}

/// Sends a request. Returns `None` if the server did not answer.
async fn ask(server: &Server, method: Method, path: &str, body: &Value) -> Result<Option<Value>> {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let answer = server.request(method, path, "application/json", bytes).await;
    judge(path, answer)
}

/// Checks an answer. A refusal with a reason is allowed, an internal error of the server is not.
fn judge(path: &str, answer: Result<(u16, Value)>) -> Result<Option<Value>> {
    let Ok((status, body)) = answer else {
        return Ok(None);
    };
    ensure!(status < 500, "{path}: {status}: {body}");
    if status == 204 {
        return Ok(Some(Value::Null));
    }
    // An incomplete answer does not count as one.
    Ok((!body.is_null()).then_some(body))
}

async fn post(server: &Server, path: &str, body: &Value) -> Result<Option<Value>> {
    ask(server, Method::POST, path, body).await
}

/// Uploads a plugin. Returns the version if the server answered the upload.
pub(crate) async fn push(
    server: &Server,
    known: &Mutex<Known>,
    name: &str,
    wasm: &[u8],
    parameters: &str,
) -> Result<Option<String>> {
    let answer = server.push_bytes(name, wasm, parameters, "").await;
    let Some(answer) = judge(name, answer)? else {
        return Ok(None);
    };
    let version = answer["version"].as_str().with_context(|| format!("{name}: {answer}"))?;
    known.lock().uploaded.insert((name.to_owned(), version.to_owned()));
    Ok(Some(version.to_owned()))
}

/// Repeats the work of `phase` until the server does not answer. When the phase has begun work that
/// a kill can interrupt, `begun` is notified.
pub(crate) async fn drive(
    phase: Phase,
    server: &Server,
    ledger: &Mutex<Ledger>,
    known: &Mutex<Known>,
    random: &mut Rng,
    begun: &Notify,
) -> Result<()> {
    if phase != Phase::Fold {
        begun.notify_one();
    }
    match phase {
        Phase::Ingest | Phase::Retention => {
            let (lines, batch) = (SendMethod::Lines(200), SendMethod::Batch(40));
            tokio::try_join!(
                ledger::keep_sending(server, ledger, lines),
                ledger::keep_sending(server, ledger, batch),
                ledger::keep_sending(server, ledger, lines),
            )?;
            Ok(())
        }
        Phase::Commit => ledger::keep_sending(server, ledger, SendMethod::Single).await,
        Phase::Fold => {
            while ledger::send(server, ledger, SendMethod::Lines(1_500)).await? {
                begun.notify_one();
            }
            Ok(())
        }
        Phase::Timers => loop {
            ledger.lock().jump();
            if !ledger::send(server, ledger, SendMethod::Batch(3)).await? {
                return Ok(());
            }
        },
        Phase::Upload => upload(server, known, random).await,
        Phase::Backfill => backfill(server, known).await,
        Phase::Flip => flip(server, known).await,
        Phase::Rollback => rollback(server, known).await,
        Phase::Rebuild => rebuild(server).await,
        Phase::Retry => retry(server).await,
        Phase::Drop => drop_some(server, known, random).await,
        Phase::Delete => delete(server, known).await,
        Phase::Pause => pause(server).await,
    }
}

/// Uploads a plugin that no server has compiled yet: it has one more custom section.
async fn upload(server: &Server, known: &Mutex<Known>, random: &mut Rng) -> Result<()> {
    let plain = std::fs::read(guest("rate-alerts"))?;
    loop {
        let mut wasm = plain.clone();
        wasm.extend_from_slice(&[0, 10, 1, b'n']);
        wasm.extend_from_slice(&random.u64(..).to_le_bytes());
        if push(server, known, GONE, &wasm, QUIET).await?.is_none() {
            return Ok(());
        }
    }
}

async fn backfill(server: &Server, known: &Mutex<Known>) -> Result<()> {
    let wasm = std::fs::read(guest("rogue"))?;
    loop {
        let variant = {
            let mut known = known.lock();
            known.variant += 1;
            known.variant
        };
        // The version's id depends on this text.
        let parameters = format!("{{\"fixed\":true}}{}", " ".repeat(usize::try_from(variant)?));
        if push(server, known, FLIP, &wasm, &parameters).await?.is_none() {
            return Ok(());
        }
        let path = format!("/v1/projections/{FLIP}");
        let Some(status) = ask(server, Method::GET, &path, &Value::Null).await? else {
            return Ok(());
        };
        let versions = status["versions"].as_array().context("versions")?;
        let mut left = versions.len();
        for version in versions {
            let id = &version["id"];
            if left <= VERSIONS_KEPT || *id == status["active"] || *id == status["previous"] {
                continue;
            }
            left -= 1;
            let id = id.as_str().unwrap_or_default();
            known.lock().uploaded.remove(&(FLIP.to_owned(), id.to_owned()));
            let path = format!("{path}/versions/{id}");
            if ask(server, Method::DELETE, &path, &Value::Null).await?.is_none() {
                return Ok(());
            }
        }
    }
}

async fn flip(server: &Server, known: &Mutex<Known>) -> Result<()> {
    let path = format!("/v1/projections/{FLIP}");
    let status = server.get(&path).await?;
    let versions: Vec<_> = status["versions"].as_array().context("versions")?.clone();
    let mut active = status["active"].as_str().context("none is active")?.to_owned();
    loop {
        for version in &versions {
            let id = version["id"].as_str().unwrap_or_default();
            known.lock().active = vec![active.clone(), id.to_owned()];
            let path = format!("{path}/versions/{id}/activate");
            let Some(answer) = post(server, &path, &Value::Null).await? else {
                return Ok(());
            };
            // If the activation was refused, the active version stays.
            if let Some(now) = answer["active"].as_str() {
                ensure!(now == id, "`{id}` was activated, and `{now}` is active");
                now.clone_into(&mut active);
            }
            known.lock().active = vec![active.clone()];
        }
    }
}

async fn rollback(server: &Server, known: &Mutex<Known>) -> Result<()> {
    let path = format!("/v1/projections/{FLIP}");
    let mut status = server.get(&path).await?;
    loop {
        let both = [&status["active"], &status["previous"]];
        known.lock().active = both.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect();
        let Some(answer) = post(server, &format!("{path}/rollback"), &Value::Null).await? else {
            return Ok(());
        };
        // The server refuses a rollback to a version that has not caught up.
        if answer["status"] != 409 {
            let right = answer["active"] == status["previous"];
            ensure!(right, "a rollback is answered with {answer}, after {status}");
            status = answer;
        }
    }
}

async fn rebuild(server: &Server) -> Result<()> {
    loop {
        for name in [FLIP, ALERTS] {
            let path = format!("/v1/projections/{name}");
            let Some(status) = ask(server, Method::GET, &path, &Value::Null).await? else {
                return Ok(());
            };
            let active = status["active"].as_str().unwrap_or_default();
            let path = format!("{path}/versions/{active}/rebuild");
            if post(server, &path, &Value::Null).await?.is_none() {
                return Ok(());
            }
        }
    }
}

async fn retry(server: &Server) -> Result<()> {
    // From now on, the events that need this event can be applied.
    let needed = ledger::line("needed", "needed", 0, "");
    let media = "application/cloudevents+json";
    if judge("needed", server.request(Method::POST, "/v1/events", media, needed.into()).await)?
        .is_none()
    {
        return Ok(());
    }
    loop {
        for name in PARKING {
            let path = format!("/v1/projections/{name}/parked/retry");
            if post(server, &path, &json!({"all": true})).await?.is_none() {
                return Ok(());
            }
        }
    }
}

async fn drop_some(server: &Server, known: &Mutex<Known>, random: &mut Rng) -> Result<()> {
    loop {
        for name in PARKING {
            let path = format!("/v1/projections/{name}/parked");
            let Some(page) = ask(server, Method::GET, &path, &Value::Null).await? else {
                return Ok(());
            };
            let parked = page["parked"].as_array().context("`parked` is no list")?;
            let Some(one) = random.choice(parked) else {
                continue;
            };
            let offset = one["offset"].as_u64().context("an offset")?;
            if !drop_one(server, known, name, offset).await? {
                return Ok(());
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Drops a parked event. Returns `false` if the server did not answer.
async fn drop_one(server: &Server, known: &Mutex<Known>, name: &str, offset: u64) -> Result<bool> {
    known.lock().dropping = Some((name.to_owned(), offset));
    let path = format!("/v1/projections/{name}/parked/drop");
    if post(server, &path, &json!({"offsets": [offset]})).await?.is_none() {
        return Ok(false);
    }
    let mut known = known.lock();
    known.dropping = None;
    known.dropped.entry(name.to_owned()).or_default().push(offset);
    Ok(true)
}

async fn delete(server: &Server, known: &Mutex<Known>) -> Result<()> {
    let wasm = std::fs::read(guest("rate-alerts"))?;
    loop {
        let Some(version) = push(server, known, GONE, &wasm, QUIET).await? else {
            return Ok(());
        };
        known.lock().uploaded.retain(|(name, _)| name != GONE);
        let path = format!("/v1/projections/{GONE}");
        if ask(server, Method::DELETE, &path, &json!(null)).await?.is_none() {
            return Ok(());
        }
        ensure!(!version.is_empty(), "a version without a name");
    }
}

async fn pause(server: &Server) -> Result<()> {
    loop {
        for what in ["pause", "resume"] {
            for name in [FLIP, ALERTS, PARKING[0]] {
                let path = format!("/v1/projections/{name}/{what}");
                if post(server, &path, &Value::Null).await?.is_none() {
                    return Ok(());
                }
            }
        }
    }
}
