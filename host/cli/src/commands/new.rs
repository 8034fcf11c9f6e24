//! Implements `lantern new`, which creates a plugin from a template.

use std::path::{Path, PathBuf};

use super::templates::{Language, SHARED, Script, Template, ending};
use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The maximum length of a name, in bytes. It is the limit for names in manifests.
const NAME_BYTES_MAX: usize = 64;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern new order-counts                    # a script in Python: needs no tools
  lantern new order-counts --script yaml      # a declaration: no code
  lantern new order-counts --lang rust
  lantern new order-counts --lang python --dir ~/projections/order-counts
  lantern new order-counts --lang ts --sdk ../lantern/sdk/js
  lantern new order-counts --lang ts --sdk lantern-sdk-0.1.0.tgz

Then, in the new folder:
  lantern dev                                 # each saved change is live at once")]
pub(crate) struct Args {
    /// The plugin's name: lower-case letters, digits and hyphens.
    #[arg(value_parser = name)]
    name: String,
    /// Create a project of this language, which is built into a component.
    #[arg(long, value_enum, conflicts_with = "script")]
    lang: Option<Language>,
    /// Create a script or a declaration, which the server runs as it is.
    #[arg(long, value_enum, default_value = "py")]
    script: Script,
    /// The folder to create; named like the plugin if left out.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The folder of the language's SDK, or its package: a .whl for Python, a .tgz for
    /// JavaScript and TypeScript. If left out, the folder is searched for in the parent
    /// folders and in the folder where this command was built.
    #[arg(long, value_name = "FOLDER|FILE", requires = "lang")]
    sdk: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    let fits = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    match (fits, text) {
        // Rust does not allow crates and modules with these names.
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

/// Creates the folder with the files of the template.
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
    let template = args.lang.map_or_else(|| args.script.template(), Language::template);
    let sdk = match template.sdk {
        "" => String::new(),
        _ => sdk(args.sdk.as_deref(), &template, &dir)?,
    };
    let names = Names { name: &args.name, sdk: &sdk, template: &template };
    let files: Vec<_> = template
        .files
        .iter()
        .chain(&SHARED)
        .map(|(path, text)| (names.filled(path), names.filled(text)))
        .collect();
    for (path, text) in &files {
        write(&dir.join(path), text)?;
    }
    let commands = names.filled(template.commands);
    if global.json {
        output::json(&serde_json::json!({
            "name": args.name,
            "folder": dir,
            "files": files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
            "commands": commands.lines().collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    output::line(format!("`{}` is created. Next:", dir.display()));
    output::line(format!("  cd {}", dir.display()));
    output::line("  lantern dev                                    # each saved change is live");
    output::line("or, step by step:");
    for command in commands.lines() {
        output::line(format!("  {command}"));
    }
    Ok(())
}

/// The values that replace names in double braces in a template.
struct Names<'a> {
    name: &'a str,
    /// The path of the SDK's folder, or of its package.
    sdk: &'a str,
    template: &'a Template,
}

impl Names<'_> {
    fn filled(&self, text: &str) -> String {
        // These values contain names in double braces themselves, so they are inserted first.
        text.replace("{{commands}}", self.template.commands)
            .replace("{{source}}", self.template.files[0].0)
            .replace("{{reference}}", self.template.reference)
            .replace("{{ending}}", ending(self.template))
            .replace("{{name}}", self.name)
            .replace("{{module}}", &self.name.replace('-', "_"))
            .replace("{{sdk}}", self.sdk)
    }
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

/// Returns whether `path` is a package of an SDK whose name ends in `ending`.
fn is_package(path: &Path, ending: &str) -> bool {
    !ending.is_empty() && path.is_file() && path.to_string_lossy().ends_with(ending)
}

/// Returns a text that names what the option `--sdk` accepts for `template`.
fn accepted(template: &Template) -> String {
    let folder = template.sdk;
    match template.package {
        "" => format!(
            "name the folder `{folder}` of a checkout of Lantern, or a folder with the unpacked package of the SDK"
        ),
        ending => format!(
            "name the folder `{folder}` of a checkout of Lantern, or the package of the SDK, a file `*{ending}`"
        ),
    }
}

/// Returns the absolute path of the SDK's folder or package.
fn sdk(given: Option<&Path>, template: &Template, dir: &Path) -> Outcome<String> {
    let folder = template.sdk;
    let is_sdk = |folder: &Path| folder.join("README.md").is_file();
    let found = match given {
        Some(given) if is_sdk(given) || is_package(given, template.package) => {
            Some(given.to_owned())
        }
        Some(given) => {
            let message = format!("`{}` is no SDK", given.display());
            return Err(Failure::new(Exit::NotFound, message).help(accepted(template)));
        }
        None => {
            let above = std::path::absolute(dir).map_err(anyhow::Error::from)?;
            let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            above
                .ancestors()
                .chain(std::iter::once(built.as_path()))
                .map(|above| above.join(folder))
                .find(|folder| is_sdk(folder))
        }
    };
    let Some(found) = found else {
        return Err(Failure::new(Exit::NotFound, format!("the SDK `{folder}` was not found"))
            .help(format!("{} with --sdk; a script needs no SDK", accepted(template))));
    };
    let found = found.canonicalize().map_err(anyhow::Error::from)?;
    match found.to_str() {
        // The path is written into TOML, JSON and a Makefile without escapes, so it must not
        // contain their special characters.
        Some(path) if !path.contains(['"', '\\', '\n', '$', '#']) => Ok(path.to_owned()),
        _ => {
            let message = format!("the path `{}` contains special characters", found.display());
            Err(Failure::new(Exit::Refused, message).help("move the checkout to another folder"))
        }
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
    fn the_sdk_is_a_folder_or_the_package_of_its_language() {
        let dir = tempfile::tempdir().unwrap();
        let unpacked = dir.path().join("unpacked");
        std::fs::create_dir(&unpacked).unwrap();
        for file in ["unpacked/README.md", "sdk.whl", "sdk.tgz", "sdk.tar.gz"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        for (language, package) in [
            (Language::Python, Some("sdk.whl")),
            (Language::Js, Some("sdk.tgz")),
            (Language::Ts, Some("sdk.tgz")),
            (Language::C, None),
            (Language::Go, None),
        ] {
            let found = |name| sdk(Some(&dir.path().join(name)), &language.template(), dir.path());
            assert!(found("unpacked").is_ok(), "{language:?}");
            for file in ["sdk.whl", "sdk.tgz", "sdk.tar.gz", "missing.whl"] {
                match found(file) {
                    Ok(path) => {
                        assert_eq!((Some(file), path.ends_with(file)), (package, true));
                    }
                    Err(failure) => {
                        assert_ne!(Some(file), package);
                        assert!(failure.message.contains("is no SDK"), "{}", failure.message);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_of_a_template_is_left_open() {
        use clap::ValueEnum as _;

        let scripts = Script::value_variants().iter().map(|script| script.template());
        let projects = Language::value_variants().iter().map(|language| language.template());
        for template in scripts.chain(projects) {
            let names = Names { name: "order-counts", sdk: "/sdk", template: &template };
            for (path, text) in template.files.iter().chain(&SHARED) {
                let (path, text) = (names.filled(path), names.filled(text));
                assert!(!path.contains("{{") && !text.contains("{{"), "{path}: {text}");
            }
        }
    }
}
