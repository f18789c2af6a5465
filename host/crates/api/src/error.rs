//! The one error of the API and its one shape: `{"detail": …, "code": …, "request_id": …}`.
//!
//! `detail` is a text, except with 422, where it is a list in the shape that Airflow's clients know. Causes inside the
//! server are logged here, once, with the request id; the caller sees only what it can use.

use std::error::Error;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ports::component::ComponentError;
use ports::control::ControlError;
use ports::deploy::{DeployError, Diagnostic};
use ports::payload::BlobError;
use ports::query::QueryError;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::request_id;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident;)+) => {
        /// Every error that the API itself answers. Each has one status and an entry in `docs/errors.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }
        }
    };
}

codes! {
    /// The order of a list names a column that cannot be ordered by.
    InvalidOrderBy = "invalid_order_by", BAD_REQUEST;
    /// A continuation token or cursor is not one of this server's.
    InvalidToken = "invalid_token", BAD_REQUEST;
    /// The conf of a run does not match the parameters of its DAG.
    InvalidParams = "invalid_params", BAD_REQUEST;
    /// An answer does not fit the question.
    InvalidAnswer = "invalid_answer", BAD_REQUEST;
    /// Airflow has it; this server does not.
    NotSupported = "not_supported", BAD_REQUEST;
    /// A filter would have to search too many rows.
    TooManyRows = "too_many_rows", BAD_REQUEST;
    /// The request names no host, or several.
    InvalidHost = "invalid_host", BAD_REQUEST;
    /// The body broke off.
    BodyIncomplete = "body_incomplete", BAD_REQUEST;
    /// The default pool cannot be deleted or renamed.
    DefaultPoolProtected = "default_pool_protected", BAD_REQUEST;
    /// The URL and the manifest name different DAGs.
    DagIdMismatch = "dag_id_mismatch", BAD_REQUEST;
    /// No valid token.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// Wrong user name or password.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED;
    /// The caller may not do this.
    Forbidden = "forbidden", FORBIDDEN;
    /// There is nothing under this path.
    RouteNotFound = "route_not_found", NOT_FOUND;
    /// No such DAG.
    DagNotFound = "dag_not_found", NOT_FOUND;
    /// No such version of the DAG.
    DagVersionNotFound = "dag_version_not_found", NOT_FOUND;
    /// No such dag run.
    DagRunNotFound = "dag_run_not_found", NOT_FOUND;
    /// No such task.
    TaskNotFound = "task_not_found", NOT_FOUND;
    /// No such task group.
    TaskGroupNotFound = "task_group_not_found", NOT_FOUND;
    /// No such task instance.
    TaskInstanceNotFound = "task_instance_not_found", NOT_FOUND;
    /// The task has one instance in a run.
    TaskNotMapped = "task_not_mapped", NOT_FOUND;
    /// No such try.
    TryNotFound = "try_not_found", NOT_FOUND;
    CallbackNotFound = "callback_not_found", NOT_FOUND;
    /// The task instance asks nobody, or has not asked yet.
    HitlDetailNotFound = "hitl_detail_not_found", NOT_FOUND;
    /// No such XCom.
    XcomNotFound = "xcom_not_found", NOT_FOUND;
    /// No such pool.
    PoolNotFound = "pool_not_found", NOT_FOUND;
    /// No such line of the audit log.
    EventLogNotFound = "event_log_not_found", NOT_FOUND;
    /// No such import error; there never is one.
    ImportErrorNotFound = "import_error_not_found", NOT_FOUND;
    /// No such component.
    ComponentNotFound = "component_not_found", NOT_FOUND;
    /// No such blob, or nothing refers to it.
    BlobNotFound = "blob_not_found", NOT_FOUND;
    /// The path is there, the method is not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// No representation of what `Accept` names.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE;
    /// The body came too slowly.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    /// The state of things does not allow it.
    Conflict = "conflict", CONFLICT;
    /// A run with this id or logical date exists.
    DagRunExists = "dag_run_exists", CONFLICT;
    /// It would be more task instances than there may be.
    TooManyTaskInstances = "too_many_task_instances", CONFLICT;
    /// The DAG exists; `PUT` replaces it.
    DagExists = "dag_exists", CONFLICT;
    /// A pool of this name exists.
    PoolExists = "pool_exists", CONFLICT;
    /// DAGs use the pool.
    PoolInUse = "pool_in_use", CONFLICT;
    /// A task instance that was to be cleared is running.
    TaskInstanceRunning = "task_instance_running", CONFLICT;
    /// A component that the manifest names is still being compiled.
    ComponentCompiling = "component_compiling", CONFLICT;
    /// The tag names other content.
    ComponentTagTaken = "component_tag_taken", CONFLICT;
    /// DAG versions use the component.
    ComponentInUse = "component_in_use", CONFLICT;
    /// The body is over its limit.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The body is not of a type that is taken here.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The request does not have the shape that is asked for; every problem is named.
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY;
    /// The manifest has errors; every one is named.
    ManifestInvalid = "manifest_invalid", UNPROCESSABLE_ENTITY;
    /// The bytes can never be a component.
    ComponentRefused = "component_refused", UNPROCESSABLE_ENTITY;
    /// Too many failed logins.
    TooManyLogins = "too_many_logins", TOO_MANY_REQUESTS;
    /// A bug or a broken disk; the log of the server says more.
    Internal = "internal_error", INTERNAL_SERVER_ERROR;
    /// The content of a blob does not match its digest.
    BlobDamaged = "blob_damaged", INTERNAL_SERVER_ERROR;
    /// There is no room on the server's disk; nothing was stored.
    NoSpace = "no_space", INSUFFICIENT_STORAGE;
    /// The database does not answer; nothing was changed.
    DatabaseUnavailable = "database_unavailable", SERVICE_UNAVAILABLE;
    /// The server is stopping.
    Stopping = "stopping", SERVICE_UNAVAILABLE;
    /// No scheduler is running that could be asked; nothing was changed.
    NoScheduler = "no_scheduler", SERVICE_UNAVAILABLE;
    /// The scheduler has not answered: the request is stored, and is or will be carried out.
    NoAnswer = "no_answer", GATEWAY_TIMEOUT;
    /// Too many open streams.
    TooManyStreams = "too_many_streams", SERVICE_UNAVAILABLE;
}

/// One thing that is wrong with a request, as FastAPI says it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Violation {
    /// A stable name.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Where: `body`, `query` or `path`, then names and positions.
    #[schema(value_type = Vec<Value>)]
    pub(crate) loc: Vec<Value>,
    /// For people.
    pub(crate) msg: String,
    /// What was sent.
    #[schema(value_type = Value)]
    pub(crate) input: Value,
    /// More, by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub(crate) ctx: Option<Value>,
}

/// The shape of every error.
#[derive(ToSchema, Serialize)]
pub(crate) struct ErrorResponse {
    /// A text; with 422 a list of violations.
    #[schema(value_type = Value)]
    detail: Value,
    /// See `docs/errors.md`.
    code: &'static str,
    /// Also in the header `x-request-id`.
    request_id: String,
    /// With `manifest_invalid`: what was found in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>)]
    diagnostics: Option<Vec<Diagnostic>>,
}

/// An error on its way to the caller.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    detail: Box<Value>,
    diagnostics: Option<Vec<Diagnostic>>,
    retry_after_s: Option<u64>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// An error with a text for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: Box::new(Value::String(detail.into())),
            diagnostics: None,
            retry_after_s: None,
            source: None,
        }
    }

    /// What is wrong with the request; at least one violation.
    pub(crate) fn violations(violations: Vec<Violation>) -> Self {
        Self {
            detail: Box::new(serde_json::to_value(violations).unwrap_or(Value::Null)),
            ..Self::new(Code::ValidationFailed, "")
        }
    }

    /// A failure of the server. The cause is logged, not answered.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(Code::Internal, "internal error")
        }
    }

    /// When the caller may try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What it says.
    pub(crate) fn detail(&self) -> &Value {
        &self.detail
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The error as the last line of a stream that has begun already.
    pub(crate) fn to_line(&self) -> Value {
        json!({ "detail": self.detail, "code": self.code.as_str(), "request_id": request_id::current() })
    }

    fn with_source(mut self, source: Box<dyn Error + Send + Sync>) -> Self {
        self.source = Some(source);
        self
    }
}

/// The causes of an error in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        if let Some(source) = &self.source {
            let cause = chain(source.as_ref());
            let code = self.code.as_str();
            if self.code == Code::Internal || self.code == Code::BlobDamaged {
                tracing::error!(error.code = code, "request failed: {cause}");
            } else {
                tracing::warn!(error.code = code, "request failed: {cause}");
            }
        }
        let body = ErrorResponse {
            detail: *self.detail,
            code: self.code.as_str(),
            request_id: request_id::current(),
            diagnostics: self.diagnostics,
        };
        let mut response = (status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthenticated || self.code == Code::InvalidCredentials {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unavailable(source) => Self::new(
                Code::DatabaseUnavailable,
                "the database does not answer right now, try again",
            )
            .retry_after(1)
            .with_source(source),
            QueryError::Internal(source) => Self::internal(source),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let text = error.to_string();
        match error {
            ControlError::DagNotFound(_) => Self::new(Code::DagNotFound, text),
            ControlError::RunNotFound { .. } => Self::new(Code::DagRunNotFound, text),
            ControlError::TaskNotFound { .. } => Self::new(Code::TaskNotFound, text),
            ControlError::TaskGroupNotFound { .. } => Self::new(Code::TaskGroupNotFound, text),
            ControlError::TaskInstanceNotFound(_) => Self::new(Code::TaskInstanceNotFound, text),
            ControlError::PoolNotFound(_) => Self::new(Code::PoolNotFound, text),
            ControlError::PoolExists(_) => Self::new(Code::PoolExists, text),
            ControlError::PoolInUse { .. } => Self::new(Code::PoolInUse, text),
            ControlError::DefaultPool => Self::new(Code::DefaultPoolProtected, text),
            ControlError::RunExists(_) => Self::new(Code::DagRunExists, text),
            ControlError::TooManyTaskInstances(_) => Self::new(Code::TooManyTaskInstances, text),
            ControlError::InvalidParams { .. } => Self::new(Code::InvalidParams, text),
            ControlError::InvalidAnswer { .. } => Self::new(Code::InvalidAnswer, text),
            ControlError::NotAsked(_) => Self::new(Code::HitlDetailNotFound, text),
            ControlError::Forbidden(_) => Self::new(Code::Forbidden, text),
            ControlError::Conflict(_) => Self::new(Code::Conflict, text),
            ControlError::Unavailable => Self::new(Code::DatabaseUnavailable, text).retry_after(1),
            ControlError::Stopping => Self::new(Code::Stopping, text).retry_after(2),
            ControlError::NoScheduler(_) => Self::new(Code::NoScheduler, text).retry_after(2),
            ControlError::Pending(_) => Self::new(Code::NoAnswer, text),
            ControlError::Internal(source) => Self::internal(source),
        }
    }
}

impl From<ComponentError> for ApiError {
    fn from(error: ComponentError) -> Self {
        let text = error.to_string();
        match error {
            ComponentError::NotFound(_) => Self::new(Code::ComponentNotFound, text),
            ComponentError::TagTaken { .. } => Self::new(Code::ComponentTagTaken, text),
            ComponentError::InUse { .. } => Self::new(Code::ComponentInUse, text),
            ComponentError::Refused(refusal) => Self {
                code: Code::ComponentRefused,
                ..Self::violations(vec![Violation {
                    kind: refusal.code,
                    loc: vec!["body".into()],
                    msg: refusal.message,
                    input: Value::Null,
                    ctx: None,
                }])
            },
            ComponentError::TooLarge { .. } => Self::new(Code::BodyTooLarge, text),
            ComponentError::NoSpace(_) => Self::new(Code::NoSpace, text),
            ComponentError::Body(source) => Self::from_body(source),
            // Where it is the database that does not answer, or is full, that is what to say.
            ComponentError::Internal(source) => match source.downcast::<QueryError>() {
                Ok(error) => (*error).into(),
                Err(source) => Self::internal(source),
            },
        }
    }
}

impl ApiError {
    /// What broke a streamed body; `BodyError` when it was us.
    pub(crate) fn from_body(source: Box<dyn Error + Send + Sync>) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(source.as_ref());
        while let Some(error) = cause {
            if let Some(body) = error.downcast_ref::<crate::request::BodyError>() {
                return body.to_api();
            }
            cause = error.source();
        }
        Self::new(Code::BodyIncomplete, "the body broke off").with_source(source)
    }
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        let text = error.to_string();
        match error {
            DeployError::Invalid(diagnostics) => {
                let violations = diagnostics.iter().map(|diagnostic| Violation {
                    kind: diagnostic.code.clone(),
                    loc: vec!["body".into(), diagnostic.line.into(), diagnostic.column.into()],
                    msg: diagnostic.message.clone(),
                    input: Value::Null,
                    ctx: Some(json!({ "severity": diagnostic.severity, "hint": diagnostic.hint })),
                });
                Self {
                    code: Code::ManifestInvalid,
                    ..Self::violations(violations.collect())
                }
                .with_diagnostics(diagnostics)
            }
            DeployError::Compiling(_) => Self::new(Code::ComponentCompiling, text).retry_after(1),
            DeployError::OtherDag { .. } => Self::new(Code::DagIdMismatch, text),
            DeployError::Exists(_) => Self::new(Code::DagExists, text),
            DeployError::Control(error) => error.into(),
            DeployError::Internal(source) => Self::internal(source),
        }
    }
}

impl ApiError {
    fn with_diagnostics(mut self, diagnostics: Vec<Diagnostic>) -> Self {
        self.diagnostics = Some(diagnostics);
        self
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound(digest) => Self::new(Code::BlobNotFound, format!("blob {digest} does not exist")),
            BlobError::Damaged(_) => {
                Self::new(Code::BlobDamaged, "the stored content is damaged").with_source(Box::new(error))
            }
            BlobError::NoSpace(why) => Self::new(Code::NoSpace, why.to_string()),
            BlobError::Io { .. } => Self::internal(error),
        }
    }
}
