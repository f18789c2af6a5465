//! The host, through the generated bindings.

use crate::Error;
use crate::bindings::airtight::task::{blobs, checkpoint, log, progress, xcom};
use crate::log::Level;

pub(crate) use crate::bindings::airtight::task::context::{
    conf, dag_id, data_interval_end, data_interval_start, logical_date, map_index, max_tries, params, run_id, task_id,
    try_number,
};

impl From<xcom::Error> for Error {
    fn from(error: xcom::Error) -> Self {
        match error {
            xcom::Error::Denied(what) => Self::Denied(what),
            xcom::Error::NotUpstream(task) => Self::NotUpstream(task),
            xcom::Error::TooLarge(limit) => Self::TooLarge { limit },
            xcom::Error::Invalid(why) => Self::Invalid(why),
            xcom::Error::Other(message) => Self::Other(message),
        }
    }
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        match error {
            blobs::Error::Denied(what) => Self::Denied(what),
            blobs::Error::NotFound(what) => Self::NotFound(what),
            blobs::Error::TooLarge(limit) => Self::TooLarge { limit },
            blobs::Error::Invalid(why) => Self::Invalid(why),
            blobs::Error::Other(message) => Self::Other(message),
        }
    }
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Self {
        match error {
            checkpoint::Error::Denied(what) => Self::Denied(what),
            checkpoint::Error::TooLarge(limit) => Self::TooLarge { limit },
            checkpoint::Error::Stale => Self::Stale,
            checkpoint::Error::Other(message) => Self::Other(message),
        }
    }
}

pub(crate) fn xcom_push(key: &str, value: &str) -> Result<(), Error> {
    Ok(xcom::push(key, value)?)
}

pub(crate) fn xcom_pull(task: &str, key: &str, map_index: Option<u32>) -> Result<Option<String>, Error> {
    Ok(xcom::pull(task, key, map_index)?)
}

pub(crate) fn xcom_count(task: &str, key: &str) -> Result<u32, Error> {
    Ok(xcom::count(task, key)?)
}

pub(crate) fn xcom_pull_items(
    task: &str,
    key: &str,
    after: Option<u32>,
    max: u32,
) -> Result<Vec<(Option<u32>, String)>, Error> {
    let items = xcom::pull_items(task, key, after, max)?;
    Ok(items.into_iter().map(|item| (item.map_index, item.value)).collect())
}

pub(crate) fn checkpoint_load() -> Result<Option<Vec<u8>>, Error> {
    Ok(checkpoint::load()?)
}

pub(crate) fn checkpoint_save(bytes: &[u8]) -> Result<(), Error> {
    Ok(checkpoint::save(bytes)?)
}

pub(crate) fn checkpoint_clear() -> Result<(), Error> {
    Ok(checkpoint::clear()?)
}

pub(crate) fn progress_report(fraction: Option<f64>, note: &str) {
    progress::report(fraction, note);
}

pub(crate) fn log_write(level: Level, message: &str, fields: Option<&str>) {
    let level = match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message, fields);
}

#[derive(Debug)]
pub(crate) struct BlobReader(blobs::Reader);

impl BlobReader {
    pub(crate) fn open(digest: &str) -> Result<Self, Error> {
        Ok(Self(blobs::open(digest)?))
    }

    pub(crate) fn size(&self) -> u64 {
        self.0.size()
    }

    pub(crate) fn read(&mut self, max: u32) -> Result<Vec<u8>, Error> {
        Ok(self.0.read(max)?)
    }
}

#[derive(Debug)]
pub(crate) struct BlobWriter(blobs::Writer);

impl BlobWriter {
    pub(crate) fn create(media_type: Option<&str>) -> Result<Self, Error> {
        Ok(Self(blobs::create(media_type)?))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.0.write(bytes)?)
    }

    pub(crate) fn finish(self) -> Result<String, Error> {
        Ok(blobs::Writer::finish(self.0)?)
    }
}
