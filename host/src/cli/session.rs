//! `airtight login` and `airtight version`.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::common::{Context, api};
use crate::client::{Client, Saved, Target};
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::output::Output;
use crate::ui::{escape, term};

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The user
    #[arg(long, short, default_value = "admin")]
    username: String,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

pub(super) async fn login(context: &Context, args: LoginArgs) -> Result<()> {
    let target = Target {
        proofs: Vec::new(),
        ..context.target()?
    };
    let server = target.server.clone();
    let password = if args.password_stdin {
        io::read_to_string(io::stdin()).or_fail(Exit::Invalid, || "cannot read the password".to_owned())?
    } else {
        ask_password(&args.username, server.as_str())?
    };
    let client = Client::new(target)?;
    let token = client
        .login(&args.username, password.trim_end_matches(['\r', '\n']))
        .await?
        .ok_or_else(|| {
            Failure::new(
                Exit::Unauthorized,
                format!("{server} does not accept this user and password"),
            )
            .hint("the password of a local server is in the file `admin-password` of its data directory")
        })?;
    let path = Saved::load()?.save(&server, token)?;
    term::errln(&format!(
        "logged in to {server} as {}; the token is in {}",
        escape::line(&args.username),
        path.display()
    ));
    Ok(())
}

/// Asks on the terminal without showing what is typed.
fn ask_password(username: &str, server: &str) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(
            Failure::new(Exit::Invalid, "there is no terminal to ask for the password on").hint("use --password-stdin"),
        );
    }
    let hidden = HiddenInput::start();
    write!(io::stderr(), "password of {username} on {server}: ").ok();
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    drop(hidden);
    term::errln("");
    read.or_fail(Exit::Invalid, || "cannot read the password".to_owned())?;
    Ok(line)
}

/// Turns the terminal's echo off, and on again when dropped.
struct HiddenInput;

impl HiddenInput {
    fn start() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// Where there is no `stty`, what is typed is seen.
fn stty(setting: &str) {
    std::process::Command::new("stty").arg(setting).status().ok();
}

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Wait until the server answers, for at most a minute: for scripts that have just started it
    #[arg(long)]
    wait: bool,
}

/// How long a server that has just been started is waited for, and how often it is asked.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the server answers. Each attempt looks at the data directory anew: the server may be about to make it.
async fn wait_until_up(context: &Context) -> Result<()> {
    let patience = Instant::now() + START_PATIENCE;
    loop {
        let client = Client::new(context.target()?)?;
        match client.get(&api(&["version"]), &[]).await {
            Err(failure) if failure.exit() == Exit::Unreachable && Instant::now() < patience => {
                tokio::time::sleep(START_INTERVAL).await;
            }
            answer => return answer.map(drop),
        }
    }
}

pub(super) async fn version(context: &Context, args: VersionArgs) -> Result<()> {
    if args.wait {
        wait_until_up(context).await?;
    }
    let client = context.client()?;
    let ours = env!("CARGO_PKG_VERSION");
    // A server that is not there is no failure here: the program's own version is the answer.
    let server = client.get(&api(&["version"]), &[]).await.ok();
    let theirs = server
        .as_ref()
        .and_then(|answer| answer.get("version"))
        .and_then(|version| version.as_str());
    match context.output() {
        Output::Table => {
            term::outln(&format!("airtight {ours}"));
            if let Some(theirs) = theirs {
                term::outln(&format!("server {} at {}", escape::line(theirs), client.server()));
            }
        }
        output => output.value(&json!({"client": ours, "server": server, "url": client.server().as_str()})),
    }
    Ok(())
}
