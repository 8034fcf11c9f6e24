//! The interpreters of scripts and declarations, and the SDKs that they are built with:
//! builds the interpreters, and runs the SDKs' own tests.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::suite::Summary;

/// Folders in an SDK's folder that its tools create.
const CREATED: [&str; 5] = ["node_modules", "build", "dist", "target", "__pycache__"];

/// An SDK whose tools are not cargo's.
struct Sdk {
    /// Its folder in the repository.
    folder: &'static str,
    /// The interpreter that it builds, if any.
    interpreter: Option<&'static str>,
    /// The programs that it needs.
    programs: &'static [&'static str],
    /// What is missing without them.
    shows: &'static str,
    prepare: fn() -> Result<()>,
    /// The command that builds the interpreter into the file.
    build: fn(&Path) -> Command,
    test: fn() -> Command,
}

/// The SDKs, with what each needs.
const SDKS: &[Sdk] = &[Sdk {
    folder: "sdk/js",
    interpreter: Some("javascript.wasm"),
    programs: &["node", "npm"],
    shows: "there is no interpreter for JavaScript, and the SDK for JavaScript is not tested",
    prepare: || shell::run(npm().args(["ci", "--no-audit", "--no-fund"])),
    build: |out| {
        let mut build = npm();
        build.args(["run", "interpreter", "--"]).arg(out);
        build
    },
    test: || {
        let mut test = npm();
        test.arg("test");
        test
    },
}];

/// The folder with the built interpreters.
pub(crate) fn folder() -> PathBuf {
    shell::target_dir().join("interpreters")
}

/// The file with the hash of the inputs from which an interpreter was built.
fn built_from(file: &str) -> PathBuf {
    shell::target_dir().join("interpreters-built-from").join(file)
}

/// Builds the interpreters whose inputs have changed. Reports those that cannot be built
/// here; in CI this is an error.
pub(crate) fn build(summary: &mut Summary) -> Result<()> {
    fs::create_dir_all(folder())?;
    fs::create_dir_all(shell::target_dir().join("interpreters-built-from"))?;
    for sdk in SDKS {
        let Some(file) = sdk.interpreter else { continue };
        if sdk.is_missing_programs(summary)? {
            continue;
        }
        let inputs = inputs(sdk.folder)?;
        let (out, built_from) = (folder().join(file), built_from(file));
        if out.is_file() && fs::read_to_string(&built_from).is_ok_and(|old| old == inputs) {
            continue;
        }
        shell::step(&format!("Building the interpreter {file}"));
        (sdk.prepare)()?;
        let _ = fs::remove_file(&built_from);
        let _ = fs::remove_file(&out);
        shell::run((sdk.build)(&out).current_dir(sdk.run_in()))?;
        if !out.is_file() {
            bail!("the build of {file} succeeded and wrote no file {}", out.display());
        }
        // Written last, so that an interrupted build is repeated.
        fs::write(built_from, inputs)?;
    }
    Ok(())
}

/// Runs the tests of the SDKs.
pub(crate) fn test(summary: &mut Summary) -> Result<()> {
    for sdk in SDKS {
        if sdk.is_missing_programs(summary)? {
            continue;
        }
        shell::step(&format!("Testing {}", sdk.folder));
        (sdk.prepare)()?;
        let passed = shell::run((sdk.test)().current_dir(sdk.run_in()));
        if let Err(error) = &passed {
            eprintln!("{error:#}");
        }
        summary.count(passed.is_ok());
    }
    Ok(())
}

impl Sdk {
    /// Reports if programs are missing.
    fn is_missing_programs(&self, summary: &mut Summary) -> Result<bool> {
        let missing: Vec<_> = self.programs.iter().filter(|p| !shell::installed(p)).collect();
        let Some(program) = missing.first() else { return Ok(false) };
        if shell::ci() {
            bail!("CI must have every program, and `{program}` is missing");
        }
        summary.skip(
            &format!("`{program}` is not installed: {}", self.shows),
            &format!("install `{program}`, and run the command again"),
        );
        Ok(true)
    }

    /// The folder in which its commands run.
    fn run_in(&self) -> PathBuf {
        shell::root().join(self.folder)
    }
}

/// A hash over all files that an interpreter is built from. With another compiler of xtask
/// it may differ, and the interpreters are then built again.
fn inputs(sdk: &str) -> Result<String> {
    let mut files = Vec::new();
    for folder in [sdk, "wit"] {
        collect(&shell::root().join(folder), &mut files)?;
    }
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        let content = fs::read(&file).with_context(|| file.display().to_string())?;
        (file, content).hash(&mut hash);
    }
    Ok(format!("{:016x}", hash.finish()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() {
            files.push(path);
        } else if !CREATED.contains(&name.as_str()) && !name.starts_with('.') {
            collect(&path, files)?;
        }
    }
    Ok(())
}

fn npm() -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(shell::root().join("sdk/js"));
    npm
}
