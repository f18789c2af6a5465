//! The list of task instances.

use model::{DagId, RunId, TaskId};
use ports::query::{Page, TiField, TiFilter};

use super::{Conditions, limit, order};
use crate::sql::{Dialect, Statement};
use crate::table::dag_run::LISTED;
use crate::table::task_instance::{FROM, SHOWN};

const KEY: &[&str] = &["t.dag_run", "t.task_index", "t.map_index"];

fn column(field: TiField) -> &'static str {
    match field {
        TiField::Key => "t.dag_run",
        TiField::TaskId => "t.task_id",
        TiField::MapIndex => "t.map_index",
        TiField::State => "t.state",
        TiField::Duration => "t.end_date - t.start_date",
        TiField::StartDate => "t.start_date",
        TiField::EndDate => "t.end_date",
        TiField::RunAfter => "r.run_after",
        TiField::LogicalDate => "r.logical_date",
        TiField::TryNumber => "t.try_number",
        TiField::RenderedMapIndex => "t.rendered_map_index",
    }
}

/// What a filter asks for; `t` is the task instance and `r` its run.
pub(super) fn conditions(filter: &TiFilter, from: &'static str, dialect: Dialect) -> Conditions {
    let TiFilter {
        dag_id,
        run_id,
        task_ids,
        task_id_pattern,
        map_index,
        only_mapped,
        states,
        causes,
        pools,
        start_date,
        end_date,
        logical_date,
        run_after,
        updated_at,
        try_numbers,
        order_by: _,
    } = filter;
    let mut conditions = Conditions::new(from, dialect);
    conditions.and().push(LISTED);
    conditions.equals("r.dag_id", dag_id.as_ref().map(DagId::as_str));
    conditions.equals("r.run_id", run_id.as_ref().map(RunId::as_str));
    conditions.one_of("t.task_id", task_ids.iter().map(TaskId::as_str));
    conditions.like("t.task_id", task_id_pattern.as_ref());
    conditions.equals("t.map_index", map_index.map(|index| index.0));
    if *only_mapped {
        conditions.and().push("t.map_index >= 0");
    }
    conditions.one_of("t.state", states.iter().map(|state| state.as_str()));
    conditions.one_of("t.cause", causes.iter().map(|cause| cause.as_str()));
    if !pools.is_empty() {
        let condition = conditions.and();
        condition.push(
            "EXISTS (SELECT 1 FROM dag_version_task p WHERE p.version = r.version AND p.task_index = t.task_index AND p.pool IN ",
        );
        condition.bind_list(pools).push(")");
    }
    conditions.within("t.start_date", start_date);
    conditions.within("t.end_date", end_date);
    conditions.within("r.logical_date", logical_date);
    conditions.within("r.run_after", run_after);
    conditions.within("t.updated_at", updated_at);
    conditions.one_of("t.try_number", try_numbers.iter().copied());
    conditions
}

/// Counts, and lists a page.
pub(crate) fn list(filter: &TiFilter, page: Page, dialect: Dialect) -> [Statement; 2] {
    let conditions = conditions(filter, FROM, dialect);
    let mut select = conditions.select(SHOWN);
    let (columns, key_descending) = match &*filter.order_by {
        [by] if by.field == TiField::Key => (&[][..], by.descending),
        columns => (columns, false),
    };
    let columns = columns.iter().map(|by| (column(by.field), by.descending));
    order(&mut select, columns, KEY, key_descending);
    limit(&mut select, page);
    [conditions.count(), select]
}
