//! The list of DAGs.

use std::collections::BTreeSet;

use ports::query::{DagField, DagFilter, Page};

use super::{Conditions, limit, order};
use crate::sql::{Dialect, Statement};
use crate::table::dag::COLUMNS;

const LAST_STATE: &str =
    "(SELECT r.state FROM dag_run r WHERE r.dag_id = d.dag_id ORDER BY r.run_after DESC, r.id DESC LIMIT 1)";
const LAST_START: &str =
    "(SELECT r.start_date FROM dag_run r WHERE r.dag_id = d.dag_id ORDER BY r.run_after DESC, r.id DESC LIMIT 1)";

fn column(field: DagField) -> &'static str {
    match field {
        DagField::DagId => "d.dag_id",
        DagField::Paused => "d.paused",
        DagField::LastRunStartDate => LAST_START,
        DagField::LastRunState => LAST_STATE,
        DagField::UpdatedAt => "d.updated_at",
    }
}

/// Counts, and lists a page.
pub(crate) fn list(filter: &DagFilter, page: Page, dialect: Dialect) -> [Statement; 2] {
    let DagFilter {
        dag_id_pattern,
        paused,
        tags,
        tags_match_all,
        owners,
        last_run_state,
        order_by,
    } = filter;
    let mut conditions = Conditions::new(" FROM dag d", dialect);
    conditions.and().push("d.deleting = 0");
    conditions.like("d.dag_id", dag_id_pattern.as_ref());
    conditions.equals("d.paused", *paused);
    conditions.one_of("d.owner", owners);
    conditions.equals(LAST_STATE, last_run_state.map(model::DagRunState::as_str));
    let tags: BTreeSet<&String> = tags.iter().collect();
    if !tags.is_empty() {
        let wanted = if *tags_match_all { tags.len() } else { 1 };
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let condition = conditions.and();
        condition.push("(SELECT COUNT(*) FROM dag_tag g WHERE g.dag_id = d.dag_id AND g.name IN ");
        condition.bind_list(tags).push(") >= ").bind(wanted);
    }
    let mut select = conditions.select(COLUMNS);
    let columns = order_by.iter().map(|by| (column(by.field), by.descending));
    order(&mut select, columns, &["d.dag_id"], false);
    limit(&mut select, page);
    [conditions.count(), select]
}
