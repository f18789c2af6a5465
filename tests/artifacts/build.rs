//! Builds all guest components with one nested cargo and writes their paths as constants.
//!
//! The nested cargo has a target directory of its own: cargo holds a lock on the outer one for as long as this script runs. It asks
//! cargo itself which packages are guests: everything in the workspace under `tasks/` and the package `test-guests`.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "guest";

/// One component.
struct Guest {
    package: String,
    /// The name of the cargo target, with `_` for `-`.
    name: String,
    /// Whether it is a program in `tests/guests`, which have suites.
    test: bool,
}

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .context("cannot find the workspace")?;
    // Shared by all builds of this package: a rebuild of the guests is then a small step.
    let target_dir = target_root(&out).join("guests");

    let guests = find_guests(&root)?;
    build(&root, &target_dir, &guests)?;

    for dir in ["guest-sdk/src", "guest-sdk/macros/src", "wit", "tasks", "tests/guests"] {
        println!("cargo::rerun-if-changed={}", root.join(dir).display());
    }
    for file in [
        "guest-sdk/Cargo.toml",
        "guest-sdk/macros/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }

    std::fs::write(
        out.join("artifacts.rs"),
        generate(&guests, &target_dir.join(TARGET).join(PROFILE))?,
    )
    .context("cannot write the constants")
}

/// `<target>` out of `<target>/<profile>/build/<package>-<hash>/out`, wherever cargo was told to put it.
fn target_root(out: &Path) -> PathBuf {
    out.ancestors()
        .find(|dir| dir.ends_with("build"))
        .and_then(|build| build.ancestors().nth(2))
        .unwrap_or(out)
        .to_owned()
}

/// A cargo that does not inherit what the outer one set up for the host.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        // CARGO_HOME and the registry and network settings say where crates come from; everything else is about the outer build.
        let about_build = (name.starts_with("CARGO") || name.starts_with("RUSTC") || name.starts_with("RUSTDOC"))
            && !name.starts_with("CARGO_HOME")
            && !name.starts_with("CARGO_NET")
            && !name.starts_with("CARGO_HTTP")
            && !name.starts_with("CARGO_REGISTR")
            && !name.starts_with("CARGO_SOURCE")
            && !name.starts_with("CARGO_TERM");
        if about_build
            || matches!(
                name,
                "RUSTFLAGS" | "TARGET" | "HOST" | "PROFILE" | "OPT_LEVEL" | "DEBUG" | "NUM_JOBS"
            )
        {
            command.env_remove(name);
        }
    }
    command
}

fn find_guests(root: &Path) -> Result<Vec<Guest>> {
    let output = cargo(root)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;

    let mut guests = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?
    {
        let package_name = package["name"].as_str().context("a package has no name")?;
        let manifest = Path::new(package["manifest_path"].as_str().context("a package has no path")?);
        let test = package_name == "test-guests";
        if !test && !manifest.starts_with(root.join("tasks")) {
            continue;
        }
        for target in package["targets"].as_array().into_iter().flatten() {
            let has = |kind: &str| {
                target["kind"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().any(|k| k == kind))
            };
            if has("cdylib") || (test && has("bin")) {
                let name = target["name"].as_str().context("a target has no name")?;
                guests.push(Guest {
                    package: package_name.to_owned(),
                    name: name.replace('-', "_"),
                    test,
                });
            }
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in guests.windows(2) {
        if let [a, b] = pair {
            ensure!(
                a.name != b.name,
                "`{}` and `{}` both build `{}.wasm`",
                a.package,
                b.package,
                a.name
            );
        }
    }
    Ok(guests)
}

fn build(root: &Path, target_dir: &Path, guests: &[Guest]) -> Result<()> {
    let mut packages: Vec<&str> = guests.iter().map(|guest| guest.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();

    let mut command = cargo(root);
    command.args(["build", "--locked", "--target", TARGET, "--profile", PROFILE]);
    command.arg("--target-dir").arg(target_dir);
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.output().context("cannot run cargo")?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("target may not be installed") {
        bail!("the guests need the target {TARGET}: run `rustup target add {TARGET}` once");
    }
    bail!("cannot build the guests:\n{stderr}")
}

fn generate(guests: &[Guest], dir: &Path) -> Result<String> {
    let mut code = String::new();
    for guest in guests {
        let file = dir.join(format!("{}.wasm", guest.name));
        ensure!(file.is_file(), "cargo built no {}", file.display());
        let what = if guest.test {
            "Test guest"
        } else {
            "Component of package"
        };
        let named = if guest.test { &guest.name } else { &guest.package };
        writeln!(
            code,
            "/// {what} `{named}`.\npub const {}: &str = {file:?};",
            guest.name.to_uppercase()
        )?;
    }
    writeln!(
        code,
        "/// All components: name and path.\npub const ALL: &[(&str, &str)] = &["
    )?;
    for guest in guests {
        writeln!(code, "    ({:?}, {}),", guest.name, guest.name.to_uppercase())?;
    }
    writeln!(code, "];")?;

    let mut suites: Vec<&str> = guests
        .iter()
        .filter(|guest| guest.test)
        .filter_map(|guest| suite(&guest.name))
        .collect();
    suites.dedup();
    for of in suites {
        writeln!(
            code,
            "/// Calls a macro with the name of every test guest of the suite `{of}`."
        )?;
        writeln!(
            code,
            "#[macro_export]\nmacro_rules! foreach_{of} {{\n    ($mac:ident) => {{"
        )?;
        for guest in guests
            .iter()
            .filter(|guest| guest.test && suite(&guest.name) == Some(of))
        {
            writeln!(code, "        $mac!({});", guest.name)?;
        }
        writeln!(code, "    }};\n}}")?;
    }
    Ok(code)
}

/// `xcom` of `xcom_round_trip`.
fn suite(name: &str) -> Option<&str> {
    name.split('_').next()
}
