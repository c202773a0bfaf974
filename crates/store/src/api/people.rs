//! Users, tokens and connections.

use jiff::Timestamp;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>> {
        ask!(self, user(name))
    }

    pub async fn user_by_subject(&self, subject: &str) -> Result<Option<UserRow>> {
        ask!(self, user_by_subject(subject))
    }

    /// By name in order.
    pub async fn users(&self, paging: Paging) -> Result<Page<UserRow>> {
        ask!(self, users(paging))
    }

    /// Makes a user or writes everything about one. Two users of one subject are a
    /// [`StoreError::Conflict`](crate::StoreError::Conflict).
    pub async fn put_user(&self, mut user: UserRow, mut audit: AuditEntry) -> Result<()> {
        normalise::user(&mut user)?;
        normalise::audit(&mut audit);
        ask!(self, put_user(user, audit))
    }

    /// Deletes a user with all tokens. Says whether it was there, and only then writes the audit entry.
    pub async fn delete_user(&self, name: &str, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_user(name, audit))
    }

    /// Notes that a user has signed in, if there is one of that name.
    pub async fn note_login(&self, name: &str, mut at: Timestamp) -> Result<()> {
        normalise::time(&mut at);
        ask!(self, note_login(name, at))
    }

    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>> {
        ask!(self, token(id))
    }

    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<TokenRow>> {
        ask!(self, token_by_hash(hash))
    }

    /// The tokens of one user or of all; by user, then id in order.
    pub async fn tokens(&self, user: Option<&str>) -> Result<Vec<TokenRow>> {
        ask!(self, tokens(user))
    }

    /// Makes a token. An id or a hash that is there already is a conflict; its user must exist.
    pub async fn put_token(&self, mut token: TokenRow, mut audit: AuditEntry) -> Result<()> {
        normalise::token(&mut token)?;
        normalise::audit(&mut audit);
        ask!(self, put_token(token, audit))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_token(&self, id: &str, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_token(id, audit))
    }

    /// Notes that a token was used. Writes only if the last note is more than an hour older, so it may be called
    /// at every request.
    pub async fn note_token_use(&self, id: &str, mut at: Timestamp) -> Result<()> {
        normalise::time(&mut at);
        ask!(self, note_token_use(id, at))
    }

    pub async fn connection(&self, id: &str) -> Result<Option<Connection>> {
        match self.given.connections().get(id) {
            Some(given) => Ok(Some(given)),
            None => ask!(self, connection(id)),
        }
    }

    /// By id in order; with `contains` only those that have it in their id, whatever its case.
    pub async fn connections(&self, contains: Option<&str>, paging: Paging) -> Result<Page<Connection>> {
        let given = self.given.connections();
        if given.is_empty() {
            return ask!(self, connections(contains, paging));
        }
        let stored = ask!(self, connections(contains, Paging::ALL))?;
        let part = contains.unwrap_or_default().to_lowercase();
        Ok(given.page(stored.rows, |id| id.to_lowercase().contains(&part), paging))
    }

    pub async fn put_connection(&self, mut connection: Connection, mut audit: AuditEntry) -> Result<()> {
        self.given.connections().refuse(&connection.id)?;
        normalise::connection(&mut connection)?;
        normalise::audit(&mut audit);
        ask!(self, put_connection(connection, audit))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_connection(&self, id: &str, mut audit: AuditEntry) -> Result<bool> {
        self.given.connections().refuse(id)?;
        normalise::audit(&mut audit);
        ask!(self, delete_connection(id, audit))
    }
}
