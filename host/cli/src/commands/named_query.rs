//! Implements `lantern query save`, `list`, `show`, `delete` and `run`, for queries that are stored
//! on the server.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use lantern_api::NamedQuery;

use super::query::{Format, table};
use super::table::{ScanArgs, fields, rows};
use crate::Global;
use crate::api::QueryAnswer;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// `lantern query`: a query of a table, or a command for named queries.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    scan: Option<ScanArgs>,
    #[command(subcommand)]
    named: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Store a named query on the server, or replace it.
    Save(SaveArgs),
    /// List the named queries.
    #[command(after_help = "Examples:\n  lantern query list\n  lantern query list --json")]
    List,
    /// Print the definition of a named query.
    #[command(after_help = "\
Examples:
  lantern query show revenue-by-country
  lantern query show revenue-by-country > query.json   # edit it, then `lantern query save`")]
    Show(NameArgs),
    /// Delete a named query.
    #[command(after_help = "Examples:\n  lantern query delete revenue-by-country")]
    Delete(NameArgs),
    /// Run a named query.
    Run(RunArgs),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern query save revenue-by-country query.json
  echo '{\"table\":\"revenue/by_product\",\"query\":{\"order\":\"-cents\"}}' | lantern query save top -")]
struct SaveArgs {
    /// The name: letters, digits, `-` and `_`.
    name: String,
    /// The file with the definition, JSON; `-` is standard input.
    file: PathBuf,
}

#[derive(clap::Args)]
struct NameArgs {
    /// The name.
    name: String,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern query run revenue-by-country country=DE
  lantern query run revenue-by-country country=DE --format parquet --output revenue.parquet")]
struct RunArgs {
    /// The name.
    name: String,
    /// Values of parameters.
    #[arg(value_name = "NAME=VALUE", value_parser = assignment)]
    parameters: Vec<(String, String)>,
    /// Print at most this many rows or groups. If left out, the limit is that of the definition;
    /// formats other than `table` print all rows.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How to print the rows; `json` with --json, `table` otherwise.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write the rows to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `NAME=VALUE` from the command line.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give a parameter and its value, such as `country=DE`".into()),
    }
}

/// Runs `lantern query`.
pub(crate) async fn run(args: QueryArgs, global: &Global) -> Outcome {
    match (args.named, args.scan) {
        (Some(command), _) => command.run(global).await,
        (None, Some(scan)) => super::table::scan(&scan, global).await,
        (None, None) => {
            let message =
                "the table is missing: give PROJECTION/TABLE, or a command for named queries";
            Err(Failure::new(Exit::Usage, message).help("`lantern query --help` shows examples"))
        }
    }
}

impl Command {
    async fn run(self, global: &Global) -> Outcome {
        let api = global.api();
        match self {
            Self::Save(args) => {
                let definition = read(&args.file)?;
                let saved: NamedQuery = api.save_query(&args.name, definition).await?;
                if global.json {
                    output::json(&saved);
                } else {
                    output::line(format!(
                        "saved `{}`: {}/v1/queries/{}",
                        saved.name,
                        api.base(),
                        saved.name
                    ));
                }
            }
            Self::List => list(&api.queries().await?, global.json),
            Self::Show(NameArgs { name }) => {
                let definition = api.query_definition(&name).await?;
                if global.json {
                    output::json(&definition);
                } else {
                    let text = serde_json::to_string_pretty(&definition);
                    output::line(text.map_err(anyhow::Error::from)?);
                }
            }
            Self::Delete(NameArgs { name }) => {
                api.delete_query(&name).await?;
                output::note(global.json, format!("deleted `{name}`"));
            }
            Self::Run(args) => args.run(global).await?,
        }
        Ok(())
    }
}

/// The definition in a file, or on standard input.
fn read(file: &Path) -> Outcome<Vec<u8>> {
    if file.as_os_str() != "-" {
        return crate::event_file::read_file(file);
    }
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text).map_err(anyhow::Error::from)?;
    Ok(text)
}

fn list(queries: &[NamedQuery], json: bool) {
    if json {
        queries.iter().for_each(output::json);
        return;
    }
    let mut table = output::table(["name", "table", "parameters", "description"]);
    for query in queries {
        let parameters: Vec<&str> = query.parameters.keys().map(String::as_str).collect();
        let cells = [&query.name, &query.table, &parameters.join(", "), &query.description];
        table.add_row(cells.map(|text| output::printable(text)));
    }
    output::line(table.to_string());
}

impl RunArgs {
    async fn run(self, global: &Global) -> Outcome {
        let api = global.api();
        let format = self.format.unwrap_or(if global.json { Format::Json } else { Format::Table });
        let mut parameters = self.parameters;
        parameters.extend(self.limit.map(|limit| ("limit".to_owned(), limit.to_string())));
        if format != Format::Table {
            parameters.push(("export".into(), "1".into()));
            parameters.push(("format".into(), format.name().into()));
            let mut target = target(self.output.as_deref(), format)?;
            return Ok(api.export_query(&self.name, &parameters, &mut *target).await?);
        }
        if self.output.is_some() {
            let message = "--output needs --format json, csv, arrow or parquet";
            return Err(Failure::new(Exit::Usage, message));
        }
        let (count, commit, next) = match api.run_query(&self.name, &parameters).await? {
            QueryAnswer::ByKey(page) => {
                let by_key = page.rows.iter().map(|(key, row)| (key.as_str(), row));
                output::line(rows(&fields(page.fields.clone()), by_key));
                (page.rows.len(), page.commit, page.next)
            }
            QueryAnswer::InOrder(page) => {
                output::line(table(&page.fields, &page.rows));
                (page.rows.len(), page.commit, page.next)
            }
        };
        let more = if next.is_some() { "; there are more: use --limit" } else { "" };
        let count = output::count(count as u64);
        output::note(false, format!("{count} rows at commit {commit}{more}"));
        Ok(())
    }
}

/// The file `path`, or standard output.
fn target(path: Option<&Path>, format: Format) -> Outcome<Box<dyn Write>> {
    let Some(path) = path else {
        let is_binary = matches!(format, Format::Arrow | Format::Parquet);
        if is_binary && output::is_terminal() {
            let message = "this format is not for a terminal";
            return Err(Failure::new(Exit::Usage, message).help("give --output FILE"));
        }
        return Ok(Box::new(std::io::stdout().lock()));
    };
    let file = std::fs::File::create(path).map_err(|error| {
        Failure::new(Exit::Failure, format!("`{}` cannot be written: {error}", path.display()))
    })?;
    Ok(Box::new(std::io::BufWriter::new(file)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_parameter_is_a_name_and_a_value() {
        assert_eq!(assignment("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(assignment("a="), Ok(("a".into(), String::new())));
        assert!(assignment("a").is_err() && assignment("=b").is_err());
    }

    #[test]
    fn a_query_names_a_table_or_a_command() {
        use clap::Args as _;
        use clap::FromArgMatches as _;

        let parsed = |arguments: &[&str]| {
            let command = QueryArgs::augment_args(clap::Command::default());
            let arguments = [&["query"], arguments].concat();
            let matches = command.try_get_matches_from(arguments)?;
            let args = QueryArgs::from_arg_matches(&matches)?;
            Ok::<_, clap::Error>((args.scan.is_some(), args.named.is_some()))
        };
        assert_eq!(parsed(&["shop/orders", "--limit", "5"]).unwrap(), (true, false));
        assert_eq!(parsed(&["run", "busiest", "least=1"]).unwrap(), (false, true));
        assert_eq!(parsed(&["list"]).unwrap(), (false, true));
        assert!(parsed(&["shop/orders", "list"]).is_err());
    }
}
