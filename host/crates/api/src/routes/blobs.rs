//! Blobs: large values, named by their content. A digest is a name, not a permission: only what something refers to can
//! be read, or what was uploaded and is not referred to yet.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use model::Digest;
use ports::payload::{BlobError, BlobReader};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Code};
use crate::openapi::{Op, Routes};
use crate::request::{PathArgs, paced};
use crate::state::App;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;
/// Longer media types are not kept.
const MAX_MEDIA_TYPE: usize = 128;

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .post(
            "/api/v2/blobs",
            upload,
            Op::new(
                "blob",
                "upload_blob",
                "Upload a blob; the answer is the reference to put into `conf`",
            )
            .raw_body("*/*")
            .json::<BlobResponse>(201),
        )
        .get(
            "/api/v2/blobs/{digest}",
            download,
            Op::new("blob", "get_blob", "Download a blob").raw(200, "application/octet-stream"),
        )
}

/// The reference to the blob, as it stands in JSON values.
#[derive(Serialize, ToSchema)]
struct BlobResponse {
    #[serde(rename = "$blob")]
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
}

async fn upload(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<BlobResponse>), ApiError> {
    let mut body = paced(&headers, body, app.limits.blob_bytes, &app.limits)?;
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type
        .filter(|text| text.len() <= MAX_MEDIA_TYPE)
        .map(str::to_owned);
    let mut writer = app.blobs.create().await?;
    while let Some(bytes) = body.next().await {
        writer.write(bytes.map_err(|error| error.to_api())?).await?;
    }
    let (digest, size) = writer.finish().await?;
    // Written down before it is answered: any server of this database may be asked next.
    app.uploads.add_upload(digest, size, app.clock.now()).await?;
    let response = BlobResponse {
        digest: digest.to_string(),
        size,
        media_type,
    };
    Ok((StatusCode::CREATED, Json(response)))
}

async fn download(State(app): State<Arc<App>>, path: PathArgs) -> Result<Response, ApiError> {
    let missing = || {
        let shown: String = path.text("digest").chars().take(80).collect();
        ApiError::new(
            Code::BlobNotFound,
            format!("blob `{shown}` does not exist, or nothing refers to it"),
        )
    };
    let digest: Digest = path.text("digest").parse().map_err(|_| missing())?;
    if !app.metadata.blob_is_readable(digest).await? {
        return Err(missing());
    }
    let reader = app.blobs.open(digest).await?;
    let size = reader.size();
    let chunks = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader: Box<dyn BlobReader> = reader?;
        match reader.read(CHUNK).await {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some((Ok(bytes), Some(reader))),
            Err(error) => {
                tracing::error!("cannot send a blob: {error}");
                // The connection breaks, so the caller cannot take a part for the whole.
                Some((Err::<Bytes, BlobError>(error), None))
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, "attachment".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
