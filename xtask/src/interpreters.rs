//! Builds the interpreters of scripts and declarations with the SDKs, and runs the tests of the
//! SDKs and of the client for TypeScript.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::npm;
use crate::suite::{self, Summary};
use crate::{artifacts, page, shell};

/// The names of the folders that tools create in an SDK's folder.
const CREATED: [&str; 5] = ["node_modules", "build", "dist", "target", "__pycache__"];

/// An SDK or a client that is not built with cargo.
struct Sdk {
    /// The folder of the SDK in the repository.
    folder: &'static str,
    /// The programs that its build and its tests need.
    programs: &'static [&'static str],
    /// A text that names the parts that are missing without these programs.
    shows: &'static str,
    /// Installs the packages that the SDK needs.
    prepare: fn() -> Result<()>,
    /// The interpreter that is built with the SDK, if there is one.
    interpreter: Option<Interpreter>,
    /// Returns the command that tests the SDK. The argument names the missing programs.
    test: fn(&str) -> Command,
}

/// An interpreter that is built with an SDK.
struct Interpreter {
    file: &'static str,
    /// Returns the command that builds the interpreter into a file.
    build: fn(&Path) -> Command,
}

/// All SDKs, each with the programs that it needs.
const SDKS: &[Sdk] = &[
    Sdk {
        folder: "sdk/js",
        programs: &["node", "npm"],
        shows: "there is no interpreter for JavaScript, and the SDK for JavaScript is not tested",
        prepare: || shell::run(&mut npm("sdk/js", &["ci", "--no-audit", "--no-fund"])),
        interpreter: Some(Interpreter {
            file: "javascript.wasm",
            build: |out| {
                let mut build = npm("sdk/js", &["run", "interpreter", "--"]);
                build.arg(out);
                build
            },
        }),
        test: |_| with_host(npm("sdk/js", &["test"])),
    },
    Sdk {
        folder: "clients/ts",
        programs: &["node", "npm"],
        shows: "the client for TypeScript is not tested",
        prepare: || shell::run(&mut npm("clients/ts", &["ci", "--no-audit", "--no-fund"])),
        interpreter: None,
        test: |without| {
            let mut test = npm("clients/ts", &["test"]);
            test.envs(suite::environment(without));
            test
        },
    },
    Sdk {
        folder: page::SOURCES,
        programs: &page::PROGRAMS,
        shows: "the web page is not tested",
        prepare: page::packages,
        interpreter: None,
        test: |without| {
            let mut test = npm(page::SOURCES, &["test"]);
            test.envs(suite::environment(without));
            test
        },
    },
    Sdk {
        folder: "sdk/python",
        programs: &["python3"],
        shows: "there is no interpreter for Python, and the SDK for Python is not tested",
        prepare: python_packages,
        interpreter: Some(Interpreter {
            file: "python.wasm",
            build: |out| {
                let mut build = in_root(python());
                build.arg("sdk/python/build_interpreter.py").arg("--out").arg(out);
                build
            },
        }),
        test: |_| {
            let mut test = in_root(python());
            test.args(["-m", "pytest", "--quiet", "sdk/python"]);
            with_host(test)
        },
    },
    Sdk {
        folder: "sdk/c",
        programs: &["python3"],
        shows: "the SDK for C is not tested",
        prepare: c_compiler,
        interpreter: None,
        test: |_| {
            let mut make = in_root("make");
            make.args(["-C", "sdk/c", "test"]);
            make.env("LANTERN_BIN", artifacts::lantern("debug"));
            make
        },
    },
];

/// Returns the folder that contains the built interpreters.
pub(crate) fn folder() -> PathBuf {
    shell::target_dir().join("interpreters")
}

/// Returns the path of the file that contains the hash of the inputs from which an interpreter was
/// built.
fn built_from(file: &str) -> PathBuf {
    shell::target_dir().join("interpreters-built-from").join(file)
}

/// Builds the interpreters whose inputs have changed. Reports those that cannot be built
/// here; in CI this is an error.
pub(crate) fn build(summary: &mut Summary) -> Result<()> {
    fs::create_dir_all(folder())?;
    fs::create_dir_all(shell::target_dir().join("interpreters-built-from"))?;
    for sdk in SDKS {
        let Some(Interpreter { file, build }) = &sdk.interpreter else { continue };
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
        shell::run(&mut build(&out))?;
        if !out.is_file() {
            bail!("the build of {file} succeeded and wrote no file {}", out.display());
        }
        // This file is written last, so that an interrupted build is repeated.
        fs::write(built_from, inputs)?;
    }
    Ok(())
}

/// Runs the tests of the SDKs and of the client for TypeScript. `without` names the
/// missing programs, separated by commas.
pub(crate) fn test(summary: &mut Summary, without: &str) -> Result<()> {
    for sdk in SDKS {
        if sdk.is_missing_programs(summary)? {
            continue;
        }
        shell::step(&format!("Testing {}", sdk.folder));
        (sdk.prepare)()?;
        let passed = shell::run(&mut (sdk.test)(without));
        if let Err(error) = &passed {
            eprintln!("{error:#}");
        }
        summary.count(passed.is_ok());
    }
    Ok(())
}

impl Sdk {
    /// Reports the missing programs. Returns whether there are any.
    fn is_missing_programs(&self, summary: &mut Summary) -> Result<bool> {
        let Some(program) = shell::missing(self.programs)? else { return Ok(false) };
        summary.skip(
            &format!("`{program}` is not installed: {}", self.shows),
            &format!("install `{program}`, and run the command again"),
        );
        Ok(true)
    }
}

/// Computes a hash over all files from which an interpreter is built. If another compiler has built
/// xtask, the hash may differ, and the interpreters are then built again.
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

/// Returns the path of Python in the SDK's own environment.
fn python() -> PathBuf {
    shell::target_dir().join("python/bin/python3")
}

/// Installs the compiler for WebAssembly that the SDK for C needs, which is a package of PyPI.
pub(crate) fn c_compiler() -> Result<()> {
    if shell::target_dir().join("zig/bin/python").is_file() {
        return Ok(());
    }
    shell::run(in_root("make").args(["-C", "sdk/c", "tools"]))
}

/// Creates the Python environment with the packages that the Python SDK needs.
fn python_packages() -> Result<()> {
    let list = shell::root().join("sdk/python/requirements.txt");
    let wanted = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let environment = shell::target_dir().join("python");
    let done = environment.join("installed.txt");
    if fs::read_to_string(&done).is_ok_and(|old| old == wanted) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(&environment);
    shell::python_environment(&environment, &["-r".as_ref(), list.as_os_str()])?;
    fs::write(done, wanted)?;
    Ok(())
}

/// The tests of an SDK also run scripts and components in the host, with the built
/// interpreters. They share the compiled interpreters with the end-to-end tests.
fn with_host(mut test: Command) -> Command {
    test.env("LANTERN_BIN", artifacts::lantern("debug"))
        .env("LANTERN_PLUGIN__INTERPRETERS_DIR", folder())
        .env("XDG_CACHE_HOME", shell::target_dir().join("tests-cache"));
    test
}

fn in_root(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(shell::root());
    command
}
