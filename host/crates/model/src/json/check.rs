//! What the host checks of every JSON text that crosses the contract, and the blob references that it finds on the way.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::scan::{Sink, SyntaxError, scan, unescape};
use crate::id::Digest;

/// The member that makes an object a reference to a blob.
pub const BLOB_KEY: &str = "$blob";

/// A reference to a blob inside a JSON value: `{"$blob": digest, "size": n, "media_type": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds, if anybody said.
    pub media_type: Option<String>,
}

impl BlobRef {
    /// The reference as it is written in a value.
    pub fn to_value(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert(BLOB_KEY.to_owned(), self.digest.to_string().into());
        object.insert("size".to_owned(), self.size.into());
        if let Some(media_type) = &self.media_type {
            object.insert("media_type".to_owned(), media_type.as_str().into());
        }
        Value::Object(object)
    }
}

/// A JSON text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is over the limit.
    #[error("the value has {size} bytes of JSON; the limit is {limit} bytes, larger data belongs into a blob")]
    TooLarge {
        /// What it has.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It is not what the contract allows, or holds a broken blob reference.
    #[error("invalid JSON: {0}")]
    Invalid(SyntaxError),
}

impl JsonError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "json_too_large",
            Self::Invalid(_) => "json_invalid",
        }
    }
}

/// Checks one JSON text and answers the blobs that it refers to, in the order of the text.
pub fn check(text: &str, max_bytes: u64) -> Result<Vec<BlobRef>, JsonError> {
    let size = text.len() as u64;
    if size > max_bytes {
        return Err(JsonError::TooLarge { size, limit: max_bytes });
    }
    let mut references = References::default();
    scan(text, &mut references).map_err(JsonError::Invalid)?;
    Ok(references.found)
}

/// Checks one JSON text in which a key `$blob` means nothing: a schema, a log record.
pub fn check_syntax(text: &str, max_bytes: u64) -> Result<(), JsonError> {
    let size = text.len() as u64;
    if size > max_bytes {
        return Err(JsonError::TooLarge { size, limit: max_bytes });
    }
    scan(text, &mut Nothing).map_err(JsonError::Invalid)
}

/// Takes everything and keeps nothing.
struct Nothing;

impl<'a> Sink<'a> for Nothing {
    fn null(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn bool(&mut self, _value: bool) -> Result<(), String> {
        Ok(())
    }
    fn number(&mut self, _text: &'a str) -> Result<(), String> {
        Ok(())
    }
    fn string(&mut self, _raw: &'a str) -> Result<(), String> {
        Ok(())
    }
    fn begin(&mut self, _object: bool) -> Result<(), String> {
        Ok(())
    }
    fn key(&mut self, _key: Cow<'a, str>) -> Result<(), String> {
        Ok(())
    }
    fn end(&mut self, _object: bool) -> Result<(), String> {
        Ok(())
    }
}

/// Whether a checked JSON text counts as false (Airflow's short circuit, Python's truth): `false`, `null`, zero, `""`, `[]`, `{}`.
pub fn is_falsy(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => text
            .split(['e', 'E'])
            .next()
            .is_some_and(|digits| !digits.bytes().any(|b| matches!(b, b'1'..=b'9'))),
        Some(b'[' | b'{') => text
            .get(1..text.len().saturating_sub(1))
            .is_some_and(|inner| inner.trim_matches([' ', '\t', '\n', '\r']).is_empty()),
        _ => matches!(text, "false" | "null" | "\"\""),
    }
}

/// Finds objects that are blob references. One frame for each open object or array.
#[derive(Default)]
struct References<'a> {
    frames: Vec<Frame<'a>>,
    found: Vec<BlobRef>,
}

#[derive(Default)]
struct Frame<'a> {
    /// The key whose value comes next; nothing of interest for other keys and in arrays.
    next: Member,
    other_keys: bool,
    blob: Option<Scalar<'a>>,
    size: Option<Scalar<'a>>,
    media_type: Option<Scalar<'a>>,
}

#[derive(Clone, Copy, Default)]
enum Member {
    #[default]
    Other,
    Blob,
    Size,
    MediaType,
}

#[derive(Clone, Copy)]
enum Scalar<'a> {
    String(&'a str),
    Number(&'a str),
    Else,
}

impl<'a> References<'a> {
    fn scalar(&mut self, scalar: Scalar<'a>) {
        if let Some(frame) = self.frames.last_mut() {
            match frame.next {
                Member::Other => {}
                Member::Blob => frame.blob = Some(scalar),
                Member::Size => frame.size = Some(scalar),
                Member::MediaType => frame.media_type = Some(scalar),
            }
        }
    }
}

impl<'a> Sink<'a> for References<'a> {
    fn null(&mut self) -> Result<(), String> {
        self.scalar(Scalar::Else);
        Ok(())
    }

    fn bool(&mut self, _: bool) -> Result<(), String> {
        self.scalar(Scalar::Else);
        Ok(())
    }

    fn number(&mut self, text: &'a str) -> Result<(), String> {
        self.scalar(Scalar::Number(text));
        Ok(())
    }

    fn string(&mut self, raw: &'a str) -> Result<(), String> {
        self.scalar(Scalar::String(raw));
        Ok(())
    }

    fn begin(&mut self, _: bool) -> Result<(), String> {
        self.scalar(Scalar::Else);
        self.frames.push(Frame::default());
        Ok(())
    }

    fn key(&mut self, key: Cow<'a, str>) -> Result<(), String> {
        if let Some(frame) = self.frames.last_mut() {
            frame.next = match &*key {
                BLOB_KEY => Member::Blob,
                "size" => Member::Size,
                "media_type" => Member::MediaType,
                _ => {
                    frame.other_keys = true;
                    Member::Other
                }
            };
        }
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), String> {
        if let Some(frame) = self.frames.pop()
            && let Some(blob) = frame.blob
        {
            self.found.push(reference(blob, &frame)?);
        }
        Ok(())
    }
}

/// An object with the key `$blob` is a reference or an error: a near miss would let a blob be swept away under its user.
fn reference(blob: Scalar<'_>, frame: &Frame<'_>) -> Result<BlobRef, String> {
    const SHAPE: &str = "an object with the key `$blob` must be a blob reference {\"$blob\": \"sha256:…\", \"size\": n, \"media_type\"?: \"…\"}";
    let fail = |why: &str| Err(format!("{SHAPE}: {why}"));
    if frame.other_keys {
        return fail("it has other keys");
    }
    let Scalar::String(digest) = blob else {
        return fail("`$blob` is not a string");
    };
    let Ok(digest) = unescape(digest).parse::<Digest>() else {
        return fail("`$blob` is not a digest");
    };
    let size = match frame.size {
        Some(Scalar::Number(text)) => text.parse::<u64>().ok(),
        _ => None,
    };
    let Some(size) = size else {
        return fail("`size` is not a whole number of bytes");
    };
    let media_type = match frame.media_type {
        None => None,
        Some(Scalar::String(raw)) => Some(unescape(raw).into_owned()),
        Some(_) => return fail("`media_type` is not a string"),
    };
    Ok(BlobRef {
        digest,
        size,
        media_type,
    })
}

#[cfg(test)]
mod tests;
