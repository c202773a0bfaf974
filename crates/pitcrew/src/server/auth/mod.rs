//! Who may use this server, and how they prove it.
//!
//! There is one user, `admin`. The server makes the password, 120 random bits, when it first meets a store, tells it
//! once, and keeps only its hash; a hash of that much chance needs no slow function. Whoever knows it gets a signed
//! token: a bearer token for programs, a cookie for pages. The terminal shows links with a code that works once.
//!
//! Invariant: every token is signed with a key that is derived from the password's hash, so a new password ends all
//! of them. Without authentication the server listens on loopback addresses only.

mod guard;
mod session;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::WorkflowId;
use pitcrew_store::Store;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use guard::{Gate, check_host, check_origin, guard, headers};
pub use session::{login, login_form, logout};
pub use token::Use;
use token::{Claims, SigningKey};

use crate::vault::random;

/// The only user for now.
pub const ADMIN: &str = "admin";

const KEY_SETTING: &str = "auth.key";
const PASSWORD_SETTING: &str = "auth.admin";

/// How users prove who they are.
#[derive(Debug, Clone, Default)]
pub enum AuthConfig {
    /// By a password that the server makes on its first start.
    #[default]
    Generated,
    /// By this one, which is not stored.
    Password(String),
    /// Not at all; for loopback addresses.
    Off,
}

/// What a user may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Triggers, clears, cancels, marks, pauses, backfills.
    User,
    /// Changes variables, connections and pools.
    Op,
    /// Changes users and settings, and the tokens of others.
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::User => "user",
            Role::Op => "op",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who sends a request; every handler behind a role finds it among the extensions of the request.
#[derive(Debug, Clone)]
pub struct User {
    /// As shown and audited.
    pub name: String,
    pub role: Role,
    /// The only workflows that it may touch; `None`: all.
    pub workflows: Option<Arc<[WorkflowId]>>,
}

impl User {
    /// A user who may touch every workflow.
    pub fn new(name: impl Into<String>, role: Role) -> User {
        User { name: name.into(), role, workflows: None }
    }
}

/// Checks passwords and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Option<Arc<Secrets>>);

struct Secrets {
    password: [u8; 32],
    key: SigningKey,
    cookie: String,
    /// Codes of links that were not used yet, and when each expires.
    links: Mutex<BTreeMap<String, Timestamp>>,
}

impl Auth {
    /// Reads, or makes, what the store has; the second value is a password that was made now and must be shown.
    pub async fn open(
        store: &Store,
        config: &AuthConfig,
        listen: SocketAddr,
    ) -> anyhow::Result<(Auth, Option<String>)> {
        let (hash, fresh) = match config {
            AuthConfig::Off if listen.ip().is_loopback() => return Ok((Auth(None), None)),
            AuthConfig::Off => bail!(
                "without authentication the server listens on a loopback address only, not on {listen}: \
                 use `--listen 127.0.0.1:{}`, or leave authentication on",
                listen.port()
            ),
            AuthConfig::Password(password) if password.is_empty() => bail!("the admin password cannot be empty"),
            AuthConfig::Password(password) => (hex(&hash(password)), None),
            AuthConfig::Generated => {
                let password = new_password()?;
                let ours = hex(&hash(&password));
                let kept = store.setting_or_insert(PASSWORD_SETTING, &ours).await?;
                let fresh = (kept == ours).then_some(password);
                (kept, fresh)
            }
        };
        let key = store.setting_or_insert(KEY_SETTING, &hex(&random::<32>()?)).await?;
        let secrets = Secrets {
            password: unhex(&hash)
                .context("the stored admin password is damaged; give one by `PITCREW_ADMIN_PASSWORD`")?,
            key: SigningKey::new(&key, &hash),
            // Cookies are shared by all ports of a host; two servers on one machine must not log each other out.
            cookie: format!("pitcrew_{}", listen.port()),
            links: Mutex::default(),
        };
        Ok((Auth(Some(Arc::new(secrets))), fresh))
    }

    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// The user, if name and password are right. Takes the same time for every wrong one.
    pub fn check(&self, user: &str, password: &str) -> Option<User> {
        let Some(secrets) = &self.0 else { return Some(User::new("anonymous", Role::Admin)) };
        let same = secrets.password.iter().zip(hash(password)).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0;
        (same && user == ADMIN).then(|| User::new(ADMIN, Role::Admin))
    }

    /// A token that says who its holder is, good for `life`.
    pub fn issue(&self, user: &User, purpose: Use, life: SignedDuration, now: Timestamp) -> String {
        let claims = Claims {
            sub: user.name.clone(),
            role: user.role,
            workflows: user.workflows.as_deref().map(<[_]>::to_vec),
            purpose,
            iat: now.as_second(),
            exp: (now + life).as_second(),
            jti: uuid::Uuid::now_v7().simple().to_string(),
        };
        match &self.0 {
            Some(secrets) => secrets.key.sign(&claims),
            // Clients ask for a token before anything else; here any will do.
            None => "no-authentication".to_owned(),
        }
    }

    /// Whose token it is, if it is one of ours, for that purpose and not expired.
    pub fn verify(&self, token: &str, purpose: Use, now: Timestamp) -> Option<User> {
        let Some(secrets) = &self.0 else { return Some(User::new("anonymous", Role::Admin)) };
        let claims = secrets.key.open(token, now)?;
        (claims.purpose == purpose)
            .then(|| User { workflows: claims.workflows.map(Into::into), ..User::new(claims.sub, claims.role) })
    }

    /// A code that logs `admin` in, once, within `life`. It is kept in memory only.
    pub fn issue_link(&self, life: SignedDuration, now: Timestamp) -> anyhow::Result<String> {
        let code = new_password()?;
        if let Some(secrets) = &self.0 {
            secrets.links().insert(code.clone(), now + life);
        }
        Ok(code)
    }

    /// Uses a code up.
    fn redeem(&self, code: &str, now: Timestamp) -> Option<User> {
        let mut links = self.0.as_ref()?.links();
        links.retain(|_, expires| *expires > now);
        links.remove(code).map(|_| User::new(ADMIN, Role::Admin))
    }

    fn cookie_name(&self) -> &str {
        self.0.as_ref().map_or("pitcrew", |secrets| &secrets.cookie)
    }
}

impl Secrets {
    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// 24 letters and digits that cannot be mistaken for each other.
fn new_password() -> anyhow::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(random::<24>()?.iter().map(|byte| LETTERS[(byte & 31) as usize] as char).collect())
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
