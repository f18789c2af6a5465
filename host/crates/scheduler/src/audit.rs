//! Lines of the audit log, under the names that Airflow's event log uses.

use model::DagId;
use ports::executor::RunContext;
use ports::store::AuditWrite;

use crate::asker::Asker;

/// Something was done to a run.
pub(crate) fn run(event: &'static str, by: &Asker, context: &RunContext, extra: Option<String>) -> AuditWrite {
    AuditWrite {
        event,
        user: by.user.clone(),
        dag_id: Some(context.dag_id.clone()),
        run_id: Some(context.run_id.clone()),
        extra,
        settles: by.row,
    }
}

/// Something was done to a DAG.
pub(crate) fn dag(event: &'static str, by: &Asker, dag_id: &DagId, extra: Option<String>) -> AuditWrite {
    AuditWrite {
        event,
        user: by.user.clone(),
        dag_id: Some(dag_id.clone()),
        run_id: None,
        extra,
        settles: by.row,
    }
}

/// Something was done to a pool.
pub(crate) fn pool(event: &'static str, by: &Asker, name: &str, slots: Option<i32>) -> AuditWrite {
    let extra = match slots {
        Some(slots) => serde_json::json!({"pool": name, "slots": slots}),
        None => serde_json::json!({"pool": name}),
    };
    AuditWrite {
        event,
        user: by.user.clone(),
        dag_id: None,
        run_id: None,
        extra: Some(extra.to_string()),
        settles: by.row,
    }
}
