//! Watches the source code of a plugin for changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::super::project::Project;
use crate::error::{Exit, Failure, Outcome};

/// The time after which an unchanged file counts as saved. Editors write a file in several steps,
/// and there is a report of a change for each step.
const QUIET: Duration = Duration::from_millis(50);
/// The maximum number of reports of changed files that wait to be read. Further reports are
/// dropped, because a single report is enough to start a build.
const REPORTS_MAX: usize = 1024;

/// Reports when files of a project, or its sample events, were saved.
pub(super) struct Changes {
    watcher: RecommendedWatcher,
    reports: mpsc::Receiver<PathBuf>,
    watched: Vec<PathBuf>,
    /// What was saved and has not been returned yet.
    pending: Saved,
}

/// Which files were saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// Whether the plugin's source code was saved.
    pub(super) source: bool,
    /// Whether the sample events were saved.
    pub(super) events: bool,
}

impl Changes {
    /// Watches `project` and the file `events`.
    ///
    /// # Errors
    /// Fails if the system cannot watch one of the folders.
    pub(super) fn watch(project: &Project, events: Option<&Path>) -> Outcome<Self> {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // The system also reports reads. They change nothing and are ignored.
            let Ok(event) = event else { return };
            if !event.kind.is_access() {
                event.paths.into_iter().for_each(|path| drop(sender.try_send(path)));
            }
        })
        .map_err(|error| failed(project.folder(), &error))?;
        let mut changes = Self { watcher, reports, watched: Vec::new(), pending: Saved::default() };
        changes.add(project.folder(), RecursiveMode::NonRecursive)?;
        if let Some(folder) = events.and_then(Path::parent) {
            changes.add(folder, RecursiveMode::NonRecursive)?;
        }
        changes.add_folders(project)?;
        Ok(changes)
    }

    fn add(&mut self, folder: &Path, mode: RecursiveMode) -> Outcome {
        if self.watched.iter().any(|watched| watched == folder) {
            return Ok(());
        }
        self.watcher.watch(folder, mode).map_err(|error| failed(folder, &error))?;
        self.watched.push(folder.to_owned());
        Ok(())
    }

    /// Watches folders of the project that were created since the last call.
    fn add_folders(&mut self, project: &Project) -> Outcome {
        for folder in project.source_folders() {
            self.add(&folder, RecursiveMode::Recursive)?;
        }
        Ok(())
    }

    /// Waits until the source or the events were saved. The returned future may be dropped: the
    /// next call continues its wait, so no change is missed.
    pub(super) async fn saved(&mut self, project: &Project, events: Option<&Path>) -> Saved {
        while let Some(path) = self.next().await {
            if events.is_some_and(|events| events == path) {
                self.pending.events = true;
            } else {
                self.pending.source |= project.concerns(&path);
            }
        }
        // An error is ignored here. If a folder cannot be watched, the next start of the command
        // reports it.
        let _ = self.add_folders(project);
        std::mem::take(&mut self.pending)
    }

    /// Waits for the next report of a changed file. Returns `None` once something was saved and no
    /// file has changed for the quiet time.
    async fn next(&mut self) -> Option<PathBuf> {
        if self.pending == Saved::default() {
            return self.reports.recv().await;
        }
        tokio::time::timeout(QUIET, self.reports.recv()).await.ok().flatten()
    }
}

fn failed(folder: &Path, error: &notify::Error) -> Failure {
    let message = format!("cannot watch `{}`: {error}", folder.display());
    Failure::new(Exit::Failure, message).help(
        "on Linux, `sysctl fs.inotify.max_user_watches` shows how many watches a user may have",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_saved_file_is_reported_although_the_wait_is_dropped_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        let (script, events) = (folder.join("totals.py"), folder.join("events.ndjson"));
        std::fs::write(&script, "").unwrap();
        let project = Project::find(&script).unwrap();
        let mut changes = Changes::watch(&project, Some(&events)).unwrap();
        std::fs::write(&script, "changed").unwrap();
        std::fs::write(&events, "{}").unwrap();
        let saved = loop {
            // This time is shorter than the quiet time. So every wait is dropped, except the last
            // one.
            let wait = changes.saved(&project, Some(&events));
            if let Ok(saved) = tokio::time::timeout(QUIET / 5, wait).await {
                break saved;
            }
            if changes.pending == (Saved { source: true, events: true }) {
                break changes.saved(&project, Some(&events)).await;
            }
        };
        assert_eq!(saved, Saved { source: true, events: true });
    }
}
