//! Shapes that several resources share.

use std::borrow::Cow;

use model::{DagId, Timestamp};
use ports::deploy::DagVersion;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::error::ApiError;

/// A time: RFC 3339 with microseconds and `Z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Time {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Time")
    }
}

/// A field that Airflow has and that is always `null` here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Null;

impl Serialize for Null {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

impl PartialSchema for Null {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Null).into()
    }
}

impl ToSchema for Null {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Null")
    }
}

/// JSON text that was stored, passed on as it is: no number loses a digit.
#[derive(Clone, Debug)]
pub(crate) struct RawJson(Box<serde_json::value::RawValue>);

impl RawJson {
    pub(crate) fn new(text: &str) -> Result<Self, ApiError> {
        serde_json::value::RawValue::from_string(text.to_owned())
            .map(Self)
            .map_err(ApiError::internal)
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl PartialSchema for RawJson {
    fn schema() -> RefOr<Schema> {
        serde_json::Value::schema()
    }
}

impl ToSchema for RawJson {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Json")
    }
}

/// Seconds between two times, as Airflow gives durations.
pub(crate) fn duration(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<f64> {
    let (start, end) = (start?, end?);
    Some(end.since(start).as_micros() as f64 / 1e6)
}

/// A DAG version.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DagVersionResponse {
    id: String,
    pub(crate) version_number: u32,
    dag_id: String,
    bundle_name: Null,
    bundle_version: Null,
    created_at: Time,
    dag_display_name: String,
    bundle_url: Null,
    /// The digest of the manifest and its components.
    digest: String,
}

impl DagVersionResponse {
    pub(crate) fn new(dag_id: &DagId, version: &DagVersion) -> Self {
        Self {
            id: version.uuid.to_string(),
            version_number: version.number,
            dag_id: dag_id.to_string(),
            bundle_name: Null,
            bundle_version: Null,
            created_at: Time(version.created_at),
            dag_display_name: dag_id.to_string(),
            bundle_url: Null,
            digest: version.digest.to_string(),
        }
    }
}
