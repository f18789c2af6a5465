//! A task crate outside this repository: what `airtight init` writes builds, passes its tests and runs, without a network.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{binary, run_cli};

/// Where the crates of this test are compiled; kept between runs, for their dependencies are the same each time.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test.ancestors().nth(3).expect("tests lie in target/<profile>/deps");
    target.join("authors")
}

/// A command as a user's shell starts it, without what the cargo of the tests put into the environment.
fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .env("CARGO_NET_OFFLINE", "true")
        .env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_PROFILE_")
            || ["CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "RUSTFLAGS"].contains(&text.as_ref())
        {
            command.env_remove(&name);
        }
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

/// Makes a crate in a directory of its own.
fn init(dir: &Path, template: &str) -> PathBuf {
    let name = format!("my-{template}");
    let output = run_cli(&["init", &name, "--template", template], &[], dir);
    assert!(output.status.success(), "{}", text(&output));
    let made = dir.join(name);
    std::fs::create_dir_all(target_dir()).expect("it can be made");
    std::os::unix::fs::symlink(target_dir(), made.join("target")).expect("it can be linked");
    made
}

#[test]
fn every_template_builds_passes_its_tests_and_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (template, says) in [
        ("minimal", "Hello, World!"),
        ("pipeline", "\"words\":22"),
        ("sensor", "ready after 3 pokes"),
    ] {
        let made = init(dir.path(), template);
        let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
        let tested = succeeds(command(&cargo, &made).arg("test"));
        assert!(tested.contains("test result: ok"), "{tested}");
        let ran = succeeds(command(&binary(), &made).args(["dev", "--once"]));
        assert!(ran.contains(says) && ran.contains("success"), "{template}: {ran}");
    }
}

#[test]
fn a_task_that_does_not_compile_is_shown_and_fails() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = init(dir.path(), "minimal");
    let lib = made.join("src/lib.rs");
    let source = std::fs::read_to_string(&lib).expect("it was written");
    std::fs::write(&lib, source.replace("#[data]\n", "")).expect("it can be written");
    let output = command(&binary(), &made)
        .args(["dev", "--once"])
        .output()
        .expect("it starts");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("#[data]") && said.contains("the crate does not build"),
        "{said}"
    );
}
