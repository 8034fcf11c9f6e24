//! Implements `cargo xtask dist`, which writes packages with the binary `lantern` and its
//! interpreters, for machines without Rust, and packages of the SDKs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::suite::Summary;
use crate::{artifacts, interpreters, page, sdk_packages, shell};

/// The version that every package gets.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const DESCRIPTION: &str = "Folds event logs into live tables with sandboxed plugins";

/// The programs that write the packages, except for those of the C compiler's package.
pub(crate) const TOOLS: [&str; 4] = ["tar", "python3", "npm", "dpkg-deb"];

/// Builds the binary, unless `binary` is given, and writes all packages to
/// `target/dist`.
pub(crate) fn run(binary: Option<PathBuf>) -> Result<()> {
    if let Some(missing) = TOOLS.iter().find(|tool| !shell::installed(tool)) {
        bail!("the program `{missing}` is missing: it writes a package");
    }
    let binary = match binary {
        Some(binary) => binary,
        None => {
            shell::step("Building the web page");
            page::build(&mut Summary::default())?;
            shell::step("Building the binary");
            shell::run(&mut shell::cargo([
                "build",
                "--release",
                "--workspace",
                "--bin=lantern",
                // OpenSSL is linked into the binary, so that it needs no library of the machine
                // except libc.
                "--features=lantern-cli/vendored-openssl",
            ]))?;
            artifacts::lantern("release")
        }
    };
    let dist = Dist::stage(&binary)?;
    shell::step("Writing the packages");
    dist.archive()?;
    dist.wheel()?;
    dist.npm()?;
    dist.debian()?;
    sdk_packages::write(&dist.folder)?;
    sdk_packages::list(&dist.folder)
}

/// Returns the folder to which the packages are written.
pub(crate) fn folder() -> PathBuf {
    shell::target_dir().join("dist")
}

/// A kind of processor, by the names that package managers use for it.
struct Machine {
    rust: &'static str,
    debian: &'static str,
    node: &'static str,
}

const MACHINES: [Machine; 2] = [
    Machine { rust: "x86_64", debian: "amd64", node: "x64" },
    Machine { rust: "aarch64", debian: "arm64", node: "arm64" },
];

/// The files and versions that all packages contain.
struct Dist {
    folder: PathBuf,
    /// The path of the binary without debug symbols.
    binary: PathBuf,
    interpreters: Vec<PathBuf>,
    machine: &'static Machine,
    /// The version of the machine's C library, such as `2.36`.
    glibc: String,
}

impl Dist {
    fn stage(binary: &Path) -> Result<Self> {
        let machine = MACHINES
            .iter()
            .find(|machine| machine.rust == std::env::consts::ARCH)
            .context("packages are written on x86_64 and aarch64 only")?;
        let folder = folder();
        let _ = std::fs::remove_dir_all(&folder);
        let stage = folder.join("stage");
        std::fs::create_dir_all(&stage)?;
        let stripped = stage.join("lantern");
        let mut strip = Command::new("strip");
        shell::run(strip.arg("-o").arg(&stripped).arg(binary))?;
        let interpreters = interpreters::folder();
        let entries = std::fs::read_dir(&interpreters).with_context(|| {
            format!(
                "there are no interpreters in {}; `cargo xtask interpreters` builds them",
                interpreters.display()
            )
        })?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "wasm") {
                files.push(path);
            }
        }
        files.sort();
        // The output is a text such as "glibc 2.36".
        let glibc = shell::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
        let glibc = glibc.split_whitespace().last().unwrap_or_default().to_owned();
        Ok(Self { folder, binary: stripped, interpreters: files, machine, glibc })
    }

    fn name(&self) -> String {
        format!("lantern-{VERSION}-{}-linux", self.machine.rust)
    }

    /// Creates a new folder for the files of one package.
    fn package(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join("stage").join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Copies the binary to `bin` and the interpreters to `interpreters`.
    fn copy(&self, bin: &Path, interpreters: &Path) -> Result<()> {
        std::fs::create_dir_all(bin)?;
        std::fs::create_dir_all(interpreters)?;
        std::fs::copy(&self.binary, bin.join("lantern"))?;
        for file in &self.interpreters {
            let name = file.file_name().context("a file has a name")?;
            std::fs::copy(file, interpreters.join(name))?;
        }
        Ok(())
    }

    /// Writes an archive. A user unpacks it and runs `lantern`.
    fn archive(&self) -> Result<()> {
        let name = self.name();
        let files = self.package("archive")?.join(&name);
        self.copy(&files, &files.join("interpreters"))?;
        for text in ["README.md", "LICENSE", "CHANGELOG.md"] {
            std::fs::copy(shell::root().join(text), files.join(text))?;
        }
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
        tar.arg(self.folder.join(format!("{name}.tar.gz")));
        shell::run(tar.arg("-C").arg(self.package("archive")?).arg(&name))
    }

    /// Writes a wheel for `pip install`, which contains the binary as a script
    /// (<https://packaging.python.org/en/latest/specifications/binary-distribution-format/>).
    fn wheel(&self) -> Result<()> {
        let files = self.package("wheel")?;
        let data = files.join(format!("lantern-{VERSION}.data"));
        self.copy(&data.join("scripts"), &data.join("data/share/lantern/interpreters"))?;
        let info = files.join(format!("lantern-{VERSION}.dist-info"));
        std::fs::create_dir_all(&info)?;
        std::fs::write(
            info.join("METADATA"),
            format!(
                "Metadata-Version: 2.1\nName: lantern\nVersion: {VERSION}\nSummary: {DESCRIPTION}\nLicense: Apache-2.0\n"
            ),
        )?;
        let tag =
            format!("py3-none-manylinux_{}_{}", self.glibc.replace('.', "_"), self.machine.rust);
        std::fs::write(
            info.join("WHEEL"),
            format!("Wheel-Version: 1.0\nGenerator: lantern\nRoot-Is-Purelib: false\nTag: {tag}\n"),
        )?;
        let mut pack = Command::new(sdk_packages::wheel_tools(&self.folder)?);
        pack.args(["-m", "wheel", "pack"]).arg(&files).arg("--dest-dir").arg(&self.folder);
        shell::run(&mut pack)
    }

    /// Writes a package for `npm install`, with the binary as its command.
    fn npm(&self) -> Result<()> {
        let files = self.package("npm")?;
        self.copy(&files.join("bin"), &files.join("bin/interpreters"))?;
        let node = self.machine.node;
        std::fs::write(
            files.join("package.json"),
            format!(
                "{{\"name\":\"lantern\",\"version\":\"{VERSION}\",\"description\":\"{DESCRIPTION}\",\"license\":\"Apache-2.0\",\"os\":[\"linux\"],\"cpu\":[\"{node}\"],\"bin\":{{\"lantern\":\"bin/lantern\"}},\"files\":[\"bin\"]}}\n"
            ),
        )?;
        let mut pack = Command::new("npm");
        pack.args(["pack", "--silent", "--pack-destination"]).arg(&self.folder);
        shell::run(pack.current_dir(&files))
    }

    /// Writes a package for Debian.
    fn debian(&self) -> Result<()> {
        let files = self.package("debian")?;
        self.copy(&files.join("usr/bin"), &files.join("usr/share/lantern/interpreters"))?;
        let control = files.join("DEBIAN");
        std::fs::create_dir_all(&control)?;
        let (debian, glibc) = (self.machine.debian, &self.glibc);
        std::fs::write(
            control.join("control"),
            format!(
                "Package: lantern\nVersion: {VERSION}\nArchitecture: {debian}\nMaintainer: The Lantern developers\nDepends: libc6 (>= {glibc})\nSection: database\nPriority: optional\nDescription: {DESCRIPTION}\n"
            ),
        )?;
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Zgzip", "--build"]).arg(&files);
        shell::run(build.arg(self.folder.join(format!("lantern_{VERSION}_{debian}.deb"))))
    }
}
