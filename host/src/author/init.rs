//! `airtight init`: a new crate of tasks with a DAG, its tests and the SDK.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::packed::{self, File};
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::term::{self, Paint};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The directory to make; its last part is the name of the crate and the DAG
    dir: PathBuf,
    /// The tasks that the new crate begins with
    #[arg(long, short, value_enum, default_value_t = Template::Minimal)]
    template: Template,
    /// Write only the SDK of this version, over the one of a crate that exists
    #[arg(long, conflicts_with = "template")]
    update_sdk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Template {
    /// One task and a DAG of it
    Minimal,
    /// Three tasks: a list, a mapped task, and a blob
    Pipeline,
    /// A sensor that keeps a checkpoint, and a task after it
    Sensor,
}

impl Template {
    fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Pipeline => "pipeline",
            Self::Sensor => "sensor",
        }
    }
}

/// Writes the files; nothing that exists is overwritten but the SDK, where that is asked for.
pub(crate) fn init(args: &InitArgs) -> Result<()> {
    let shown = args.dir.display();
    if args.update_sdk {
        return update_sdk(&args.dir);
    }
    let name = crate_name(&args.dir)?;
    if fs::read_dir(&args.dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(Exit::Invalid, format!("`{shown}` is not empty"))
            .hint("name a new directory, or use `--update-sdk` to bring the SDK of a crate up to date"));
    }
    write(&args.dir, packed::template(args.template.name(), &name))?;
    write(&args.dir, packed::sdk())?;
    let paint = Paint::stdout();
    term::outln(&format!(
        "made `{shown}`: the tasks are in {}, the DAG is in {}",
        paint.bold("src/lib.rs"),
        paint.bold("dag.yaml")
    ));
    term::outln(&format!("\n  cd {shown}\n  cargo test\n  airtight dev"));
    Ok(())
}

fn update_sdk(dir: &Path) -> Result<()> {
    let sdk = dir.join("sdk");
    if !sdk.join("airtight-sdk").is_dir() {
        return Err(
            Failure::new(Exit::Invalid, format!("`{}` has no SDK to update", dir.display()))
                .hint("name the directory of a crate that `airtight init` made"),
        );
    }
    // Files that the new version has no more must not stay behind.
    fs::remove_dir_all(&sdk).or_fail(Exit::Broken, || format!("cannot remove `{}`", sdk.display()))?;
    write(dir, packed::sdk())?;
    term::outln(&format!(
        "`{}` is the SDK of airtight {} now",
        sdk.display(),
        env!("CARGO_PKG_VERSION")
    ));
    Ok(())
}

/// The last part of the path, where it can be the name of a crate and of a DAG.
fn crate_name(dir: &Path) -> Result<String> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let goes_on = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if begins && goes_on && name.len() <= 64 && !["test", "core", "std", "alloc", "proc_macro"].contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Failure::new(
        Exit::Invalid,
        format!("`{name}` cannot be the name of a crate"),
    )
    .hint("begin with a lowercase letter and go on with lowercase letters, digits, `-` and `_`: `airtight init my-tasks`"))
}

fn write(dir: &Path, files: impl IntoIterator<Item = File>) -> Result<()> {
    for (path, text) in files {
        let path = dir.join(path);
        let doing = || format!("cannot write `{}`", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).or_fail(Exit::Broken, doing)?;
        }
        fs::write(&path, text).or_fail(Exit::Broken, doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_must_be_one_that_cargo_takes() {
        for good in ["my-tasks", "a", "x/y/ml_2"] {
            assert!(crate_name(Path::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "..", "My", "1st", "a.b", "a b", "test", "ä"] {
            assert!(crate_name(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let args = |update_sdk| InitArgs {
            dir: dir.path().join("mine"),
            template: Template::Minimal,
            update_sdk,
        };
        assert!(init(&args(true)).is_err(), "there is no SDK yet");
        init(&args(false)).unwrap();
        let lib = dir.path().join("mine/src/lib.rs");
        fs::write(&lib, "// mine").unwrap();
        let old = dir.path().join("mine/sdk/airtight-sdk/src/old.rs");
        fs::write(&old, "").unwrap();
        assert!(init(&args(false)).is_err());
        init(&args(true)).unwrap();
        assert_eq!(fs::read_to_string(lib).unwrap(), "// mine");
        assert!(!old.exists());
    }
}
