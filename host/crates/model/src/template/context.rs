//! What a rendering can see.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::analyse::XcomRef;
use crate::time::Timestamp;

/// The XCom behind one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XcomInput {
    /// JSON text.
    One(Arc<str>),
    /// The JSON texts of a mapped task's instances, in index order.
    Mapped(Vec<Arc<str>>),
}

/// What a rendering can see. References that are not in `xcoms` were not published: they are undefined.
#[derive(Clone, Copy, Debug)]
pub struct TemplateContext<'a> {
    /// The DAG.
    pub dag_id: &'a str,
    /// The run's name.
    pub run_id: &'a str,
    /// The task.
    pub task_id: &'a str,
    /// The map index, −1 where the task is not mapped.
    pub map_index: i32,
    /// The try, from 1.
    pub try_number: u32,
    /// The iteration of the loop around the task, from 0.
    pub iteration: Option<u32>,
    /// The elements that the task instance is mapped over, by name, as JSON texts.
    pub items: &'a [(String, Arc<str>)],
    /// What a callback is told: an object. None for a task.
    pub callback: Option<&'a Value>,
    /// See Airflow's logical date.
    pub logical_date: Option<Timestamp>,
    /// Start of the data interval.
    pub data_interval_start: Option<Timestamp>,
    /// End of the data interval.
    pub data_interval_end: Option<Timestamp>,
    /// Parameters after defaults were filled in.
    pub params: &'a Value,
    /// What the caller passed.
    pub conf: &'a Value,
    /// The XComs of [`InputTemplate::xcom_refs`](super::InputTemplate::xcom_refs).
    pub xcoms: &'a HashMap<XcomRef, XcomInput>,
}

impl TemplateContext<'_> {
    /// A root that is one value; `None` for unknown names and for what this run does not have.
    pub(super) fn scalar(&self, name: &str) -> Option<Value> {
        let date = self.logical_date.map(Timestamp::civil);
        Some(match name {
            "dag_id" => self.dag_id.into(),
            "run_id" => self.run_id.into(),
            "task_id" => self.task_id.into(),
            "map_index" => self.map_index.into(),
            "try_number" => self.try_number.into(),
            "iteration" => self.iteration?.into(),
            "callback" => self.callback?.clone(),
            "logical_date" => self.logical_date?.to_string().into(),
            "data_interval_start" => self.data_interval_start?.to_string().into(),
            "data_interval_end" => self.data_interval_end?.to_string().into(),
            "ds" => date?.strftime("%Y-%m-%d").to_string().into(),
            "ds_nodash" => date?.strftime("%Y%m%d").to_string().into(),
            // Python's isoformat, as Airflow writes it: a fraction only where there is one.
            "ts" => {
                let date = date?;
                let fraction = if date.subsec_nanosecond() == 0 { "" } else { ".%6f" };
                date.strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}+00:00"))
                    .to_string()
                    .into()
            }
            "ts_nodash" => date?.strftime("%Y%m%dT%H%M%S").to_string().into(),
            _ => return None,
        })
    }
}
