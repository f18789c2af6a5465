//! A manifest as it was read: typed values with their places, before it is known what its components hold.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;

use super::between::BetweenDecl;
use super::callback::CallbackSettings;
use super::component::ComponentRef;
use super::diagnostic::{Diagnostic, Findings, Pos, Severity};
use super::human::HumanDecl;
use super::locate::{self, Lines};
use super::section::Spanned;
use super::tree::Node;
use crate::dag::{Combine, Param, TaskRole};
use crate::id::{DagId, TaskId};
use crate::limits::{Limits, OnLogLimit};
use crate::retry_rule::RetryRule;
use crate::sensor::Sensor;
use crate::template::InputTemplate;
use crate::trigger_rule::TriggerRule;
use crate::weight::WeightRule;

/// A manifest as it was read. It may have errors; what could be read is here all the same, so that one report holds what is
/// wrong with the text and what is wrong with its components.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(super) source: Arc<str>,
    pub(super) lines: Lines,
    pub(super) findings: Findings,
    pub(super) id: Option<Spanned<DagId>>,
    pub(super) description: Option<String>,
    pub(super) doc_md: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) paused: Option<bool>,
    pub(super) max_active_runs: Option<u32>,
    pub(super) max_active_tasks: Option<u32>,
    pub(super) dagrun_timeout: Option<Duration>,
    pub(super) max_consecutive_failed_dag_runs: Option<u32>,
    pub(super) params: IndexMap<String, Param>,
    /// Whether a run's `conf` may hold nothing but parameters.
    pub(super) strict_params: bool,
    /// Of the DAG itself.
    pub(super) callbacks: CallbackSettings,
    pub(super) groups: Vec<GroupDecl>,
    pub(super) tasks: Vec<TaskDecl>,
    /// The positions of the tasks.
    pub(super) by_id: HashMap<TaskId, usize>,
}

/// A task group as it was read; each comes after the one around it.
#[derive(Clone, Debug)]
pub(super) struct GroupDecl {
    pub(super) id: String,
    pub(super) parent: Option<usize>,
    pub(super) tooltip: Option<String>,
    pub(super) expand: Option<ExpandDecl>,
    pub(super) repeat: Option<LoopDecl>,
}

/// What is mapped over, as it was read.
#[derive(Clone, Debug)]
pub(super) struct ExpandDecl {
    pub(super) pos: Pos,
    pub(super) how: Combine,
    pub(super) sources: Vec<SourceDecl>,
    pub(super) limit: u32,
}

/// One thing that is mapped over.
#[derive(Clone, Debug)]
pub(super) struct SourceDecl {
    pub(super) name: String,
    pub(super) input: Input,
    /// The task that publishes it.
    pub(super) task: Option<usize>,
}

/// A loop as it was read.
#[derive(Clone, Debug)]
pub(super) struct LoopDecl {
    pub(super) pos: Pos,
    pub(super) max: u32,
    pub(super) until: Input,
    /// The task that decides.
    pub(super) task: Option<usize>,
}

/// A task as it was read.
#[derive(Clone, Debug)]
pub(super) struct TaskDecl {
    pub(super) id: TaskId,
    /// Of the id.
    pub(super) pos: Pos,
    pub(super) component: Option<Spanned<ComponentRef>>,
    /// In characters: where the component's name stands in the text.
    pub(super) component_span: (usize, usize),
    pub(super) entry: Option<Spanned<String>>,
    /// Instead of a component.
    pub(super) human: Option<HumanDecl>,
    /// Instead of a component.
    pub(super) latest_only: bool,
    pub(super) between: Option<BetweenDecl>,
    pub(super) input: Input,
    /// Direct upstream tasks, ascending.
    pub(super) upstream: Vec<usize>,
    pub(super) branches: Option<Branches>,
    /// `ignore_downstream_trigger_rules`, if the task is a short circuit.
    pub(super) short_circuit: Option<bool>,
    pub(super) group: Option<usize>,
    pub(super) expand: Option<ExpandDecl>,
    pub(super) map_index_template: Option<String>,
    /// `when:`, in the form of an input.
    pub(super) when: Option<Input>,
    pub(super) role: TaskRole,
    pub(super) doc_md: Option<String>,
    pub(super) settings: Settings,
}

impl TaskDecl {
    /// What is rendered when a try begins: the input, and `when`.
    pub(super) fn rendered(&self) -> impl Iterator<Item = &Input> {
        std::iter::once(&self.input).chain(&self.when)
    }

    /// Whether its work is done without a component.
    pub(super) const fn is_built_in(&self) -> bool {
        self.human.is_some() || self.latest_only || self.between.is_some()
    }
}

/// An input as it was read.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) pos: Pos,
    pub(super) value: Value,
    pub(super) node: Option<Node>,
    /// Missing where a template is wrong.
    pub(super) template: Option<InputTemplate>,
}

/// `branches:` as it was read.
#[derive(Clone, Debug)]
pub(super) struct Branches {
    pub(super) pos: Pos,
    pub(super) labels: Vec<(Spanned<String>, Vec<usize>)>,
}

/// Settings as they were read; what is missing has a default.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) retries: Option<u32>,
    pub(super) retry_delay: Option<Duration>,
    pub(super) retry_exponential_backoff: Option<bool>,
    pub(super) max_retry_delay: Option<Duration>,
    pub(super) retry_policy: Option<Vec<RetryRule>>,
    pub(super) sensor: Option<Sensor>,
    pub(super) trigger_rule: Option<TriggerRule>,
    pub(super) depends_on_past: Option<bool>,
    pub(super) wait_for_downstream: Option<bool>,
    pub(super) limits: LimitSettings,
    pub(super) rerun_on_loss: Option<bool>,
    pub(super) max_infra_retries: Option<u32>,
    pub(super) pool: Option<Spanned<String>>,
    pub(super) pool_slots: Option<Spanned<u32>>,
    pub(super) priority_weight: Option<i32>,
    pub(super) weight_rule: Option<WeightRule>,
    pub(super) max_active_tis_per_dag: Option<u32>,
    pub(super) max_active_tis_per_dagrun: Option<u32>,
    pub(super) queue: Option<String>,
    pub(super) callbacks: CallbackSettings,
    /// What a copy of those that come from `defaults` takes, about.
    pub(super) weight: usize,
}

/// Limits as they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct LimitSettings {
    pub(super) memory: Option<u64>,
    pub(super) timeout: Option<Duration>,
    pub(super) cpu_time: Option<Duration>,
    pub(super) log: Option<u64>,
    pub(super) on_log_limit: Option<OnLogLimit>,
    pub(super) xcom_value: Option<u64>,
    pub(super) xcom_total: Option<u64>,
    pub(super) xcom_keys: Option<u32>,
    pub(super) blobs: Option<u64>,
    pub(super) checkpoint: Option<u64>,
    pub(super) resources: Option<u32>,
    pub(super) table_elements: Option<u64>,
}

impl LimitSettings {
    /// These with others behind them.
    pub(super) fn over(self, behind: &Self) -> Self {
        Self {
            memory: self.memory.or(behind.memory),
            timeout: self.timeout.or(behind.timeout),
            cpu_time: self.cpu_time.or(behind.cpu_time),
            log: self.log.or(behind.log),
            on_log_limit: self.on_log_limit.or(behind.on_log_limit),
            xcom_value: self.xcom_value.or(behind.xcom_value),
            xcom_total: self.xcom_total.or(behind.xcom_total),
            xcom_keys: self.xcom_keys.or(behind.xcom_keys),
            blobs: self.blobs.or(behind.blobs),
            checkpoint: self.checkpoint.or(behind.checkpoint),
            resources: self.resources.or(behind.resources),
            table_elements: self.table_elements.or(behind.table_elements),
        }
    }

    /// With the standard limits for what is not set. The CPU time follows the wall time.
    pub(super) fn resolve(&self) -> Limits {
        let standard = Limits::default();
        let timeout = self.timeout.unwrap_or(standard.timeout);
        Limits {
            memory_bytes: self.memory.unwrap_or(standard.memory_bytes),
            timeout,
            cpu_time: self.cpu_time.unwrap_or(timeout),
            log_bytes: self.log.unwrap_or(standard.log_bytes),
            on_log_limit: self.on_log_limit.unwrap_or(standard.on_log_limit),
            xcom_value_bytes: self.xcom_value.unwrap_or(standard.xcom_value_bytes),
            xcom_total_bytes: self.xcom_total.unwrap_or(standard.xcom_total_bytes),
            xcom_keys: self.xcom_keys.unwrap_or(standard.xcom_keys),
            blob_bytes: self.blobs.unwrap_or(standard.blob_bytes),
            checkpoint_bytes: self.checkpoint.unwrap_or(standard.checkpoint_bytes),
            resources: self.resources.unwrap_or(standard.resources),
            table_elements: self.table_elements.unwrap_or(standard.table_elements),
        }
    }
}

impl Manifest {
    /// The text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The DAG's id, if it could be read.
    pub fn dag_id(&self) -> Option<&DagId> {
        self.id.as_ref().map(|id| &id.value)
    }

    /// `paused:`; holds only when the DAG is new.
    pub const fn paused(&self) -> Option<bool> {
        self.paused
    }

    /// Everything that was found while reading, in the order of the text.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.findings.sorted()
    }

    /// Whether anything that was found is an error.
    pub fn has_errors(&self) -> bool {
        self.findings
            .sorted()
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }

    /// The components that it names, each once, with the place of the first naming.
    pub fn components(&self) -> Vec<Spanned<ComponentRef>> {
        let mut known: HashSet<&ComponentRef> = HashSet::new();
        let named = self.declared().filter_map(|task| task.component.as_ref());
        named.filter(|named| known.insert(&named.value)).cloned().collect()
    }

    /// Whatever runs a task of a component: tasks, and callbacks.
    fn declared(&self) -> impl Iterator<Item = &TaskDecl> {
        self.tasks.iter().chain(self.callbacks().map(|callback| &callback.task))
    }

    /// The text with other names for components: what the CLI sends after it uploaded local files. `rename` answers the new
    /// name, or nothing where the name stays.
    pub fn with_components(&self, rename: impl Fn(&ComponentRef) -> Option<ComponentRef>) -> String {
        let mut renamed: Vec<((usize, usize), String)> = self
            .declared()
            .filter_map(|task| {
                let new = rename(&task.component.as_ref()?.value)?;
                Some((task.component_span, format!("\"{new}\"")))
            })
            .collect();
        // An alias names a component at the place of its anchor, perhaps for several tasks.
        renamed.sort();
        renamed.dedup_by_key(|(span, _)| *span);
        let mut text = String::with_capacity(self.source.len());
        let mut characters = self.source.chars();
        let mut at = 0;
        for ((start, end), new) in renamed {
            text.extend(characters.by_ref().take(start.saturating_sub(at)));
            let old: Vec<char> = characters.by_ref().take(end.saturating_sub(start)).collect();
            text.extend(old.iter().take(locate::anchor(&old)));
            text.push_str(&new);
            // A span runs up to the next token.
            let space = old.iter().rev().take_while(|c| c.is_whitespace()).count();
            text.extend(old.iter().skip(old.len() - space));
            at = end;
        }
        text.extend(characters);
        text
    }

    /// Where a character of an input's string stands in the text.
    pub(super) fn locate(&self, input: &Input, pointer: &str, offset: usize) -> Pos {
        match &input.node {
            Some(node) => locate::in_text(&self.source, &self.lines, node.at(pointer), offset),
            None => input.pos,
        }
    }
}

impl Manifest {
    /// The groups around a task or group, from the inside out.
    pub(super) fn around(&self, group: Option<usize>) -> Vec<&GroupDecl> {
        let first = group.and_then(|at| self.groups.get(at));
        std::iter::successors(first, |group| self.groups.get(group.parent?)).collect()
    }

    /// Whether something in the group `inner` lies in the group `outer`.
    pub(super) fn is_inside(&self, inner: Option<usize>, outer: usize) -> bool {
        std::iter::successors(inner, |at| self.groups.get(*at)?.parent).any(|at| at == outer)
    }

    /// The whole id of the task that a name stands for where something in `group` uses it.
    pub(super) fn full_name(&self, group: Option<usize>, name: &str) -> String {
        let around = self.around(group).into_iter();
        let mut full = around.map(|group| format!("{}.{name}", group.id));
        full.find(|id| self.by_id.contains_key(id.as_str()))
            .unwrap_or_else(|| name.to_owned())
    }
}
