//! Rendering an input: done by the executor just before a task starts, with bounded work and bounded output.

use std::collections::HashMap;
use std::fmt;
use std::io;

use minijinja::value::{Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use super::analyse::{InputTemplate, Node, Path, RETURN_VALUE, Root, XcomRef, syntax};
use super::context::{TemplateContext, XcomInput};
use super::language::ROOTS;
use super::path::{Segment, follow, follow_value, show};
use super::value::{WriteError, from_json, write_json, write_string};

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
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self.fault {
            RenderFault::Undefined(_) => "template_undefined",
            RenderFault::TooLarge { .. } => "template_too_large",
            RenderFault::OutOfFuel => "template_out_of_fuel",
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
        let mut render = Render {
            context,
            fuel,
            max: max_output,
            out: String::new(),
            engine: None,
        };
        render.node(&self.root)?;
        Ok(render.out)
    }
}

struct Render<'c> {
    context: &'c TemplateContext<'c>,
    fuel: u64,
    max: usize,
    out: String,
    /// Built when the first template that is more than a path is met.
    engine: Option<(Environment<'c>, Jinja)>,
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

    /// The engine, for one template. A path that ends in a default may be missing from its first step on.
    fn engine(&mut self, source: &str) -> Result<&(Environment<'c>, Jinja), RenderFault> {
        if self.engine.is_none() {
            self.engine = Some((environment(self.context, self.fuel, self.max), root(self.context)?));
        }
        let missing = if has_default(source) {
            UndefinedBehavior::Chainable
        } else {
            UndefinedBehavior::Strict
        };
        if let Some((environment, _)) = &mut self.engine {
            environment.set_undefined_behavior(missing);
        }
        self.engine
            .as_ref()
            .ok_or_else(|| RenderFault::Failed("the template engine is missing".to_owned()))
    }

    fn expression(&mut self, source: &'c str) -> Result<(), RenderFault> {
        let max = self.max;
        let (environment, root) = self.engine(source)?;
        let value = environment
            .compile_expression(source)
            .and_then(|expression| expression.eval(root.clone()))
            .map_err(|error| fault(&error, max))?;
        write_json(&value, &mut self.out, max, 0).map_err(|error| match error {
            WriteError::Undefined => RenderFault::Undefined(format!("`{}` is not there", source.trim())),
            WriteError::TooLarge => RenderFault::TooLarge { limit: max },
            WriteError::Value(why) => RenderFault::Failed(why),
        })
    }

    fn text(&mut self, source: &'c str) -> Result<(), RenderFault> {
        let max = self.max;
        let left = max.saturating_sub(self.out.len());
        let (environment, root) = self.engine(source)?;
        let mut sink = Bounded {
            bytes: Vec::new(),
            left,
            over: false,
        };
        let rendered = environment
            .template_from_str(source)
            .and_then(|template| template.render_captured_to(root.clone(), &mut sink).map(drop));
        if sink.over {
            return Err(RenderFault::TooLarge { limit: max });
        }
        rendered.map_err(|error| fault(&error, max))?;
        let text = String::from_utf8(sink.bytes).map_err(|_| RenderFault::Failed("not text".to_owned()))?;
        write_string(&text, &mut self.out);
        if self.out.len() > max {
            return Err(RenderFault::TooLarge { limit: max });
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

/// Takes at most so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
    over: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.over = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.left -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn at(pointer: &str, fault: RenderFault) -> RenderError {
    RenderError {
        path: pointer.to_owned(),
        fault,
    }
}

fn fault(error: &Error, max: usize) -> RenderFault {
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

/// What the names in a template stand for.
fn root(context: &TemplateContext<'_>) -> Result<Jinja, RenderFault> {
    let mut names: HashMap<String, Jinja> = HashMap::new();
    for (root, previous) in [("xcom", false), ("previous", true)] {
        let of_root = |(xcom, _): &(&XcomRef, &XcomInput)| xcom.key == RETURN_VALUE && xcom.previous == previous;
        let tasks: HashMap<String, Jinja> = context
            .xcoms
            .iter()
            .filter(of_root)
            .map(|(xcom, input)| (xcom.task.clone(), jinja(xcom, input)))
            .collect();
        names.insert(root.to_owned(), Jinja::from(tasks));
    }
    let items = from_json(&object(context.items)).map_err(RenderFault::Failed)?;
    names.insert("item".to_owned(), items);
    let plain = |value: &Value| from_json(&value.to_string()).map_err(RenderFault::Failed);
    names.insert("params".to_owned(), plain(context.params)?);
    names.insert("conf".to_owned(), plain(context.conf)?);
    for name in ROOTS {
        if let Some(value) = context.scalar(name) {
            names.insert((*name).to_owned(), plain(&value)?);
        }
    }
    Ok(Jinja::from(names))
}

fn environment<'c>(context: &TemplateContext<'_>, fuel: u64, max: usize) -> Environment<'c> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_fuel(Some(fuel));
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // In text, what is not a string reads as JSON.
    environment.set_formatter(move |out, _, value| match value.kind() {
        ValueKind::String => out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from),
        _ => {
            let mut text = String::new();
            write_json(value, &mut text, max, 0).map_err(|error| match error {
                WriteError::Undefined => Error::from(ErrorKind::UndefinedError),
                WriteError::TooLarge => Error::from(ErrorKind::WriteFailure),
                WriteError::Value(why) => Error::new(ErrorKind::BadSerialization, why),
            })?;
            out.write_str(&text).map_err(Error::from)
        }
    });
    let keys: HashMap<XcomRef, Jinja> = context
        .xcoms
        .iter()
        .map(|(xcom, input)| (xcom.clone(), jinja(xcom, input)))
        .collect();
    environment.add_function("xcom_key", move |task: String, key: String| {
        keys.get(&XcomRef {
            task,
            key,
            previous: false,
        })
        .cloned()
        .unwrap_or(Jinja::UNDEFINED)
    });
    environment.add_filter("replace", move |text: String, from: String, to: String| {
        let grown = text.matches(from.as_str()).count().saturating_mul(to.len());
        if grown.saturating_add(text.len()) > max.saturating_mul(2) {
            return Err(Error::from(ErrorKind::WriteFailure));
        }
        Ok(text.replace(&from, &to))
    });
    environment.add_filter("join", move |items: Jinja, separator: Option<String>| {
        let separator = separator.unwrap_or_default();
        let mut text = String::new();
        for (at, item) in items.try_iter()?.enumerate() {
            if at > 0 {
                text.push_str(&separator);
            }
            match item.as_str() {
                Some(part) => text.push_str(part),
                None => write_json(&item, &mut text, max, 0).map_err(|error| match error {
                    WriteError::TooLarge => Error::from(ErrorKind::WriteFailure),
                    _ => Error::new(ErrorKind::InvalidOperation, "cannot join these values"),
                })?,
            }
            if text.len() > max {
                return Err(Error::from(ErrorKind::WriteFailure));
            }
        }
        Ok(text)
    });
    environment
}
