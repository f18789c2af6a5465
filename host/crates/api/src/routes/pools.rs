//! Pools and how they are used.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::TaskInstanceState;
use ports::query::{Page, PoolRow, TiFilter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::{PathArgs, Query};
use crate::shape::Null;
use crate::state::App;
use crate::{order, page};

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v2/pools",
            list,
            Op::new("pool", "get_pools", "List pools")
                .query(PAGE)
                .query(&[("pool_name", Kind::Patterns), ("order_by", Kind::Texts)])
                .ok::<PoolCollectionResponse>(),
        )
        .get(
            "/api/v2/pools/{pool_name}",
            get,
            Op::new("pool", "get_pool", "One pool").ok::<PoolResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct PoolCollectionResponse {
    pools: Vec<PoolResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct PoolResponse {
    name: String,
    slots: u32,
    description: Option<String>,
    include_deferred: bool,
    occupied_slots: u64,
    running_slots: u64,
    queued_slots: u64,
    scheduled_slots: u64,
    open_slots: i64,
    deferred_slots: u64,
    team_name: Null,
}

impl PoolResponse {
    async fn new(app: &App, pool: PoolRow) -> Result<Self, ApiError> {
        let in_state = |states: &[TaskInstanceState]| TiFilter {
            pools: vec![pool.name.clone()],
            states: states.to_vec(),
            ..TiFilter::default()
        };
        // What is dispatched takes slots, so there are at most as many rows as slots.
        let dispatched = in_state(&[
            TaskInstanceState::Queued,
            TaskInstanceState::Running,
            TaskInstanceState::Restarting,
        ]);
        let mut rows = page::scan("the use of a pool", |page| {
            app.metadata.task_instances(&dispatched, page)
        })
        .await?;
        super::ti_list::overlay(app, &mut rows);
        let slots_in = |wanted: TaskInstanceState| -> u64 {
            let rows = rows.iter().filter(|row| row.state == wanted);
            rows.map(|row| u64::from(row.pool_slots)).sum()
        };
        let count = async |state| {
            let listed = app
                .metadata
                .task_instances(&in_state(&[state]), Page { limit: 1, offset: 0 })
                .await?;
            Ok::<u64, ApiError>(listed.total)
        };
        let running = slots_in(TaskInstanceState::Running) + slots_in(TaskInstanceState::Restarting);
        let queued = slots_in(TaskInstanceState::Queued);
        let open = i64::from(pool.slots) - i64::try_from(running + queued).unwrap_or(i64::MAX);
        Ok(Self {
            occupied_slots: running + queued,
            running_slots: running,
            queued_slots: queued,
            scheduled_slots: count(TaskInstanceState::Scheduled).await?,
            open_slots: open.max(0),
            deferred_slots: count(TaskInstanceState::Deferred).await?,
            include_deferred: false,
            team_name: Null,
            name: pool.name.clone(),
            slots: pool.slots,
            description: pool.description.clone(),
        })
    }
}

#[derive(Clone, Copy)]
enum Column {
    Name,
    Slots,
}

async fn list(State(app): State<Arc<App>>, mut query: Query) -> Result<Json<PoolCollectionResponse>, ApiError> {
    let page = query.page();
    let names = query.patterns("pool_name");
    query.finish()?;
    let allowed = [
        ("id", None),
        ("name", Some(Column::Name)),
        ("pool", Some(Column::Name)),
        ("slots", Some(Column::Slots)),
    ];
    let order = order::parse(&query.texts("order_by"), &allowed)?;
    let mut rows = app.metadata.pools().await?;
    rows.retain(|row| names.matches(&row.name));
    order::sort(&mut rows, &order, |column, left, right| match column {
        Column::Name => left.name.cmp(&right.name),
        Column::Slots => left.slots.cmp(&right.slots),
    });
    let listed = page::cut(rows, page);
    let mut pools = Vec::with_capacity(listed.items.len());
    for row in listed.items {
        pools.push(PoolResponse::new(&app, row).await?);
    }
    Ok(Json(PoolCollectionResponse {
        pools,
        total_entries: listed.total,
    }))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<PoolResponse>, ApiError> {
    let name = path.text("pool_name");
    let row = app.metadata.pools().await?.into_iter().find(|row| row.name == name);
    let row = row.ok_or_else(|| {
        let shown: String = name.chars().take(64).collect();
        ApiError::new(Code::PoolNotFound, format!("pool `{shown}` does not exist"))
    })?;
    Ok(Json(PoolResponse::new(&app, row).await?))
}
