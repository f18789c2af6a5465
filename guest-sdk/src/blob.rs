//! [`Blob`]: a reference to a large value, with streams to write and read it.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{decode, encode};
use crate::{Error, host};

/// The most bytes that one call moves between a task and the host.
const CHUNK: usize = 1 << 20;
/// Small writes are gathered up to this size.
const BUFFER: usize = 64 << 10;

/// A large value, stored outside of the JSON by its content.
///
/// A `Blob` is an ordinary serde type: put it into a task's input or output wherever a value may be large. It holds a reference
/// (`{"$blob": "sha256:…", "size": n, "media_type": "…"}`); the bytes are streamed.
///
/// A task can read the blobs that came with its input, that XComs it pulled or its checkpoint refer to, and those it wrote itself.
///
/// ```
/// use airtight_sdk::prelude::*;
/// use std::io::{BufRead, Write};
///
/// #[data]
/// struct Export {
///     rows: u64,
/// }
///
/// /// Writes a file of any size without holding it in memory.
/// #[task]
/// fn export(input: Export) -> Result<Blob> {
///     let mut out = Blob::writer("text/csv")?;
///     for row in 0..input.rows {
///         writeln!(out, "{row},{}", row * row)?;
///     }
///     Ok(out.finish()?)
/// }
///
/// /// Reads it the same way.
/// #[task]
/// fn count_lines(file: Blob) -> Result<usize> {
///     let mut lines = 0;
///     for line in file.reader()?.lines() {
///         line?;
///         lines += 1;
///     }
///     Ok(lines)
/// }
///
/// assert_eq!(count_lines(export(Export { rows: 3 })?)?, 3);
/// # Ok::<(), Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    #[serde(rename = "$blob")]
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
}

impl Blob {
    /// Stores bytes. `media_type` is for people and tools; `None` where nothing fits.
    pub fn from_bytes<'a>(bytes: impl AsRef<[u8]>, media_type: impl Into<Option<&'a str>>) -> Result<Self, Error> {
        let mut writer = Self::writer(media_type)?;
        writer.put(bytes.as_ref())?;
        writer.finish()
    }

    /// Stores a value as JSON.
    pub fn from_json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Self::from_bytes(encode(value, || "the blob's value".to_owned())?, "application/json")
    }

    /// Stores everything that a reader holds.
    pub fn from_reader<'a>(reader: &mut dyn Read, media_type: impl Into<Option<&'a str>>) -> io::Result<Self> {
        let mut writer = Self::writer(media_type)?;
        io::copy(reader, &mut writer)?;
        Ok(writer.finish()?)
    }

    /// Starts a new blob. Nothing is stored unless [`BlobWriter::finish`] is called.
    pub fn writer<'a>(media_type: impl Into<Option<&'a str>>) -> Result<BlobWriter, Error> {
        Ok(BlobWriter {
            inner: host::BlobWriter::create(media_type.into())?,
            buffer: Vec::new(),
        })
    }

    /// Opens the blob for reading.
    pub fn reader(&self) -> Result<BlobReader, Error> {
        Ok(BlobReader {
            inner: host::BlobReader::open(&self.digest)?,
            chunk: Vec::new(),
            at: 0,
        })
    }

    /// Reads all of it into memory.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        // The size is checked by the host; the bound only guards against a reference made by hand.
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0).min(64 << 20));
        self.reader()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads all of it as text.
    pub fn text(&self) -> io::Result<String> {
        String::from_utf8(self.bytes()?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Reads all of it as a JSON value.
    pub fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        let text = self.text()?;
        Ok(decode(&text, || format!("blob {}", self.digest))?)
    }

    /// `sha256:` and the hash of the content in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The size of the content in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the content is, if whoever wrote it said so.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }
}

impl JsonSchema for Blob {
    fn schema_name() -> Cow<'static, str> {
        "Blob".into()
    }

    fn schema_id() -> Cow<'static, str> {
        "airtight_sdk::Blob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A reference to a large value.",
            "type": "object",
            "properties": {
                "$blob": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
                "size": {"type": "integer", "minimum": 0},
                "media_type": {"type": "string"},
            },
            "required": ["$blob", "size"],
            "additionalProperties": false,
        })
    }
}

/// A new blob being written. Dropped without [`finish`](Self::finish) it leaves nothing behind.
#[derive(Debug)]
#[must_use = "nothing is stored unless `finish` is called"]
pub struct BlobWriter {
    inner: host::BlobWriter,
    buffer: Vec<u8>,
}

impl BlobWriter {
    /// Makes the blob durable and answers the reference to it.
    pub fn finish(mut self) -> Result<Blob, Error> {
        self.send_buffer()?;
        let json = self.inner.finish()?;
        decode(&json, || "the reference to the new blob".to_owned())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.send_buffer()?;
        }
        if bytes.len() >= BUFFER {
            for chunk in bytes.chunks(CHUNK) {
                self.inner.write(chunk)?;
            }
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn send_buffer(&mut self) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.inner.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.send_buffer()?)
    }
}

/// A blob being read.
#[derive(Debug)]
pub struct BlobReader {
    inner: host::BlobReader,
    chunk: Vec<u8>,
    at: usize,
}

impl BlobReader {
    /// The size of the whole blob in bytes.
    pub fn size(&self) -> u64 {
        self.inner.size()
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.chunk.len() {
            self.chunk = self.inner.read(CHUNK as u32)?;
            self.at = 0;
        }
        Ok(self.chunk.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.chunk.len().min(self.at + amount);
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}
