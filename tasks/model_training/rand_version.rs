//! The build script of both components that use `rand`: hands them the version that cargo locked for them, so that the version a task
//! reports is a fact and not a string somebody typed.

#![expect(clippy::print_stdout, reason = "how a build script talks to cargo")]

use std::env;
use std::fs;
use std::path::Path;

fn main() {
    let package = env::var("CARGO_PKG_NAME").expect("cargo sets it");
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(&lock).expect("the workspace has a lock file");

    let versions = |name: &str| -> Vec<String> {
        let mark = format!("name = \"{name}\"\nversion = \"");
        text.match_indices(&mark)
            .filter_map(|(at, _)| text[at + mark.len()..].split('"').next())
            .map(str::to_owned)
            .collect()
    };
    // Where a lock file holds several versions of a crate, a dependency names its own: "rand 0.9.2".
    let own = text
        .split("[[package]]")
        .find(|block| block.contains(&format!("name = \"{package}\"\n")));
    let own = own.expect("the lock file holds this package");
    let version = own
        .lines()
        .filter_map(|line| line.trim().trim_matches([',', '"']).strip_prefix("rand"))
        .find_map(|rest| {
            rest.strip_prefix(' ')
                .map(str::to_owned)
                .or_else(|| versions("rand").pop().filter(|_| rest.is_empty()))
        })
        .expect("this package depends on rand");
    println!("cargo::rustc-env=RAND_VERSION={version}");
}
