//! The list of questions to people.

use ports::query::{HitlField, HitlFilter, Page};

use super::{limit, order, task_instance};
use crate::sql::{Dialect, Row, Statement};
use crate::table::hitl_detail::{self, COLUMNS, Stored};
use crate::table::task_instance::{RunPart, SHOWN, read_shown_columns};

/// The question of a task instance is that of its current try.
const FROM: &str = " FROM hitl_detail h JOIN task_instance t ON t.dag_run = h.dag_run AND t.task_index = h.task_index \
    AND t.map_index = h.map_index AND t.try_number = h.try_number JOIN dag_run r ON r.id = t.dag_run";

const KEY: &[&str] = &["h.dag_run", "h.task_index", "h.map_index"];

fn column(field: HitlField) -> &'static str {
    match field {
        HitlField::Key => "h.dag_run",
        HitlField::Subject => "h.subject",
        HitlField::RespondedAt => "h.responded_at",
        HitlField::CreatedAt => "h.created_at",
        HitlField::RespondedBy => "h.responded_by",
        HitlField::DagId => "r.dag_id",
        HitlField::RunId => "r.run_id",
        HitlField::TaskId => "t.task_id",
        HitlField::RunAfter => "r.run_after",
        HitlField::State => "t.state",
    }
}

/// Counts, and lists a page.
pub(crate) fn list(filter: &HitlFilter, page: Page, dialect: Dialect) -> [Statement; 2] {
    let HitlFilter {
        ti,
        dag_id_pattern,
        response_received,
        responded_by,
        subject_pattern,
        body_pattern,
        created_at,
        order_by,
    } = filter;
    let mut conditions = task_instance::conditions(ti, FROM, dialect);
    conditions.like("r.dag_id", dag_id_pattern.as_ref());
    if let Some(received) = response_received {
        conditions.and().push(if *received {
            "h.responded_at IS NOT NULL"
        } else {
            "h.responded_at IS NULL"
        });
    }
    conditions.one_of("h.responded_by", responded_by.iter());
    conditions.like("h.subject", subject_pattern.as_ref());
    conditions.like("h.body", body_pattern.as_ref());
    conditions.within("h.created_at", created_at);
    let mut select = Statement::new(SHOWN);
    for name in COLUMNS {
        select.push(", h.").push(name);
    }
    select.append(conditions.select(""));
    let oldest_first = [("h.created_at", false)];
    let columns: Vec<_> = order_by.iter().map(|by| (column(by.field), by.descending)).collect();
    let columns = if columns.is_empty() {
        oldest_first.to_vec()
    } else {
        columns
    };
    order(&mut select, columns, KEY, false);
    limit(&mut select, page);
    [conditions.count(), select]
}

pub(crate) fn read(row: &Row) -> Result<(ports::store::TiWrite, RunPart, Stored), sqlx::Error> {
    let mut columns = row.columns();
    let (ti, run) = read_shown_columns(&mut columns)?;
    Ok((ti, run, hitl_detail::read_columns(&mut columns)?))
}
