//! XComs: what tasks published.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use model::MapIndex;
use ports::query::{Listed, TimeRange, XcomFilter, XcomRow};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{dag_runs, under};
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::{PathArgs, Query};
use crate::shape::{RawJson, Time};
use crate::state::App;
use crate::{order, page};

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            under!(ti "/xcomEntries"),
            list,
            Op::new(
                "xcom",
                "get_xcom_entries",
                "XComs without their values; `~` is any DAG, run or task",
            )
            .query(PAGE)
            .query(&[
                ("xcom_key", Kind::Text),
                ("map_index", Kind::Int),
                ("map_index_filter", Kind::Int),
                ("xcom_key", Kind::Patterns),
                ("dag_display_name", Kind::Patterns),
                ("run_id", Kind::Patterns),
                ("task_id", Kind::Patterns),
                ("logical_date", Kind::Times),
                ("run_after", Kind::Times),
                ("order_by", Kind::Texts),
            ])
            .ok::<XcomCollectionResponse>(),
        )
        .get(
            under!(ti "/xcomEntries/{xcom_key}"),
            get,
            Op::new("xcom", "get_xcom_entry", "One XCom with its value")
                .query(&[
                    ("map_index", Kind::Int),
                    ("deserialize", Kind::Flag),
                    ("stringify", Kind::Flag),
                ])
                .ok::<XcomEntryResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct XcomCollectionResponse {
    xcom_entries: Vec<XcomResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct XcomResponse {
    key: String,
    timestamp: Time,
    logical_date: Option<Time>,
    map_index: i32,
    task_id: String,
    dag_id: String,
    run_id: String,
    dag_display_name: String,
    task_display_name: String,
    run_after: Time,
}

impl XcomResponse {
    fn new(row: &XcomRow) -> Self {
        Self {
            key: row.key.clone(),
            timestamp: Time(row.timestamp),
            logical_date: row.logical_date.map(Time),
            map_index: row.ti.map_index.0,
            task_id: row.task_id.to_string(),
            dag_id: row.dag_id.to_string(),
            run_id: row.run_id.to_string(),
            dag_display_name: row.dag_id.to_string(),
            task_display_name: row.task_id.to_string(),
            run_after: Time(row.run_after),
        }
    }
}

/// An XCom with its value. The members of the plain one are repeated: flattening would lose digits of large numbers.
#[derive(Serialize, ToSchema)]
struct XcomEntryResponse {
    key: String,
    timestamp: Time,
    logical_date: Option<Time>,
    map_index: i32,
    task_id: String,
    dag_id: String,
    run_id: String,
    dag_display_name: String,
    task_display_name: String,
    run_after: Time,
    /// The value; its JSON text with `stringify=true`.
    value: RawJson,
    /// The blobs that the value refers to.
    #[schema(value_type = Vec<Value>)]
    blobs: Vec<BlobReference>,
}

#[derive(Serialize, ToSchema)]
struct BlobReference {
    #[serde(rename = "$blob")]
    digest: String,
    size: u64,
    media_type: Option<String>,
}

#[derive(Clone, Copy)]
enum Column {
    Key,
    Dag,
    Run,
    Task,
    MapIndex,
    Timestamp,
    RunAfter,
}

const COLUMNS: &[(&str, Option<Column>)] = &[
    ("key", Some(Column::Key)),
    ("dag_id", Some(Column::Dag)),
    ("run_id", Some(Column::Run)),
    ("task_id", Some(Column::Task)),
    ("map_index", Some(Column::MapIndex)),
    ("timestamp", Some(Column::Timestamp)),
    ("run_after", Some(Column::RunAfter)),
];

fn in_range(range: &TimeRange, time: Option<model::Timestamp>) -> bool {
    let open = range.gte.is_none() && range.gt.is_none() && range.lte.is_none() && range.lt.is_none();
    let Some(time) = time else { return open };
    range.gte.is_none_or(|bound| time >= bound)
        && range.gt.is_none_or(|bound| time > bound)
        && range.lte.is_none_or(|bound| time <= bound)
        && range.lt.is_none_or(|bound| time < bound)
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<XcomCollectionResponse>, ApiError> {
    let page = query.page();
    let filter = XcomFilter {
        dag_id: path.any_dag_id()?,
        run_id: path.any_run_id()?,
        task_id: path.any_task_id()?,
        key: query.text("xcom_key").filter(|key| !key.is_empty()).map(str::to_owned),
        map_index: query.map_index("map_index").or(query.map_index("map_index_filter")),
    };
    let [keys, dags, runs, tasks] =
        ["xcom_key", "dag_display_name", "run_id", "task_id"].map(|name| query.patterns(name));
    let (logical_date, run_after) = (query.times("logical_date"), query.times("run_after"));
    let timed = query.texts("order_by").is_empty()
        && ["logical_date", "run_after"].iter().all(|name| {
            ["gte", "gt", "lte", "lt"]
                .iter()
                .all(|end| query.text(&format!("{name}_{end}")).is_none())
        });
    query.finish()?;
    let order = order::parse(&query.texts("order_by"), COLUMNS)?;
    if filter.dag_id.is_some() && filter.run_id.is_some() {
        dag_runs::find(&app, &path).await?;
    }
    let patterns = [&keys, &dags, &runs, &tasks].iter().all(|patterns| patterns.is_empty());
    let listed = if timed && patterns {
        app.metadata.xcoms(&filter, page).await?
    } else {
        let mut rows = page::scan("this filter or order", |page| app.metadata.xcoms(&filter, page)).await?;
        rows.retain(|row| {
            keys.matches(&row.key)
                && dags.matches(row.dag_id.as_str())
                && runs.matches(row.run_id.as_str())
                && tasks.matches(row.task_id.as_str())
                && in_range(&logical_date, row.logical_date)
                && in_range(&run_after, Some(row.run_after))
        });
        order::sort(&mut rows, &order, |column, left, right| match column {
            Column::Key => left.key.cmp(&right.key),
            Column::Dag => left.dag_id.cmp(&right.dag_id),
            Column::Run => left.run_id.cmp(&right.run_id),
            Column::Task => left.task_id.cmp(&right.task_id),
            Column::MapIndex => left.ti.map_index.cmp(&right.ti.map_index),
            Column::Timestamp => left.timestamp.cmp(&right.timestamp),
            Column::RunAfter => left.run_after.cmp(&right.run_after),
        });
        page::cut(rows, page)
    };
    let Listed { items, total } = listed;
    Ok(Json(XcomCollectionResponse {
        xcom_entries: items.iter().map(XcomResponse::new).collect(),
        total_entries: total,
    }))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs, mut query: Query) -> Result<Response, ApiError> {
    let map_index = query.map_index("map_index").unwrap_or(MapIndex::UNMAPPED);
    let stringify = query.flag("stringify").unwrap_or(false);
    // Values are JSON: there is nothing to deserialize beyond it.
    query.flag("deserialize");
    query.finish()?;
    let (dag_id, run_id, task_id) = (path.dag_id()?, path.run_id()?, path.task_id()?);
    let key = path.text("xcom_key");
    let Some(row) = app.metadata.xcom(&dag_id, &run_id, &task_id, map_index, key).await? else {
        dag_runs::find(&app, &path).await?;
        let key: String = key.chars().take(64).collect();
        return Err(ApiError::new(
            Code::XcomNotFound,
            format!("task `{task_id}` of run `{run_id}` has no XCom `{key}`"),
        ));
    };
    let text = row.value.as_ref().map_or("null", |value| &value.value);
    let quoted;
    let text = if stringify && row.value.is_some() {
        quoted = Value::String(text.to_owned()).to_string();
        &quoted
    } else {
        text
    };
    let blobs = row
        .value
        .iter()
        .flat_map(|value| &value.blobs)
        .map(|blob| BlobReference {
            digest: blob.digest.to_string(),
            size: blob.size,
            media_type: blob.media_type.clone(),
        });
    let value = RawJson::new(text)?;
    let plain = XcomResponse::new(&row);
    Ok(Json(XcomEntryResponse {
        key: plain.key,
        timestamp: plain.timestamp,
        logical_date: plain.logical_date,
        map_index: plain.map_index,
        task_id: plain.task_id,
        dag_id: plain.dag_id,
        run_id: plain.run_id,
        dag_display_name: plain.dag_display_name,
        task_display_name: plain.task_display_name,
        run_after: plain.run_after,
        value,
        blobs: blobs.collect(),
    })
    .into_response())
}
