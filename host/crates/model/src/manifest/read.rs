//! From the tree to a typed manifest. Reading goes on after an error: what is wrong in one place hides nothing elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::callback::{self, CallbackSettings};
use super::compile::CHECKING;
use super::declared::{Branches, GroupDecl, Input, LimitSettings, Manifest, Settings, TaskDecl};
use super::diagnostic::{Diagnostic, Findings, Pos};
use super::field::{DAG, LIMITS, MAPPING, SETTINGS, TASK};
use super::locate::Lines;
pub(super) use super::param::check_input as check_params;
use super::section::{Section, Spanned, short, texts};
use super::tree::{self, Kind, Node};
use super::{between, graph, group, human, param, repeat, retry, sensor, when};
use crate::budget::within;
use crate::callback::CallbackEvent;
use crate::dag::TaskRole;
use crate::id::{DagId, InvalidId, MAX_ID_BYTES, TaskId};
use crate::limits::OnLogLimit;
use crate::template::InputTemplate;

/// The most tasks of one DAG.
pub const MAX_TASKS: usize = 100_000;

/// Reads a manifest. It never fails: what is wrong is in [`Manifest::diagnostics`].
pub fn read(source: &str) -> Manifest {
    within(CHECKING, || read_within(source))
}

fn read_within(source: &str) -> Manifest {
    let mut findings = Findings::default();
    let mut manifest = Manifest {
        source: Arc::from(source),
        lines: Lines::of(source),
        findings: Findings::default(),
        id: None,
        description: None,
        doc_md: None,
        owner: None,
        tags: Vec::new(),
        paused: None,
        max_active_runs: None,
        max_active_tasks: None,
        dagrun_timeout: None,
        max_consecutive_failed_dag_runs: None,
        params: IndexMap::new(),
        strict_params: false,
        callbacks: CallbackSettings::default(),
        groups: Vec::new(),
        tasks: Vec::new(),
        by_id: HashMap::new(),
    };
    if let Some(root) = tree::read(source, &mut findings) {
        fill(&mut manifest, &root, &mut findings);
    }
    findings.if_exhausted();
    manifest.findings = findings;
    manifest
}

/// Reads a manifest; fails where it has an error.
pub fn parse(source: &str) -> Result<Manifest, Vec<Diagnostic>> {
    let manifest = read(source);
    if manifest.has_errors() {
        return Err(manifest.diagnostics());
    }
    Ok(manifest)
}

fn fill(manifest: &mut Manifest, root: &Node, findings: &mut Findings) {
    let Some(dag) = Section::open("the manifest", &[DAG], root, findings) else {
        return;
    };
    dag.missing("dag", findings, Pos::START);
    manifest.id = dag.text("dag", findings).and_then(|id| match DagId::new(&id.value) {
        Ok(value) => Some(Spanned::new(value, id.pos)),
        Err(error) => {
            invalid_id(&error, &id.value, id.pos, findings);
            None
        }
    });
    let plain = |text: Option<Spanned<String>>| text.map(|text| text.value);
    manifest.description = plain(dag.text("description", findings));
    manifest.doc_md = plain(dag.text("doc_md", findings));
    manifest.owner = plain(dag.text("owner", findings));
    let mut tags = HashSet::new();
    for tag in dag.texts("tags", findings).unwrap_or_default() {
        if tag.value.is_empty() || tag.value.len() > 100 {
            findings
                .error("manifest_value", tag.pos, "a tag must have 1 to 100 bytes")
                .hint("a tag is a word for filtering; longer texts belong into `description` or `doc_md`");
        } else if tags.insert(tag.value.clone()) {
            manifest.tags.push(tag.value);
        }
    }
    manifest.paused = dag.bool("paused", findings).map(|paused| paused.value);
    manifest.max_active_runs = dag.int("max_active_runs", findings).map(|count| count.value);
    manifest.max_active_tasks = dag.int("max_active_tasks", findings).map(|count| count.value);
    manifest.dagrun_timeout = dag.time_limit("dagrun_timeout", findings).map(|timeout| timeout.value);
    manifest.max_consecutive_failed_dag_runs = dag
        .int("max_consecutive_failed_dag_runs", findings)
        .map(|count| count.value);
    for key in ["schedule", "catchup", "start_date", "end_date"] {
        if dag.get(key).is_some() {
            not_supported(key, dag.key_pos(key), findings);
        }
    }
    if let Some(node) = dag.get("params") {
        manifest.params = param::read(node, findings).into_iter().collect();
    }
    manifest.strict_params = dag.bool("strict_params", findings).is_some_and(|strict| strict.value);
    let defaults = dag
        .get("defaults")
        .and_then(|node| Section::open("`defaults`", &[SETTINGS], node, findings))
        .map(|section| Settings {
            weight: section.weight(),
            ..settings(&section, manifest, findings)
        })
        .unwrap_or_default();
    manifest.callbacks = CallbackSettings::read(&dag, &CallbackEvent::OF_DAG, manifest, findings);
    dag.missing("tasks", findings, Pos::START);
    let Some(node) = dag.get("tasks") else {
        return;
    };
    let mut plan = Plan::default();
    group::tasks(node, None, &defaults, manifest, &mut plan, findings);
    if plan.tasks.len() > MAX_TASKS {
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("the DAG has {} tasks; the limit is {MAX_TASKS}", plan.tasks.len()),
            )
            .hint("split it in several DAGs, or map one task over a list with `expand`");
        return;
    }
    if !setups_fit(&plan, findings) {
        return;
    }
    graph::connect(&mut plan, manifest, findings);
    param::check_uses(&plan, manifest, findings);
    manifest.groups = plan.groups.into_iter().map(|declared| declared.group).collect();
    manifest.tasks = plan.tasks.into_iter().map(|declared| declared.task).collect();
    let ids = manifest.tasks.iter().enumerate();
    manifest.by_id = ids.map(|(at, task)| (task.id.clone(), at)).collect();
    repeat::check(manifest, findings);
    callback::check(manifest, findings);
}

/// The most pairs of a setup and a task: what a setup counts for is worked out for each.
const MAX_SETUP_PAIRS: usize = 5_000_000;

fn setups_fit(plan: &Plan, findings: &mut Findings) -> bool {
    let mut setups = plan
        .tasks
        .iter()
        .filter(|declared| declared.task.role == TaskRole::Setup);
    let (Some(first), more) = (setups.next(), setups.count()) else {
        return true;
    };
    if (more + 1).saturating_mul(plan.tasks.len()) <= MAX_SETUP_PAIRS {
        return true;
    }
    findings
        .error(
            "manifest_too_large",
            first.task.pos,
            format!(
                "{} setups in a DAG of {} tasks: the product may be at most {MAX_SETUP_PAIRS}",
                more + 1,
                plan.tasks.len()
            ),
        )
        .hint("let one setup prepare what many tasks need, or split the DAG");
    false
}

/// Everything that is declared, with the names that are not resolved yet.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) groups: Vec<DeclaredGroup>,
    pub(super) tasks: Vec<Declared>,
    /// The ids of both.
    pub(super) ids: HashSet<String>,
    /// What the copies of `defaults` take, of all tasks that they hold for.
    pub(super) defaults: usize,
}

/// A group with the names that are not resolved yet.
pub(super) struct DeclaredGroup {
    pub(super) group: GroupDecl,
    pub(super) after: Vec<Spanned<String>>,
}

/// A key or a grant of a later version.
pub(super) fn not_supported(what: &str, pos: Pos, findings: &mut Findings) {
    let hint = match what {
        "schedule" | "catchup" | "start_date" | "end_date" => "remove it; trigger runs by REST or CLI",
        _ => "remove it; tasks of this version use no network, files, environment or devices",
    };
    findings
        .error(
            "manifest_not_supported",
            pos,
            format!("not supported by this version: `{what}`"),
        )
        .hint(hint);
}

type ReadBetween = fn(&Node, &mut Findings) -> Option<between::BetweenDecl>;

/// The steps between DAGs.
const BETWEEN: [(&str, ReadBetween); 2] = [
    ("trigger_dag", between::trigger_dag),
    ("wait_for_dag", between::wait_for_dag),
];

/// A task with the names that are not resolved yet.
pub(super) struct Declared {
    pub(super) task: TaskDecl,
    pub(super) after: Vec<Spanned<String>>,
    pub(super) branches: Vec<(Spanned<String>, Vec<Spanned<String>>)>,
}

/// A task of which nothing is said yet.
pub(super) fn undeclared(id: TaskId, pos: Pos) -> TaskDecl {
    TaskDecl {
        id,
        pos,
        component: None,
        component_span: (0, 0),
        entry: None,
        human: None,
        latest_only: false,
        between: None,
        input: Input {
            pos,
            value: Value::Object(Map::new()),
            node: None,
            template: InputTemplate::parse(&Value::Object(Map::new())).ok(),
        },
        upstream: Vec::new(),
        branches: None,
        short_circuit: None,
        group: None,
        expand: None,
        map_index_template: None,
        when: None,
        role: TaskRole::Work,
        doc_md: None,
        settings: Settings::default(),
    }
}

pub(super) fn task(
    id: TaskId,
    pos: Pos,
    node: &Node,
    defaults: &Settings,
    manifest: &Manifest,
    findings: &mut Findings,
) -> Declared {
    let mut declared = Declared {
        task: TaskDecl {
            settings: defaults.clone(),
            ..undeclared(id, pos)
        },
        after: Vec::new(),
        branches: Vec::new(),
    };
    let name = format!("task `{}`", declared.task.id);
    let Some(section) = Section::open(&name, &[TASK, MAPPING, SETTINGS], node, findings) else {
        return declared;
    };
    let latest_only = section.bool("latest_only", findings).is_some_and(|flag| flag.value);
    let built_in: Vec<&str> = ["human", "trigger_dag", "wait_for_dag"]
        .into_iter()
        .filter(|key| section.get(key).is_some())
        .collect();
    match built_in.as_slice() {
        [] if latest_only => {}
        [] => section.missing("component", findings, pos),
        [first, second, ..] => {
            let message = format!("`{first}` and `{second}` exclude each other");
            findings
                .error("manifest_value", section.key_pos(second), message)
                .hint("a task is one step: keep one of them, and make the other a task of its own");
        }
        [_] => {}
    }
    let task = &mut declared.task;
    task.latest_only = latest_only;
    if latest_only {
        let excluded = [
            "component",
            "task",
            "input",
            "human",
            "trigger_dag",
            "wait_for_dag",
            "branches",
            "short_circuit",
            "grants",
        ];
        let mapping = ["expand", "expand_zip", "expand_kwargs"];
        for key in excluded.into_iter().chain(mapping) {
            if section.get(key).is_some() {
                findings
                    .error(
                        "manifest_value",
                        section.key_pos(key),
                        format!("{name} is `latest_only`; it cannot have the key `{key}`"),
                    )
                    .hint(format!(
                        "remove `{key}`, or give it to a task of its own with `after: [{}]`",
                        task.id
                    ));
            }
        }
    }
    task.component = section.component("component", findings);
    if let Some(node) = section.get("component") {
        task.component_span = node.span;
    }
    task.entry = section.text("task", findings);
    if let Some(node) = section.get("input") {
        task.input = input(node, manifest, findings);
    }
    if let Some(node) = section.get("human") {
        task.human = human::read(node, findings);
        task.input = input_of(node, human::input(node), manifest, findings);
        for key in ["component", "task", "input", "short_circuit", "grants"] {
            if section.get(key).is_some() {
                let hint = match key {
                    "input" => "remove `input`: what is asked stands in `subject`, `body` and `params` of `human`",
                    "short_circuit" => {
                        "remove `short_circuit`; `human: {approval: true}` skips what follows a rejection"
                    }
                    "grants" => "remove `grants`: nothing runs that could use them",
                    _ => "remove it, or remove `human`: a step that asks a person runs no component",
                };
                findings
                    .error(
                        "manifest_value",
                        section.key_pos(key),
                        format!("{name} asks a person; it cannot have the key `{key}`"),
                    )
                    .hint(hint);
            }
        }
    }
    for (key, read) in BETWEEN {
        let Some(node) = section.get(key) else { continue };
        for other in ["component", "task", "input", "branches", "short_circuit", "grants"] {
            if section.get(other).is_some() {
                let hint = match (other, key) {
                    ("input", "trigger_dag") => {
                        "remove `input`; what the other DAG is given is `trigger_dag: {conf: …}`"
                    }
                    ("branches" | "short_circuit", _) => {
                        "remove it, and put a task in between that looks at what this one answers and decides"
                    }
                    _ => "remove it: this step is built in and runs no component",
                };
                findings
                    .error(
                        "manifest_value",
                        section.key_pos(other),
                        format!("{name} has `{key}`; it cannot have the key `{other}`"),
                    )
                    .hint(hint);
            }
        }
        let step = read(node, findings);
        let value = step.as_ref().map_or(Value::Null, |step| step.input.clone());
        task.input = input_of(node, value, manifest, findings);
        task.between = step;
    }
    declared.after = section.texts("after", findings).unwrap_or_default();
    if let Some(node) = section.get("branches") {
        task.branches = Some(Branches {
            pos: section.key_pos("branches"),
            labels: Vec::new(),
        });
        declared.branches = branches(node, findings);
        if let Some(human) = &mut task.human {
            human.step.branches = true;
            if human.step.approval.is_some() {
                findings
                    .error(
                        "manifest_value",
                        section.key_pos("branches"),
                        format!("{name} cannot be a branch and an approval"),
                    )
                    .hint("remove `approval` and name `options`: each option is a label of `branches`");
            }
        }
    }
    if let Some(node) = section.get("short_circuit") {
        task.short_circuit = short_circuit(node, findings);
        if task.branches.is_some() && task.between.is_none() && !latest_only {
            findings
                .error(
                    "manifest_value",
                    section.key_pos("short_circuit"),
                    format!("{name} cannot be a branch and a short circuit"),
                )
                .hint("remove `short_circuit`, or `branches`: a label that chooses nothing is `label: []`");
        }
    }
    if let Some(node) = section.get("grants") {
        grants(node, findings);
    }
    task.doc_md = section.text("doc_md", findings).map(|doc| doc.value);
    task.expand = repeat::expand(&section, manifest, findings);
    task.map_index_template = repeat::map_index_template(&section, manifest, findings);
    task.when = when::condition(&section, manifest, findings);
    task.role = repeat::role(&section, findings);
    let own = settings(&section, manifest, findings);
    task.settings = over(own, defaults);
    declared
}

pub(super) fn input(node: &Node, manifest: &Manifest, findings: &mut Findings) -> Input {
    node.bad_numbers(findings);
    input_of(node, node.to_json(), manifest, findings)
}

/// The value of an input whose places are those of a node.
pub(super) fn input_of(node: &Node, value: Value, manifest: &Manifest, findings: &mut Findings) -> Input {
    let mut input = Input {
        pos: node.pos,
        node: Some(node.clone()),
        template: None,
        value,
    };
    match InputTemplate::parse(&input.value) {
        Ok(template) => input.template = Some(template),
        Err(errors) => {
            for error in errors {
                if findings.is_full() {
                    break;
                }
                let pos = manifest.locate(&input, &error.path, error.offset);
                findings
                    .error("template_invalid", pos, error.message)
                    .maybe_hint(error.hint);
            }
        }
    }
    input
}

fn branches(node: &Node, findings: &mut Findings) -> Vec<(Spanned<String>, Vec<Spanned<String>>)> {
    let Kind::Map(entries) = &node.kind else {
        findings
            .error(
                "manifest_type",
                node.pos,
                format!("`branches` must be a map, not {}", node.what()),
            )
            .hint("write `branches: {label: [task]}`");
        return Vec::new();
    };
    entries
        .iter()
        .map(|entry| {
            let tasks = texts(&entry.key, &entry.value, findings).unwrap_or_default();
            (Spanned::new(entry.key.clone(), entry.pos), tasks)
        })
        .collect()
}

fn short_circuit(node: &Node, findings: &mut Findings) -> Option<bool> {
    const KEY: &str = "ignore_downstream_trigger_rules";
    match &node.kind {
        Kind::Bool(true) => Some(true),
        Kind::Bool(false) => None,
        Kind::Map(entries) => {
            let mut ignore = true;
            for entry in entries.iter() {
                match (&*entry.key, &entry.value.kind) {
                    (KEY, Kind::Bool(value)) => ignore = *value,
                    (KEY, _) => {
                        findings
                            .error(
                                "manifest_type",
                                entry.value.pos,
                                format!("`{KEY}` must be true or false, not {}", entry.value.what()),
                            )
                            .hint("`true` skips all that follows, `false` only what follows directly");
                    }
                    (other, _) => {
                        findings
                            .error(
                                "manifest_unknown_key",
                                entry.pos,
                                format!("unknown key `{}` in `short_circuit`", short(other)),
                            )
                            .hint(format!("known keys: {KEY}"));
                    }
                }
            }
            Some(ignore)
        }
        _ => {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`short_circuit` must be true or false, not {}", node.what()),
                )
                .hint(format!(
                    "write `short_circuit: true`, or `short_circuit: {{{KEY}: false}}`"
                ));
            None
        }
    }
}

fn grants(node: &Node, findings: &mut Findings) {
    match &node.kind {
        Kind::Map(entries) => {
            for entry in entries.iter() {
                not_supported(&format!("grants.{}", short(&entry.key)), entry.pos, findings);
            }
        }
        _ => {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`grants` must be a map, not {}", node.what()),
                )
                .hint("remove it; tasks of this version use no network, files, environment or devices");
        }
    }
}

/// `limits` and `timeout` of a section that has both.
pub(super) fn limits_of(section: &Section<'_>, findings: &mut Findings) -> LimitSettings {
    let mut limits = section
        .get("limits")
        .and_then(|node| Section::open("`limits`", &[LIMITS], node, findings))
        .map(|section| limits(&section, findings))
        .unwrap_or_default();
    if let Some(timeout) = section.time_limit("timeout", findings) {
        if limits.timeout.is_some() {
            findings
                .error(
                    "manifest_value",
                    section.key_pos("timeout"),
                    "`timeout` and `limits.timeout` are the same; set one of them",
                )
                .hint("remove one of the two");
        }
        limits.timeout = Some(timeout.value);
    }
    limits
}

pub(super) fn settings(section: &Section<'_>, manifest: &Manifest, findings: &mut Findings) -> Settings {
    let limits = limits_of(section, findings);
    let pool = name(section, "pool", "pool name", findings);
    let queue = name(section, "queue", "queue", findings);
    Settings {
        retries: section.int("retries", findings).map(|n| n.value),
        retry_delay: section.duration("retry_delay", findings).map(|d| d.value),
        retry_exponential_backoff: section.bool("retry_exponential_backoff", findings).map(|b| b.value),
        max_retry_delay: section.duration("max_retry_delay", findings).map(|d| d.value),
        retry_policy: section.get("retry_policy").map(|node| retry::read(node, findings)),
        sensor: section.get("sensor").and_then(|node| sensor::read(node, findings)),
        trigger_rule: section.trigger_rule("trigger_rule", findings).map(|rule| rule.value),
        depends_on_past: section.bool("depends_on_past", findings).map(|b| b.value),
        wait_for_downstream: section.bool("wait_for_downstream", findings).map(|b| b.value),
        limits,
        rerun_on_loss: section.bool("rerun_on_loss", findings).map(|b| b.value),
        max_infra_retries: section.int("max_infra_retries", findings).map(|n| n.value),
        pool,
        pool_slots: section.int("pool_slots", findings),
        priority_weight: section.int("priority_weight", findings).map(|n| n.value),
        weight_rule: section.weight_rule("weight_rule", findings).map(|rule| rule.value),
        max_active_tis_per_dag: section.int("max_active_tis_per_dag", findings).map(|n| n.value),
        max_active_tis_per_dagrun: section.int("max_active_tis_per_dagrun", findings).map(|n| n.value),
        queue: queue.map(|queue| queue.value),
        callbacks: CallbackSettings::read(section, CallbackEvent::ALL, manifest, findings),
        weight: 0,
    }
}

/// The name of something that lives outside of the manifest.
fn name(section: &Section<'_>, key: &str, what: &str, findings: &mut Findings) -> Option<Spanned<String>> {
    let name = section.text(key, findings)?;
    if TaskId::new(&name.value).is_ok() {
        return Some(name);
    }
    findings
        .error(
            "manifest_value",
            name.pos,
            format!("`{}` is not a valid {what}", short(&name.value)),
        )
        .hint(id_hint(&name.value));
    None
}

/// Reports a text that is no id.
pub(super) fn invalid_id(error: &InvalidId, text: &str, pos: Pos, findings: &mut Findings) {
    findings
        .error("manifest_value", pos, error.to_string())
        .hint(id_hint(text));
}

/// An id near a text that is none.
pub(super) fn id_hint(text: &str) -> String {
    if matches!(text, "." | "..") {
        return "give it a name with a letter or a digit in it".to_owned();
    }
    let mut near: String = text
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') {
                c
            } else {
                '_'
            }
        })
        .collect();
    while near.len() > MAX_ID_BYTES {
        near.pop();
    }
    if near != text && TaskId::new(&near).is_ok() && near.chars().any(char::is_alphanumeric) {
        return format!("write `{}`", short(&near));
    }
    "letters, digits, `_`, `-` and `.` are allowed, at most 250 bytes".to_owned()
}

fn limits(section: &Section<'_>, findings: &mut Findings) -> LimitSettings {
    LimitSettings {
        memory: section.size("memory", findings).map(|n| n.value),
        timeout: section.time_limit("timeout", findings).map(|n| n.value),
        cpu_time: section.time_limit("cpu_time", findings).map(|n| n.value),
        log: section.size("log", findings).map(|n| n.value),
        on_log_limit: section
            .choice("on_log_limit", OnLogLimit::NAMES, findings)
            .and_then(|choice| OnLogLimit::from_name(&choice.value)),
        xcom_value: section.size("xcom_value", findings).map(|n| n.value),
        xcom_total: section.size("xcom_total", findings).map(|n| n.value),
        xcom_keys: section.int("xcom_keys", findings).map(|n| n.value),
        blobs: section.size("blobs", findings).map(|n| n.value),
        checkpoint: section.size("checkpoint", findings).map(|n| n.value),
        resources: section.int("resources", findings).map(|n| n.value),
        table_elements: section
            .int::<i64>("table_elements", findings)
            .and_then(|n| u64::try_from(n.value).ok()),
    }
}

/// A task's own settings with those of `defaults` behind them.
pub(super) fn over(own: Settings, behind: &Settings) -> Settings {
    Settings {
        retries: own.retries.or(behind.retries),
        retry_delay: own.retry_delay.or(behind.retry_delay),
        retry_exponential_backoff: own.retry_exponential_backoff.or(behind.retry_exponential_backoff),
        max_retry_delay: own.max_retry_delay.or(behind.max_retry_delay),
        retry_policy: own.retry_policy.or_else(|| behind.retry_policy.clone()),
        sensor: own.sensor.or_else(|| behind.sensor.clone()),
        trigger_rule: own.trigger_rule.or(behind.trigger_rule),
        depends_on_past: own.depends_on_past.or(behind.depends_on_past),
        wait_for_downstream: own.wait_for_downstream.or(behind.wait_for_downstream),
        limits: own.limits.over(&behind.limits),
        rerun_on_loss: own.rerun_on_loss.or(behind.rerun_on_loss),
        max_infra_retries: own.max_infra_retries.or(behind.max_infra_retries),
        pool: own.pool.or_else(|| behind.pool.clone()),
        pool_slots: own.pool_slots.or_else(|| behind.pool_slots.clone()),
        priority_weight: own.priority_weight.or(behind.priority_weight),
        weight_rule: own.weight_rule.or(behind.weight_rule),
        max_active_tis_per_dag: own.max_active_tis_per_dag.or(behind.max_active_tis_per_dag),
        max_active_tis_per_dagrun: own.max_active_tis_per_dagrun.or(behind.max_active_tis_per_dagrun),
        queue: own.queue.or_else(|| behind.queue.clone()),
        callbacks: own.callbacks.over(&behind.callbacks),
        weight: own.weight.saturating_add(behind.weight),
    }
}
