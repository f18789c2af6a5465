//! Compiled code on disk. Compiled code is native code: the directory is private, each file carries a MAC that is checked
//! before it is mapped, and whatever does not check is as good as missing. Nothing here ever comes from an upload, a bucket or
//! another machine.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use model::Digest;
use ports::component::Inspected;
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The file with the key, inside the directory.
const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

/// The compiled components of one data directory.
pub struct CodeCache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    /// Compiled code is of use only to engines that agree in this.
    compatibility: String,
}

/// What lies beside the compiled code.
#[derive(Serialize, Deserialize)]
struct Sidecar {
    inspected: Inspected,
    /// Of the compiled code, in bytes.
    code_size: u64,
}

impl CodeCache {
    /// Opens or creates the directory, readable by its owner only, and its key.
    pub fn open(dir: &Path, engine: &crate::TaskEngine) -> io::Result<Self> {
        Self::open_for(dir, engine.compatibility())
    }

    fn open_for(dir: &Path, compatibility: String) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // The directory may be older than this rule.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let key = read_or_create_key(&dir.join(KEY_FILE))?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            compatibility,
        })
    }

    /// A path in the directory that is new, for the compiler child to write to.
    pub(crate) fn temporary(&self) -> io::Result<tempfile::TempPath> {
        Ok(tempfile::Builder::new()
            .prefix("compiling-")
            .tempfile_in(&self.dir)?
            .into_temp_path())
    }

    /// Takes the code that the compiler child wrote to `code`, under the digest. Blocks.
    pub(crate) fn store(&self, digest: Digest, code: tempfile::TempPath, inspected: &Inspected) -> io::Result<()> {
        let mut file = File::open(&code)?;
        let code_mac = self.mac_of_file(b"code", digest, &mut file)?;
        file.sync_all()?;
        let sidecar = serde_json::to_vec(&Sidecar {
            inspected: inspected.clone(),
            code_size: file.metadata()?.len(),
        })?;
        let mut about = tempfile::Builder::new().prefix("about-").tempfile_in(&self.dir)?;
        about.write_all(&code_mac)?;
        about.write_all(&self.mac_of_sidecar(digest, &code_mac, &sidecar))?;
        about.write_all(&sidecar)?;
        about.as_file().sync_all()?;
        // The sidecar names the code by its MAC: should the process die between the two renames, the pair does not check.
        code.persist(self.code_path(digest)).map_err(|error| error.error)?;
        about.persist(self.sidecar_path(digest)).map_err(|error| error.error)?;
        File::open(&self.dir)?.sync_all()
    }

    /// What is known of a component, if its files are there and intact. The code itself is not looked at. Blocks.
    pub(crate) fn inspected(&self, digest: Digest) -> Option<Inspected> {
        let (sidecar, _) = self.read_sidecar(digest)?;
        let size = fs::metadata(self.code_path(digest)).ok()?.len();
        (size == sidecar.code_size).then_some(sidecar.inspected)
    }

    /// The compiled component, if its files are there and intact; if they are not intact, they are removed. Blocks.
    pub(crate) fn load(&self, digest: Digest, engine: &Engine) -> Option<(Component, Inspected)> {
        let (sidecar, code_mac) = self.read_sidecar(digest)?;
        let path = self.code_path(digest);
        let found = File::open(&path).and_then(|mut file| self.mac_of_file(b"code", digest, &mut file));
        match found {
            Ok(found) if constant_time_eq(&found, &code_mac) => {}
            Ok(_) => {
                tracing::warn!(%digest, "the compiled code of a component was changed on disk; it will be compiled again");
                self.remove(digest);
                return None;
            }
            Err(_) => return None,
        }
        #[expect(
            unsafe_code,
            reason = "wasmtime cannot check that compiled code is what its compiler wrote; the MAC does"
        )]
        // SAFETY: the file was written by our own compiler child and its MAC has just been checked with a key that only this
        // user can read. It lies in a directory that only this user can write to, and is replaced by rename, never in place.
        let component = unsafe { Component::deserialize_file(engine, &path) };
        match component {
            Ok(component) => Some((component, sidecar.inspected)),
            Err(error) => {
                tracing::warn!(%digest, error = format!("{error:#}"), "the compiled code of a component cannot be loaded; it will be compiled again");
                self.remove(digest);
                None
            }
        }
    }

    /// Removes what is stored under the digest. Code that is mapped stays usable. Blocks.
    pub(crate) fn remove(&self, digest: Digest) {
        for path in [self.sidecar_path(digest), self.code_path(digest)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%digest, %error, "cannot remove the compiled code of a component");
            }
        }
    }

    fn code_path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}-{}.cwasm", digest.hex(), self.compatibility))
    }

    fn sidecar_path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}-{}.about", digest.hex(), self.compatibility))
    }

    fn read_sidecar(&self, digest: Digest) -> Option<(Sidecar, [u8; MAC_BYTES])> {
        let bytes = fs::read(self.sidecar_path(digest)).ok()?;
        let (code_mac, rest) = bytes.split_first_chunk::<MAC_BYTES>()?;
        let (mac, sidecar) = rest.split_first_chunk::<MAC_BYTES>()?;
        if !constant_time_eq(&self.mac_of_sidecar(digest, code_mac, sidecar), mac) {
            tracing::warn!(%digest, "the record of a compiled component was changed on disk; it will be compiled again");
            return None;
        }
        Some((serde_json::from_slice(sidecar).ok()?, *code_mac))
    }

    fn mac(&self, kind: &[u8], digest: Digest) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a MAC takes keys of any length");
        mac.update(kind);
        mac.update(&digest.0);
        mac.update(self.compatibility.as_bytes());
        mac
    }

    fn mac_of_sidecar(&self, digest: Digest, code_mac: &[u8], sidecar: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.mac(b"about", digest);
        mac.update(code_mac);
        mac.update(sidecar);
        mac.finalize().into_bytes().into()
    }

    fn mac_of_file(&self, kind: &[u8], digest: Digest, file: &mut File) -> io::Result<[u8; MAC_BYTES]> {
        let mut mac = self.mac(kind, digest);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(mac.finalize().into_bytes().into());
            }
            mac.update(buffer.get(..read).unwrap_or_default());
        }
    }
}

fn constant_time_eq(a: &[u8; MAC_BYTES], b: &[u8; MAC_BYTES]) -> bool {
    a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn read_or_create_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    match fs::read(path) {
        Ok(bytes) => {
            return bytes.try_into().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} is not a key of {KEY_BYTES} bytes; remove it to make a new one",
                        path.display()
                    ),
                )
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut key = [0; KEY_BYTES];
    rand::rngs::OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    // A name of its own: neither two processes nor two threads that start together disturb each other.
    let mut file = tempfile::Builder::new()
        .prefix("key-")
        .tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    // A hard link does not replace: of those that start together, one key wins for all.
    let linked = fs::hard_link(file.path(), path);
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_or_create_key(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use ports::component::Descriptor;

    use super::*;

    fn inspected() -> Inspected {
        Inspected {
            descriptor: Descriptor {
                format: 1,
                sdk: None,
                tasks: Vec::new(),
            },
            capabilities: Vec::new(),
            imports: Vec::new(),
            needs: ports::component::EngineNeeds::default(),
        }
    }

    fn stored(dir: &Path, engine: &Engine) -> (CodeCache, Digest) {
        let cache = CodeCache::open_for(dir, "x".to_owned()).unwrap();
        let code = Component::new(engine, "(component)").unwrap().serialize().unwrap();
        let digest = Digest::of(b"component");
        let path = cache.temporary().unwrap();
        fs::write(&path, code).unwrap();
        cache.store(digest, path, &inspected()).unwrap();
        (cache, digest)
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn loads_what_it_stored() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), crate::engine::on_demand_engine().unwrap());
        let (cache, digest) = stored(dir.path(), &engine);
        assert!(cache.load(digest, &engine).is_some());
        assert_eq!(cache.inspected(digest), Some(inspected()));
        let again = CodeCache::open_for(dir.path(), "x".to_owned()).unwrap();
        assert!(again.load(digest, &engine).is_some());
        cache.remove(digest);
        assert!(cache.load(digest, &engine).is_none());
    }

    #[test]
    fn everything_is_private() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), crate::engine::on_demand_engine().unwrap());
        let dir = dir.path().join("code");
        let (cache, digest) = stored(&dir, &engine);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join(KEY_FILE)), 0o600);
        assert_eq!(mode(&cache.sidecar_path(digest)), 0o600);
        assert_eq!(mode(&cache.code_path(digest)), 0o600);
    }

    #[test]
    fn of_many_that_open_it_together_one_key_wins() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("code");
        let together = std::sync::Barrier::new(16);
        let keys: Vec<[u8; KEY_BYTES]> = std::thread::scope(|scope| {
            let open = || {
                together.wait();
                CodeCache::open_for(&dir, "x".to_owned()).unwrap().key
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        let left = fs::read_dir(&dir).unwrap().count();
        assert_eq!(left, 1, "nothing but the key is left behind");
    }

    #[test]
    fn never_trusts_changed_or_foreign_files() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), crate::engine::on_demand_engine().unwrap());
        let (cache, digest) = stored(dir.path(), &engine);

        flip(&cache.code_path(digest), 1000);
        assert!(cache.load(digest, &engine).is_none());
        assert_eq!(cache.inspected(digest), None, "it is compiled again");

        let (cache, digest) = stored(dir.path(), &engine);
        assert!(cache.load(digest, &engine).is_some());
        flip(&cache.sidecar_path(digest), 70);
        assert!(cache.load(digest, &engine).is_none());
        assert_eq!(cache.inspected(digest), None);
        flip(&cache.sidecar_path(digest), 70);

        // Intact files of another component, or of another data directory, under this one's name.
        let other = Digest::of(b"other");
        for path in [CodeCache::code_path, CodeCache::sidecar_path] {
            fs::copy(path(&cache, digest), path(&cache, other)).unwrap();
        }
        assert!(cache.load(other, &engine).is_none());
        let elsewhere = tempfile::tempdir().unwrap();
        let (foreign, _) = stored(elsewhere.path(), &engine);
        for path in [CodeCache::code_path, CodeCache::sidecar_path] {
            fs::copy(path(&foreign, digest), path(&cache, digest)).unwrap();
        }
        assert!(cache.load(digest, &engine).is_none());
    }
}
