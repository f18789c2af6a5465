//! Reading templates: what they name, and whether they are allowed at all, before anything runs.

use std::fmt::Write as _;

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
    path_uses: Vec<PathUse>,
}

/// A place in an input that follows a path into a value, without a word about what happens where it leads nowhere.
#[derive(Clone, Debug)]
pub(crate) struct PathUse {
    /// The string in the input: a JSON pointer.
    pub(crate) pointer: String,
    /// Where in the string, in bytes.
    pub(crate) offset: usize,
    /// Whether it is followed whatever the values are: not in a branch, nor in a loop.
    pub(crate) always: bool,
    pub(super) path: Path,
}

impl PathUse {
    /// Where the value comes from.
    pub(crate) fn source(&self) -> Option<Source<'_>> {
        self.path.source()
    }
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

impl Path {
    fn source(&self) -> Option<Source<'_>> {
        match (&self.root, self.segments.as_slice()) {
            (Root::Xcom(xcom), path) => Some(Source::Xcom { xcom, path }),
            (Root::Params, [Segment::Key(name), path @ ..]) => Some(Source::Param { name, path }),
            _ => None,
        }
    }
}

impl InputTemplate {
    /// Reads an input.
    pub fn parse(input: &Value) -> Result<Self, Vec<TemplateError>> {
        let mut reader = Reader::default();
        let root = reader.node(input, &mut String::new());
        reader.check_pointers();
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
            path_uses: reader.path_uses,
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

    /// Where it follows paths, in whole values and in expressions.
    pub(crate) fn path_uses(&self) -> &[PathUse] {
        &self.path_uses
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
        Node::Path { pointer, path } => sources.extend(path.source().map(|source| (pointer.as_str(), source))),
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
    pub(super) path_uses: Vec<PathUse>,
    /// The bytes of the pointers that are kept.
    pointers: usize,
}

/// The most bytes that the pointers to the templates of one input may have: a long key over many templates is in each of them.
const MAX_POINTERS: usize = 1 << 20;

impl Reader {
    /// What is kept once more, for a place in a template.
    pub(super) fn pointer(&mut self, pointer: &str) -> String {
        self.pointers = self.pointers.saturating_add(pointer.len());
        if self.pointers > MAX_POINTERS {
            return String::new();
        }
        pointer.to_owned()
    }

    /// An input whose templates lie too deep under too long keys.
    fn check_pointers(&mut self) {
        if self.pointers > MAX_POINTERS {
            self.errors.push(TemplateError {
                path: String::new(),
                offset: 0,
                message: format!("the keys over all templates of an input have more than {MAX_POINTERS} bytes in sum"),
                hint: Some("shorten the keys, or take what is made of templates from one task's answer".to_owned()),
            });
        }
    }

    fn node(&mut self, value: &Value, pointer: &mut String) -> Node {
        let length = pointer.len();
        match value {
            Value::String(text) if is_template(text) => {
                let pointer = self.pointer(pointer);
                self.template(text, pointer)
            }
            Value::Array(items) => {
                let mut nodes = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    let _ = write!(pointer, "/{at}");
                    nodes.push(self.node(item, pointer));
                    pointer.truncate(length);
                }
                if nodes.iter().all(|node| matches!(node, Node::Literal(_))) {
                    return Node::Literal(value.to_string());
                }
                Node::Array(nodes)
            }
            Value::Object(members) => {
                let mut nodes = Vec::with_capacity(members.len());
                for (key, item) in members {
                    pointer.push('/');
                    pointer.push_str(&escape_pointer(key));
                    if is_template(key) {
                        let path = self.pointer(pointer);
                        self.errors.push(TemplateError {
                            path,
                            offset: 0,
                            message: "a key cannot be a template".to_owned(),
                            hint: Some(
                                "templates stand for values; let a task build an object whose keys are computed"
                                    .to_owned(),
                            ),
                        });
                    }
                    nodes.push((key.clone(), self.node(item, pointer)));
                    pointer.truncate(length);
                }
                if nodes.iter().all(|(_, node)| matches!(node, Node::Literal(_))) {
                    return Node::Literal(value.to_string());
                }
                Node::Object(nodes)
            }
            _ => Node::Literal(value.to_string()),
        }
    }

    /// Where a template supplies a value for what is missing, none of its paths has to lead anywhere.
    fn supplied(&mut self, first: usize, has_default: bool) {
        if has_default {
            let paths = self.path_uses.get_mut(first..).unwrap_or_default();
            paths.iter_mut().for_each(|path| path.always = false);
        }
    }

    fn template(&mut self, text: &str, pointer: String) -> Node {
        let mut error = |offset: usize, message: String, hint: &str| {
            self.errors.push(TemplateError {
                path: pointer.clone(),
                offset,
                message,
                hint: Some(hint.to_owned()),
            });
            Node::Literal("null".to_owned())
        };
        if text.len() > MAX_TEMPLATE_BYTES {
            return error(
                0,
                format!("a template may have at most {MAX_TEMPLATE_BYTES} bytes"),
                "let a task of a component build long texts",
            );
        }
        if let Some(offset) = too_many_tokens(text) {
            return error(
                offset,
                format!("more than {MAX_TOKENS} tokens in one expression"),
                "let a task of a component compute this",
            );
        }
        let parsed = match parse(text, "<input>", syntax()) {
            Ok(parsed) => parsed,
            Err(failure) => {
                let offset = failure.range().map_or(0, |range| range.start);
                let detail = failure
                    .detail()
                    .map_or_else(|| failure.kind().to_string(), str::to_owned);
                return error(offset, format!("not a valid template: {detail}"), syntax_hint(text));
            }
        };
        let Stmt::Template(template) = &parsed else {
            return error(0, "not a valid template".to_owned(), syntax_hint(text));
        };
        let mut children = template.children.as_slice();
        if let [rest @ .., Stmt::EmitRaw(raw)] = children
            && matches!(raw.raw, "\n" | "\r\n")
        {
            children = rest;
        }
        let first = self.path_uses.len();
        let mut walk = Walk {
            pointer: &pointer,
            reader: self,
            scopes: Vec::new(),
            copies: 0,
            on_path: false,
            guarded: 0,
            branches: 0,
            has_default: false,
        };
        if let [Stmt::EmitExpr(emit)] = children
            && let Some(source) = single_expression(text)
        {
            let (path, has_default) = (walk.whole(&emit.expr), walk.has_default);
            self.supplied(first, has_default);
            return match path {
                Some(path) => Node::Path { pointer, path },
                None => Node::Expression {
                    source: source.to_owned(),
                    pointer,
                },
            };
        }
        walk.statements(&template.children);
        let has_default = walk.has_default;
        self.supplied(first, has_default);
        Node::Text {
            source: text.to_owned(),
            pointer,
        }
    }
}

/// What is likely meant by a text that is no template.
fn syntax_hint(text: &str) -> &'static str {
    let count = |mark: &str| text.matches(mark).count();
    if count("{{") > count("}}") {
        "an expression that begins with `{{` ends with `}}`"
    } else if count("{%") > count("%}") {
        "a statement that begins with `{%` ends with `%}`"
    } else if count("{#") > count("#}") {
        "a comment that begins with `{#` ends with `#}`"
    } else if count("{% for") > count("{% endfor") || count("{% if") > count("{% endif") {
        "each `{% if … %}` ends with `{% endif %}`, each `{% for … %}` with `{% endfor %}`"
    } else {
        "Jinja: `{{ xcom.load.rows }}`, `{{ params.name | default(1) }}`; text that only looks like it is `{{ \"{{\" }}`"
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
