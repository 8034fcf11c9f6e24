//! Implements `lantern types`, which writes the types of the rows of tables, and the shapes of the
//! tables, for clients.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lantern_api::{FieldStatus, TableShape, TableStatus};
use lantern_core::TableSpec;

use super::local_host::LocalHost;
use crate::Global;
use crate::api::Api;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern types --out src/tables.ts                    # all tables of the server
  lantern types revenue rate-alerts --out src/tables.ts
  lantern types --plugin revenue.wasm                  # without a server
  lantern types --plugin totals.py --name shop-totals --no-null

In the client for TypeScript (clients/ts):
  import { connect } from \"lantern-client\";
  import { shapes, type Tables } from \"./tables.js\";
  const client = connect<Tables>(\"/v1/feed\", { shapes });

With `shapes` the server knows for which fields the client was written. A version that adds fields
does not affect the client. If a version removes or changes a field that a table of the client
uses, this table is closed with an error that names the field.

A row may lack a value for any field, so fields are typed as `T | null`. With --no-null
they are typed as `T`. The client returns integers beyond 2^53 as `bigint`; --bigint types
integers as `number | bigint`.")]
pub(crate) struct Args {
    /// Only the tables of these projections.
    #[arg(value_name = "PROJECTION", conflicts_with_all = ["plugin", "name"])]
    projections: Vec<String>,
    /// The language.
    #[arg(long, value_enum, default_value_t = Lang::Ts)]
    lang: Lang,
    /// Take the tables from this plugin, without a server: a component or core module, a script
    /// (.py, .js, .ts) or a declaration (.yaml, .json).
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The parameters for the plugin's `setup`: JSON, or the name of a JSON file.
    #[arg(long, value_name = "JSON|FILE", requires = "plugin")]
    parameters: Option<String>,
    /// The name of the plugin's projection; by default the plugin's own name.
    #[arg(long, requires = "plugin")]
    name: Option<String>,
    /// Type fields without `null`: for tables whose rows always have a value for every field.
    #[arg(long)]
    no_null: bool,
    /// Type integers as `number | bigint`.
    #[arg(long)]
    bigint: bool,
    /// Write into this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The languages in which types can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Lang {
    /// TypeScript.
    Ts,
}

/// A public table with the name of its projection.
struct NamedTable {
    projection: String,
    table: TableStatus,
}

/// Writes the types.
pub(crate) fn run(args: &Args, global: &Global) -> Outcome {
    let tables = match &args.plugin {
        Some(plugin) => tables_of_plugin(plugin, args, global)?,
        None => crate::client(tables_of_server(&global.api(), &args.projections))?,
    };
    let Lang::Ts = args.lang;
    let text = typescript(&tables, &Choices { null: !args.no_null, bigint: args.bigint });
    match &args.out {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| {
                Failure::new(Exit::Failure, format!("cannot write `{}`: {error}", path.display()))
            })?;
            if global.json {
                output::json(&serde_json::json!({"file": path, "tables": tables.len()}));
            } else {
                output::line(format!("wrote {} ({} tables)", path.display(), tables.len()));
            }
        }
        None if global.json => output::json(&serde_json::json!({"lang": "ts", "text": text})),
        None => output::text(&text),
    }
    Ok(())
}

/// Returns the public tables of a plugin.
fn tables_of_plugin(plugin: &Path, args: &Args, global: &Global) -> Outcome<Vec<NamedTable>> {
    let parameters = args.parameters.as_deref().map(super::parameters).transpose()?;
    let loaded = LocalHost::new()?.load(plugin, parameters.as_deref(), global.json)?;
    let manifest = loaded.manifest();
    let projection = args.name.as_ref().unwrap_or(&manifest.name);
    Ok(named(projection, manifest.tables.iter().map(status)).collect())
}

/// Describes a table as a server does.
fn status(table: &TableSpec) -> TableStatus {
    let fields = table.fields.iter().map(|field| FieldStatus {
        name: field.name.clone(),
        kind: field.kind.name().to_owned(),
        unit: field.unit.clone(),
    });
    TableStatus {
        name: table.name.clone(),
        description: table.description.clone(),
        public: table.public,
        per_tenant: table.per_tenant,
        fields: fields.collect(),
    }
}

/// Returns the public tables of the active versions on the server.
async fn tables_of_server(api: &Api, wanted: &[String]) -> Outcome<Vec<NamedTable>> {
    let mut projections = if wanted.is_empty() {
        api.projections().await?
    } else {
        let mut some = Vec::new();
        for name in wanted {
            some.push(api.projection(name).await?);
        }
        some
    };
    projections.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tables = Vec::new();
    for projection in projections {
        let active =
            projection.versions.into_iter().find(|it| Some(&it.id) == projection.active.as_ref());
        match active {
            Some(version) => tables.extend(named(&projection.name, version.tables)),
            None if !wanted.is_empty() => {
                let name = &projection.name;
                let message = format!("no version of `{name}` is active, so it has no tables yet");
                let help = format!("`lantern plugin status {name}` shows its progress");
                return Err(Failure::new(Exit::Refused, message).help(help));
            }
            None => {}
        }
    }
    Ok(tables)
}

fn named(
    projection: &str,
    tables: impl IntoIterator<Item = TableStatus>,
) -> impl Iterator<Item = NamedTable> {
    let public = tables.into_iter().filter(|table| table.public);
    public.map(move |table| NamedTable { projection: projection.to_owned(), table })
}

/// Choices for the types of fields.
struct Choices {
    null: bool,
    bigint: bool,
}

/// Returns the text of a TypeScript module. The module has an interface for the rows of each table,
/// the interface `Tables` with the rows of all tables by name, and the shapes of all tables.
fn typescript(tables: &[NamedTable], choices: &Choices) -> String {
    let mut text = String::from("// Written by `lantern types`; do not edit.\n");
    let mut all = String::from(
        "\n/** The rows of the tables, by `projection/table`. */\nexport interface Tables {\n",
    );
    let mut shapes = String::from(
        "\n/** The shapes of the tables, for the option `shapes` of `connect`. */\nexport const shapes = {\n",
    );
    let mut used: BTreeSet<String> = ["Tables".to_owned()].into();
    for NamedTable { projection, table } in tables {
        let full = format!("{projection}/{}", table.name);
        let name = unused(&format!("{}{}", pascal(projection), pascal(&table.name)), &mut used);
        let mut about = vec![format!("A row of `{full}`.")];
        about.extend((!table.description.is_empty()).then(|| table.description.clone()));
        if table.per_tenant {
            about.push("A key is the tenant, U+0000 and the rest.".to_owned());
        }
        let _ = writeln!(text, "\n{}export interface {name} {{", comment(&about.join(" "), ""));
        for field in &table.fields {
            if !field.unit.is_empty() {
                text.push_str(&comment(&format!("Unit: {}", field.unit), "  "));
            }
            let (mark, null) = if choices.null { ("?", " | null") } else { ("", "") };
            let kind = field_type(&field.kind, choices.bigint);
            // The type `unknown` includes `null`.
            let null = if kind == "unknown" { "" } else { null };
            let _ = writeln!(text, "  {}{mark}: {kind}{null};", property(&field.name));
        }
        text.push_str("}\n");
        let _ = writeln!(all, "  {}: {name};", quoted(&full));
        let _ = writeln!(shapes, "  {}: {},", quoted(&full), shape(table));
    }
    text + &all + "}\n" + &shapes + "};\n"
}

/// Returns the shape of a table as an object literal. Its syntax is that of JSON, except for the
/// name `__proto__`, which must be computed to be the name of a member.
fn shape(table: &TableStatus) -> String {
    let json = serde_json::to_string(&TableShape::of_table(table)).expect("texts always encode");
    json.replace("\"__proto__\":", "[\"__proto__\"]:")
}

/// Returns the TypeScript type of a field's values.
fn field_type(kind: &str, bigint: bool) -> &'static str {
    match kind {
        "integer" if bigint => "number | bigint",
        "integer" | "number" => "number",
        "text" | "timestamp" => "string",
        "boolean" => "boolean",
        "distinct" => "{ estimate: number; sketch: string }",
        "percentiles" => PERCENTILES,
        // The field has the kind `json`, or a kind that only later releases know.
        _ => "unknown",
    }
}

/// The TypeScript type of a value of the kind `percentiles`.
const PERCENTILES: &str = "{ count: number; min: number | null; p50: number | null; \
     p75: number | null; p90: number | null; p95: number | null; p99: number | null; \
     max: number | null; sketch: string }";

/// Returns a doc comment with `text`. The text may come from a plugin; it cannot end the comment.
fn comment(text: &str, indent: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{indent}/** {} */\n", output::printable(&text).replace("*/", "* /"))
}

/// Returns the name of a member. A name that is not an identifier is in quotes.
fn property(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { quoted(name) }
}

/// Returns a string literal. Its syntax is that of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns the name of a type for `name`: `FlightDelays` for `flight-delays`.
fn pascal(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter_map(|word| {
            let (first, rest) = word.split_at_checked(1)?;
            Some(first.to_ascii_uppercase() + rest)
        })
        .collect()
}

/// Makes `name` an identifier that is not used yet.
fn unused(name: &str, used: &mut BTreeSet<String>) -> String {
    let start = if name.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "T" };
    let name = format!("{start}{name}");
    let numbered = (2..).map(|n| format!("{name}{n}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|it| !used.contains(it));
    let free = free.unwrap_or(name);
    used.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use lantern_api::FieldStatus;

    use super::*;

    fn table(projection: &str, name: &str, fields: &[(&str, &str, &str)]) -> NamedTable {
        let fields = fields.iter().map(|(name, kind, unit)| FieldStatus {
            name: (*name).into(),
            kind: (*kind).into(),
            unit: (*unit).into(),
        });
        let table = TableStatus {
            name: name.into(),
            description: String::new(),
            public: true,
            per_tenant: false,
            fields: fields.collect(),
        };
        NamedTable { projection: projection.into(), table }
    }

    #[test]
    fn rows_become_interfaces_and_tables_one_more() {
        let fields = [("product", "text", ""), ("cents", "integer", "cent"), ("any", "json", "")];
        let tables = [table("revenue", "by_product", &fields)];
        let exact = typescript(&tables, &Choices { null: true, bigint: true });
        assert_eq!(
            exact,
            "// Written by `lantern types`; do not edit.\n\n\
             /** A row of `revenue/by_product`. */\n\
             export interface RevenueByProduct {\n\
             \x20 product?: string | null;\n\
             \x20 /** Unit: cent */\n\
             \x20 cents?: number | bigint | null;\n\
             \x20 any?: unknown;\n\
             }\n\n\
             /** The rows of the tables, by `projection/table`. */\n\
             export interface Tables {\n\
             \x20 \"revenue/by_product\": RevenueByProduct;\n\
             }\n\n\
             /** The shapes of the tables, for the option `shapes` of `connect`. */\n\
             export const shapes = {\n\
             \x20 \"revenue/by_product\": {\"hash\":\"df7b847cb08fb379\",\"fields\":{\"any\":\"json\",\"cents\":\"integer\",\"product\":\"text\"},\"units\":{\"cents\":\"cent\"},\"per_tenant\":false},\n\
             };\n"
        );
        let simple = typescript(&tables, &Choices { null: false, bigint: false });
        assert!(simple.contains("  cents: number;\n"), "{simple}");
    }

    #[test]
    fn names_are_identifiers_and_different() {
        let mut used = BTreeSet::from(["Tables".to_owned()]);
        let mut name = |projection: &str, table: &str| {
            unused(&format!("{}{}", pascal(projection), pascal(table)), &mut used)
        };
        assert_eq!(name("flight-delays", "by_carrier"), "FlightDelaysByCarrier");
        assert_eq!(name("flight", "delays-by_carrier"), "FlightDelaysByCarrier2");
        assert_eq!(name("7", "x"), "T7X");
        assert_eq!(name("ta", "bles"), "TaBles");
        assert_eq!(name("_", "tables"), "Tables2");
        assert_eq!(name("-", "_"), "T");
    }

    #[test]
    fn text_of_a_plugin_stays_text() {
        let mut hostile = table(
            "p",
            "t",
            &[("a\"]; x", "text", "*/ x"), ("", "text", ""), ("__proto__", "text", "")],
        );
        hostile.table.description = "ends */ here\n// and".into();
        let text = typescript(&[hostile], &Choices { null: true, bigint: false });
        assert!(text.contains("/** A row of `p/t`. ends * / here // and */\n"), "{text}");
        assert!(
            text.contains("  /** Unit: * / x */\n  \"a\\\"]; x\"?: string | null;\n"),
            "{text}"
        );
        assert!(text.contains("  \"\"?: string | null;\n"), "{text}");
        assert!(
            text.contains(r#""fields":{"":"text",["__proto__"]:"text","a\"]; x":"text"}"#),
            "{text}"
        );
    }
}
