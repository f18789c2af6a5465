//! Reading templates: what they name, and whether they are allowed at all, before anything runs.

use minijinja::machinery::ast::{CallArg, Expr, Stmt};
use minijinja::machinery::{Span, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use serde_json::Value;

use super::language::{FILTERS, FUNCTIONS, MAX_COPIES, MAX_TEMPLATE_BYTES, MAX_TOKENS, ROOTS, TESTS, airflow_hint};
use super::path::Segment;
use crate::manifest::suggest;

/// The key of a task's return value (Airflow: `XCOM_RETURN_KEY`).
pub(crate) const RETURN_VALUE: &str = "return_value";

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

#[derive(Default)]
struct Reader {
    errors: Vec<TemplateError>,
    uses: Vec<XcomUse>,
    param_uses: Vec<(String, usize, String)>,
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

/// Walks one template.
struct Walk<'w> {
    pointer: &'w str,
    reader: &'w mut Reader,
    /// Names bound by loops.
    scopes: Vec<Vec<String>>,
    copies: usize,
}

impl Walk<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.error_with(span, message, None);
    }

    fn error_with(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        self.reader.errors.push(TemplateError {
            path: self.pointer.to_owned(),
            offset: span.start_offset as usize,
            message: message.into(),
            hint,
        });
    }

    fn is_local(&self, name: &str) -> bool {
        self.scopes.iter().flatten().any(|local| local == name)
    }

    fn statements(&mut self, statements: &[Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        let (span, name) = match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitRaw(_) => return,
            Stmt::EmitExpr(emit) => return self.expression(&emit.expr),
            Stmt::IfCond(cond) => {
                self.expression(&cond.expr);
                self.statements(&cond.true_body);
                return self.statements(&cond.false_body);
            }
            Stmt::ForLoop(each) => {
                if each.recursive {
                    self.error(each.span(), "a recursive loop is not allowed");
                }
                self.loop_source(&each.iter);
                let mut names = vec!["loop".to_owned()];
                self.bind(&each.target, &mut names);
                self.scopes.push(names);
                if let Some(filter) = &each.filter_expr {
                    self.expression(filter);
                }
                self.statements(&each.body);
                self.scopes.pop();
                return self.statements(&each.else_body);
            }
            Stmt::WithBlock(s) => (s.span(), "with"),
            Stmt::Set(s) => (s.span(), "set"),
            Stmt::SetBlock(s) => (s.span(), "set"),
            Stmt::AutoEscape(s) => (s.span(), "autoescape"),
            Stmt::FilterBlock(s) => (s.span(), "filter"),
            Stmt::Block(s) => (s.span(), "block"),
            Stmt::Import(s) => (s.span(), "import"),
            Stmt::FromImport(s) => (s.span(), "from"),
            Stmt::Extends(s) => (s.span(), "extends"),
            Stmt::Include(s) => (s.span(), "include"),
            Stmt::Macro(s) => (s.span(), "macro"),
            Stmt::CallBlock(s) => (s.span(), "call"),
            Stmt::Do(s) => (s.span(), "do"),
        };
        self.error_with(
            span,
            format!("`{{% {name} %}}` is not allowed in an input"),
            Some("`if` and `for` are".to_owned()),
        );
    }

    /// What a loop runs over is a path, perhaps filtered. A loop variable bound to a computed value would let nested loops
    /// double a text with each level, out of reach of fuel and output bound.
    fn loop_source(&mut self, expr: &Expr<'_>) {
        let mut inner = expr;
        loop {
            inner = match inner {
                Expr::Filter(filter) => match &filter.expr {
                    Some(expr) => expr,
                    None => break,
                },
                Expr::GetAttr(attr) => &attr.expr,
                Expr::GetItem(item) => &item.expr,
                Expr::Slice(slice) => &slice.expr,
                Expr::Var(_) | Expr::Call(_) | Expr::Const(_) => break,
                _ => {
                    self.error(
                        expr.span(),
                        "a loop can run only over a path, `range(…)` or filters of these",
                    );
                    break;
                }
            };
        }
        self.expression(expr);
    }

    fn bind(&mut self, target: &Expr<'_>, names: &mut Vec<String>) {
        match target {
            Expr::Var(var) => {
                if ROOTS.contains(&var.id) || FUNCTIONS.contains(&var.id) {
                    self.error(
                        var.span(),
                        format!("`{}` cannot be the name of a loop variable", var.id),
                    );
                }
                names.push(var.id.to_owned());
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item, names)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.bind(item, names)),
            other => self.error(other.span(), "a loop variable must be a name"),
        }
    }

    /// An expression that is the whole value; answers its path if it is nothing else.
    fn whole(&mut self, expr: &Expr<'_>) -> Option<Path> {
        let errors = self.reader.errors.len();
        self.expression(expr);
        if self.reader.errors.len() > errors {
            return None;
        }
        self.path(expr)
    }

    /// The path that an expression is, if it is one.
    fn path(&self, expr: &Expr<'_>) -> Option<Path> {
        match expr {
            Expr::Var(var) if !self.is_local(var.id) => {
                let root = match var.id {
                    "params" => Root::Params,
                    "conf" => Root::Conf,
                    "xcom" => return None,
                    name if ROOTS.contains(&name) => Root::Scalar(name.to_owned()),
                    _ => return None,
                };
                Some(Path {
                    root,
                    segments: Vec::new(),
                })
            }
            Expr::GetAttr(_) | Expr::GetItem(_) => {
                let (base, segment) = match expr {
                    Expr::GetAttr(attr) => (&attr.expr, Segment::Key(attr.name.to_owned())),
                    Expr::GetItem(item) => (&item.expr, constant_segment(&item.subscript_expr)?),
                    _ => return None,
                };
                if let (Expr::Var(var), Segment::Key(task)) = (base, &segment)
                    && var.id == "xcom"
                {
                    return Some(Path {
                        root: Root::Xcom(XcomRef {
                            task: task.clone(),
                            key: RETURN_VALUE.to_owned(),
                        }),
                        segments: Vec::new(),
                    });
                }
                let mut path = self.path(base)?;
                path.segments.push(segment);
                Some(path)
            }
            Expr::Call(call) => match (&call.expr, call.args.as_slice()) {
                (Expr::Var(var), [CallArg::Pos(task), CallArg::Pos(key)]) if var.id == "xcom_key" => Some(Path {
                    root: Root::Xcom(XcomRef {
                        task: constant_text(task)?,
                        key: constant_text(key)?,
                    }),
                    segments: Vec::new(),
                }),
                _ => None,
            },
            _ => None,
        }
    }

    fn named(&mut self, span: Span, task: String, key: &str) {
        self.reader.uses.push(XcomUse {
            path: self.pointer.to_owned(),
            offset: span.start_offset as usize,
            xcom: XcomRef {
                task,
                key: key.to_owned(),
            },
        });
    }

    fn expression(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Const(_) => {}
            Expr::Var(var) => self.variable(var.span(), var.id),
            Expr::GetAttr(attr) => match &attr.expr {
                Expr::Var(var) if var.id == "xcom" => self.named(var.span(), attr.name.to_owned(), RETURN_VALUE),
                Expr::Var(var) if var.id == "params" => self.param(var.span(), attr.name),
                base => self.expression(base),
            },
            Expr::GetItem(item) => match (&item.expr, constant_text(&item.subscript_expr)) {
                (Expr::Var(var), Some(task)) if var.id == "xcom" => self.named(var.span(), task, RETURN_VALUE),
                (Expr::Var(var), None) if var.id == "xcom" => self.error_with(
                    item.subscript_expr.span(),
                    "the task of `xcom[…]` must be written out: a computed name would hide an edge of the graph",
                    Some("write the task id in quotes: `xcom[\"load\"]`".to_owned()),
                ),
                (Expr::Var(var), Some(name)) if var.id == "params" => self.param(var.span(), &name),
                (base, _) => {
                    self.expression(base);
                    self.expression(&item.subscript_expr);
                }
            },
            Expr::Slice(slice) => {
                self.expression(&slice.expr);
                for part in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.expression(part);
                }
            }
            Expr::UnaryOp(op) => self.expression(&op.expr),
            Expr::BinOp(op) => {
                use minijinja::machinery::ast::BinOpKind;
                if matches!(op.op, BinOpKind::Add | BinOpKind::Concat | BinOpKind::Mul) {
                    self.copies += 1;
                    if self.copies == MAX_COPIES + 1 {
                        self.error(
                            op.span(),
                            format!("more than {MAX_COPIES} of `+`, `~` and `*` in one template"),
                        );
                    }
                }
                self.expression(&op.left);
                self.expression(&op.right);
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr);
                compare.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(cond) => {
                self.expression(&cond.test_expr);
                self.expression(&cond.true_expr);
                if let Some(expr) = &cond.false_expr {
                    self.expression(expr);
                }
            }
            Expr::Filter(filter) => {
                self.known(filter.span(), "filter", filter.name, FILTERS);
                if let Some(expr) = &filter.expr {
                    self.expression(expr);
                }
                if filter.name == "tojson" && !filter.args.is_empty() {
                    self.error(filter.span(), "`tojson` takes no arguments here");
                }
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                self.known(test.span(), "test", test.name, TESTS);
                self.expression(&test.expr);
                self.arguments(&test.args);
            }
            Expr::Call(call) => match &call.expr {
                Expr::Var(var) if var.id == "xcom_key" => match call.args.as_slice() {
                    [CallArg::Pos(task), CallArg::Pos(key)] => match (constant_text(task), constant_text(key)) {
                        (Some(task), Some(key)) => self.named(call.span(), task, &key),
                        _ => self.error(call.span(), "the task and the key of `xcom_key` must be written out"),
                    },
                    _ => self.error(
                        call.span(),
                        "`xcom_key` takes a task id and a key: `xcom_key(\"load\", \"rows\")`",
                    ),
                },
                Expr::Var(var) if var.id == "range" => self.arguments(&call.args),
                Expr::Var(var) => {
                    let hint = suggest::hint(var.id, FUNCTIONS.iter().copied());
                    self.error_with(call.span(), format!("unknown function `{}`", var.id), hint);
                }
                _ => self.error(call.span(), "methods cannot be called; use filters"),
            },
            Expr::List(list) => list.items.iter().for_each(|item| self.expression(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map
                .keys
                .iter()
                .chain(&map.values)
                .for_each(|item| self.expression(item)),
        }
    }

    fn param(&mut self, span: Span, name: &str) {
        self.reader
            .param_uses
            .push((self.pointer.to_owned(), span.start_offset as usize, name.to_owned()));
    }

    fn arguments(&mut self, args: &[CallArg<'_>]) {
        for arg in args {
            match arg {
                CallArg::Pos(expr) | CallArg::Kwarg(_, expr) | CallArg::PosSplat(expr) | CallArg::KwargSplat(expr) => {
                    self.expression(expr);
                }
            }
        }
    }

    fn known(&mut self, span: Span, kind: &str, name: &str, names: &[&'static str]) {
        if !names.contains(&name) {
            let hint = suggest::closest(name, names.iter().copied()).map(|name| format!("did you mean `{name}`?"));
            self.error_with(span, format!("unknown {kind} `{name}`"), hint);
        }
    }

    fn variable(&mut self, span: Span, name: &str) {
        if self.is_local(name) {
            return;
        }
        match name {
            "xcom" => self.error_with(
                span,
                "`xcom` alone means nothing: name a task",
                Some("write `xcom.<task>`".to_owned()),
            ),
            name if ROOTS.contains(&name) => {}
            name if FUNCTIONS.contains(&name) => self.error(span, format!("`{name}` is a function: call it")),
            name => {
                let hint = airflow_hint(name)
                    .map(str::to_owned)
                    .or_else(|| {
                        suggest::closest(name, ROOTS.iter().copied()).map(|name| format!("did you mean `{name}`?"))
                    })
                    .or_else(|| {
                        Some(format!(
                            "the value of a task is `xcom.{name}`, a parameter `params.{name}`"
                        ))
                    });
                self.error_with(span, format!("unknown name `{name}`"), hint);
            }
        }
    }
}

fn constant_text(expr: &Expr<'_>) -> Option<String> {
    match expr {
        Expr::Const(constant) => constant.value.as_str().map(str::to_owned),
        _ => None,
    }
}

fn constant_segment(expr: &Expr<'_>) -> Option<Segment> {
    match expr {
        Expr::Const(constant) => match constant.value.as_str() {
            Some(text) => Some(Segment::Key(text.to_owned())),
            None => constant.value.as_usize().map(Segment::Index),
        },
        _ => None,
    }
}
