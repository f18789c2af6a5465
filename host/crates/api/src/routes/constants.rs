//! What Airflow has and this server cannot have: always empty, so that clients that ask need no special case.

use axum::Json;
use serde_json::{Value, json};

use crate::error::{ApiError, Code};
use crate::openapi::{Op, PAGE, Routes};
use crate::request::{PathArgs, Query};

/// Path, name of the list, operation id, what there is none of.
const EMPTY: &[(&str, &str, &str, &str)] = &[
    (
        "/api/v2/importErrors",
        "import_errors",
        "get_import_errors",
        "A manifest with errors is never stored: always empty",
    ),
    (
        "/api/v2/dagWarnings",
        "dag_warnings",
        "list_dag_warnings",
        "Warnings are answered when a manifest is deployed: always empty",
    ),
    ("/api/v2/jobs", "jobs", "get_jobs", "There are no jobs: always empty"),
    (
        "/api/v2/plugins",
        "plugins",
        "get_plugins",
        "There are no plugins: always empty",
    ),
    (
        "/api/v2/plugins/importErrors",
        "import_errors",
        "import_errors",
        "There are no plugins: always empty",
    ),
    (
        "/api/v2/providers",
        "providers",
        "get_providers",
        "There are no providers: always empty",
    ),
];

pub(crate) fn add(routes: Routes) -> Routes {
    let routes = EMPTY.iter().fold(routes, |routes, (path, name, id, summary)| {
        let handler = move |mut query: Query| async move {
            query.page();
            query.finish()?;
            Ok::<_, ApiError>(Json(json!({ *name: [], "total_entries": 0 })))
        };
        let op = Op::new("constant", id, summary).query(PAGE).ok::<EmptyCollection>();
        routes.get(path, handler, op)
    });
    routes.get(
        "/api/v2/importErrors/{import_error_id}",
        import_error,
        Op::new("constant", "get_import_error", "There are no import errors: always 404"),
    )
}

/// A list without elements.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the answers in the OpenAPI document")]
struct EmptyCollection {
    total_entries: u64,
}

async fn import_error(path: PathArgs) -> Result<Json<Value>, ApiError> {
    path.number("import_error_id", path.text("import_error_id"))?;
    Err(ApiError::new(
        Code::ImportErrorNotFound,
        "this import error does not exist",
    ))
}
