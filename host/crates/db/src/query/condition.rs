//! The pieces that filters are made of.

use ports::query::{Page, TimeRange};

use crate::sql::{Dialect, Statement, Value};

/// A `FROM … WHERE …` that grows.
#[derive(Clone)]
pub(crate) struct Conditions {
    statement: Statement,
    dialect: Dialect,
    any: bool,
}

impl Conditions {
    pub(crate) fn new(from: &'static str, dialect: Dialect) -> Self {
        Self {
            statement: Statement::new(from),
            dialect,
            any: false,
        }
    }

    /// Begins one more condition.
    pub(crate) fn and(&mut self) -> &mut Statement {
        let word = if std::mem::replace(&mut self.any, true) {
            " AND "
        } else {
            " WHERE "
        };
        self.statement.push(word)
    }

    /// `column` equals the value, if there is one.
    pub(crate) fn equals(&mut self, column: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.and().push(column).push(" = ").bind(value);
        }
    }

    /// `column` is one of the values, unless there are none.
    pub(crate) fn one_of<T: Into<Value>>(&mut self, column: &str, values: impl IntoIterator<Item = T>) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_some() {
            self.and().push(column).push(" IN ").bind_list(values);
        }
    }

    /// `column` lies in the range.
    pub(crate) fn within(&mut self, column: &str, range: &TimeRange) {
        let ends = [
            (" >= ", range.gte),
            (" > ", range.gt),
            (" <= ", range.lte),
            (" < ", range.lt),
        ];
        for (operator, end) in ends {
            if let Some(end) = end {
                self.and().push(column).push(operator).bind(end);
            }
        }
    }

    /// `column` matches a `LIKE` pattern, case-insensitively for ASCII letters; `\` escapes `%` and `_`.
    pub(crate) fn like(&mut self, column: &str, pattern: Option<&String>) {
        if let Some(pattern) = pattern {
            let operator = match self.dialect {
                Dialect::Sqlite => " LIKE ",
                Dialect::Postgres => " ILIKE ",
            };
            let pattern = whole_escapes(pattern);
            self.and()
                .push(column)
                .push(operator)
                .bind(pattern)
                .push(" ESCAPE '\\'");
        }
    }

    /// `SELECT COUNT(*)` of what matches.
    pub(crate) fn count(&self) -> Statement {
        self.select("SELECT COUNT(*)")
    }

    /// The columns of what matches; an order and a page may follow.
    pub(crate) fn select(&self, columns: &'static str) -> Statement {
        let mut statement = Statement::new(columns);
        statement.append(self.statement.clone());
        statement
    }
}

/// PostgreSQL refuses a pattern that ends in an escape; it then stands for itself.
fn whole_escapes(pattern: &str) -> String {
    let trailing = pattern.len() - pattern.trim_end_matches('\\').len();
    let mut pattern = pattern.to_owned();
    if trailing % 2 == 1 {
        pattern.push('\\');
    }
    pattern
}

/// Appends `ORDER BY`. What has no value comes first, and last in a descending order, on both databases. The last columns are the
/// primary key, so that pages never overlap.
pub(crate) fn order<'c>(
    statement: &mut Statement,
    columns: impl IntoIterator<Item = (&'c str, bool)>,
    key: &[&str],
    key_descending: bool,
) {
    statement.push(" ORDER BY ");
    for (column, descending) in columns {
        statement.push(column).push(if descending {
            " DESC NULLS LAST, "
        } else {
            " ASC NULLS FIRST, "
        });
    }
    for (index, column) in key.iter().enumerate() {
        statement.push(if index == 0 { "" } else { ", " }).push(column);
        statement.push(if key_descending { " DESC" } else { "" });
    }
}

/// Appends `LIMIT … OFFSET …`.
pub(crate) fn limit(statement: &mut Statement, page: Page) {
    statement.push(" LIMIT ").bind(page.limit);
    if page.offset > 0 {
        let offset = i64::try_from(page.offset).unwrap_or(i64::MAX);
        statement.push(" OFFSET ").bind(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_never_ends_in_half_an_escape() {
        assert_eq!(whole_escapes(r"a\%"), r"a\%");
        assert_eq!(whole_escapes(r"a\"), r"a\\");
        assert_eq!(whole_escapes(r"a\\"), r"a\\");
        assert_eq!(whole_escapes(""), "");
    }
}
