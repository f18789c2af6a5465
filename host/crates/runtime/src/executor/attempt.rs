//! One try from its input to its answer: load, render, instantiate, call, check.

use std::sync::Arc;
use std::time::Duration;

use model::callback::TEXT;
use model::latest_only::{self, Dates};
use model::work::ComponentTask;
use model::{Work, json};
use ports::executor::{TryFailure, TryOutcome, TryRequest, XcomPush};
use ports::log::LogLevel;
use ports::payload::{XcomError, XcomValue};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::ResourceTable;

use super::between;
use super::compute::Compute;
use super::input::{self, Input};
use super::local::Services;
use super::measure;
use super::when;
use crate::bindings::types::{Failure, Outcome};
use crate::bindings::xcom;
use crate::cache::{ComponentCache, Entry, Ready};
use crate::ctx::{Openable, Progress, Pushes, TaskCtx, TryState};
use crate::engine::TaskEngine;
use crate::gate::Gate;
use crate::interfaces::xcom::RETURN_VALUE;
use crate::limits::{Account, Held, TryLimiter};
use crate::outcome::{Death, Evidence, classify};
use crate::try_log::TryLog;

/// The longest reason of a skip, in bytes.
const MAX_REASON_BYTES: usize = 16 << 10;
/// The longest subject of a question to a person, in bytes.
const MAX_SUBJECT_BYTES: usize = 4 << 10;
/// The longest body of one, in bytes.
const MAX_BODY_BYTES: usize = 256 << 10;
/// The longest notification, in bytes.
const MAX_NOTIFICATION_BYTES: usize = 16 << 10;
/// What the log shows of the value that a callback returns, in bytes.
const MAX_SHOWN_BYTES: usize = 4 << 10;
/// What a guest may hand to the host in one call, beyond its limits.
const HOSTCALL_BYTES: u64 = 64 << 20;

/// What every step of a try needs.
pub(super) struct Attempt {
    pub(super) engine: Arc<TaskEngine>,
    pub(super) components: Arc<ComponentCache>,
    pub(super) services: Arc<Services>,
    pub(super) request: Arc<TryRequest>,
    pub(super) gate: Arc<Gate>,
    pub(super) log: Arc<TryLog>,
    pub(super) account: Arc<Account>,
    /// Where what the host computes for the try is done.
    pub(super) compute: Compute,
    /// The number of blobs it may have open for writing.
    pub(super) open_writers: u32,
    /// What a mapped task instance is called, once its input is rendered.
    pub(super) name: std::sync::OnceLock<String>,
}

/// How a try ended, with what it publishes.
pub(super) struct Ended {
    pub(super) outcome: TryOutcome,
    pub(super) xcoms: Vec<XcomPush>,
    /// See `TryReport::measured`.
    pub(super) measured: Vec<u32>,
}

impl Attempt {
    pub(super) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            limits: &self.request.task.limits,
            account: &self.account,
            log: &self.log,
            gate: &self.gate,
        }
    }

    /// Runs the try. It is dropped where the try is stopped from outside.
    pub(super) async fn run(&self) -> Result<Ended, Death> {
        if let Some(skipped) = when::skips(self).await? {
            return Ok(skipped);
        }
        match &self.request.task.work {
            Work::Component(component) => self.run_component(component).await,
            Work::Human(_) => self.ask().await,
            Work::TriggerDag(_) => between::trigger_dag(self).await,
            Work::WaitForDag(_) => between::wait_for_dag(self).await,
            Work::Notify => self.notify().await,
            Work::LatestOnly => Ok(self.latest_only()),
        }
    }

    /// Whether the run is the latest one. Runs are triggered by hand in this version, so no schedule says what comes after.
    fn latest_only(&self) -> Ended {
        let run = &self.request.run;
        let date = run.logical_date.unwrap_or(run.run_after);
        let dates = Dates {
            run_type: run.run_type,
            interval: (
                run.data_interval_start.unwrap_or(date),
                run.data_interval_end.unwrap_or(date),
            ),
            next_interval_end: None,
        };
        Ended {
            outcome: TryOutcome::Branch {
                labels: vec![latest_only::label(dates, self.services.clock.now()).to_owned()],
            },
            xcoms: Vec::new(),
            measured: Vec::new(),
        }
    }

    /// A person is asked: all that there is to do here is to render the question.
    async fn ask(&self) -> Result<Ended, Death> {
        let input = input::render(self).await?;
        let text = |name: &str, limit: usize| match input.value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if text.len() > limit {
                    return Err(Death::Input(format!(
                        "the rendered `{name}` has {} bytes; the limit is {limit}",
                        text.len()
                    )));
                }
                Ok(Some(text))
            }
        };
        Ok(Ended {
            outcome: TryOutcome::AwaitInput {
                subject: text("subject", MAX_SUBJECT_BYTES)?.unwrap_or_default(),
                body: text("body", MAX_BODY_BYTES)?,
            },
            xcoms: Vec::new(),
            measured: Vec::new(),
        })
    }

    /// A notification: its text is rendered, and is the answer.
    async fn notify(&self) -> Result<Ended, Death> {
        let input = input::render(self).await?;
        let text = match input.value.get(TEXT) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        if text.len() > MAX_NOTIFICATION_BYTES {
            return Err(Death::Input(format!(
                "the rendered text has {} bytes; the limit is {MAX_NOTIFICATION_BYTES}",
                text.len()
            )));
        }
        Ok(Ended {
            outcome: TryOutcome::Done { falsy: false },
            xcoms: vec![XcomPush {
                key: RETURN_VALUE.to_owned(),
                value: Value::String(text).to_string().into(),
                blobs: Vec::new(),
            }],
            measured: Vec::new(),
        })
    }

    async fn run_component(&self, component: &ComponentTask) -> Result<Ended, Death> {
        let ready = self
            .components
            .get(component.digest)
            .await
            .map_err(|error| Death::Load(error.to_string()))?;
        let entry = ready.entry(&component.entry).ok_or_else(|| {
            Death::Load(format!(
                "the component has no task `{}`; it has: {}",
                component.entry,
                ready.names()
            ))
        })?;
        let input = input::prepare(self, entry).await?;
        if let Some(name) = &input.name {
            let _ = self.name.set(name.clone());
        }
        self.call(&ready, component, entry, input).await
    }

    async fn call(
        &self,
        ready: &Ready,
        component: &ComponentTask,
        entry: &Entry,
        input: Input,
    ) -> Result<Ended, Death> {
        let mut store = self.store(&input);
        let unwound = |starting| move |error| Death::Unwound { error, starting };
        let task = ready.pre.instantiate_async(&mut store).await.map_err(unwound(true))?;
        let answer = task
            .airtight_task_guest()
            .call_run(&mut store, &component.entry, &input.text)
            .await
            .map_err(unwound(false))?;
        self.gate.pass().map_err(|ended| Death::Unwound {
            error: ended.into(),
            starting: false,
        })?;
        let ctx = &mut store.data_mut().ctx;
        match answer {
            Ok(outcome) => {
                let earlier = self.earlier(ctx, &outcome).await?;
                self.answered(ctx, entry, outcome, earlier).await
            }
            Err(failure) => Ok(Ended {
                outcome: TryOutcome::Failed(self.failed(failure)),
                xcoms: ctx.pushes.take(),
                measured: Vec::new(),
            }),
        }
    }

    fn store(&self, input: &Input) -> Store<TryState> {
        let limits = &self.request.task.limits;
        let mut table = ResourceTable::new();
        let resources = usize::try_from(limits.resources).unwrap_or(usize::MAX);
        table.set_max_capacity(resources);
        let mut openable = Openable::default();
        openable.allow(&input.blobs);
        let state = TryState {
            wasi: crate::wasi::context(&self.log, &self.gate),
            table,
            limiter: TryLimiter::new(Arc::clone(&self.account), limits),
            ctx: TaskCtx {
                request: Arc::clone(&self.request),
                services: Arc::clone(&self.services),
                log: Arc::clone(&self.log),
                gate: Arc::clone(&self.gate),
                account: Arc::clone(&self.account),
                pushes: Pushes::default(),
                openable,
                blob_bytes: 0,
                open_writers: 0,
                open_writers_limit: self.open_writers,
                progress: Progress::default(),
            },
        };
        let mut store = Store::new(self.engine.wasmtime(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_max_component_handles(resources);
        let largest = limits
            .xcom_value_bytes
            .max(limits.checkpoint_bytes)
            .saturating_add(HOSTCALL_BYTES);
        store.set_hostcall_fuel(usize::try_from(largest).unwrap_or(usize::MAX));
        store
    }

    fn failed(&self, failure: Failure) -> TryFailure {
        classify(Death::Failed(failure), &self.evidence())
    }

    /// What earlier dispatches of the same try have published that counts at its end: for the limits, and for what is measured.
    async fn earlier(&self, ctx: &mut TaskCtx, outcome: &Outcome) -> Result<Vec<XcomPush>, Death> {
        if !matches!(outcome, Outcome::Done(_) | Outcome::Branch(_)) {
            return Ok(Vec::new());
        }
        let failed = |error: XcomError| Death::Load(format!("cannot read what this try has published before: {error}"));
        ctx.know_earlier().await.map_err(failed)?;
        let mut earlier = Vec::new();
        for measure in &self.request.task.measures {
            let known = ctx.pushes.by_key.contains_key(&measure.key)
                || earlier.iter().any(|push: &XcomPush| push.key == measure.key);
            if known {
                continue;
            }
            if let Some(XcomValue { value, blobs }) = ctx.pull_earlier(&measure.key).await.map_err(failed)? {
                earlier.push(XcomPush {
                    key: measure.key.clone(),
                    value,
                    blobs,
                });
            }
        }
        Ok(earlier)
    }

    async fn answered(
        &self,
        ctx: &mut TaskCtx,
        entry: &Entry,
        outcome: Outcome,
        earlier: Vec<XcomPush>,
    ) -> Result<Ended, Death> {
        let outcome = match outcome {
            Outcome::Done(text) => self.done(ctx, entry, text).await?,
            Outcome::Skip(mut reason) => {
                reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
                TryOutcome::Skip { reason }
            }
            Outcome::Branch(labels) => TryOutcome::Branch { labels },
            Outcome::Reschedule(millis) => TryOutcome::Reschedule {
                after: Duration::from_millis(millis),
            },
        };
        let xcoms = ctx.pushes.take();
        let measured = match outcome {
            TryOutcome::Done { .. } | TryOutcome::Branch { .. } => {
                // What was published last is found first.
                let all: Vec<XcomPush> = xcoms.iter().cloned().chain(earlier).collect();
                measure::all(self, &all).await?
            }
            _ => Vec::new(),
        };
        Ok(Ended {
            outcome,
            xcoms,
            measured,
        })
    }

    async fn done(&self, ctx: &mut TaskCtx, entry: &Entry, text: String) -> Result<TryOutcome, Death> {
        let limit = self.request.task.limits.xcom_value_bytes;
        let size = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if size > limit {
            return Err(Death::OutputTooLarge { size, limit });
        }
        let refused = |why: &dyn std::fmt::Display| Death::Contract(format!("the return value is refused: {why}"));
        json::check(&text, limit).map_err(|error| refused(&error))?;
        let tree = Held::of(&self.account, json::tree_bytes(&text)).ok_or(Death::NoRoom("the return value"))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| refused(&error))?;
        let is_null = value.is_null();
        let problems = input::problems(self, &entry.output, value).await;
        let problems = problems.map_err(|why| refused(&format!("it cannot be checked against its schema: {why}")))?;
        drop(tree);
        if !problems.is_empty() {
            return Err(Death::Contract(format!(
                "the return value does not match the output schema of task `{}`: {}",
                self.request.task.work.operator_name(),
                problems.join("; ")
            )));
        }
        let falsy = json::is_falsy(&text);
        if self.request.id.callback.is_some() {
            // Nobody pulls what a callback returns: people read it.
            let shown = text
                .get(..text.floor_char_boundary(MAX_SHOWN_BYTES))
                .unwrap_or_default();
            self.log.system(LogLevel::Info, &format!("returned {shown}"));
        } else if !is_null {
            ctx.push_xcom(RETURN_VALUE.to_owned(), text)
                .map_err(|error| match error {
                    xcom::Error::TooLarge(limit) => Death::OutputTooLarge {
                        size: ctx.pushes.bytes.saturating_add(size),
                        limit,
                    },
                    xcom::Error::Denied(why)
                    | xcom::Error::NotUpstream(why)
                    | xcom::Error::Invalid(why)
                    | xcom::Error::Other(why) => refused(&why),
                })?;
        }
        Ok(TryOutcome::Done { falsy })
    }
}

impl Pushes {
    fn take(&mut self) -> Vec<XcomPush> {
        std::mem::take(&mut self.by_key).into_values().collect()
    }
}
