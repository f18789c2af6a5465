//! `trigger_dag:` and `wait_for_dag:`: steps between DAGs.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::component::TaskDescriptor;
use super::declared::Manifest;
use super::diagnostic::{Diagnostic, Findings};
use super::field::{TRIGGER_DAG, WAIT_FOR_DAG};
use super::read::id_hint;
use super::section::{Section, Spanned, short, text, texts};
use super::suggest;
use super::tree::{Kind, Node};
use crate::between::{Awaited, IfExists, States, TriggerDag, WaitForDag};
use crate::id::{DagId, TaskId};
use crate::state::{DagRunState, TaskInstanceState};
use crate::template::is_template;
use crate::work::Work;

/// The ends of a run.
const ENDS: [DagRunState; 2] = [DagRunState::Success, DagRunState::Failed];

/// A step between DAGs as it was read.
#[derive(Clone, Debug)]
pub(super) struct BetweenDecl {
    /// The other DAG, or those that a template chooses from.
    pub(super) dags: Vec<Spanned<DagId>>,
    pub(super) work: Work,
    /// The task's input.
    pub(super) input: Value,
}

/// Reads `trigger_dag:`.
pub(super) fn trigger_dag(node: &Node, findings: &mut Findings) -> Option<BetweenDecl> {
    let section = Section::open("`trigger_dag`", &[TRIGGER_DAG], node, findings)?;
    section.missing("dag", findings, node.pos);
    let target = target(&section, findings);
    let wait = section.bool("wait", findings).is_some_and(|wait| wait.value);
    for key in ["allowed_states", "failed_states", "result"] {
        if !wait && section.get(key).is_some() {
            findings
                .error(
                    "manifest_value",
                    section.key_pos(key),
                    format!("`{key}` means something only to a task that waits"),
                )
                .hint("write `wait: true`");
        }
    }
    let allowed = ends("allowed_states", &section, findings);
    let failed = ends("failed_states", &section, findings);
    // Airflow waits for ever for a run that ends in neither: here each end means something.
    let allowed_states: Vec<DagRunState> = match (&allowed, &failed) {
        (Some(allowed), Some(failed)) => {
            let pos = section.key_pos("failed_states");
            for end in ENDS {
                let message = match (allowed.contains(&end), failed.contains(&end)) {
                    (true, true) => format!("`{end}` is in `allowed_states` and in `failed_states`"),
                    (false, false) => format!("`{end}` is neither in `allowed_states` nor in `failed_states`"),
                    _ => continue,
                };
                findings
                    .error("manifest_value", pos, message)
                    .hint("name each end of a run, `success` and `failed`, in one of the two");
            }
            allowed.clone()
        }
        (Some(allowed), None) => allowed.clone(),
        (None, Some(failed)) => ENDS.into_iter().filter(|end| !failed.contains(end)).collect(),
        (None, None) => vec![DagRunState::Success],
    };
    let result = task_id("result", &section, findings);
    let mut input = members(&section, &["conf", "run_id", "logical_date"], findings);
    if let Some(conf) = section.get("conf") {
        if !matches!(conf.kind, Kind::Map(_) | Kind::Text(_)) {
            findings
                .error(
                    "manifest_type",
                    conf.pos,
                    format!("`conf` must be a map, or a template of one, not {}", conf.what()),
                )
                .hint("write `conf: {name: value}`, or `conf: \"{{ xcom.<task> }}\"`");
        }
        conf.bad_numbers(findings);
        input.insert("conf".to_owned(), conf.to_json());
    }
    let if_exists = if_exists(&section, findings);
    let target = target?;
    if let Some(template) = target.template {
        input.insert("dag".to_owned(), template.into());
    }
    Some(BetweenDecl {
        work: Work::TriggerDag(Box::new(TriggerDag {
            dag: target.dag,
            allowed: target.allowed,
            if_exists,
            wait,
            allowed_states,
            result,
            timeout: None,
        })),
        dags: target.dags,
        input: Value::Object(input),
    })
}

/// Reads `wait_for_dag:`.
pub(super) fn wait_for_dag(node: &Node, findings: &mut Findings) -> Option<BetweenDecl> {
    let section = Section::open("`wait_for_dag`", &[WAIT_FOR_DAG], node, findings)?;
    section.missing("dag", findings, node.pos);
    let dag = dag(&section, findings);
    let task = task_id("task", &section, findings);
    let group = task_id("group", &section, findings);
    if task.is_some() && group.is_some() {
        findings
            .error(
                "manifest_value",
                section.key_pos("group"),
                "`task` and `group` exclude each other",
            )
            .hint("keep one of them; to wait for both, write two tasks");
    }
    let awaited = match (task, group) {
        (Some(task), _) => Awaited::Task {
            task,
            states: states(&section, TaskInstanceState::ALL, TaskInstanceState::Success, findings),
        },
        (None, Some(group)) => Awaited::Group {
            group: group.to_string(),
            states: states(&section, TaskInstanceState::ALL, TaskInstanceState::Success, findings),
        },
        (None, None) => Awaited::Run {
            states: states(&section, DagRunState::ALL, DagRunState::Success, findings),
        },
    };
    let mut input = members(&section, &["run_id", "logical_date"], findings);
    if section.get("run_id").is_some() && section.get("logical_date").is_some() {
        findings
            .error(
                "manifest_value",
                section.key_pos("logical_date"),
                "`run_id` and `logical_date` exclude each other",
            )
            .hint("keep the one by which the run is known");
    } else if input.is_empty() {
        // Airflow: without `execution_delta` the run with the same logical date.
        input.insert("logical_date".to_owned(), "{{ logical_date }}".into());
    }
    let dag = dag?;
    Some(BetweenDecl {
        work: Work::WaitForDag(Box::new(WaitForDag {
            dag: dag.value.clone(),
            awaited,
        })),
        dags: vec![dag],
        input: Value::Object(input),
    })
}

/// Which DAG is triggered.
struct Target {
    dag: Option<DagId>,
    /// What a template may name.
    allowed: Vec<DagId>,
    template: Option<String>,
    dags: Vec<Spanned<DagId>>,
}

/// The most DAGs that a template may name.
const MAX_ALLOWED: usize = 100;

fn target(section: &Section<'_>, findings: &mut Findings) -> Option<Target> {
    let allowed = section.texts("allowed", findings);
    let template = match section.get("dag").map(|node| (&node.kind, node.pos)) {
        Some((Kind::Text(text), pos)) if is_template(text) => Spanned::new(text.clone(), pos),
        _ => {
            if section.get("allowed").is_some() {
                findings
                    .error(
                        "manifest_value",
                        section.key_pos("allowed"),
                        "`allowed` means something only where `dag` is a template",
                    )
                    .hint("remove it, or write `dag: \"{{ params.target }}\"`");
            }
            let dag = dag(section, findings)?;
            return Some(Target {
                dag: Some(dag.value.clone()),
                allowed: Vec::new(),
                template: None,
                dags: vec![dag],
            });
        }
    };
    let Some(allowed) = allowed else {
        if section.get("allowed").is_none() {
            findings
                .error(
                    "manifest_missing_key",
                    template.pos,
                    "`dag` is a template: `trigger_dag` needs the key `allowed`",
                )
                .hint("list every DAG that it may name: `allowed: [a, b]`");
        }
        return None;
    };
    if allowed.is_empty() || allowed.len() > MAX_ALLOWED {
        findings
            .error(
                "manifest_value",
                section.key_pos("allowed"),
                format!("`allowed` must have 1 to {MAX_ALLOWED} entries"),
            )
            .hint("list every DAG that `dag` may name: `allowed: [a, b]`");
        return None;
    }
    let mut dags: Vec<Spanned<DagId>> = Vec::with_capacity(allowed.len());
    for name in allowed {
        let message = match DagId::new(&name.value) {
            Ok(dag) if dags.iter().any(|known| known.value == dag) => format!("`{dag}` is in `allowed` twice"),
            Ok(dag) => {
                dags.push(Spanned::new(dag, name.pos));
                continue;
            }
            Err(_) => format!("`{}` is not the id of a DAG", short(&name.value)),
        };
        findings
            .error("manifest_value", name.pos, message)
            .hint("list ids of DAGs, each once");
    }
    let mut ids: Vec<DagId> = dags.iter().map(|dag| dag.value.clone()).collect();
    ids.sort();
    Some(Target {
        dag: None,
        allowed: ids,
        template: Some(template.value),
        dags,
    })
}

fn if_exists(section: &Section<'_>, findings: &mut Findings) -> IfExists {
    let names: Vec<&str> = IfExists::ALL.iter().map(|name| name.as_str()).collect();
    let Some(chosen) = section.choice("if_exists", &names, findings) else {
        return IfExists::Fail;
    };
    let if_exists = chosen.value.parse().unwrap_or(IfExists::Fail);
    let named = section.get("run_id").is_some() || section.get("logical_date").is_some();
    if if_exists != IfExists::Fail && !named {
        findings
            .error(
                "manifest_value",
                section.key_pos("if_exists"),
                "`if_exists` means something only where the run has a name or a date of its own",
            )
            .hint("write `run_id: \"…\"`; a name that is made is never taken");
    }
    if_exists
}

fn dag(section: &Section<'_>, findings: &mut Findings) -> Option<Spanned<DagId>> {
    let name = section.text("dag", findings)?;
    match DagId::new(&name.value) {
        Ok(dag) => Some(Spanned::new(dag, name.pos)),
        Err(_) => {
            findings
                .error(
                    "manifest_value",
                    name.pos,
                    format!("`{}` is not the id of a DAG", short(&name.value)),
                )
                .hint(match is_template(&name.value) {
                    true => "only `trigger_dag` takes a template here, and lists what it may name under `allowed`"
                        .to_owned(),
                    false => id_hint(&name.value),
                });
            None
        }
    }
}

fn task_id(key: &str, section: &Section<'_>, findings: &mut Findings) -> Option<TaskId> {
    let name = section.text(key, findings)?;
    let id = TaskId::new(&name.value).ok();
    if id.is_none() {
        let message = format!("`{}` is not an id", short(&name.value));
        findings
            .error("manifest_value", name.pos, message)
            .hint(match is_template(&name.value) {
                true => format!("`{key}` is fixed: it cannot be a template"),
                false => id_hint(&name.value),
            });
    }
    id
}

/// Members of the input that must be text.
fn members(section: &Section<'_>, keys: &[&str], findings: &mut Findings) -> Map<String, Value> {
    let mut members = Map::new();
    for key in keys.iter().filter(|key| **key != "conf") {
        if let Some(node) = section.get(key)
            && let Some(text) = text(key, node, findings)
        {
            members.insert((*key).to_owned(), text.value.into());
        }
    }
    members
}

fn ends(key: &str, section: &Section<'_>, findings: &mut Findings) -> Option<Vec<DagRunState>> {
    names(key, section, &ENDS, findings)
}

fn states<T>(section: &Section<'_>, all: &[T], allowed: T, findings: &mut Findings) -> States<T>
where
    T: Copy + PartialEq + std::fmt::Display,
{
    let mut read = |key| names(key, section, all, findings);
    let states = States {
        allowed: read("allowed_states").unwrap_or_else(|| vec![allowed]),
        failed: read("failed_states").unwrap_or_default(),
        skipped: read("skipped_states").unwrap_or_default(),
    };
    let lists = [&states.allowed, &states.failed, &states.skipped];
    if let Some(twice) = all
        .iter()
        .find(|state| lists.iter().filter(|list| list.contains(state)).count() > 1)
    {
        findings
            .error(
                "manifest_value",
                section.key_pos("dag"),
                format!("`{twice}` is in more than one of `allowed_states`, `failed_states` and `skipped_states`"),
            )
            .hint(match allowed == *twice && !section.has("allowed_states") {
                true => format!("without `allowed_states` `{twice}` is allowed; name other states there"),
                false => "keep it in one of them".to_owned(),
            });
    }
    states
}

fn names<T: Copy + std::fmt::Display>(
    key: &str,
    section: &Section<'_>,
    all: &[T],
    findings: &mut Findings,
) -> Option<Vec<T>> {
    let known: Vec<String> = all.iter().map(ToString::to_string).collect();
    let mut found = Vec::new();
    for name in texts(key, section.get(key)?, findings)? {
        match known.iter().position(|known| *known == name.value) {
            Some(at) => found.extend(all.get(at).copied()),
            None => {
                let hint = suggest::closest(&name.value, known.iter().map(String::as_str)).map_or_else(
                    || format!("known: {}", known.join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                findings
                    .error(
                        "manifest_value",
                        name.pos,
                        format!("`{}` is not a value of `{key}`", short(&name.value)),
                    )
                    .hint(hint);
            }
        }
    }
    Some(found)
}

impl Manifest {
    /// The other DAGs that steps name.
    pub fn named_dags(&self) -> Vec<DagId> {
        let steps = self.tasks.iter().filter_map(|task| task.between.as_ref());
        let mut seen: BTreeSet<&DagId> = BTreeSet::new();
        let named = steps.flat_map(|step| &step.dags).map(|dag| &dag.value);
        named.filter(|dag| seen.insert(dag)).cloned().collect()
    }

    /// Warns of DAGs that steps name and that `is_known` does not know: DAGs may be deployed in any order.
    pub fn unknown_dags(&self, is_known: impl Fn(&DagId) -> bool) -> Vec<Diagnostic> {
        let mut findings = Findings::default();
        let steps = self.tasks.iter().filter_map(|task| task.between.as_ref());
        for Spanned { value: dag, pos } in steps.flat_map(|step| &step.dags) {
            if self.id.as_ref().is_some_and(|id| id.value == *dag) || is_known(dag) {
                continue;
            }
            findings
                .warning("manifest_unknown_dag", *pos, format!("there is no DAG `{dag}` yet"))
                .hint("deploy it before this one runs");
        }
        findings.sorted()
    }
}

/// The step as a component's task describes itself: what it publishes is known.
pub(super) fn descriptor(work: &Work) -> TaskDescriptor {
    TaskDescriptor {
        name: work.operator().to_owned(),
        doc: String::new(),
        input: json!({}),
        output: match work.trigger_dag() {
            Some(step) => triggered(step),
            None => json!({"type": "null"}),
        },
        needs: Vec::new(),
        labels: None,
    }
}

/// What a step that triggers a DAG publishes.
fn triggered(step: &TriggerDag) -> Value {
    let mut properties = json!({"dag_id": {"type": "string"}, "run_id": {"type": "string"}});
    let mut required = vec!["dag_id", "run_id"];
    if step.wait {
        properties["state"] = json!({"enum": step.allowed_states});
        required.push("state");
    }
    if step.result.is_some() {
        properties["result"] = json!({});
        required.push("result");
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
