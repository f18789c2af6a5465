//! `order_by`: names with an optional `-`, as Airflow takes them.

use std::cmp::Ordering;

use ports::query::OrderBy;

use crate::error::{ApiError, Code};

/// Airflow: `MAX_SORT_PARAMS`.
const MAX_ORDER_BY: usize = 10;

/// Reads the names. A name that stands for a constant column has no field and does not order.
pub(crate) fn parse<F: Copy>(names: &[String], allowed: &[(&str, Option<F>)]) -> Result<Vec<OrderBy<F>>, ApiError> {
    if names.len() > MAX_ORDER_BY {
        return Err(ApiError::new(
            Code::InvalidOrderBy,
            format!("`order_by` takes at most {MAX_ORDER_BY} names"),
        ));
    }
    let mut order = Vec::with_capacity(names.len());
    for name in names {
        let (descending, plain) = match name.strip_prefix('-') {
            Some(plain) => (true, plain),
            None => (false, name.as_str()),
        };
        let Some((_, field)) = allowed.iter().find(|(allowed, _)| *allowed == plain) else {
            let known: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            let shown: String = plain.chars().take(64).collect();
            return Err(ApiError::new(
                Code::InvalidOrderBy,
                format!(
                    "cannot order by `{shown}`; the columns to order by are: {}",
                    known.join(", ")
                ),
            ));
        };
        if let Some(field) = *field {
            order.push(OrderBy { field, descending });
        }
    }
    Ok(order)
}

/// Sorts rows in memory; `compare` compares two rows by one column, ascending.
pub(crate) fn sort<T, F: Copy>(rows: &mut [T], order: &[OrderBy<F>], compare: impl Fn(F, &T, &T) -> Ordering) {
    rows.sort_by(|left, right| {
        order
            .iter()
            .map(|by| {
                let ordering = compare(by.field, left, right);
                if by.descending { ordering.reverse() } else { ordering }
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    });
}
