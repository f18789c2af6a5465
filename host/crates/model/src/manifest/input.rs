//! Inputs against what the components say of themselves: literals are validated, and what one task publishes is compared with
//! what the next one takes. Only what is certainly wrong is an error.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde_json::Value;

use super::Pos;
use super::component::TaskDescriptor;
use super::declared::{ExpandDecl, Input, Manifest, SourceDecl, TaskDecl};
use super::diagnostic::{COSTLY_HINT, Findings, Severity, TOO_COSTLY};
use super::repeat::path_of;
use super::repeats::is_many;
use super::section::short;
use crate::budget::is_spent;
use crate::dag::{Combine, length};
use crate::schema::{Finding, Shape, Step, Validator};
use crate::template::{PathUse, RETURN_VALUE, Segment, Source, escape_pointer, is_template, show_path};

/// What text with templates in it is.
static TEXT: LazyLock<Value> = LazyLock::new(|| serde_json::json!({"type": "string"}));

/// The inputs of one manifest against its components. Many tasks of a DAG are of one component task: its schemas are read once.
pub(super) struct Inputs<'m> {
    manifest: &'m Manifest,
    described: &'m [Option<&'m TaskDescriptor>],
    validators: HashMap<*const TaskDescriptor, Option<Validator>>,
    shapes: HashMap<*const Value, Shape<'m>>,
}

impl<'m> Inputs<'m> {
    /// `described` is what is known of the tasks.
    pub(super) fn new(manifest: &'m Manifest, described: &'m [Option<&'m TaskDescriptor>]) -> Self {
        Self {
            manifest,
            described,
            validators: HashMap::new(),
            shapes: HashMap::new(),
        }
    }

    fn shape(&mut self, schema: &'m Value) -> Shape<'m> {
        let shape = self.shapes.entry(std::ptr::from_ref(schema));
        shape.or_insert_with(|| Shape::of(schema)).afresh()
    }

    /// What is known of the one answer of a task that is seen from within a group; nothing where many are seen.
    fn producer(&self, group: Option<usize>, name: &str) -> Option<&'m TaskDescriptor> {
        let at = *self.manifest.by_id.get(self.manifest.full_name(group, name).as_str())?;
        if is_many(self.manifest, at, group) {
            return None;
        }
        *self.described.get(at)?
    }

    /// Checks the inputs of all tasks whose component is known, what is mapped over, and what decides about loops.
    pub(super) fn check(&mut self, findings: &mut Findings) {
        let (manifest, described) = (self.manifest, self.described);
        for (task, described) in manifest.tasks.iter().zip(described) {
            if findings.is_full() {
                return;
            }
            if let Some(described) = described {
                self.check_one(task, described, findings);
            }
            if let Some(expand) = &task.expand {
                let takes = described.map(|described| (task.id.as_str(), &described.input));
                self.mapping(task.group, takes, expand, findings);
            }
        }
        for group in &manifest.groups {
            if let Some(expand) = &group.expand {
                self.mapping(group.parent, None, expand, findings);
            }
            let decides = group.repeat.as_ref().and_then(|repeat| Some((repeat, repeat.task?)));
            if let Some((repeat, at)) = decides
                && let Some(Some(described)) = self.described.get(at)
            {
                self.until(&repeat.until, described, findings);
            }
        }
    }

    /// Checks the input of a task, or of something that is like one.
    pub(super) fn check_one(&mut self, task: &'m TaskDecl, described: &'m TaskDescriptor, findings: &mut Findings) {
        // What takes anything has nothing to check, but what its templates name.
        if described.input.as_object().is_none_or(|schema| !schema.is_empty()) {
            let validator = self
                .validators
                .entry(std::ptr::from_ref(described))
                .or_insert_with(|| validator(task, described, findings));
            if validator.is_none() {
                return;
            }
            let shape = self.shape(&described.input);
            if let Some(Some(validator)) = self.validators.get(&std::ptr::from_ref(described)) {
                literals(task, validator, &shape, findings);
            }
            if !is_spent() {
                misspelt(task, &shape, findings);
            }
        }
        self.templates(task, described, findings);
        self.paths(task.group, &task.input, findings);
    }

    /// What a source of a value is called, where it leads inside, and what is there; nothing where that is not known.
    pub(super) fn source(
        &mut self,
        group: Option<usize>,
        source: Source<'m>,
    ) -> Option<(String, &'m [Segment], Shape<'m>)> {
        Some(match source {
            Source::Text => (String::new(), &[][..], self.shape(&TEXT)),
            Source::Param { name, path } => {
                let param = self.manifest.params.get(name)?;
                (format!("params.{name}"), path, self.shape(&param.schema))
            }
            // What many instances published is a list of answers, and what an iteration left may be missing: unknown.
            Source::Xcom { xcom, path } if xcom.key == RETURN_VALUE && !xcom.previous => {
                let producer = self.producer(group, &xcom.task)?;
                (format!("xcom.{}", xcom.task), path, self.shape(&producer.output))
            }
            Source::Xcom { .. } => return None,
        })
    }

    /// Compares the schemas along the templates.
    fn templates(&mut self, task: &'m TaskDecl, described: &'m TaskDescriptor, findings: &mut Findings) {
        let manifest = self.manifest;
        let Some(template) = &task.input.template else { return };
        let sources = template.sources();
        if sources.is_empty() {
            return;
        }
        for (pointer, source) in sources {
            if findings.is_full() || is_spent() {
                return;
            }
            let Some((name, path, publishes)) = self.source(task.group, source) else {
                continue;
            };
            let pos = || manifest.locate(&task.input, pointer, 0);
            if publishes.only_null() && matches!(source, Source::Xcom { .. }) {
                never_published(&name, pos(), findings);
                continue;
            }
            let Some(given) = follow(publishes, &name, path, &pos, Severity::Error, true, findings) else {
                continue;
            };
            let Some(wanted) = consumer(&self.shape(&described.input), pointer) else {
                continue;
            };
            let what = if name.is_empty() {
                "the text".to_owned()
            } else {
                format!("`{name}{}`", show_path(path))
            };
            if let Some(why) = given.excludes(&wanted) {
                findings
                    .error(
                        "manifest_schema_mismatch",
                        pos(),
                        format!(
                            "{what} can never be what task `{}` takes at `{}`: {why}",
                            task.id,
                            place(pointer)
                        ),
                    )
                    .hint(mismatch_hint(&given, &wanted));
                continue;
            }
            if let Some((inside, why)) = given.only_empty(&wanted) {
                findings
                    .error(
                        "manifest_schema_mismatch",
                        pos(),
                        format!(
                            "{what} fits task `{}` at `{}{inside}` only while the list is empty: as an element, {why}",
                            task.id,
                            place(pointer)
                        ),
                    )
                    .hint("the elements of the two lists differ; put a task in between that turns one into the other");
                continue;
            }
            for member in given.may_lack(&wanted) {
                findings
                    .warning(
                        "manifest_may_be_missing",
                        pos(),
                        format!(
                            "{what} may lack `{member}`, which task `{}` demands at `{}`",
                            task.id,
                            place(pointer)
                        ),
                    )
                    .hint(format!(
                        "write the members out, and `{member}: \"{{{{ … | default(…) }}}}\"` among them"
                    ));
            }
        }
    }

    /// Paths inside of expressions: where they lead is known, what becomes of it is not.
    pub(super) fn paths(&mut self, group: Option<usize>, input: &'m Input, findings: &mut Findings) {
        let manifest = self.manifest;
        let Some(template) = &input.template else { return };
        let whole = template
            .sources()
            .into_iter()
            .filter(|(_, source)| *source != Source::Text);
        let whole: HashSet<&str> = whole.map(|(pointer, _)| pointer).collect();
        for used in template.path_uses() {
            if findings.is_full() {
                return;
            }
            let pos = || manifest.locate(input, &used.pointer, used.offset);
            first_iteration(used, &pos, findings);
            // Compared with what the task takes, too.
            if whole.contains(used.pointer.as_str()) {
                continue;
            }
            let Some((name, path, publishes)) = used.source().and_then(|source| self.source(group, source)) else {
                continue;
            };
            let severity = if used.always {
                Severity::Error
            } else {
                Severity::Warning
            };
            if publishes.only_null() && path.is_empty() && used.always && name.starts_with("xcom") {
                never_published(&name, pos(), findings);
                continue;
            }
            follow(publishes, &name, path, &pos, severity, false, findings);
        }
    }

    /// The condition of a loop, over what one task of it answers.
    fn until(&mut self, until: &'m Input, described: &'m TaskDescriptor, findings: &mut Findings) {
        let manifest = self.manifest;
        for used in until.template.iter().flat_map(|template| template.path_uses()) {
            let Some(Source::Xcom { xcom, path }) = used.source() else {
                continue;
            };
            if xcom.key != RETURN_VALUE || xcom.previous {
                continue;
            }
            let pos = || manifest.locate(until, &used.pointer, used.offset);
            let (name, publishes) = (format!("xcom.{}", xcom.task), self.shape(&described.output));
            let severity = if used.always {
                Severity::Error
            } else {
                Severity::Warning
            };
            if publishes.only_null() {
                never_published(&name, pos(), findings);
                continue;
            }
            follow(publishes, &name, path, &pos, severity, false, findings);
        }
    }

    /// What is mapped over must have elements, and they must fit where they go.
    fn mapping(
        &mut self,
        group: Option<usize>,
        takes: Option<(&str, &'m Value)>,
        expand: &'m ExpandDecl,
        findings: &mut Findings,
    ) {
        for source in &expand.sources {
            if findings.is_full() {
                return;
            }
            self.mapped(group, takes, expand, source, findings);
        }
    }

    fn mapped(
        &mut self,
        group: Option<usize>,
        takes: Option<(&str, &'m Value)>,
        expand: &ExpandDecl,
        source: &'m SourceDecl,
        findings: &mut Findings,
    ) {
        const HINT: &str =
            "let the task before answer a list; to repeat something so many times, let it answer a list of that length";
        let manifest = self.manifest;
        let Some(from) = path_of(&source.input) else { return };
        let Some((name, path, publishes)) = self.source(group, from) else {
            return;
        };
        let pos = || manifest.locate(&source.input, "", 0);
        let shown = format!("{name}{}", show_path(path));
        if publishes.only_null() && matches!(from, Source::Xcom { .. }) {
            never_published(&name, pos(), findings);
            return;
        }
        let Some(given) = follow(publishes, &name, path, &pos, Severity::Error, true, findings) else {
            return;
        };
        if !given.has_elements() {
            findings
                .error(
                    "manifest_expand",
                    pos(),
                    format!(
                        "`{shown}` is {}: only a list or an object can be mapped over",
                        given.describe()
                    ),
                )
                .hint(HINT);
            return;
        }
        if let Source::Param { name, path: [] } = from
            && let Some(default) = manifest.params.get(name).and_then(|param| param.default.as_ref())
            && length(default).is_none()
        {
            findings
                .error(
                    "manifest_expand",
                    pos(),
                    format!(
                        "only a list or an object can be mapped over, and the default of `{shown}` is neither: a run that passes no \
                         other could not begin"
                    ),
                )
                .hint(format!(
                    "write a list as the default of `{name}`, or declare it without one"
                ));
            return;
        }
        if !given.is_list() {
            return;
        }
        let Step::To { shape: element, .. } = given.element(0) else {
            return;
        };
        if expand.how == Combine::Kwargs {
            if !element.has_members() {
                findings
                    .error(
                        "manifest_expand",
                        pos(),
                        format!(
                            "an element of `{shown}` is {}: `expand_kwargs` takes objects, whose members go into the input",
                            element.describe()
                        ),
                    )
                    .hint("write `expand: {name: …}` to map over values");
            }
            return;
        }
        let Some((id, takes)) = takes else { return };
        let pointer = format!("/{}", escape_pointer(&source.name));
        let Some(wanted) = consumer(&self.shape(takes), &pointer) else {
            return;
        };
        if let Some(why) = element.excludes(&wanted) {
            findings
                .error(
                    "manifest_schema_mismatch",
                    pos(),
                    format!(
                        "an element of `{shown}` can never be what task `{id}` takes at `{}`: {why}",
                        place(&pointer)
                    ),
                )
                .hint(mismatch_hint(&element, &wanted));
        }
    }
}

/// In the first iteration of a loop there is none before it.
fn first_iteration(used: &PathUse, pos: &dyn Fn() -> Pos, findings: &mut Findings) {
    let Some(Source::Xcom { xcom, path }) = used.source() else {
        return;
    };
    if xcom.previous && used.always {
        let shown = format!("previous.{}{}", short(&xcom.task), show_path(path));
        findings
            .error(
                "manifest_loop",
                pos(),
                format!("`{shown}` is missing in the first iteration, which nothing comes before: the task would fail"),
            )
            .hint(format!("supply what the first iteration takes: `{shown} | default(…)`"));
    }
}

fn never_published(name: &str, pos: Pos, findings: &mut Findings) {
    findings
        .error(
            "manifest_schema_mismatch",
            pos,
            format!("`{name}` is never there: the task answers null, which is not published"),
        )
        .hint("to run after it, name it in `after`; to get a value, let it return one");
}

fn validator(task: &TaskDecl, described: &TaskDescriptor, findings: &mut Findings) -> Option<Validator> {
    Validator::compile(&described.input)
        .map_err(|error| {
            let message = format!("the input schema of `{}` cannot be used: {error}", described.name);
            findings.error("component_schema", task.pos, message).hint(
                "this is the component's fault, not the manifest's: build it anew with a schema that can be used",
            );
        })
        .ok()
}

/// Validates what does not depend on templates.
fn literals(task: &TaskDecl, validator: &Validator, takes: &Shape<'_>, findings: &mut Findings) {
    let input = &task.input;
    // What the elements of a mapping bring is known only to the run.
    let mut value = std::borrow::Cow::Borrowed(&input.value);
    for source in task.expand.iter().flat_map(|expand| &expand.sources) {
        if source.name.is_empty() {
            return;
        }
        if let Value::Object(members) = value.to_mut() {
            members.insert(source.name.clone(), "{{ item }}".into());
        }
    }
    let found = match validator.check(&value) {
        Ok(found) => found,
        Err(why) => {
            let message = format!(
                "the input of task `{}` cannot be checked against its schema: {why}",
                task.id
            );
            findings.error(TOO_COSTLY, task.pos, message).hint(COSTLY_HINT);
            return;
        }
    };
    if found.is_empty() {
        return;
    }
    let any_template = has_template(&value);
    for finding in found {
        if any_template && depends_on_templates(&value, &finding) {
            continue;
        }
        invalid(task, &value, &finding, takes, findings);
    }
}

/// Reports what is wrong with a literal, as exactly as it is known.
fn invalid(task: &TaskDecl, value: &Value, finding: &Finding, takes: &Shape<'_>, findings: &mut Findings) {
    const CODE: &str = "manifest_input";
    let node = task.input.node.as_ref().map(|node| node.at(&finding.path));
    let pos = node.map_or(task.pos, |node| node.pos);
    let here = consumer(takes, &finding.path);
    if let ("additionalProperties" | "unevaluatedProperties", Some(here), Some(Value::Object(members))) =
        (finding.keyword.as_str(), &here, value.pointer(&finding.path))
    {
        let unknown: Vec<&String> = members.keys().filter(|name| !here.declares(name)).collect();
        for name in &unknown {
            if findings.is_full() {
                return;
            }
            // An element of a mapping has its name elsewhere.
            let mut sources = task.expand.iter().flat_map(|expand| &expand.sources);
            let mapped = sources.find(|source| finding.path.is_empty() && source.name == **name);
            let own = node.and_then(|node| node.key_pos(name));
            let pos = own.or(mapped.map(|source| source.input.pos)).unwrap_or(pos);
            let left = here
                .declared()
                .into_iter()
                .filter(|known| !members.contains_key(*known));
            let left: Vec<&str> = left.collect();
            let hint = findings
                .suggest(name, left.iter().copied())
                .unwrap_or_else(|| match left.is_empty() {
                    true => "remove it: it takes nothing else".to_owned(),
                    false => inspect(task),
                });
            findings
                .error(
                    CODE,
                    pos,
                    format!(
                        "task `{}` takes no `{}` at `{}`",
                        task.id,
                        short(name),
                        place(&finding.path)
                    ),
                )
                .hint(hint);
        }
        if !unknown.is_empty() {
            return;
        }
    }
    let given = value.pointer(&finding.path);
    let hint = match (finding.keyword.as_str(), &here) {
        ("required", Some(here)) => missing_hint(finding, here),
        ("type", Some(here)) => type_hint(given, here),
        _ => None,
    };
    let wanted = here.as_ref().and_then(Shape::description);
    let hint = hint
        .or_else(|| {
            wanted
                .filter(|_| !finding.path.is_empty())
                .map(|text| format!("it is meant for: {}", first_line(text)))
        })
        .unwrap_or_else(|| inspect(task));
    findings
        .error(
            CODE,
            pos,
            format!("the input of task `{}` is not valid: {finding}", task.id),
        )
        .hint(hint);
}

/// Where to look what a task takes.
fn inspect(task: &TaskDecl) -> String {
    match &task.component {
        Some(component) => format!("`airtight components inspect {}` shows what it takes", component.value),
        None => "the reference of manifests says what it takes".to_owned(),
    }
}

fn first_line(text: &str) -> String {
    short(text.lines().next().unwrap_or_default())
}

/// The validator quotes the name that is missing.
fn missing_hint(finding: &Finding, here: &Shape<'_>) -> Option<String> {
    let mut quoted = serde_json::Deserializer::from_str(&finding.message).into_iter::<String>();
    let name = quoted.next()?.ok()?;
    let Step::To { shape, .. } = here.member(&name) else {
        return None;
    };
    let means = shape.description().map(|text| format!(": {}", first_line(text)));
    Some(format!(
        "write `{}: …`, {}{}",
        short(&name),
        shape.describe(),
        means.unwrap_or_default()
    ))
}

fn type_hint(given: Option<&Value>, here: &Shape<'_>) -> Option<String> {
    match given? {
        Value::String(text)
            if here.excludes(&Shape::of(&TEXT)).is_some() && serde_json::from_str::<Value>(text).is_ok() =>
        {
            Some("remove the quotes".to_owned())
        }
        Value::Number(_) | Value::Bool(_) if here.excludes(&Shape::of(&TEXT)).is_none() => {
            Some("put it in quotes".to_owned())
        }
        Value::Null => Some(format!(
            "write {}, or leave the key out if it is optional",
            here.describe()
        )),
        _ => Some(format!("write {}", here.describe())),
    }
}

/// Warns of members that a task does not know and would not see, where the name of one that it knows is close.
fn misspelt(task: &TaskDecl, takes: &Shape<'_>, findings: &mut Findings) {
    let Value::Object(members) = &task.input.value else {
        return;
    };
    let sources = task.expand.iter().flat_map(|expand| &expand.sources);
    for source in sources.filter(|source| !source.name.is_empty()) {
        close_name(
            task,
            &source.name,
            source.input.pos,
            "",
            takes,
            |name| members.contains_key(name),
            findings,
        );
    }
    misspelt_in(task, &task.input.value, &mut String::new(), takes, findings);
}

fn misspelt_in(task: &TaskDecl, value: &Value, pointer: &mut String, takes: &Shape<'_>, findings: &mut Findings) {
    /// Of a long list all elements are likely alike.
    const ELEMENTS: usize = 20;
    let length = pointer.len();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if findings.is_full() {
                    return;
                }
                let node = task.input.node.as_ref().map(|node| node.at(pointer));
                let pos = node.and_then(|node| node.key_pos(name)).unwrap_or(task.input.pos);
                close_name(
                    task,
                    name,
                    pos,
                    pointer,
                    takes,
                    |name| members.contains_key(name),
                    findings,
                );
                if let (Value::Object(_) | Value::Array(_), Step::To { shape, .. }) = (member, takes.member(name)) {
                    pointer.push('/');
                    pointer.push_str(&escape_pointer(name));
                    misspelt_in(task, member, pointer, &shape, findings);
                    pointer.truncate(length);
                }
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate().take(ELEMENTS) {
                if let (Value::Object(_) | Value::Array(_), Step::To { shape, .. }) = (element, takes.element(at)) {
                    pointer.push_str(&format!("/{at}"));
                    misspelt_in(task, element, pointer, &shape, findings);
                    pointer.truncate(length);
                }
            }
        }
        _ => {}
    }
}

fn close_name(
    task: &TaskDecl,
    name: &str,
    pos: Pos,
    pointer: &str,
    takes: &Shape<'_>,
    is_there: impl Fn(&str) -> bool,
    findings: &mut Findings,
) {
    if !findings.can_suggest() || takes.says_of_others() || takes.declares(name) {
        return;
    }
    let left = takes.declared().into_iter().filter(|known| !is_there(known));
    let Some(close) = findings.closest(name, left) else {
        return;
    };
    let hint = format!("did you mean `{close}`?");
    findings
        .warning(
            "manifest_input",
            pos,
            format!(
                "task `{}` declares no `{}` at `{}`, and may never see it",
                task.id,
                short(name),
                place(pointer)
            ),
        )
        .hint(hint);
}

/// Whether a finding could vanish when templates are rendered. A finding about the shape of a map or a list stays: templates
/// stand for values, never for keys.
fn depends_on_templates(input: &Value, finding: &Finding) -> bool {
    let near = input.pointer(&finding.path).is_some_and(has_template);
    let far = finding.conditional && has_template(input);
    if !near && !far {
        return false;
    }
    let shape = matches!(
        finding.keyword.as_str(),
        "type" | "required" | "additionalProperties" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
    );
    finding.conditional || !shape || input.pointer(&finding.path).is_some_and(Value::is_string)
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(members) => members.values().any(has_template),
        _ => false,
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        "input".to_owned()
    } else {
        format!("input{}", pointer.replace('/', "."))
    }
}

/// What may help where two tasks do not fit together.
fn mismatch_hint(given: &Shape<'_>, wanted: &Shape<'_>) -> String {
    if wanted.is_list() && !given.is_list() && given.excludes(wanted).is_some() {
        return format!(
            "it wants a list, this is {}: write `[\"{{{{ … }}}}\"]`, or name another value",
            given.describe()
        );
    }
    format!(
        "it wants {}, this is {}: name another value, or put a task in between that turns one into the other",
        wanted.describe(),
        given.describe()
    )
}

/// Follows a template's path through the schema of what is published. What is never there is told with the severity; what may be
/// missing is a warning, if it is to be told.
pub(super) fn follow<'s>(
    mut shape: Shape<'s>,
    name: &str,
    path: &[Segment],
    pos: &dyn Fn() -> Pos,
    severity: Severity,
    tell_missing: bool,
    findings: &mut Findings,
) -> Option<Shape<'s>> {
    for (at, segment) in path.iter().enumerate() {
        let step = match segment {
            Segment::Key(key) => shape.member(key),
            Segment::Index(index) => shape.element(*index),
        };
        let shown = |upto: usize| format!("{name}{}", show_path(path.get(..upto).unwrap_or(path)));
        match step {
            Step::Never(why) => {
                let declared = shape.declared();
                let hint = match segment {
                    Segment::Key(key) => findings.suggest(key, declared.iter().copied()),
                    Segment::Index(_) => None,
                };
                let hint = hint.unwrap_or_else(|| format!("`{}` is {}", shown(at), shape.describe()));
                findings
                    .add(
                        severity,
                        "manifest_schema_mismatch",
                        pos(),
                        format!("`{}` is never there: in `{}` {why}", shown(at + 1), shown(at)),
                    )
                    .hint(hint);
                return None;
            }
            Step::To { shape: next, certain } => {
                let declared = matches!(segment, Segment::Key(key) if shape.declares(key));
                if tell_missing && !certain && declared {
                    findings
                        .warning(
                            "manifest_may_be_missing",
                            pos(),
                            format!("`{}` may be missing", shown(at + 1)),
                        )
                        .hint("supply a value for this case: `| default(…)`");
                }
                shape = next;
            }
        }
    }
    Some(shape)
}

/// What the consumer takes at a place of its input; nothing where that is unknown or reported elsewhere.
fn consumer<'s>(takes: &Shape<'s>, pointer: &str) -> Option<Shape<'s>> {
    let mut shape = takes.clone();
    for step in pointer.split('/').skip(1) {
        let key = step.replace("~1", "/").replace("~0", "~");
        // The pointer does not say whether a number is an index or a key.
        let next = match (shape.member(&key), key.parse::<usize>()) {
            (Step::To { shape, .. }, _) => shape,
            (Step::Never(_), Ok(index)) => match shape.element(index) {
                Step::To { shape, .. } => shape,
                Step::Never(_) => return None,
            },
            (Step::Never(_), Err(_)) => return None,
        };
        shape = next;
    }
    Some(shape)
}
