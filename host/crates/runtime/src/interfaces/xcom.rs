//! `airtight:task/xcom`: small values. Pushes wait here until the try ends; pulls read what is committed.

use std::collections::HashMap;
use std::sync::Arc;

use model::{MapIndex, TaskId, json};
use ports::executor::XcomPush;
use ports::payload::{MAX_LIST_BYTES, Pulled, XcomError, XcomValue};

use super::{HostError, backend_failed};
use crate::bindings::xcom::{self, Error, Item};
use crate::ctx::{TaskCtx, TaskCtxView};
use crate::limits::{Held, as_u64};

/// What an XCom call fails with.
pub(crate) type XcomCallError = HostError<Error>;

/// The key of a task's return value (Airflow: `XCOM_RETURN_KEY`).
pub(crate) const RETURN_VALUE: &str = "return_value";
/// The longest key, in bytes (Airflow: 512 characters).
const MAX_KEY_BYTES: usize = 512;

impl xcom::Host for TaskCtxView<'_> {
    async fn push(&mut self, key: String, value: String) -> Result<(), XcomCallError> {
        self.ctx.gate.pass()?;
        if self.ctx.request.id.callback.is_some() {
            self.ctx.gate.note_denied();
            return Err(HostError::Wit(Error::Denied("a callback publishes nothing".to_owned())));
        }
        let known = self.ctx.know_earlier().await;
        self.ctx.gate.pass()?;
        known.map_err(|error| self.refused(error))?;
        self.ctx.push_xcom(key, value).map_err(HostError::Wit)
    }

    async fn pull(
        &mut self,
        task: String,
        key: String,
        map_index: Option<u32>,
    ) -> Result<Option<String>, XcomCallError> {
        self.ctx.gate.pass()?;
        let task = named(&task)?;
        let map_index = index(map_index)?;
        let own = self.ctx.request.id.callback.is_none()
            && self.ctx.request.task.task_id == task
            && map_index.is_none_or(|index| index == self.ctx.request.id.map_index());
        if own {
            let held = self.ctx.pushes.by_key.get(&key).map(|push| Arc::clone(&push.value));
            let value = match held {
                Some(value) => Some(value),
                None => {
                    let earlier = self.ctx.pull_earlier(&key).await;
                    self.ctx.gate.pass()?;
                    earlier.map_err(|error| self.refused(error))?.map(|value| value.value)
                }
            };
            let _held = value
                .as_ref()
                .map(|value| self.ctx.hold(as_u64(value.len())))
                .transpose()?;
            return Ok(value.map(|value| value.to_string()));
        }
        let pulled = self
            .ctx
            .services
            .xcoms
            .pull(self.ctx.request.id, &task, &key, map_index, self.ctx.account.free())
            .await;
        self.ctx.gate.pass()?;
        match pulled {
            Ok(pulled) => self.ctx.take_pulled(pulled),
            Err(error) => Err(self.refused(error)),
        }
    }

    async fn count(&mut self, task: String, key: String) -> Result<u32, XcomCallError> {
        self.ctx.gate.pass()?;
        let task = named(&task)?;
        let counted = self.ctx.services.xcoms.count(self.ctx.request.id, &task, &key).await;
        self.ctx.gate.pass()?;
        counted.map_err(|error| self.refused(error))
    }

    async fn pull_items(
        &mut self,
        task: String,
        key: String,
        after: Option<u32>,
        max: u32,
    ) -> Result<Vec<Item>, XcomCallError> {
        self.ctx.gate.pass()?;
        let (task, after) = (named(&task)?, index(after)?);
        let xcoms = &self.ctx.services.xcoms;
        let pulled = xcoms.pull_items(self.ctx.request.id, &task, &key, after, max).await;
        self.ctx.gate.pass()?;
        let values = pulled.map_err(|error| self.refused(error))?;
        let bytes = values.iter().map(|(_, value)| as_u64(value.value.len())).sum();
        let _held = self.ctx.hold(bytes)?;
        let mut items = Vec::with_capacity(values.len());
        for (map_index, value) in values {
            self.ctx.openable.allow(&value.blobs);
            items.push(Item {
                map_index: u32::try_from(map_index.0).ok(),
                value: value.value.to_string(),
            });
        }
        Ok(items)
    }

    fn convert_error(&mut self, error: XcomCallError) -> wasmtime::Result<Error> {
        error.split()
    }
}

impl TaskCtxView<'_> {
    /// What the guest is told of a call that failed.
    fn refused(&self, error: XcomError) -> XcomCallError {
        match error {
            XcomError::NotUpstream(task) => HostError::Wit(Error::NotUpstream(task.to_string())),
            XcomError::TooLarge { limit, .. } if limit < MAX_LIST_BYTES => {
                // The account notes it; should there be room by now, it was still not read.
                let _ = Held::of(&self.ctx.account, limit.saturating_add(1));
                does_not_fit()
            }
            XcomError::TooLarge { limit, .. } => HostError::Wit(Error::TooLarge(limit)),
            XcomError::Stale => crate::gate::TryEnded.into(),
            error @ XcomError::Backend(_) => HostError::Wit(Error::Other(backend_failed(
                self.ctx.request.id,
                "read an XCom",
                &error,
            ))),
        }
    }
}

/// What was pulled is larger than what the task may still hold.
fn does_not_fit() -> XcomCallError {
    HostError::Wit(Error::Other(
        "what is to be pulled does not fit into the memory limit of the task; pull it in parts, or raise `limits.memory`".to_owned(),
    ))
}

fn named(task: &str) -> Result<TaskId, XcomCallError> {
    TaskId::new(task).map_err(|error| HostError::Wit(Error::Invalid(error.to_string())))
}

fn index(index: Option<u32>) -> Result<Option<MapIndex>, XcomCallError> {
    let index = index.map(i32::try_from).transpose();
    let index = index.map_err(|_| HostError::Wit(Error::Invalid("the map index is too large".to_owned())))?;
    Ok(index.map(MapIndex))
}

impl TaskCtx {
    /// Whether an earlier dispatch of this try may have published something.
    fn may_have_earlier(&self) -> bool {
        self.request.id.callback.is_none() && !self.request.first_of_try
    }

    /// Learns what earlier dispatches of this try have published: the limits are those of a try.
    pub(crate) async fn know_earlier(&mut self) -> Result<(), XcomError> {
        if self.pushes.earlier.is_some() || !self.may_have_earlier() {
            return Ok(());
        }
        let sizes = self.services.xcoms.own_sizes(self.request.id).await?;
        let held = &self.pushes.by_key;
        let earlier: HashMap<String, u64> = sizes.into_iter().filter(|(key, _)| !held.contains_key(key)).collect();
        let bytes: u64 = earlier.values().sum();
        self.pushes.bytes = self.pushes.bytes.saturating_add(bytes);
        self.pushes.earlier = Some(earlier);
        Ok(())
    }

    /// What an earlier dispatch of this try has published. From now on the try may open the blobs that it refers to.
    pub(crate) async fn pull_earlier(&mut self, key: &str) -> Result<Option<XcomValue>, XcomError> {
        if !self.may_have_earlier() {
            return Ok(None);
        }
        let value = self.services.xcoms.pull_own(self.request.id, key).await?;
        if let Some(value) = &value {
            self.openable.allow(&value.blobs);
        }
        Ok(value)
    }

    /// Checks a value and keeps it until the try ends. A second push of a key replaces the first.
    pub(crate) fn push_xcom(&mut self, key: String, value: String) -> Result<(), Error> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
            return Err(Error::Invalid(format!(
                "an XCom key has 1 to {MAX_KEY_BYTES} bytes and no control characters"
            )));
        }
        let limits = &self.request.task.limits;
        let size = u64::try_from(value.len()).unwrap_or(u64::MAX);
        if size > limits.xcom_value_bytes {
            return Err(Error::TooLarge(limits.xcom_value_bytes));
        }
        let held = self.pushes.by_key.get(&key).map(|push| push.value.len() as u64);
        let earlier = self.pushes.earlier.as_ref();
        let replaced = held.or_else(|| earlier.and_then(|earlier| earlier.get(&key).copied()));
        let total = self
            .pushes
            .bytes
            .saturating_sub(replaced.unwrap_or(0))
            .saturating_add(size);
        if total > limits.xcom_total_bytes {
            return Err(Error::TooLarge(limits.xcom_total_bytes));
        }
        let keys = self.pushes.by_key.len() + earlier.map_or(0, HashMap::len);
        let keys = u32::try_from(keys).unwrap_or(u32::MAX);
        // A return value is not refused because the task has pushed as many keys as it may.
        if replaced.is_none() && keys >= limits.xcom_keys && key != RETURN_VALUE {
            return Err(Error::Invalid(format!(
                "a try may push at most {} XCom keys; put the values into one, or into a Blob",
                limits.xcom_keys
            )));
        }
        let blobs = json::check(&value, limits.xcom_value_bytes).map_err(|error| Error::Invalid(error.to_string()))?;
        if let Some(foreign) = self.openable.first_foreign(&blobs) {
            return Err(Error::Invalid(format!(
                "the value refers to blob {} of {} bytes, which this try cannot open",
                foreign.digest, foreign.size
            )));
        }
        if !self.account.take(size) {
            return Err(Error::Other(
                "the value does not fit into the memory limit of the task".to_owned(),
            ));
        }
        self.account.give_back(held.unwrap_or(0));
        self.pushes.bytes = total;
        if let Some(earlier) = &mut self.pushes.earlier {
            earlier.remove(&key);
        }
        let value = value.into();
        self.pushes.by_key.insert(key.clone(), XcomPush { key, value, blobs });
        Ok(())
    }

    /// Charges what is about to be handed to the guest, for as long as the host holds it. In the guest it is the guest's memory.
    fn hold(&self, bytes: u64) -> Result<Held, XcomCallError> {
        Held::of(&self.account, bytes).ok_or_else(does_not_fit)
    }

    /// The JSON text of what was pulled. From now on the try may open the blobs that it refers to.
    fn take_pulled(&mut self, pulled: Pulled) -> Result<Option<String>, XcomCallError> {
        Ok(match pulled {
            Pulled::Missing => None,
            Pulled::One(value) => {
                let _held = self.hold(as_u64(value.value.len()))?;
                self.openable.allow(&value.blobs);
                Some(value.value.to_string())
            }
            Pulled::Mapped(values) => {
                let bytes = values
                    .iter()
                    .map(|(_, value)| value.value.len().saturating_add(1))
                    .sum::<usize>()
                    + 1;
                let _held = self.hold(as_u64(bytes))?;
                // A value goes when it is in the text: memory has the list once.
                let mut text = String::with_capacity(bytes.saturating_add(1));
                text.push('[');
                for (position, (_, value)) in values.into_iter().enumerate() {
                    self.openable.allow(&value.blobs);
                    if position > 0 {
                        text.push(',');
                    }
                    text.push_str(&value.value);
                }
                text.push(']');
                Some(text)
            }
        })
    }
}
