//! Changing users and tokens: for the pages and for the command line, with every check inside.
//!
//! Invariants: somebody who is active and an admin is always left; nobody changes their own role, and nobody gives more
//! than they have; what an API token opens does not include this, so a token that got away cannot make others.

use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::WorkflowId;
use pitcrew_store::{AuditEntry, Paging, Role, Store, StoreError, TokenRow, UserRow};
use serde_json::{Value, json};

use super::{ANONYMOUS, Auth, SignInError, User, password, token};
use crate::error::ApiError;

/// The longest name of a user, in bytes.
const MAX_NAME: usize = 100;
/// How long a token is good when nobody says.
pub const TOKEN_DAYS: i64 = 90;

/// Why something was not done.
#[derive(Debug)]
pub enum Refused {
    Invalid(String),
    Forbidden(String),
    NotFound(String),
    Conflict(String),
    Store(StoreError),
    Other(anyhow::Error),
}

/// A user to be made.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    pub name: String,
    /// Nobody's role is the lowest by accident: `None` is refused.
    pub role: Option<Role>,
    /// Without one, a user comes in by the provider or by tokens only.
    pub password: Option<String>,
    pub full_name: String,
    pub email: String,
}

/// A token to be made.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    pub user: String,
    /// What it is for.
    pub name: String,
    /// The most that it may do; `None`: what its user may.
    pub role: Option<Role>,
    /// The workflows that it is for; none: all.
    pub workflows: Vec<WorkflowId>,
    /// `None`: it never expires.
    pub life: Option<SignedDuration>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Invalid(why) | Refused::Forbidden(why) | Refused::NotFound(why) | Refused::Conflict(why) => {
                f.write_str(why)
            }
            Refused::Store(error) => error.fmt(f),
            Refused::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Refused::Store(error)
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Refused::Other(error)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(why) => ApiError::bad_request(why),
            Refused::Forbidden(why) => ApiError::Status(axum::http::StatusCode::FORBIDDEN, why),
            Refused::NotFound(why) => ApiError::not_found(why),
            Refused::Conflict(why) => ApiError::conflict(why),
            Refused::Store(error) => error.into(),
            Refused::Other(error) => error.into(),
        }
    }
}

/// Makes a user.
pub async fn create_user(store: &Store, by: &User, new: NewUser, now: Timestamp) -> Result<UserRow, Refused> {
    must_be_admin(by)?;
    let name = user_name(&new.name)?;
    let Some(role) = new.role else { return Err(Refused::Invalid(format!("say which role `{name}` has"))) };
    if store.user(&name).await?.is_some() {
        return Err(Refused::Conflict(format!("there is a user `{name}` already")));
    }
    let password = match new.password {
        Some(password) => Some(new_hash(&password).await?),
        None => None,
    };
    let row = UserRow { password, full_name: new.full_name, email: new.email, ..blank(&name, role, now) };
    put(store, by, "user.create", row, json!({ "role": role.name() }), now).await
}

/// Gives a user another role, and ends its sessions.
pub async fn set_role(store: &Store, by: &User, name: &str, role: Role, now: Timestamp) -> Result<UserRow, Refused> {
    must_be_admin(by)?;
    must_be_another(by, name, "role")?;
    let row = find(store, name).await?;
    if role < Role::Admin {
        must_not_be_the_last_admin(store, &row).await?;
    }
    let detail = json!({ "from": row.role.name(), "to": role.name() });
    let row = UserRow { role, epoch: next_epoch(&row, now), ..row };
    put(store, by, "user.role", row, detail, now).await
}

/// Gives a user a new password, and ends its sessions. To change one's own, the old one must have been checked
/// ([`Auth::change_password`](super::Auth::change_password)).
pub async fn set_password(store: &Store, by: &User, name: &str, new: &str, now: Timestamp) -> Result<UserRow, Refused> {
    must_be_admin(by)?;
    must_be_another(by, name, "password")?;
    put_password(store, by, find(store, name).await?, new, now).await
}

async fn put_password(store: &Store, by: &User, row: UserRow, new: &str, now: Timestamp) -> Result<UserRow, Refused> {
    let row = UserRow { password: Some(new_hash(new).await?), epoch: next_epoch(&row, now), ..row };
    put(store, by, "user.password", row, Value::Null, now).await
}

impl Auth {
    /// Changes one's own password, with the old one; the session in which that happens ends too.
    pub async fn change_password(
        &self,
        by: &User,
        old: &str,
        new: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<UserRow, Refused> {
        must_not_be_a_token(by)?;
        password::check_new(new).map_err(Refused::Invalid)?;
        let row = self.check(&by.account, old, from, now).await.map_err(|error| match error {
            SignInError::Wrong => Refused::Forbidden("the old password is not right".to_owned()),
            SignInError::Wait(_) => Refused::Conflict(error.message()),
            SignInError::Store(error) => Refused::Store(error),
        })?;
        let row = put_password(&self.0.store, by, row, new, now).await?;
        self.changed();
        Ok(row)
    }
}

/// Lets a user in again, or keeps it out: its sessions end and its tokens stop working.
pub async fn set_active(
    store: &Store,
    by: &User,
    name: &str,
    active: bool,
    now: Timestamp,
) -> Result<UserRow, Refused> {
    must_be_admin(by)?;
    must_be_another(by, name, "account")?;
    let row = find(store, name).await?;
    if !active {
        must_not_be_the_last_admin(store, &row).await?;
    }
    let event = if active { "user.activate" } else { "user.deactivate" };
    let row = UserRow { active, epoch: next_epoch(&row, now), ..row };
    put(store, by, event, row, Value::Null, now).await
}

/// Ends every session of a user, one's own or, as an admin, another's.
pub async fn end_sessions(store: &Store, by: &User, name: &str, now: Timestamp) -> Result<UserRow, Refused> {
    must_not_be_a_token(by)?;
    if by.account != name {
        must_be_admin(by)?;
    }
    let row = find(store, name).await?;
    let row = UserRow { epoch: next_epoch(&row, now), ..row };
    put(store, by, "user.logout", row, Value::Null, now).await
}

/// Deletes a user with all of its tokens.
pub async fn delete_user(store: &Store, by: &User, name: &str, now: Timestamp) -> Result<(), Refused> {
    must_be_admin(by)?;
    must_be_another(by, name, "account")?;
    let row = find(store, name).await?;
    must_not_be_the_last_admin(store, &row).await?;
    store.delete_user(&row.name, audit(by, "user.delete", &row.name, Value::Null, now)).await?;
    Ok(())
}

/// Makes a token; the second value is the token itself, which cannot be found out later.
pub async fn create_token(
    store: &Store,
    by: &User,
    new: NewToken,
    now: Timestamp,
) -> Result<(TokenRow, String), Refused> {
    must_not_be_a_token(by)?;
    if by.account != new.user {
        must_be_admin(by)?;
    }
    let owner = find(store, &new.user).await?;
    let role = new.role.unwrap_or(owner.role);
    if role > owner.role {
        let (name, has) = (&owner.name, owner.role);
        return Err(Refused::Forbidden(format!("`{name}` is `{has}`, so a token of it cannot be `{role}`")));
    }
    if new.name.trim().is_empty() {
        return Err(Refused::Invalid("give the token a name that says what it is for".to_owned()));
    }
    for workflow in &new.workflows {
        if store.workflow(workflow).await?.is_none() {
            return Err(Refused::NotFound(format!("there is no workflow `{workflow}`")));
        }
    }
    let expires = match new.life {
        None => None,
        Some(life) if life <= SignedDuration::ZERO => {
            return Err(Refused::Invalid("a token must be good for some time".to_owned()));
        }
        Some(life) => {
            let end = now.checked_add(life);
            Some(end.map_err(|_| Refused::Invalid("a token cannot be good for so long".to_owned()))?)
        }
    };
    let (id, secret, hash) = token::mint()?;
    let row = TokenRow {
        id,
        user: owner.name,
        name: new.name.trim().to_owned(),
        hash,
        role,
        workflows: new.workflows,
        created: now,
        expires,
        last_used: None,
    };
    let detail = json!({
        "id": row.id, "name": row.name, "role": row.role.name(), "workflows": row.workflows, "expires": row.expires,
    });
    store.put_token(row.clone(), audit(by, "token.create", &row.user, detail, now)).await?;
    Ok((row, secret))
}

/// Ends a token, one's own or, as an admin, another's. One of another that one may not see is not there.
pub async fn revoke_token(store: &Store, by: &User, id: &str, now: Timestamp) -> Result<TokenRow, Refused> {
    must_not_be_a_token(by)?;
    let row = store.token(id).await?.filter(|row| by.role == Role::Admin || row.user == by.account);
    let row = row.ok_or_else(|| Refused::NotFound(format!("there is no token `{id}`")))?;
    let detail = json!({ "id": row.id, "name": row.name });
    store.delete_token(id, audit(by, "token.revoke", &row.user, detail, now)).await?;
    Ok(row)
}

/// The tokens that somebody may see: their own, or everybody's. Expired ones are among them.
pub async fn tokens(store: &Store, by: &User) -> Result<Vec<TokenRow>, Refused> {
    let whose = (by.role < Role::Admin).then_some(by.account.as_str());
    Ok(store.tokens(whose).await?)
}

/// A new user who can do nothing yet.
pub fn blank(name: &str, role: Role, now: Timestamp) -> UserRow {
    UserRow {
        name: name.to_owned(),
        role,
        password: None,
        full_name: String::new(),
        email: String::new(),
        active: true,
        subject: None,
        // Of the time, so that sessions of a deleted user do not belong to a new one of the same name.
        epoch: now.as_millisecond(),
        created: now,
        last_login: None,
    }
}

/// Ends the sessions that there are.
pub fn next_epoch(row: &UserRow, now: Timestamp) -> i64 {
    (row.epoch + 1).max(now.as_millisecond())
}

/// The name as it is stored, if it can be one: small letters, so that no two look the same.
pub fn user_name(text: &str) -> Result<String, Refused> {
    let name = text.trim().to_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@');
    let is_good = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.chars().all(fits)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_good {
        return Err(Refused::Invalid(format!(
            "a user's name has 1 to {MAX_NAME} letters, digits or `.`, `_`, `-`, `+`, `@`, and begins with a letter or digit"
        )));
    }
    if [ANONYMOUS, "unknown", "server"].contains(&name.as_str()) {
        return Err(Refused::Invalid(format!("the name `{name}` has a meaning of its own: choose another")));
    }
    Ok(name)
}

async fn new_hash(password: &str) -> Result<String, Refused> {
    password::check_new(password).map_err(Refused::Invalid)?;
    Ok(password::hash(password).await?)
}

async fn find(store: &Store, name: &str) -> Result<UserRow, Refused> {
    let row = store.user(name).await?;
    row.ok_or_else(|| Refused::NotFound(format!("there is no user `{name}`")))
}

async fn put(
    store: &Store,
    by: &User,
    event: &str,
    row: UserRow,
    detail: Value,
    now: Timestamp,
) -> Result<UserRow, Refused> {
    store.put_user(row.clone(), audit(by, event, &row.name, detail, now)).await?;
    Ok(row)
}

fn audit(by: &User, event: &str, user: &str, detail: Value, now: Timestamp) -> AuditEntry {
    let mut entry = AuditEntry::new(now, by.name.clone(), event);
    entry.detail = json!({ "user": user });
    if let (Value::Object(all), Value::Object(more)) = (&mut entry.detail, detail) {
        all.extend(more);
    }
    entry
}

fn must_not_be_a_token(by: &User) -> Result<(), Refused> {
    match by.token {
        None => Ok(()),
        Some(_) => {
            Err(Refused::Forbidden("users and tokens are managed after a login, not with an API token".to_owned()))
        }
    }
}

fn must_be_admin(by: &User) -> Result<(), Refused> {
    must_not_be_a_token(by)?;
    match by.role {
        Role::Admin => Ok(()),
        role => {
            Err(Refused::Forbidden(format!("the role `{role}` of `{}` may not do this; it takes `admin`", by.name)))
        }
    }
}

fn must_be_another(by: &User, name: &str, what: &str) -> Result<(), Refused> {
    if by.account != name {
        return Ok(());
    }
    Err(Refused::Conflict(format!("nobody changes their own {what} here: another admin can, or the command line")))
}

async fn must_not_be_the_last_admin(store: &Store, row: &UserRow) -> Result<(), Refused> {
    let is_admin = |row: &UserRow| row.active && row.role == Role::Admin;
    if !is_admin(row) {
        return Ok(());
    }
    let users = store.users(Paging::ALL).await?.rows;
    if users.iter().any(|other| is_admin(other) && other.name != row.name) {
        return Ok(());
    }
    Err(Refused::Conflict(format!("`{}` is the only admin left: make another one first", row.name)))
}
