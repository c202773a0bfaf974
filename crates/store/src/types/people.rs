//! Users, their tokens, and connections to other systems. What is secret comes in hashed or sealed and stays so.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use pitcrew_core::id::WorkflowId;

use crate::error::StoreError;

/// What a user may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Triggers, clears, cancels, marks, pauses and backfills.
    User,
    /// Changes variables, connections and pools.
    Op,
    /// Changes users, the tokens of others and settings.
    Admin,
}

impl Role {
    /// From the least to the most.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::User, Role::Op, Role::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::User => "user",
            Role::Op => "op",
            Role::Admin => "admin",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = StoreError;

    /// Whatever the case: Airflow writes `Admin`.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let known = || StoreError::Invalid(format!("`{text}` is not a role: use `viewer`, `user`, `op` or `admin`"));
        Role::from_name(&text.to_ascii_lowercase()).ok_or_else(known)
    }
}

/// Somebody who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    pub name: String,
    pub role: Role,
    /// A hash in PHC format; `None`: no password signs this user in.
    pub password: Option<String>,
    pub full_name: String,
    pub email: String,
    /// Nobody who is not active can do anything.
    pub active: bool,
    /// Issuer and subject at an OpenID Connect provider, as one text. Unique.
    pub subject: Option<String>,
    /// Part of every session: raising it ends those that there are.
    pub epoch: i64,
    pub created: Timestamp,
    pub last_login: Option<Timestamp>,
}

/// A token of a user for programs. The token itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// For people to name it by; not secret.
    pub id: String,
    pub user: String,
    /// What it is for, in its user's words.
    pub name: String,
    /// SHA-256 of the token in hexadecimal digits. Unique.
    pub hash: String,
    /// It may do what its user may, but no more than this.
    pub role: Role,
    /// The workflows that it is for; none: all.
    pub workflows: Vec<WorkflowId>,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
    /// To the hour.
    pub last_used: Option<Timestamp>,
}

/// How to reach another system, in Airflow's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub id: String,
    pub conn_type: String,
    pub description: String,
    pub host: String,
    pub schema: String,
    pub login: String,
    pub port: Option<u16>,
    /// Sealed by the caller; kept as given.
    pub password: Option<String>,
    /// JSON, sealed by the caller; kept as given.
    pub extra: Option<String>,
}
