//! Implements a client's copy of a table. It applies frames as every client must, and compares
//! every state that it shows with the state that the table had at the same commit.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::FeedCounts;
use super::world::{Numbers, World};

/// A client's copy of one table.
#[derive(Clone)]
pub(super) struct Copy {
    pub(super) table: usize,
    /// Whether the client receives every change of a row separately.
    pub(super) changes: bool,
    /// The epoch and commit of the rows that the copy shows; `None` before the first rows.
    pub(super) shown: Option<(String, u64)>,
    pub(super) token: Option<String>,
    rows: Numbers,
    snap: Option<Numbers>,
    delta: Option<Delta>,
}

#[derive(Clone)]
struct Delta {
    from: u64,
    pos: u64,
    up: Numbers,
    del: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    k: String,
    n: i64,
}

impl Copy {
    pub(super) fn new(table: usize, changes: bool) -> Self {
        let (rows, snap) = (Numbers::new(), None);
        Self { table, changes, shown: None, token: None, rows, snap, delta: None }
    }

    /// Discards a frame of which only some parts have arrived.
    pub(super) fn interrupt(&mut self) {
        (self.snap, self.delta) = (None, None);
    }

    /// Checks the server's answer to a client that resumes with its token. The answer names the
    /// commit from which the feed continues. The table must have had the shown rows at this commit,
    /// and the commit must not be older than the shown one.
    pub(super) fn resumed(&mut self, world: &World, ok: &Value) -> Result<()> {
        let (Some(commit), Some((epoch, shown))) = (ok["commit"].as_u64(), self.shown.clone())
        else {
            ensure!(ok["resumed"] != true, "a resume without its commit: {ok}");
            return Ok(());
        };
        ensure!(commit >= shown, "went back from {shown} to {commit}");
        let had = world.numbers_at(&epoch, commit, self.table);
        ensure!(had.as_deref() == Some(&self.rows), "resumed from other rows: {ok}");
        self.shown = Some((epoch, commit));
        Ok(())
    }

    /// Applies a frame of the subscription to which this copy belongs.
    pub(super) fn apply(
        &mut self,
        world: &World,
        frame: &Value,
        seen: &mut FeedCounts,
    ) -> Result<()> {
        let more = frame["more"] == true;
        seen.parts += u64::from(more);
        match frame["t"].as_str() {
            Some("reset") => {
                seen.resets += 1;
                self.interrupt();
                Ok(())
            }
            Some("snap") => {
                let rows = self.snap.get_or_insert_default();
                for (key, n) in numbers(&frame["rows"])? {
                    ensure!(rows.insert(key, n).is_none(), "a key is in a snapshot twice");
                }
                if more {
                    return Ok(());
                }
                seen.snapshots += 1;
                self.rows = self.snap.take().unwrap_or_default();
                let epoch = frame["epoch"].as_str().context("a snapshot without an epoch")?;
                let pos = number(frame, "commit")?;
                if let Some((shown, at)) = &self.shown {
                    ensure!(shown != epoch || *at <= pos, "went back from {at} to {pos}");
                }
                self.show(world, epoch.to_owned(), pos, frame)
            }
            Some("delta") => {
                let (from, pos) = self.follows(frame)?;
                self.delta(from, pos, frame)?;
                if more {
                    return Ok(());
                }
                seen.deltas += 1;
                seen.merged += u64::from(frame["merged"] == true);
                self.finish(world, frame)
            }
            Some("tick") => {
                seen.ticks += 1;
                let (from, pos) = self.follows(frame)?;
                ensure!(self.delta.is_none() && from <= pos, "a tick within a delta: {frame}");
                let (epoch, _) = self.shown.clone().context("a tick before a snapshot")?;
                self.show(world, epoch, pos, frame)
            }
            _ => bail!("unexpected: {frame}"),
        }
    }

    /// Keeps one part of a delta until all its parts have arrived.
    fn delta(&mut self, from: u64, pos: u64, frame: &Value) -> Result<()> {
        let fresh = || Delta { from, pos, up: Numbers::new(), del: Vec::new() };
        let delta = self.delta.get_or_insert_with(fresh);
        ensure!((delta.from, delta.pos) == (from, pos), "parts of two deltas mix: {frame}");
        for (key, n) in numbers(&frame["up"])? {
            ensure!(delta.up.insert(key, n).is_none(), "a key is in a delta twice");
        }
        for key in frame["del"].as_array().context("`del` is no list")? {
            delta.del.push(key.as_str().context("a key is no text")?.to_owned());
        }
        Ok(())
    }

    /// Applies a delta of which all parts have arrived.
    fn finish(&mut self, world: &World, frame: &Value) -> Result<()> {
        let delta = self.delta.take().context("there is no delta")?;
        let twice = delta.del.iter().find(|key| delta.up.contains_key(*key));
        ensure!(twice.is_none(), "{twice:?} is in a delta twice");
        self.rows.extend(delta.up);
        for key in &delta.del {
            self.rows.remove(key);
        }
        let (epoch, _) = self.shown.clone().context("a delta before a snapshot")?;
        if self.changes {
            let commits = world.writes_between(&epoch, delta.from, delta.pos, self.table);
            ensure!(
                commits == 1 && frame["merged"] != true,
                "a delta of {commits} commits in mode `changes`: {frame}"
            );
        }
        self.show(world, epoch, delta.pos, frame)
    }

    /// Returns the first and the last commit of a change, which must begin at the commit that the
    /// copy shows.
    fn follows(&self, frame: &Value) -> Result<(u64, u64)> {
        let (from, pos) = (number(frame, "from")?, number(frame, "to")?);
        let at = self.shown.as_ref().map(|(_, pos)| *pos);
        ensure!(self.snap.is_none() && at == Some(from), "at {at:?} came {frame}");
        Ok((from, pos))
    }

    fn show(&mut self, world: &World, epoch: String, pos: u64, frame: &Value) -> Result<()> {
        let had = world.numbers_at(&epoch, pos, self.table);
        let had = had.with_context(|| format!("the table never was at {epoch} {pos}"))?;
        if *had != self.rows {
            let wrong = |(key, n): &(&String, &i64)| had.get(*key) != Some(n);
            let extra = self.rows.iter().find(wrong);
            let lost = had.iter().find(|(key, _)| !self.rows.contains_key(*key));
            bail!("a state that never was, at {epoch} {pos}: shows {extra:?}, lacks {lost:?}");
        }
        self.token = Some(frame["tok"].as_str().context("no token")?.to_owned());
        self.shown = Some((epoch, pos));
        Ok(())
    }
}

fn number(frame: &Value, name: &str) -> Result<u64> {
    frame[name].as_u64().with_context(|| format!("`{name}` is no number: {frame}"))
}

fn numbers(rows: &Value) -> Result<Numbers> {
    let rows = rows.as_object().context("rows are no object")?;
    let mut numbers = Numbers::new();
    for (key, row) in rows {
        let row = Row::deserialize(row)?;
        ensure!(row.k == *key, "the row under `{key}` is the row of `{}`", row.k);
        numbers.insert(key.clone(), row.n);
    }
    Ok(numbers)
}
