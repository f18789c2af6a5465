//! Lists: filters, orders and pages, from `ports::query` to SQL.

pub(crate) mod callback;
mod condition;
pub(crate) mod dag;
pub(crate) mod dag_run;
pub(crate) mod hitl_detail;
pub(crate) mod task_instance;
pub(crate) mod xcom;

pub(crate) use condition::{Conditions, limit, order};
