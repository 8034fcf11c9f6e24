//! Puts the built files of the web page into the binary, if there are any.
//!
//! `cargo xtask page` writes them, compressed, to the folder `web` in cargo's target
//! folder. On a machine without Node.js there is no such folder. The server is then built
//! without the page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut list = String::from("&[\n");
    if let Some(target) = target_folder(&out) {
        let folder = target.join("web");
        // The folder is created if it is missing. Otherwise cargo would run this script in every
        // build.
        fs::create_dir_all(&folder)?;
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files = Vec::new();
        collect(&folder, &mut files)?;
        files.sort();
        for (number, file) in files.iter().enumerate() {
            // The copy does not change if the page is built again in the meantime.
            let copy = out.join(format!("page-{number}.gz"));
            fs::copy(file, &copy)?;
            let path = file.strip_prefix(&folder).expect("a file of the folder").with_extension("");
            let path = path.to_string_lossy().replace('\\', "/");
            writeln!(list, "    ({:?}, include_bytes!({copy:?})),", format!("/{path}"))
                .expect("a string takes any text");
        }
    } else {
        println!("cargo::rerun-if-changed=build.rs");
    }
    list.push(']');
    fs::write(out.join("page_files.rs"), list)
}

/// Cargo's target folder. `OUT_DIR` is `target/[TRIPLE/]PROFILE/build/PACKAGE/out`.
fn target_folder(out: &Path) -> Option<&Path> {
    let folder = out.ancestors().nth(4)?;
    let triple = env::var_os("TARGET").expect("cargo sets TARGET");
    if folder.file_name() == Some(&triple) { folder.parent() } else { Some(folder) }
}

/// The compressed files in `folder` and the folders in it.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "gz") {
            files.push(path);
        }
    }
    Ok(())
}
