//! Users, tokens and connections.

use jiff::Timestamp;
use pitcrew_core::id::WorkflowId;
use sqlx::AssertSqlSafe;

use super::db::{Row, Value, args};
use super::lists::{Where, containing};
use super::{Sql, commit, rows};
use crate::error::{Result, StoreError};
use crate::types::*;

const USER: &str =
    "SELECT name, role, password, full_name, email, active, subject, epoch, created, last_login FROM users";

fn user(row: &Row) -> Result<UserRow> {
    let mut row = row.fields();
    Ok(UserRow {
        name: row.take()?,
        role: row.word(Role::from_name)?,
        password: row.take()?,
        full_name: row.take()?,
        email: row.take()?,
        active: row.take()?,
        subject: row.take()?,
        epoch: row.take()?,
        created: row.time()?,
        last_login: row.time_optional()?,
    })
}

const TOKEN: &str = "SELECT id, user_name, name, hash, role, workflows, created, expires, last_used FROM tokens";

fn token(row: &Row) -> Result<TokenRow> {
    let mut row = row.fields();
    Ok(TokenRow {
        id: row.take()?,
        user: row.take()?,
        name: row.take()?,
        hash: row.take()?,
        role: row.word(Role::from_name)?,
        workflows: row.json::<Vec<WorkflowId>>()?,
        created: row.time()?,
        expires: row.time_optional()?,
        last_used: row.time_optional()?,
    })
}

const CONNECTION: &str =
    "SELECT id, conn_type, description, host, db_schema, login, port, password, extra FROM connections";

fn connection(row: &Row) -> Result<Connection> {
    let mut row = row.fields();
    Ok(Connection {
        id: row.take()?,
        conn_type: row.take()?,
        description: row.take()?,
        host: row.take()?,
        schema: row.take()?,
        login: row.take()?,
        port: row.int_optional()?,
        password: row.take()?,
        extra: row.take()?,
    })
}

/// An hour in microseconds, the grain of `last_used`.
const HOUR: i64 = 3_600_000_000;

impl Sql {
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>> {
        self.one(format!("{USER} WHERE name = $1"), args![name], user).await
    }

    pub async fn user_by_subject(&self, subject: &str) -> Result<Option<UserRow>> {
        self.one(format!("{USER} WHERE subject = $1"), args![subject], user).await
    }

    pub async fn users(&self, paging: Paging) -> Result<Page<UserRow>> {
        let (limit, args) = Where::default().paged(paging);
        let rows = self.all(format!("{USER} ORDER BY name{limit}"), args, user).await?;
        let total = self.count("SELECT count(*) FROM users".to_owned(), args![]).await?;
        Ok(Page { rows, total })
    }

    pub async fn put_user(&self, user: UserRow, audit: AuditEntry) -> Result<()> {
        let sql = "INSERT INTO users (name, role, password, full_name, email, active, subject, epoch, created, \
             last_login) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO UPDATE SET \
             role = excluded.role, password = excluded.password, full_name = excluded.full_name, \
             email = excluded.email, active = excluded.active, subject = excluded.subject, epoch = excluded.epoch, \
             created = excluded.created, last_login = excluded.last_login";
        let values = args![
            &user.name,
            user.role.name(),
            user.password.as_deref(),
            &user.full_name,
            &user.email,
            user.active,
            user.subject.as_deref(),
            user.epoch,
            user.created,
            user.last_login,
        ];
        self.write_one(sql, values, audit).await
    }

    pub async fn delete_user(&self, name: &str, audit: AuditEntry) -> Result<bool> {
        // The tokens go with it, by their foreign key.
        self.delete_named("DELETE FROM users WHERE name = $1", name, audit).await
    }

    pub async fn note_login(&self, name: &str, at: Timestamp) -> Result<()> {
        self.execute("UPDATE users SET last_login = $2 WHERE name = $1", args![name, at]).await?;
        Ok(())
    }

    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>> {
        self.one(format!("{TOKEN} WHERE id = $1"), args![id], token).await
    }

    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<TokenRow>> {
        self.one(format!("{TOKEN} WHERE hash = $1"), args![hash], token).await
    }

    pub async fn tokens(&self, user: Option<&str>) -> Result<Vec<TokenRow>> {
        let mut kept = Where::default();
        if let Some(user) = user {
            kept.and("user_name = ?", user);
        }
        self.all(format!("{TOKEN}{} ORDER BY user_name, id", kept.text()), kept.args(), token).await
    }

    pub async fn put_token(&self, token: TokenRow, audit: AuditEntry) -> Result<()> {
        if self.user(&token.user).await?.is_none() {
            return Err(StoreError::not_found("user", &token.user));
        }
        let sql = "INSERT INTO tokens (id, user_name, name, hash, role, workflows, created, expires, last_used) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let workflows = rows::json(&token.workflows)?;
        let (id, user, name, hash, role) = (&token.id, &token.user, &token.name, &token.hash, token.role.name());
        let values = args![id, user, name, hash, role, workflows, token.created, token.expires, token.last_used];
        self.write_one(sql, values, audit).await
    }

    pub async fn delete_token(&self, id: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM tokens WHERE id = $1", id, audit).await
    }

    pub async fn note_token_use(&self, id: &str, at: Timestamp) -> Result<()> {
        // Looked at first, because this comes with every request and a write would wait for other writers.
        let stale = "SELECT 1 FROM tokens WHERE id = $1 AND (last_used IS NULL OR last_used < $2)";
        let before = Value::from(at.as_microsecond() - HOUR);
        if self.db.read_one(stale, vec![Value::from(id), before]).await?.is_some() {
            self.execute("UPDATE tokens SET last_used = $2 WHERE id = $1", args![id, at]).await?;
        }
        Ok(())
    }

    pub async fn connection(&self, id: &str) -> Result<Option<Connection>> {
        self.one(format!("{CONNECTION} WHERE id = $1"), args![id], connection).await
    }

    pub async fn connections(&self, contains: Option<&str>, paging: Paging) -> Result<Page<Connection>> {
        let mut kept = Where::default();
        if let Some(part) = contains {
            kept.and(r"lower(id) LIKE ? ESCAPE '\'", containing(part));
        }
        let (limit, args) = kept.paged(paging);
        let text = kept.text();
        let rows = self.all(format!("{CONNECTION}{text} ORDER BY id{limit}"), args, connection).await?;
        let total = self.count(format!("SELECT count(*) FROM connections{text}"), kept.args()).await?;
        Ok(Page { rows, total })
    }

    pub async fn put_connection(&self, connection: Connection, audit: AuditEntry) -> Result<()> {
        let sql = "INSERT INTO connections (id, conn_type, description, host, db_schema, login, port, password, extra) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET \
             conn_type = excluded.conn_type, description = excluded.description, host = excluded.host, \
             db_schema = excluded.db_schema, login = excluded.login, port = excluded.port, \
             password = excluded.password, extra = excluded.extra";
        let c = &connection;
        let (password, extra) = (c.password.as_deref(), c.extra.as_deref());
        let port = c.port.map(i64::from);
        let values = args![&c.id, &c.conn_type, &c.description, &c.host, &c.schema, &c.login, port, password, extra];
        self.write_one(sql, values, audit).await
    }

    pub async fn delete_connection(&self, id: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM connections WHERE id = $1", id, audit).await
    }

    /// The first row of a statement that only reads.
    pub(super) async fn one<T>(
        &self,
        sql: String,
        args: Vec<Value<'_>>,
        read: impl Fn(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        self.db.read_one(AssertSqlSafe(sql), args).await?.as_ref().map(read).transpose()
    }

    /// The rows of a statement that only reads.
    pub(super) async fn all<T>(
        &self,
        sql: String,
        args: Vec<Value<'_>>,
        read: impl Fn(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.db.read(AssertSqlSafe(sql), args).await?.iter().map(read).collect()
    }

    /// One statement with its audit entry.
    async fn write_one(&self, sql: &'static str, args: Vec<Value<'_>>, audit: AuditEntry) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(sql, args).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await
    }
}
