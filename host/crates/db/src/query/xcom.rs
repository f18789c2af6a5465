//! The list of XComs, and one with its value.

use model::{DagId, DagRunKey, MapIndex, RunId, TaskId, TaskIndex, TiKey};
use ports::query::{Page, XcomFilter, XcomRow};

use super::{Conditions, limit, order};
use crate::sql::{Dialect, Row, Statement};
use crate::table::dag_run::LISTED;

const COLUMNS: &str = "SELECT x.dag_run, x.task_index, x.map_index, r.dag_id, r.run_id, r.logical_date, r.run_after, p.task_id, \
    x.key, x.at";
const FROM: &str = " FROM xcom x JOIN dag_run r ON r.id = x.dag_run \
    JOIN dag_version_task p ON p.version = r.version AND p.task_index = x.task_index";

fn conditions(filter: &XcomFilter, dialect: Dialect) -> Conditions {
    let XcomFilter {
        dag_id,
        run_id,
        task_id,
        key,
        map_index,
    } = filter;
    let mut conditions = Conditions::new(FROM, dialect);
    conditions.and().push(LISTED);
    conditions.equals("r.dag_id", dag_id.as_ref().map(DagId::as_str));
    conditions.equals("r.run_id", run_id.as_ref().map(RunId::as_str));
    conditions.equals("p.task_id", task_id.as_ref().map(TaskId::as_str));
    conditions.equals("x.key", key.as_ref());
    conditions.equals("x.map_index", map_index.map(|index| index.0));
    conditions
}

/// Counts, and lists a page without values.
pub(crate) fn list(filter: &XcomFilter, page: Page, dialect: Dialect) -> [Statement; 2] {
    let conditions = conditions(filter, dialect);
    let mut select = conditions.select(COLUMNS);
    order(
        &mut select,
        [],
        &["x.dag_run", "x.task_index", "x.map_index", "x.key"],
        false,
    );
    limit(&mut select, page);
    [conditions.count(), select]
}

/// At most one XCom, without its value.
pub(crate) fn one(filter: &XcomFilter, dialect: Dialect) -> Statement {
    conditions(filter, dialect).select(COLUMNS)
}

pub(crate) fn read(row: &Row) -> Result<XcomRow, sqlx::Error> {
    let mut columns = row.columns();
    Ok(XcomRow {
        ti: TiKey {
            run: DagRunKey(columns.int()?),
            task: TaskIndex(columns.number()?),
            map_index: MapIndex(columns.number()?),
        },
        dag_id: columns.parse()?,
        run_id: columns.parse()?,
        logical_date: columns.opt_time()?,
        run_after: columns.time()?,
        task_id: columns.parse()?,
        key: columns.text()?,
        timestamp: columns.time()?,
        value: None,
    })
}
