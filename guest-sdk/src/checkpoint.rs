//! A checkpoint: bytes that survive retries and crashes of this task instance. Saved means durable.
//!
//! ```
//! use airtight_sdk::prelude::*;
//!
//! #[data]
//! #[derive(Default)]
//! struct Done {
//!     pages: u32,
//! }
//!
//! /// Goes on where the last try stopped.
//! #[task]
//! fn crawl() -> Result<u32> {
//!     let mut done: Done = checkpoint::load()?.unwrap_or_default();
//!     while done.pages < 3 {
//!         done.pages += 1;
//!         checkpoint::save(&done)?;
//!     }
//!     Ok(done.pages)
//! }
//! # assert_eq!(crawl()?, 3);
//! # assert_eq!(checkpoint::load::<Done>()?.unwrap().pages, 3);
//! # Ok::<(), Failure>(())
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{decode, encode};
use crate::{Error, host};

/// The value saved last, by this try or an earlier one.
pub fn load<T: DeserializeOwned>() -> Result<Option<T>, Error> {
    let Some(bytes) = load_bytes()? else {
        return Ok(None);
    };
    decode(&String::from_utf8_lossy(&bytes), || "the checkpoint".to_owned()).map(Some)
}

/// Replaces the saved value. It is durable when this returns.
pub fn save<T: Serialize + ?Sized>(value: &T) -> Result<(), Error> {
    save_bytes(encode(value, || "the checkpoint".to_owned())?)
}

/// Like [`load`], as raw bytes.
pub fn load_bytes() -> Result<Option<Vec<u8>>, Error> {
    host::checkpoint_load()
}

/// Like [`save`], as raw bytes.
pub fn save_bytes(bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    host::checkpoint_save(bytes.as_ref())
}

/// Removes what was saved.
pub fn clear() -> Result<(), Error> {
    host::checkpoint_clear()
}
