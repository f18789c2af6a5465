//! Which server, and who we are there: flags and environment first, then `airtight login`, then a local data directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, OrFail, Result};
use crate::server::read_signing_key;

/// Where a server listens unless it is told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// The server to talk to and the ways to prove who we are, best first.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its address.
    pub server: Url,
    /// Tried in this order.
    pub proofs: Vec<Proof>,
}

/// One way to prove who we are.
#[derive(Clone)]
pub(crate) enum Proof {
    /// A token.
    Token(String),
    /// The key that the server signs tokens with: whoever can read it makes its own, and need not log in.
    Key([u8; 32]),
    /// A user and a password, to be exchanged for a token.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Key(_) => "Key(…)",
            Self::Password { .. } => "Password(…)",
        })
    }
}

impl Target {
    /// Decides by flags, environment, saved logins and the local data directory.
    pub(crate) fn resolve(server: Option<&str>, token: Option<&str>, data_dir: &Path) -> Result<Self> {
        let local = fs::read_to_string(data_dir.join("url")).ok();
        let text = server.or(local.as_deref().map(str::trim)).unwrap_or(DEFAULT_SERVER);
        let server = parse_server(text)?;
        let mut proofs = Vec::new();
        if let Some(token) = token {
            proofs.push(Proof::Token(token.to_owned()));
        } else {
            if let Some(token) = Saved::load()?.token(&server) {
                proofs.push(Proof::Token(token.to_owned()));
            }
            // The secrets of this machine's server are for this machine only. The key goes nowhere: a token that is made with it does.
            if is_loopback(&server)
                && let Some(key) = read_signing_key(data_dir)
            {
                proofs.push(Proof::Key(key));
            }
            if is_loopback(&server)
                && let Ok(password) = fs::read_to_string(data_dir.join("admin-password"))
            {
                proofs.push(Proof::Password {
                    username: "admin".to_owned(),
                    password: password.trim().to_owned(),
                });
            }
        }
        Ok(Self { server, proofs })
    }
}

fn parse_server(text: &str) -> Result<Url> {
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url: Url = with_scheme
        .parse()
        .or_fail(Exit::Invalid, || format!("`{text}` is not the address of a server"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(
            Failure::new(Exit::Invalid, format!("`{text}` is not the address of a server"))
                .hint("write it like `http://127.0.0.1:8080`"),
        );
    }
    Ok(url)
}

/// Whether the address can only be this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The data directory that holds where none is named.
pub(crate) fn resolve_data_dir(flag: Option<&Path>) -> PathBuf {
    if let Some(dir) = flag {
        return dir.to_owned();
    }
    user_dir("XDG_DATA_HOME", ".local/share").map_or_else(|| PathBuf::from("airtight-data"), |dir| dir.join("airtight"))
}

/// The user's cache directory.
pub(crate) fn cache_dir() -> PathBuf {
    user_dir("XDG_CACHE_HOME", ".cache")
        .unwrap_or_else(std::env::temp_dir)
        .join("airtight")
}

fn user_dir(variable: &str, under_home: &str) -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set(variable).or_else(|| set("HOME").map(|home| home.join(under_home)))
}

/// The logins that `airtight login` saved, by server.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    #[serde(default)]
    tokens: BTreeMap<String, String>,
}

impl Saved {
    fn path() -> Option<PathBuf> {
        Some(
            user_dir("XDG_CONFIG_HOME", ".config")?
                .join("airtight")
                .join("tokens.json"),
        )
    }

    /// Reads the file; a missing one holds nothing.
    pub(crate) fn load() -> Result<Self> {
        let Some(path) = Self::path() else {
            return Ok(Self::default());
        };
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .or_fail(Exit::Broken, || {
                    format!("the saved logins in `{}` are damaged", path.display())
                })
                .map_err(|failure| failure.hint("remove the file and run `airtight login` again")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::new(Exit::Broken, format!("cannot read `{}`", path.display())).because(&error)),
        }
    }

    /// The token that was saved for a server; it may be too old.
    pub(crate) fn token(&self, server: &Url) -> Option<&str> {
        self.tokens.get(server.as_str()).map(String::as_str)
    }

    /// Keeps a token; answers where.
    pub(crate) fn save(&mut self, server: &Url, token: String) -> Result<PathBuf> {
        let path = Self::path().ok_or_else(|| {
            Failure::new(Exit::Broken, "there is no home directory to save the login in")
                .hint("set HOME, or use --token")
        })?;
        self.tokens.insert(server.as_str().to_owned(), token);
        let write = || -> std::io::Result<()> {
            let dir = path.parent().expect("the path has a file name");
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let temporary = path.with_extension("json.new");
            fs::remove_file(&temporary).ok();
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().or_fail(Exit::Broken, || {
            format!("cannot save the login in `{}`", path.display())
        })?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        assert_eq!(
            parse_server("127.0.0.1:8080").unwrap().as_str(),
            "http://127.0.0.1:8080/"
        );
        assert_eq!(
            parse_server("http://x.example/airtight").unwrap().as_str(),
            "http://x.example/airtight"
        );
        assert!(parse_server("ftp://x").is_err());
        assert!(parse_server("http://").is_err());
    }

    #[test]
    fn passwords_of_this_machine_stay_on_it() {
        for (server, loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://127.0.0.1.example:1", false),
            ("http://10.0.0.1:1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&server.parse().unwrap()), loopback, "{server}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("admin-password"), "secret\n").unwrap();
        fs::write(dir.path().join("signing-key"), "0a".repeat(32)).unwrap();
        let target = Target::resolve(Some("http://10.0.0.1:1"), None, dir.path()).unwrap();
        assert!(
            !target
                .proofs
                .iter()
                .any(|proof| matches!(proof, Proof::Password { .. } | Proof::Key(_)))
        );
        let target = Target::resolve(Some("http://127.0.0.1:1"), None, dir.path()).unwrap();
        assert!(matches!(target.proofs.last(), Some(Proof::Password { password, .. }) if password == "secret"));
        assert!(
            target
                .proofs
                .iter()
                .any(|proof| matches!(proof, Proof::Key(key) if *key == [10; 32]))
        );
    }

    #[test]
    fn a_local_server_is_found_by_its_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("url"), "http://127.0.0.1:9999\n").unwrap();
        let target = Target::resolve(None, Some("t"), dir.path()).unwrap();
        assert_eq!(target.server.as_str(), "http://127.0.0.1:9999/");
        assert!(matches!(target.proofs.as_slice(), [Proof::Token(_)]));
    }
}
