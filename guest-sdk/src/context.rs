//! Which try this is, of which task, in which run.
//!
//! ```
//! use airtight_sdk::prelude::*;
//!
//! /// Picks the data set by the run's parameter `source`.
//! #[task]
//! fn which() -> Result<String> {
//!     let source: Option<String> = context::param("source")?;
//!     Ok(format!("{} of {}", source.unwrap_or_else(|| "all".to_owned()), context::dag_id()))
//! }
//! # assert_eq!(which()?, "all of test_dag");
//! # Ok::<(), Failure>(())
//! ```

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::decode;
use crate::{Error, host};

/// The id of the DAG.
pub fn dag_id() -> String {
    host::dag_id()
}

/// The id of the dag run, unique within its DAG.
pub fn run_id() -> String {
    host::run_id()
}

/// The id of the task in the manifest, which need not be the function's name.
pub fn task_id() -> String {
    host::task_id()
}

/// The index of a mapped task instance; `None` where the task is not mapped.
pub fn map_index() -> Option<u32> {
    host::map_index()
}

/// The number of this try; the first is 1.
pub fn try_number() -> u32 {
    host::try_number()
}

/// How many tries there are at the most.
pub fn max_tries() -> u32 {
    host::max_tries()
}

/// The run's logical date, if it has one, in RFC 3339.
pub fn logical_date() -> Option<String> {
    host::logical_date()
}

/// The start of the run's data interval, if there is one, in RFC 3339.
pub fn data_interval_start() -> Option<String> {
    host::data_interval_start()
}

/// The end of the run's data interval, if there is one, in RFC 3339.
pub fn data_interval_end() -> Option<String> {
    host::data_interval_end()
}

/// The run's parameters, with defaults filled in.
pub fn params<T: DeserializeOwned>() -> Result<T, Error> {
    decode(&host::params(), || "the run's params".to_owned())
}

/// One parameter; `None` where the run has none of that name.
pub fn param<T: DeserializeOwned>(name: &str) -> Result<Option<T>, Error> {
    let mut params: Map<String, Value> = params()?;
    let Some(value) = params.remove(name) else {
        return Ok(None);
    };
    serde_path_to_error::deserialize(value)
        .map(Some)
        .map_err(|source| Error::Decode {
            what: format!("the param `{name}`"),
            source,
        })
}

/// What the caller passed when it triggered the run.
pub fn conf<T: DeserializeOwned>() -> Result<T, Error> {
    decode(&host::conf(), || "the run's conf".to_owned())
}
