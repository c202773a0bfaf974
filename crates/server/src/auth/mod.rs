//! Who may use this server, and how they prove it.
//!
//! Users are in the store, each with a role. They prove who they are by a password, by a provider of logins, or by a
//! token that they were given; a browser then keeps a signed cookie. The first start makes `admin` with a password of
//! 120 random bits, which is told once; the terminal shows links with a code that works once.
//!
//! Invariant: a request is let in by what the store says of its user now, within a second, and not by what was true when
//! its token was made: a user who is deactivated, or whose epoch was raised by a new password, role or logout, is out.
//! Without authentication the server listens on loopback addresses only.

mod guard;
mod limits;
pub mod manage;
mod password;
mod people;
mod session;
mod sign_in;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::bail;
use axum::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use pitcrew_control::base_url::BaseUrl;
use pitcrew_core::WorkflowId;
pub use pitcrew_store::Role;
use pitcrew_store::{AuditEntry, Paging, Store, StoreError, UserRow, WorkerRow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub use guard::{Gate, Peer, check_host, check_origin, guard, guard_server, headers, reader, session_cookie};
use limits::Limits;
pub use password::letters;
use people::People;
pub use session::{enter, local, login, login_form, logout, logout_everywhere, refused_form};
pub use sign_in::SignInError;
use token::{Claims, SigningKey};
pub use token::{Use, hash as digest};

/// The user whom the first start makes.
pub const ADMIN: &str = "admin";
/// Who everybody is when nobody is asked.
const ANONYMOUS: &str = "anonymous";

const KEY_SETTING: &str = "auth.key";
/// The hash of the first password; of several servers that start at the same moment, one sets it.
const FIRST_SETTING: &str = "auth.first_password";

/// How users prove who they are.
#[derive(Debug, Clone, Default)]
pub enum AuthConfig {
    /// The first start makes a password for `admin`.
    #[default]
    Generated,
    /// `admin` has this password, from now on.
    Password(String),
    /// Not at all; for loopback addresses.
    Off,
}

/// Who sends a request; every handler behind a role finds it among the extensions of the request.
#[derive(Debug, Clone)]
pub struct User {
    /// As shown and audited; of a token, with the token's name.
    pub name: String,
    /// The name of its row in the store; empty for whoever has none: the terminal, and everybody without authentication.
    pub account: String,
    /// What it may do now: of a token, no more than the token may.
    pub role: Role,
    /// The only workflows that it may touch; `None`: all.
    pub workflows: Option<Arc<[WorkflowId]>>,
    /// The id of the API token that the request came with.
    pub token: Option<String>,
    epoch: i64,
}

impl User {
    /// Somebody who may do everything and is in no table: whoever has the data directory in their hands.
    pub fn local(name: impl Into<String>) -> User {
        User { name: name.into(), account: String::new(), role: Role::Admin, workflows: None, token: None, epoch: 0 }
    }

    /// A user of the store, with everything that it may do.
    pub fn of(row: &UserRow) -> User {
        User { account: row.name.clone(), role: row.role, epoch: row.epoch, ..User::local(row.name.clone()) }
    }
}

/// Checks passwords and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Store,
    /// Everybody may do everything.
    off: bool,
    key: SigningKey,
    cookie: String,
    /// Browsers reach us by https only.
    secure: bool,
    /// Codes of links that were not used yet, and when each expires.
    links: Mutex<BTreeMap<String, Timestamp>>,
    people: People,
    limits: Limits,
    /// Credentials of programs that send them with each request: a code over them, and until when it is believed.
    verified: Mutex<HashMap<Vec<u8>, Timestamp>>,
}

impl Auth {
    /// Reads, or makes, what the store has; the second value is a password that was made now and must be shown.
    pub async fn open(
        store: &Store,
        config: &AuthConfig,
        listen: SocketAddr,
        base_url: Option<&BaseUrl>,
        now: Timestamp,
    ) -> anyhow::Result<(Auth, Option<String>)> {
        let mut fresh = None;
        match config {
            AuthConfig::Off if listen.ip().is_loopback() => {}
            AuthConfig::Off => bail!(
                "without authentication the server listens on a loopback address only, not on {listen}: \
                 use `--listen 127.0.0.1:{}`, or leave authentication on",
                listen.port()
            ),
            AuthConfig::Password(password) if password.is_empty() => bail!("the admin password cannot be empty"),
            AuthConfig::Password(password) => give_admin(store, password, now).await?,
            AuthConfig::Generated => fresh = first_admin(store, now).await?,
        }
        let key = store.setting_or_insert(KEY_SETTING, &password::letters::<52>()?).await?;
        let secure = base_url.is_some_and(BaseUrl::is_https);
        let inner = Inner {
            off: matches!(config, AuthConfig::Off),
            key: SigningKey::new(&key),
            // Cookies are shared by all ports of a host; two servers on one machine must not log each other out, and
            // two behind one address must know each other's.
            cookie: format!(
                "{}pitcrew_{}",
                if secure { "__Host-" } else { "" },
                base_url.map_or(listen.port(), BaseUrl::port)
            ),
            secure,
            links: Mutex::default(),
            people: People::new(store.clone()),
            limits: Limits::default(),
            verified: Mutex::default(),
            store: store.clone(),
        };
        Ok((Auth(Arc::new(inner)), fresh))
    }

    pub fn is_off(&self) -> bool {
        self.0.off
    }

    /// A signed token that says who its holder is, good for `life`.
    pub fn issue(&self, user: &User, purpose: Use, life: SignedDuration, now: Timestamp) -> String {
        if self.0.off {
            // Clients ask for a token before anything else; here any will do.
            return "no-authentication".to_owned();
        }
        self.0.key.sign(&Claims {
            sub: user.account.clone(),
            purpose,
            epoch: user.epoch,
            iat: now.as_second(),
            exp: now.saturating_add(life).map_or(i64::MAX, Timestamp::as_second),
            jti: uuid::Uuid::now_v7().simple().to_string(),
        })
    }

    /// Whose signed token it is, if it is one of ours, for that purpose, not expired and not ended.
    pub async fn verify(&self, token: &str, purpose: Use, now: Timestamp) -> Result<Option<User>, StoreError> {
        if self.0.off {
            return Ok(Some(User::local(ANONYMOUS)));
        }
        let Some(claims) = self.0.key.open(token, purpose, now) else { return Ok(None) };
        let row = self.0.people.active(&claims.sub, now).await?;
        Ok(row.filter(|row| row.epoch == claims.epoch).map(|row| User::of(&row)))
    }

    /// Whose token a program sends: one that it was given, or one that it signed in for.
    pub async fn bearer(&self, token: &str, now: Timestamp) -> Result<Option<User>, StoreError> {
        if self.0.off || !token.starts_with(token::PREFIX) {
            return self.verify(token, Use::Api, now).await;
        }
        let Some(row) = self.0.people.token(&token::hash(token), now).await? else { return Ok(None) };
        let Some(owner) = self.0.people.active(&row.user, now).await? else { return Ok(None) };
        // Once an hour at most; whether it is noted decides nothing.
        if row.last_used.is_none_or(|last| now.duration_since(last) > SignedDuration::from_hours(1)) {
            self.0.store.note_token_use(&row.id, now).await?;
        }
        Ok(Some(User {
            name: format!("{} (token {})", owner.name, row.name),
            role: owner.role.min(row.role),
            workflows: (!row.workflows.is_empty()).then(|| row.workflows.as_slice().into()),
            token: Some(row.id.clone()),
            ..User::of(&owner)
        }))
    }

    /// Signs what a browser is to keep for us.
    pub fn sign(&self, value: &impl Serialize) -> String {
        self.0.key.sign(value)
    }

    /// What we signed; when it was and what for is the caller's to check.
    pub fn read<T: DeserializeOwned>(&self, text: &str) -> Option<T> {
        self.0.key.read(text)
    }

    /// A cookie beside that of the login, see [`Auth::set_cookie`].
    pub fn side_cookie<'h>(&self, headers: &'h HeaderMap, suffix: &str) -> Option<&'h str> {
        guard::cookie(headers, &format!("{}{suffix}", self.cookie_name()))
    }

    /// A code that logs `admin` in, once, within `life`. It is kept in memory only.
    pub fn issue_link(&self, life: SignedDuration, now: Timestamp) -> anyhow::Result<String> {
        let code = password::generate()?;
        self.links().insert(code.clone(), now + life);
        Ok(code)
    }

    /// Uses a code up.
    async fn redeem(&self, code: &str, now: Timestamp) -> Result<Option<Arc<UserRow>>, StoreError> {
        let known = {
            let mut links = self.links();
            links.retain(|_, expires| *expires > now);
            links.remove(code).is_some()
        };
        if known { self.0.people.active(ADMIN, now).await } else { Ok(None) }
    }

    /// The cookie by which a browser is logged in.
    pub fn cookie_name(&self) -> &str {
        &self.0.cookie
    }

    /// A `Set-Cookie`: that of the login, or one beside it with `suffix` in its name.
    pub fn set_cookie(&self, suffix: &str, value: &str, path: &str, seconds: i64) -> String {
        let secure = if self.0.secure { "; Secure" } else { "" };
        let name = self.cookie_name();
        format!("{name}{suffix}={value}; Path={path}; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
    }

    /// Users or tokens were changed by this process: what is remembered of them is out of date.
    pub fn changed(&self) {
        self.0.people.forget();
    }

    /// The worker whose credential has that hash, unless there is none or it was revoked.
    pub async fn worker(&self, hash: &str, now: Timestamp) -> Result<Option<Arc<WorkerRow>>, StoreError> {
        self.0.people.worker(hash, now).await
    }

    /// A worker was changed by this process: what is remembered of workers is out of date.
    pub fn workers_changed(&self) {
        self.0.people.forget_workers();
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.0.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Makes `admin` if there are no users; returns its password if this was the process that made it.
async fn first_admin(store: &Store, now: Timestamp) -> anyhow::Result<Option<String>> {
    if store.users(Paging::first(1)).await?.total > 0 {
        return Ok(None);
    }
    let password = password::generate()?;
    let ours = password::hash(&password).await?;
    let kept = store.setting_or_insert(FIRST_SETTING, &ours).await?;
    let is_ours = kept == ours;
    put_admin(store, None, kept, now).await?;
    Ok(is_ours.then_some(password))
}

/// Gives `admin` this password, and everything that it needs to come in: whoever starts the server says who that is.
async fn give_admin(store: &Store, password: &str, now: Timestamp) -> anyhow::Result<()> {
    let row = store.user(ADMIN).await?;
    if let Some(row) = &row
        && row.active
        && row.role == Role::Admin
        && password::fits(password, row.password.as_deref()).await
    {
        return Ok(());
    }
    put_admin(store, row, password::hash(password).await?, now).await
}

async fn put_admin(store: &Store, row: Option<UserRow>, password: String, now: Timestamp) -> anyhow::Result<()> {
    let row = row.unwrap_or_else(|| manage::blank(ADMIN, Role::Admin, now));
    let epoch = manage::next_epoch(&row, now);
    let row = UserRow { role: Role::Admin, active: true, password: Some(password), epoch, ..row };
    let mut audit = AuditEntry::new(now, "server", "user.password");
    audit.detail = json!({ "user": ADMIN });
    Ok(store.put_user(row, audit).await?)
}
