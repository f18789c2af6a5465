//! `airtight:task/types` has no functions.

use crate::bindings::types;
use crate::ctx::TaskCtxView;

impl types::Host for TaskCtxView<'_> {}
