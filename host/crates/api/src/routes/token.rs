//! Logging in, as Airflow's simple auth manager does it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::bearer;
use crate::error::{ApiError, Code};
use crate::openapi::{Op, Routes};
use crate::request::JsonObject;
use crate::serve::Peer;
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| {
        Op::new("auth", id, summary)
            .public()
            .body::<LoginBody>()
            .json::<LoginResponse>(201)
    };
    routes
        .post("/auth/token", create, op("create_token", "Log in"))
        .post(
            "/auth/token/cli",
            create,
            op("create_token_cli", "Log in, for command lines"),
        )
        .get(
            "/auth/token",
            without_password,
            Op::new(
                "auth",
                "create_token_all_admins",
                "Always refused: nobody is let in without a password",
            )
            .public(),
        )
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct LoginBody {
    username: String,
    password: String,
}

#[derive(Serialize, ToSchema)]
struct LoginResponse {
    /// A JSON web token; it lasts a day.
    access_token: String,
}

/// The address of the caller; unspecified where the router is called without a connection.
struct PeerIp(IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for PeerIp {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>();
        Ok(Self(peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)))
    }
}

async fn create(
    State(app): State<Arc<App>>,
    PeerIp(peer): PeerIp,
    headers: HeaderMap,
    mut body: JsonObject,
) -> Result<(StatusCode, Json<LoginResponse>), ApiError> {
    for name in ["username", "password"] {
        body.require(name);
    }
    let username = body.text("username").unwrap_or_default();
    let password = body.text("password").unwrap_or_default();
    body.finish()?;
    let login = (username.as_str(), password.as_str());
    let access_token = app
        .authenticator
        .log_in(peer, bearer(&headers), login, app.clock.now())?;
    Ok((StatusCode::CREATED, Json(LoginResponse { access_token })))
}

async fn without_password() -> ApiError {
    ApiError::new(Code::Forbidden, "this server lets nobody in without a password")
}
