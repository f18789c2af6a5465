//! Components: upload, look at, delete.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, TryStreamExt as _};
use ports::component::{Component, ComponentState, EngineNeeds, Standing, Tag, TaskDescriptor, UploadStream};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::request::{PathArgs, Query, content_type, paced};
use crate::shape::Time;
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("component", id, summary);
    routes
        .post(
            "/api/v2/components",
            upload,
            op("upload_component", "Upload a component; `name` and `version` tag it")
                .query(&[("name", Kind::Text), ("version", Kind::Text), ("wait", Kind::Flag)])
                .raw_body("application/wasm")
                .ok::<ComponentResponse>()
                .json::<ComponentResponse>(201),
        )
        .get(
            "/api/v2/components",
            list,
            op("get_components", "List components, newest first")
                .query(PAGE)
                .ok::<ComponentCollectionResponse>(),
        )
        .get(
            "/api/v2/components/{component}",
            get,
            op("get_component", "One component, by `sha256:…` or `name@version`")
                .query(&[("wait", Kind::Flag)])
                .ok::<ComponentResponse>(),
        )
        .delete(
            "/api/v2/components/{component}",
            delete,
            op("delete_component", "Remove a tag, or a component with all its tags").raw(204, ""),
        )
}

#[derive(Serialize, ToSchema)]
struct ComponentCollectionResponse {
    components: Vec<ComponentResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct ComponentResponse {
    digest: String,
    size: u64,
    /// `compiling`, `ready` or `refused`.
    state: &'static str,
    refusal: Option<RefusalResponse>,
    /// `name@version`.
    tags: Vec<String>,
    /// Its imports that mean something, in readable words.
    capabilities: Vec<String>,
    imports: Vec<String>,
    /// The names of its tasks.
    tasks: Vec<String>,
    /// What it says of itself, once it is ready.
    descriptor: Option<DescriptorResponse>,
    /// Its place in the queue of this server while it is `compiling`: 0 is being compiled, 1 is the next.
    queue_position: Option<u32>,
    /// The share of the engine that one running task of it takes; a task waits until there is that much. Known once it is compiled here.
    engine: Option<EngineNeedsResponse>,
    created_at: Time,
}

#[derive(Serialize, ToSchema)]
struct EngineNeedsResponse {
    core_instances: u32,
    memories: u32,
    tables: u32,
    /// The size of its memories and tables at the start, in bytes.
    initial_bytes: u64,
    /// Its compiled code, in bytes.
    code_bytes: u64,
}

impl From<EngineNeeds> for EngineNeedsResponse {
    fn from(needs: EngineNeeds) -> Self {
        Self {
            core_instances: needs.core_instances,
            memories: needs.memories,
            tables: needs.tables,
            initial_bytes: needs.initial_bytes,
            code_bytes: needs.code_bytes,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct DescriptorResponse {
    format: u32,
    /// The SDK that built it.
    sdk: Option<String>,
    tasks: Vec<ComponentTaskResponse>,
}

#[derive(Serialize, ToSchema)]
struct RefusalResponse {
    code: String,
    message: String,
}

#[derive(Serialize, ToSchema)]
struct ComponentTaskResponse {
    name: String,
    doc: String,
    /// JSON Schema.
    #[schema(value_type = Value)]
    input: Value,
    /// JSON Schema.
    #[schema(value_type = Value)]
    output: Value,
    needs: Vec<String>,
    labels: Option<Vec<String>>,
}

impl ComponentResponse {
    /// The component with what this server knows of it beside its row.
    async fn of(app: &App, component: Component) -> Self {
        let standing = app.components.standing(std::slice::from_ref(&component)).await;
        Self::new(component, standing.into_iter().next().unwrap_or_default())
    }

    fn new(component: Component, standing: Standing) -> Self {
        let descriptor = component.descriptor.map(|descriptor| DescriptorResponse {
            format: descriptor.format,
            sdk: descriptor.sdk,
            tasks: descriptor.tasks.into_iter().map(ComponentTaskResponse::from).collect(),
        });
        Self {
            digest: component.digest.to_string(),
            size: component.size,
            state: component.state.as_str(),
            refusal: component.refusal.map(|refusal| RefusalResponse {
                code: refusal.code,
                message: refusal.message,
            }),
            tags: component.tags.iter().map(Tag::to_string).collect(),
            capabilities: component.capabilities,
            imports: component.imports,
            tasks: descriptor
                .iter()
                .flat_map(|descriptor| &descriptor.tasks)
                .map(|task| task.name.clone())
                .collect(),
            descriptor,
            queue_position: standing.queue_position,
            engine: standing.needs.map(EngineNeedsResponse::from),
            created_at: Time(component.created_at),
        }
    }
}

impl From<TaskDescriptor> for ComponentTaskResponse {
    fn from(task: TaskDescriptor) -> Self {
        Self {
            name: task.name,
            doc: task.doc,
            input: task.input,
            output: task.output,
            needs: task.needs,
            labels: task.labels,
        }
    }
}

/// `name` and `version`: both or none.
fn tag(query: &mut Query) -> Option<Tag> {
    let part = |name: &str| query.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    match (part("name"), part("version")) {
        (None, None) => None,
        (Some(name), Some(version)) => {
            let (name, version) = (name.parse(), version.parse());
            if let Err(error) = &name {
                query.violate("name", "value_error", &model::id::InvalidId::to_string(error));
            }
            if let Err(error) = &version {
                query.violate("version", "value_error", &model::id::InvalidId::to_string(error));
            }
            Some(Tag {
                name: name.ok()?,
                version: version.ok()?,
            })
        }
        (Some(_), None) => {
            query.violate("version", "missing", "a tag has a name and a version");
            None
        }
        (None, Some(_)) => {
            query.violate("name", "missing", "a tag has a name and a version");
            None
        }
    }
}

async fn upload(
    State(app): State<Arc<App>>,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type(&headers, &["application/wasm"])?;
    let tag = tag(&mut query);
    let wait = query.flag("wait").unwrap_or(false);
    query.finish()?;
    let body = paced(&headers, body, app.limits.component_bytes, &app.limits)?;
    let body: UploadStream = body
        .map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
        .boxed();
    let (mut component, new) = app.components.upload(tag, body).await?;
    if wait && component.state == ComponentState::Compiling {
        component = app.components.wait_ready(component.digest).await?;
    }
    let location = format!("/api/v2/components/{}", component.digest);
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, Json(ComponentResponse::of(&app, component).await)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list(State(app): State<Arc<App>>, mut query: Query) -> Result<Json<ComponentCollectionResponse>, ApiError> {
    let page = query.page();
    query.finish()?;
    let listed = app.components.list(page).await?;
    let standing = app.components.standing(&listed.items).await;
    Ok(Json(ComponentCollectionResponse {
        components: listed
            .items
            .into_iter()
            .zip(standing)
            .map(|(component, standing)| ComponentResponse::new(component, standing))
            .collect(),
        total_entries: listed.total,
    }))
}

async fn get(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<ComponentResponse>, ApiError> {
    let wait = query.flag("wait").unwrap_or(false);
    query.finish()?;
    let mut component = app.components.get(path.text("component")).await?;
    if wait && component.state == ComponentState::Compiling {
        component = app.components.wait_ready(component.digest).await?;
    }
    Ok(Json(ComponentResponse::of(&app, component).await))
}

async fn delete(State(app): State<Arc<App>>, path: PathArgs) -> Result<StatusCode, ApiError> {
    app.components.delete(path.text("component")).await?;
    Ok(StatusCode::NO_CONTENT)
}
