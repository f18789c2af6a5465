//! The operators of expressions. Each says what it costs before it does anything, answers values that are there and not to be computed
//! when somebody looks, and refuses integers that would not fit.

use std::cmp::Ordering;

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::budget::{Exhausted, grow, spend};

/// The cost of an element of a list beside what it refers to.
const ITEM_BYTES: u64 = 32;
/// The cost of a member of an object.
const MEMBER_BYTES: u64 = 96;

impl From<Exhausted> for Error {
    fn from(why: Exhausted) -> Self {
        // What it is about is asked of the budget.
        Self::new(ErrorKind::OutOfFuel, why.to_string())
    }
}

pub(super) fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Tells a list, made or not, from other values.
pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// The elements of a list, keys of an object or characters of a text.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    if let Some(text) = value.as_str() {
        spend(1 + size(text.len()) / 16)?;
    }
    let known = value.len().unwrap_or(0);
    grow(ITEM_BYTES.saturating_mul(size(known)))?;
    let mut all = Vec::with_capacity(known.min(1 << 16));
    for item in value.try_iter()?.checked() {
        spend(2)?;
        if all.len() >= known {
            grow(ITEM_BYTES)?;
        }
        all.push(item?);
    }
    Ok(all)
}

/// The same value, with a list that is computed when somebody looks at it made now.
pub(super) fn settled(value: Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::Iterable {
        return items(&value).map(Value::from);
    }
    Ok(value)
}

/// About how many bytes a value stands for; looking costs as much.
pub(super) fn weigh(value: &Value) -> Result<u64, Error> {
    crate::budget::deeper()?;
    spend(4)?;
    Ok(match value.kind() {
        ValueKind::String => {
            let bytes = value.as_str().map_or(0, str::len);
            spend(size(bytes) / 32)?;
            ITEM_BYTES + size(bytes)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut sum = ITEM_BYTES;
            for item in value.try_iter()?.checked() {
                sum += weigh(&item?)?;
            }
            sum
        }
        ValueKind::Map => {
            let mut sum = ITEM_BYTES;
            for key in value.try_iter()?.checked() {
                let key = key?;
                sum += MEMBER_BYTES + weigh(&key)? + weigh(&value.get_item(&key)?)?;
            }
            sum
        }
        _ => ITEM_BYTES,
    })
}

/// Pays for comparing two values.
fn compared(a: &Value, b: &Value) -> Result<(), Error> {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => spend(1 + size(a.len().min(b.len())) / 16)?,
        _ if a.as_object().is_some() && b.as_object().is_some() => {
            weigh(a)?;
            weigh(b)?;
        }
        _ => spend(1)?,
    }
    Ok(())
}

pub(super) fn equal(a: &Value, b: &Value) -> Result<bool, Error> {
    compared(a, b)?;
    Ok(a == b)
}

pub(super) fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    compared(a, b)?;
    Ok(a.partial_cmp(b))
}

/// Pays for looking for something in a value.
pub(super) fn searched(container: &Value, wanted: &Value) -> Result<(), Error> {
    match container.as_str() {
        Some(text) => {
            spend(1 + size(text.len()) / 8)?;
            if wanted.as_str().is_none() {
                let bytes = weigh(wanted)?;
                grow(2 * bytes)?;
            }
        }
        None if is_list(container) => {
            let each = match wanted.as_str() {
                Some(text) => 1 + size(text.len()) / 16,
                None if wanted.as_object().is_some() => weigh(wanted)?,
                None => 1,
            };
            weigh(container)?;
            spend(each.saturating_mul(size(container.len().unwrap_or(0))))?;
        }
        None => spend(1 + wanted.as_str().map_or(0, |text| size(text.len()) / 16))?,
    }
    Ok(())
}

/// `~`: both as text.
pub(super) fn concat(a: &Value, b: &Value) -> Result<Value, Error> {
    let bytes = weigh(a)?.saturating_add(weigh(b)?);
    grow(bytes)?;
    Ok(Value::from(match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => [a, b].concat(),
        _ => {
            let text = format!("{a}{b}");
            // Texts in lists are written with escapes.
            grow(size(text.len()).saturating_sub(bytes))?;
            text
        }
    }))
}

/// Two numbers, as what arithmetic makes of them: truth values count as 0 and 1.
enum Pair {
    Int(i128, i128),
    Float(f64, f64),
}

fn is_numeric(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn is_float(value: &Value) -> bool {
    value.kind() == ValueKind::Number && !value.is_integer()
}

fn int(value: &Value) -> Option<i128> {
    if value.kind() == ValueKind::Bool {
        return Some(i128::from(value.is_true()));
    }
    i128::try_from(value.clone()).ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "as in Python, an integer beside a float is one"
)]
fn float(value: &Value) -> Option<f64> {
    if is_float(value) {
        return f64::try_from(value.clone()).ok();
    }
    int(value).map(|number| number as f64)
}

fn pair(a: &Value, b: &Value) -> Option<Pair> {
    if !is_numeric(a) || !is_numeric(b) {
        return None;
    }
    if is_float(a) || is_float(b) {
        return Some(Pair::Float(float(a)?, float(b)?));
    }
    Some(Pair::Int(int(a)?, int(b)?))
}

/// Tells that a reader of JSON that knows 64 bits reads it as it is.
fn fits(number: i128) -> bool {
    i64::try_from(number).is_ok() || u64::try_from(number).is_ok()
}

/// Answers the result of integers. Integers of 64 bits do not become larger ones: readers of JSON would round it without a word.
/// Where a producer published more, it is kept as long as it can be.
fn whole(result: Option<i128>, from: &[i128], shown: impl Fn() -> String) -> Result<Value, Error> {
    match result {
        Some(number) if fits(number) || !from.iter().all(|from| fits(*from)) => {
            Ok(i64::try_from(number).map_or_else(|_| Value::from(number), Value::from))
        }
        Some(_) => Err(invalid(format!(
            "integer overflow: {} does not fit into 64 bits",
            shown()
        ))),
        None => Err(invalid(format!("integer overflow: unable to calculate {}", shown()))),
    }
}

fn impossible(op: &str, a: &Value, b: &Value) -> Error {
    invalid(format!(
        "tried to use {op} operator on unsupported types {} and {}",
        a.kind(),
        b.kind()
    ))
}

fn failed(op: &str, a: &Value, b: &Value) -> Error {
    invalid(format!("unable to calculate {a} {op} {b}"))
}

/// An integer as a filter answers it.
pub(super) fn checked_int(value: Value, from: &Value) -> Result<Value, Error> {
    match (value.is_integer(), int(&value)) {
        (true, Some(number)) if !fits(number) && !from.is_integer() => {
            Err(invalid("integer overflow: it does not fit into 64 bits"))
        }
        _ => Ok(value),
    }
}

pub(super) fn add(a: &Value, b: &Value) -> Result<Value, Error> {
    if a.is_tuple() != b.is_tuple() {
        return Err(impossible("+", a, b));
    }
    if is_list(a) && is_list(b) {
        let mut all = items(a)?;
        all.append(&mut items(b)?);
        return Ok(if a.is_tuple() {
            Value::from(Tuple::from(all))
        } else {
            Value::from(all)
        });
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        grow(size(a.len()).saturating_add(size(b.len())))?;
        return Ok(Value::from([a, b].concat()));
    }
    match pair(a, b) {
        Some(Pair::Int(x, y)) => whole(x.checked_add(y), &[x, y], || format!("{a} + {b}")),
        Some(Pair::Float(x, y)) => Ok(Value::from(x + y)),
        None => Err(impossible("+", a, b)),
    }
}

pub(super) fn sub(a: &Value, b: &Value) -> Result<Value, Error> {
    match pair(a, b) {
        Some(Pair::Int(x, y)) => whole(x.checked_sub(y), &[x, y], || format!("{a} - {b}")),
        Some(Pair::Float(x, y)) => Ok(Value::from(x - y)),
        None => Err(impossible("-", a, b)),
    }
}

pub(super) fn mul(a: &Value, b: &Value) -> Result<Value, Error> {
    let repeats = |value: &Value| value.as_str().is_some() || is_list(value);
    let (repeated, count) = if repeats(a) { (a, b) } else { (b, a) };
    if let Some(text) = repeated.as_str() {
        let count = count
            .as_usize()
            .ok_or_else(|| invalid("strings can only be multiplied with integers"))?;
        grow(size(text.len()).saturating_mul(size(count)))?;
        return Ok(Value::from(text.repeat(count)));
    }
    if is_list(repeated) {
        let count = count
            .as_usize()
            .ok_or_else(|| invalid("sequences and iterables can only be multiplied with integers"))?;
        let once = items(repeated)?;
        grow(ITEM_BYTES.saturating_mul(size(once.len())).saturating_mul(size(count)))?;
        // An empty list costs nothing, however often.
        let count = if once.is_empty() { 0 } else { count };
        let all: Vec<Value> = std::iter::repeat_n(once, count).flatten().collect();
        return Ok(if repeated.is_tuple() {
            Value::from(Tuple::from(all))
        } else {
            Value::from(all)
        });
    }
    match pair(a, b) {
        Some(Pair::Int(x, y)) => whole(x.checked_mul(y), &[x, y], || format!("{a} * {b}")),
        Some(Pair::Float(x, y)) => Ok(Value::from(x * y)),
        None => Err(impossible("*", a, b)),
    }
}

pub(super) fn div(a: &Value, b: &Value) -> Result<Value, Error> {
    let (Some(x), Some(y)) = (numeric_float(a), numeric_float(b)) else {
        return Err(impossible("/", a, b));
    };
    if y == 0.0 {
        return Err(failed("/", a, b));
    }
    Ok(Value::from(x / y))
}

fn numeric_float(value: &Value) -> Option<f64> {
    is_numeric(value).then(|| float(value)).flatten()
}

pub(super) fn floor_div(a: &Value, b: &Value) -> Result<Value, Error> {
    match pair(a, b) {
        Some(Pair::Int(_, 0)) => Err(failed("//", a, b)),
        Some(Pair::Int(x, y)) => whole(floor(x, y).map(|(quotient, _)| quotient), &[x, y], || {
            format!("{a} // {b}")
        }),
        Some(Pair::Float(_, 0.0)) => Err(failed("//", a, b)),
        Some(Pair::Float(x, y)) => Ok(Value::from(float_floor(x, y).0)),
        None => Err(impossible("//", a, b)),
    }
}

pub(super) fn rem(a: &Value, b: &Value) -> Result<Value, Error> {
    match pair(a, b) {
        Some(Pair::Int(_, 0)) => Err(failed("%", a, b)),
        Some(Pair::Int(_, -1)) => Ok(Value::from(0)),
        Some(Pair::Int(x, y)) => whole(floor(x, y).map(|(_, rest)| rest), &[x, y], || format!("{a} % {b}")),
        Some(Pair::Float(_, 0.0)) => Err(failed("%", a, b)),
        Some(Pair::Float(x, y)) => Ok(Value::from(float_floor(x, y).1)),
        None => Err(impossible("%", a, b)),
    }
}

/// Quotient and rest as in Python: the rest has the sign of the divisor.
fn floor(a: i128, b: i128) -> Option<(i128, i128)> {
    let (mut quotient, mut rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    if rest != 0 && (rest < 0) != (b < 0) {
        quotient = quotient.checked_sub(1)?;
        rest = rest.checked_add(b)?;
    }
    Some((quotient, rest))
}

fn float_floor(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        quotient = 0.0_f64.copysign(a / b);
    } else {
        let floored = quotient.floor();
        quotient = if quotient - floored > 0.5 {
            floored + 1.0
        } else {
            floored
        };
    }
    (quotient, rest)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a negative exponent gives a fraction, as in Python"
)]
pub(super) fn pow(a: &Value, b: &Value) -> Result<Value, Error> {
    match pair(a, b) {
        Some(Pair::Int(0, y)) if y < 0 => Err(failed("**", a, b)),
        Some(Pair::Int(x, y)) if y < 0 => Ok(Value::from((x as f64).powf(y as f64))),
        Some(Pair::Int(x, y)) => {
            let power = u32::try_from(y).ok().and_then(|y| x.checked_pow(y));
            whole(power, &[x, y], || format!("{a} ** {b}"))
        }
        Some(Pair::Float(0.0, y)) if y < 0.0 => Err(failed("**", a, b)),
        Some(Pair::Float(x, y)) => Ok(Value::from(x.powf(y))),
        None => Err(impossible("**", a, b)),
    }
}

pub(super) fn neg(value: &Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Number {
        return Err(Error::from(ErrorKind::InvalidOperation));
    }
    if is_float(value) {
        return float(value)
            .map(|number| Value::from(-number))
            .ok_or_else(|| invalid("not a number"));
    }
    let number = int(value).ok_or_else(|| invalid("integer overflow"))?;
    whole(number.checked_neg(), &[number], || format!("-({value})"))
}

/// `value[start:stop:step]`, as in Python: bounds are cut to what is there, in both directions.
pub(super) fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let bound = |value: &Value| -> Result<Option<i64>, Error> {
        if value.is_none() {
            return Ok(None);
        }
        Ok(Some(i64::try_from(value.clone())?))
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("cannot slice by step size of 0"));
    }
    if let Some(text) = value.as_str() {
        grow(5 * size(text.len()))?;
        let chars: Vec<char> = text.chars().collect();
        let chosen = indices(chars.len(), start, stop, step).filter_map(|at| chars.get(at));
        return Ok(Value::from(chosen.collect::<String>()));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Seq | ValueKind::Iterable => {
            let all = items(value)?;
            grow(ITEM_BYTES * size(all.len()))?;
            let chosen: Vec<Value> = indices(all.len(), start, stop, step)
                .filter_map(|at| all.get(at).cloned())
                .collect();
            Ok(if value.is_tuple() {
                Value::from(Tuple::from(chosen))
            } else {
                Value::from(chosen)
            })
        }
        kind => Err(invalid(format!("value of type {kind} cannot be sliced"))),
    }
}

/// The indices that a slice of so many elements takes.
fn indices(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let len = i128::try_from(len).unwrap_or(i128::MAX);
    let step = i128::from(step);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let cut = |bound: i64| {
        let bound = i128::from(bound);
        (if bound < 0 { bound + len } else { bound }).clamp(low, high)
    };
    let first = start.map_or(if step > 0 { low } else { high }, cut);
    let end = stop.map_or(if step > 0 { high } else { low }, cut);
    let mut at = first;
    std::iter::from_fn(move || {
        let inside = if step > 0 { at < end } else { at > end };
        let found = inside.then(|| usize::try_from(at).ok()).flatten()?;
        at += step;
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Vec<usize> {
        indices(len, start, stop, step).collect()
    }

    #[test]
    fn slices_take_what_python_takes() {
        assert_eq!(taken(5, None, None, 1), [0, 1, 2, 3, 4]);
        assert_eq!(taken(5, Some(1), Some(-1), 2), [1, 3]);
        assert_eq!(taken(5, Some(-3), None, 1), [2, 3, 4]);
        assert_eq!(taken(5, Some(9), None, 1), [0_usize; 0]);
        assert_eq!(taken(5, None, None, -1), [4, 3, 2, 1, 0]);
        assert_eq!(taken(5, Some(3), Some(0), -1), [3, 2, 1]);
        assert_eq!(taken(5, Some(1), Some(3), -1), [0_usize; 0]);
        assert_eq!(taken(5, Some(-1), Some(-4), -2), [4, 2]);
        assert_eq!(taken(5, Some(9), Some(-9), -2), [4, 2, 0]);
        assert_eq!(taken(0, Some(3), Some(1), -1), [0_usize; 0]);
        for bound in [i64::MIN, -1, 0, 1, i64::MAX] {
            for step in [i64::MIN, -1, 1, i64::MAX] {
                assert!(taken(3, Some(bound), Some(bound), step).is_empty());
                assert!(taken(3, Some(bound), None, step).len() <= 3);
            }
        }
    }

    #[test]
    fn integers_do_not_leave_64_bits_by_themselves() {
        let (max, one) = (Value::from(u64::MAX), Value::from(1));
        assert_eq!(add(&Value::from(u64::MAX - 1), &one).unwrap(), max);
        assert!(add(&max, &one).unwrap_err().to_string().contains("integer overflow"));
        assert!(sub(&Value::from(i64::MIN), &one).is_err());
        assert!(mul(&max, &Value::from(2)).is_err());
        assert!(pow(&Value::from(2), &Value::from(64)).is_err());
        assert_eq!(
            pow(&Value::from(2), &Value::from(63)).unwrap(),
            Value::from(1_u64 << 63)
        );
        assert!(neg(&max).is_err());
        let large = Value::from(i128::MAX);
        assert_eq!(sub(&large, &one).unwrap(), Value::from(i128::MAX - 1));
        assert!(add(&large, &one).is_err());
        assert!(floor_div(&Value::from(i128::MIN), &Value::from(-1)).is_err());
    }

    #[test]
    fn numbers_divide_as_in_python() {
        let (seven, two) = (Value::from(7), Value::from(2));
        assert_eq!(div(&seven, &two).unwrap(), Value::from(3.5));
        assert_eq!(floor_div(&Value::from(-7), &two).unwrap(), Value::from(-4));
        assert_eq!(rem(&Value::from(-7), &two).unwrap(), Value::from(1));
        assert_eq!(rem(&seven, &Value::from(-2)).unwrap(), Value::from(-1));
        assert_eq!(floor_div(&Value::from(-7.5), &two).unwrap(), Value::from(-4.0));
        for op in [div, floor_div, rem] {
            assert!(op(&seven, &Value::from(0)).is_err());
            assert!(op(&Value::from(1.0), &Value::from(0.0)).is_err());
        }
        assert_eq!(add(&Value::from(true), &two).unwrap(), Value::from(3));
    }
}
