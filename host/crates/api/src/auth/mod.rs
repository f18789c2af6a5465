//! Who calls: one administrator with a password, tokens that last a day, and a bound on failed logins.

mod limiter;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use model::{Digest, Timestamp};
use subtle::ConstantTimeEq as _;

use self::limiter::{From, Lane, LoginLimiter};
use self::token::Tokens;
use crate::error::{ApiError, Code};
use crate::state::App;

/// The only user.
pub(crate) const ADMIN: &str = "admin";

/// The life of a token that a program on the server's machine makes for itself.
const LOCAL_LIFETIME: Duration = Duration::from_secs(600);

/// A token of the administrator for a program that can read the key: it need not log in, so nobody can keep it from that.
pub fn local_token(signing_key: &[u8], now: Timestamp) -> Result<String, ApiError> {
    Tokens::new(signing_key).issue_for(ADMIN, LOCAL_LIFETIME, now)
}

/// Checks passwords and tokens.
pub struct Authenticator {
    /// Passwords are compared as digests: the time that it takes says nothing about the password, not even its length.
    password: Digest,
    tokens: Tokens,
    limiter: LoginLimiter,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// For the user `admin` with this password. Tokens are signed with the key; 32 random bytes or more.
    pub fn new(admin_password: &str, signing_key: &[u8]) -> Self {
        Self {
            password: Digest::of(admin_password.as_bytes()),
            tokens: Tokens::new(signing_key),
            limiter: LoginLimiter::default(),
        }
    }

    /// A token for the user, without a password: for programs that run as the server's owner.
    pub fn issue(&self, user: &str, now: Timestamp) -> Result<String, ApiError> {
        self.tokens.issue(user, now)
    }

    /// The same, for less than a day.
    pub fn issue_for(&self, user: &str, lifetime: Duration, now: Timestamp) -> Result<String, ApiError> {
        self.tokens.issue_for(user, lifetime, now)
    }

    /// A token for a name and a password. `token` is one that the caller still has from an earlier login.
    pub(crate) fn log_in(
        &self,
        peer: IpAddr,
        token: Option<&str>,
        (username, password): (&str, &str),
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let name_matches = Digest::of(username.as_bytes()).0.ct_eq(&Digest::of(ADMIN.as_bytes()).0);
        let password_matches = Digest::of(password.as_bytes()).0.ct_eq(&self.password.0);
        let known = token.filter(|token| self.tokens.knows(token, now));
        let lane = Lane {
            known: name_matches.into(),
            from: known.map_or_else(
                || From::address(peer),
                |token| From::Token(Digest::of(token.as_bytes())),
            ),
        };
        if self
            .limiter
            .attempt(lane, now, (name_matches & password_matches).into())?
        {
            return self.tokens.issue(ADMIN, now);
        }
        tracing::warn!(net.peer = %peer, "refused a login");
        Err(ApiError::new(
            Code::InvalidCredentials,
            "the user name or the password is wrong",
        ))
    }

    /// The user of a request.
    fn user(&self, headers: &HeaderMap, now: Timestamp) -> Result<User, ApiError> {
        let token = bearer(headers).ok_or_else(|| {
            ApiError::new(
                Code::Unauthenticated,
                "this needs a token: `POST /auth/token`, then the header `Authorization: Bearer <token>`",
            )
        })?;
        let name = self.tokens.verify(token, now).ok_or_else(|| {
            ApiError::new(
                Code::Unauthenticated,
                "the token is not valid, or is older than a day; log in again",
            )
        })?;
        Ok(User(name.into()))
    }
}

/// The token that a request brings.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct User(Arc<str>);

impl User {
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let user = parts.extensions.get::<Self>().cloned();
        user.ok_or_else(|| ApiError::new(Code::Unauthenticated, "this needs a token"))
    }
}

/// Lets only requests with a valid token through.
pub(crate) async fn require(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let user = app.authenticator.user(request.headers(), app.clock.now())?;
    request.extensions_mut().insert(user);
    Ok(next.run(request).await)
}
