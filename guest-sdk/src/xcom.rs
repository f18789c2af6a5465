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

use std::marker::PhantomData;

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

/// How many values [`items`] gives.
pub fn count(task: &str, key: &str) -> Result<u32, Error> {
    host::xcom_count(task, key)
}

/// What the instances of a mapped upstream task published under a key, one after another in index order, with their map indexes. The
/// values are fetched as they are needed, some at a time: there may be more of them than fit into the task's memory. A task that is
/// not mapped gives its one value.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// /// Adds up what a mapped task counted.
/// #[task]
/// fn total() -> Result<u64> {
///     let mut sum = 0;
///     for item in xcom::items::<u64>("count", xcom::RETURN_VALUE) {
///         let (_map_index, value) = item?;
///         sum += value;
///     }
///     Ok(sum)
/// }
/// # use airtight_sdk::testing::TestHost;
/// # let host = TestHost::new().upstream_mapped("count", "return_value", 0, 3).upstream_mapped("count", "return_value", 4, 5).install();
/// # assert_eq!(total()?, 8);
/// # Ok::<(), Failure>(())
/// ```
pub fn items<T: DeserializeOwned>(task: &str, key: &str) -> Items<T> {
    Items {
        task: task.to_owned(),
        key: key.to_owned(),
        fetched: Vec::new().into_iter(),
        after: None,
        over: false,
        values: PhantomData,
    }
}

/// How many values are asked for at a time; the host may hand over fewer.
const PART: u32 = 1_024;

/// Values of many task instances, from [`items`]. An error ends it.
#[derive(Debug)]
pub struct Items<T> {
    task: String,
    key: String,
    fetched: std::vec::IntoIter<(Option<u32>, String)>,
    after: Option<u32>,
    over: bool,
    values: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Items<T> {
    fn next_text(&mut self) -> Result<Option<(Option<u32>, String)>, Error> {
        if let Some(item) = self.fetched.next() {
            return Ok(Some(item));
        }
        if self.over {
            return Ok(None);
        }
        let part = host::xcom_pull_items(&self.task, &self.key, self.after, PART)?;
        // A task that is not mapped has one value, and no index to go on after.
        self.after = part.last().and_then(|(index, _)| *index);
        self.over = self.after.is_none();
        self.fetched = part.into_iter();
        Ok(self.fetched.next())
    }
}

impl<T: DeserializeOwned> Iterator for Items<T> {
    type Item = Result<(Option<u32>, T), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next_text().transpose()?.and_then(|(index, json)| {
            let value = decode(&json, || format!("XCom `{}` of `{}`", self.key, self.task))?;
            Ok((index, value))
        });
        if item.is_err() {
            self.over = true;
            self.fetched = Vec::new().into_iter();
        }
        Some(item)
    }
}

fn pull_at<T: DeserializeOwned>(task: &str, key: &str, map_index: Option<u32>) -> Result<Option<T>, Error> {
    host::xcom_pull(task, key, map_index)?
        .map(|json| decode(&json, || format!("XCom `{key}` of `{task}`")))
        .transpose()
}
