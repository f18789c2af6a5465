//! Making a fresh machine ready: the WebAssembly target, the binary, the components and, for tests, optional system packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, cargo, run};

/// The target that task components are built for.
const WASM_TARGET: &str = "wasm32-wasip2";

/// Makes sure that the WebAssembly target is installed.
pub(crate) fn wasm_target() -> Result<()> {
    let sysroot = process::output("rustc", &["--print", "sysroot"]).context("cannot run rustc; is Rust installed?")?;
    if Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(WASM_TARGET)
        .join("lib")
        .is_dir()
    {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", WASM_TARGET]);
    run(rustup).with_context(|| {
        format!("the Rust target {WASM_TARGET} is missing; install it with `rustup target add {WASM_TARGET}`")
    })
}

/// The reason for building the `airtight` binary: it says what else is built with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Running the development build.
    Run,
    /// The tests: the development build, with all that they need.
    Test,
    /// Measuring: the release build, with the programs that measure floors.
    Measure,
}

/// Builds the `airtight` binary and answers its path.
///
/// Cargo chooses the features of shared dependencies by the packages that are asked for, and counts what tests need only where a
/// target of that kind is among them. So the development builds ask for the whole workspace, and for a small example even where only
/// the binary is wanted: the tests then find all dependencies compiled.
pub(crate) fn build_host(build: Build) -> Result<PathBuf> {
    let (arguments, profile): (&[&str], _) = match build {
        Build::Run => (
            &["build", "--workspace", "--bin=airtight", "--example=write_floor"],
            "debug",
        ),
        Build::Test => (&["build", "--workspace", "--all-targets"], "debug"),
        Build::Measure => (
            &[
                "build",
                "--release",
                "--package=host",
                "--bin=airtight",
                "--package=db",
                "--example=commit_time",
                "--package=blobs",
                "--example=write_floor",
                "--package=runtime",
                "--bench=task_start",
            ],
            "release",
        ),
    };
    let path = crate::target_dir().join(profile).join("airtight");
    if !path.exists() {
        let minutes = if build == Build::Measure { "about 25" } else { "about 9" };
        eprintln!("building the server; the first time that takes {minutes} minutes on two cores");
    }
    run(cargo(arguments))?;
    Ok(path)
}

/// Builds every component crate under `tasks/` and answers (name, path of the `.wasm`).
pub(crate) fn build_components() -> Result<Vec<(String, PathBuf)>> {
    let packages = component_packages()?;
    // The directory that the tests build the same components in.
    let target_dir = crate::target_dir().join("guests");
    let mut command = cargo(&["build", "--target", WASM_TARGET, "--profile", "guest", "--target-dir"]);
    command.arg(&target_dir);
    for (package, _) in &packages {
        command.args(["--package", package]);
    }
    run(command)?;
    let dir = target_dir.join(WASM_TARGET).join("guest");
    packages
        .into_iter()
        .map(|(package, library)| {
            let path = dir.join(format!("{library}.wasm"));
            if !path.is_file() {
                bail!("package `{package}` was built, but {} does not exist", path.display());
            }
            Ok((package, path))
        })
        .collect()
}

/// The workspace's packages under `tasks/` that make a component, with the name of their library.
fn component_packages() -> Result<Vec<(String, String)>> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cannot read `cargo metadata`")?;
    let tasks = crate::root().join("tasks");
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let inside = package["manifest_path"]
            .as_str()
            .is_some_and(|path| Path::new(path).starts_with(&tasks));
        let library = package["targets"].as_array().into_iter().flatten().find(|target| {
            target["crate_types"]
                .as_array()
                .is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        });
        if let (true, Some(name), Some(library)) = (inside, package["name"].as_str(), library) {
            let library = library["name"].as_str().unwrap_or(name).replace('-', "_");
            packages.push((name.to_owned(), library));
        }
    }
    packages.sort();
    Ok(packages)
}

/// Something that some tests need and a machine may lack, with the reason why it is not there.
pub(crate) struct Missing {
    /// What is missing.
    pub(crate) what: &'static str,
    /// Which tests are skipped because of it.
    pub(crate) skipped: &'static str,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// Makes sure that a component of the Rust toolchain is installed; answers what is missing without it where it cannot be.
pub(crate) fn component(name: &'static str, skipped: &'static str) -> Option<Missing> {
    // `cargo fmt` and `cargo clippy` are `cargo-fmt` and `cargo-clippy`, which answer where the component is there.
    let subcommand = name.strip_prefix("rust").unwrap_or(name);
    let installed = || {
        cargo(&[subcommand, "--version"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !installed() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", name]);
        if let Err(error) = run(rustup) {
            eprintln!("warning: {error:#}");
        }
    }
    (!installed()).then(|| Missing {
        what: name,
        skipped,
        remedy: format!("`rustup component add {name}`"),
    })
}

/// What the optional parts of the tests run on.
#[derive(Default)]
pub(crate) struct Optional {
    /// A Python interpreter with the official Airflow client.
    pub(crate) python: Option<PathBuf>,
    /// What is not there.
    pub(crate) missing: Vec<Missing>,
}

/// Installs what the tests would like to have: PostgreSQL and a Python environment with the official Airflow client.
pub(crate) fn optional() -> Optional {
    let mut optional = Optional::default();
    if !has_postgres() {
        install(&["postgresql"]);
    }
    if !has_postgres() {
        optional.missing.push(Missing {
            what: "PostgreSQL",
            skipped: "every test on PostgreSQL",
            remedy: "install the package `postgresql` (server programs `initdb` and `postgres`)".to_owned(),
        });
    }
    match python() {
        Ok(python) => optional.python = Some(python),
        Err(error) => optional.missing.push(Missing {
            what: "the official Airflow client for Python",
            skipped: "the test that drives the server with it",
            remedy: format!("install `python3` and `python3-venv`, and let `pip` reach its package index ({error:#})"),
        }),
    }
    optional
}

fn has_postgres() -> bool {
    process::succeeds("initdb", &["--version"])
        || std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|versions| {
            versions
                .flatten()
                .any(|version| version.path().join("bin/initdb").is_file())
        })
}

/// Installs Debian packages where that is possible without asking anybody.
fn install(packages: &[&str]) {
    let root = process::output("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    if !root || !Path::new("/usr/bin/apt-get").is_file() {
        return;
    }
    for arguments in [
        &["-qq", "update"][..],
        &[&["-qq", "-y", "--no-install-recommends", "install"], packages].concat(),
    ] {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        if let Err(error) = run(command) {
            eprintln!("warning: {error:#}");
            return;
        }
    }
}

/// A virtual environment under `target/` with the official client in it.
fn python() -> Result<PathBuf> {
    let environment = crate::target_dir().join("python");
    let python = environment.join("bin/python");
    let requirements = crate::root().join("tests/python/requirements.txt");
    let installed = environment.join("installed.txt");
    let wanted =
        std::fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    if python.is_file() && std::fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    if !process::succeeds("python3", &["-c", "import venv, ensurepip"]) {
        install(&["python3", "python3-venv"]);
    }
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&environment);
    run(create)?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ])
    .arg(&requirements);
    run(pip)?;
    std::fs::write(&installed, wanted).context("cannot write to the virtual environment")?;
    Ok(python)
}
