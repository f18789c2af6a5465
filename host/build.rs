//! Packs the SDK's sources, the WIT package and the templates of `airtight init` into the binary, as a list of names and texts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let host = variable("CARGO_MANIFEST_DIR")?;
    let mut code = String::new();
    pack(&host.join("../wit"), "wit", "SDK_WIT", &mut code)?;
    pack(
        &host.join("../guest-sdk/src"),
        "airtight-sdk/src",
        "SDK_SOURCES",
        &mut code,
    )?;
    pack(
        &host.join("../guest-sdk/macros/src"),
        "airtight-sdk-macros/src",
        "SDK_MACROS",
        &mut code,
    )?;
    pack(&host.join("templates"), "", "TEMPLATES", &mut code)?;
    fs::write(variable("OUT_DIR")?.join("packed.rs"), code)
}

/// Writes a constant with all files below a directory, by their names from it on, in order.
fn pack(dir: &Path, prefix: &str, constant: &str, code: &mut String) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files = Vec::new();
    find(dir, &mut files)?;
    files.sort();
    let _ = writeln!(code, "pub(super) const {constant}: &[(&str, &str)] = &[");
    for file in files {
        let below = file.strip_prefix(dir).map_err(io::Error::other)?;
        let name = Path::new(prefix).join(below);
        let _ = writeln!(code, "    ({:?}, include_str!({:?})),", name, file.canonicalize()?);
    }
    code.push_str("];\n");
    Ok(())
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
