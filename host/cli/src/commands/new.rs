//! `lantern new`: a plugin's crate from the template of the Rust SDK.

use std::path::{Path, PathBuf};

use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The template's files. `{{name}}` and `{{sdk}}` in them are replaced by the plugin's
/// name and by the value of `lantern-sdk =`.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("../../../../sdk/rust/template/Cargo.toml.tmpl")),
    ("README.md", include_str!("../../../../sdk/rust/template/README.md.tmpl")),
    ("events.ndjson", include_str!("../../../../sdk/rust/template/events.ndjson.tmpl")),
    ("src/lib.rs", include_str!("../../../../sdk/rust/template/src/lib.rs.tmpl")),
    (".gitignore", "/target\n"),
];

/// The longest name; a manifest has the same limit.
const NAME_BYTES_MAX: usize = 64;
/// The folder of the SDK in a checkout of Lantern.
const SDK: &str = "sdk/rust";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern new order-counts
  lantern new order-counts --dir ~/projections/order-counts
  lantern new order-counts --sdk ../lantern/sdk/rust

Then, in the new folder:
  cargo test                                              # without WebAssembly
  cargo build --release --target wasm32-unknown-unknown
  lantern test events.ndjson target/wasm32-unknown-unknown/release/order_counts.wasm
  lantern plugin push target/wasm32-unknown-unknown/release/order_counts.wasm --wait")]
pub(crate) struct Args {
    /// The plugin's name: lower-case letters, digits and hyphens.
    #[arg(value_parser = name)]
    name: String,
    /// The folder to create; named like the plugin if left out.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The folder of the SDK for Rust. If left out, it is searched in the parent
    /// folders, and where this command was built.
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    let fits = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    match (fits, text) {
        // Rust does not allow these names for crates and modules.
        (true, "test" | "core" | "std" | "alloc" | "self" | "super" | "crate") => {
            Err("Rust reserves this name: choose another".into())
        }
        (true, _) => Ok(text.to_owned()),
        (false, _) => {
            Err("use 1 to 64 lower-case letters, digits and hyphens, beginning with a letter"
                .into())
        }
    }
}

/// Creates the folder.
pub(crate) fn run(args: &Args, global: &Global) -> Outcome {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let empty = match std::fs::read_dir(&dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !dir.exists(),
    };
    if !empty {
        let message = format!("`{}` exists and is not empty", dir.display());
        return Err(Failure::new(Exit::Refused, message).help("name another folder with --dir"));
    }
    let sdk = sdk(args.sdk.as_deref(), &dir)?;
    for (path, text) in &FILES {
        write(&dir.join(path), &filled(text, &args.name, &sdk))?;
    }
    let module = args.name.replace('-', "_");
    let wasm = format!("target/wasm32-unknown-unknown/release/{module}.wasm");
    if global.json {
        output::json(&serde_json::json!({
            "name": args.name,
            "folder": dir,
            "files": FILES.iter().map(|(path, _)| path).collect::<Vec<_>>(),
            "wasm": wasm,
        }));
        return Ok(());
    }
    output::line(format!("`{}` is created. Next:", dir.display()));
    output::line(format!("  cd {}", dir.display()));
    output::line("  cargo test");
    output::line("  cargo build --release --target wasm32-unknown-unknown");
    output::line(format!("  lantern test events.ndjson {wasm}"));
    output::line(format!("  lantern plugin push {wasm} --wait"));
    Ok(())
}

fn filled(text: &str, name: &str, sdk: &str) -> String {
    text.replace("{{name}}", name)
        .replace("{{crate}}", &name.replace('-', "_"))
        .replace("{{sdk}}", sdk)
}

fn write(path: &Path, text: &str) -> Outcome {
    let failed = |e: std::io::Error| {
        Failure::new(Exit::Failure, format!("cannot write `{}`: {e}", path.display()))
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

/// The SDK as a dependency in the new crate's `Cargo.toml`.
fn sdk(given: Option<&Path>, dir: &Path) -> Outcome<String> {
    let is_sdk = |folder: &Path| folder.join("Cargo.toml").is_file();
    let found = match given {
        Some(folder) if is_sdk(folder) => Some(folder.to_owned()),
        Some(folder) => {
            let message = format!("there is no SDK in `{}`", folder.display());
            return Err(Failure::new(Exit::NotFound, message)
                .help("name the folder `sdk/rust` of a checkout of Lantern"));
        }
        None => {
            let above = std::path::absolute(dir).map_err(anyhow::Error::from)?;
            let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            above
                .ancestors()
                .chain(std::iter::once(built.as_path()))
                .map(|folder| folder.join(SDK))
                .find(|folder| is_sdk(folder))
        }
    };
    let Some(found) = found else {
        return Err(Failure::new(Exit::NotFound, "the SDK for Rust was not found")
            .help("name the folder `sdk/rust` of a checkout of Lantern with --sdk"));
    };
    let found = found.canonicalize().map_err(anyhow::Error::from)?;
    match found.to_str() {
        // A JSON string is also a TOML string.
        Some(path) => Ok(format!("{{ path = {} }}", serde_json::Value::from(path))),
        None => Err(Failure::new(Exit::Refused, format!("`{}` is not UTF-8", found.display()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_are_those_a_manifest_and_a_crate_can_have() {
        assert!(name("order-counts2").is_ok());
        for wrong in ["", "Order", "2x", "a_b", "a/b", "..", "test", &"x".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_of_the_template_is_left_open() {
        for (path, text) in FILES {
            let text = filled(text, "order-counts", "{ path = \"x\" }");
            assert!(!text.contains("{{"), "{path}");
        }
        assert!(filled(FILES[0].1, "order-counts", "{ path = \"x\" }").contains("order-counts"));
    }
}
