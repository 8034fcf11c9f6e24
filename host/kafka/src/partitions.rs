//! Implements the table of partition numbers: the numbers that the partitions of the topics have in
//! the log. It is a file in the data folder. Entries are only added, so a number means the same
//! partition as long as the data folder exists, even if topics get more partitions.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::open_error::OpenError;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct TopicPartition {
    pub(crate) topic: Box<str>,
    pub(crate) partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PartitionFile {
    format: u32,
    /// The id of the Kafka cluster.
    cluster: String,
    /// A random name of this data folder. It is part of the transactional ids.
    instance: String,
    /// A hash of the mappings that convert records to events. Other mappings lead to another state.
    mappings: String,
    partitions: Vec<TopicPartition>,
}

/// The numbers of the partitions, with the path of the file.
pub(crate) struct PartitionTable {
    path: PathBuf,
    stored: PartitionFile,
    index: HashMap<TopicPartition, u32>,
}

impl PartitionTable {
    const FORMAT: u32 = 1;

    /// Reads the table at `path`. If there is no file, the table is empty.
    pub(crate) fn open(path: PathBuf) -> Result<Self, OpenError> {
        let damaged = |what: String| OpenError::Data { path: path.clone(), source: what.into() };
        let stored = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<PartitionFile>(&bytes)
                .map_err(|error| damaged(format!("it is damaged: {error}")))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                PartitionFile { format: Self::FORMAT, ..PartitionFile::default() }
            }
            Err(error) => return Err(damaged(error.to_string())),
        };
        if stored.format != Self::FORMAT {
            return Err(damaged(format!(
                "it has format {}, this release reads {}",
                stored.format,
                Self::FORMAT
            )));
        }
        let index = stored.partitions.iter().cloned().zip(0..).collect();
        Ok(Self { path, stored, index })
    }

    /// Returns whether the table was never used to open a log.
    pub(crate) fn is_new(&self) -> bool {
        self.stored.partitions.is_empty()
    }

    pub(crate) fn partitions(&self) -> &[TopicPartition] {
        &self.stored.partitions
    }

    pub(crate) fn instance(&self) -> &str {
        &self.stored.instance
    }

    pub(crate) fn number(&self, topic_partition: &TopicPartition) -> Option<u32> {
        self.index.get(topic_partition).copied()
    }

    /// Returns an error if the cluster has changed, or if a topic was removed.
    pub(crate) fn check(&self, cluster: Option<&str>, topics: &[String]) -> Result<(), OpenError> {
        if self.is_new() {
            return Ok(());
        }
        if let Some(cluster) = cluster
            && !self.stored.cluster.is_empty()
            && cluster != self.stored.cluster
        {
            return Err(OpenError::Other(format!(
                "the data folder was created with Kafka cluster `{}`, but this is cluster `{cluster}`: connect to the first cluster (`log.kafka.servers`), or start with another data folder (`--data`)",
                self.stored.cluster
            )));
        }
        let missing = self.partitions().iter().find(|p| !topics.iter().any(|t| **t == *p.topic));
        match missing {
            Some(topic_partition) => Err(OpenError::Other(format!(
                "the data folder was created with topic `{}`, which is not among `log.kafka.topics` ({}): add it again, or start with another data folder (`--data`)",
                topic_partition.topic,
                topics.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// Sets the id of the cluster and the hash of the mappings. Returns `false` if the mappings
    /// have changed.
    pub(crate) fn set_cluster_and_mappings(
        &mut self,
        cluster: Option<&str>,
        mappings: &str,
    ) -> bool {
        let same = self.is_new() || self.stored.mappings == mappings;
        self.stored.mappings = mappings.to_owned();
        if let Some(cluster) = cluster {
            self.stored.cluster = cluster.to_owned();
        }
        same
    }

    /// Gives a number to each of the first `count` partitions of `topic` that has none. Returns
    /// whether a partition got a number.
    pub(crate) fn extend(&mut self, topic: &str, count: i32) -> bool {
        let before = self.index.len();
        for partition in 0..count {
            let topic_partition = TopicPartition { topic: topic.into(), partition };
            if !self.index.contains_key(&topic_partition) {
                let number = u32::try_from(self.index.len()).unwrap_or(u32::MAX);
                self.index.insert(topic_partition.clone(), number);
                self.stored.partitions.push(topic_partition);
            }
        }
        self.index.len() > before
    }

    /// Writes the table to a temporary file and renames it, so that the file is always complete.
    pub(crate) fn save(&mut self) -> Result<(), OpenError> {
        if self.stored.instance.is_empty() {
            self.stored.instance = new_instance(&self.path);
        }
        let failed = |error: std::io::Error| OpenError::Data {
            path: self.path.clone(),
            source: error.into(),
        };
        let bytes = serde_json::to_vec_pretty(&self.stored).expect("plain structs always encode");
        let aside = self.path.with_extension("json.new");
        let mut file = File::create(&aside).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&aside, &self.path).map_err(failed)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// Returns a name that no other data folder has. It is a hash of the time, the process id, the path
/// and a random UUID.
fn new_instance(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut hash = Sha256::new();
    hash.update(since.unwrap_or_default().as_nanos().to_le_bytes());
    hash.update(std::process::id().to_le_bytes());
    hash.update(path.as_os_str().as_encoded_bytes());
    hash.update(std::fs::read("/proc/sys/kernel/random/uuid").unwrap_or_default());
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn numbers_stay_whatever_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kafka.json");
        let mut table = PartitionTable::open(path.clone()).unwrap();
        assert!(table.is_new());
        assert!(table.extend("a", 2));
        table.set_cluster_and_mappings(Some("c1"), "m1");
        table.save().unwrap();
        let instance = table.instance().to_owned();

        let mut table = PartitionTable::open(path.clone()).unwrap();
        assert!(table.extend("b", 1) && table.extend("a", 3) && !table.extend("a", 1));
        table.save().unwrap();
        let table = PartitionTable::open(path).unwrap();
        let names: Vec<_> = table.partitions().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a[0]", "a[1]", "b[0]", "a[2]"]);
        assert_eq!(table.number(&TopicPartition { topic: "a".into(), partition: 2 }), Some(3));
        assert_eq!(table.instance(), instance);
    }

    #[test]
    fn another_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = PartitionTable::open(dir.path().join("kafka.json")).unwrap();
        let topics = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        table.check(Some("c1"), &topics(&["a"])).unwrap();
        assert!(table.set_cluster_and_mappings(Some("c1"), "m1"));
        table.extend("a", 1);
        table.check(Some("c1"), &topics(&["b", "a"])).unwrap();
        table.check(None, &topics(&["a"])).unwrap();
        let refused = |cluster, names: &[&str], word: &str| {
            let error = table.check(Some(cluster), &topics(names)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused("c2", &["a"], "`c2`");
        refused("c1", &["b"], "topic `a`");
        assert!(
            !table.set_cluster_and_mappings(Some("c1"), "m2"),
            "records are read in another way"
        );
    }
}
