//! The data directory: its layout, its lock and the secrets in it. Readable by its owner only.
//!
//! The server that schedules holds the lock; servers that do not open the directory beside it. Whatever both may make is made so that
//! one of them wins and the others take what is there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rand::distr::{Alphanumeric, SampleString};

use crate::failure::{Exit, Failure, OrFail, Result};

/// Characters of a generated password: 26 of 62 are 154 bits.
const PASSWORD_CHARS: usize = 26;
/// Bytes of a generated key.
const KEY_BYTES: usize = 32;

/// The file of the key that signs tokens.
const SIGNING_KEY: &str = "signing-key";

/// An open data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens the directory; creates it where it is missing.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let shown = root.display();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .or_fail(Exit::Broken, || format!("cannot create the data directory `{shown}`"))?;
        let root = root
            .canonicalize()
            .or_fail(Exit::Broken, || format!("cannot open the data directory `{shown}`"))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).or_fail(Exit::Broken, || {
            format!("cannot make the data directory `{shown}` private")
        })?;
        Ok(Self { root })
    }

    /// Takes the lock of the server that schedules.
    pub(crate) fn lock(&self) -> Result<Held> {
        Ok(Held {
            lock: take_lock(&self.root)?,
            url_file: self.url_file(),
        })
    }

    /// Waits until no other process brings the schema of a database up to date, and keeps others waiting until it is dropped: SQLite has no
    /// lock of its own for that.
    pub(crate) fn lock_schema(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.root.join("schema-lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The SQLite database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("airtight.db")
    }

    /// Blobs: components and large values.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Task logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Compiled code.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.root.join("compiled")
    }

    /// The file that says where the server listens, for the command line.
    pub(crate) fn url_file(&self) -> PathBuf {
        self.root.join("url")
    }

    /// The file of the administrator's password.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.root.join("admin-password")
    }

    /// The administrator's password; generated where there is none. `true` where it is new.
    pub(crate) fn admin_password(&self) -> Result<(String, bool)> {
        let path = self.password_file();
        let generate = || Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_CHARS) + "\n";
        let (text, new) = read_or_create(&path, generate)?;
        let password = text.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() {
            return Err(Failure::new(Exit::Broken, format!("`{}` is empty", path.display()))
                .hint("write a password into it, or remove it to have one generated"));
        }
        Ok((password, new))
    }

    /// The key that signs tokens: it stays the same over restarts, so that nobody is logged out.
    pub(crate) fn signing_key(&self) -> Result<[u8; KEY_BYTES]> {
        key_file(&self.root.join(SIGNING_KEY))
    }

    /// The id of this data directory's scheduler: a process that starts again takes its own lease at once.
    pub(crate) fn scheduler_id(&self) -> Result<uuid::Uuid> {
        let path = self.root.join("scheduler-id");
        let (text, _) = read_or_create(&path, || format!("{}\n", uuid::Uuid::new_v4()))?;
        text.trim()
            .parse()
            .or_fail(Exit::Broken, || format!("`{}` holds no UUID", path.display()))
    }

    /// The socket that is rung when something was put into the inbox.
    pub(crate) fn doorbell(&self) -> PathBuf {
        self.root.join("inbox.sock")
    }
}

/// The lock of a data directory, held while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    lock: File,
    url_file: PathBuf,
}

impl Held {
    /// Notes where the server listens: for who finds the lock taken, for the command line and for servers that do not schedule.
    pub(crate) fn announce(&mut self, url: &str) -> io::Result<()> {
        write_holder(&mut self.lock, Some(url))?;
        fs::write(&self.url_file, format!("{url}\n"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        fs::remove_file(&self.url_file).ok();
        self.lock.set_len(0).ok();
    }
}

/// A key in a file of its owner's only; made where there is none.
fn key_file(path: &Path) -> Result<[u8; KEY_BYTES]> {
    let generate = || {
        let key: [u8; KEY_BYTES] = rand::random();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        hex + "\n"
    };
    let (text, _) = read_or_create(path, generate)?;
    if let Some(key) = parse_key(&text) {
        Ok(key)
    } else {
        Err(Failure::new(
            Exit::Broken,
            format!("`{}` is not a key of 64 hex digits", path.display()),
        )
        .hint("restore it, or remove it to have a new one generated"))
    }
}

fn parse_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    let digits = text.trim().as_bytes();
    if digits.len() != KEY_BYTES * 2 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// The key that signs tokens, for programs of the data directory's owner. None where there is none, or none that can be read.
pub(crate) fn read_signing_key(root: &Path) -> Option<[u8; KEY_BYTES]> {
    parse_key(&fs::read_to_string(root.join(SIGNING_KEY)).ok()?)
}

fn take_lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let broken = |error: &io::Error| {
        Failure::new(
            Exit::Broken,
            format!("cannot lock the data directory `{}`", root.display()),
        )
        .because(error)
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| broken(&error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).ok();
            let holder = holder.trim();
            let by = if holder.is_empty() { "another process" } else { holder };
            return Err(Failure::new(
                Exit::InUse,
                format!("the data directory `{}` is in use by {by}", root.display()),
            )
            .hint("stop that server, or choose another --data-dir"));
        }
        Err(TryLockError::Error(error)) => return Err(broken(&error)),
    }
    write_holder(&mut file, None).map_err(|error| broken(&error))?;
    Ok(file)
}

fn write_holder(lock: &mut File, url: Option<&str>) -> io::Result<()> {
    use std::io::Seek as _;
    let listening = url.map(|url| format!(" at {url}")).unwrap_or_default();
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(
        lock,
        "airtight process {}{listening}, since {}",
        std::process::id(),
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ")
    )
}

/// Reads a small secret, or makes it: whole and durable, or not at all. `true` where it is new.
fn read_or_create(path: &Path, generate: impl FnOnce() -> String) -> Result<(String, bool)> {
    let read = || fs::read_to_string(path);
    let unreadable = || format!("cannot read `{}`", path.display());
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return Ok((found.or_fail(Exit::Broken, unreadable)?, false)),
    }
    let text = generate();
    let created = create(path, &text).or_fail(Exit::Broken, || format!("cannot write `{}`", path.display()))?;
    if created {
        return Ok((text, true));
    }
    Ok((read().or_fail(Exit::Broken, unreadable)?, false))
}

/// `false` where another process was faster.
fn create(path: &Path, text: &str) -> io::Result<bool> {
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::other("the path has no directory"))?;
    // Private, and with a name of its own: processes that start together do not disturb each other.
    let mut file = tempfile::Builder::new().prefix("new-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    // A link does not replace: of those that start together, one secret wins for all.
    match fs::hard_link(file.path(), path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    File::open(dir)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_strong_private_and_stay() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("data");
        let dir = DataDir::open(&root).unwrap();
        let (password, new) = dir.admin_password().unwrap();
        assert!(new && password.len() == PASSWORD_CHARS && password.chars().all(|c| c.is_ascii_alphanumeric()));
        let (signing, id) = (dir.signing_key().unwrap(), dir.scheduler_id().unwrap());
        assert_eq!(mode(&root), 0o700);
        for secret in ["admin-password", "signing-key", "scheduler-id"] {
            assert_eq!(mode(&root.join(secret)), 0o600, "{secret}");
        }
        drop(dir);
        let dir = DataDir::open(&root).unwrap();
        assert_eq!(dir.admin_password().unwrap(), (password, false));
        assert_eq!((dir.signing_key().unwrap(), dir.scheduler_id().unwrap()), (signing, id));
    }

    #[test]
    fn a_second_process_is_told_who_holds_the_lock() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let mut held = dir.lock().unwrap();
        held.announce("http://127.0.0.1:8080").unwrap();
        let beside = DataDir::open(temporary.path()).unwrap();
        let refused = beside.lock().unwrap_err();
        assert_eq!(refused.exit(), Exit::InUse);
        let text = refused.to_string();
        assert!(
            text.contains(&format!(
                "process {} at http://127.0.0.1:8080, since 20",
                std::process::id()
            )),
            "{text}"
        );
        drop(beside);
        let url = || fs::read_to_string(dir.url_file());
        assert_eq!(url().unwrap(), "http://127.0.0.1:8080\n", "it is the holder's");
        drop(held);
        assert!(url().is_err());
        dir.lock().unwrap();
    }

    #[test]
    fn of_many_that_start_together_one_makes_the_secrets() {
        let temporary = tempfile::tempdir().unwrap();
        let together = std::sync::Barrier::new(16);
        let start = || {
            together.wait();
            let dir = DataDir::open(temporary.path()).unwrap();
            let (password, new) = dir.admin_password().unwrap();
            let secrets = (password, dir.signing_key().unwrap(), dir.scheduler_id().unwrap());
            (secrets, new)
        };
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(started.iter().all(|(secrets, _)| *secrets == started[0].0));
        assert_eq!(started.iter().filter(|(_, new)| *new).count(), 1);
        let mut left: Vec<_> = fs::read_dir(temporary.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort_unstable();
        assert_eq!(left, ["admin-password", "scheduler-id", "signing-key"]);
        assert_eq!(mode(&temporary.path().join("signing-key")), 0o600);
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        for damaged in ["", "abc", &"zz".repeat(32), &"é".repeat(32)] {
            fs::write(temporary.path().join("signing-key"), damaged).unwrap();
            assert!(dir.signing_key().is_err(), "{damaged:?}");
            assert!(read_signing_key(temporary.path()).is_none());
        }
    }
}
