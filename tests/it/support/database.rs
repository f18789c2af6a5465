//! Which database a server runs on.

use std::path::Path;

/// A database for one test.
pub(crate) enum Database {
    /// SQLite in the server's own data directory.
    Own,
    /// A SQLite file that several servers share.
    SharedSqlite(tempfile::TempDir),
    /// A PostgreSQL database.
    Postgres(Box<test_postgres::TestDatabase>),
}

impl Database {
    /// A SQLite file that several servers can name.
    pub(crate) fn shared_sqlite() -> Self {
        Self::SharedSqlite(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    /// The value of `--database`.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Own => None,
            Self::SharedSqlite(dir) => Some(format!("sqlite:{}", Path::new(dir.path()).join("shared.db").display())),
            Self::Postgres(database) => Some(database.url().to_owned()),
        }
    }
}
