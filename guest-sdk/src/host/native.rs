//! The in-memory host of the current thread; `testing` sets it up and reads it out.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::log::Level;
use crate::testing::LogRecord;

/// Everything that the host would know or be told.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) dag_id: String,
    pub(crate) run_id: String,
    pub(crate) task_id: String,
    pub(crate) map_index: Option<u32>,
    pub(crate) try_number: u32,
    pub(crate) max_tries: u32,
    pub(crate) logical_date: Option<String>,
    pub(crate) data_interval: Option<(String, String)>,
    pub(crate) params: Map<String, Value>,
    pub(crate) conf: Map<String, Value>,
    /// By task, key and map index.
    pub(crate) upstream: BTreeMap<(String, String, Option<u32>), Value>,
    pub(crate) pushed: BTreeMap<String, Value>,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) checkpoint: Option<Vec<u8>>,
    pub(crate) progress: Vec<(Option<f64>, String)>,
    pub(crate) log: Vec<LogRecord>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            dag_id: "test_dag".to_owned(),
            run_id: "test_run".to_owned(),
            task_id: "test_task".to_owned(),
            map_index: None,
            try_number: 1,
            max_tries: 1,
            logical_date: None,
            data_interval: None,
            params: Map::new(),
            conf: Map::new(),
            upstream: BTreeMap::new(),
            pushed: BTreeMap::new(),
            blobs: HashMap::new(),
            checkpoint: None,
            progress: Vec::new(),
            log: Vec::new(),
        }
    }
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

pub(crate) fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(f)
}

pub(crate) fn dag_id() -> String {
    with(|state| state.dag_id.clone())
}

pub(crate) fn run_id() -> String {
    with(|state| state.run_id.clone())
}

pub(crate) fn task_id() -> String {
    with(|state| state.task_id.clone())
}

pub(crate) fn map_index() -> Option<u32> {
    with(|state| state.map_index)
}

pub(crate) fn try_number() -> u32 {
    with(|state| state.try_number)
}

pub(crate) fn max_tries() -> u32 {
    with(|state| state.max_tries)
}

pub(crate) fn logical_date() -> Option<String> {
    with(|state| state.logical_date.clone())
}

pub(crate) fn data_interval_start() -> Option<String> {
    with(|state| state.data_interval.clone().map(|(start, _)| start))
}

pub(crate) fn data_interval_end() -> Option<String> {
    with(|state| state.data_interval.clone().map(|(_, end)| end))
}

pub(crate) fn params() -> String {
    with(|state| Value::Object(state.params.clone()).to_string())
}

pub(crate) fn conf() -> String {
    with(|state| Value::Object(state.conf.clone()).to_string())
}

pub(crate) fn xcom_push(key: &str, value: &str) -> Result<(), Error> {
    let value: Value = serde_json::from_str(value).map_err(|error| Error::Invalid(error.to_string()))?;
    with(|state| state.pushed.insert(key.to_owned(), value));
    Ok(())
}

pub(crate) fn xcom_pull(task: &str, key: &str, map_index: Option<u32>) -> Result<Option<String>, Error> {
    with(|state| {
        if task == state.task_id {
            return Ok(state.pushed.get(key).map(Value::to_string));
        }
        if !state.upstream.keys().any(|(name, _, _)| name == task) {
            return Err(Error::NotUpstream(task.to_owned()));
        }
        let one = state.upstream.get(&(task.to_owned(), key.to_owned(), map_index));
        if one.is_some() || map_index.is_some() {
            return Ok(one.map(Value::to_string));
        }
        let mapped: Vec<&Value> = state
            .upstream
            .iter()
            .filter(|((name, k, index), _)| name == task && k == key && index.is_some())
            .map(|(_, value)| value)
            .collect();
        Ok((!mapped.is_empty()).then(|| json!(mapped).to_string()))
    })
}

/// What the instances of an upstream task published under a key, in index order.
fn items(state: &State, task: &str, key: &str) -> Result<Vec<(Option<u32>, String)>, Error> {
    if !state.upstream.keys().any(|(name, _, _)| name == task) {
        return Err(Error::NotUpstream(task.to_owned()));
    }
    let of_key = state
        .upstream
        .iter()
        .filter(|((name, k, _), _)| name == task && k == key);
    let mut items: Vec<_> = of_key
        .map(|((_, _, index), value)| (*index, value.to_string()))
        .collect();
    items.sort_by_key(|(index, _)| *index);
    Ok(items)
}

pub(crate) fn xcom_count(task: &str, key: &str) -> Result<u32, Error> {
    let items = with(|state| items(state, task, key))?;
    Ok(u32::try_from(items.len()).unwrap_or(u32::MAX))
}

pub(crate) fn xcom_pull_items(
    task: &str,
    key: &str,
    after: Option<u32>,
    max: u32,
) -> Result<Vec<(Option<u32>, String)>, Error> {
    let items = with(|state| items(state, task, key))?.into_iter();
    let later = items.filter(|(index, _)| after.is_none() || *index > after);
    Ok(later.take(max as usize).collect())
}

pub(crate) fn checkpoint_load() -> Result<Option<Vec<u8>>, Error> {
    Ok(with(|state| state.checkpoint.clone()))
}

pub(crate) fn checkpoint_save(bytes: &[u8]) -> Result<(), Error> {
    with(|state| state.checkpoint = Some(bytes.to_vec()));
    Ok(())
}

pub(crate) fn checkpoint_clear() -> Result<(), Error> {
    with(|state| state.checkpoint = None);
    Ok(())
}

pub(crate) fn progress_report(fraction: Option<f64>, note: &str) {
    with(|state| state.progress.push((fraction, note.to_owned())));
}

pub(crate) fn log_write(level: Level, message: &str, fields: Option<&str>) {
    // The test harness shows it when the test fails.
    eprintln!("{level:?}: {message} {}", fields.unwrap_or_default());
    let fields = fields
        .and_then(|fields| serde_json::from_str(fields).ok())
        .unwrap_or_default();
    with(|state| {
        state.log.push(LogRecord {
            level,
            message: message.to_owned(),
            fields,
        })
    });
}

#[derive(Debug)]
pub(crate) struct BlobReader {
    bytes: Vec<u8>,
    at: usize,
}

impl BlobReader {
    pub(crate) fn open(digest: &str) -> Result<Self, Error> {
        let bytes = with(|state| state.blobs.get(digest).cloned());
        let bytes = bytes.ok_or_else(|| Error::NotFound(format!("blob {digest}")))?;
        Ok(Self { bytes, at: 0 })
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn read(&mut self, max: u32) -> Result<Vec<u8>, Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let chunk = rest[..rest.len().min(max as usize)].to_vec();
        self.at += chunk.len();
        Ok(chunk)
    }
}

#[derive(Debug)]
pub(crate) struct BlobWriter {
    bytes: Vec<u8>,
    media_type: Option<String>,
}

impl BlobWriter {
    pub(crate) fn create(media_type: Option<&str>) -> Result<Self, Error> {
        Ok(Self {
            bytes: Vec::new(),
            media_type: media_type.map(str::to_owned),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<String, Error> {
        let mut digest = "sha256:".to_owned();
        for byte in Sha256::digest(&self.bytes) {
            write!(digest, "{byte:02x}").expect("a string takes every write");
        }
        let mut reference = json!({"$blob": digest, "size": self.bytes.len()});
        if let Some(media_type) = self.media_type {
            reference["media_type"] = Value::String(media_type);
        }
        with(|state| state.blobs.insert(digest, self.bytes));
        Ok(reference.to_string())
    }
}
