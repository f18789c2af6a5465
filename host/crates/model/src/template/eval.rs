//! Evaluates a parsed template. The language is small, and each step that it takes, each byte that it makes, is counted here or by what
//! is called from here: an engine that is asked for a whole template cannot be stopped in the middle of one.

use std::sync::Arc;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Stmt, UnaryOpKind};
use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple, Value as Jinja, ValueKind};
use minijinja::{Error, ErrorKind, State, UndefinedBehavior, functions};

use super::filters::environment;
use super::ops::{self, invalid, items, settled, size};
use super::value::{WriteError, write_json};
use crate::budget::{deeper, grow, spend};

/// The cost of evaluating one expression beside what it does.
const STEP: u64 = 20;

/// The values behind names.
pub(super) trait Names {
    /// A root; nothing for a name that is none, or that this run does not have.
    fn root(&mut self, name: &str) -> Result<Option<Jinja>, Error>;
    /// The value that a task published under a key.
    fn xcom(&mut self, task: &str, key: &str) -> Jinja;
}

/// One template being evaluated.
pub(super) struct Eval<'n> {
    names: &'n mut dyn Names,
    state: State<'static, 'static>,
    strict: bool,
    /// Steps of the language that are left.
    fuel: u64,
    /// The longest text, in bytes.
    max: usize,
    /// Names bound by loops, the innermost last.
    locals: Vec<(String, Jinja)>,
}

impl<'n> Eval<'n> {
    pub(super) fn new(names: &'n mut dyn Names, undefined: UndefinedBehavior, fuel: u64, max: usize) -> Self {
        Self {
            names,
            state: environment(undefined).empty_state(),
            strict: undefined != UndefinedBehavior::Chainable,
            fuel,
            max,
            locals: Vec::new(),
        }
    }

    fn burn(&mut self) -> Result<(), Error> {
        self.fuel = self
            .fuel
            .checked_sub(1)
            .ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
        Ok(spend(STEP)?)
    }

    /// Writes the text that statements come to.
    pub(super) fn statements(&mut self, statements: &[Stmt<'_>], out: &mut String) -> Result<(), Error> {
        for statement in statements {
            self.statement(statement, out)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Stmt<'_>, out: &mut String) -> Result<(), Error> {
        self.burn()?;
        match statement {
            Stmt::Template(template) => self.statements(&template.children, out),
            Stmt::EmitRaw(raw) => self.push(raw.raw, out),
            Stmt::EmitExpr(emit) => {
                let value = self.expression(&emit.expr)?;
                self.emit(&value, out)
            }
            Stmt::IfCond(cond) => {
                let test = self.expression(&cond.expr)?;
                let body = if self.is_true(&test)? {
                    &cond.true_body
                } else {
                    &cond.false_body
                };
                self.statements(body, out)
            }
            Stmt::ForLoop(each) => {
                let over = self.expression(&each.iter)?;
                if over.is_undefined() {
                    self.defined(&over)?;
                }
                let mut elements = items(&over)?;
                if let Some(filter) = &each.filter_expr {
                    let mut kept = Vec::new();
                    for element in elements {
                        let locals = self.locals.len();
                        self.bind(&each.target, &element)?;
                        let keep = self.expression(filter).and_then(|test| self.is_true(&test));
                        self.locals.truncate(locals);
                        if keep? {
                            kept.push(element);
                        }
                    }
                    elements = kept;
                }
                if elements.is_empty() {
                    return self.statements(&each.else_body, out);
                }
                let elements = Arc::new(elements);
                for (at, element) in elements.iter().enumerate() {
                    self.burn()?;
                    let locals = self.locals.len();
                    let position = Position {
                        at,
                        elements: Arc::clone(&elements),
                    };
                    self.locals.push(("loop".to_owned(), Jinja::from_object(position)));
                    let done = self
                        .bind(&each.target, element)
                        .and_then(|()| self.statements(&each.body, out));
                    self.locals.truncate(locals);
                    done?;
                }
                Ok(())
            }
            // The walk over a template refuses all others.
            _ => Err(invalid("this statement is not allowed")),
        }
    }

    fn push(&self, text: &str, out: &mut String) -> Result<(), Error> {
        if text.len() > self.max.saturating_sub(out.len()) {
            return Err(Error::from(ErrorKind::WriteFailure));
        }
        grow(size(text.len()))?;
        out.push_str(text);
        Ok(())
    }

    /// In text, what is not a string reads as JSON.
    fn emit(&self, value: &Jinja, out: &mut String) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return self.push(text, out);
        }
        write_json(value, out, self.max, 0).map_err(|error| match error {
            WriteError::Undefined => Error::from(ErrorKind::UndefinedError),
            WriteError::TooLarge => Error::from(ErrorKind::WriteFailure),
            WriteError::Exhausted(why) => why.into(),
            WriteError::Value(why) => Error::new(ErrorKind::BadSerialization, why),
        })
    }

    fn bind(&mut self, target: &Expr<'_>, value: &Jinja) -> Result<(), Error> {
        let targets = match target {
            Expr::Var(var) => {
                self.locals.push((var.id.to_owned(), value.clone()));
                return Ok(());
            }
            Expr::List(list) => &list.items,
            Expr::Tuple(tuple) => &tuple.items,
            _ => return Err(invalid("a loop variable must be a name")),
        };
        if value.as_object().is_none() {
            return Err(Error::new(ErrorKind::CannotUnpack, "value is not iterable"));
        }
        let values = items(value)?;
        if values.len() != targets.len() {
            return Err(Error::new(
                ErrorKind::CannotUnpack,
                format!(
                    "sequence of wrong length (expected {}, got {})",
                    targets.len(),
                    values.len()
                ),
            ));
        }
        for (target, value) in targets.iter().zip(&values) {
            self.bind(target, value)?;
        }
        Ok(())
    }

    /// The value of an expression.
    pub(super) fn expression(&mut self, expr: &Expr<'_>) -> Result<Jinja, Error> {
        self.burn()?;
        deeper().map_err(Error::from)?;
        match expr {
            Expr::Const(constant) => Ok(constant.value.clone()),
            Expr::Var(var) => self.variable(var.id),
            Expr::GetAttr(attr) => {
                let base = self.expression(&attr.expr)?;
                if base.is_undefined() {
                    return self.missing();
                }
                valid(base.get_attr(attr.name)?)
            }
            Expr::GetItem(item) => {
                let base = self.expression(&item.expr)?;
                let key = self.expression(&item.subscript_expr)?;
                if base.is_undefined() {
                    return self.missing();
                }
                let texts = [&key, &base].map(|value| value.as_str().map_or(0, str::len));
                spend(texts.iter().map(|text| size(*text) / 16).sum())?;
                if key.as_object().is_some() {
                    ops::weigh(&key)?;
                }
                valid(settled(base)?.get_item(&key)?)
            }
            Expr::Slice(slice) => {
                let value = self.expression(&slice.expr)?;
                let mut bound = |bound: &Option<Expr<'_>>| match bound {
                    Some(bound) => self.expression(bound),
                    None => Ok(Jinja::from(())),
                };
                let (start, stop, step) = (bound(&slice.start)?, bound(&slice.stop)?, bound(&slice.step)?);
                self.defined(&value)?;
                ops::slice(&value, &start, &stop, &step)
            }
            Expr::UnaryOp(op) => {
                let value = self.expression(&op.expr)?;
                match op.op {
                    UnaryOpKind::Not => Ok(Jinja::from(!self.is_true(&value)?)),
                    UnaryOpKind::Neg => ops::neg(&value),
                }
            }
            Expr::BinOp(op) => self.binary(op.op, &op.left, &op.right),
            Expr::Compare(compare) => {
                let mut left = self.expression(&compare.expr)?;
                for op in &compare.ops {
                    let right = self.expression(&op.expr)?;
                    if !self.compare(op.op, &left, &right)? {
                        return Ok(Jinja::from(false));
                    }
                    left = right;
                }
                Ok(Jinja::from(true))
            }
            Expr::IfExpr(cond) => {
                let test = self.expression(&cond.test_expr)?;
                if self.is_true(&test)? {
                    self.expression(&cond.true_expr)
                } else {
                    match &cond.false_expr {
                        Some(expr) => self.expression(expr),
                        None => Ok(Jinja::UNDEFINED),
                    }
                }
            }
            Expr::Filter(filter) => {
                let mut args = match &filter.expr {
                    Some(expr) => vec![self.expression(expr)?],
                    None => Vec::new(),
                };
                self.arguments(&filter.args, &mut args)?;
                valid(self.state.apply_filter(filter.name, &args)?)
            }
            Expr::Test(test) => {
                let mut args = vec![self.expression(&test.expr)?];
                self.arguments(&test.args, &mut args)?;
                self.state.perform_test(test.name, &args).map(Jinja::from)
            }
            Expr::Call(call) => {
                let mut args = Vec::new();
                self.arguments(&call.args, &mut args)?;
                match (&call.expr, args.as_slice()) {
                    (Expr::Var(var), [task, key]) if var.id == "xcom_key" => {
                        let text = |value: &Jinja| value.as_str().map(str::to_owned).unwrap_or_default();
                        let (task, key) = (text(task), text(key));
                        valid(self.names.xcom(&task, &key))
                    }
                    (Expr::Var(var), args) if var.id == "range" => {
                        let range = Jinja::from_function(functions::range);
                        settled(range.call(&mut self.state, args)?)
                    }
                    _ => Err(invalid("this cannot be called")),
                }
            }
            Expr::List(list) => {
                let values = self.all(&list.items)?;
                Ok(Jinja::from(values))
            }
            Expr::Tuple(tuple) => {
                let values = self.all(&tuple.items)?;
                Ok(Jinja::from(Tuple::from(values)))
            }
            Expr::Map(map) => {
                let keys = self.all(&map.keys)?;
                let values = self.all(&map.values)?;
                grow(64 * size(keys.len()))?;
                for key in &keys {
                    spend(key.as_str().map_or(1, |key| 1 + size(key.len()) / 16))?;
                    if key.as_object().is_some() {
                        ops::weigh(key)?;
                    }
                }
                Ok(Jinja::from_pairs(keys.into_iter().zip(values)))
            }
        }
    }

    fn all(&mut self, exprs: &[Expr<'_>]) -> Result<Vec<Jinja>, Error> {
        grow(32 * size(exprs.len()))?;
        exprs.iter().map(|expr| self.expression(expr)).collect()
    }

    fn variable(&mut self, name: &str) -> Result<Jinja, Error> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| known == name) {
            return valid(value.clone());
        }
        self.names.root(name)?.map_or(Ok(Jinja::UNDEFINED), valid)
    }

    fn arguments(&mut self, given: &[CallArg<'_>], args: &mut Vec<Jinja>) -> Result<(), Error> {
        let mut named: Vec<(String, Jinja)> = Vec::new();
        for arg in given {
            match arg {
                CallArg::Pos(expr) => args.push(self.expression(expr)?),
                CallArg::Kwarg(name, expr) => named.push(((*name).to_owned(), self.expression(expr)?)),
                CallArg::PosSplat(expr) => {
                    let list = self.expression(expr)?;
                    args.append(&mut items(&list)?);
                }
                CallArg::KwargSplat(expr) => {
                    let map = self.expression(expr)?;
                    if map.kind() != ValueKind::Map {
                        return Err(invalid(format!(
                            "attempted to apply keyword arguments from non map (got {})",
                            map.kind()
                        )));
                    }
                    for key in items(&map)? {
                        let name = key
                            .as_str()
                            .ok_or_else(|| invalid("the name of an argument must be a string"))?;
                        grow(size(name.len()))?;
                        named.push((name.to_owned(), map.get_item(&key)?));
                    }
                }
            }
        }
        if !named.is_empty() {
            args.push(named.into_iter().collect::<Kwargs>().into());
        }
        Ok(())
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Result<Jinja, Error> {
        let a = self.expression(left)?;
        match op {
            BinOpKind::ScAnd | BinOpKind::ScOr => {
                return if self.is_true(&a)? == matches!(op, BinOpKind::ScOr) {
                    Ok(a)
                } else {
                    self.expression(right)
                };
            }
            _ => {}
        }
        let b = self.expression(right)?;
        let compared = match op {
            BinOpKind::Add => return ops::add(&a, &b),
            BinOpKind::Sub => return ops::sub(&a, &b),
            BinOpKind::Mul => return ops::mul(&a, &b),
            BinOpKind::Div => return ops::div(&a, &b),
            BinOpKind::FloorDiv => return ops::floor_div(&a, &b),
            BinOpKind::Rem => return ops::rem(&a, &b),
            BinOpKind::Pow => return ops::pow(&a, &b),
            BinOpKind::Concat => {
                let (a, b) = (self.text(left, a)?, self.text(right, b)?);
                return ops::concat(&a, &b);
            }
            BinOpKind::Eq => CompareOpKind::Eq,
            BinOpKind::Ne => CompareOpKind::Ne,
            BinOpKind::Lt => CompareOpKind::Lt,
            BinOpKind::Lte => CompareOpKind::Lte,
            BinOpKind::Gt => CompareOpKind::Gt,
            BinOpKind::Gte => CompareOpKind::Gte,
            BinOpKind::In => CompareOpKind::In,
            BinOpKind::ScAnd | BinOpKind::ScOr => return Ok(a),
        };
        self.compare(compared, &a, &b).map(Jinja::from)
    }

    fn compare(&mut self, op: CompareOpKind, a: &Jinja, b: &Jinja) -> Result<bool, Error> {
        self.defined(a)?;
        self.defined(b)?;
        Ok(match op {
            CompareOpKind::Eq => ops::equal(a, b)?,
            CompareOpKind::Ne => !ops::equal(a, b)?,
            CompareOpKind::Lt => ops::order(a, b)?.is_some_and(std::cmp::Ordering::is_lt),
            CompareOpKind::Lte => ops::order(a, b)?.is_some_and(std::cmp::Ordering::is_le),
            CompareOpKind::Gt => ops::order(a, b)?.is_some_and(std::cmp::Ordering::is_gt),
            CompareOpKind::Gte => ops::order(a, b)?.is_some_and(std::cmp::Ordering::is_ge),
            CompareOpKind::In => self.state.perform_test("in", &[a.clone(), b.clone()])?,
            CompareOpKind::NotIn => !self.state.perform_test("in", &[a.clone(), b.clone()])?,
        })
    }

    fn is_true(&self, value: &Jinja) -> Result<bool, Error> {
        self.defined(value)?;
        Ok(value.is_true())
    }

    /// An operand of `~`: a condition without an `else` is no text.
    fn text(&self, expr: &Expr<'_>, value: Jinja) -> Result<Jinja, Error> {
        match expr {
            Expr::IfExpr(cond) if cond.false_expr.is_none() && value.is_undefined() => Ok(Jinja::from("")),
            _ => self.defined(&value).map(|()| value),
        }
    }

    /// Refuses what is missing, unless the template has a default for it somewhere.
    fn defined(&self, value: &Jinja) -> Result<(), Error> {
        if self.strict && value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        Ok(())
    }

    /// Looks into something that is missing.
    fn missing(&self) -> Result<Jinja, Error> {
        if self.strict {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        Ok(Jinja::UNDEFINED)
    }
}

/// A value that could not be read says why when it is touched.
fn valid(value: Jinja) -> Result<Jinja, Error> {
    if value.kind() != ValueKind::Invalid {
        return Ok(value);
    }
    let list = Jinja::from(vec![value]);
    list.try_iter()?.checked().next().unwrap_or(Ok(Jinja::UNDEFINED))
}

/// `loop`, within a loop.
#[derive(Debug)]
struct Position {
    at: usize,
    elements: Arc<Vec<Jinja>>,
}

impl Object for Position {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let (at, length) = (self.at, self.elements.len());
        let beside = |at: Option<usize>| {
            at.and_then(|at| self.elements.get(at))
                .cloned()
                .unwrap_or(Jinja::UNDEFINED)
        };
        Some(match key.as_str()? {
            "index0" => Jinja::from(at),
            "index" => Jinja::from(at + 1),
            "length" => Jinja::from(length),
            "revindex" => Jinja::from(length - at),
            "revindex0" => Jinja::from(length - at - 1),
            "first" => Jinja::from(at == 0),
            "last" => Jinja::from(at + 1 == length),
            // A loop within another one is none of its iterations: only recursive loops go deeper.
            "depth" => Jinja::from(1),
            "depth0" => Jinja::from(0),
            "previtem" => beside(at.checked_sub(1)),
            "nextitem" => beside(Some(at + 1)),
            _ => return None,
        })
    }
}
