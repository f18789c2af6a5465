//! Rendering an input: done by the executor just before a task starts, with bounded work and bounded output.

use std::collections::HashMap;
use std::fmt;

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{parse, parse_expr};
use minijinja::value::Value as Jinja;
use minijinja::{Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use super::analyse::{InputTemplate, Node, Path, RETURN_VALUE, Root, XcomRef, syntax};
use super::context::{TemplateContext, XcomInput};
use super::eval::{Eval, Names};
use super::filters::limited;
use super::language::ROOTS;
use super::path::{Segment, follow, follow_value, show};
use super::value::{WriteError, from_json, write_json, write_string};
use crate::budget::{self, Budget, Exhausted, grow, spend, within};

/// Bounds of rendering one input where nobody gives less.
const RENDERING: Budget = Budget::new(200_000_000, 256 << 20);

/// One of its templates: what it makes is given back before the next one.
const TEMPLATE: Budget = Budget::new(u64::MAX, u64::MAX);

/// Why an input cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenderFault {
    /// A value is missing, and no default is given.
    Undefined(String),
    /// The rendered input is over the limit.
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The template takes too many steps.
    OutOfFuel,
    /// The budget of the rendering is used up: its bytes, its depth, or it was stopped.
    Exhausted(Exhausted),
    /// Anything else.
    Failed(String),
}

/// An input cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RenderError {
    /// The string in the input: a JSON pointer.
    pub path: String,
    /// Why.
    pub fault: RenderFault,
}

impl RenderError {
    /// Answers the bound that it was over, if it was over one.
    pub const fn exhausted(&self) -> Option<Exhausted> {
        match self.fault {
            RenderFault::OutOfFuel => Some(Exhausted::Steps),
            RenderFault::Exhausted(why) => Some(why),
            RenderFault::Undefined(_) | RenderFault::TooLarge { .. } | RenderFault::Failed(_) => None,
        }
    }

    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self.fault {
            RenderFault::Undefined(_) => "template_undefined",
            RenderFault::TooLarge { .. } => "template_too_large",
            RenderFault::OutOfFuel | RenderFault::Exhausted(Exhausted::Steps) => "template_out_of_fuel",
            RenderFault::Exhausted(Exhausted::Bytes) => "template_out_of_memory",
            RenderFault::Exhausted(Exhausted::Depth) => "template_too_deep",
            RenderFault::Exhausted(Exhausted::Stopped) => "template_stopped",
            RenderFault::Failed(_) => "template_failed",
        }
    }
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot render the input")?;
        if !self.path.is_empty() {
            write!(f, " at {}", self.path)?;
        }
        match &self.fault {
            RenderFault::Undefined(what) => write!(f, ": {what}"),
            RenderFault::TooLarge { limit } => write!(f, ": it is over the limit of {limit} bytes"),
            RenderFault::OutOfFuel => write!(f, ": it takes too many steps"),
            RenderFault::Exhausted(why) => write!(f, ": {why}"),
            RenderFault::Failed(why) => write!(f, ": {why}"),
        }
    }
}

impl InputTemplate {
    /// Renders the input to JSON text. Each template may take `fuel` steps; the text has at most `max_output` bytes.
    pub fn render<'c>(
        &'c self,
        context: &'c TemplateContext<'c>,
        fuel: u64,
        max_output: usize,
    ) -> Result<String, RenderError> {
        within(RENDERING, || {
            let mut render = Render {
                context,
                fuel,
                max: max_output,
                out: String::new(),
                names: Roots {
                    context,
                    roots: HashMap::new(),
                    keys: HashMap::new(),
                },
            };
            render.node(&self.root)?;
            Ok(render.out)
        })
    }
}

struct Render<'c> {
    context: &'c TemplateContext<'c>,
    fuel: u64,
    max: usize,
    out: String,
    names: Roots<'c>,
}

impl<'c> Render<'c> {
    fn node(&mut self, node: &'c Node) -> Result<(), RenderError> {
        match node {
            Node::Literal(text) => self.push(text, ""),
            Node::Array(items) => {
                self.push("[", "")?;
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.push(",", "")?;
                    }
                    self.node(item)?;
                }
                self.push("]", "")
            }
            Node::Object(members) => {
                self.push("{", "")?;
                for (at, (key, item)) in members.iter().enumerate() {
                    if at > 0 {
                        self.push(",", "")?;
                    }
                    write_string(key, &mut self.out);
                    self.push(":", "")?;
                    self.node(item)?;
                }
                self.push("}", "")
            }
            Node::Path { pointer, path } => {
                let text = self.path(path).map_err(|fault| at(pointer, fault))?;
                grow(text.len() as u64).map_err(|why| at(pointer, exhausted(why)))?;
                self.push(&text, pointer)
            }
            Node::Expression { pointer, source } => self.expression(source).map_err(|fault| at(pointer, fault)),
            Node::Text { pointer, source } => self.text(source).map_err(|fault| at(pointer, fault)),
        }
    }

    fn push(&mut self, text: &str, pointer: &str) -> Result<(), RenderError> {
        if self.out.len() + text.len() > self.max {
            return Err(at(pointer, RenderFault::TooLarge { limit: self.max }));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// The JSON text behind a path, as the producer wrote it.
    fn path(&self, path: &Path) -> Result<String, RenderFault> {
        // A path is followed by reading from the beginning.
        let read = match &path.root {
            Root::Xcom(xcom) => match self.context.xcoms.get(xcom) {
                Some(XcomInput::One(text)) => text.len(),
                Some(XcomInput::Mapped(texts)) => texts.iter().map(|text| text.len() + 1).sum(),
                None => 0,
            },
            Root::Item => self.context.items.iter().map(|(_, text)| text.len()).sum(),
            Root::Params | Root::Conf | Root::Scalar(_) => 0,
        };
        spend(10 + read as u64 / 4).map_err(exhausted)?;
        if matches!(&path.root, Root::Xcom(xcom) if matches!(self.context.xcoms.get(xcom), Some(XcomInput::Mapped(_))))
        {
            // The list is written to be read.
            grow(read as u64).map_err(exhausted)?;
        }
        let found = match &path.root {
            Root::Xcom(xcom) => match self.context.xcoms.get(xcom) {
                None => return Err(RenderFault::Undefined(not_published(xcom))),
                Some(XcomInput::One(text)) => follow(text, &path.segments).map(str::to_owned),
                Some(XcomInput::Mapped(texts)) => follow(&list(texts), &path.segments).map(str::to_owned),
            },
            Root::Params => follow_value(self.context.params, &path.segments).map(Value::to_string),
            Root::Conf => follow_value(self.context.conf, &path.segments).map(Value::to_string),
            Root::Item => match path.segments.split_first() {
                Some((Segment::Key(name), rest)) => {
                    let element = self.context.items.iter().find(|(known, _)| known == name);
                    element.and_then(|(_, text)| follow(text, rest)).map(str::to_owned)
                }
                Some(_) => None,
                None => Some(object(self.context.items)),
            },
            Root::Scalar(name) => match self.context.scalar(name) {
                None => return Err(RenderFault::Undefined(format!("`{name}` is not set: the run has none"))),
                Some(value) => follow_value(&value, &path.segments).map(Value::to_string),
            },
        };
        found.ok_or_else(|| {
            let root = match &path.root {
                Root::Xcom(xcom) => name_of(xcom),
                Root::Params => "params".to_owned(),
                Root::Conf => "conf".to_owned(),
                Root::Item => "item".to_owned(),
                Root::Scalar(name) => name.clone(),
            };
            RenderFault::Undefined(format!("`{root}{}` is not there", show(&path.segments)))
        })
    }

    /// Evaluates one template, within the bounds of the language.
    fn evaluate<T>(
        &mut self,
        source: &str,
        evaluate: impl FnOnce(&mut Eval<'_>, &mut String) -> Result<T, Error>,
    ) -> Result<T, RenderFault> {
        // A path that ends in a default may be missing from its first step on.
        let missing = if has_default(source) {
            UndefinedBehavior::Chainable
        } else {
            UndefinedBehavior::Strict
        };
        let (fuel, max) = (self.fuel, self.max);
        let (names, out) = (&mut self.names, &mut self.out);
        // What names stand for outlives the template, and so does what it costs.
        names.read(source).map_err(|error| fault(&error, max))?;
        within(TEMPLATE, || {
            spend(8 * source.len() as u64).map_err(exhausted)?;
            let mut eval = Eval::new(names, missing, fuel, max);
            limited(max, || evaluate(&mut eval, out)).map_err(|error| fault(&error, max))
        })
    }

    fn expression(&mut self, source: &'c str) -> Result<(), RenderFault> {
        let max = self.max;
        self.evaluate(source, |eval, out| {
            let value = eval.expression(&parse_expr(source)?)?;
            Ok(write_json(&value, out, max, 0).map_err(|error| match error {
                WriteError::Undefined => RenderFault::Undefined(format!("`{}` is not there", source.trim())),
                WriteError::TooLarge => RenderFault::TooLarge { limit: max },
                WriteError::Exhausted(why) => exhausted(why),
                WriteError::Value(why) => RenderFault::Failed(why),
            }))
        })?
    }

    fn text(&mut self, source: &'c str) -> Result<(), RenderFault> {
        let left = self.max.saturating_sub(self.out.len());
        let limit = self.max;
        let text = self.evaluate(source, |eval, _| {
            let mut text = String::new();
            if let Stmt::Template(template) = parse(source, "<input>", syntax())? {
                eval.statements(&template.children, &mut text)?;
            }
            Ok(text)
        })?;
        if text.len() > left {
            return Err(RenderFault::TooLarge { limit });
        }
        write_string(&text, &mut self.out);
        if self.out.len() > limit {
            return Err(RenderFault::TooLarge { limit });
        }
        Ok(())
    }
}

/// Whether a template uses the filter `default`, or its short name `d`.
fn has_default(source: &str) -> bool {
    source.split('|').skip(1).any(|filter| {
        let name = filter.trim_start();
        let end = name
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        matches!(name.get(..end), Some("default" | "d"))
    })
}

fn at(pointer: &str, fault: RenderFault) -> RenderError {
    RenderError {
        path: pointer.to_owned(),
        fault,
    }
}

const fn exhausted(why: Exhausted) -> RenderFault {
    match why {
        Exhausted::Steps => RenderFault::OutOfFuel,
        why => RenderFault::Exhausted(why),
    }
}

fn fault(error: &Error, max: usize) -> RenderFault {
    if let Some(why) = budget::exhausted() {
        return exhausted(why);
    }
    let message = error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| format!("{}: {detail}", error.kind()),
    );
    match error.kind() {
        ErrorKind::OutOfFuel => RenderFault::OutOfFuel,
        ErrorKind::UndefinedError => RenderFault::Undefined(message),
        ErrorKind::WriteFailure => RenderFault::TooLarge { limit: max },
        _ => RenderFault::Failed(message),
    }
}

fn name_of(xcom: &XcomRef) -> String {
    if xcom.key == RETURN_VALUE {
        let root = if xcom.previous { "previous" } else { "xcom" };
        format!("{root}.{}", xcom.task)
    } else {
        format!("xcom_key(\"{}\", \"{}\")", xcom.task, xcom.key)
    }
}

fn not_published(xcom: &XcomRef) -> String {
    if xcom.previous {
        return format!(
            "`{}` is not there: this is the first iteration, or the task published nothing in the one before",
            name_of(xcom)
        );
    }
    format!(
        "`{}` is not there: task `{}` published nothing under it",
        name_of(xcom),
        xcom.task
    )
}

fn list(texts: &[std::sync::Arc<str>]) -> String {
    let mut list = String::with_capacity(texts.iter().map(|text| text.len() + 1).sum::<usize>() + 2);
    list.push('[');
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            list.push(',');
        }
        list.push_str(text);
    }
    list.push(']');
    list
}

/// One JSON object of members that are JSON texts.
pub(super) fn object(members: &[(String, std::sync::Arc<str>)]) -> String {
    let mut text = "{".to_owned();
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        write_string(name, &mut text);
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text
}

/// The engine's value of an XCom. One that it cannot hold is a value that fails when it is touched: another template of the
/// same input may pass it on whole.
fn jinja(xcom: &XcomRef, input: &XcomInput) -> Jinja {
    let value = match input {
        XcomInput::One(text) => from_json(text),
        XcomInput::Mapped(texts) => texts
            .iter()
            .map(|text| from_json(text))
            .collect::<Result<Vec<_>, _>>()
            .map(Jinja::from),
    };
    value.unwrap_or_else(|why| {
        Jinja::from(Error::new(
            ErrorKind::InvalidOperation,
            format!("cannot read `{}`: {why}", name_of(xcom)),
        ))
    })
}

/// The values behind the names in templates, read when the first template names them.
struct Roots<'c> {
    context: &'c TemplateContext<'c>,
    roots: HashMap<String, Jinja>,
    keys: HashMap<XcomRef, Jinja>,
}

impl Roots<'_> {
    /// Reads whatever the source of a template may name.
    fn read(&mut self, source: &str) -> Result<(), Error> {
        for name in ROOTS {
            if source.contains(name)
                && !self.roots.contains_key(*name)
                && let Some(value) = self.value(name)?
            {
                self.roots.insert((*name).to_owned(), value);
            }
        }
        if source.contains("xcom_key") {
            for (xcom, input) in self.context.xcoms {
                let named = xcom.key != RETURN_VALUE || source.contains(RETURN_VALUE);
                if named && !self.keys.contains_key(xcom) {
                    self.keys.insert(xcom.clone(), jinja(xcom, input));
                    paid()?;
                }
            }
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Result<Option<Jinja>, Error> {
        let read = |text: &str| from_json(text).map_err(|why| Error::new(ErrorKind::InvalidOperation, why));
        let value = match name {
            "xcom" | "previous" => {
                let of_root = |(xcom, _): &(&XcomRef, &XcomInput)| {
                    xcom.key == RETURN_VALUE && xcom.previous == (name == "previous")
                };
                let tasks: HashMap<String, Jinja> = self
                    .context
                    .xcoms
                    .iter()
                    .filter(of_root)
                    .map(|(xcom, input)| (xcom.task.clone(), jinja(xcom, input)))
                    .collect();
                Jinja::from(tasks)
            }
            "item" => read(&object(self.context.items))?,
            "params" => read(&self.context.params.to_string())?,
            "conf" => read(&self.context.conf.to_string())?,
            name => match self.context.scalar(name) {
                Some(value) => read(&value.to_string())?,
                None => return Ok(None),
            },
        };
        paid()?;
        Ok(Some(value))
    }
}

/// Fails where reading a value used up the budget: the value itself then looks like one that cannot be read.
fn paid() -> Result<(), Error> {
    budget::exhausted().map_or(Ok(()), |why| Err(why.into()))
}

impl Names for Roots<'_> {
    fn root(&mut self, name: &str) -> Result<Option<Jinja>, Error> {
        Ok(self.roots.get(name).cloned())
    }

    fn xcom(&mut self, task: &str, key: &str) -> Jinja {
        let xcom = XcomRef {
            task: task.to_owned(),
            key: key.to_owned(),
            previous: false,
        };
        if let Some(value) = self.keys.get(&xcom) {
            return value.clone();
        }
        // A name that is written with escapes was not seen in the source.
        match self.context.xcoms.get_key_value(&xcom) {
            Some((xcom, input)) => self.keys.entry(xcom.clone()).or_insert(jinja(xcom, input)).clone(),
            None => Jinja::UNDEFINED,
        }
    }
}
