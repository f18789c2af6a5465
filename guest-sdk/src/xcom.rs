//! Values that tasks hand to their downstream tasks, beside the return value.
//!
//! Most tasks need none of this: the return value is published by itself, and the manifest puts upstream values into the input.
//! Pushes take effect when the try ends, also when it ends with a failure that the task returned; after a trap, a limit or a
//! timeout they are dropped.
//!
//! ```
//! use airtight_sdk::prelude::*;
//!
//! /// Publishes a report and fails.
//! #[task]
//! fn check() -> Result<()> {
//!     xcom::push("report", &json!({"missing": 3}))?;
//!     Err(Failure::fatal("3 cells are missing").code("quality_failed"))
//! }
//! # use airtight_sdk::testing::TestHost;
//! # let host = TestHost::new().install();
//! # assert!(check().is_err());
//! # assert_eq!(host.pushed("report"), Some(json!({"missing": 3})));
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{decode, encode};
use crate::{Error, host};

/// The key of a task's return value.
pub const RETURN_VALUE: &str = "return_value";

/// Publishes a value under a key. A second push of a key replaces the first.
pub fn push<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    host::xcom_push(key, &encode(value, || format!("XCom `{key}`"))?)
}

/// What an upstream task published under a key; `None` where it published nothing. A mapped task gives the list of its values in
/// index order. This task's own id gives what this try pushed so far.
pub fn pull<T: DeserializeOwned>(task: &str, key: &str) -> Result<Option<T>, Error> {
    pull_at(task, key, None)
}

/// The return value of an upstream task; `None` where it has none.
pub fn pull_return<T: DeserializeOwned>(task: &str) -> Result<Option<T>, Error> {
    pull(task, RETURN_VALUE)
}

/// What one instance of a mapped upstream task published.
pub fn pull_mapped<T: DeserializeOwned>(task: &str, key: &str, map_index: u32) -> Result<Option<T>, Error> {
    pull_at(task, key, Some(map_index))
}

fn pull_at<T: DeserializeOwned>(task: &str, key: &str, map_index: Option<u32>) -> Result<Option<T>, Error> {
    host::xcom_pull(task, key, map_index)?
        .map(|json| decode(&json, || format!("XCom `{key}` of `{task}`")))
        .transpose()
}
