//! The keys of the configuration: one table, from which the file, the environment and the documentation are read.

use std::net::IpAddr;

use pitcrew_store::Role;

use crate::server::{BaseUrl, address_of, roles};

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path; in a file it is relative to the file's directory.
    Path,
    /// The address of a database. A password in it is never shown.
    Store,
    /// `HOST:PORT`.
    Address,
    /// A whole number from 1.
    Count,
    /// A whole number of days; 0 keeps everything.
    Days,
    Flag,
    /// A whole number of percent.
    Percent,
    /// A span of time such as `90s`, `30m` or `1h 30m`.
    Span,
    /// `http://…` or `https://…`.
    Url,
    /// Scheme and host of a server.
    BaseUrl,
    /// IP addresses, separated by commas.
    Addresses,
    /// The address of another service, over TLS or on this machine.
    Service,
    /// Words of no special form.
    Text,
    /// `viewer`, `user`, `op` or `admin`.
    Role,
    /// `group=role`, separated by commas.
    Roles,
    /// A filter for messages, such as `info` or `pitcrew=debug`.
    Filter,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub env: &'static str,
    pub kind: Kind,
    /// What it is for, in a few words.
    pub about: &'static str,
}

const fn key(name: &'static str, env: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, env, kind, about }
}

pub const DATA_DIR: Key = key("data_dir", "PITCREW_DATA_DIR", Kind::Path, "where runs, logs and the database lie");
pub const STORE: Key = key("store", "PITCREW_STORE", Kind::Store, "the database");
pub const LISTEN: Key = key("listen", "PITCREW_LISTEN", Kind::Address, "where the server answers");
pub const WORKFLOWS: Key = key("workflows", "PITCREW_WORKFLOWS", Kind::Path, "the folder of workflow files");
pub const PARALLELISM: Key = key("parallelism", "PITCREW_PARALLELISM", Kind::Count, "live tasks at most");
pub const AUTH: Key = key("auth", "PITCREW_AUTH", Kind::Flag, "whether the server asks for a token");
pub const BASE_URL: Key =
    key("base_url", "PITCREW_BASE_URL", Kind::BaseUrl, "where people find the server, when a proxy is in front of it");
pub const PROXIES: Key =
    key("proxies", "PITCREW_PROXIES", Kind::Addresses, "proxies whose `X-Forwarded-For` is believed");
pub const METRICS_OPEN: Key =
    key("metrics_open", "PITCREW_METRICS_OPEN", Kind::Flag, "whether /metrics answers without a token");
pub const OTLP_ENDPOINT: Key = key("otlp_endpoint", "PITCREW_OTLP_ENDPOINT", Kind::Url, "where traces go");
pub const RETENTION: Key =
    key("retention_days", "PITCREW_RETENTION_DAYS", Kind::Days, "how long finished runs are kept; 0: for ever");
pub const SERVER: Key =
    key("server", "PITCREW_SERVER", Kind::Url, "the server that commands ask, instead of a data directory here");
pub const TOKEN_FILE: Key = key("token_file", "PITCREW_TOKEN_FILE", Kind::Path, "the file with the token for it");
pub const LOG: Key = key("log", "PITCREW_LOG", Kind::Filter, "which messages are shown");

pub const TARGET_GPU_USE: Key = key(
    "target_gpu_use",
    "PITCREW_TARGET_GPU_USE",
    Kind::Percent,
    "how busy GPUs should be while tasks hold them, in percent",
);
pub const TARGET_SUCCESS: Key =
    key("target_success", "PITCREW_TARGET_SUCCESS", Kind::Percent, "how many runs should succeed, in percent");
pub const TARGET_DURATION: Key =
    key("target_duration", "PITCREW_TARGET_DURATION", Kind::Span, "how long a run should take at most, on average");
pub const TARGET_RECOVERY: Key = key(
    "target_recovery",
    "PITCREW_TARGET_RECOVERY",
    Kind::Span,
    "how soon a workflow that failed should succeed again, on average",
);

pub const OIDC_ISSUER: Key =
    key("oidc_issuer", "PITCREW_OIDC_ISSUER", Kind::Service, "the provider at which users may log in");
pub const OIDC_CLIENT_ID: Key =
    key("oidc_client_id", "PITCREW_OIDC_CLIENT_ID", Kind::Text, "what the provider calls this server");
pub const OIDC_CLIENT_SECRET_FILE: Key = key(
    "oidc_client_secret_file",
    "PITCREW_OIDC_CLIENT_SECRET_FILE",
    Kind::Path,
    "the file with the secret for the provider; or PITCREW_OIDC_CLIENT_SECRET",
);
pub const OIDC_NAME: Key = key("oidc_name", "PITCREW_OIDC_NAME", Kind::Text, "what the button to the provider says");
pub const OIDC_SCOPES: Key = key("oidc_scopes", "PITCREW_OIDC_SCOPES", Kind::Text, "what the provider is asked for");
pub const OIDC_ROLE_CLAIM: Key =
    key("oidc_role_claim", "PITCREW_OIDC_ROLE_CLAIM", Kind::Text, "where the provider tells a user's groups");
pub const OIDC_ROLES: Key =
    key("oidc_roles", "PITCREW_OIDC_ROLES", Kind::Roles, "which groups give which role: `devs=user, admins=admin`");
pub const OIDC_DEFAULT_ROLE: Key =
    key("oidc_default_role", "PITCREW_OIDC_DEFAULT_ROLE", Kind::Role, "the role of users whom no group gives one");
pub const OIDC_DOMAINS: Key = key(
    "oidc_domains",
    "PITCREW_OIDC_DOMAINS",
    Kind::Text,
    "domains of mail that may log in at the provider; all unless set",
);

/// All of them, in the order in which they are shown.
#[rustfmt::skip]
pub const ALL: &[Key] = &[
    DATA_DIR,
    STORE,
    WORKFLOWS,
    LISTEN,
    BASE_URL,
    PROXIES,
    AUTH,
    OIDC_ISSUER,
    OIDC_CLIENT_ID,
    OIDC_CLIENT_SECRET_FILE,
    OIDC_NAME,
    OIDC_SCOPES,
    OIDC_ROLE_CLAIM,
    OIDC_ROLES,
    OIDC_DEFAULT_ROLE,
    OIDC_DOMAINS,
    METRICS_OPEN,
    OTLP_ENDPOINT,
    PARALLELISM,
    RETENTION,
    SERVER,
    TOKEN_FILE,
    LOG,
    TARGET_GPU_USE,
    TARGET_SUCCESS,
    TARGET_DURATION,
    TARGET_RECOVERY,
];

/// IP addresses as they are written in a setting; nothing is none.
pub fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok().map(|address: IpAddr| address.to_canonical())).collect()
}

pub fn find(name: &str) -> Option<Key> {
    ALL.iter().copied().find(|key| key.name == name)
}

impl Kind {
    /// Says what is wrong with a value, as the end of a sentence that begins with its key.
    pub fn check(self, text: &str) -> Result<(), String> {
        let wrong = |expected: &str| Err(format!("must be {expected}, found `{text}`"));
        match self {
            Kind::Path if text.is_empty() => wrong("a path"),
            Kind::Path | Kind::Filter | Kind::Text => Ok(()),
            Kind::Service => address_of(text).map(drop).map_err(|error| format!("is not right: {error:#}")),
            Kind::Role => text
                .parse::<Role>()
                .map(drop)
                .map_err(|_| format!("must be `viewer`, `user`, `op` or `admin`, found `{text}`")),
            Kind::Roles => match roles(text) {
                Some(_) => Ok(()),
                None => wrong("pairs such as `devs=user, admins=admin`"),
            },
            // The text may hold a password: the store's own message shows only what is safe.
            Kind::Store => {
                text.parse::<pitcrew_store::StoreUrl>().map(drop).map_err(|error| format!("is not right: {error}"))
            }
            Kind::Address => match text.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
                _ => wrong("an address such as `127.0.0.1:8793`"),
            },
            Kind::BaseUrl => text.parse::<BaseUrl>().map(drop),
            Kind::Addresses => match addresses(text) {
                Some(_) => Ok(()),
                None => wrong("IP addresses, separated by commas"),
            },
            Kind::Count => match text.parse::<u32>() {
                Ok(1..) => Ok(()),
                _ => wrong("a whole number from 1"),
            },
            Kind::Days => match text.parse::<u32>() {
                Ok(..=36_500) => Ok(()),
                _ => wrong("a number of days from 0 to 36500"),
            },
            Kind::Percent => match text.parse::<u32>() {
                Ok(..=100) => Ok(()),
                _ => wrong("a whole number from 0 to 100"),
            },
            Kind::Span => match text.parse::<jiff::SignedDuration>() {
                Ok(span) if span.is_positive() => Ok(()),
                _ => wrong("a span of time such as `90s`, `30m` or `1h 30m`"),
            },
            Kind::Url => match text.parse::<reqwest::Url>() {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(()),
                _ => wrong("an address such as `https://pitcrew.example`"),
            },
            Kind::Flag => match text {
                "true" | "false" => Ok(()),
                _ => wrong("`true` or `false`"),
            },
        }
    }
}
