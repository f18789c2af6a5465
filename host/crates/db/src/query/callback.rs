//! The list of callbacks, notifications among them.

use model::callback::CallbackKind;
use model::{DagId, MapIndex, RunId, RunUuid, TaskId, TryNumber};
use ports::callback::{CallbackFilter, CallbackId, CallbackRow};
use ports::query::Page;

use super::{Conditions, limit};
use crate::sql::{Dialect, Row, Statement};
use crate::table::dag_run::LISTED;

const FROM: &str = " FROM callback c JOIN dag_run r ON r.id = c.dag_run";

const COLUMNS: &str = "SELECT c.id, r.dag_id, r.run_id, r.uuid, c.task_id, c.map_index, c.try_number, c.event, c.kind, c.name, \
    c.level, c.state, c.attempt, c.created_at, c.next_at, c.started_at, c.ended_at, c.cause, c.code, c.message, c.text, c.facts";

/// Counts, and lists a page.
pub(crate) fn list(filter: &CallbackFilter, page: Page, dialect: Dialect) -> [Statement; 2] {
    let CallbackFilter {
        dag_id,
        run_id,
        task_id,
        kinds,
        events,
        states,
        levels,
        created_at,
        after,
        id,
        newest_first,
    } = filter;
    let mut conditions = Conditions::new(FROM, dialect);
    conditions.and().push(LISTED);
    conditions.equals("r.dag_id", dag_id.as_ref().map(DagId::as_str));
    conditions.equals("r.run_id", run_id.as_ref().map(RunId::as_str));
    conditions.equals("c.task_id", task_id.as_ref().map(TaskId::as_str));
    if kinds.as_slice() == [CallbackKind::Notification] {
        // Spelled out, so that PostgreSQL sees that the index on notifications is enough.
        conditions.and().push("c.kind = 'notification'");
    } else {
        conditions.one_of("c.kind", kinds.iter().map(|kind| kind.as_str()));
    }
    conditions.one_of("c.event", events.iter().map(|event| event.as_str()));
    conditions.one_of("c.state", states.iter().map(|state| state.as_str()));
    conditions.one_of("c.level", levels.iter().map(|level| level.as_str()));
    conditions.within("c.created_at", created_at);
    conditions.equals("c.id", id.map(|id| id.0));
    if let Some(after) = after {
        conditions.and().push("c.id > ").bind(after.0);
    }
    let mut select = conditions.select(COLUMNS);
    select.push(if *newest_first {
        " ORDER BY c.id DESC"
    } else {
        " ORDER BY c.id"
    });
    limit(&mut select, page);
    [conditions.count(), select]
}

pub(crate) fn read(row: &Row) -> Result<CallbackRow, sqlx::Error> {
    let mut columns = row.columns();
    Ok(CallbackRow {
        id: CallbackId(columns.int()?),
        dag_id: columns.parse()?,
        run_id: columns.parse()?,
        run_uuid: RunUuid(columns.uuid()?),
        task_id: columns.opt_parse()?,
        map_index: MapIndex(columns.number()?),
        try_number: columns.opt_number()?.map(TryNumber),
        event: columns.parse()?,
        kind: columns.parse()?,
        name: columns.text()?,
        level: columns.opt_parse()?,
        state: columns.parse()?,
        attempt: columns.number()?,
        created_at: columns.time()?,
        next_at: columns.opt_time()?,
        started_at: columns.opt_time()?,
        ended_at: columns.opt_time()?,
        cause: columns.opt_parse()?,
        code: columns.opt_text()?,
        message: columns.opt_text()?,
        text: columns.opt_text()?,
        facts: columns.text()?,
    })
}
