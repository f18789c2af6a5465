//! The audit log, under Airflow's name for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::DagId;
use ports::query::AuditRow;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::{PathArgs, Patterns, Query};
use crate::shape::{Null, Time};
use crate::state::App;
use crate::{order, page};

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v2/eventLogs",
            list,
            Op::new("event_log", "get_event_logs", "The audit log")
                .query(PAGE)
                .query(&[
                    ("order_by", Kind::Texts),
                    ("dag_id", Kind::Text),
                    ("task_id", Kind::Text),
                    ("run_id", Kind::Text),
                    ("owner", Kind::Text),
                    ("event", Kind::Text),
                    ("excluded_events", Kind::Texts),
                    ("included_events", Kind::Texts),
                    ("before", Kind::Time),
                    ("after", Kind::Time),
                    ("dag_id", Kind::Patterns),
                    ("task_id", Kind::Patterns),
                    ("run_id", Kind::Patterns),
                    ("owner", Kind::Patterns),
                    ("event", Kind::Patterns),
                ])
                .ok::<EventLogCollectionResponse>(),
        )
        .get(
            "/api/v2/eventLogs/{event_log_id}",
            get,
            Op::new("event_log", "get_event_log", "One line of the audit log").ok::<EventLogResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct EventLogCollectionResponse {
    event_logs: Vec<EventLogResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct EventLogResponse {
    event_log_id: i64,
    when: Time,
    dag_id: Option<String>,
    task_id: Option<String>,
    run_id: Option<String>,
    map_index: Null,
    try_number: Null,
    event: String,
    logical_date: Null,
    owner: String,
    extra: Option<String>,
    dag_display_name: Option<String>,
    task_display_name: Option<String>,
}

impl From<AuditRow> for EventLogResponse {
    fn from(row: AuditRow) -> Self {
        Self {
            event_log_id: row.id,
            when: Time(row.at),
            dag_display_name: row.dag_id.clone(),
            dag_id: row.dag_id,
            task_display_name: row.task_id.clone(),
            task_id: row.task_id,
            run_id: row.run_id,
            map_index: Null,
            try_number: Null,
            event: row.event,
            logical_date: Null,
            owner: row.user,
            extra: row.extra,
        }
    }
}

#[derive(Clone, Copy)]
enum Column {
    Id,
    When,
    Dag,
    Task,
    Run,
    Event,
    Owner,
    Extra,
}

const COLUMNS: &[(&str, Option<Column>)] = &[
    ("id", Some(Column::Id)),
    ("event_log_id", Some(Column::Id)),
    ("when", Some(Column::When)),
    ("dttm", Some(Column::When)),
    ("dag_id", Some(Column::Dag)),
    ("task_id", Some(Column::Task)),
    ("run_id", Some(Column::Run)),
    ("event", Some(Column::Event)),
    ("owner", Some(Column::Owner)),
    ("extra", Some(Column::Extra)),
    ("logical_date", None),
];

async fn list(State(app): State<Arc<App>>, mut query: Query) -> Result<Json<EventLogCollectionResponse>, ApiError> {
    let page = query.page();
    let (before, after) = (query.time("before"), query.time("after"));
    let text = |name: &str| query.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let columns = ["dag_id", "task_id", "run_id", "owner", "event"];
    let exact = columns.map(text);
    let patterns: [Patterns; 5] = columns.map(|name| query.patterns(name));
    let (excluded, included) = (query.texts("excluded_events"), query.texts("included_events"));
    // Lines of task instances are not in this log.
    let impossible = query.int("map_index").is_some() | query.int("try_number").is_some();
    query.finish()?;
    let order = order::parse(&query.texts("order_by"), COLUMNS)?;
    let [dag_id, ..] = &exact;
    let dag_id = match dag_id.as_deref().map(DagId::new).transpose() {
        Ok(dag_id) => dag_id,
        Err(_) => {
            return Ok(Json(EventLogCollectionResponse {
                event_logs: Vec::new(),
                total_entries: 0,
            }));
        }
    };
    let mut rows = page::scan("the audit log", |page| app.metadata.audit_log(dag_id.as_ref(), page)).await?;
    rows.retain(|row| {
        let values = [
            row.dag_id.as_deref(),
            row.task_id.as_deref(),
            row.run_id.as_deref(),
            Some(row.user.as_str()),
            Some(row.event.as_str()),
        ];
        let matches = values
            .iter()
            .zip(&exact)
            .zip(&patterns)
            .all(|((value, exact), patterns)| {
                exact.as_deref().is_none_or(|exact| *value == Some(exact))
                    && (patterns.is_empty() || value.is_some_and(|value| patterns.matches(value)))
            });
        !impossible
            && matches
            && before.is_none_or(|before| row.at <= before)
            && after.is_none_or(|after| row.at >= after)
            && !excluded.contains(&row.event)
            && (included.is_empty() || included.contains(&row.event))
    });
    // Airflow's default is by id, ascending; the database answers the newest first.
    rows.sort_by_key(|row| row.id);
    order::sort(&mut rows, &order, |column, left, right| match column {
        Column::Id => left.id.cmp(&right.id),
        Column::When => left.at.cmp(&right.at),
        Column::Dag => left.dag_id.cmp(&right.dag_id),
        Column::Task => left.task_id.cmp(&right.task_id),
        Column::Run => left.run_id.cmp(&right.run_id),
        Column::Event => left.event.cmp(&right.event),
        Column::Owner => left.user.cmp(&right.user),
        Column::Extra => left.extra.cmp(&right.extra),
    });
    let listed = page::cut(rows, page);
    Ok(Json(EventLogCollectionResponse {
        event_logs: listed.items.into_iter().map(EventLogResponse::from).collect(),
        total_entries: listed.total,
    }))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<EventLogResponse>, ApiError> {
    let id = path.number("event_log_id", path.text("event_log_id"))?;
    let rows = page::scan("the audit log", |page| app.metadata.audit_log(None, page)).await?;
    let row = rows.into_iter().find(|row| row.id == id);
    let row = row.ok_or_else(|| ApiError::new(Code::EventLogNotFound, format!("event log {id} does not exist")))?;
    Ok(Json(row.into()))
}
