//! Finds the files from which a plugin is built on the developer's machine: a script, a
//! declaration, a component, or a folder that the tool of its language builds.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lantern_plugin::Language;

use crate::error::{Exit, Failure, Outcome};

/// The Rust target for which plugins are built.
const RUST_TARGET: &str = "wasm32-unknown-unknown";
/// The folder into which the tools of languages other than Rust write the component.
const BUILD: &str = "build";
/// The extension of a component or core module.
const COMPONENT: &str = "wasm";
/// Folders into which tools write. A change in them is not a change of the source code.
const WRITTEN: [&str; 7] =
    ["target", BUILD, "node_modules", "__pycache__", "dist", "data", ".venv"];

/// The tool that builds the plugin in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Cargo,
    Npm,
    Python,
    Go,
    Make,
}

/// The files that show which tool builds a folder, in order of priority.
const MARKS: [(&str, Tool); 6] = [
    ("Cargo.toml", Tool::Cargo),
    ("package.json", Tool::Npm),
    ("pyproject.toml", Tool::Python),
    ("requirements.txt", Tool::Python),
    ("go.mod", Tool::Go),
    ("Makefile", Tool::Make),
];

/// The files from which a plugin is built.
#[derive(Debug)]
pub(super) struct Project {
    /// The folder that is watched. The tool runs in this folder.
    folder: PathBuf,
    plugin: Plugin,
}

#[derive(Debug, PartialEq, Eq)]
enum Plugin {
    /// A single file, which is pushed unchanged.
    File(PathBuf),
    Built(Tool),
}

impl Project {
    /// Finds the project at `path`. The path names a file or a folder. A folder must contain either
    /// a file that shows which tool builds it, or exactly one script.
    ///
    /// # Errors
    /// Fails if `path` does not exist, or if it is not clear which file is meant.
    pub(super) fn find(path: &Path) -> Outcome<Self> {
        if path.is_file() {
            return Self::of_file(path);
        }
        if !path.is_dir() {
            let message = format!("there is no file or folder `{}`", path.display());
            return Err(
                Failure::new(Exit::NotFound, message).help("`lantern new NAME` creates a project")
            );
        }
        let folder = absolute(path)?;
        if let Some((_, tool)) = MARKS.iter().find(|(mark, _)| path.join(mark).is_file()) {
            return Ok(Self { folder, plugin: Plugin::Built(*tool) });
        }
        let scripts = scripts(path)?;
        match scripts.as_slice() {
            [script] => Ok(Self { folder, plugin: Plugin::File(script.clone()) }),
            [] => {
                let marks = MARKS.map(|(mark, _)| mark).join(", ");
                let message = format!(
                    "`{}` contains no project: no {marks}, and no .py, .js, .ts or .yaml file",
                    path.display()
                );
                Err(Failure::new(Exit::NotFound, message)
                    .help("`lantern new NAME` creates a project"))
            }
            several => {
                let names: Vec<_> = several.iter().map(|file| file.display().to_string()).collect();
                let message =
                    format!("`{}` contains several scripts: {}", path.display(), names.join(", "));
                Err(Failure::new(Exit::Usage, message).help("name one of them"))
            }
        }
    }

    fn of_file(path: &Path) -> Outcome<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ending != COMPONENT && language(path).is_none() {
            let message = format!("`{}` is no plugin: its name ends in `{ending}`", path.display());
            return Err(Failure::new(Exit::Refused, message).help(format!(
                "a plugin is a .{COMPONENT}, .py, .js, .ts, .yaml or .json file, or a folder"
            )));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = absolute(parent.unwrap_or(Path::new(".")))?;
        Ok(Self { folder, plugin: Plugin::File(path.to_owned()) })
    }

    /// Returns the folder of the project.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the folders with source code inside the project's folder. Folders into which tools
    /// write are left out, because they may be large.
    pub(super) fn source_folders(&self) -> Vec<PathBuf> {
        if matches!(self.plugin, Plugin::File(_)) {
            return Vec::new();
        }
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
        folders.filter(|path| self.concerns(path)).collect()
    }

    /// Returns whether a change of `path` can change the plugin or its sample events.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        match &self.plugin {
            Plugin::File(file) => path.file_name() == file.file_name(),
            Plugin::Built(_) => {
                let inside = path.strip_prefix(&self.folder).unwrap_or(path);
                !inside.components().any(|part| {
                    let name = part.as_os_str().to_string_lossy();
                    WRITTEN.contains(&name.as_ref()) || name.starts_with('.') && name.len() > 1
                })
            }
        }
    }

    /// Builds the plugin with the tool of its language. The output of the tool goes to standard
    /// error. Returns the file to push.
    ///
    /// # Errors
    /// Fails if the tool is missing or fails, or if it has written no component.
    pub(super) fn build(&self) -> Outcome<PathBuf> {
        match &self.plugin {
            Plugin::File(file) => Ok(file.clone()),
            Plugin::Built(Tool::Cargo) => self.cargo(),
            Plugin::Built(Tool::Npm) => {
                if !self.folder.join("node_modules").is_dir() {
                    self.run("npm", &["install"], "install Node.js 20 or newer")?;
                }
                self.run("npm", &["run", "build"], "install Node.js 20 or newer")?;
                self.component()
            }
            Plugin::Built(Tool::Python) => self.python(),
            Plugin::Built(Tool::Go) => self.go(),
            Plugin::Built(Tool::Make) => {
                self.run("make", &[], "install GNU make")?;
                self.component()
            }
        }
    }

    /// Builds the Python module that contains the projection, in a virtual environment with the
    /// packages that the project requires.
    fn python(&self) -> Outcome<PathBuf> {
        let install = "install Python 3.11 or newer";
        let python = self.folder.join(".venv/bin/python");
        let python = python.to_string_lossy();
        if !self.folder.join(".venv").is_dir() {
            self.run("python3", &["-m", "venv", ".venv"], install)?;
            let named = self.folder.join("requirements.txt").is_file();
            let what: &[&str] = if named { &["-r", "requirements.txt"] } else { &["."] };
            let pip = [&["-m", "pip", "install", "--quiet"], what].concat();
            if let Err(failure) = self.run(&python, &pip, install) {
                // An incomplete environment is removed. Otherwise the next build would take it for
                // a complete one.
                let _ = std::fs::remove_dir_all(self.folder.join(".venv"));
                return Err(failure);
            }
        }
        self.run(&python, &["-m", "lantern", "build"], install)?;
        self.component()
    }

    /// Builds the module with the projection, and makes a component of it.
    fn go(&self) -> Outcome<PathBuf> {
        let folder = self.folder.join(BUILD);
        let name = go_name(&self.folder.join("go.mod"))?;
        let (module, file) = (folder.join("module"), folder.join(format!("{name}.{COMPONENT}")));
        std::fs::create_dir_all(&folder).map_err(anyhow::Error::from)?;
        // The plugin must not depend on paths of this machine or on the state of a repository, so
        // both are left out. The linker also leaves out names for debuggers; panics still name
        // files and lines.
        let mut arguments = vec!["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false"];
        let written = module.to_string_lossy();
        arguments.extend(["-ldflags=-s -w", "-o", &written, "."]);
        let platform = [("GOOS", "wasip1"), ("GOARCH", "wasm")];
        self.run_with("go", &arguments, &platform, "install Go 1.24 or newer from https://go.dev")?;
        let built = std::fs::read(&module).map_err(anyhow::Error::from)?;
        let component = lantern_plugin::componentize(&built).map_err(|error| {
            Failure::new(Exit::Failure, error.to_string()).help(
                "the program needs a package main that imports the SDK and calls lantern.Register",
            )
        })?;
        std::fs::write(&file, component).map_err(anyhow::Error::from)?;
        std::fs::remove_file(&module).map_err(anyhow::Error::from)?;
        Ok(file)
    }

    fn run(&self, program: &str, arguments: &[&str], install: &str) -> Outcome {
        self.run_with(program, arguments, &[], install)
    }

    /// Runs a program, with further environment variables.
    fn run_with(
        &self,
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        install: &str,
    ) -> Outcome {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).stdout(std::io::stderr());
        command.envs(variables.iter().copied());
        let ended = command.status().map_err(|error| not_started(program, &error, install))?;
        if ended.success() {
            return Ok(());
        }
        let line = [&[program], arguments].concat().join(" ");
        Err(Failure::new(Exit::Failure, format!("`{line}` failed: {ended}"))
            .help("its messages are above"))
    }

    fn cargo(&self) -> Outcome<PathBuf> {
        let install = "install Rust from https://rustup.rs";
        require_rust_target(install)?;
        let mut command = Command::new("cargo");
        command
            .args(["build", "--release", "--target", RUST_TARGET])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(&self.folder)
            .stderr(Stdio::inherit());
        let built = command.output().map_err(|error| not_started("cargo", &error, install))?;
        if !built.status.success() {
            return Err(
                Failure::new(Exit::Failure, "`cargo build` failed").help("its messages are above")
            );
        }
        let components: Vec<PathBuf> = String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["reason"] == "compiler-artifact")
            .flat_map(|artifact| artifact["filenames"].as_array().cloned().unwrap_or_default())
            .filter_map(|file| file.as_str().map(PathBuf::from))
            .filter(|file| file.extension().is_some_and(|ending| ending == COMPONENT))
            .collect();
        match components.as_slice() {
            [component] => Ok(component.clone()),
            [] => Err(Failure::new(Exit::Failure, "`cargo build` wrote no .wasm file")
                .help("Cargo.toml needs `crate-type = [\"cdylib\", \"rlib\"]` under [lib]")),
            several => Err(Failure::new(
                Exit::Failure,
                format!("`cargo build` wrote {} .wasm files", several.len()),
            )
            .help("run it in the folder of one plugin")),
        }
    }

    /// Returns the newest component in the folder `build`.
    fn component(&self) -> Outcome<PathBuf> {
        let folder = self.folder.join(BUILD);
        let newest = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == COMPONENT))
            .max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
        newest.ok_or_else(|| {
            let message = format!("the build wrote no .wasm file into `{}`", folder.display());
            Failure::new(Exit::Failure, message).help("build it there, or name the file")
        })
    }
}

/// Returns the path of `folder` without symbolic links. Reports of changed files have such paths.
fn absolute(folder: &Path) -> Outcome<PathBuf> {
    Ok(folder.canonicalize().map_err(anyhow::Error::from)?)
}

/// Returns the language of a file that a server runs without a build; `None` for other files.
fn language(path: &Path) -> Option<Language> {
    Language::of(path.file_name()?.to_str()?)
}

/// Returns the scripts and declarations that are directly in `folder`.
fn scripts(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let cannot = |error: std::io::Error| {
        let message = format!("cannot read the folder `{}`: {error}", folder.display());
        Failure::new(Exit::NotFound, message)
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Some files in the folder are no scripts of the project, and are left out: tests, and JSON
        // files, which may contain parameters.
        let other = name.starts_with("test_") || name.contains(".test.") || name.ends_with(".json");
        if path.is_file() && !other && language(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the name of a component in Go: the last part of the module's path in go.mod.
fn go_name(path: &Path) -> Outcome<String> {
    let text = std::fs::read_to_string(path).map_err(anyhow::Error::from)?;
    let module = text.lines().find_map(|line| line.trim().strip_prefix("module "));
    let module = module.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let name = module.trim_matches('"').rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        let message = format!("`{}` names no module", path.display());
        return Err(Failure::new(Exit::Refused, message).help("`go mod init NAME` writes it"));
    }
    Ok(name.to_owned())
}

/// Fails with the command that adds the Rust target if it is missing.
fn require_rust_target(install: &str) -> Outcome {
    let printed = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", RUST_TARGET])
        .output()
        .map_err(|error| not_started("rustc", &error, install))?;
    let folder = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
    if printed.status.success() && Path::new(&folder).is_dir() {
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, format!("Rust's target {RUST_TARGET} is not installed"))
        .help(format!("`rustup target add {RUST_TARGET}` installs it")))
}

fn not_started(program: &str, error: &std::io::Error, install: &str) -> Failure {
    if error.kind() == ErrorKind::NotFound {
        return Failure::new(Exit::NotFound, format!("the program `{program}` is missing"))
            .help(install);
    }
    Failure::new(Exit::Failure, format!("cannot start `{program}`: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn a_folder_is_built_by_the_tool_whose_file_it_contains() {
        for (mark, tool) in MARKS {
            let dir = folder(&[mark, "setup.py"]);
            assert_eq!(Project::find(dir.path()).unwrap().plugin, Plugin::Built(tool));
        }
    }

    #[test]
    fn a_component_in_go_is_named_after_the_last_part_of_its_module() {
        let dir = folder(&[]);
        let path = dir.path().join("go.mod");
        let name = |text: &str| {
            std::fs::write(&path, text).unwrap();
            go_name(&path)
        };
        let text = "// A plugin.\nmodule example.com/a/order-counts // named so\n\ngo 1.24\n";
        assert_eq!(name(text).unwrap(), "order-counts");
        assert_eq!(name("module \"counts\"\n").unwrap(), "counts");
        assert_eq!(name("go 1.24\n").unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_folder_with_one_script_is_that_script_and_tests_do_not_count() {
        let dir = folder(&["totals.py", "test_totals.py", "events.ndjson", "parameters.json"]);
        let project = Project::find(dir.path()).unwrap();
        assert_eq!(project.build().unwrap(), dir.path().join("totals.py"));
        assert!(project.concerns(&dir.path().join("totals.py")));
        assert!(!project.concerns(&dir.path().join("other.py")));
        let dir = folder(&["a.py", "b.ts"]);
        assert_eq!(Project::find(dir.path()).unwrap_err().exit, Exit::Usage);
        let dir = folder(&["readme.txt"]);
        assert_eq!(Project::find(dir.path()).unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn a_file_is_a_plugin_by_its_ending() {
        let dir = folder(&["a.wasm", "b.yaml", "c.rb"]);
        assert!(Project::find(&dir.path().join("a.wasm")).is_ok());
        assert!(Project::find(&dir.path().join("b.yaml")).is_ok());
        assert_eq!(Project::find(&dir.path().join("c.rb")).unwrap_err().exit, Exit::Refused);
        assert_eq!(Project::find(&dir.path().join("d.py")).unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn files_that_tools_write_are_no_change_of_the_source() {
        let dir = folder(&["Cargo.toml"]);
        let project = Project::find(dir.path()).unwrap();
        assert!(project.concerns(&dir.path().join("src/lib.rs")));
        assert!(!project.concerns(&dir.path().join("target/debug/x")));
        assert!(!project.concerns(&dir.path().join(".git/index")));
    }
}
