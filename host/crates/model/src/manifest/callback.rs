//! `on_success`, `on_failure`, `on_retry`, `on_skipped`: read, and checked as tasks are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::compile::{self, Resolved};
use super::component::Components;
use super::declared::{Input, Manifest, TaskDecl};
use super::diagnostic::Findings;
use super::field::{CALLBACK, Field};
use super::input::Inputs;
use super::read;
use super::section::{Section, short};
use super::tree::{Kind, Node};
use crate::callback::{Callback, CallbackAction, CallbackEvent, MAX_CALLBACKS, NotificationLevel, TEXT};
use crate::graph;
use crate::id::TaskId;
use crate::template::{TemplateRoot, XcomUse};

/// The wall time of a callback that sets none: shorter than a task's, since few run at a time.
const TIMEOUT: Duration = Duration::from_secs(300);

/// One callback as it was read.
#[derive(Clone, Debug)]
pub(super) struct CallbackDecl {
    pub(super) event: CallbackEvent,
    /// Of a notification.
    level: Option<NotificationLevel>,
    /// Its component, input and limits, as of a task that has the event's name.
    pub(super) task: TaskDecl,
}

/// The callbacks of a section, by event; those of an event that is not there come from further out.
#[derive(Clone, Debug, Default)]
pub(super) struct CallbackSettings([Option<Arc<[CallbackDecl]>>; CallbackEvent::ALL.len()]);

impl CallbackSettings {
    /// Reads what a section says about these events.
    pub(super) fn read(
        section: &Section<'_>,
        events: &[CallbackEvent],
        manifest: &Manifest,
        findings: &mut Findings,
    ) -> Self {
        let mut settings = Self::default();
        for (slot, event) in settings.0.iter_mut().zip(CallbackEvent::ALL) {
            if events.contains(event)
                && let Some(node) = section.get(event.as_str())
            {
                *slot = Some(list(*event, node, manifest, findings).into());
            }
        }
        settings
    }

    /// These with others behind them.
    pub(super) fn over(self, behind: &Self) -> Self {
        let mut settings = self;
        for (own, behind) in settings.0.iter_mut().zip(&behind.0) {
            if own.is_none() {
                own.clone_from(behind);
            }
        }
        settings
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &CallbackDecl> {
        self.0.iter().flatten().flat_map(|list| list.iter())
    }
}

fn list(event: CallbackEvent, node: &Node, manifest: &Manifest, findings: &mut Findings) -> Vec<CallbackDecl> {
    let nodes = match &node.kind {
        Kind::Seq(items) => &items[..],
        _ => std::slice::from_ref(node),
    };
    if nodes.len() > MAX_CALLBACKS {
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("`{event}` has {} callbacks; the limit is {MAX_CALLBACKS}", nodes.len()),
            )
            .hint("one callback can do several things: let it run a task of a component");
        return Vec::new();
    }
    nodes
        .iter()
        .filter_map(|node| one(event, node, manifest, findings))
        .collect()
}

fn one(event: CallbackEvent, node: &Node, manifest: &Manifest, findings: &mut Findings) -> Option<CallbackDecl> {
    const TABLE: &[&[Field]] = &[CALLBACK];
    let name = format!("a callback of `{event}`");
    if !matches!(node.kind, Kind::Map(_)) {
        findings
            .error(
                "manifest_type",
                node.pos,
                format!("{name} must be a map, not {}", node.what()),
            )
            .hint(format!(
                "write `{event}: [{{notify: \"{{{{ task_id }}}} …\"}}]`, or `{event}: [{{component: …, task: …}}]`"
            ));
        return None;
    }
    let section = Section::open(&name, TABLE, node, findings)?;
    let mut task = read::undeclared(TaskId::new(event.as_str()).ok()?, node.pos);
    let level = match (section.get(TEXT), section.get("component")) {
        (None, None) => {
            findings
                .error(
                    "manifest_missing_key",
                    node.pos,
                    format!("{name} needs the key `component` or the key `{TEXT}`"),
                )
                .hint("write `notify: \"{{ task_id }} …\"` to tell people, or `component: name@version` to run a task");
            return None;
        }
        (None, Some(component)) => {
            task.component = section.component("component", findings);
            task.component_span = component.span;
            task.entry = section.text("task", findings);
            if let Some(node) = section.get("input") {
                task.input = read::input(node, manifest, findings);
            }
            task.settings.limits = read::limits_of(&section, findings);
            task.settings.limits.timeout.get_or_insert(TIMEOUT);
            excluded(&section, &name, "component", &["level"], findings);
            None
        }
        (Some(_), _) => {
            let text = section.text(TEXT, findings)?;
            task.input = read::input_of(node, json!({ TEXT: text.value }), manifest, findings);
            let others = ["component", "task", "input", "limits", "timeout"];
            excluded(&section, &name, TEXT, &others, findings);
            let names: Vec<&str> = NotificationLevel::ALL.iter().map(|level| level.as_str()).collect();
            let level = section.choice("level", &names, findings);
            let level = level.and_then(|level| level.value.parse().ok());
            Some(level.unwrap_or(default_level(event)))
        }
    };
    Some(CallbackDecl { event, level, task })
}

/// What a notification counts as that does not say it itself.
const fn default_level(event: CallbackEvent) -> NotificationLevel {
    match event {
        CallbackEvent::Success | CallbackEvent::Skipped => NotificationLevel::Info,
        CallbackEvent::Retry => NotificationLevel::Warning,
        CallbackEvent::Failure => NotificationLevel::Error,
    }
}

fn excluded(section: &Section<'_>, name: &str, because: &str, keys: &[&str], findings: &mut Findings) {
    for key in keys {
        if section.get(key).is_some() {
            let hint = match *key {
                "level" => "remove `level`; how urgent a text is, only `notify` says".to_owned(),
                key => format!("remove `{key}`, or make two callbacks of it: `[{{notify: …}}, {{component: …}}]`"),
            };
            findings
                .error(
                    "manifest_value",
                    section.key_pos(key),
                    format!("{name} that has `{because}` cannot have the key `{key}`"),
                )
                .hint(hint);
        }
    }
}

impl Manifest {
    /// Each callback once, wherever it holds.
    pub(super) fn callbacks(&self) -> impl Iterator<Item = &CallbackDecl> {
        let mut seen: BTreeSet<*const CallbackDecl> = BTreeSet::new();
        let lists = self.tasks.iter().flat_map(|task| task.settings.callbacks.iter());
        lists
            .chain(self.callbacks.iter())
            .filter(move |declared| seen.insert(std::ptr::from_ref(*declared)))
    }
}

/// What can be said once all names are resolved: what the templates of callbacks name must be there for the task whose they are.
pub(super) fn check(manifest: &Manifest, findings: &mut Findings) {
    for declared in manifest.callbacks() {
        read::check_params(manifest, &declared.task.input, findings);
    }
    // What stands in `defaults` is said once, not once a task.
    let mut said = Said::default();
    // What must be upstream: all of it is asked at once.
    let mut named: Vec<Query<'_>> = Vec::new();
    for (at, task) in manifest.tasks.iter().enumerate() {
        if findings.is_full() {
            return;
        }
        for declared in task.settings.callbacks.iter() {
            let input = &declared.task.input;
            let Some(template) = &input.template else { continue };
            for (pointer, offset, root) in template.root_uses() {
                let around = manifest.around(task.group);
                let (missing, hint) = match root {
                    TemplateRoot::Callback => continue,
                    TemplateRoot::Item => (
                        task.expand.is_none() && around.iter().all(|group| group.expand.is_none()),
                        "`item` is there for the callbacks of a task that is mapped with `expand`",
                    ),
                    TemplateRoot::Iteration => (
                        around.iter().all(|group| group.repeat.is_none()),
                        "`iteration` is there for the callbacks of a task in a group with `loop`",
                    ),
                };
                if !missing {
                    continue;
                }
                if said.insert(place_of(input, pointer, offset)) {
                    findings
                        .error(
                            "manifest_expand",
                            manifest.locate(input, pointer, offset),
                            format!("`{root}` means nothing: task `{}` is not repeated", task.id),
                        )
                        .hint(hint);
                }
            }
            for used in template.xcom_uses() {
                match wrong_use(manifest, Some(at), used, findings) {
                    Use::Wrong(wrong) => report(manifest, input, used, wrong, &mut said, findings),
                    Use::Upstream(from) => named.push(Query {
                        from,
                        of: at,
                        input,
                        used,
                    }),
                    Use::Right => {}
                }
            }
        }
    }
    not_upstream(manifest, &named, &mut said, findings);
    for declared in manifest.callbacks.iter() {
        let input = &declared.task.input;
        let Some(template) = &input.template else { continue };
        for (pointer, offset, root) in template.root_uses() {
            if root != TemplateRoot::Callback && !findings.is_full() {
                let pos = manifest.locate(input, pointer, offset);
                let message = format!("`{root}` means nothing in a callback of the DAG");
                findings.error("manifest_expand", pos, message).hint(format!(
                    "write the callback under the task that is repeated: there `{root}` is the one that ended"
                ));
            }
        }
        for used in template.xcom_uses() {
            if let Use::Wrong(wrong) = wrong_use(manifest, None, used, findings) {
                report(manifest, input, used, wrong, &mut said, findings);
            }
        }
    }
}

/// What was reported, by where it stands in memory: a callback in `defaults` is one, however many tasks have it.
type Said = HashSet<(usize, usize, usize)>;

fn place_of(input: &Input, pointer: &str, offset: usize) -> (usize, usize, usize) {
    (std::ptr::from_ref(input).addr(), pointer.as_ptr().addr(), offset)
}

/// A callback of task `of` names what task `from` published.
struct Query<'m> {
    from: usize,
    of: usize,
    input: &'m Input,
    used: &'m XcomUse,
}

/// Reports what is named and not upstream.
fn not_upstream(manifest: &Manifest, named: &[Query<'_>], said: &mut Said, findings: &mut Findings) {
    if named.is_empty() {
        return;
    }
    let mut downstream: Vec<Vec<usize>> = vec![Vec::new(); manifest.tasks.len()];
    for (at, task) in manifest.tasks.iter().enumerate() {
        for from in &task.upstream {
            if let Some(downstream) = downstream.get_mut(*from) {
                downstream.push(at);
            }
        }
    }
    let pairs: Vec<(usize, usize)> = named.iter().map(|query| (query.from, query.of)).collect();
    for (query, sees) in named.iter().zip(graph::leads_to(&downstream, &pairs)) {
        if sees || findings.is_full() {
            continue;
        }
        let id = manifest.tasks.get(query.of).map(|task| task.id.as_str());
        let wrong = (
            "manifest_unknown_task",
            format!(
                "a callback of task `{}` cannot see what `{}` published: it is not upstream of it",
                id.unwrap_or_default(),
                short(&query.used.xcom.task)
            ),
            Some(
                "it sees the task itself and all that is upstream of it; a callback of the DAG sees all tasks"
                    .to_owned(),
            ),
        );
        report(manifest, query.input, query.used, wrong, said, findings);
    }
}

/// What is wrong with the name of a task in a template: code, message and hint.
type Wrong = (&'static str, String, Option<String>);

/// The name of a task in a template of a callback.
enum Use {
    Right,
    Wrong(Wrong),
    /// Right if this task is upstream.
    Upstream(usize),
}

fn wrong_use(manifest: &Manifest, of: Option<usize>, used: &XcomUse, findings: &mut Findings) -> Use {
    let name = &used.xcom.task;
    let owner = of.and_then(|at| manifest.tasks.get(at));
    let full = owner.map_or_else(|| name.clone(), |owner| manifest.full_name(owner.group, name));
    let Some(&named) = manifest.by_id.get(full.as_str()) else {
        let known = manifest.tasks.iter().map(|task| task.id.as_str());
        let hint = findings.suggest(name, known);
        let message = format!("the template names task `{}`, which does not exist", short(name));
        return Use::Wrong((
            "manifest_unknown_task",
            message,
            hint.or_else(|| Some("`xcom.<task>` names a task of this DAG by its id".to_owned())),
        ));
    };
    if used.xcom.previous {
        let loops = |task: &TaskDecl| -> Vec<String> {
            let around = manifest.around(task.group).into_iter();
            around
                .filter(|group| group.repeat.is_some())
                .map(|group| group.id.clone())
                .collect()
        };
        let other = manifest.tasks.get(named).map(loops).unwrap_or_default();
        let shared = owner.is_some_and(|owner| loops(owner).iter().any(|id| other.contains(id)));
        if shared {
            return Use::Right;
        }
        let message = format!("`previous.{}` means nothing: there is no loop around both", short(name));
        let hint = format!(
            "write `xcom[\"{}\"]`: of a loop it is what the last iteration returned",
            short(name)
        );
        return Use::Wrong(("manifest_loop", message, Some(hint)));
    }
    match of {
        Some(of) if of != named => Use::Upstream(named),
        _ => Use::Right,
    }
}

fn report(
    manifest: &Manifest,
    input: &Input,
    used: &XcomUse,
    (code, message, hint): Wrong,
    said: &mut Said,
    findings: &mut Findings,
) {
    if findings.is_full() {
        return;
    }
    if said.insert(place_of(input, &used.path, used.offset)) {
        let pos = manifest.locate(input, &used.path, used.offset);
        findings.error(code, pos, message).maybe_hint(hint);
    }
}

/// The callbacks with what does their work.
pub(super) struct ResolvedCallbacks<'c>(HashMap<*const CallbackDecl, Resolved<'c>>);

/// Checks the callbacks against their components.
pub(super) fn resolve<'c>(
    manifest: &'c Manifest,
    components: &'c Components,
    inputs: &mut Inputs<'c>,
    findings: &mut Findings,
) -> ResolvedCallbacks<'c> {
    let mut resolved = HashMap::new();
    for declared in manifest.callbacks() {
        let task = &declared.task;
        if declared.level.is_some() {
            continue;
        }
        let Some(found) = compile::resolve(task, None, components, findings) else {
            continue;
        };
        let pos = task.entry.as_ref().map_or(task.pos, |entry| entry.pos);
        compile::needs(task, found.task, findings);
        if found.task.labels.is_some() {
            findings
                .error(
                    "manifest_branch",
                    pos,
                    format!(
                        "`{}` answers labels: a branch cannot be a callback",
                        short(&found.task.name)
                    ),
                )
                .hint("nothing follows a callback; name a task of the component that answers no labels");
        }
        inputs.check_one(task, found.task, findings);
        resolved.insert(std::ptr::from_ref(declared), found);
    }
    ResolvedCallbacks(resolved)
}

impl ResolvedCallbacks<'_> {
    pub(super) fn compile(&self, settings: &CallbackSettings) -> Vec<Callback> {
        settings
            .iter()
            .filter_map(|declared| {
                let action = match declared.level {
                    Some(level) => CallbackAction::Notify { level },
                    None => CallbackAction::Task {
                        component: self.0.get(&std::ptr::from_ref(declared))?.component_task()?,
                        limits: declared.task.settings.limits.resolve(),
                    },
                };
                Some(Callback {
                    event: declared.event,
                    action,
                    input: Value::clone(&declared.task.input.value),
                })
            })
            .collect()
    }
}
