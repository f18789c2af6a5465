//! The digest of a file.

use std::io::{self, Read as _};
use std::path::Path;

use model::Digest;
use sha2::{Digest as _, Sha256};

/// Hashes a file without holding it in memory.
pub(crate) async fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Digest(hash.finalize().into()));
            }
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    })
    .await
    .map_err(io::Error::other)?
}
