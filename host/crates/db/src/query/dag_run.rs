//! The list of runs.

use model::DagId;
use ports::query::{Page, RunField, RunFilter};

use super::{Conditions, limit, order};
use crate::sql::{Dialect, Statement};
use crate::table::dag_run::{COLUMNS, FROM, LISTED};

fn column(field: RunField) -> &'static str {
    match field {
        RunField::Key => "r.id",
        RunField::DagId => "r.dag_id",
        RunField::RunId => "r.run_id",
        RunField::State => "r.state",
        RunField::LogicalDate => "r.logical_date",
        RunField::RunAfter => "r.run_after",
        RunField::StartDate => "r.start_date",
        RunField::EndDate => "r.end_date",
        RunField::UpdatedAt => "r.updated_at",
        RunField::DataIntervalStart => "r.data_interval_start",
        RunField::DataIntervalEnd => "r.data_interval_end",
    }
}

/// Counts, and lists a page.
pub(crate) fn list(filter: &RunFilter, page: Page, dialect: Dialect) -> [Statement; 2] {
    let RunFilter {
        dag_id,
        run_id_pattern,
        states,
        run_types,
        version_numbers,
        run_after,
        logical_date,
        start_date,
        end_date,
        updated_at,
        parent,
        order_by,
    } = filter;
    let mut conditions = Conditions::new(FROM, dialect);
    conditions.and().push(LISTED);
    conditions.equals("r.dag_id", dag_id.as_ref().map(DagId::as_str));
    conditions.like("r.run_id", run_id_pattern.as_ref());
    conditions.one_of("r.state", states.iter().map(|state| state.as_str()));
    conditions.one_of("r.run_type", run_types.iter().map(|run_type| run_type.as_str()));
    conditions.one_of("v.number", version_numbers.iter().copied());
    conditions.within("r.run_after", run_after);
    conditions.within("r.logical_date", logical_date);
    conditions.within("r.start_date", start_date);
    conditions.within("r.end_date", end_date);
    conditions.within("r.updated_at", updated_at);
    if let Some(parent) = parent {
        conditions.and().push("r.parent_run = ").bind(parent.0);
    }
    let mut select = conditions.select(COLUMNS);
    // The key itself, as the only column, is the primary key in either direction.
    let (columns, key_descending) = match &**order_by {
        [by] if by.field == RunField::Key => (&[][..], by.descending),
        columns => (columns, false),
    };
    let columns = columns.iter().map(|by| (column(by.field), by.descending));
    order(&mut select, columns, &["r.id"], key_descending);
    limit(&mut select, page);
    [conditions.count(), select]
}
