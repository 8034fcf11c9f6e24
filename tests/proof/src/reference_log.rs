//! Keeps a copy of a server's log, read from the file of the stopped server, and folds this copy on
//! another server. The experiments compare the results after crashes and faults with the copy and
//! with this new fold.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lantern_core::dump::{self, Entry};
use lantern_core::{
    Attributes, Catalog as _, Events, HEARTBEAT_TYPE, Log as _, LogRead, Offset, ParkedRecord,
    PartitionId, ProjectionRecord, ReadStore, ShardId, Space, StateStores as _, TypeFilter,
    VersionRecord,
};
use lantern_log::{EmbeddedLog, LogConfig};
use lantern_store::{CatalogFile, StateDir, StoreConfig};
use lantern_tests::{Launch, PATIENCE, Server};
use serde_json::{Value, json};

/// The number of the newest known events that are compared again at each read of the log. Older
/// events are not compared, because a crash can change only recent ones.
const LOOKED_AT_AGAIN: u64 = 2_000;

/// An event of the log, with the attributes that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedEvents {
    /// The source of the event.
    pub source: String,
    /// The id of the event.
    pub id: String,
    /// The type of the event.
    pub kind: String,
    /// The subject of the event.
    pub subject: String,
    /// The data of the event.
    pub data: String,
}

/// All events that a server's log ever contained, including those that it has
/// deleted.
pub struct ReferenceLog {
    log: EmbeddedLog,
    path: PathBuf,
    events: Vec<ObservedEvents>,
    offsets: HashMap<(String, String), u64>,
}

/// The offsets of parked events that operators dropped, by projection. A clean fold drops
/// them, too.
pub type Dropped = BTreeMap<String, Vec<u64>>;

impl ReferenceLog {
    /// Creates an empty copy, whose file is in `folder`.
    ///
    /// # Errors
    /// Fails if the file cannot be created.
    pub fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("mirror.redb");
        let log = EmbeddedLog::open(&path, plain())?;
        Ok(Self { log, path, events: Vec::new(), offsets: HashMap::new() })
    }

    /// Reads the new events of the log in the data folder `data`. No server may run on that folder.
    ///
    /// # Errors
    /// Fails if a known event is missing or different, an event occurs twice, or the offsets have a
    /// gap.
    pub fn take(&mut self, data: &Path) -> Result<()> {
        // The log is copied before it is read. So the server itself has to repair the log after the
        // crash.
        let copy = self.path.with_file_name("copy.redb");
        fs::copy(data.join("log.redb"), &copy)?;
        let log = EmbeddedLog::open(&copy, plain()).context("a copy of the log")?;
        let bounds = log.bounds(PartitionId(0))?;
        let (start, end, known) = (bounds.start.0, bounds.end.0, self.end());
        ensure!(end >= known, "the log ends at {end} and held {known} events before");
        ensure!(
            start <= known,
            "retention deleted events up to {start}, of which {known} are known"
        );
        let mut at = start.max(known.saturating_sub(LOOKED_AT_AGAIN));
        while at < end {
            let wanted = TypeFilter::everything().and(HEARTBEAT_TYPE);
            let chunk = match log.read(PartitionId(0), Offset(at), &wanted)? {
                LogRead::Chunk(chunk) => chunk,
                other => bail!("offset {at} of {end} cannot be read: {other:?}"),
            };
            for index in chunk.index_of(Offset(at))..chunk.events.len() {
                let offset = chunk.offset(index).0;
                ensure!(offset == at, "offset {at} is missing: {offset} comes next");
                self.look(at, &chunk.events, index)?;
                at += 1;
            }
            let fresh = chunk.index_of(Offset(known.max(chunk.offset(0).0)));
            self.append(&chunk.events, fresh)?;
        }
        ensure!(self.log.bounds(PartitionId(0))?.end.0 == self.end(), "the mirror itself is wrong");
        Ok(())
    }

    /// Keeps the event at `offset`, or compares it with the event that was read there before.
    fn look(&mut self, offset: u64, events: &Events, index: usize) -> Result<()> {
        let event = events.get(index);
        let seen = ObservedEvents {
            source: event.source.into(),
            id: event.id.into(),
            kind: event.kind.into(),
            subject: event.subject.into(),
            data: String::from_utf8_lossy(event.data).into_owned(),
        };
        if let Some(known) = self.events.get(usize::try_from(offset)?) {
            ensure!(*known == seen, "offset {offset} held {known:?} and holds {seen:?} now");
            return Ok(());
        }
        let name = (seen.source.clone(), seen.id.clone());
        if let Some(first) = self.offsets.insert(name, offset) {
            bail!("`{}` of `{}` is at {first} and at {offset}", seen.id, seen.source);
        }
        self.events.push(seen);
        Ok(())
    }

    fn append(&self, events: &Events, from: usize) -> Result<()> {
        if from >= events.len() {
            return Ok(());
        }
        let mut fresh = Events::new();
        ensure!(fresh.extend_from(events, from..events.len(), Attributes::all()), "too many types");
        let (done, appended) = std::sync::mpsc::sync_channel(1);
        self.log.append(fresh, Box::new(move |result| drop(done.send(result))));
        appended.recv_timeout(PATIENCE)??;
        Ok(())
    }

    /// Returns the offset after the last event.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.events.len() as u64
    }

    /// Returns all events, by offset.
    #[must_use]
    pub fn events(&self) -> &[ObservedEvents] {
        &self.events
    }

    /// Returns the offset of the event with this source and id.
    #[must_use]
    pub fn offset(&self, source: &str, id: &str) -> Option<u64> {
        self.offsets.get(&(source.to_owned(), id.to_owned())).copied()
    }

    /// Folds the log from its beginning on another server, with every version in the
    /// stopped server's folder `data`. Compares tables, timers and parked events of
    /// all versions. Returns how many entries were compared.
    ///
    /// # Errors
    /// Fails if they differ, with the first difference.
    pub async fn compare_clean_fold(
        &self,
        data: &Path,
        settings: &[String],
        dropped: &Dropped,
    ) -> Result<u64> {
        let home = tempfile::tempdir()?;
        let clean = home.path().join("clean");
        fs::create_dir(&clean)?;
        fs::copy(&self.path, clean.join("log.redb"))?;
        let records = catalogue(data)?;
        let mut server = Server::launch(Launch {
            folder: clean.clone(),
            address: "127.0.0.1:0".into(),
            settings: settings.to_vec(),
            grouped: true,
            ..Launch::default()
        })?;
        push_versions(&server, data, &records).await?;
        settled(&server).await?;
        for (record, version) in versions(&records) {
            if let Some(offsets) = dropped.get(&record.name) {
                let which = json!({ "offsets": offsets });
                parked(&server, &record.name, &version.id.0, "drop", &which).await?;
            }
            parked(&server, &record.name, &version.id.0, "retry", &json!({ "all": true })).await?;
        }
        server.stop()?;
        compare(data, &records, &clean, 1)
    }
}

/// Uploads every version of `records`, from the folder `data` of the stopped server,
/// to another server. No version becomes active.
pub(crate) async fn push_versions(
    server: &Server,
    data: &Path,
    records: &[ProjectionRecord],
) -> Result<()> {
    for (record, version) in versions(records) {
        let wasm = fs::read(data.join("plugins").join(format!("{}.wasm", version.sha256)))?;
        let pushed = server
            .push_bytes(&record.name, &wasm, &version.parameters, "?activate=false&check=false")
            .await?;
        ensure!(pushed.0 < 300, "a clean server refuses `{}`: {pushed:?}", record.name);
        ensure!(pushed.1["version"] == version.id.0.as_str(), "another version: {pushed:?}");
    }
    Ok(())
}

/// Returns the settings of a log that accepts everything that another log contains.
fn plain() -> LogConfig {
    LogConfig { dedup_window_events: 0, disk_reserve_bytes: 0, ..LogConfig::default() }
}

/// Retries or drops the parked events of a version.
///
/// # Errors
/// Fails if the server refuses.
pub async fn parked(
    server: &Server,
    projection: &str,
    version: &str,
    what: &str,
    which: &Value,
) -> Result<Value> {
    let path = format!("/v1/projections/{projection}/parked/{what}?version={version}");
    let body = serde_json::to_vec(which)?;
    let answer = server.request(reqwest::Method::POST, &path, "application/json", body).await?;
    ensure!(answer.0 == 200, "{path}: {answer:?}");
    Ok(answer.1)
}

/// Waits until every version of every projection has folded all of the log.
///
/// # Errors
/// Fails if one does not reach the end, with its status.
pub async fn settled(server: &Server) -> Result<Value> {
    let started = std::time::Instant::now();
    loop {
        let status = server.get("/v1/projections").await?;
        let end = &server.get("/v1/status").await?["partitions"][0]["end"];
        let all = status["projections"].as_array().context("`projections` is no list")?;
        let behind = all.iter().flat_map(shards).find(|(_, shard)| {
            shard["activity"] != "idle" || shard["lag_events"] != 0 || shard["next"] != *end
        });
        let Some((version, shard)) = behind else {
            return Ok(status);
        };
        if shard["activity"] == "halted" {
            bail!("{version} is halted: {shard:#}");
        }
        if started.elapsed() > PATIENCE {
            bail!("{version} did not fold all of the log, which ends at {end}: {shard:#}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn shards(projection: &Value) -> Vec<(String, &Value)> {
    let versions = projection["versions"].as_array().into_iter().flatten();
    versions
        .flat_map(|version| {
            let name = format!("`{}` version {}", projection["name"], version["id"]);
            version["shards"].as_array().into_iter().flatten().map(move |s| (name.clone(), s))
        })
        .collect()
}

/// Reads the records of all projections from the folder of a stopped server.
pub(crate) fn catalogue(data: &Path) -> Result<Vec<ProjectionRecord>> {
    Ok(CatalogFile::open(data.join("catalog.redb"))?.projections()?)
}

/// Returns all versions of all projections.
pub(crate) fn versions(
    records: &[ProjectionRecord],
) -> impl Iterator<Item = (&ProjectionRecord, &VersionRecord)> {
    records.iter().flat_map(|record| record.versions.iter().map(move |version| (record, version)))
}

/// Compares all versions of `records` on each of `partitions` partitions between two
/// folders of stopped servers. Returns how many entries were compared.
pub(crate) fn compare(
    live: &Path,
    records: &[ProjectionRecord],
    clean: &Path,
    partitions: u32,
) -> Result<u64> {
    let left = StateDir::open(live.join("state"), StoreConfig::default())?;
    let right = StateDir::open(clean.join("state"), StoreConfig::default())?;
    let clean_records = catalogue(clean)?;
    let mut compared = 0;
    let shards = versions(records).flat_map(|of| (0..partitions).map(move |p| (of, p)));
    for ((record, version), partition) in shards {
        let theirs = versions(&clean_records)
            .find(|(other, v)| other.name == record.name && v.id == version.id)
            .context("it was just uploaded")?;
        let id = |rebuild| ShardId {
            projection: record.name.clone(),
            version: version.id.clone(),
            rebuild,
            partition: PartitionId(partition),
        };
        let name = format!("`{}` on partition {partition}", record.name);
        let live = left.open(&id(version.rebuilds))?.snapshot()?;
        let clean = right.open(&id(theirs.1.rebuilds))?.snapshot()?;
        let (live, clean) = (entries(&*live)?, entries(&*clean)?);
        let differs = live.iter().zip(&clean).find(|(l, c)| l != c);
        if let Some((l, c)) = differs {
            bail!("{name} differs from a clean fold: {} against {}", describe(l), describe(c));
        }
        let (l, c) = (live.len(), clean.len());
        ensure!(l == c, "{name} has {l} entries, and a clean fold {c}");
        compared += l as u64;
    }
    Ok(compared)
}

/// Returns the canonical dump of a state without two values. The number of tries of a parked event
/// is left out because it depends on operators and not on the log. The next offset is left out
/// because it is not committed for events to which no projection subscribes.
fn entries(store: &dyn ReadStore) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for entry in dump::entries(store) {
        let mut entry = entry?;
        if entry.space == Space::Meta && entry.key == b"next" {
            continue;
        }
        if entry.space == Space::Parked {
            let record = ParkedRecord::decode(&entry.value);
            let mut record = record.context("a parked event is damaged")?;
            record.attempts = 0;
            entry.value = record.encode();
        }
        all.push(entry);
    }
    Ok(all)
}

fn describe(entry: &Entry) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{:?} `{}` = `{}`", entry.space, text(&entry.key), text(&entry.value))
}
