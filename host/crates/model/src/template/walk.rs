//! Walks a parsed template: finds the names in it, and reports what is not allowed.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};

use super::analyse::{Path, PathUse, RETURN_VALUE, Reader, Root, TemplateError, TemplateRoot, XcomRef, XcomUse};
use super::language::{FILTERS, FUNCTIONS, MAX_COPIES, ROOTS, TESTS, airflow_hint};
use super::path::Segment;
use crate::manifest::suggest;

/// Walks one template.
pub(super) struct Walk<'w> {
    pub(super) pointer: &'w str,
    pub(super) reader: &'w mut Reader,
    /// Names bound by loops.
    pub(super) scopes: Vec<Vec<String>>,
    pub(super) copies: usize,
    /// Within a path that was seen as a whole.
    pub(super) on_path: bool,
    /// Within what may lead nowhere: `… | default(…)`, `… is defined`.
    pub(super) guarded: usize,
    /// Within what only some values lead to: branches, bodies of loops, the right side of `and` and `or`.
    pub(super) branches: usize,
    /// Whether the template supplies a value somewhere: then what is missing elsewhere is no error of its own.
    pub(super) has_default: bool,
}

impl Walk<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>, hint: &str) {
        self.error_with(span, message, Some(hint.to_owned()));
    }

    fn error_with(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        let path = self.reader.pointer(self.pointer);
        self.reader.errors.push(TemplateError {
            path,
            offset: span.start_offset as usize,
            message: message.into(),
            hint,
        });
    }

    fn is_local(&self, name: &str) -> bool {
        self.scopes.iter().flatten().any(|local| local == name)
    }

    pub(super) fn statements(&mut self, statements: &[Stmt<'_>]) {
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
                self.branches += 1;
                self.statements(&cond.true_body);
                self.statements(&cond.false_body);
                self.branches -= 1;
                return;
            }
            Stmt::ForLoop(each) => {
                if each.recursive {
                    self.error(
                        each.span(),
                        "a recursive loop is not allowed",
                        "let a task of a component walk nested data",
                    );
                }
                self.loop_source(&each.iter);
                let mut names = vec!["loop".to_owned()];
                self.bind(&each.target, &mut names);
                self.scopes.push(names);
                self.branches += 1;
                if let Some(filter) = &each.filter_expr {
                    self.expression(filter);
                }
                self.statements(&each.body);
                self.scopes.pop();
                self.statements(&each.else_body);
                self.branches -= 1;
                return;
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
                        "write `{% for x in xcom.load.rows %}`, or `{% for i in range(3) %}`",
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
                        "it stands for a value of the run already; call the variable otherwise",
                    );
                }
                names.push(var.id.to_owned());
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.bind(item, names)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.bind(item, names)),
            other => self.error(
                other.span(),
                "a loop variable must be a name",
                "write `{% for row in … %}`, or `{% for key, value in … | items %}`",
            ),
        }
    }

    /// An expression that is the whole value; answers its path if it is nothing else.
    pub(super) fn whole(&mut self, expr: &Expr<'_>) -> Option<Path> {
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
                    "item" => Root::Item,
                    "xcom" | "previous" => return None,
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
                    && is_published(var.id)
                {
                    return Some(Path {
                        root: Root::Xcom(XcomRef {
                            task: task.clone(),
                            key: RETURN_VALUE.to_owned(),
                            previous: var.id == "previous",
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
                        previous: false,
                    }),
                    segments: Vec::new(),
                }),
                _ => None,
            },
            _ => None,
        }
    }

    fn named(&mut self, span: Span, root: &str, task: String, key: &str) {
        let path = self.reader.pointer(self.pointer);
        self.reader.uses.push(XcomUse {
            path,
            offset: span.start_offset as usize,
            xcom: XcomRef {
                task,
                key: key.to_owned(),
                previous: root == "previous",
            },
        });
    }

    /// Keeps a path with where it stands, once: not the shorter ones inside of it.
    fn follows(&mut self, expr: &Expr<'_>) {
        if !self.on_path && self.guarded == 0 && matches!(expr, Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_)) {
            let Some(path) = self.path(expr) else { return };
            if matches!(path.root, Root::Xcom(_) | Root::Params) {
                let pointer = self.reader.pointer(self.pointer);
                self.reader.path_uses.push(PathUse {
                    pointer,
                    offset: expr_span(expr).start_offset as usize,
                    always: self.branches == 0,
                    path,
                });
            }
        }
    }

    /// The base of a path, which was seen as a whole.
    fn base(&mut self, expr: &Expr<'_>) {
        let before = std::mem::replace(&mut self.on_path, true);
        self.expression(expr);
        self.on_path = before;
    }

    /// What stands beside a path, or in its brackets, is another one.
    fn expression_aside(&mut self, expr: &Expr<'_>) {
        let before = std::mem::replace(&mut self.on_path, false);
        self.expression(expr);
        self.on_path = before;
    }

    /// What may lead nowhere.
    fn guarded(&mut self, expr: &Expr<'_>) {
        self.guarded += 1;
        self.expression(expr);
        self.guarded -= 1;
    }

    /// What is not always looked at.
    fn perhaps(&mut self, expr: &Expr<'_>) {
        self.branches += 1;
        self.expression(expr);
        self.branches -= 1;
    }

    fn expression(&mut self, expr: &Expr<'_>) {
        self.follows(expr);
        match expr {
            Expr::Const(_) => {}
            Expr::Var(var) => self.variable(var.span(), var.id),
            Expr::GetAttr(attr) => match &attr.expr {
                Expr::Var(var) if is_published(var.id) => {
                    self.named(var.span(), var.id, attr.name.to_owned(), RETURN_VALUE);
                }
                Expr::Var(var) if var.id == "params" => self.param(var.span(), attr.name),
                Expr::Var(var) if var.id == "item" => self.item(var.span(), attr.name),
                base => self.base(base),
            },
            Expr::GetItem(item) => match (&item.expr, constant_text(&item.subscript_expr)) {
                (Expr::Var(var), Some(task)) if is_published(var.id) => {
                    self.named(var.span(), var.id, task, RETURN_VALUE);
                }
                (Expr::Var(var), None) if is_published(var.id) => self.error_with(
                    item.subscript_expr.span(),
                    "the task of `xcom[…]` or `previous[…]` must be written out: a computed name would hide an edge of the graph",
                    Some("write the task id in quotes: `xcom[\"load\"]`".to_owned()),
                ),
                (Expr::Var(var), Some(name)) if var.id == "params" => self.param(var.span(), &name),
                (Expr::Var(var), Some(name)) if var.id == "item" => self.item(var.span(), &name),
                (base, _) => {
                    self.base(base);
                    self.expression_aside(&item.subscript_expr);
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
                if matches!(op.op, BinOpKind::Add | BinOpKind::Concat | BinOpKind::Mul) {
                    self.copies += 1;
                    if self.copies == MAX_COPIES + 1 {
                        self.error(
                            op.span(),
                            format!("more than {MAX_COPIES} of `+`, `~` and `*` in one template"),
                            "write the text with `{{ … }}` in it instead of joining pieces",
                        );
                    }
                }
                self.expression(&op.left);
                match op.op {
                    BinOpKind::ScAnd | BinOpKind::ScOr => self.perhaps(&op.right),
                    _ => self.expression(&op.right),
                }
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr);
                compare.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(cond) => {
                self.expression(&cond.test_expr);
                self.perhaps(&cond.true_expr);
                if let Some(expr) = &cond.false_expr {
                    self.perhaps(expr);
                }
            }
            Expr::Filter(filter) => {
                self.known(filter.span(), "filter", filter.name, FILTERS);
                match &filter.expr {
                    Some(expr) if matches!(filter.name, "default" | "d") => {
                        self.has_default = true;
                        self.guarded(expr);
                    }
                    Some(expr) => self.expression(expr),
                    None => {}
                }
                if filter.name == "tojson" && !filter.args.is_empty() {
                    self.error(
                        filter.span(),
                        "`tojson` takes no arguments here",
                        "write `| tojson`; a task indents what people read",
                    );
                }
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                self.known(test.span(), "test", test.name, TESTS);
                match test.name {
                    "defined" | "undefined" => self.guarded(&test.expr),
                    _ => self.expression(&test.expr),
                }
                self.arguments(&test.args);
            }
            Expr::Call(call) => match &call.expr {
                Expr::Var(var) if var.id == "xcom_key" => match call.args.as_slice() {
                    [CallArg::Pos(task), CallArg::Pos(key)] => match (constant_text(task), constant_text(key)) {
                        (Some(task), Some(key)) => self.named(call.span(), "xcom", task, &key),
                        _ => self.error(
                            call.span(),
                            "the task and the key of `xcom_key` must be written out",
                            "a computed name would hide an edge of the graph: write both in quotes",
                        ),
                    },
                    _ => self.error(
                        call.span(),
                        "`xcom_key` takes a task id and a key",
                        "write `xcom_key(\"load\", \"rows\")`",
                    ),
                },
                Expr::Var(var) if var.id == "range" => self.arguments(&call.args),
                Expr::Var(var) => {
                    let hint = suggest::hint(var.id, FUNCTIONS.iter().copied());
                    self.error_with(call.span(), format!("unknown function `{}`", var.id), hint);
                }
                _ => self.error(
                    call.span(),
                    "methods cannot be called; use filters",
                    "for example `| upper` for `.upper()`, `| replace(\"a\", \"b\")`, `| split(\",\")`, `| items`",
                ),
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

    fn repeated(&mut self, span: Span, root: TemplateRoot) {
        let pointer = self.reader.pointer(self.pointer);
        self.reader.root_uses.push((pointer, span.start_offset as usize, root));
    }

    fn item(&mut self, span: Span, name: &str) {
        self.repeated(span, TemplateRoot::Item);
        let pointer = self.reader.pointer(self.pointer);
        self.reader
            .item_uses
            .push((pointer, span.start_offset as usize, name.to_owned()));
    }

    fn param(&mut self, span: Span, name: &str) {
        let pointer = self.reader.pointer(self.pointer);
        self.reader
            .param_uses
            .push((pointer, span.start_offset as usize, name.to_owned()));
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
            let hint = suggest::closest(name, names.iter().copied()).map_or_else(
                || format!("known: {}", names.join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            self.error_with(span, format!("unknown {kind} `{name}`"), Some(hint));
        }
    }

    fn variable(&mut self, span: Span, name: &str) {
        if self.is_local(name) {
            return;
        }
        match name {
            "xcom" | "previous" => self.error_with(
                span,
                format!("`{name}` alone means nothing: name a task"),
                Some(format!("write `{name}.<task>`")),
            ),
            "item" => self.repeated(span, TemplateRoot::Item),
            "iteration" => self.repeated(span, TemplateRoot::Iteration),
            "callback" => self.repeated(span, TemplateRoot::Callback),
            name if ROOTS.contains(&name) => {}
            name if FUNCTIONS.contains(&name) => self.error(
                span,
                format!("`{name}` is a function: call it"),
                "write `range(10)`, or `xcom_key(\"load\", \"rows\")`",
            ),
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

/// Where the value begins that a path leads into.
fn expr_span(expr: &Expr<'_>) -> Span {
    let mut base = expr;
    loop {
        base = match base {
            Expr::GetAttr(attr) => &attr.expr,
            Expr::GetItem(item) => &item.expr,
            _ => return base.span(),
        };
    }
}

/// Whether a name stands for what tasks published.
fn is_published(name: &str) -> bool {
    matches!(name, "xcom" | "previous")
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
