//! The manifests as they were deployed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::dags::find;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, Routes};
use crate::request::{Media, PathArgs, Query, negotiate};
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    routes.get(
        "/api/v2/dagSources/{dag_id}",
        get,
        Op::new(
            "dag",
            "get_dag_source",
            "The manifest of a DAG, of its current version or another",
        )
        .query(&[("version_number", Kind::Int)])
        .ok::<DagSourceResponse>()
        .raw(200, "text/plain"),
    )
}

#[derive(Serialize, ToSchema)]
struct DagSourceResponse {
    content: String,
    dag_id: String,
    version_number: u32,
    dag_display_name: String,
}

async fn get(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let media = negotiate(&headers, &[Media::Json, Media::Text])?;
    let number = query.count("version_number");
    query.finish()?;
    let dag = find(&app, &path).await?;
    let version = match number {
        None => dag.version,
        Some(number) => app.metadata.dag_version(&dag.dag_id, number).await?.ok_or_else(|| {
            ApiError::new(
                Code::DagVersionNotFound,
                format!("DAG `{}` has no version {number}", dag.dag_id),
            )
        })?,
    };
    if media == Media::Text {
        return Ok(([(header::CONTENT_TYPE, media.as_str())], version.source.to_string()).into_response());
    }
    let response = DagSourceResponse {
        content: version.source.to_string(),
        dag_id: dag.dag_id.to_string(),
        version_number: version.number,
        dag_display_name: dag.dag_id.to_string(),
    };
    Ok(Json(response).into_response())
}
