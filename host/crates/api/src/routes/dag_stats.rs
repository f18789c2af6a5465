//! How many runs of each state the DAGs have.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{DagId, DagRunState};
use ports::query::{DagFilter, Page, RunFilter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openapi::{Kind, Op, Routes};
use crate::page;
use crate::request::Query;
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    routes.get(
        "/api/v2/dagStats",
        get,
        Op::new("dag", "get_dag_stats", "How many runs of each state the DAGs have")
            .query(&[("dag_ids", Kind::Texts)])
            .ok::<DagStatsCollectionResponse>(),
    )
}

#[derive(Serialize, ToSchema)]
struct DagStatsCollectionResponse {
    dags: Vec<DagStatsResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct DagStatsResponse {
    dag_id: String,
    dag_display_name: String,
    stats: Vec<DagStatsStateResponse>,
}

#[derive(Serialize, ToSchema)]
struct DagStatsStateResponse {
    state: &'static str,
    count: u64,
}

async fn get(State(app): State<Arc<App>>, query: Query) -> Result<Json<DagStatsCollectionResponse>, ApiError> {
    let wanted = query.texts("dag_ids");
    let dag_ids: Vec<DagId> = if wanted.is_empty() {
        let filter = DagFilter::default();
        let rows = page::scan("statistics of all DAGs", |page| app.metadata.dags(&filter, page)).await?;
        rows.into_iter().map(|row| row.dag_id).collect()
    } else {
        let mut known = Vec::new();
        for dag_id in wanted.iter().take(1_000).filter_map(|id| DagId::new(id).ok()) {
            if app.metadata.dag(&dag_id).await?.is_some() && !known.contains(&dag_id) {
                known.push(dag_id);
            }
        }
        known
    };
    let mut dags = Vec::with_capacity(dag_ids.len());
    for dag_id in dag_ids {
        let mut stats = Vec::with_capacity(DagRunState::ALL.len());
        for state in DagRunState::ALL {
            let filter = RunFilter {
                dag_id: Some(dag_id.clone()),
                states: vec![*state],
                ..RunFilter::default()
            };
            let count = app.metadata.runs(&filter, Page { limit: 1, offset: 0 }).await?.total;
            stats.push(DagStatsStateResponse {
                state: state.as_str(),
                count,
            });
        }
        dags.push(DagStatsResponse {
            dag_display_name: dag_id.to_string(),
            dag_id: dag_id.to_string(),
            stats,
        });
    }
    Ok(Json(DagStatsCollectionResponse {
        total_entries: dags.len() as u64,
        dags,
    }))
}
