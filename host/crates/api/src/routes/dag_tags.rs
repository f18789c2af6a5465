//! The tags in use.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::Query;
use crate::state::App;
use crate::{order, page};

pub(crate) fn add(routes: Routes) -> Routes {
    routes.get(
        "/api/v2/dagTags",
        list,
        Op::new("dag", "get_dag_tags", "The tags in use")
            .query(PAGE)
            .query(&[("tag_name", Kind::Patterns), ("order_by", Kind::Texts)])
            .ok::<DagTagCollectionResponse>(),
    )
}

#[derive(Serialize, ToSchema)]
struct DagTagCollectionResponse {
    tags: Vec<String>,
    total_entries: u64,
}

async fn list(State(app): State<Arc<App>>, mut query: Query) -> Result<Json<DagTagCollectionResponse>, ApiError> {
    let page = query.page();
    let names = query.patterns("tag_name");
    query.finish()?;
    let order = order::parse(&query.texts("order_by"), &[("name", Some(()))])?;
    let mut tags = app.metadata.dag_tags().await?;
    tags.retain(|tag| names.matches(tag));
    tags.sort();
    order::sort(&mut tags, &order, |(), left, right| left.cmp(right));
    let listed = page::cut(tags, page);
    Ok(Json(DagTagCollectionResponse {
        tags: listed.items,
        total_entries: listed.total,
    }))
}
