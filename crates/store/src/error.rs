//! What can go wrong in the store, told by what the caller can do about it.
//!
//! Every message can be shown to a user as it is: it names the database or the row, and no password.

use std::borrow::Cow;

/// An error of the store. Clone, because one failed transaction answers every caller that it was merged from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or opened now. Nothing was written, unless the connection broke
    /// in the middle of a commit; writing the same rows again is always safe.
    #[error("{0}")]
    Unavailable(String),
    /// The disk, or the space granted to the database, is full. Nothing was written.
    #[error("{0}")]
    Full(String),
    /// The database was made by a newer version of Pitcrew.
    #[error(
        "the database has schema {found}, this version of pitcrew knows {known} at most: \
         use the newer version again, or another database"
    )]
    TooNew { found: i64, known: i64 },
    /// The write contradicts what is stored.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense, whatever is stored.
    #[error("{0}")]
    Invalid(String),
    /// What was named does not exist.
    #[error("no {kind} `{name}`")]
    NotFound { kind: &'static str, name: String },
    /// A stored row cannot be read: it was changed by hand, or the file is damaged.
    #[error("{0}")]
    Corrupt(String),
    /// The database refused a statement: a fault in Pitcrew, or in the database.
    #[error("the database failed: {0}")]
    Backend(String),
}

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl StoreError {
    pub(crate) fn not_found(kind: &'static str, name: impl ToString) -> Self {
        StoreError::NotFound { kind, name: name.to_string() }
    }

    pub(crate) fn not_over(key: pitcrew_core::id::RunKey) -> Self {
        StoreError::Conflict(format!("run {key} is not over: cancel it first, and wait for its end"))
    }

    pub(crate) fn still_used(workflow: &pitcrew_core::id::WorkflowId) -> Self {
        StoreError::Conflict(format!("the workflow `{workflow}` still has a file or runs: remove those first"))
    }

    pub(crate) fn name_taken(kind: &str, name: &str) -> Self {
        StoreError::Conflict(format!("there is a {kind} `{name}` already"))
    }

    pub(crate) fn backfill_over(id: i64) -> Self {
        StoreError::Conflict(format!("backfill {id} is over, so it gets no more runs"))
    }

    pub(crate) fn superseded() -> Self {
        StoreError::Conflict("another server has taken recovery since".to_owned())
    }

    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Full(_))
    }

    /// Whether the rows of this caller are at fault, rather than the database.
    pub(crate) fn is_about_rows(&self) -> bool {
        matches!(self, StoreError::Conflict(_) | StoreError::Invalid(_))
    }
}

/// SQLite's primary result code, out of an extended one.
fn sqlite_code(code: &str) -> Option<i32> {
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind as Kind;
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or(Cow::Borrowed("")).into_owned();
                let text = error.message().to_owned();
                let is_sqlite = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
                match error.kind() {
                    Kind::UniqueViolation => StoreError::Conflict(format!("it exists already: {text}")),
                    Kind::ForeignKeyViolation => {
                        StoreError::Conflict(format!("what it refers to does not exist: {text}"))
                    }
                    Kind::CheckViolation | Kind::NotNullViolation => {
                        StoreError::Invalid(format!("the database refused a row: {text}"))
                    }
                    _ if is_sqlite => from_sqlite(sqlite_code(&code), text),
                    _ => from_postgres(&code, text),
                }
            }
            sqlx::Error::Io(error) => {
                StoreError::Unavailable(format!("the connection to the database failed: {error}"))
            }
            sqlx::Error::Tls(error) => {
                StoreError::Unavailable(format!("no secure connection to the database: {error}"))
            }
            sqlx::Error::PoolTimedOut => {
                StoreError::Unavailable("no connection to the database was free in time".to_owned())
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                StoreError::Unavailable("the connection to the database is closed".to_owned())
            }
            sqlx::Error::Configuration(error) => {
                StoreError::Invalid(format!("the address of the database is not right: {error}"))
            }
            error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
                StoreError::Corrupt(format!("a stored row cannot be read: {error}"))
            }
            error => StoreError::Backend(error.to_string()),
        }
    }
}

fn from_sqlite(code: Option<i32>, text: String) -> StoreError {
    match code {
        Some(5 | 6) => StoreError::Unavailable(format!(
            "another process has held the database for too long ({text}); end it, or try again"
        )),
        Some(13) => {
            StoreError::Full(format!("the database has no room left ({text}): free some disk space; nothing was lost"))
        }
        Some(8) => StoreError::Unavailable(format!(
            "the database cannot be written ({text}): give this user write access to its file and folder"
        )),
        Some(10) => StoreError::Unavailable(format!("the disk of the database failed: {text}")),
        Some(14) => StoreError::Unavailable(format!(
            "the database file cannot be opened ({text}): check that its folder exists and can be written"
        )),
        Some(11 | 26) => StoreError::Corrupt(format!("the database file is damaged, or is no SQLite file: {text}")),
        // RAISE(ABORT, …) in our triggers.
        Some(19) => StoreError::Conflict(text),
        _ => StoreError::Backend(text),
    }
}

fn from_postgres(code: &str, text: String) -> StoreError {
    match code {
        // Serialization failure, deadlock, lock timeout.
        "40001" | "40P01" | "55P03" => StoreError::Unavailable(format!("the database was busy: {text}")),
        "53100" => StoreError::Full(format!("the database has no room left: {text}")),
        "28P01" | "28000" => StoreError::Unavailable(format!(
            "the database refused the login ({text}): check user and password in the database address"
        )),
        "3D000" => StoreError::Unavailable(format!("{text}: create it first, for example with `createdb`")),
        "42501" => StoreError::Unavailable(format!("{text}: grant this user the right to create tables")),
        // `raise exception … using errcode = 'PC001'` in our triggers.
        "PC001" => StoreError::Conflict(text),
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("57") => {
            StoreError::Unavailable(format!("the database is not available: {text}"))
        }
        _ => StoreError::Backend(text),
    }
}
