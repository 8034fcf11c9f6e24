//! Extracts payloads from the output of the server and the command line.

use anyhow::{Context as _, Result, bail, ensure};

use super::exact::{Exact, csv};

/// The formats in which the server returns a table, each with its media type.
pub(super) const FORMATS: [(&str, &str); 3] =
    [("JSON", "application/json"), ("NDJSON", "application/x-ndjson"), ("CSV", "text/csv")];

/// Extracts the payload from a row.
pub(super) fn doc(row: &Exact) -> Result<Exact> {
    row.member("doc").cloned().with_context(|| format!("a row without `doc`: {row:?}"))
}

/// Extracts the keys and payloads of a table's rows.
pub(super) fn rows(media: &str, text: &str) -> Result<Vec<(String, Exact)>> {
    match media {
        "application/json" => {
            let page = Exact::parse(text)?;
            let rows = page.member("rows").context("no `rows`")?.members()?;
            rows.into_iter().map(|(key, row)| Ok((key, doc(row)?))).collect()
        }
        "application/x-ndjson" => text.lines().map(line).collect(),
        "text/csv" => {
            let records = csv(text)?;
            let (head, records) = records.split_first().context("no header")?;
            ensure!(head == &["key", "doc", "note"], "the header is {head:?}");
            let row = |record: &Vec<String>| match record.as_slice() {
                [key, doc, note] if note == "kept" => Ok((key.clone(), Exact::parse(doc)?)),
                other => bail!("a record {other:?}"),
            };
            records.iter().map(row).collect()
        }
        other => bail!("{other} is not read here"),
    }
}

fn line(line: &str) -> Result<(String, Exact)> {
    let line = Exact::parse(line)?;
    let key = line.member("key").context("no `key`")?.text()?;
    Ok((key, doc(line.member("value").context("no `value`")?)?))
}

/// Extracts the seed and the `data` of an event. The event may be alone, or together with its place
/// in the log.
pub(super) fn event(logged: &Exact) -> Result<(u64, &Exact)> {
    let event = logged.member("event").unwrap_or(logged);
    let seed = event.member("id").context("no `id`")?.text()?;
    let data = event.member("data").with_context(|| format!("no `data`: {event:?}"))?;
    Ok((seed.parse()?, data))
}
