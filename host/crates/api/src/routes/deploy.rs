//! Deploying manifests: validated whole, stored whole or not at all.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use model::DagId;
use ports::deploy::{Deployed, Diagnostic};
use serde::Serialize;
use utoipa::ToSchema;

use super::under;
use crate::auth::User;
use crate::error::ApiError;
use crate::openapi::{Op, Routes};
use crate::request::{PathArgs, content_type, read_text};
use crate::state::App;

const YAML: &[&str] = &["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("deploy", id, summary).raw_body("application/yaml");
    routes
        .post(
            "/api/v2/dags",
            create,
            op("deploy_new_dag", "Deploy the manifest of a new DAG").json::<DeployResponse>(201),
        )
        .put(
            "/api/v2/dags",
            replace,
            op("deploy_dag", "Deploy a manifest, whether its DAG is new or not")
                .ok::<DeployResponse>()
                .json::<DeployResponse>(201),
        )
        .put(
            under!(dag ""),
            replace_one,
            op("deploy_one_dag", "Deploy a manifest of this DAG")
                .ok::<DeployResponse>()
                .json::<DeployResponse>(201),
        )
        .post_word(
            "/api/v2/dags/check",
            "dag_id",
            check,
            op(
                "check_dag",
                "Check a manifest against this server's components, and change nothing",
            )
            .ok::<CheckResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct DeployResponse {
    dag_id: String,
    version_number: u32,
    /// The UUID of the version.
    version_id: String,
    digest: String,
    new_dag: bool,
    new_version: bool,
    /// Warnings and notes.
    #[schema(value_type = Vec<Value>)]
    diagnostics: Vec<Diagnostic>,
}

#[derive(Serialize, ToSchema)]
struct CheckResponse {
    dag_id: String,
    digest: String,
    /// The ids of the tasks, in the order of the manifest.
    tasks: Vec<String>,
    /// Warnings and notes.
    #[schema(value_type = Vec<Value>)]
    diagnostics: Vec<Diagnostic>,
}

async fn source(app: &App, headers: &HeaderMap, body: Body) -> Result<String, ApiError> {
    content_type(headers, YAML)?;
    read_text(headers, body, &app.limits).await
}

async fn deploy(
    app: &App,
    user: &User,
    source: &str,
    expected: Option<&DagId>,
    replace: bool,
) -> Result<(StatusCode, Json<DeployResponse>), ApiError> {
    let deployed: Deployed = app.deployer.deploy(source, expected, replace, user.name()).await?;
    let status = if deployed.new_dag {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let response = DeployResponse {
        dag_id: deployed.dag_id.to_string(),
        version_number: deployed.version_number,
        version_id: deployed.version.to_string(),
        digest: deployed.digest.to_string(),
        new_dag: deployed.new_dag,
        new_version: deployed.new_version,
        diagnostics: deployed.diagnostics,
    };
    Ok((status, Json(response)))
}

async fn create(
    State(app): State<Arc<App>>,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<DeployResponse>), ApiError> {
    let source = source(&app, &headers, body).await?;
    deploy(&app, &user, &source, None, false).await
}

async fn replace(
    State(app): State<Arc<App>>,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<DeployResponse>), ApiError> {
    let source = source(&app, &headers, body).await?;
    deploy(&app, &user, &source, None, true).await
}

async fn replace_one(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<DeployResponse>), ApiError> {
    let dag_id = path.dag_id()?;
    let source = source(&app, &headers, body).await?;
    deploy(&app, &user, &source, Some(&dag_id), true).await
}

async fn check(
    State(app): State<Arc<App>>,
    path: PathArgs,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CheckResponse>, ApiError> {
    path.literal("dag_id", "check")?;
    let source = source(&app, &headers, body).await?;
    let checked = app.deployer.check(&source).await?;
    Ok(Json(CheckResponse {
        dag_id: checked.dag.id.to_string(),
        digest: checked.digest.to_string(),
        tasks: checked.dag.tasks.iter().map(|task| task.id.to_string()).collect(),
        diagnostics: checked.diagnostics,
    }))
}
