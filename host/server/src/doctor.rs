//! Implements `lantern doctor`, which checks every file of a data folder. It reports which files
//! are damaged, and how to repair each of them. No server may use the folder at the same time.
//!
//! A check changes nothing. A repair (`--repair`) moves damaged state files into the folder
//! `damaged`. When the server starts, it folds the versions of these files again from the log. A
//! repair deletes nothing. It never changes the log, because no other file contains the log's
//! events.

use std::path::{Path, PathBuf};
use std::{fs, io};

use lantern_core::{
    Catalog, Offset, PartitionBounds, ProjectionRecord, ShardMeta, StoreError, VersionRecord,
};
use lantern_log::{LogChecked, LogDamage, OpenError};
use lantern_store::{CatalogFile, StateChecked, check_catalog, check_plugin, check_state};
use serde::Serialize;
use thiserror::Error;

use crate::data::DataDir;
use crate::start_error::StartError;

/// The maximum number of damaged places that are reported for each file.
const PLACES_MAX: usize = 20;

/// The condition of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// The whole file was read, and it matches its checksums.
    Sound,
    /// The file is damaged or missing.
    Damaged,
    /// The file could not be checked.
    Unknown,
    /// The file was damaged, and the server will create it again from the log.
    Repaired,
    /// The file exists, but nothing needs it.
    Unused,
}

/// A file, and the result of its check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The path of the file or folder, relative to the data folder.
    pub file: PathBuf,
    /// A description of the file for people.
    pub what: String,
    /// The condition of the file.
    pub health: Health,
    /// The parts of the file or, if it is damaged, the places of the damage: partition, offset,
    /// row.
    pub places: Vec<String>,
    /// What to do about the damage; empty if the file is sound.
    pub way_out: String,
}

/// The result of checking a data folder.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The path of the data folder.
    pub folder: PathBuf,
    /// One finding for each file.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Returns whether any file has this condition.
    #[must_use]
    pub fn has(&self, health: Health) -> bool {
        self.findings.iter().any(|finding| finding.health == health)
    }
}

/// A function that is called with the name of the current step, the number of units done, and the
/// total number of units.
pub type ProgressFn<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// Checks all files in `folder`. With `repair`, moves damaged state files into the folder
/// `damaged`; the server then folds their versions again from the log.
///
/// # Errors
/// Returns [`StartError`] if a server uses the folder, or the folder does not exist.
pub fn examine(
    folder: &Path,
    repair: bool,
    progress: ProgressFn<'_>,
) -> Result<Report, StartError> {
    let data = DataDir::existing(folder)?;
    let root = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mut doctor = Doctor { data, root, findings: Vec::new(), log: Log::default() };
    doctor.log(progress);
    let catalog = doctor.catalog();
    if let Some(records) = &catalog {
        doctor.plugins(records);
        let damaged = doctor.states(records, progress);
        doctor.unused(records);
        if repair {
            doctor.repair(records, &damaged);
        }
    }
    doctor.cache();
    Ok(Report { folder: doctor.root, findings: doctor.findings })
}

/// Why a state was not repaired.
#[derive(Debug, Error)]
enum RepairError {
    #[error("it no longer exists")]
    NoProjection,
    #[error("its version no longer exists")]
    NoVersion,
    #[error(transparent)]
    Catalog(#[from] StoreError),
    #[error("its files cannot be moved aside: {0}")]
    Move(#[from] io::Error),
}

/// What is known about the log. States can be folded again only from an undamaged and complete log.
#[derive(Default)]
struct Log {
    /// The bounds of each partition, if they are known.
    bounds: Vec<Option<PartitionBounds>>,
    /// The reason why no state can be folded from the log again; `None` if this is possible.
    unfit: Option<String>,
}

struct Doctor {
    data: DataDir,
    root: PathBuf,
    findings: Vec<Finding>,
    log: Log,
}

/// A version with a damaged state.
struct DamagedState {
    projection: String,
    version: VersionRecord,
    /// The next offset of each partition, if its file could still be read.
    next: Vec<Option<Offset>>,
    /// The indexes of the findings about this version.
    findings: Vec<usize>,
}

impl Doctor {
    fn find(&mut self, file: &Path, what: &str, health: Health, places: Vec<String>, way: &str) {
        let file = file.strip_prefix(&self.root).unwrap_or(file).to_path_buf();
        let (what, way_out) = (what.to_owned(), way.to_owned());
        self.findings.push(Finding { file, what, health, places, way_out });
    }

    fn log(&mut self, progress: ProgressFn<'_>) {
        const BACKUP: &str = "the log cannot be rebuilt: restore `log.redb` from a backup. \
             Without one, the offsets named are lost; events before and after them can still be \
             read (`lantern events tail --from OFFSET`) and imported into a new data folder";
        let path = self.data.log();
        if !path.exists() {
            let there = self.data.catalog().exists() || self.data.state().exists();
            self.log.unfit = Some("there is no log".into());
            if there {
                let places = vec!["it is missing, with every event in it".into()];
                self.find(&path, "log of events", Health::Damaged, places, BACKUP);
            }
            return;
        }
        let mut report = |done, all| progress("log of events", done, all);
        match lantern_log::check(&path, &mut report) {
            Ok(checked) => {
                self.log.bounds.clone_from(&checked.partitions);
                if checked.damage.is_empty() {
                    self.log.unfit = begins_later(&checked.partitions);
                    let places = vec![format!(
                        "{} events in {} chunks, {}",
                        checked.events,
                        checked.chunks,
                        partitions(&checked.partitions)
                    )];
                    self.find(&path, "log of events", Health::Sound, places, "");
                } else {
                    self.log.unfit = Some("the log itself is damaged".into());
                    let places = damage_locations(&checked);
                    self.find(&path, "log of events", Health::Damaged, places, BACKUP);
                }
            }
            Err(error) => {
                let (health, way) = match &error {
                    OpenError::LaterFormat { .. } | OpenError::EarlierFormat { .. } => {
                        (Health::Unknown, "use that release")
                    }
                    OpenError::Io { .. } | OpenError::InUse(_) => {
                        (Health::Unknown, "make the file readable for this user")
                    }
                    _ => (Health::Damaged, BACKUP),
                };
                self.log.unfit = Some("the log cannot be opened".into());
                self.find(&path, "log of events", health, vec![error.to_string()], way);
            }
        }
    }

    fn catalog(&mut self) -> Option<Vec<ProjectionRecord>> {
        const WAY: &str = "restore `catalog.redb` from a backup. Without one: move the file away, \
             keep a copy of the folder `plugins`, start the server, and push the plugins again \
             with their parameters; the tables are folded again from the log";
        let path = self.data.catalog();
        if !path.exists() {
            if self.data.state().is_dir() && has_entries(&self.data.state()) {
                let places = vec!["it is missing, and there are states of projections".into()];
                self.find(&path, "catalogue of projections", Health::Damaged, places, WAY);
                return None;
            }
            return Some(Vec::new());
        }
        match check_catalog(&path) {
            Ok(records) => {
                let places = vec![format!("{} projections", records.len())];
                self.find(&path, "catalogue of projections", Health::Sound, places, "");
                Some(records)
            }
            Err(error) => {
                let health = health(&error);
                let places = vec![error.to_string()];
                self.find(&path, "catalogue of projections", health, places, WAY);
                None
            }
        }
    }

    fn plugins(&mut self, records: &[ProjectionRecord]) {
        for record in records {
            for version in &record.versions {
                let path = self.data.plugins().join(format!("{}.wasm", version.sha256));
                let what = format!("plugin of `{}` version {}", record.name, version.id);
                match check_plugin(&path, &version.sha256) {
                    Ok(bytes) => {
                        let places = vec![format!("{bytes} bytes")];
                        self.find(&path, &what, Health::Sound, places, "");
                    }
                    Err(error) => {
                        let way = format!(
                            "upload the same plugin again (`lantern plugin push`, SHA-256 {}) under any name: that writes the file again; then `lantern plugin resume {}`",
                            version.sha256, record.name
                        );
                        self.find(&path, &what, health(&error), vec![error.to_string()], &way);
                    }
                }
            }
        }
    }

    fn states(
        &mut self,
        records: &[ProjectionRecord],
        progress: ProgressFn<'_>,
    ) -> Vec<DamagedState> {
        let mut damaged = Vec::new();
        let all = records.iter().map(|r| r.versions.len() as u64).sum::<u64>();
        let mut done = 0;
        for record in records {
            for version in &record.versions {
                progress("states of projections", done, all);
                done += 1;
                damaged.extend(self.state(record, version));
            }
        }
        damaged
    }

    fn state(
        &mut self,
        record: &ProjectionRecord,
        version: &VersionRecord,
    ) -> Option<DamagedState> {
        let folder = self.build(record, version);
        let mut damaged = DamagedState {
            projection: record.key(),
            version: version.clone(),
            next: Vec::new(),
            findings: Vec::new(),
        };
        for partition in 0..self.log.bounds.len().max(files(&folder)) {
            let path = folder.join(format!("{partition}.redb"));
            let what =
                format!("state of `{}` version {}, partition {partition}", record.name, version.id);
            // The state was never created. The server creates it from the log at the next start.
            if !path.exists() && !folder.exists() {
                damaged.next.push(None);
                continue;
            }
            let checked = if path.exists() {
                check_state(&path)
            } else {
                let missing = format!("`{}` is gone", path.display());
                Err(lantern_core::StoreError::Damaged(missing))
            };
            let ahead = checked.as_ref().ok().and_then(|state| self.ahead(partition, state));
            damaged.next.push(checked.as_ref().ok().map(|state| state.next));
            match (checked, ahead) {
                (Ok(_), Some(ahead)) => {
                    let way = "restore the log from a backup that is as new as this state. \
                         Without one, fold the state again from the events that the log has: --repair";
                    damaged.findings.push(self.findings.len());
                    self.find(&path, &what, Health::Damaged, vec![ahead], way);
                }
                (Ok(state), None) => {
                    let places =
                        vec![format!("{} entries, folded up to offset {}", state.rows, state.next)];
                    self.find(&path, &what, Health::Sound, places, "");
                }
                (Err(error), _) => {
                    let health = health(&error);
                    if health == Health::Damaged {
                        damaged.findings.push(self.findings.len());
                    }
                    let way = self.state_way();
                    self.find(&path, &what, health, vec![error.to_string()], &way);
                }
            }
        }
        (!damaged.findings.is_empty()).then_some(damaged)
    }

    /// Returns damage if the state contains events that the log does not have.
    fn ahead(&self, partition: usize, state: &StateChecked) -> Option<String> {
        let bounds = self.log.bounds.get(partition).copied().flatten()?;
        (state.next > bounds.end).then(|| {
            format!(
                "it has folded up to offset {}, and partition {partition} of the log ends at {}: the log has lost events",
                state.next, bounds.end
            )
        })
    }

    fn state_way(&self) -> String {
        match &self.log.unfit {
            None => {
                "fold it again from the log: `lantern doctor --repair`, then start the server. \
                     Repeat the retries and drops of parked events"
                    .into()
            }
            Some(why) => format!("it cannot be folded again because {why}: restore a backup"),
        }
    }

    fn build(&self, record: &ProjectionRecord, version: &VersionRecord) -> PathBuf {
        let folder = match version.rebuilds {
            0 => version.id.0.clone(),
            rebuilds => format!("{}-r{rebuilds}", version.id),
        };
        self.data.state().join(record.key()).join(folder)
    }

    /// Reports the folders that belong to no version.
    fn unused(&mut self, records: &[ProjectionRecord]) {
        let needed: Vec<_> = records
            .iter()
            .flat_map(|record| record.versions.iter().map(|v| self.build(record, v)))
            .collect();
        for projection in folders(&self.data.state()) {
            for build in folders(&projection) {
                if !needed.contains(&build) {
                    let way = "not needed: it can be deleted";
                    self.find(&build, "left-over state", Health::Unused, Vec::new(), way);
                }
            }
        }
        let aside = self.data.damaged();
        if aside.is_dir() {
            let way = "kept to find the cause of the damage: it can be deleted";
            self.find(
                &aside,
                "files moved aside by an earlier repair",
                Health::Unused,
                Vec::new(),
                way,
            );
        }
    }

    fn cache(&mut self) {
        let path = self.data.cache();
        if path.is_dir() {
            let places = vec!["each file is checked when it is loaded".into()];
            let way = "created from the plugins automatically: it can be deleted at any time";
            self.find(&path, "compiled plugins", Health::Unused, places, way);
        }
    }

    /// Prepares the catalogue for a rebuild of each damaged version: at its next start, the server
    /// folds these versions again into new files. As after any rebuild, readers get a reset, and no
    /// event is emitted twice.
    fn repair(&mut self, records: &[ProjectionRecord], damaged: &[DamagedState]) {
        if self.log.unfit.is_some() || damaged.is_empty() {
            return;
        }
        let catalog = match CatalogFile::open(self.data.catalog()) {
            Ok(catalog) => catalog,
            Err(error) => return self.not_repaired(damaged, &error.to_string()),
        };
        for one in damaged {
            let Some(record) = records.iter().find(|r| r.key() == one.projection) else {
                continue;
            };
            let aside = match self.repair_one(&catalog, record, one) {
                Ok(aside) => aside,
                Err(error) => {
                    self.not_repaired(std::slice::from_ref(one), &error.to_string());
                    continue;
                }
            };
            let aside = aside.strip_prefix(&self.root).unwrap_or(&aside).display().to_string();
            for index in &one.findings {
                let finding = &mut self.findings[*index];
                finding.health = Health::Repaired;
                finding.way_out = format!(
                    "moved to `{aside}`; the server folds it again from the log when it starts"
                );
            }
        }
    }

    fn not_repaired(&mut self, damaged: &[DamagedState], why: &str) {
        for index in damaged.iter().flat_map(|one| &one.findings) {
            self.findings[*index].way_out = format!("it was not repaired: {why}");
        }
    }

    fn repair_one(
        &self,
        catalog: &CatalogFile,
        record: &ProjectionRecord,
        damaged: &DamagedState,
    ) -> Result<PathBuf, RepairError> {
        let projections = catalog.projections()?;
        // A projection may have several damaged versions.
        let mut record = projections
            .into_iter()
            .find(|r| r.key() == record.key())
            .ok_or(RepairError::NoProjection)?;
        let old = self.build(&record, &damaged.version);
        let version = record.versions.iter_mut().find(|v| v.id == damaged.version.id);
        let version = version.ok_or(RepairError::NoVersion)?;
        let at = |next| ShardMeta { next, ..ShardMeta::default() };
        let emit_from = (0..self.log.bounds.len()).map(|partition| {
            // The new fold must not append the events that the lost state has emitted, because the
            // log already has them. If the next offset of the lost state is unknown, the repair
            // assumes that the state had folded the whole log.
            let end = self.log.bounds[partition].map_or(Offset(0), |bounds| bounds.end);
            let next = damaged.next.get(partition).copied().flatten().unwrap_or(end).min(end);
            version.emit_from.get(partition).copied().unwrap_or_default().behind(&at(next), true)
        });
        let emit_from = emit_from.collect();
        version.rebuild(emit_from);
        // The catalogue is saved before the old files are moved. If the move fails, the old files
        // stay, but no version uses them.
        catalog.save(&record)?;
        Ok(self.quarantine(&record.key(), &old)?)
    }

    fn quarantine(&self, projection: &str, folder: &Path) -> io::Result<PathBuf> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let home = self.data.damaged().join(projection);
        fs::create_dir_all(&home)?;
        let aside = (0..)
            .map(|n| home.join(if n == 0 { name.clone() } else { format!("{name}.{n}") }))
            .find(|path| !path.exists())
            .unwrap_or(home);
        fs::rename(folder, &aside)?;
        Ok(aside)
    }
}

fn health(error: &StoreError) -> Health {
    match error {
        StoreError::Damaged(_) => Health::Damaged,
        _ => Health::Unknown,
    }
}

/// Returns a reason if the log is not damaged but cannot be folded from the beginning, because its
/// first events are deleted. `None` if it can be folded.
fn begins_later(partitions: &[Option<PartitionBounds>]) -> Option<String> {
    let later =
        |(_, bounds): &(usize, &Option<PartitionBounds>)| bounds.is_some_and(|b| b.start.0 > 0);
    let (partition, bounds) = partitions.iter().enumerate().find(later)?;
    let start = bounds.map_or(0, |bounds| bounds.start.0);
    Some(format!("retention has deleted the events before offset {start} of partition {partition}"))
}

fn partitions(partitions: &[Option<PartitionBounds>]) -> String {
    let one = |(partition, bounds): (usize, &Option<PartitionBounds>)| {
        bounds.map(|bounds| {
            format!("partition {partition}: offsets {} to {}", bounds.start, bounds.end)
        })
    };
    let all: Vec<_> = partitions.iter().enumerate().filter_map(one).take(PLACES_MAX).collect();
    all.join(", ")
}

fn damage_locations(checked: &LogChecked) -> Vec<String> {
    let text = |damage: &LogDamage| {
        let LogDamage { partition, offsets, what } = damage;
        let mut text = what.clone();
        if let Some((first, end)) = offsets {
            let last = end.0.saturating_sub(1).max(first.0);
            text = format!("offsets {first} to {last} are lost: {text}");
        }
        if let Some(partition) = partition {
            text = format!("partition {partition}: {text}");
        }
        text
    };
    let mut places: Vec<_> = checked.damage.iter().take(PLACES_MAX).map(text).collect();
    let more = checked.more + checked.damage.len().saturating_sub(PLACES_MAX) as u64;
    if more > 0 {
        places.push(format!("and {more} more places"));
    }
    places
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Returns the number of partitions that have a file in `folder`, the state folder of a version.
/// The number does not come from the log, because the log may be unreadable.
fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |path: PathBuf| path.file_stem()?.to_str()?.parse::<usize>().ok();
    entries.filter_map(|entry| number(entry.path())).max().map_or(0, |last| last + 1)
}

/// Returns the folders in `folder`, without those that the store uses for itself.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let own =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains('.'));
    let mut all: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !own(path)).collect();
    all.sort();
    all
}
