//! Pools and how they are used. Changes go through the scheduler, which gives the slots away.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{TaskId, TaskInstanceState};
use ports::control::{NewPool, PoolPatch};
use ports::query::{PoolRow, PoolUse, TiFilter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::User;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::{JsonObject, PathArgs, Query};
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
        .post(
            "/api/v2/pools",
            create,
            Op::new("pool", "post_pool", "Make a pool")
                .body::<PoolBody>()
                .json::<PoolResponse>(201),
        )
        .patch(
            "/api/v2/pools/{pool_name}",
            patch,
            Op::new("pool", "patch_pool", "Change a pool")
                .query(&[("update_mask", Kind::Texts)])
                .body::<PoolPatchBody>()
                .ok::<PoolResponse>(),
        )
        .delete(
            "/api/v2/pools/{pool_name}",
            delete,
            Op::new("pool", "delete_pool", "Remove a pool").raw(204, ""),
        )
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct PoolBody {
    name: String,
    /// Without bound if negative.
    slots: i32,
    description: Option<String>,
    include_deferred: Option<bool>,
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct PoolPatchBody {
    /// Another name.
    pool: Option<String>,
    /// Without bound if negative.
    slots: Option<i32>,
    description: Option<String>,
    include_deferred: Option<bool>,
}

#[derive(Serialize, ToSchema)]
struct PoolCollectionResponse {
    pools: Vec<PoolResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct PoolResponse {
    name: String,
    slots: i32,
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
    async fn new(app: &App, pool: PoolRow, usage: &[PoolUse]) -> Result<Self, ApiError> {
        let dispatched = TiFilter {
            pools: vec![pool.name.clone()],
            states: vec![
                TaskInstanceState::Queued,
                TaskInstanceState::Running,
                TaskInstanceState::Restarting,
            ],
            ..TiFilter::default()
        };
        // What is dispatched takes slots, so there are at most as many rows as slots.
        let mut rows = page::scan("the use of a pool", |page| {
            app.metadata.task_instances(&dispatched, page)
        })
        .await?;
        super::ti_list::overlay(app, &mut rows);
        let slots_in = |wanted: TaskInstanceState| -> u64 {
            let rows = rows.iter().filter(|row| row.state == wanted);
            rows.map(|row| u64::from(row.pool_slots)).sum()
        };
        let wanted_in = |state: TaskInstanceState| -> u64 {
            let of_pool = usage.iter().filter(|usage| usage.pool == pool.name);
            of_pool
                .filter(|usage| usage.state == state)
                .map(|usage| usage.slots)
                .sum()
        };
        let running = slots_in(TaskInstanceState::Running) + slots_in(TaskInstanceState::Restarting);
        let queued = slots_in(TaskInstanceState::Queued);
        let deferred = wanted_in(TaskInstanceState::Deferred);
        let occupied = running + queued + if pool.include_deferred { deferred } else { 0 };
        // Airflow: -1 where there is no bound.
        let open = match i64::from(pool.slots) {
            slots if slots < 0 => -1,
            slots => slots.saturating_sub(i64::try_from(occupied).unwrap_or(i64::MAX)).max(0),
        };
        Ok(Self {
            occupied_slots: occupied,
            running_slots: running,
            queued_slots: queued,
            scheduled_slots: wanted_in(TaskInstanceState::Scheduled),
            open_slots: open,
            deferred_slots: deferred,
            include_deferred: pool.include_deferred,
            team_name: Null,
            name: pool.name,
            slots: pool.slots,
            description: pool.description,
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
    let usage = app.metadata.pool_use().await?;
    let mut pools = Vec::with_capacity(listed.items.len());
    for row in listed.items {
        pools.push(PoolResponse::new(&app, row, &usage).await?);
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
    shown(&app, row).await
}

async fn shown(app: &App, row: PoolRow) -> Result<Json<PoolResponse>, ApiError> {
    let usage = app.metadata.pool_use().await?;
    Ok(Json(PoolResponse::new(app, row, &usage).await?))
}

/// A name that manifests can use.
fn name(body: &mut JsonObject, member: &str) -> Option<String> {
    let name = body.text(member)?;
    if let Err(error) = TaskId::new(&name) {
        body.violate(
            member,
            "value_error",
            format!("this is not the name of a pool: {}", error.reason),
        );
    }
    Some(name)
}

fn slots(body: &mut JsonObject) -> Option<i32> {
    let slots = body.integer("slots")?;
    let fits = i32::try_from(slots).ok().filter(|slots| *slots >= -1);
    if fits.is_none() {
        let msg = format!("this is not a number from -1 (no bound) to {}", i32::MAX);
        body.violate("slots", "value_error", msg);
    }
    fits
}

async fn create(
    State(app): State<Arc<App>>,
    user: User,
    mut body: JsonObject,
) -> Result<(StatusCode, Json<PoolResponse>), ApiError> {
    body.require("name");
    body.require("slots");
    let pool = NewPool {
        name: name(&mut body, "name").unwrap_or_default(),
        slots: slots(&mut body).unwrap_or_default(),
        description: body.text("description"),
        include_deferred: body.flag("include_deferred").unwrap_or(false),
    };
    no_team(&mut body);
    body.finish()?;
    let row = app.control.create_pool(pool, user.name()).await?;
    Ok((StatusCode::CREATED, shown(&app, row).await?))
}

/// Airflow's teams do not exist here.
fn no_team(body: &mut JsonObject) {
    if body.text("team_name").is_some() {
        body.violate("team_name", "value_error", "there are no teams here");
    }
}

async fn patch(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    query: Query,
    mut body: JsonObject,
) -> Result<Json<PoolResponse>, ApiError> {
    // Airflow's body says `pool` for the name, and its answer `name`.
    let renamed = name(&mut body, "pool");
    let renamed = name(&mut body, "name").or(renamed);
    let described = body.has("description");
    let description = body.text("description");
    let mut patch = PoolPatch {
        name: renamed,
        slots: slots(&mut body),
        description: described.then_some(description),
        include_deferred: body.flag("include_deferred"),
    };
    no_team(&mut body);
    body.finish()?;
    let mask = query.texts("update_mask");
    if !mask.is_empty() {
        let known = ["pool", "name", "slots", "description", "include_deferred"];
        if let Some(other) = mask.iter().find(|name| !known.contains(&name.as_str())) {
            let other: String = other.chars().take(64).collect();
            let message = format!("`{other}` cannot be changed; these can: {}", known.join(", "));
            return Err(ApiError::new(Code::NotSupported, message));
        }
        let masked = |names: &[&str]| !mask.iter().any(|name| names.contains(&name.as_str()));
        if masked(&["pool", "name"]) {
            patch.name = None;
        }
        if masked(&["slots"]) {
            patch.slots = None;
        }
        if masked(&["description"]) {
            patch.description = None;
        }
        if masked(&["include_deferred"]) {
            patch.include_deferred = None;
        }
    }
    let row = app
        .control
        .change_pool(path.text("pool_name"), patch, user.name())
        .await?;
    shown(&app, row).await
}

async fn delete(State(app): State<Arc<App>>, user: User, path: PathArgs) -> Result<StatusCode, ApiError> {
    app.control.delete_pool(path.text("pool_name"), user.name()).await?;
    Ok(StatusCode::NO_CONTENT)
}
