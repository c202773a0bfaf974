//! The keys of the configuration: one table, from which the file, the environment and the documentation are read.

use std::net::IpAddr;

use pitcrew_core::fleet::Policy;
use pitcrew_store::Role;

use crate::base_url::BaseUrl;
use crate::provider::{address_of, roles};

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
    /// From 1 second to 1 hour.
    Timeout,
    /// Ten seconds or more.
    LostAfter,
    /// From 10 seconds to 1 day.
    Lease,
    /// The name of a queue, or nothing.
    Queue,
    /// The number of a port.
    Port,
    /// A region of AWS, such as `eu-central-1`.
    Region,
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
    /// `pack`, `spread` or `fgd`.
    Policy,
    /// `sandbox` or `docker`.
    Pods,
    /// The address of a Docker engine.
    Engine,
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

macro_rules! keys {
    ($($id:ident = $kind:ident, $name:literal, $env:literal, $about:literal;)*) => {
        $(pub const $id: Key = Key { name: $name, env: $env, kind: Kind::$kind, about: $about };)*
        /// All of them, in the order in which they are shown.
        pub const ALL: &[Key] = &[$($id),*];
    };
}

keys! {
    DATA_DIR = Path, "data_dir", "PITCREW_DATA_DIR",
        "where runs, logs and the database lie";
    STORE = Store, "store", "PITCREW_STORE",
        "the database";
    WORKFLOWS = Path, "workflows", "PITCREW_WORKFLOWS",
        "the folder of workflow files";
    LISTEN = Address, "listen", "PITCREW_LISTEN",
        "where the server answers";
    ADVERTISE = BaseUrl, "advertise", "PITCREW_ADVERTISE",
        "where other servers of the same database reach this one";
    BASE_URL = BaseUrl, "base_url", "PITCREW_BASE_URL",
        "where people find the server, when a proxy is in front of it";
    PROXIES = Addresses, "proxies", "PITCREW_PROXIES",
        "proxies whose `X-Forwarded-For` is believed";
    AUTH = Flag, "auth", "PITCREW_AUTH",
        "whether the server asks for a token";
    OIDC_ISSUER = Service, "oidc_issuer", "PITCREW_OIDC_ISSUER",
        "the provider at which users may log in";
    OIDC_CLIENT_ID = Text, "oidc_client_id", "PITCREW_OIDC_CLIENT_ID",
        "what the provider calls this server";
    OIDC_CLIENT_SECRET_FILE = Path, "oidc_client_secret_file", "PITCREW_OIDC_CLIENT_SECRET_FILE",
        "the file with the secret for the provider; or PITCREW_OIDC_CLIENT_SECRET";
    OIDC_NAME = Text, "oidc_name", "PITCREW_OIDC_NAME",
        "what the button to the provider says";
    OIDC_SCOPES = Text, "oidc_scopes", "PITCREW_OIDC_SCOPES",
        "what the provider is asked for";
    OIDC_ROLE_CLAIM = Text, "oidc_role_claim", "PITCREW_OIDC_ROLE_CLAIM",
        "where the provider tells a user's groups";
    OIDC_ROLES = Roles, "oidc_roles", "PITCREW_OIDC_ROLES",
        "which groups give which role: `devs=user, admins=admin`";
    OIDC_DEFAULT_ROLE = Role, "oidc_default_role", "PITCREW_OIDC_DEFAULT_ROLE",
        "the role of users whom no group gives one";
    OIDC_DOMAINS = Text, "oidc_domains", "PITCREW_OIDC_DOMAINS",
        "domains of mail that may log in at the provider; all unless set";
    METRICS_OPEN = Flag, "metrics_open", "PITCREW_METRICS_OPEN",
        "whether /metrics answers without a token";
    OTLP_ENDPOINT = Url, "otlp_endpoint", "PITCREW_OTLP_ENDPOINT",
        "where traces go";
    PARALLELISM = Count, "parallelism", "PITCREW_PARALLELISM",
        "live tasks at most";
    PLACEMENT_POLICY = Policy, "placement_policy", "PITCREW_PLACEMENT_POLICY",
        "which of the nodes with room a task goes to: `pack`, `spread` or `fgd`";
    LOST_AFTER = LostAfter, "lost_after", "PITCREW_LOST_AFTER",
        "when tasks of another server that is silent are lost";
    RETENTION = Days, "retention_days", "PITCREW_RETENTION_DAYS",
        "how long finished runs are kept; 0: for ever";
    HOOKS_LISTEN = Address, "hooks_listen", "PITCREW_HOOKS_LISTEN",
        "a second address, which takes webhooks and answers nothing else";
    HOOKS_REPLAY_WINDOW = Span, "hooks_replay_window", "PITCREW_HOOKS_REPLAY_WINDOW",
        "how long a webhook that comes twice is known";
    SSH_USER = Text, "ssh_user", "PITCREW_SSH_USER",
        "who signs in on hosts, where neither workflow nor connection says";
    SSH_PORT = Port, "ssh_port", "PITCREW_SSH_PORT",
        "the port of hosts";
    SSH_TIMEOUT = Timeout, "ssh_timeout", "PITCREW_SSH_TIMEOUT",
        "how long a connect to a host may take, sign-in included";
    PODS = Pods, "pods", "PITCREW_PODS",
        "where containers of Tekton's tasks run: `sandbox` or `docker`";
    DOCKER_HOST = Engine, "docker_host", "PITCREW_DOCKER_HOST",
        "the Docker engine for them, as `DOCKER_HOST` has it";
    DOCKER_CERTIFICATES = Path, "docker_certificates", "PITCREW_DOCKER_CERTIFICATES",
        "the folder with `ca.pem`, `cert.pem` and `key.pem` for an engine over TLS";
    AWS_REGION = Region, "aws_region", "PITCREW_AWS_REGION",
        "the region of AWS, where nothing else names one";
    ECS_EVENTS = Text, "ecs_events", "PITCREW_ECS_EVENTS",
        "the queue of SQS with events of ECS, by its name or URL, so that changes are seen at once";
    WORKER_LEASE = Lease, "worker_lease", "PITCREW_WORKER_LEASE",
        "how long a worker that is not heard keeps its tasks; at least 10s";
    DEFAULT_QUEUE = Queue, "default_queue", "PITCREW_DEFAULT_QUEUE",
        "the queue of tasks that name none, so that workers run them";
    SERVER = Url, "server", "PITCREW_SERVER",
        "the server that commands ask, instead of a data directory here";
    TOKEN_FILE = Path, "token_file", "PITCREW_TOKEN_FILE",
        "the file with the token for it";
    LOG = Filter, "log", "PITCREW_LOG",
        "which messages are shown";
    TARGET_GPU_USE = Percent, "target_gpu_use", "PITCREW_TARGET_GPU_USE",
        "how busy GPUs should be while tasks hold them, in percent";
    TARGET_SUCCESS = Percent, "target_success", "PITCREW_TARGET_SUCCESS",
        "how many runs should succeed, in percent";
    TARGET_DURATION = Span, "target_duration", "PITCREW_TARGET_DURATION",
        "how long a run should take at most, on average";
    TARGET_RECOVERY = Span, "target_recovery", "PITCREW_TARGET_RECOVERY",
        "how soon a workflow that failed should succeed again, on average";
}

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
            Kind::Policy => match text.parse::<Policy>() {
                Ok(_) => Ok(()),
                Err(_) => wrong("`pack`, `spread` or `fgd`"),
            },
            Kind::Pods => match text {
                "sandbox" | "docker" => Ok(()),
                _ => wrong("`sandbox` or `docker`"),
            },
            Kind::Engine => {
                pitcrew_exec::docker::Address::parse(text, None).map(drop).map_err(|why| format!("is not right: {why}"))
            }
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
            Kind::Timeout => match pitcrew_lang::parse_duration(text) {
                Ok(span) if (1..=3_600).contains(&span.as_secs()) => Ok(()),
                _ => wrong("a span of time from 1 second to 1 hour, such as `30s`"),
            },
            Kind::LostAfter => match pitcrew_lang::parse_duration(text) {
                Ok(span) if span.as_secs() >= 10 => Ok(()),
                _ => wrong("a span of time of 10 seconds or more, such as `5m`"),
            },
            Kind::Lease => match pitcrew_lang::parse_duration(text) {
                Ok(span) if (10..=86_400).contains(&span.as_secs()) => Ok(()),
                _ => wrong("a span of time from 10 seconds to 1 day, such as `5m`"),
            },
            Kind::Queue if text.is_empty() => Ok(()),
            Kind::Queue => {
                pitcrew_core::fleet::check_queue(text).map_err(|why| format!("is no name of a queue: {why}"))
            }
            Kind::Port => match text.parse::<u16>() {
                Ok(1..) => Ok(()),
                _ => wrong("a port from 1 to 65535"),
            },
            Kind::Region => match text.split('-').count() >= 3
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                true => Ok(()),
                false => wrong("a region of AWS such as `eu-central-1`"),
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
