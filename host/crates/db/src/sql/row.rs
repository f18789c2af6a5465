//! Reading rows. Columns are read one after the other, in the order of the `SELECT`.

use std::error::Error as StdError;
use std::str::FromStr;
use std::sync::Arc;

use model::{Digest, Timestamp};
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// A row of either database.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn columns(&self) -> Columns<'_> {
        Columns { row: self, next: 0 }
    }
}

/// Where reading stands in a row.
pub(crate) struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

fn decode(index: usize, source: impl Into<Box<dyn StdError + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: index.to_string(),
        source: source.into(),
    }
}

macro_rules! get {
    ($self:ident) => {{
        let index = $self.next;
        $self.next += 1;
        match $self.row {
            Row::Sqlite(row) => row.try_get(index),
            Row::Postgres(row) => row.try_get(index),
        }
    }};
}

impl Columns<'_> {
    /// Leaves columns out.
    pub(crate) fn skip(&mut self, columns: usize) {
        self.next += columns;
    }

    pub(crate) fn int(&mut self) -> Result<i64, sqlx::Error> {
        get!(self)
    }

    pub(crate) fn opt_int(&mut self) -> Result<Option<i64>, sqlx::Error> {
        get!(self)
    }

    pub(crate) fn text(&mut self) -> Result<String, sqlx::Error> {
        get!(self)
    }

    pub(crate) fn opt_text(&mut self) -> Result<Option<String>, sqlx::Error> {
        get!(self)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, sqlx::Error> {
        get!(self)
    }

    /// A text that is shared from now on.
    pub(crate) fn shared(&mut self) -> Result<Arc<str>, sqlx::Error> {
        Ok(self.text()?.into())
    }

    pub(crate) fn flag(&mut self) -> Result<bool, sqlx::Error> {
        Ok(self.int()? != 0)
    }

    /// An integer that fits a smaller type.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, sqlx::Error> {
        let (index, value) = (self.next, self.int()?);
        T::try_from(value).map_err(|_| decode(index, format!("{value} is out of range")))
    }

    /// An integer that fits a smaller type, if any.
    pub(crate) fn opt_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, sqlx::Error> {
        let index = self.next;
        self.opt_int()?
            .map(|value| T::try_from(value).map_err(|_| decode(index, format!("{value} is out of range"))))
            .transpose()
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, sqlx::Error> {
        self.int().map(Timestamp)
    }

    pub(crate) fn opt_time(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(self.opt_int()?.map(Timestamp))
    }

    /// A text with a meaning: an id, a state.
    pub(crate) fn parse<T>(&mut self) -> Result<T, sqlx::Error>
    where
        T: FromStr<Err: StdError + Send + Sync + 'static>,
    {
        let (index, text) = (self.next, self.text()?);
        text.parse().map_err(|error: T::Err| decode(index, error))
    }

    /// A text with a meaning, if any.
    pub(crate) fn opt_parse<T>(&mut self) -> Result<Option<T>, sqlx::Error>
    where
        T: FromStr<Err: StdError + Send + Sync + 'static>,
    {
        let index = self.next;
        self.opt_text()?
            .map(|text| text.parse().map_err(|error: T::Err| decode(index, error)))
            .transpose()
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, sqlx::Error> {
        self.parse()
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, sqlx::Error> {
        self.parse()
    }

    /// JSON that this crate wrote.
    pub(crate) fn json<T: DeserializeOwned>(&mut self) -> Result<T, sqlx::Error> {
        let (index, text) = (self.next, self.text()?);
        serde_json::from_str(&text).map_err(|error| decode(index, error))
    }

    /// JSON that this crate wrote, if any.
    pub(crate) fn opt_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, sqlx::Error> {
        let index = self.next;
        self.opt_text()?
            .map(|text| serde_json::from_str(&text).map_err(|error| decode(index, error)))
            .transpose()
    }
}
