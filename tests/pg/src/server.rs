//! The private server: found, initialised, started, and stopped when this process ends, however it ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

/// Runs as long as its standard input is open: the kernel closes it with the test process, and then the server and its files go.
/// Durability is off (`fsync`): what is tested is the client's behaviour, and the directory is thrown away.
const SUPERVISE: &str = r#"
set -e
"$BIN/initdb" -D "$DIR/data" -U postgres --auth=trust --no-sync -E UTF8 --locale=C >"$DIR/log" 2>&1
"$BIN/pg_ctl" -D "$DIR/data" -w -t 60 -l "$DIR/log" \
    -o "-c fsync=off -c full_page_writes=off -c max_connections=200 -c listen_addresses= -k '$DIR'" start >>"$DIR/log" 2>&1
echo ready
cat >/dev/null
"$BIN/pg_ctl" -D "$DIR/data" -m immediate stop >/dev/null 2>&1
cd /
rm -rf "$DIR"
"#;

/// A running private server.
pub(crate) struct Server {
    /// Where its socket is.
    pub(crate) directory: PathBuf,
    /// Closed by the kernel when this process ends.
    _alive: ChildStdin,
}

/// The directory of `initdb` and `pg_ctl`: in `PATH`, else the newest of Debian's.
fn binaries() -> Option<PathBuf> {
    let complete = |directory: &Path| directory.join("initdb").is_file() && directory.join("pg_ctl").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(directory) = std::env::split_paths(&path).find(|directory| complete(directory)) {
        // Debian's wrappers find their siblings only from where they really are.
        let real = std::fs::canonicalize(directory.join("initdb")).ok()?;
        return real.parent().map(Path::to_owned);
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .filter(|(_, directory)| complete(directory))
        .collect();
    versions.sort();
    versions.pop().map(|(_, directory)| directory)
}

/// The user and group id of the first of these users that there is.
fn user(names: &[&str]) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    names.iter().find_map(|name| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == *name).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, fields.next()?.parse().ok()?))
        })
    })
}

/// Starts a server; the error says why there is none.
pub(crate) fn start() -> Result<Server, String> {
    let binaries = binaries().ok_or("neither `initdb` and `pg_ctl` in PATH nor /usr/lib/postgresql/*/bin")?;
    let directory = tempfile::Builder::new()
        .prefix("airtight-pg-")
        .tempdir()
        .map_err(|error| format!("cannot create a directory: {error}"))?;
    let mut command = Command::new("sh");
    let owner = std::fs::metadata(directory.path())
        .map_err(|error| error.to_string())?
        .uid();
    if owner == 0 {
        // The server refuses to run as root.
        let (uid, gid) = user(&["postgres", "nobody"]).ok_or("no user but root to run as")?;
        chown(directory.path(), Some(uid), Some(gid)).map_err(|error| format!("cannot change the owner: {error}"))?;
        command.uid(uid).gid(gid);
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700))
        .map_err(|error| error.to_string())?;
    let mut child = command
        .args(["-c", SUPERVISE])
        .env("BIN", binaries)
        .env("DIR", directory.path())
        .env("LC_ALL", "C")
        .current_dir("/")
        // An interrupt from the keyboard must not reach the server before it is told to stop.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start a shell: {error}"))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the shell has no pipes".into());
    };
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    if read.is_err() || line.trim() != "ready" {
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        return Err(format!("the server did not start: {log}"));
    }
    Ok(Server {
        // The supervisor removes it.
        directory: directory.keep(),
        _alive: stdin,
    })
}
