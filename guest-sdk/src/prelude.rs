//! What a task crate needs, in one line: `use airtight_sdk::prelude::*;`.

pub use ::schemars::{self, JsonSchema};
pub use ::serde::{Deserialize, Serialize};
pub use ::serde_json::{self, json};

pub use crate::progress::report as progress;
pub use crate::{
    Blob, Branch, Failure, Labels, Outcome, Result, checkpoint, context, data, debug, error, info, task, trace, warn,
    xcom,
};
