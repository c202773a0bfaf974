//! Users, tokens and connections in memory.

use jiff::{SignedDuration, Timestamp};

use super::{Mem, reads::page};
use crate::error::{Result, StoreError};
use crate::types::*;

impl Mem {
    pub fn user(&self, name: &str) -> Result<Option<UserRow>> {
        Ok(self.lock().users.get(name).cloned())
    }

    pub fn user_by_subject(&self, subject: &str) -> Result<Option<UserRow>> {
        Ok(self.lock().users.values().find(|user| user.subject.as_deref() == Some(subject)).cloned())
    }

    pub fn users(&self, paging: Paging) -> Result<Page<UserRow>> {
        Ok(page(self.lock().users.values().cloned().collect(), paging))
    }

    pub fn put_user(&self, user: UserRow, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        let same_subject = |other: &&UserRow| user.subject.is_some() && other.subject == user.subject;
        if state.users.values().filter(same_subject).any(|other| other.name != user.name) {
            return Err(StoreError::Conflict("another user has this subject already".to_owned()));
        }
        state.users.insert(user.name.clone(), user);
        state.write_audit([audit]);
        Ok(())
    }

    pub fn delete_user(&self, name: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.users.remove(name).is_some();
        state.tokens.retain(|_, token| token.user != name);
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }

    pub fn note_login(&self, name: &str, at: Timestamp) -> Result<()> {
        if let Some(user) = self.lock().users.get_mut(name) {
            user.last_login = Some(at);
        }
        Ok(())
    }

    pub fn token(&self, id: &str) -> Result<Option<TokenRow>> {
        Ok(self.lock().tokens.get(id).cloned())
    }

    pub fn token_by_hash(&self, hash: &str) -> Result<Option<TokenRow>> {
        Ok(self.lock().tokens.values().find(|token| token.hash == hash).cloned())
    }

    pub fn tokens(&self, user: Option<&str>) -> Result<Vec<TokenRow>> {
        let state = self.lock();
        let kept = state.tokens.values().filter(|token| user.is_none_or(|user| token.user == user));
        let mut kept: Vec<TokenRow> = kept.cloned().collect();
        kept.sort_by(|a, b| (&a.user, &a.id).cmp(&(&b.user, &b.id)));
        Ok(kept)
    }

    pub fn put_token(&self, token: TokenRow, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        if !state.users.contains_key(&token.user) {
            return Err(StoreError::not_found("user", &token.user));
        }
        if state.tokens.values().any(|old| old.id == token.id || old.hash == token.hash) {
            return Err(StoreError::Conflict(format!("there is a token `{}` already", token.id)));
        }
        state.tokens.insert(token.id.clone(), token);
        state.write_audit([audit]);
        Ok(())
    }

    pub fn delete_token(&self, id: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.tokens.remove(id).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }

    pub fn note_token_use(&self, id: &str, at: Timestamp) -> Result<()> {
        if let Some(token) = self.lock().tokens.get_mut(id)
            && token.last_used.is_none_or(|last| at.duration_since(last) > SignedDuration::from_hours(1))
        {
            token.last_used = Some(at);
        }
        Ok(())
    }

    pub fn connection(&self, id: &str) -> Result<Option<Connection>> {
        Ok(self.lock().connections.get(id).cloned())
    }

    pub fn connections(&self, contains: Option<&str>, paging: Paging) -> Result<Page<Connection>> {
        let part = contains.unwrap_or_default().to_ascii_lowercase();
        let state = self.lock();
        let kept = state.connections.values().filter(|row| row.id.to_ascii_lowercase().contains(&part));
        Ok(page(kept.cloned().collect(), paging))
    }

    pub fn put_connection(&self, connection: Connection, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        state.connections.insert(connection.id.clone(), connection);
        state.write_audit([audit]);
        Ok(())
    }

    pub fn delete_connection(&self, id: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.connections.remove(id).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }
}
