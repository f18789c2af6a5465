//! From a read manifest and its components to a DAG version: what the components demand is checked, and the version gets its
//! digest.

use std::collections::HashSet;

use indexmap::IndexMap;
use serde_json::json;

use super::between;
use super::callback::{self, ResolvedCallbacks};
use super::canonical;
use super::component::{ComponentRef, Components, ResolvedComponent, TaskDescriptor, Unresolved};
use super::declared::{Manifest, TaskDecl};
use super::diagnostic::{Diagnostic, Findings, Pos};
use super::human;
use super::input::Inputs;
use super::pool::{self, Pools};
use super::repeats;
use super::section::{Spanned, short};
use super::suggest;
use super::when;
use crate::budget::{Budget, within};
use crate::dag::{DEFAULT_POOL, Dag, DagParts, Expansion, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use crate::id::{Digest, TaskIndex};
use crate::latest_only;
use crate::past::Past;
use crate::trigger_rule::TriggerRule;
use crate::weight;
use crate::work::{ComponentTask, Work};

/// A checked manifest.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Compiled.
    pub dag: Dag,
    /// The digest of the version: of [`Checked::canonical`].
    pub digest: Digest,
    /// The version's content as one JSON text: the same for manifests that mean the same.
    pub canonical: String,
    /// `paused:`; holds only when the DAG is new.
    pub paused: Option<bool>,
    /// Warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a manifest against its components. Fails with everything that is wrong, that of the text and that of the components.
///
/// Pools are not looked at: they belong to a server, and not every check has one. See [`compile_on`].
pub fn compile(manifest: &Manifest, components: &Components) -> Result<Checked, Vec<Diagnostic>> {
    judge(manifest, components, None)
}

/// Like [`compile`], for a server that has these pools.
pub fn compile_on(manifest: &Manifest, components: &Components, pools: &Pools) -> Result<Checked, Vec<Diagnostic>> {
    judge(manifest, components, Some(pools))
}

/// Bounds of reading a manifest, and of checking one: some seconds, for what nobody would write. A manifest with 100,000 tasks takes a
/// fraction of it.
pub(super) const CHECKING: Budget = Budget::new(1_000_000_000, 256 << 20);

fn judge(manifest: &Manifest, components: &Components, pools: Option<&Pools>) -> Result<Checked, Vec<Diagnostic>> {
    within(CHECKING, || judge_within(manifest, components, pools))
}

fn judge_within(
    manifest: &Manifest,
    components: &Components,
    pools: Option<&Pools>,
) -> Result<Checked, Vec<Diagnostic>> {
    let mut findings = manifest.findings.clone();
    let built_in: Vec<Option<TaskDescriptor>> = manifest
        .tasks
        .iter()
        .map(|task| {
            let asks = task.human.as_ref().map(|human| human::descriptor(&human.step));
            let between = || task.between.as_ref().map(|step| between::descriptor(&step.work));
            asks.or_else(between).or_else(|| task.latest_only.then(latest_only))
        })
        .collect();
    match pools {
        Some(pools) => pool::check(manifest, pools, &mut findings),
        None => pool::unchecked(manifest, &mut findings),
    }
    let resolved: Vec<Option<Resolved<'_>>> = manifest
        .tasks
        .iter()
        .zip(&built_in)
        .map(|(task, built_in)| match built_in {
            Some(task) => Some(Resolved { component: None, task }),
            None => {
                let group = task.group.and_then(|at| manifest.groups.get(at));
                resolve(task, group.map(|group| group.id.as_str()), components, &mut findings)
            }
        })
        .collect();
    for (at, found) in resolved.iter().enumerate() {
        if let Some(found) = found {
            demands(&manifest.tasks[at], found.task, &mut findings);
        }
    }
    let described: Vec<Option<&TaskDescriptor>> = resolved
        .iter()
        .map(|found| found.as_ref().map(|found| found.task))
        .collect();
    let mut inputs = Inputs::new(manifest, &described);
    inputs.check(&mut findings);
    when::check(manifest, &mut inputs, &mut findings);
    let callbacks = callback::resolve(manifest, components, &mut inputs, &mut findings);

    findings.if_exhausted();
    let diagnostics = findings.sorted();
    let tasks: Option<Vec<Resolved<'_>>> = resolved.into_iter().collect();
    let (0, Some(id), Some(resolved)) = (findings.errors(), &manifest.id, tasks) else {
        return Err(diagnostics);
    };
    let mut measures = repeats::Measures::of(manifest);
    let groups = repeats::groups(manifest, &mut measures);
    let tasks = tasks_of(manifest, &resolved, &callbacks, &mut measures);
    if let Some(task) = measures.too_many().and_then(|at| manifest.tasks.get(at)) {
        return Err(vec![repeats::too_many_measures(task)]);
    }
    let dag = Dag::from(DagParts {
        id: id.value.clone(),
        description: manifest.description.clone(),
        doc_md: manifest.doc_md.clone(),
        owner: manifest.owner.clone().unwrap_or_else(|| "airflow".to_owned()),
        tags: manifest.tags.clone(),
        params: manifest.params.clone(),
        strict_params: manifest.strict_params,
        max_active_runs: manifest.max_active_runs.unwrap_or(16),
        max_active_tasks: manifest.max_active_tasks.unwrap_or(16),
        dagrun_timeout: manifest.dagrun_timeout,
        callbacks: callbacks.compile(&manifest.callbacks),
        max_consecutive_failed_dag_runs: manifest.max_consecutive_failed_dag_runs.unwrap_or(0),
        groups,
        tasks,
    });
    let unfit = |(at, task): (usize, &Task)| {
        let fits = dag
            .scopes()
            .fits(TaskIndex(u32::try_from(at).unwrap_or(u32::MAX)), task.expand.as_ref());
        (!fits).then(|| repeats::too_deep(&manifest.tasks[at]))
    };
    let unfit: Vec<Diagnostic> = dag.tasks.iter().enumerate().filter_map(unfit).collect();
    if !unfit.is_empty() {
        return Err(unfit);
    }
    let canonical = canonical::text(&dag);
    Ok(Checked {
        digest: Digest::of(canonical.as_bytes()),
        canonical,
        paused: manifest.paused,
        diagnostics,
        dag,
    })
}

/// A step that lets only the latest run go on, as a component's task describes itself: it publishes nothing.
fn latest_only() -> TaskDescriptor {
    TaskDescriptor {
        name: latest_only::CLASS.to_owned(),
        doc: String::new(),
        input: json!({}),
        output: json!({"type": "null"}),
        needs: Vec::new(),
        labels: None,
    }
}

/// What does the work of a task.
pub(super) struct Resolved<'c> {
    /// Its component; none for a step that is built in.
    component: Option<(&'c ComponentRef, &'c ResolvedComponent)>,
    pub(super) task: &'c TaskDescriptor,
}

impl Resolved<'_> {
    /// The task of the component, if it is one.
    pub(super) fn component_task(&self) -> Option<ComponentTask> {
        let (reference, component) = self.component?;
        Some(ComponentTask {
            reference: reference.to_string(),
            digest: component.digest,
            entry: self.task.name.clone(),
        })
    }

    fn work(&self, declared: &TaskDecl) -> Option<Work> {
        match self.component_task() {
            Some(task) => Some(Work::Component(task)),
            None if declared.latest_only => Some(Work::LatestOnly),
            None => match (&declared.human, &declared.between) {
                (Some(human), _) => Some(Work::Human(Box::new(human.step.clone()))),
                (None, Some(step)) => {
                    let mut work = step.work.clone();
                    if let Work::TriggerDag(step) = &mut work {
                        // The default is for guests: a run may take as long as it takes.
                        step.timeout = declared.settings.limits.timeout;
                    }
                    Some(work)
                }
                (None, None) => None,
            },
        }
    }
}

pub(super) fn resolve<'c>(
    task: &'c TaskDecl,
    group: Option<&str>,
    components: &'c Components,
    findings: &mut Findings,
) -> Option<Resolved<'c>> {
    let Spanned { value: reference, pos } = task.component.as_ref()?;
    let component = match components.get(reference) {
        Some(Ok(component)) => component,
        // Told where it is named first.
        _ if findings.is_full() || !findings.is_first(&reference.to_string()) => return None,
        Some(Err(Unresolved::NotFound { known })) => {
            let text = reference.to_string();
            let hint = findings
                .suggest(&text, known.iter().map(String::as_str))
                .unwrap_or_else(|| "upload it first: `airtight components push`".to_owned());
            findings
                .error(
                    "component_not_found",
                    *pos,
                    format!("component `{text}` does not exist"),
                )
                .hint(hint);
            return None;
        }
        Some(Err(Unresolved::Refused(why))) => {
            findings
                .error(
                    "component_refused",
                    *pos,
                    format!("component `{reference}` was refused: {why}"),
                )
                .hint("build it anew and upload it under another version; `airtight components inspect` says more");
            return None;
        }
        Some(Err(Unresolved::Unusable(why))) => {
            findings
                .error(
                    "component_unusable",
                    *pos,
                    format!("component `{reference}` cannot be used: {why}"),
                )
                .hint(match reference {
                    ComponentRef::Path(_) => {
                        "a path is looked for beside the manifest; build the component first, `airtight dags deploy` uploads it"
                    }
                    _ => "name one that was uploaded: `airtight components list`",
                });
            return None;
        }
        None => {
            findings
                .error(
                    "component_not_found",
                    *pos,
                    format!("component `{reference}` does not exist"),
                )
                .hint("upload it first: `airtight components push`");
            return None;
        }
    };
    let names = || component.descriptor.tasks.iter().map(|task| task.name.as_str());
    // As it stands in its group.
    let name = group
        .and_then(|group| task.id.as_str().strip_prefix(group)?.strip_prefix('.'))
        .unwrap_or(task.id.as_str());
    let found = match (&task.entry, component.descriptor.tasks.as_slice()) {
        (Some(entry), _) => component.descriptor.task(&entry.value).ok_or_else(|| {
            let message = format!("component `{reference}` has no task `{}`", short(&entry.value));
            (entry.pos, message, suggest::hint(&entry.value, names()))
        }),
        (None, [only]) => Ok(only),
        (None, _) => component.descriptor.task(name).ok_or_else(|| {
            let message = format!(
                "task `{}` needs the key `task`: component `{reference}` has several tasks, and none of them is named `{}`",
                task.id,
                short(name)
            );
            (task.pos, message, suggest::hint(name, names()))
        }),
    };
    match found {
        Ok(task) => Some(Resolved {
            component: Some((reference, component)),
            task,
        }),
        Err((pos, message, hint)) => {
            let hint = hint.unwrap_or_else(|| format!("`airtight components inspect {reference}` shows its tasks"));
            findings.error("component_task_unknown", pos, message).hint(hint);
            None
        }
    }
}

/// What a component's task demands of the manifest beside its input: grants, and labels of a branch.
fn demands(task: &TaskDecl, described: &TaskDescriptor, findings: &mut Findings) {
    let pos = task.entry.as_ref().map_or(task.pos, |entry| entry.pos);
    needs(task, described, findings);
    branch(task, described, pos, findings);
}

/// What it needs of the host and cannot have.
pub(super) fn needs(task: &TaskDecl, described: &TaskDescriptor, findings: &mut Findings) {
    let pos = task.entry.as_ref().map_or(task.pos, |entry| entry.pos);
    for need in &described.needs {
        findings
            .error(
                "manifest_grant",
                pos,
                format!(
                    "task `{}` needs `{}`, which this version cannot grant",
                    task.id,
                    short(need)
                ),
            )
            .hint("tasks of this version use no network, files, environment or devices");
    }
}

fn branch(task: &TaskDecl, described: &TaskDescriptor, pos: Pos, findings: &mut Findings) {
    match (&described.labels, &task.branches) {
        (None, None) => {}
        // Told already.
        (None, Some(_)) if task.latest_only || task.between.is_some() => {}
        (None, Some(branches)) => {
            findings
                .error(
                    "manifest_branch",
                    branches.pos,
                    format!(
                        "task `{}` is not a branch: `{}` of its component answers no labels",
                        task.id, described.name
                    ),
                )
                .hint("remove `branches`");
        }
        (Some(labels), None) => {
            let entries: Vec<String> = labels.iter().map(|label| format!("{}: [task]", short(label))).collect();
            findings
                .error(
                    "manifest_branch",
                    pos,
                    format!("task `{}` is a branch and needs the key `branches`", task.id),
                )
                .hint(format!("write `branches: {{{}}}`", entries.join(", ")));
        }
        (Some(labels), Some(branches)) => {
            let known: HashSet<&str> = labels.iter().map(String::as_str).collect();
            let named: HashSet<&str> = branches.labels.iter().map(|(label, _)| label.value.as_str()).collect();
            for (label, _) in &branches.labels {
                if !known.contains(label.value.as_str()) {
                    let hint = findings.suggest(&label.value, labels.iter().map(String::as_str));
                    findings
                        .error(
                            "manifest_branch",
                            label.pos,
                            match task.human {
                                Some(_) => format!("`human` has no option `{}`", short(&label.value)),
                                None => format!(
                                    "`{}` of the component has no label `{}`",
                                    described.name,
                                    short(&label.value)
                                ),
                            },
                        )
                        .hint(hint.unwrap_or_else(|| "remove it: this label is never answered".to_owned()));
                }
            }
            for label in labels {
                if !named.contains(label.as_str()) {
                    findings
                        .error(
                            "manifest_branch",
                            branches.pos,
                            format!("`branches` has no entry for the label `{}`", short(label)),
                        )
                        .hint(format!(
                            "write `{}: [task]`, or `{0}: []` if it chooses nothing",
                            short(label)
                        ));
                }
            }
        }
    }
    // Where there are `branches`, it was told with them.
    if described.labels.is_some() && task.short_circuit.is_some() && task.branches.is_none() {
        findings
            .error(
                "manifest_branch",
                task.pos,
                format!("task `{}` is a branch and cannot be a short circuit", task.id),
            )
            .hint("remove `short_circuit`: a label that chooses nothing is `label: []`");
    }
}

fn tasks_of(
    manifest: &Manifest,
    resolved: &[Resolved<'_>],
    callbacks: &ResolvedCallbacks<'_>,
    measures: &mut repeats::Measures,
) -> Vec<Task> {
    let index = |at: usize| TaskIndex(u32::try_from(at).unwrap_or(u32::MAX));
    let mut downstream: Vec<Vec<TaskIndex>> = vec![Vec::new(); manifest.tasks.len()];
    for (at, task) in manifest.tasks.iter().enumerate() {
        for &from in &task.upstream {
            downstream[from].push(index(at));
        }
    }
    let (retry, queueing) = (RetryPolicy::default(), Queueing::default());
    let expansions: Vec<Option<Expansion>> = manifest
        .tasks
        .iter()
        .map(|task| {
            let expand = task.expand.as_ref()?;
            Some(measures.expansion(manifest, expand, task.group))
        })
        .collect();
    let mut tasks: Vec<Task> = manifest
        .tasks
        .iter()
        .zip(resolved)
        .zip(downstream)
        .zip(expansions.into_iter().zip(&measures.by_task))
        .filter_map(|(((task, resolved), downstream), (expand, measures))| {
            let settings = &task.settings;
            Some(Task {
                id: task.id.clone(),
                work: resolved.work(task)?,
                doc_md: task.doc_md.clone(),
                input: task.input.value.clone(),
                trigger_rule: match task.role {
                    TaskRole::Teardown { .. } => TriggerRule::AllDoneSetupSuccess,
                    _ => settings.trigger_rule.unwrap_or(TriggerRule::AllSuccess),
                },
                upstream: task.upstream.iter().map(|at| index(*at)).collect(),
                kind: match task.latest_only {
                    true => latest_only::kind(&downstream),
                    false => kind(task),
                },
                downstream,
                group: task.group.map(repeats::group_index),
                expand,
                map_index_template: task.map_index_template.clone(),
                when: when::template(task),
                measures: measures.clone(),
                role: task.role.clone(),
                past: Past::of(
                    settings.depends_on_past.unwrap_or(false),
                    settings.wait_for_downstream.unwrap_or(false),
                ),
                retry: RetryPolicy {
                    retries: settings.retries.unwrap_or(retry.retries),
                    delay: settings.retry_delay.unwrap_or(retry.delay),
                    exponential_backoff: settings.retry_exponential_backoff.unwrap_or(retry.exponential_backoff),
                    max_delay: settings.max_retry_delay,
                    rules: settings.retry_policy.clone().unwrap_or_default(),
                },
                sensor: settings.sensor.clone(),
                limits: settings.limits.resolve(),
                rerun_on_loss: settings.rerun_on_loss.unwrap_or(true),
                max_infra_retries: settings.max_infra_retries.unwrap_or(3),
                pool: settings
                    .pool
                    .as_ref()
                    .map_or_else(|| DEFAULT_POOL.to_owned(), |pool| pool.value.clone()),
                pool_slots: settings.pool_slots.as_ref().map_or(1, |slots| slots.value),
                priority_weight: settings.priority_weight.unwrap_or(1),
                queueing: Queueing {
                    queue: settings.queue.clone().unwrap_or_else(|| queueing.queue.clone()),
                    weight_rule: settings.weight_rule.unwrap_or(queueing.weight_rule),
                    max_active_tis_per_dag: settings.max_active_tis_per_dag,
                    max_active_tis_per_dagrun: settings.max_active_tis_per_dagrun,
                    ..queueing.clone()
                },
                callbacks: callbacks.compile(&settings.callbacks),
            })
        })
        .collect();
    weight::weigh(&mut tasks);
    tasks
}

fn kind(task: &TaskDecl) -> TaskKind {
    if let Some(branches) = &task.branches {
        let mut labels: IndexMap<String, Vec<TaskIndex>> = branches
            .labels
            .iter()
            .map(|(label, tasks)| {
                let tasks = tasks.iter().map(|at| TaskIndex(u32::try_from(*at).unwrap_or(u32::MAX)));
                (label.value.clone(), tasks.collect())
            })
            .collect();
        labels.sort_keys();
        return TaskKind::Branch { labels };
    }
    let approval = task.human.as_ref().filter(|human| human.step.approval.is_some());
    match approval.map_or(task.short_circuit, |human| Some(human.ignore_downstream_trigger_rules)) {
        Some(ignore_downstream_trigger_rules) => TaskKind::ShortCircuit {
            ignore_downstream_trigger_rules,
        },
        None => TaskKind::Plain,
    }
}
