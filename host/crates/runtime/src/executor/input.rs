//! The input of a try: its templates are rendered here, just before the guest is instantiated, with the XComs that they
//! name, and the result is checked against the task's input schema.

use std::collections::HashMap;
use std::sync::Arc;

use model::budget::Exhausted;
use model::json;
use model::schema::Validator;
use model::template::{InputTemplate, RenderError, TemplateContext, XcomInput, XcomRef, with_members};
use model::{BlobRef, TaskId};
use ports::executor::{Element, ElementAt, TryRequest};
use ports::payload::{MAX_LIST_BYTES, Pulled, XcomBackend, XcomError, XcomValue};
use serde_json::Value;

use super::attempt::Attempt;
use crate::cache::Entry;
use crate::limits::{Account, Held, as_u64};
use crate::outcome::Death;

/// Steps of the template engine for one string.
pub(super) const TEMPLATE_FUEL: u64 = 200_000;
/// The longest name of a mapped task instance, in bytes (Airflow: `rendered_map_index` has 250 characters).
const MAX_NAME_BYTES: usize = 250;
/// The largest rendered input, in bytes of JSON text.
pub(super) const MAX_INPUT_BYTES: usize = 16 << 20;

/// What the input is made of.
const XCOMS: &str = "the XComs that the input's templates read";

/// What a guest is called with.
pub(super) struct Input {
    /// JSON text.
    pub(super) text: String,
    /// The same, read.
    pub(super) value: Value,
    /// What it refers to, and what the XComs refer to that went into it.
    pub(super) blobs: Vec<BlobRef>,
    /// What a mapped task instance is called.
    pub(super) name: Option<String>,
    /// The tree, in the account of the try, as long as it is there.
    tree: Option<Held>,
    /// The text, in the account of the try: the call holds it until the guest answers.
    _held: Held,
}

/// Renders and checks.
pub(super) async fn prepare(attempt: &Attempt, entry: &Entry) -> Result<Input, Death> {
    let mut input = render(attempt).await?;
    // The guest is given the text.
    let value = std::mem::take(&mut input.value);
    let problems = problems(attempt, &entry.input, value).await.map_err(|why| {
        Death::Input(format!(
            "cannot check the input against the schema of task `{}`: {why}",
            attempt.request.task.work.operator_name()
        ))
    })?;
    input.tree = None;
    if !problems.is_empty() {
        return Err(Death::Input(format!(
            "the input does not match the schema of task `{}`: {}",
            attempt.request.task.work.operator_name(),
            problems.join("; ")
        )));
    }
    Ok(input)
}

/// Checks a value, within what the try may compute.
pub(super) async fn problems(
    attempt: &Attempt,
    validator: &Arc<Validator>,
    value: Value,
) -> Result<Vec<String>, Exhausted> {
    let job = Arc::new((Arc::clone(validator), value));
    let findings = attempt
        .compute
        .run(&job, |(validator, value)| validator.check(value), |why| Some(*why));
    let findings = findings.await?;
    Ok(findings.iter().map(ToString::to_string).collect())
}

/// Renders. What is read for it is held in the try's account meanwhile, and so is what it makes.
pub(super) async fn render(attempt: &Attempt) -> Result<Input, Death> {
    let (request, account) = (&attempt.request, &attempt.account);
    let template = InputTemplate::parse(&request.task.input).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Death::Input(format!("the input's templates are not valid: {}", texts.join("; ")))
    })?;
    let Gathered { job, mut blobs, held } = gather(attempt, template).await?;
    let (text, found) = attempt
        .compute
        .run(&job, Rendering::render, Failed::unfinished)
        .await
        .map_err(|failed| failed.death(account))?;
    let name = job.named(attempt).await;
    drop(job);
    drop(held);
    let room = || Death::NoRoom("the rendered input");
    let held = Held::of(account, as_u64(text.len())).ok_or_else(room)?;
    let tree = Held::of(account, json::tree_bytes(&text)).ok_or_else(room)?;
    blobs.extend(found);
    let value: Value =
        serde_json::from_str(&text).map_err(|error| Death::Input(format!("the rendered input is refused: {error}")))?;
    Ok(Input {
        text,
        value,
        blobs,
        name,
        tree: Some(tree),
        _held: held,
    })
}

/// What a rendering needs, read.
pub(super) struct Gathered {
    pub(super) job: Arc<Rendering>,
    /// What the values refer to.
    pub(super) blobs: Vec<BlobRef>,
    /// The values, in the account of the try.
    pub(super) held: Held,
}

/// Reads what a template names, and the elements of the mappings around the task.
pub(super) async fn gather(attempt: &Attempt, template: InputTemplate) -> Result<Gathered, Death> {
    let request = &attempt.request;
    let mut source = Source {
        request,
        xcoms: attempt.services.xcoms.as_ref(),
        blobs: Vec::new(),
        held: Held::nothing(&attempt.account),
        account: &attempt.account,
    };
    let mut values = HashMap::with_capacity(template.xcom_refs().len());
    for reference in template.xcom_refs() {
        if let Some(value) = source.pull(reference).await? {
            values.insert(reference.clone(), value);
        }
    }
    let elements = elements(&mut source).await?;
    let job = Arc::new(Rendering {
        request: Arc::clone(request),
        template,
        elements,
        values,
    });
    let Source { blobs, held, .. } = source;
    Ok(Gathered { job, blobs, held })
}

/// Everything that a rendering needs.
pub(super) struct Rendering {
    request: Arc<TryRequest>,
    template: InputTemplate,
    elements: Elements,
    values: HashMap<XcomRef, XcomInput>,
}

/// The reason why it comes to nothing.
pub(super) enum Failed {
    Render(RenderError),
    Death(Death),
}

impl Failed {
    pub(super) const fn unfinished(&self) -> Option<Exhausted> {
        match self {
            Self::Render(error) => error.exhausted(),
            Self::Death(_) => None,
        }
    }

    pub(super) fn death(self, account: &Account) -> Death {
        match self {
            Self::Render(error) if error.exhausted() == Some(Exhausted::Bytes) && account.refusal().is_some() => {
                Death::NoRoom("the rendered input")
            }
            Self::Render(error) => Death::Input(error.to_string()),
            Self::Death(death) => death,
        }
    }
}

impl Rendering {
    /// The input, and what it refers to.
    fn render(&self) -> Result<(String, Vec<BlobRef>), Failed> {
        let context = context(&self.request, &self.elements.items, &self.values);
        let text = self
            .template
            .render(&context, TEMPLATE_FUEL, MAX_INPUT_BYTES)
            .map_err(Failed::Render)?;
        let text = self.elements.join(text).map_err(Failed::Death)?;
        let found = json::check(&text, u64::MAX)
            .map_err(|error| Failed::Death(Death::Input(format!("the rendered input is refused: {error}"))))?;
        Ok((text, found))
    }

    /// What a template comes to that is not an input: JSON text of at most so many bytes.
    pub(super) fn text(&self, most: usize) -> Result<String, RenderError> {
        let context = context(&self.request, &self.elements.items, &self.values);
        self.template.render(&context, TEMPLATE_FUEL, most)
    }

    /// The name of a mapped task instance, where it has one. A template that fails gives none: it is for people only.
    pub(super) async fn named(self: &Arc<Self>, attempt: &Attempt) -> Option<String> {
        self.request.task.map_index_template.as_ref()?;
        let named = attempt.compute.run(self, Self::name, RenderError::exhausted);
        named.await.ok().flatten()
    }

    /// The name of a mapped task instance.
    fn name(&self) -> Result<Option<String>, RenderError> {
        let template = self.request.task.map_index_template.clone().map(Value::String);
        let Some(template) = template.and_then(|template| InputTemplate::parse(&template).ok()) else {
            return Ok(None);
        };
        let context = context(&self.request, &self.elements.items, &self.values);
        let text = template.render(&context, TEMPLATE_FUEL, MAX_NAME_BYTES)?;
        Ok(match serde_json::from_str(&text) {
            Ok(Value::String(name)) => Some(name),
            Ok(other) => Some(other.to_string()),
            Err(_) => None,
        })
    }
}

/// What the templates of a try see.
pub(super) fn context<'a>(
    request: &'a TryRequest,
    items: &'a [(String, Arc<str>)],
    xcoms: &'a HashMap<XcomRef, XcomInput>,
) -> TemplateContext<'a> {
    let run = &request.run;
    TemplateContext {
        dag_id: run.dag_id.as_str(),
        run_id: run.run_id.as_str(),
        task_id: request.task.task_id.as_str(),
        map_index: request.id.map_index().0,
        try_number: request.id.try_number.0,
        iteration: request.position.as_ref().and_then(|position| position.iteration),
        items,
        callback: request.callback.as_deref(),
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        params: &run.params,
        conf: &run.conf,
        xcoms,
    }
}

/// Where values come from, and what was taken from there.
struct Source<'a> {
    request: &'a TryRequest,
    xcoms: &'a dyn XcomBackend,
    account: &'a Arc<Account>,
    /// What the values refer to.
    blobs: Vec<BlobRef>,
    /// The values.
    held: Held,
}

impl Source<'_> {
    async fn pull(&mut self, reference: &XcomRef) -> Result<Option<XcomInput>, Death> {
        let task = TaskId::new(&reference.task).map_err(|error| Death::Input(error.to_string()))?;
        let (id, most) = (self.request.id, self.account.free());
        let pulled = if reference.previous {
            self.xcoms.pull_previous(id, &task, &reference.key, most).await
        } else {
            self.xcoms.pull(id, &task, &reference.key, None, most).await
        };
        match pulled {
            Ok(Pulled::Missing) => Ok(None),
            Ok(Pulled::One(value)) => Ok(Some(XcomInput::One(self.take(value)?))),
            Ok(Pulled::Mapped(values)) => {
                let mut texts: Vec<Arc<str>> = Vec::with_capacity(values.len());
                for (_, value) in values {
                    texts.push(self.take(value)?);
                }
                Ok(Some(XcomInput::Mapped(texts)))
            }
            Err(error) => Err(self.pull_failed(error)),
        }
    }

    fn take(&mut self, value: XcomValue) -> Result<Arc<str>, Death> {
        if !self.held.add(as_u64(value.value.len())) {
            return Err(Death::NoRoom(XCOMS));
        }
        self.blobs.extend(value.blobs);
        Ok(value.value)
    }

    fn pull_failed(&self, error: XcomError) -> Death {
        match error {
            XcomError::TooLarge { limit, .. } if limit < MAX_LIST_BYTES => {
                // The account notes what was wanted.
                let _ = Held::of(self.account, limit.saturating_add(1));
                Death::NoRoom(XCOMS)
            }
            XcomError::NotUpstream(_) | XcomError::Stale | XcomError::TooLarge { .. } => {
                Death::Input(error.to_string())
            }
            XcomError::Backend(source) => Death::Load(format!("cannot read the XComs of the input: {source}")),
        }
    }
}

/// What a task instance is mapped over.
#[derive(Default)]
pub(super) struct Elements {
    /// By name, for templates; an inner one hides an outer one.
    items: Vec<(String, Arc<str>)>,
    /// JSON objects whose members go into the input.
    members: Vec<String>,
}

impl Elements {
    /// The input with the elements of the task's own mapping. A member that is there twice is refused with the input.
    fn join(&self, mut text: String) -> Result<String, Death> {
        for members in &self.members {
            text = with_members(&text, members).ok_or_else(|| {
                Death::Input("a mapped task needs an object as its input: elements become members of it".to_owned())
            })?;
        }
        Ok(text)
    }

    fn add(&mut self, name: String, value: Arc<str>) {
        self.items.retain(|(known, _)| *known != name);
        self.items.push((name, value));
    }
}

async fn elements(source: &mut Source<'_>) -> Result<Elements, Death> {
    let mut elements = Elements::default();
    let request = source.request;
    for element in request.position.iter().flat_map(|position| &position.elements) {
        let value = element_value(source, element).await?;
        if !element.name.is_empty() {
            if element.into_input {
                let name = Value::from(element.name.as_str());
                elements.members.push(format!("{{{name}:{value}}}"));
            }
            elements.add(element.name.clone(), value);
            continue;
        }
        let members: serde_json::Map<String, Value> = serde_json::from_str(&value).map_err(|_| {
            Death::Input("each element of `expand_kwargs` must be an object: its members become the input's".to_owned())
        })?;
        for (name, member) in members {
            elements.add(name, member.to_string().into());
        }
        if element.into_input {
            elements.members.push(value.to_string());
        }
    }
    Ok(elements)
}

async fn element_value(source: &mut Source<'_>, element: &Element) -> Result<Arc<str>, Death> {
    let (id, xcoms) = (source.request.id, source.xcoms);
    let gone = |task: &TaskId| {
        Death::Input(format!(
            "what task `{task}` published to be mapped over is not there any more"
        ))
    };
    match &element.at {
        ElementAt::Value { value } => Ok(value.as_str().into()),
        ElementAt::Within { task, key, path, index } => {
            let found = xcoms.pull_element(id, task, key, path, *index).await;
            let value = found.map_err(|error| source.pull_failed(error))?;
            source.take(value.ok_or_else(|| gone(task))?)
        }
        ElementAt::Whole {
            task,
            key,
            path,
            map_index,
        } => match xcoms.pull(id, task, key, Some(*map_index), source.account.free()).await {
            Ok(Pulled::One(value)) => {
                let whole = source.take(value)?;
                let text = model::template::follow(&whole, path).ok_or_else(|| gone(task))?;
                Ok(text.into())
            }
            Ok(_) => Err(gone(task)),
            Err(error) => Err(source.pull_failed(error)),
        },
    }
}
