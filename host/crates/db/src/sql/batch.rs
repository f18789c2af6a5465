//! Writing many rows with one statement: a JSON array on SQLite, one array a column on PostgreSQL.
//!
//! `jsonb_each` gives each row in SQLite's binary form, which `->>` reads in place; `json_each` would turn it to text and parse it
//! again, at twice the price of the whole statement.
//!
//! SQLite must not be given `UPDATE … FROM json_each(…)`: its planner nests the two the wrong way round, and 10,000 rows take
//! half a minute. An upsert takes milliseconds.

use std::sync::OnceLock;

use super::statement::without_nul;
use super::{Dialect, Statement, Value};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Text,
}

/// A table whose rows are written many at a time. The first `key` columns are the key; a row whose key exists is replaced.
pub(crate) struct Upsert {
    table: &'static str,
    columns: &'static [(&'static str, Kind)],
    key: usize,
    texts: [OnceLock<String>; 2],
}

impl Upsert {
    pub(crate) const fn new(table: &'static str, columns: &'static [(&'static str, Kind)], key: usize) -> Self {
        Self {
            table,
            columns,
            key,
            texts: [OnceLock::new(), OnceLock::new()],
        }
    }

    /// An empty batch.
    pub(crate) fn batch(&'static self, dialect: Dialect, rows: usize) -> Batch {
        Batch::new(self.columns, dialect, rows)
    }

    /// The statement that writes a batch.
    pub(crate) fn statement(&'static self, batch: Batch) -> Statement {
        let dialect = batch.dialect;
        let text = &self.texts[usize::from(dialect == Dialect::Postgres)];
        batch.into_statement(text.get_or_init(|| self.text(dialect)))
    }

    fn text(&self, dialect: Dialect) -> String {
        let names = |columns: &[(&str, Kind)], each: fn(&str) -> String| {
            let names: Vec<_> = columns.iter().map(|(name, _)| each(name)).collect();
            names.join(", ")
        };
        let (key, rest) = self.columns.split_at(self.key);
        let conflict = if key.is_empty() {
            String::new()
        } else {
            let sets = names(rest, |name| format!("{name} = excluded.{name}"));
            format!(" ON CONFLICT ({}) DO UPDATE SET {sets}", names(key, str::to_owned))
        };
        format!(
            "INSERT INTO {} ({}) {}{conflict}",
            self.table,
            names(self.columns, str::to_owned),
            source(self.columns, dialect),
        )
    }
}

/// The rows of a batch as a query: over its one argument on SQLite, over one array a column on PostgreSQL.
pub(crate) fn source(columns: &[(&str, Kind)], dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => {
            let members: Vec<_> = (0..columns.len()).map(|index| format!("value ->> {index}")).collect();
            // `WHERE true`: without it SQLite reads the `ON` of `ON CONFLICT` as a join's.
            format!("SELECT {} FROM jsonb_each(?) WHERE true", members.join(", "))
        }
        Dialect::Postgres => {
            let arrays: Vec<_> = columns
                .iter()
                .map(|(_, kind)| match kind {
                    Kind::Int => "?::bigint[]",
                    Kind::Text => "?::text[]",
                })
                .collect();
            format!("SELECT * FROM unnest({})", arrays.join(", "))
        }
    }
}

/// Rows on their way into a statement.
pub(crate) struct Batch {
    dialect: Dialect,
    json: Vec<u8>,
    arrays: Vec<Value>,
    columns: &'static [(&'static str, Kind)],
    next: usize,
    rows: usize,
}

impl Batch {
    pub(crate) fn new(columns: &'static [(&'static str, Kind)], dialect: Dialect, rows: usize) -> Self {
        let (json, arrays) = match dialect {
            Dialect::Sqlite => (Vec::with_capacity(2 + rows * columns.len() * 6), Vec::new()),
            Dialect::Postgres => {
                let arrays = columns.iter().map(|(_, kind)| match kind {
                    Kind::Int => Value::Ints(Vec::with_capacity(rows)),
                    Kind::Text => Value::Texts(Vec::with_capacity(rows)),
                });
                (Vec::new(), arrays.collect())
            }
        };
        Self {
            dialect,
            json,
            arrays,
            columns,
            next: 0,
            rows: 0,
        }
    }

    /// How many rows are complete.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    fn separate(&mut self) {
        if self.next > 0 {
            self.json.push(b',');
        } else {
            self.json.extend_from_slice(if self.rows == 0 { b"[[" } else { b",[" });
        }
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next == self.columns.len() {
            self.next = 0;
            self.rows += 1;
            if self.dialect == Dialect::Sqlite {
                self.json.push(b']');
            }
        }
    }

    /// The next column of the row, an integer.
    pub(crate) fn int(&mut self, value: impl Into<Option<i64>>) {
        let value = value.into();
        match self.dialect {
            Dialect::Sqlite => {
                self.separate();
                match value {
                    Some(value) => {
                        serde_json::to_writer(&mut self.json, &value).expect("an integer is written to memory")
                    }
                    None => self.json.extend_from_slice(b"null"),
                }
            }
            Dialect::Postgres => match self.arrays.get_mut(self.next) {
                Some(Value::Ints(values)) => values.push(value),
                _ => unreachable!("column {} of the batch is not an integer", self.next),
            },
        }
        self.advance();
    }

    /// The next column of the row, a text.
    pub(crate) fn text<'t>(&mut self, value: impl Into<Option<&'t str>>) {
        let value = value.into().map(without_nul);
        match self.dialect {
            Dialect::Sqlite => {
                self.separate();
                match value {
                    Some(value) => serde_json::to_writer(&mut self.json, &*value).expect("a text is written to memory"),
                    None => self.json.extend_from_slice(b"null"),
                }
            }
            Dialect::Postgres => match self.arrays.get_mut(self.next) {
                Some(Value::Texts(values)) => values.push(value.map(Into::into)),
                _ => unreachable!("column {} of the batch is not a text", self.next),
            },
        }
        self.advance();
    }

    /// The statement with the rows as its only arguments.
    pub(crate) fn into_statement(mut self, text: &'static str) -> Statement {
        let mut statement = Statement::new(text);
        match self.dialect {
            Dialect::Sqlite => {
                self.json.extend_from_slice(if self.rows == 0 { b"[]" } else { b"]" });
                let json = String::from_utf8(self.json).expect("serde_json writes UTF-8");
                statement = statement.arg(Value::Text(Some(json.into())));
            }
            Dialect::Postgres => {
                for array in self.arrays {
                    statement = statement.arg(array);
                }
            }
        }
        statement
    }
}
