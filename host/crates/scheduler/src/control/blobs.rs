//! Which blobs the configuration and the parameters of a new run may refer to. A digest is a name, not a permission: only those that people may
//! read anyway, since they uploaded them or something refers to them.

use std::collections::HashSet;

use model::{BlobRef, Digest};
use ports::control::ControlError;
use serde_json::Value;

use crate::shared::{Shared, query_failed};

/// How many blobs a run may refer to.
const MOST: usize = 1_000;

/// Refuses what refers to other blobs, or says something wrong of them.
pub(super) async fn check(shared: &Shared, conf: &Value, params: &Value) -> Result<(), ControlError> {
    let mut problems = Vec::new();
    let mut named: Vec<BlobRef> = Vec::new();
    for (what, value) in [("conf", conf), ("the parameters", params)] {
        if !mentions_blob(value) {
            continue;
        }
        match model::json::check(&value.to_string(), u64::MAX) {
            Ok(blobs) => named.extend(blobs),
            Err(error) => problems.push(format!("{what}: {error}")),
        }
    }
    if named.len() > MOST {
        problems.push(format!("{} blobs are referred to, at most {MOST} may be", named.len()));
    } else if !named.is_empty() {
        let digests: HashSet<Digest> = named.iter().map(|blob| blob.digest).collect();
        let digests: Vec<Digest> = digests.into_iter().collect();
        let readable = shared.store.readable_blobs(&digests).await.map_err(query_failed)?;
        for blob in &named {
            let sizes = readable.iter().filter(|(digest, _)| *digest == blob.digest);
            let mut sizes = sizes.map(|(_, size)| *size).peekable();
            let problem = match sizes.peek().copied() {
                None => format!("there is no blob `{}` that you may read; upload it first", blob.digest),
                Some(size) if !sizes.any(|size| size == blob.size) => {
                    format!("blob `{}` has {size} bytes, not {}", blob.digest, blob.size)
                }
                Some(_) => continue,
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(ControlError::InvalidParams { problems })
}

/// Whether there is anything to look at: most runs refer to nothing.
fn mentions_blob(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.contains_key(model::json::BLOB_KEY) || members.values().any(mentions_blob),
        Value::Array(items) => items.iter().any(mentions_blob),
        _ => false,
    }
}
