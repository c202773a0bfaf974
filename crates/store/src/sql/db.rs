//! The one place where the two databases are told apart statement by statement: values in, rows out.
//!
//! Statements are written once, with `$1`, `$2`, …, which both accept. Integers are 64 bits wide in both, so one
//! [`Value`] and one [`Row`] serve both, and no statement exists twice.
//!
//! What reaches into the driver is behind an [`Answer`], so that the driver is compiled here, once: the body of an
//! `async fn` is compiled again in every crate that awaits it.

use std::borrow::Cow;
use std::pin::Pin;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Arguments, Decode, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Transaction, Type};

use crate::error::{Result, StoreError};

/// A value of a statement. NULL has a type, because PostgreSQL wants one.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    Int(Option<i64>),
    Text(Option<Cow<'a, str>>),
    Bool(bool),
}

macro_rules! value_from {
    ($($from:ty, $value:pat => $to:expr;)*) => {
        $(impl<'a> From<$from> for Value<'a> {
            fn from($value: $from) -> Self {
                $to
            }
        })*
    };
}

value_from! {
    i64, value => Value::Int(Some(value));
    i32, value => Value::Int(Some(value.into()));
    u32, value => Value::Int(Some(value.into()));
    Option<i64>, value => Value::Int(value);
    Timestamp, value => Value::Int(Some(value.as_microsecond()));
    Option<Timestamp>, value => Value::Int(value.map(|at| at.as_microsecond()));
    &'a str, value => Value::Text(Some(Cow::Borrowed(value)));
    &'a String, value => Value::Text(Some(Cow::Borrowed(value)));
    String, value => Value::Text(Some(Cow::Owned(value)));
    Option<&'a str>, value => Value::Text(value.map(Cow::Borrowed));
    Option<String>, value => Value::Text(value.map(Cow::Owned));
    bool, value => Value::Bool(value);
}

/// The values of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::sql::db::Value::from($value)),*] };
}
pub(crate) use args;

/// A row of either database. Columns are read by position, in the order of the statement.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}
impl Column for i64 {}
impl Column for Option<i64> {}
impl Column for String {}
impl Column for Option<String> {}
impl Column for bool {}

impl Row {
    pub fn get<T: Column>(&self, column: usize) -> Result<T> {
        Ok(match self {
            Row::Sqlite(row) => row.try_get(column)?,
            Row::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Reads the columns from the first to the last.
    pub fn fields(&self) -> Fields<'_> {
        Fields { row: self, next: 0 }
    }
}

/// The columns of a row, one after the other.
pub struct Fields<'r> {
    row: &'r Row,
    next: usize,
}

impl Fields<'_> {
    pub fn take<T: Column>(&mut self) -> Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    /// An integer of any narrower kind.
    pub fn int<T: TryFrom<i64>>(&mut self) -> Result<T> {
        let value: i64 = self.take()?;
        T::try_from(value).map_err(|_| self.corrupt(&value.to_string()))
    }

    pub fn int_optional<T: TryFrom<i64>>(&mut self) -> Result<Option<T>> {
        match self.take::<Option<i64>>()? {
            None => Ok(None),
            Some(value) => T::try_from(value).map(Some).map_err(|_| self.corrupt(&value.to_string())),
        }
    }

    /// A text that has a type of its own: an id.
    pub fn parse<T: std::str::FromStr>(&mut self) -> Result<T> {
        let text: String = self.take()?;
        text.parse().map_err(|_| self.corrupt(&text))
    }

    pub fn parse_optional<T: std::str::FromStr>(&mut self) -> Result<Option<T>> {
        match self.take::<Option<String>>()? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.corrupt(&text)),
        }
    }

    /// A word out of a closed set.
    pub fn word<T>(&mut self, from_name: impl Fn(&str) -> Option<T>) -> Result<T> {
        let text: String = self.take()?;
        from_name(&text).ok_or_else(|| self.corrupt(&text))
    }

    pub fn time(&mut self) -> Result<Timestamp> {
        let micros: i64 = self.take()?;
        Timestamp::from_microsecond(micros).map_err(|_| self.corrupt(&micros.to_string()))
    }

    pub fn time_optional(&mut self) -> Result<Option<Timestamp>> {
        match self.take::<Option<i64>>()? {
            None => Ok(None),
            Some(micros) => {
                Timestamp::from_microsecond(micros).map(Some).map_err(|_| self.corrupt(&micros.to_string()))
            }
        }
    }

    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let text: String = self.take()?;
        serde_json::from_str(&text).map_err(|_| self.corrupt(&text))
    }

    pub fn json_optional<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        match self.take::<Option<String>>()? {
            None => Ok(None),
            Some(text) => serde_json::from_str(&text).map(Some).map_err(|_| self.corrupt(&text)),
        }
    }

    fn corrupt(&self, found: &str) -> StoreError {
        let found: String = found.chars().take(80).collect();
        StoreError::Corrupt(format!(
            "a stored row cannot be read: column {} holds `{found}`; was the database changed by hand?",
            self.next
        ))
    }
}

/// What the database will have said.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A database. SQLite has one writing connection, and others that only read beside it.
#[derive(Clone)]
pub enum Db {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(PgPool),
}

impl Db {
    pub fn is_sqlite(&self) -> bool {
        matches!(self, Db::Sqlite { .. })
    }

    /// One statement that only reads.
    pub fn read<'a>(&'a self, sql: impl SqlSafeStr, args: Vec<Value<'a>>) -> Answer<'a, Vec<Row>> {
        self.fetch(sql.into_sql_str(), args)
    }

    pub async fn read_one(&self, sql: impl SqlSafeStr, args: Vec<Value<'_>>) -> Result<Option<Row>> {
        Ok(self.read(sql, args).await?.into_iter().next())
    }

    fn fetch<'a>(&'a self, sql: SqlStr, args: Vec<Value<'a>>) -> Answer<'a, Vec<Row>> {
        Box::pin(async move {
            Ok(match self {
                Db::Sqlite { readers, .. } => {
                    let rows = sqlx::query_with::<Sqlite, _>(sql, sqlite_arguments(args)?).fetch_all(readers).await?;
                    rows.into_iter().map(Row::Sqlite).collect()
                }
                Db::Postgres(pool) => {
                    let rows = sqlx::query_with::<Postgres, _>(sql, postgres_arguments(args)?).fetch_all(pool).await?;
                    rows.into_iter().map(Row::Postgres).collect()
                }
            })
        })
    }

    /// The condition that a text of ASCII has a part, whatever the case, for a pattern of `lists::containing`.
    pub fn has_part(&self, column: &str) -> String {
        match self {
            // By itself it minds no case, and costs a third of `lower`.
            Db::Sqlite { .. } => format!(r"{column} LIKE ? ESCAPE '\'"),
            Db::Postgres(_) => format!(r"lower({column}) LIKE ? ESCAPE '\'"),
        }
    }

    /// A transaction that may write. On SQLite it is the only one of all processes.
    pub fn begin(&self) -> Answer<'_, Tx> {
        Box::pin(async move {
            Ok(match self {
                Db::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
                Db::Postgres(pool) => Tx::Postgres(pool.begin().await?),
            })
        })
    }

    /// A transaction whose statements all read one state of the database.
    pub fn snapshot(&self) -> Answer<'_, Tx> {
        Box::pin(async move {
            Ok(match self {
                Db::Sqlite { readers, .. } => Tx::Sqlite(readers.begin().await?),
                Db::Postgres(pool) => {
                    Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
                }
            })
        })
    }

    pub async fn close(&self) {
        match self {
            Db::Sqlite { writer, readers } => {
                // The last connection to close folds the log into the file; that must be one that may write.
                readers.close().await;
                writer.close().await;
            }
            Db::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction. Dropped without [`Tx::commit`], it leaves no trace.
pub enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub fn is_postgres(&self) -> bool {
        matches!(self, Tx::Postgres(_))
    }

    /// Executes a statement and says how many rows it changed.
    pub fn execute<'a>(&'a mut self, sql: impl SqlSafeStr, args: Vec<Value<'a>>) -> Answer<'a, u64> {
        self.change(sql.into_sql_str(), args)
    }

    pub fn fetch<'a>(&'a mut self, sql: impl SqlSafeStr, args: Vec<Value<'a>>) -> Answer<'a, Vec<Row>> {
        self.rows(sql.into_sql_str(), args)
    }

    pub async fn fetch_one(&mut self, sql: impl SqlSafeStr, args: Vec<Value<'_>>) -> Result<Option<Row>> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    fn change<'a>(&'a mut self, sql: SqlStr, args: Vec<Value<'a>>) -> Answer<'a, u64> {
        Box::pin(async move {
            Ok(match self {
                Tx::Sqlite(tx) => {
                    let query = sqlx::query_with::<Sqlite, _>(sql, sqlite_arguments(args)?);
                    query.execute(&mut **tx).await?.rows_affected()
                }
                Tx::Postgres(tx) => {
                    let query = sqlx::query_with::<Postgres, _>(sql, postgres_arguments(args)?);
                    query.execute(&mut **tx).await?.rows_affected()
                }
            })
        })
    }

    fn rows<'a>(&'a mut self, sql: SqlStr, args: Vec<Value<'a>>) -> Answer<'a, Vec<Row>> {
        Box::pin(async move {
            Ok(match self {
                Tx::Sqlite(tx) => {
                    let query = sqlx::query_with::<Sqlite, _>(sql, sqlite_arguments(args)?);
                    query.fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
                }
                Tx::Postgres(tx) => {
                    let query = sqlx::query_with::<Postgres, _>(sql, postgres_arguments(args)?);
                    query.fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
                }
            })
        })
    }

    /// Several statements without values, separated by `;`.
    pub fn script(&mut self, sql: &'static str) -> Answer<'_, ()> {
        Box::pin(async move {
            let script = sqlx::raw_sql(sql);
            match self {
                Tx::Sqlite(tx) => script.execute(&mut **tx).await.map(|_| ())?,
                Tx::Postgres(tx) => script.execute(&mut **tx).await.map(|_| ())?,
            }
            Ok(())
        })
    }

    pub fn commit(self) -> Answer<'static, ()> {
        Box::pin(async move {
            match self {
                Tx::Sqlite(tx) => tx.commit().await?,
                Tx::Postgres(tx) => tx.commit().await?,
            }
            Ok(())
        })
    }
}

fn sqlite_arguments(args: Vec<Value<'_>>) -> Result<SqliteArguments> {
    let mut out = SqliteArguments::default();
    out.reserve(args.len(), 0);
    for value in args {
        match value {
            Value::Int(value) => Arguments::add(&mut out, value),
            Value::Bool(value) => Arguments::add(&mut out, value),
            Value::Text(Some(Cow::Owned(value))) => Arguments::add(&mut out, value),
            Value::Text(value) => Arguments::add(&mut out, value.as_deref()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(out)
}

fn postgres_arguments(args: Vec<Value<'_>>) -> Result<PgArguments> {
    let mut out = PgArguments::default();
    for value in args {
        match value {
            Value::Int(value) => out.add(value),
            Value::Bool(value) => out.add(value),
            Value::Text(value) => out.add(value.as_deref()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(out)
}
