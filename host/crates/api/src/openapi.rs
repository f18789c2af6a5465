//! Routes and their description are one: a route is added with its operation, so nothing is served that `/openapi.json`
//! does not name.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodFilter;
use utoipa::openapi::content::Content;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, Ref, RefOr, Required, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::error::{ErrorResponse, Violation};
use crate::state::App;

/// The type of a parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Texts,
    Int,
    Ints,
    Number,
    Flag,
    Time,
    /// Four parameters: `_gte`, `_gt`, `_lte`, `_lt`.
    Times,
    /// The same of numbers.
    Numbers,
    /// Two parameters: `_pattern` and `_prefix_pattern`.
    Patterns,
}

/// A query parameter (or several of one family).
pub(crate) type Param = (&'static str, Kind);

/// `limit` and `offset`.
pub(crate) const PAGE: &[Param] = &[("limit", Kind::Int), ("offset", Kind::Int)];

/// What a route does.
pub(crate) struct Op {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    public: bool,
    query: Vec<Param>,
    body: Option<(&'static str, RefOr<Schema>)>,
    answers: Vec<(u16, &'static str, Option<RefOr<Schema>>)>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Op {
    pub(crate) fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            public: false,
            query: Vec::new(),
            body: None,
            answers: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// Needs no token.
    pub(crate) fn public(mut self) -> Self {
        self.public = true;
        self
    }

    pub(crate) fn query(mut self, params: &[Param]) -> Self {
        self.query.extend_from_slice(params);
        self
    }

    /// Takes a JSON body.
    pub(crate) fn body<T: ToSchema>(mut self) -> Self {
        self.body = Some(("application/json", self.reference::<T>()));
        self
    }

    /// Takes bytes or text of this type.
    pub(crate) fn raw_body(mut self, content_type: &'static str) -> Self {
        self.body = Some((content_type, text_schema()));
        self
    }

    /// Answers 200 with JSON.
    pub(crate) fn ok<T: ToSchema>(self) -> Self {
        self.json::<T>(200)
    }

    /// Answers with JSON.
    pub(crate) fn json<T: ToSchema>(mut self, status: u16) -> Self {
        let schema = self.reference::<T>();
        self.answers.push((status, "application/json", Some(schema)));
        self
    }

    /// Answers with something else; without a content type, with nothing.
    pub(crate) fn raw(mut self, status: u16, content_type: &'static str) -> Self {
        let schema = (!content_type.is_empty()).then(text_schema);
        self.answers.push((status, content_type, schema));
        self
    }

    fn reference<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        RefOr::Ref(Ref::from_schema_name(T::name()))
    }
}

fn text_schema() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// The routes and their description, growing together.
pub(crate) struct Routes {
    public: Router<Arc<App>>,
    guarded: Router<Arc<App>>,
    paths: Paths,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        let mut schemas = Vec::new();
        ErrorResponse::schemas(&mut schemas);
        schemas.push((ErrorResponse::name().into_owned(), ErrorResponse::schema()));
        schemas.push((Violation::name().into_owned(), Violation::schema()));
        Self {
            public: Router::new(),
            guarded: Router::new(),
            paths: Paths::new(),
            schemas,
        }
    }

    pub(crate) fn get<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>, op: Op) -> Self {
        self.add((HttpMethod::Get, MethodFilter::GET), path, path, handler, op)
    }

    pub(crate) fn post<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>, op: Op) -> Self {
        self.add((HttpMethod::Post, MethodFilter::POST), path, path, handler, op)
    }

    /// `POST` on a path whose last part is a word where other methods have a parameter: `…/dagRuns/list` beside
    /// `…/dagRuns/{dag_run_id}`. The handler checks the word; a run that is named `list` stays reachable.
    pub(crate) fn post_word<T: 'static>(
        self,
        path: &str,
        param: &str,
        handler: impl Handler<T, Arc<App>>,
        op: Op,
    ) -> Self {
        let (parent, _) = path.rsplit_once('/').unwrap_or_default();
        let route = format!("{parent}/{{{param}}}");
        self.add((HttpMethod::Post, MethodFilter::POST), &route, path, handler, op)
    }

    pub(crate) fn put<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>, op: Op) -> Self {
        self.add((HttpMethod::Put, MethodFilter::PUT), path, path, handler, op)
    }

    pub(crate) fn patch<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>, op: Op) -> Self {
        self.add((HttpMethod::Patch, MethodFilter::PATCH), path, path, handler, op)
    }

    pub(crate) fn delete<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<App>>, op: Op) -> Self {
        self.add((HttpMethod::Delete, MethodFilter::DELETE), path, path, handler, op)
    }

    fn add<T: 'static>(
        mut self,
        (method, filter): (HttpMethod, MethodFilter),
        route: &str,
        documented: &str,
        handler: impl Handler<T, Arc<App>>,
        mut op: Op,
    ) -> Self {
        let router = if op.public { &mut self.public } else { &mut self.guarded };
        *router = std::mem::take(router).route(route, axum::routing::on(filter, handler));
        self.schemas.append(&mut op.schemas);
        self.paths
            .add_path_operation(documented, vec![method], operation(documented, op));
        self
    }

    /// The router without and with authentication, and the document.
    pub(crate) fn finish(self) -> (Router<Arc<App>>, Router<Arc<App>>, OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = ComponentsBuilder::new()
            .schemas_from_iter(self.schemas)
            .security_scheme("token", SecurityScheme::Http(scheme))
            .build();
        let mut info = Info::new("Airtight", env!("CARGO_PKG_VERSION"));
        info.description = Some(
            "Airflow's stable REST API with sandboxed WebAssembly components as tasks. Log in with `POST /auth/token`."
                .to_owned(),
        );
        let mut document = OpenApi::new(info, self.paths);
        document.components = Some(components);
        (self.public, self.guarded, document)
    }
}

fn operation(path: &str, op: Op) -> utoipa::openapi::path::Operation {
    let mut builder = OperationBuilder::new()
        .operation_id(Some(op.id))
        .tag(op.tag)
        .summary(Some(op.summary));
    for name in path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    {
        let kind = match name {
            "map_index" | "try_number" | "task_try_number" | "version_number" | "event_log_id" | "import_error_id" => {
                Kind::Int
            }
            _ => Kind::Text,
        };
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(param_schema(kind)));
        builder = builder.parameter(parameter.build());
    }
    for (name, kind) in op.query {
        for (name, kind) in expand(name, kind) {
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .schema(Some(param_schema(kind)));
            builder = builder.parameter(parameter.build());
        }
    }
    let may_fail_validation = op.body.is_some();
    if let Some((content_type, schema)) = op.body {
        let body = RequestBodyBuilder::new()
            .content(content_type, Content::new(Some(schema)))
            .required(Some(Required::True));
        builder = builder.request_body(Some(body.build()));
    }
    let mut by_status: std::collections::BTreeMap<u16, ResponseBuilder> = std::collections::BTreeMap::new();
    for (status, content_type, schema) in op.answers {
        let mut response = by_status
            .remove(&status)
            .unwrap_or_else(|| ResponseBuilder::new().description("done"));
        if let Some(schema) = schema {
            response = response.content(content_type, Content::new(Some(schema)));
        }
        by_status.insert(status, response);
    }
    let mut failures = vec![(422_u16, "the request is not valid")];
    if !op.public {
        builder = builder.security(SecurityRequirement::new("token", std::iter::empty::<String>()));
        failures.push((401, "no valid token"));
    }
    if path.contains('{') {
        failures.push((404, "there is no such thing"));
    }
    if may_fail_validation {
        failures.push((413, "the body is too large"));
        failures.push((415, "the body has another type"));
    }
    for (status, description) in failures {
        by_status.entry(status).or_insert_with(|| {
            let schema = RefOr::<Schema>::Ref(Ref::from_schema_name(ErrorResponse::name()));
            ResponseBuilder::new()
                .description(description)
                .content("application/json", Content::new(Some(schema)))
        });
    }
    for (status, response) in by_status {
        builder = builder.response(status.to_string(), response.build());
    }
    builder.build()
}

/// A family of parameters as single ones.
fn expand(name: &str, kind: Kind) -> Vec<(String, Kind)> {
    let family = |suffixes: &[&str], kind| {
        suffixes
            .iter()
            .map(|suffix| (format!("{name}{suffix}"), kind))
            .collect()
    };
    match kind {
        Kind::Times => family(&["_gte", "_gt", "_lte", "_lt"], Kind::Time),
        Kind::Numbers => family(&["_gte", "_gt", "_lte", "_lt"], Kind::Number),
        Kind::Patterns => family(&["_pattern", "_prefix_pattern"], Kind::Text),
        kind => vec![(name.to_owned(), kind)],
    }
}

fn param_schema(kind: Kind) -> RefOr<Schema> {
    let object = |kind| ObjectBuilder::new().schema_type(kind);
    match kind {
        Kind::Text | Kind::Patterns => object(Type::String).into(),
        Kind::Int => object(Type::Integer).into(),
        Kind::Number | Kind::Numbers => object(Type::Number).into(),
        Kind::Flag => object(Type::Boolean).into(),
        Kind::Time | Kind::Times => object(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into(),
        Kind::Texts => ArrayBuilder::new().items(object(Type::String)).into(),
        Kind::Ints => ArrayBuilder::new().items(object(Type::Integer)).into(),
    }
}
