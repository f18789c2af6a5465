//! `airtight dev`: builds, runs and shows, with every change that is saved.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use clap::Args;
use tokio::process::Command;

use super::watch::Watch;
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::term::{self, Paint};

/// The target that components are built for.
const WASM_TARGET: &str = "wasm32-wasip2";
/// The profile of the crates that `airtight init` makes.
const PROFILE: &str = "guest";
/// That profile, so that it compiles quickly: what is built lies where the manifest looks for it.
const QUICK: [&str; 5] = [
    "profile.guest.opt-level=1",
    "profile.guest.lto=\"off\"",
    "profile.guest.codegen-units=16",
    "profile.guest.incremental=true",
    "profile.guest.strip=\"debuginfo\"",
];

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The manifest; the crate is the one in its directory
    #[arg(default_value = "dag.yaml")]
    file: PathBuf,
    /// Run only this task of the crate's component, with `--input`, in place of the DAG
    #[arg(long, short, value_name = "TASK")]
    task: Option<String>,
    /// The input of `--task`: JSON, or @FILE
    #[arg(long, short, requires = "task", value_name = "JSON")]
    input: Option<String>,
    /// The configuration of the DAG's runs: a JSON object, or @FILE
    #[arg(long, short, conflicts_with = "task", value_name = "JSON")]
    conf: Option<String>,
    /// One parameter: `name=value`, where the value is JSON or text; may be repeated
    #[arg(long, short, conflicts_with = "task", value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// Also begin again when something below this path changes; may be repeated
    #[arg(long, value_name = "PATH")]
    watch: Vec<PathBuf>,
    /// Build and run once, without watching; the exit code is that of the run
    #[arg(long)]
    once: bool,
    /// Build as for a deploy: slower to build, quicker to run
    #[arg(long)]
    release: bool,
}

/// Builds and runs until Ctrl-C, or once.
pub(crate) async fn dev(args: DevArgs) -> Result<()> {
    let project = Project::find(&args.file)?;
    // Before the first build: what is saved while it goes on is not missed.
    let mut watch = if args.once {
        None
    } else {
        Some(Watch::start(&project.dir, &args.watch)?)
    };
    loop {
        let begin = Instant::now();
        let Some(watch) = &mut watch else {
            return project.round(&args, begin).await;
        };
        let changed = tokio::select! {
            _ = tokio::signal::ctrl_c() => return Err(Failure::said(Exit::Interrupted)),
            changed = watch.changed() => changed,
            ended = project.round(&args, begin) => {
                if let Err(failure) = ended {
                    failure.report();
                }
                let words = format!("waiting for changes below {}; Ctrl-C ends", project.dir.display());
                term::errln(&format!("\n{}", Paint::stderr().dim(&words)));
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => return Err(Failure::said(Exit::Interrupted)),
                    changed = watch.changed() => changed,
                }
            }
        };
        let Some(changed) = changed else {
            return Err(Failure::new(Exit::Broken, "files are not watched any more"));
        };
        let name = changed
            .strip_prefix(&project.dir)
            .unwrap_or(&changed)
            .display()
            .to_string();
        term::errln(&format!("\n{}", Paint::stderr().blue(&format!("── {name} changed"))));
    }
}

/// A crate with a manifest beside it.
struct Project {
    /// Absolute.
    dir: PathBuf,
    manifest: PathBuf,
}

impl Project {
    fn find(file: &Path) -> Result<Self> {
        let shown = file.display();
        let manifest = file
            .canonicalize()
            .or_fail(Exit::Invalid, || format!("cannot read `{shown}`"));
        let manifest = manifest.map_err(|failure| {
            failure.hint("run it in a directory that `airtight init` made, or name the manifest: `airtight dev path/to/dag.yaml`")
        })?;
        let dir = manifest.parent().map(Path::to_owned).unwrap_or_default();
        if !dir.join("Cargo.toml").is_file() {
            return Err(Failure::new(Exit::Invalid, format!("there is no crate beside `{shown}`"))
                .hint("`airtight dev` builds the `Cargo.toml` in the manifest's directory; `airtight dags test` runs components that are built already"));
        }
        Ok(Self { dir, manifest })
    }

    /// Builds, then runs.
    async fn round(&self, args: &DevArgs, begin: Instant) -> Result<()> {
        self.build(args).await?;
        let built = begin.elapsed();
        let mut command =
            Command::new(std::env::current_exe().or_fail(Exit::Broken, || "cannot find this program".to_owned())?);
        match &args.task {
            Some(task) => {
                command.args(["tasks", "test"]).arg(self.component().await?).arg(task);
                if let Some(input) = &args.input {
                    command.arg("--input").arg(input);
                }
            }
            None => {
                command.args(["dags", "test"]).arg(&self.manifest).arg("--logs");
                if let Some(conf) = &args.conf {
                    command.arg("--conf").arg(conf);
                }
                for param in &args.param {
                    command.arg("--param").arg(param);
                }
            }
        }
        let status = run(&mut command, "this program").await?;
        let words = format!(
            "built in {:.1} s, result after {:.1} s",
            built.as_secs_f64(),
            begin.elapsed().as_secs_f64()
        );
        term::errln(&Paint::stderr().dim(&words));
        if status.success() {
            return Ok(());
        }
        Err(Failure::said(Exit::Failed))
    }

    async fn build(&self, args: &DevArgs) -> Result<()> {
        let mut command = Command::new("cargo");
        command
            .current_dir(&self.dir)
            .args(["build", "--quiet", "--target", WASM_TARGET, "--profile", PROFILE]);
        if !args.release {
            for setting in QUICK {
                command.args(["--config", setting]);
            }
        }
        let status = run(&mut command, "cargo").await?;
        if status.success() {
            return Ok(());
        }
        let failure = Failure::new(Exit::Invalid, "the crate does not build");
        Err(if has_target().await {
            failure
        } else {
            failure.hint(format!(
                "the target for components is missing: `rustup target add {WASM_TARGET}`"
            ))
        })
    }

    /// The file that cargo makes of the crate.
    async fn component(&self) -> Result<PathBuf> {
        let mut command = Command::new("cargo");
        command
            .current_dir(&self.dir)
            .args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = command
            .output()
            .await
            .or_fail(Exit::Broken, || "cannot start cargo".to_owned())?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .or_fail(Exit::Broken, || "cannot read what `cargo metadata` says".to_owned())?;
        let manifest = self.dir.join("Cargo.toml");
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let package = packages.into_iter().find(|package| {
            package
                .pointer("/manifest_path")
                .and_then(serde_json::Value::as_str)
                .is_some_and(|path| Path::new(path) == manifest)
        });
        let library = package
            .and_then(|package| package["targets"].as_array())
            .into_iter()
            .flatten()
            .find(|target| {
                target["crate_types"]
                    .as_array()
                    .is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
            })
            .and_then(|target| target["name"].as_str());
        let (Some(library), Some(target)) = (library, metadata["target_directory"].as_str()) else {
            return Err(Failure::new(
                Exit::Invalid,
                format!("the crate in `{}` makes no component", self.dir.display()),
            )
            .hint("its `Cargo.toml` needs `crate-type = [\"cdylib\"]` under `[lib]`"));
        };
        let file = format!("{}.wasm", library.replace('-', "_"));
        Ok(Path::new(target).join(WASM_TARGET).join(PROFILE).join(file))
    }
}

/// Runs a program that speaks to the same terminal; it ends with this future.
async fn run(command: &mut Command, name: &str) -> Result<std::process::ExitStatus> {
    let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
    let child = child.map_err(|error| {
        let failure = Failure::new(Exit::Broken, format!("cannot start {name}")).because(&error);
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.hint("install Rust from https://rustup.rs, and open a new terminal")
        } else {
            failure
        }
    });
    let mut child = child?;
    child
        .wait()
        .await
        .or_fail(Exit::Broken, || format!("cannot wait for {name}"))
}

async fn has_target() -> bool {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().await;
    let Ok(output) = output else { return true };
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(&sysroot).join("lib/rustlib").join(WASM_TARGET).is_dir()
}
