//! Reading templates: what they name, and whether they are allowed at all, before anything runs.

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use serde_json::Value;

use super::language::{MAX_TEMPLATE_BYTES, MAX_TOKENS};
use super::path::Segment;
use super::walk::Walk;

/// The key of a task's return value (Airflow: `XCOM_RETURN_KEY`).
pub const RETURN_VALUE: &str = "return_value";

/// A template is not allowed, or is not Jinja.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The string in the input: a JSON pointer.
    pub path: String,
    /// Where in the string, in bytes.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// An XCom that a template names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XcomRef {
    /// The task.
    pub task: String,
    /// The key; `return_value` for `xcom.<task>`.
    pub key: String,
    /// Of the iteration before, in a loop: `previous.<task>`.
    pub previous: bool,
}

/// A place in an input that names an XCom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XcomUse {
    /// The string in the input: a JSON pointer.
    pub path: String,
    /// Where in the string, in bytes.
    pub offset: usize,
    /// What is named.
    pub xcom: XcomRef,
}

/// A task input whose strings may be templates.
#[derive(Clone, Debug)]
pub struct InputTemplate {
    pub(super) root: Node,
    refs: Vec<XcomRef>,
    uses: Vec<XcomUse>,
    param_uses: Vec<(String, usize, String)>,
    item_uses: Vec<(String, usize, String)>,
    root_uses: Vec<(String, usize, TemplateRoot)>,
}

/// A name that means something only somewhere: where something is repeated, or in a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateRoot {
    /// The elements that a task is mapped over.
    Item,
    /// The iteration of a loop.
    Iteration,
    /// What a callback is told.
    Callback,
}

impl std::fmt::Display for TemplateRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Item => "item",
            Self::Iteration => "iteration",
            Self::Callback => "callback",
        })
    }
}

/// One value of an input.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// JSON text without any template.
    Literal(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
    /// Exactly one expression that is nothing but a path.
    Path {
        pointer: String,
        path: Path,
    },
    /// Exactly one expression: keeps its type.
    Expression {
        pointer: String,
        source: String,
    },
    /// Text with templates in it.
    Text {
        pointer: String,
        source: String,
    },
}

/// A path from a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    pub(super) segments: Vec<Segment>,
}

/// Where a path starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Xcom(XcomRef),
    Params,
    Conf,
    /// The elements that the task instance is mapped over.
    Item,
    Scalar(String),
}

/// How strings are parsed, here and when they are rendered.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .unwrap_or_default()
}

impl InputTemplate {
    /// Reads an input.
    pub fn parse(input: &Value) -> Result<Self, Vec<TemplateError>> {
        let mut reader = Reader::default();
        let root = reader.node(input, String::new());
        if !reader.errors.is_empty() {
            return Err(reader.errors);
        }
        let mut refs: Vec<XcomRef> = reader.uses.iter().map(|used| used.xcom.clone()).collect();
        refs.sort();
        refs.dedup();
        Ok(Self {
            root,
            refs,
            uses: reader.uses,
            param_uses: reader.param_uses,
            item_uses: reader.item_uses,
            root_uses: reader.root_uses,
        })
    }

    /// The XComs that the input names, ascending, without repeats.
    pub fn xcom_refs(&self) -> &[XcomRef] {
        &self.refs
    }

    /// Where it names them.
    pub fn xcom_uses(&self) -> &[XcomUse] {
        &self.uses
    }

    /// The values of the input whose schema is known: JSON pointer, and where the value comes from.
    pub fn sources(&self) -> Vec<(&str, Source<'_>)> {
        let mut sources = Vec::new();
        collect(&self.root, &mut sources);
        sources
    }

    /// Where it names what only something repeated, or a callback, has: JSON pointer of the string, offset in it, name.
    pub fn root_uses(&self) -> impl Iterator<Item = (&str, usize, TemplateRoot)> {
        self.root_uses
            .iter()
            .map(|(path, offset, root)| (path.as_str(), *offset, *root))
    }

    /// Where it names elements: JSON pointer of the string, offset in it, name.
    pub fn item_uses(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.item_uses
            .iter()
            .map(|(path, offset, name)| (path.as_str(), *offset, name.as_str()))
    }

    /// Where it names parameters: JSON pointer of the string, offset in it, name.
    pub fn param_uses(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.param_uses
            .iter()
            .map(|(path, offset, name)| (path.as_str(), *offset, name.as_str()))
    }
}

/// Where a value of an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'t> {
    /// A path into an XCom.
    Xcom {
        /// Which.
        xcom: &'t XcomRef,
        /// The path inside.
        path: &'t [Segment],
    },
    /// A path into a parameter.
    Param {
        /// Which.
        name: &'t str,
        /// The path inside.
        path: &'t [Segment],
    },
    /// Text with templates in it.
    Text,
}

fn collect<'t>(node: &'t Node, sources: &mut Vec<(&'t str, Source<'t>)>) {
    match node {
        Node::Literal(_) | Node::Expression { .. } => {}
        Node::Array(items) => items.iter().for_each(|item| collect(item, sources)),
        Node::Object(members) => members.iter().for_each(|(_, item)| collect(item, sources)),
        Node::Text { pointer, .. } => sources.push((pointer, Source::Text)),
        Node::Path { pointer, path } => match (&path.root, path.segments.as_slice()) {
            (Root::Xcom(xcom), path) => sources.push((pointer, Source::Xcom { xcom, path })),
            (Root::Params, [Segment::Key(name), path @ ..]) => sources.push((pointer, Source::Param { name, path })),
            _ => {}
        },
    }
}

/// Whether a string is a template.
pub(crate) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// Reads the values of one input.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) errors: Vec<TemplateError>,
    pub(super) uses: Vec<XcomUse>,
    pub(super) param_uses: Vec<(String, usize, String)>,
    pub(super) item_uses: Vec<(String, usize, String)>,
    pub(super) root_uses: Vec<(String, usize, TemplateRoot)>,
}

impl Reader {
    fn node(&mut self, value: &Value, pointer: String) -> Node {
        match value {
            Value::String(text) if is_template(text) => self.template(text, pointer),
            Value::Array(items) => {
                let nodes: Vec<Node> = items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| self.node(item, format!("{pointer}/{at}")))
                    .collect();
                if nodes.iter().all(|node| matches!(node, Node::Literal(_))) {
                    return Node::Literal(value.to_string());
                }
                Node::Array(nodes)
            }
            Value::Object(members) => {
                let nodes: Vec<(String, Node)> = members
                    .iter()
                    .map(|(key, item)| {
                        let pointer = format!("{pointer}/{}", escape_pointer(key));
                        if is_template(key) {
                            self.errors.push(TemplateError {
                                path: pointer.clone(),
                                offset: 0,
                                message: "a key cannot be a template".to_owned(),
                                hint: None,
                            });
                        }
                        (key.clone(), self.node(item, pointer))
                    })
                    .collect();
                if nodes.iter().all(|(_, node)| matches!(node, Node::Literal(_))) {
                    return Node::Literal(value.to_string());
                }
                Node::Object(nodes)
            }
            _ => Node::Literal(value.to_string()),
        }
    }

    fn template(&mut self, text: &str, pointer: String) -> Node {
        let mut error = |offset: usize, message: String| {
            self.errors.push(TemplateError {
                path: pointer.clone(),
                offset,
                message,
                hint: None,
            });
            Node::Literal("null".to_owned())
        };
        if text.len() > MAX_TEMPLATE_BYTES {
            return error(0, format!("a template may have at most {MAX_TEMPLATE_BYTES} bytes"));
        }
        if let Some(offset) = too_many_tokens(text) {
            return error(offset, format!("more than {MAX_TOKENS} tokens in one expression"));
        }
        let parsed = match parse(text, "<input>", syntax()) {
            Ok(parsed) => parsed,
            Err(failure) => {
                let offset = failure.range().map_or(0, |range| range.start);
                let detail = failure
                    .detail()
                    .map_or_else(|| failure.kind().to_string(), str::to_owned);
                return error(offset, format!("not a valid template: {detail}"));
            }
        };
        let Stmt::Template(template) = &parsed else {
            return error(0, "not a valid template".to_owned());
        };
        let mut children = template.children.as_slice();
        if let [rest @ .., Stmt::EmitRaw(raw)] = children
            && matches!(raw.raw, "\n" | "\r\n")
        {
            children = rest;
        }
        let mut walk = Walk {
            pointer: &pointer,
            reader: self,
            scopes: Vec::new(),
            copies: 0,
        };
        if let [Stmt::EmitExpr(emit)] = children
            && let Some(source) = single_expression(text)
        {
            return match walk.whole(&emit.expr) {
                Some(path) => Node::Path { pointer, path },
                None => Node::Expression {
                    source: source.to_owned(),
                    pointer,
                },
            };
        }
        walk.statements(&template.children);
        Node::Text {
            source: text.to_owned(),
            pointer,
        }
    }
}

/// Where an expression has more tokens than are allowed. What is no token is left for the parser to report.
fn too_many_tokens(text: &str) -> Option<usize> {
    let mut count = 0;
    for token in tokenize(text, false, syntax()) {
        let Ok((token, span)) = token else { break };
        match token {
            Token::VariableStart | Token::BlockStart => count = 0,
            _ => count += 1,
        }
        if count > MAX_TOKENS {
            return Some(span.start_offset as usize);
        }
    }
    None
}

/// The expression of a text that is `{{ … }}`, without the marks.
fn single_expression(text: &str) -> Option<&str> {
    let inner = text
        .trim_end_matches(['\r', '\n'])
        .strip_prefix("{{")?
        .strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    Some(inner.strip_suffix(['-', '+']).unwrap_or(inner))
}

pub(crate) fn escape_pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
