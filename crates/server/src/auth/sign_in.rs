//! Signing in by name and password: limited, audited, and as slow for a name that is not there as for one that is.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use pitcrew_store::{AuditEntry, StoreError, UserRow};
use serde_json::json;

use super::{ANONYMOUS, Auth, User, password, token};
use crate::error::ApiError;

/// For so long a program's credentials need not be looked at again.
const BELIEVED: SignedDuration = SignedDuration::from_secs(60);
const MAX_BELIEVED: usize = 1_000;

/// Why nobody was signed in.
#[derive(Debug)]
pub enum SignInError {
    /// Name or password; which one is not told.
    Wrong,
    /// Too many attempts: the next one may come after this.
    Wait(SignedDuration),
    Store(StoreError),
}

impl SignInError {
    pub fn status(&self) -> StatusCode {
        match self {
            SignInError::Wrong => StatusCode::UNAUTHORIZED,
            SignInError::Wait(_) => StatusCode::TOO_MANY_REQUESTS,
            SignInError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// For whoever tried.
    pub fn message(&self) -> String {
        match self {
            SignInError::Wrong => "Invalid credentials".to_owned(),
            SignInError::Wait(_) => format!("Too many attempts: try again in {} s", self.seconds()),
            SignInError::Store(_) => "The database cannot be reached: try again".to_owned(),
        }
    }

    /// The header that says when to come back, if it is too early.
    pub fn retry_after(&self) -> Option<(HeaderName, String)> {
        matches!(self, SignInError::Wait(_)).then(|| (RETRY_AFTER, self.seconds().to_string()))
    }

    fn seconds(&self) -> u64 {
        let SignInError::Wait(wait) = self else { return 0 };
        Duration::try_from(*wait).unwrap_or_default().as_millis().div_ceil(1000) as u64
    }
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        SignInError::Store(error)
    }
}

impl IntoResponse for SignInError {
    fn into_response(self) -> Response {
        let retry = self.retry_after();
        let error = match self {
            SignInError::Store(error) => error.into(),
            other => ApiError::Status(other.status(), other.message()),
        };
        match retry {
            Some(header) => ([header], error).into_response(),
            None => error.into_response(),
        }
    }
}

impl Auth {
    /// The user, if name and password are right; `from` is the address of whoever tries.
    pub async fn sign_in(
        &self,
        name: &str,
        password: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<User, SignInError> {
        if self.0.off {
            return Ok(User::local(ANONYMOUS));
        }
        let row = self.check(name, password, from, now).await?;
        self.signed_in(&row, "password", from, now).await?;
        Ok(User::of(&row))
    }

    /// Notes that a user came in.
    pub async fn signed_in(
        &self,
        row: &UserRow,
        how: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut audit = AuditEntry::new(now, row.name.clone(), "login");
        audit.detail = json!({ "by": how, "from": from });
        self.0.store.record_audit(audit).await?;
        self.0.store.note_login(&row.name, now).await
    }

    /// Checks a password that counts as an attempt to come in.
    pub(super) async fn check(
        &self,
        name: &str,
        password: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<UserRow, SignInError> {
        let name = name.trim().to_lowercase();
        self.0.limits.begin(&name, from, now).map_err(SignInError::Wait)?;
        let row = self.0.store.user(&name).await?;
        let stored = row.as_ref().filter(|row| row.active).and_then(|row| row.password.as_deref());
        let fits = password::fits(password, stored).await;
        match row {
            Some(row) if fits => {
                self.0.limits.succeeded(&name, from);
                Ok(row)
            }
            row => {
                // What was typed as a name may be a password: only names of users are written down.
                let who = row.map_or("unknown", |_| name.as_str());
                let mut audit = AuditEntry::new(now, who, "login.failed");
                audit.detail = json!({ "from": from });
                self.0.store.record_audit(audit).await?;
                Err(SignInError::Wrong)
            }
        }
    }

    /// Who sends these credentials with a request, `name:password` in base64. Programs do so each time, so right ones
    /// are believed for a minute, unless the user's row changes.
    pub async fn basic(
        &self,
        credentials: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<User>, SignInError> {
        let text = BASE64.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((name, password)) = text.as_deref().and_then(|text| text.split_once(':')) else { return Ok(None) };
        let name = name.trim().to_lowercase();
        if self.0.off {
            return Ok(Some(User::local(ANONYMOUS)));
        }
        if password.starts_with(token::PREFIX) {
            return Ok(self.bearer(password, now).await?.filter(|user| user.account == name));
        }
        let known = self.0.people.active(&name, now).await?;
        let code = |row: &UserRow| {
            let stored = row.password.as_deref().unwrap_or_default();
            self.0.key.mac(&format!("{name}\0{}\0{stored}\0{password}", row.epoch))
        };
        if let Some(row) = &known
            && self.believed().get(&code(row)).is_some_and(|until| *until > now)
        {
            return Ok(Some(User::of(row)));
        }
        let row = self.check(&name, password, from, now).await?;
        let mut believed = self.believed();
        believed.retain(|_, until| *until > now);
        if believed.len() < MAX_BELIEVED {
            believed.insert(code(&row), now + BELIEVED);
        }
        Ok(Some(User::of(&row)))
    }

    fn believed(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Vec<u8>, Timestamp>> {
        self.0.verified.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
