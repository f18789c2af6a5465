//! `/` says what is where; `/openapi.json` describes it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};

use crate::openapi::{Op, Routes};
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/",
            landing,
            Op::new("server", "landing_page", "A page that says what is where")
                .public()
                .raw(200, "text/html"),
        )
        .get(
            "/openapi.json",
            document,
            Op::new("server", "get_openapi", "This document")
                .public()
                .raw(200, "application/json"),
        )
}

async fn landing() -> Html<&'static str> {
    Html(include_str!("landing.html"))
}

async fn document(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone())
}
