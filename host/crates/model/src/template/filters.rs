//! Filters and tests of the language, each with what it costs. The engine's own do the work, after what it comes to is paid.

use std::cell::Cell;
use std::sync::LazyLock;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, filters, tests};

use super::ops::{add, checked_int, concat, equal, invalid, is_list, items, searched, settled, size, weigh};
use super::value::{WriteError, write_json};
use crate::budget::{grow, spend};

/// The cost of a piece of a text, or of an element of a list that a filter makes.
const PIECE_BYTES: u64 = 48;
/// The cost of a pair of key and value.
const PAIR_BYTES: u64 = 128;

thread_local! {
    /// The longest text, in bytes; see [`limited`].
    static MAX_TEXT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Does work in which no text that a filter makes is much longer than this.
pub(super) fn limited<T>(max: usize, work: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            MAX_TEXT.set(self.0);
        }
    }
    let _restore = Restore(MAX_TEXT.replace(max));
    work()
}

/// The kind of work that a filter is.
#[derive(Clone, Copy)]
enum Cost {
    /// The same for any value.
    Constant,
    /// A copy of the value's texts or elements.
    Copy,
    /// It makes a value of each piece of a text.
    Pieces(fn(&str, &[Value]) -> usize),
    /// It looks at everything that is in the value.
    Whole,
    /// It compares elements with each other.
    Sort,
}

/// A filter of the engine, behind what it costs.
fn filter(environment: &mut Environment<'static>, name: &'static str, cost: Cost, inner: Value) {
    environment.add_filter(
        name,
        move |state: &mut State, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            let args = args.into_values();
            pay(cost, &args)?;
            let value = inner.call(state, &args)?;
            let made = match value.kind() {
                ValueKind::String => value.as_str().map_or(0, |text| size(text.len())),
                ValueKind::Seq | ValueKind::Iterable => PIECE_BYTES * size(value.len().unwrap_or(0)),
                _ => 0,
            };
            grow(made)?;
            settled(value)
        },
    );
}

fn pay(cost: Cost, args: &[Value]) -> Result<(), Error> {
    let Some((value, rest)) = args.split_first() else {
        return Ok(spend(1)?);
    };
    spend(10)?;
    let text = value.as_str();
    let count = size(value.len().unwrap_or(0));
    // Names of attributes are read again for each element, and arguments are copied for it.
    let mut beside = 0_u64;
    for argument in rest {
        beside = beside.saturating_add(weigh(argument)?);
    }
    match cost {
        Cost::Constant => spend(text.map_or(1, |text| size(text.len()) / 16))?,
        Cost::Copy => grow(text.map_or(PAIR_BYTES.saturating_mul(count), |text| 3 * size(text.len())))?,
        Cost::Pieces(pieces) => match text {
            Some(text) => {
                spend(1 + size(text.len()) / 4)?;
                grow(
                    PIECE_BYTES
                        .saturating_mul(size(pieces(text, rest)))
                        .saturating_add(size(text.len())),
                )?;
            }
            None => grow(PAIR_BYTES.saturating_mul(count))?,
        },
        Cost::Whole => {
            let bytes = weigh(value)?;
            spend(bytes / 4)?;
            spend(beside.saturating_mul(1 + count) / 16)?;
        }
        Cost::Sort => {
            let bytes = weigh(value)?;
            let comparisons = u64::from(u64::BITS - count.leading_zeros());
            // Without case, both texts of a comparison are written again.
            spend(bytes.saturating_mul(1 + comparisons) / 2)?;
            spend(beside.saturating_mul(1 + count) / 16)?;
            grow(bytes.saturating_add(PAIR_BYTES.saturating_mul(count)))?;
        }
    }
    Ok(())
}

fn splits(text: &str, args: &[Value]) -> usize {
    match args.first().and_then(Value::as_str) {
        Some("") | None => text.len() / 2 + 1,
        Some(separator) => text.matches(separator).count() + 1,
    }
}

fn lines(text: &str, _: &[Value]) -> usize {
    text.matches('\n').count() + 1
}

fn characters(text: &str, _: &[Value]) -> usize {
    text.len()
}

/// A test of the engine, behind what it costs.
fn test(environment: &mut Environment<'static>, name: &'static str, inner: Value) {
    environment.add_test(
        name,
        move |state: &mut State, args: Rest<ValueOrKwargs>| -> Result<bool, Error> {
            let args = args.into_values();
            spend(10)?;
            match (args.as_slice(), name) {
                ([value, container], "in") => searched(container, value)?,
                ([value, other], "startingwith" | "endingwith" | "divisibleby") => {
                    let bytes = |value: &Value| value.as_str().map_or(0, str::len);
                    spend(size(bytes(value).min(bytes(other))) / 16)?;
                }
                ([value, other], _) => {
                    // Answers, and pays.
                    equal(value, other)?;
                }
                _ => {}
            }
            inner.call(state, &args).map(|value| value.is_true())
        },
    );
}

/// Replaces text by text.
fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    spend(1 + size(text.len()) / 4)?;
    let grown = text.matches(from.as_str()).count().saturating_mul(to.len());
    let most = grown.saturating_add(text.len());
    if most > MAX_TEXT.get().saturating_mul(2) {
        return Err(Error::from(ErrorKind::WriteFailure));
    }
    grow(size(most))?;
    Ok(text.replace(&from, &to))
}

/// Elements, one behind the other.
fn join(list: &Value, separator: Option<String>) -> Result<String, Error> {
    let max = MAX_TEXT.get();
    let separator = separator.unwrap_or_default();
    let mut text = String::new();
    for (at, item) in list.try_iter()?.checked().enumerate() {
        let before = text.len();
        if at > 0 {
            text.push_str(&separator);
        }
        let item = item?;
        match item.as_str() {
            Some(part) => text.push_str(part),
            None => write_json(&item, &mut text, max, 0).map_err(|error| match error {
                WriteError::TooLarge => Error::from(ErrorKind::WriteFailure),
                _ => invalid("cannot join these values"),
            })?,
        }
        if text.len() > max {
            return Err(Error::from(ErrorKind::WriteFailure));
        }
        grow(8 + size(text.len() - before))?;
    }
    Ok(text)
}

/// Adds numbers up, or lists behind a list.
fn sum(value: &Value, attribute: Option<String>, start: Option<Value>, kwargs: &Kwargs) -> Result<Value, Error> {
    let attribute = match attribute {
        Some(attribute) => Some(attribute),
        None => kwargs.get::<Option<String>>("attribute")?,
    };
    let start = match start {
        Some(start) => start,
        None => kwargs.get::<Option<Value>>("start")?.unwrap_or_else(|| Value::from(0)),
    };
    kwargs.assert_all_used()?;
    let mut elements = items(value)?;
    if let Some(attribute) = &attribute {
        for element in &mut elements {
            spend(4 + size(attribute.len()) / 4)?;
            *element = attribute
                .split('.')
                .try_fold(element.clone(), |value, name| match name.parse::<usize>() {
                    Ok(index) => value.get_item(&Value::from(index)),
                    Err(_) => value.get_attr(name),
                })
                .unwrap_or(Value::UNDEFINED);
        }
    }
    let mut elements = elements.into_iter().filter(|element| !element.is_undefined());
    if is_list(&start) {
        // All at once: one behind the other would copy what is there with each.
        let mut all = items(&start)?;
        for element in elements {
            if !is_list(&element) {
                return Err(invalid(format!("can only add lists to a list, got {}", element.kind())));
            }
            all.append(&mut items(&element)?);
        }
        return Ok(Value::from(all));
    }
    elements.try_fold(start, |sum, element| {
        if sum.is_number() && !element.is_number() && element.kind() != ValueKind::Bool {
            return Err(invalid(format!("can only sum numbers, got {}", element.kind())));
        }
        add(&sum, &element)
    })
}

fn string(value: &Value) -> Result<Value, Error> {
    concat(value, &Value::from(""))
}

fn build(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_debug(false);
    environment.set_undefined_behavior(undefined);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let function = Value::from_function::<fn(String, String, String) -> Result<String, Error>, _, _>;
    filter(&mut environment, "replace", Cost::Whole, function(replace));
    environment.add_filter("join", |list: &Value, separator: Option<String>| join(list, separator));
    environment.add_filter(
        "sum",
        |value: &Value, attribute: Option<String>, start: Option<Value>, kwargs: Kwargs| {
            sum(value, attribute, start, &kwargs)
        },
    );
    for name in ["abs", "int"] {
        let inner = if name == "abs" {
            Value::from_function(filters::abs)
        } else {
            Value::from_function(filters::int)
        };
        environment.add_filter(
            name,
            move |state: &mut State, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
                let args = args.into_values();
                pay(Cost::Constant, &args)?;
                let value = inner.call(state, &args)?;
                args.first()
                    .map_or(Ok(value.clone()), |from| checked_int(value.clone(), from))
            },
        );
    }
    macro_rules! filters {
        ($($name:literal: $filter:path, $cost:expr;)*) => {
            $(filter(&mut environment, $name, $cost, Value::from_function($filter));)*
        };
    }
    filters! {
        "attr": filters::attr, Cost::Constant;
        "bool": filters::bool, Cost::Constant;
        "capitalize": filters::capitalize, Cost::Copy;
        "count": filters::length, Cost::Constant;
        "d": filters::default, Cost::Constant;
        "default": filters::default, Cost::Constant;
        "dictsort": filters::dictsort, Cost::Sort;
        "first": filters::first, Cost::Constant;
        "float": filters::float, Cost::Constant;
        "groupby": filters::groupby, Cost::Sort;
        "items": filters::items, Cost::Copy;
        "last": filters::last, Cost::Constant;
        "length": filters::length, Cost::Constant;
        "lines": filters::lines, Cost::Pieces(lines);
        "list": filters::list, Cost::Pieces(characters);
        "lower": filters::lower, Cost::Copy;
        "map": filters::map, Cost::Whole;
        "max": filters::max, Cost::Whole;
        "min": filters::min, Cost::Whole;
        "reject": filters::reject, Cost::Whole;
        "rejectattr": filters::rejectattr, Cost::Whole;
        "reverse": filters::reverse, Cost::Copy;
        "round": filters::round, Cost::Constant;
        "select": filters::select, Cost::Whole;
        "selectattr": filters::selectattr, Cost::Whole;
        "sort": filters::sort, Cost::Sort;
        "split": filters::split, Cost::Pieces(splits);
        "string": string, Cost::Constant;
        "title": filters::title, Cost::Copy;
        "trim": filters::trim, Cost::Copy;
        "unique": filters::unique, Cost::Sort;
        "upper": filters::upper, Cost::Copy;
    }
    let inner = Value::from_function(filters::tojson);
    environment.add_filter(
        "tojson",
        move |state: &mut State, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            let args = args.into_values();
            // Each character can become six.
            let bytes = args.first().map_or(Ok(0), weigh)?;
            grow(bytes.saturating_mul(6))?;
            inner.call(state, &args)
        },
    );
    macro_rules! tests {
        ($($name:literal: $test:path;)*) => {
            $(test(&mut environment, $name, Value::from_function($test));)*
        };
    }
    tests! {
        "boolean": tests::is_boolean;
        "defined": tests::is_defined;
        "divisibleby": tests::is_divisibleby;
        "endingwith": tests::is_endingwith;
        "eq": tests::is_eq;
        "equalto": tests::is_eq;
        "even": tests::is_even;
        "false": tests::is_false;
        "float": tests::is_float;
        "ge": tests::is_ge;
        "gt": tests::is_gt;
        "in": tests::is_in;
        "integer": tests::is_integer;
        "iterable": tests::is_iterable;
        "le": tests::is_le;
        "lt": tests::is_lt;
        "mapping": tests::is_mapping;
        "ne": tests::is_ne;
        "none": tests::is_none;
        "number": tests::is_number;
        "odd": tests::is_odd;
        "sequence": tests::is_sequence;
        "startingwith": tests::is_startingwith;
        "string": tests::is_string;
        "true": tests::is_true;
        "undefined": tests::is_undefined;
    }
    environment
}

/// Filters and tests for templates in which what is missing is an error, or only what is used without a default.
pub(super) fn environment(undefined: UndefinedBehavior) -> &'static Environment<'static> {
    static STRICT: LazyLock<Environment<'static>> = LazyLock::new(|| build(UndefinedBehavior::Strict));
    static CHAINABLE: LazyLock<Environment<'static>> = LazyLock::new(|| build(UndefinedBehavior::Chainable));
    match undefined {
        UndefinedBehavior::Chainable => &CHAINABLE,
        _ => &STRICT,
    }
}
