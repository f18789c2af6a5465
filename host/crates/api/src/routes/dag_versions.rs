//! The versions of a DAG. Same content, same version; none ever changes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::DagId;
use ports::deploy::DagVersion;
use ports::query::DagFilter;
use serde::Serialize;
use utoipa::ToSchema;

use super::{dags, under};
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::{PathArgs, Query};
use crate::shape::DagVersionResponse;
use crate::state::App;
use crate::{order, page};

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            under!(dag "/dagVersions"),
            list,
            Op::new("dag", "get_dag_versions", "The versions of a DAG; `~` is all DAGs")
                .query(PAGE)
                .query(&[
                    ("version_number", Kind::Int),
                    ("bundle_name", Kind::Text),
                    ("bundle_version", Kind::Text),
                    ("order_by", Kind::Texts),
                ])
                .ok::<DagVersionCollectionResponse>(),
        )
        .get(
            under!(dag "/dagVersions/{version_number}"),
            get,
            Op::new("dag", "get_dag_version", "One version of a DAG").ok::<DagVersionResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct DagVersionCollectionResponse {
    dag_versions: Vec<DagVersionResponse>,
    total_entries: u64,
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<DagVersionCollectionResponse>, ApiError> {
    let page = query.page();
    let number = query.count("version_number");
    query.finish()?;
    // Airflow's ids of versions rise with time, so its order by id is the order of creation.
    let allowed = [
        ("id", Some(Column::Created)),
        ("version_number", Some(Column::Number)),
        ("bundle_name", None),
        ("bundle_version", None),
    ];
    let order = order::parse(&query.texts("order_by"), &allowed)?;
    let dag_ids = match path.any_dag_id()? {
        Some(_) => vec![dags::find(&app, &path).await?.dag_id],
        None => {
            let filter = DagFilter::default();
            let rows = page::scan("versions of all DAGs", |page| app.metadata.dags(&filter, page)).await?;
            rows.into_iter().map(|row| row.dag_id).collect()
        }
    };
    let mut versions: Vec<(DagId, DagVersion)> = Vec::new();
    for dag_id in dag_ids {
        let rows = page::scan("versions of a DAG", |page| app.metadata.dag_versions(&dag_id, page)).await?;
        // The database answers the newest first.
        versions.extend(rows.into_iter().rev().map(|version| (dag_id.clone(), version)));
    }
    let bundled = ["bundle_name", "bundle_version"]
        .iter()
        .any(|name| query.text(name).is_some_and(|text| !text.is_empty()));
    versions.retain(|(_, version)| !bundled && number.is_none_or(|number| number == version.number));
    order::sort(&mut versions, &order, |column, (_, left), (_, right)| match column {
        Column::Created => left.created_at.cmp(&right.created_at),
        Column::Number => left.number.cmp(&right.number),
    });
    let listed = page::cut(versions, page);
    let shape = |(dag_id, version): &(DagId, DagVersion)| DagVersionResponse::new(dag_id, version);
    Ok(Json(DagVersionCollectionResponse {
        dag_versions: listed.items.iter().map(shape).collect(),
        total_entries: listed.total,
    }))
}

#[derive(Clone, Copy)]
enum Column {
    Created,
    Number,
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<DagVersionResponse>, ApiError> {
    let number = path.version_number()?;
    let dag_id = dags::find(&app, &path).await?.dag_id;
    let version = app.metadata.dag_version(&dag_id, number).await?.ok_or_else(|| {
        ApiError::new(
            Code::DagVersionNotFound,
            format!("DAG `{dag_id}` has no version {number}"),
        )
    })?;
    Ok(Json(DagVersionResponse::new(&dag_id, &version)))
}
