//! Runs Kafka's own command-line tools, as `bin/kafka-*.sh` start them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::Broker;

/// The state of a consumer group by topic and partition, as `kafka-consumer-groups --describe`
/// shows it.
pub type Group = BTreeMap<(String, i32), Lag>;

/// One line of the table that describes a consumer group. A field is `None` if the tool prints `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The offset that the group has committed.
    pub committed: Option<i64>,
    /// The offset of the partition's end.
    pub end: Option<i64>,
    /// The lag that the tool computes.
    pub lag: Option<i64>,
}

/// The options of `kafka-console-consumer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The number of records to read.
    pub records: u64,
    /// Whether headers are printed before the value, separated by a tab.
    pub headers: bool,
    /// Whether keys are printed before the value, separated by a tab.
    pub keys: bool,
    /// Whether only records of committed transactions are read.
    pub committed: bool,
}

impl Broker {
    /// Runs `kafka-topics --create`, with settings such as `cleanup.policy=compact`.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn create_topic(&self, name: &str, partitions: u32, settings: &[&str]) -> Result<()> {
        let mut tool = self.topics();
        tool.args(["--create", "--topic", name, "--partitions", &partitions.to_string()]);
        for setting in settings {
            tool.args(["--config", setting]);
        }
        answer(&mut tool).map(drop)
    }

    /// Creates a topic like [`Broker::create_topic`], but does nothing if the topic exists.
    ///
    /// # Errors
    /// See [`Broker::create_topic`].
    pub fn create_missing_topic(&self, name: &str, partitions: u32) -> Result<()> {
        let partitions = partitions.to_string();
        let mut tool = self.topics();
        tool.args(["--create", "--if-not-exists", "--topic", name, "--partitions", &partitions]);
        answer(&mut tool).map(drop)
    }

    /// Runs `kafka-topics --delete`.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        answer(self.topics().args(["--delete", "--topic", name])).map(drop)
    }

    /// Runs `kafka-topics --alter`, which raises the number of a topic's partitions.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn add_partitions(&self, name: &str, partitions: u32) -> Result<()> {
        let partitions = partitions.to_string();
        answer(self.topics().args(["--alter", "--topic", name, "--partitions", &partitions]))
            .map(drop)
    }

    /// Runs `kafka-delete-records`, which deletes the records before `offset`.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn delete_records(&self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        let file = self.folder().join("delete-records.json");
        let text = format!(
            r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":{partition},"offset":{offset}}}]}}"#
        );
        std::fs::write(&file, text)?;
        let mut tool = self.tool("org.apache.kafka.tools.DeleteRecordsCommand");
        answer(tool.arg("--offset-json-file").arg(&file)).map(drop)
    }

    /// Runs `kafka-consumer-groups --describe --group GROUP`, and returns the state of the group.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn group(&self, group: &str) -> Result<Group> {
        let mut tool = self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
        lags(&answer(tool.args(["--describe", "--group", group]))?)
    }

    /// Runs `kafka-get-offsets`, and returns the end of each partition of a topic. Transaction
    /// markers also take offsets, so the end can be higher than the offset after the last committed
    /// record.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let mut tool = self.tool("org.apache.kafka.tools.GetOffsetShell");
        let text = answer(tool.args(["--topic", topic]))?;
        let lines = text.lines().filter(|line| line.starts_with(topic));
        lines
            .map(|line| {
                let mut parts = line.rsplit(':');
                let end = parts.next().context("an end")?.parse()?;
                Ok((parts.next().context("a partition")?.parse()?, end))
            })
            .collect()
    }

    /// Runs `kafka-console-consumer --from-beginning`, and returns one line for each record.
    ///
    /// # Errors
    /// Fails if the tool fails, or if there are fewer records. The error contains the tool's
    /// output.
    pub fn console_consumer(&self, topic: &str, reading: Reading) -> Result<Vec<String>> {
        let mut tool = self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
        let records = reading.records.to_string();
        tool.args(["--topic", topic, "--from-beginning", "--max-messages", &records]);
        tool.args(["--timeout-ms", "30000"]);
        for (property, on) in [("print.headers", reading.headers), ("print.key", reading.keys)] {
            tool.arg("--formatter-property").arg(format!("{property}={on}"));
        }
        if reading.committed {
            tool.args(["--isolation-level", "read_committed"]);
        }
        let lines: Vec<_> = answer(&mut tool)?.lines().map(str::to_owned).collect();
        ensure!(
            lines.len() as u64 == reading.records,
            "`{topic}` has {} records, and {records} were to come",
            lines.len()
        );
        Ok(lines)
    }

    /// Runs `kafka-console-producer`, which writes one record per line. `properties` are settings
    /// such as `parse.headers=true`.
    ///
    /// # Errors
    /// Fails if the tool fails. The error contains the tool's output.
    pub fn console_producer(&self, topic: &str, lines: &str, properties: &[&str]) -> Result<()> {
        let mut tool = self.tool("org.apache.kafka.tools.ConsoleProducer");
        tool.args(["--topic", topic]);
        for property in properties {
            tool.args(["--reader-property", property]);
        }
        tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = tool.spawn().context("`java` cannot be started")?;
        let mut stdin = process.stdin.take().context("it was piped")?;
        stdin.write_all(lines.as_bytes())?;
        drop(stdin);
        let output = process.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("ERROR"), "console producer: {said}");
        Ok(())
    }

    fn topics(&self) -> Command {
        self.tool("org.apache.kafka.tools.TopicCommand")
    }

    /// Prepares a call of another tool, which is given by its class, for this broker.
    #[must_use]
    pub fn tool(&self, class: &str) -> Command {
        let mut java = self.java(class);
        java.args(["--bootstrap-server", &self.address()]);
        java
    }
}

/// Runs a tool to its end, and returns its output.
pub(crate) fn answer(tool: &mut Command) -> Result<String> {
    let output = tool.output().context("`java` cannot be started: install a JDK 17 or newer")?;
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let words: Vec<_> = tool.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!("`java {}` failed: {text}{said}", words.join(" "));
    }
    Ok(text.into_owned())
}

/// Parses the table that `kafka-consumer-groups --describe` prints: a heading, then one line for
/// each partition.
fn lags(text: &str) -> Result<Group> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let heading = lines.find(|line| line.contains("CURRENT-OFFSET")).context("no heading")?;
    let names: Vec<_> = heading.split_whitespace().collect();
    let column = |name: &str| {
        names.iter().position(|n| *n == name).with_context(|| format!("no `{name}`: {heading}"))
    };
    let (topic, partition) = (column("TOPIC")?, column("PARTITION")?);
    let figures = [column("CURRENT-OFFSET")?, column("LOG-END-OFFSET")?, column("LAG")?];
    let mut group = Group::new();
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let word = |at: usize| words.get(at).copied().with_context(|| format!("cut: {line}"));
        let figure = |at: usize| match word(at)? {
            "-" => Ok(None),
            text => text.parse().map(Some).with_context(|| format!("`{text}` is no number")),
        };
        let lag = Lag {
            committed: figure(figures[0])?,
            end: figure(figures[1])?,
            lag: figure(figures[2])?,
        };
        group.insert((word(topic)?.to_owned(), word(partition)?.parse()?), lag);
    }
    Ok(group)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_consumer_groups_is_read_by_its_heading() {
        let text = "\nConsumer group 'g' has no active members.\n\n\
            GROUP           TOPIC           PARTITION  LEADER-EPOCH  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID     HOST            CLIENT-ID\n\
            g               t               0          -             3               5               2               -               -               -\n\
            g               t               1          -             -               7               -               -               -               -\n";
        let group = lags(text).unwrap();
        let lag = Lag { committed: Some(3), end: Some(5), lag: Some(2) };
        assert_eq!(group[&("t".to_owned(), 0)], lag);
        let unknown = Lag { committed: None, end: Some(7), lag: None };
        assert_eq!(group[&("t".to_owned(), 1)], unknown);
        assert!(lags("Error: no such group").is_err());
    }
}
