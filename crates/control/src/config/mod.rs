//! Settings: from a file, the environment and flags, each value knowing where it came from.
//!
//! Later ones win: default, `pitcrew.yaml`, its named environment, `PITCREW_*`, flags. Reading them has no effect on
//! anything: no directory is made and no connection opened.

pub mod file;
pub mod keys;
pub mod section;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::SignedDuration;
use pitcrew_core::fleet::Policy;
use pitcrew_exec::docker;
use pitcrew_exec::docker::keeper::EnginePlace;
use pitcrew_exec::ssh::Defaults;
use pitcrew_lang::Diagnostic;
use pitcrew_store::StoreUrl;

pub use file::absolute;
pub use keys::Key;

use crate::base_url::BaseUrl;
use crate::ecs::config::EcsSettings;
use crate::fleet::NodeConfig;
use crate::kubernetes::config::KubernetesSettings;
use crate::notify::config::Config as Notify;
use crate::provider::{OidcConfig, roles};
use crate::recovery::config::RecoveryConfig;
use crate::sandbox::SandboxSettings;
use crate::signatures::SignatureSettings;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: u32 },
    Env(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One setting as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: Key,
    pub text: String,
    pub origin: Origin,
}

impl Setting {
    pub fn is_default(&self) -> bool {
        self.origin == Origin::Default
    }
}

/// What the service figures should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Targets {
    /// At least, from 0 to 1.
    pub gpu_use: f64,
    /// At least, from 0 to 1.
    pub success: f64,
    /// At most.
    pub duration: SignedDuration,
    /// At most.
    pub recovery: SignedDuration,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Problems of the file, each with its place.
    #[error("the configuration is not right")]
    File(Vec<Diagnostic>),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// What the command line gives.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    /// The named environment.
    pub environment: Option<String>,
    /// By the key's name: the flag's name and its value.
    pub flags: BTreeMap<&'static str, (&'static str, String)>,
}

/// All settings, checked.
#[derive(Clone)]
pub struct Settings {
    /// The file that was read, if one was found.
    pub file: Option<PathBuf>,
    pub environment: Option<String>,
    /// Channels, and rules for all workflows.
    pub notify: Arc<Notify>,
    /// Machines that work can go to.
    pub nodes: Arc<[NodeConfig]>,
    /// What recovery may do; `None`: it is off.
    pub recovery: Option<Arc<RecoveryConfig>>,
    /// Clusters of ECS whose machines are nodes.
    pub ecs: Option<Arc<EcsSettings>>,
    /// Clusters of Kubernetes whose nodes are nodes.
    pub kubernetes: Option<Arc<KubernetesSettings>>,
    /// What names of images stand for on this machine.
    pub sandbox: Arc<SandboxSettings>,
    /// Whose signatures images need; `None`: nobody's.
    pub signatures: Option<Arc<SignatureSettings>>,
    settings: Vec<Setting>,
    /// Never shown, and never in a file that others may read: out of the environment only.
    oidc_secret: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shown()).finish()
    }
}

/// A part of a section, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionLine {
    pub name: String,
    pub text: String,
    pub origin: Origin,
    pub about: &'static str,
}

impl Settings {
    /// Reads the file and puts everything together; `env` gives environment variables.
    pub fn read(overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
        let environment = overrides.environment.clone().or_else(|| env("PITCREW_ENV").filter(|name| !name.is_empty()));
        let file = find_file(overrides, env)?;
        let from_file = match &file {
            None => file::FileValues::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration `{}`", path.display()))?;
                file::read(&text, path, environment.as_deref()).map_err(ConfigError::File)?
            }
        };
        if let Some(name) = environment.as_ref().filter(|name| !from_file.environments.contains(name)) {
            return Err(no_environment(name, file.as_deref(), &from_file.environments).into());
        }
        let mut settings = Vec::new();
        for key in keys::ALL.iter().copied() {
            let (text, origin) = if let Some((flag, text)) = overrides.flags.get(key.name) {
                (text.clone(), Origin::Flag(flag))
            } else if let Some(text) = env(key.env).filter(|text| !text.is_empty()) {
                (text, Origin::Env(key.env))
            } else if let (Some(found), Some(path)) = (from_file.values.get(key.name), &file) {
                (found.text.clone(), Origin::File { path: path.clone(), line: found.line })
            } else {
                (default(key, env), Origin::Default)
            };
            // An empty default means "derived from the others", see the accessors.
            if origin != Origin::Default {
                let named = match &origin {
                    Origin::Flag(name) | Origin::Env(name) => name,
                    Origin::File { .. } | Origin::Default => key.name,
                };
                key.kind.check(&text).map_err(|wrong| anyhow::anyhow!("`{named}` {wrong}"))?;
            }
            settings.push(Setting { key, text, origin });
        }
        let oidc_secret = env("PITCREW_OIDC_CLIENT_SECRET").filter(|text| !text.is_empty());
        Ok(Settings {
            file,
            environment,
            notify: Arc::new(from_file.notify),
            nodes: from_file.nodes.into(),
            recovery: from_file.recovery.map(Arc::new),
            ecs: from_file.ecs.map(|ecs| Arc::new(ecs.with_env(env))),
            kubernetes: from_file.kubernetes.map(Arc::new),
            sandbox: Arc::new(from_file.sandbox),
            signatures: from_file.signatures.map(Arc::new),
            settings,
            oidc_secret,
        })
    }

    fn text(&self, key: Key) -> &str {
        self.settings.iter().find(|setting| setting.key == key).map_or("", |setting| &setting.text)
    }

    /// The same settings for a data directory inside this one, with a database and a folder of its own.
    pub fn inside(mut self, name: &str) -> Settings {
        let dir = self.data_dir().join(name).display().to_string();
        for setting in &mut self.settings {
            match setting.key {
                keys::DATA_DIR => (setting.text, setting.origin) = (dir.clone(), Origin::Flag("--data-dir")),
                keys::STORE | keys::WORKFLOWS => (setting.text, setting.origin) = (String::new(), Origin::Default),
                _ => {}
            }
        }
        self
    }

    /// Every setting as it may be shown: derived defaults filled in, passwords left out.
    pub fn shown(&self) -> Vec<Setting> {
        let shown = |setting: &Setting| match setting.key {
            keys::STORE => self.store().map_or_else(|_| "***".to_owned(), |url| url.to_string()),
            keys::WORKFLOWS => self.workflows().display().to_string(),
            _ => setting.text.clone(),
        };
        self.settings.iter().map(|setting| Setting { text: shown(setting), ..setting.clone() }).collect()
    }

    /// Channels, rules, the digest and nodes, one line each; where a secret is found is shown, and never the secret.
    pub fn sections(&self) -> Vec<SectionLine> {
        let notify = &self.notify;
        let line = |name: String, text: String, line: u32, about| SectionLine {
            name,
            text,
            origin: self.file.clone().map_or(Origin::Default, |path| Origin::File { path, line }),
            about,
        };
        let channels = notify.channels.values();
        let channels =
            channels.map(|c| line(format!("channels.{}", c.name), c.to_string(), c.line, "a way to tell people"));
        let rules = notify.rules.iter().enumerate();
        let rules =
            rules.map(|(n, rule)| line(format!("notify[{n}]"), rule.to_string(), rule.line, "who is told of what"));
        let digest = notify.digest.iter();
        let digest = digest.map(|d| line("digest".into(), d.to_string(), d.line, "the weekly summary"));
        let nodes = self.nodes.iter();
        let nodes =
            nodes.map(|n| line(format!("nodes.{}", n.name), n.to_string(), n.line, "a machine that work can go to"));
        let recovery = self.recovery.iter();
        let recovery =
            recovery.map(|r| line("recovery".into(), r.to_string(), r.line, "what is done when a node is sick"));
        let ecs = self.ecs.iter();
        let ecs = ecs.map(|e| line("ecs".into(), e.to_string(), e.line, "clusters whose machines are nodes"));
        let kubernetes = self.kubernetes.iter();
        let kubernetes = kubernetes
            .map(|k| line("kubernetes".into(), k.to_string(), k.line, "clusters whose nodes are looked after"));
        let sandbox = Some(&self.sandbox).filter(|s| s.line > 0);
        let sandbox = sandbox.map(|s| line("sandbox".into(), s.to_string(), s.line, "what images are on this machine"));
        let machines = nodes.chain(recovery).chain(ecs).chain(kubernetes);
        let signatures = self.signatures.iter();
        let signatures =
            signatures.map(|s| line("signatures".into(), s.to_string(), s.line, "whose signatures images need"));
        channels.chain(rules).chain(digest).chain(machines).chain(sandbox).chain(signatures).collect()
    }

    /// How to call this program with the same data directory and database, as far as flags named them.
    pub fn pitcrew(&self) -> String {
        let mut command = String::from("pitcrew");
        for setting in self.settings.iter().filter(|setting| [keys::DATA_DIR, keys::STORE].contains(&setting.key)) {
            match &setting.origin {
                // It may hold a password.
                Origin::Flag(flag) if setting.key == keys::STORE => command.push_str(&format!(" {flag} …")),
                Origin::Flag(flag) => command.push_str(&format!(" {flag} {}", setting.text)),
                Origin::Default | Origin::File { .. } | Origin::Env(_) => {}
            }
        }
        command
    }

    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.text(keys::DATA_DIR))
    }

    /// The database; the embedded one in the data directory unless set.
    pub fn store(&self) -> anyhow::Result<StoreUrl> {
        match self.text(keys::STORE) {
            "" => Ok(StoreUrl::Sqlite(self.data_dir().join("pitcrew.db"))),
            text => Ok(text.parse()?),
        }
    }

    /// The watched folder; `workflows` in the data directory unless set.
    pub fn workflows(&self) -> PathBuf {
        match self.text(keys::WORKFLOWS) {
            "" => self.data_dir().join("workflows"),
            text => PathBuf::from(text),
        }
    }

    /// `HOST:PORT`.
    pub fn listen(&self) -> &str {
        self.text(keys::LISTEN)
    }

    /// Where other servers reach this one, if that is not where it listens.
    pub fn advertise(&self) -> Option<BaseUrl> {
        self.text(keys::ADVERTISE).parse().ok()
    }

    /// Where people find the server, if that is not where it listens.
    pub fn base_url(&self) -> Option<BaseUrl> {
        self.text(keys::BASE_URL).parse().ok()
    }

    /// Proxies in front of the server.
    pub fn proxies(&self) -> Vec<IpAddr> {
        keys::addresses(self.text(keys::PROXIES)).unwrap_or_default()
    }

    /// The provider at which users may log in, if there is one. Its secret is not among what is shown.
    pub fn oidc(&self) -> anyhow::Result<Option<OidcConfig>> {
        let [issuer, client_id] = [keys::OIDC_ISSUER, keys::OIDC_CLIENT_ID].map(|key| self.text(key).to_owned());
        if issuer.is_empty() {
            return Ok(None);
        }
        anyhow::ensure!(
            !client_id.is_empty(),
            "`oidc_client_id` is missing: the provider gives one to each of its clients"
        );
        let words = |key: Key| self.text(key).split(',').map(str::trim).filter(|word| !word.is_empty());
        Ok(Some(OidcConfig {
            issuer,
            client_id,
            client_secret: self.oidc_secret()?,
            scopes: self.text(keys::OIDC_SCOPES).to_owned(),
            name: self.text(keys::OIDC_NAME).to_owned(),
            role_claim: self.text(keys::OIDC_ROLE_CLAIM).to_owned(),
            roles: roles(self.text(keys::OIDC_ROLES)).unwrap_or_default(),
            default_role: self.text(keys::OIDC_DEFAULT_ROLE).parse().ok(),
            domains: words(keys::OIDC_DOMAINS).map(|word| word.trim_start_matches('@').to_ascii_lowercase()).collect(),
        }))
    }

    fn oidc_secret(&self) -> anyhow::Result<Option<String>> {
        let text = match (&self.oidc_secret, self.text(keys::OIDC_CLIENT_SECRET_FILE)) {
            (Some(text), _) => text.clone(),
            (None, "") => return Ok(None),
            (None, path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the secret for the provider of logins, `{path}`"))?,
        };
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    pub fn auth(&self) -> bool {
        self.text(keys::AUTH) != "false"
    }

    pub fn metrics_open(&self) -> bool {
        self.text(keys::METRICS_OPEN) == "true"
    }

    /// The base address of a collector of traces.
    pub fn otlp_endpoint(&self) -> Option<&str> {
        Some(self.text(keys::OTLP_ENDPOINT)).filter(|text| !text.is_empty())
    }

    /// Live tasks at most, over all runs of a process.
    pub fn parallelism(&self) -> u32 {
        self.text(keys::PARALLELISM).parse().unwrap_or(1)
    }

    /// Which of the nodes with room a task goes to.
    pub fn placement_policy(&self) -> Policy {
        self.text(keys::PLACEMENT_POLICY).parse().unwrap_or_default()
    }

    /// How long another server may be silent before the tasks on its machine are given up.
    pub fn lost_after(&self) -> std::time::Duration {
        let said = pitcrew_lang::parse_duration(self.text(keys::LOST_AFTER)).ok();
        said.and_then(|span| span.try_into().ok()).unwrap_or(std::time::Duration::from_secs(300))
    }

    /// `None` keeps everything.
    pub fn retention_days(&self) -> Option<u32> {
        self.text(keys::RETENTION).parse().ok().filter(|days| *days > 0)
    }

    /// Where webhooks are taken, and nothing else is answered.
    pub fn hooks_listen(&self) -> Option<&str> {
        Some(self.text(keys::HOOKS_LISTEN)).filter(|text| !text.is_empty())
    }

    /// How long a webhook that comes twice is known.
    pub fn hooks_replay_window(&self) -> jiff::SignedDuration {
        let said = pitcrew_lang::parse_duration(self.text(keys::HOOKS_REPLAY_WINDOW)).ok();
        said.unwrap_or(crate::hooks::REPLAY_WINDOW)
    }

    /// Where nothing else names one.
    pub fn aws_region(&self) -> &str {
        self.text(keys::AWS_REGION)
    }

    /// The queue with events of ECS.
    pub fn ecs_events(&self) -> Option<String> {
        Some(self.text(keys::ECS_EVENTS).to_owned()).filter(|queue| !queue.is_empty())
    }

    /// How long a worker that is not heard keeps its tasks.
    pub fn worker_lease(&self) -> SignedDuration {
        pitcrew_lang::parse_duration(self.text(keys::WORKER_LEASE)).unwrap_or(pitcrew_exec::worker::LEASE)
    }

    /// The queue of tasks that name none.
    pub fn default_queue(&self) -> Option<String> {
        Some(self.text(keys::DEFAULT_QUEUE).to_owned()).filter(|queue| !queue.is_empty())
    }

    /// For hosts of which neither workflow nor connection says more.
    pub fn ssh(&self) -> Defaults {
        let plain = Defaults::default();
        let timeout = pitcrew_lang::parse_duration(self.text(keys::SSH_TIMEOUT)).ok();
        Defaults {
            user: self.text(keys::SSH_USER).to_owned(),
            port: self.text(keys::SSH_PORT).parse().unwrap_or(plain.port),
            timeout_s: timeout.and_then(|span| span.as_secs().try_into().ok()).unwrap_or(plain.timeout_s),
        }
    }

    /// Where containers of pods run, unless a run says otherwise; `None`: in the sandbox.
    pub fn pods(&self) -> Option<EnginePlace> {
        (self.text(keys::PODS) == "docker").then(|| self.docker())
    }

    /// The Docker engine.
    pub fn docker(&self) -> EnginePlace {
        let certificates = Some(self.text(keys::DOCKER_CERTIFICATES)).filter(|folder| !folder.is_empty());
        let host = Some(self.text(keys::DOCKER_HOST)).filter(|host| !host.is_empty());
        EnginePlace { host: host.unwrap_or(docker::USUAL).to_owned(), certificates: certificates.map(PathBuf::from) }
    }

    /// What the service figures are held against.
    pub fn targets(&self) -> Targets {
        let percent = |key| self.text(key).parse().unwrap_or(0.0) / 100.0;
        let span = |key| self.text(key).parse().unwrap_or_default();
        Targets {
            gpu_use: percent(keys::TARGET_GPU_USE),
            success: percent(keys::TARGET_SUCCESS),
            duration: span(keys::TARGET_DURATION),
            recovery: span(keys::TARGET_RECOVERY),
        }
    }

    /// The server that commands ask, if not a data directory here.
    pub fn server(&self) -> Option<String> {
        Some(self.text(keys::SERVER).to_owned()).filter(|text| !text.is_empty())
    }

    /// Whether `--server` was typed with this command.
    pub fn server_is_typed(&self) -> bool {
        let typed = |setting: &Setting| setting.key == keys::SERVER && matches!(setting.origin, Origin::Flag(_));
        self.settings.iter().any(typed)
    }

    /// The file with the token for that server.
    pub fn token_file(&self) -> Option<PathBuf> {
        Some(self.text(keys::TOKEN_FILE)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// The filter for messages, if one was asked for.
    pub fn log(&self) -> Option<&str> {
        Some(self.text(keys::LOG)).filter(|text| !text.is_empty())
    }
}

fn default(key: Key, env: &dyn Fn(&str) -> Option<String>) -> String {
    match key {
        keys::DATA_DIR => {
            let base = env("XDG_DATA_HOME").filter(|dir| dir.starts_with('/')).map(PathBuf::from);
            let base = base.or_else(|| Some(home_of(env)?.join(".local/share")));
            base.unwrap_or_else(|| PathBuf::from("/var/lib")).join("pitcrew").display().to_string()
        }
        keys::LISTEN => "127.0.0.1:8793".to_owned(),
        keys::PARALLELISM => {
            // Tasks mostly wait for devices and other machines; a few more than cores keep all of them busy.
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            (cores * 4).max(16).to_string()
        }
        keys::AUTH => "true".to_owned(),
        keys::OIDC_NAME => "single sign-on".to_owned(),
        keys::OIDC_SCOPES => "openid profile email".to_owned(),
        keys::OIDC_ROLE_CLAIM => "groups".to_owned(),
        keys::METRICS_OPEN => "false".to_owned(),
        keys::PLACEMENT_POLICY => Policy::default().to_string(),
        keys::LOST_AFTER => "5m".to_owned(),
        keys::RETENTION => "90".to_owned(),
        keys::HOOKS_REPLAY_WINDOW => "24h".to_owned(),
        keys::SSH_USER => "ubuntu".to_owned(),
        keys::SSH_PORT => "22".to_owned(),
        keys::SSH_TIMEOUT => "30s".to_owned(),
        keys::WORKER_LEASE => "5m".to_owned(),
        keys::PODS => "sandbox".to_owned(),
        keys::DOCKER_HOST => env("DOCKER_HOST").unwrap_or_default(),
        keys::DOCKER_CERTIFICATES => {
            docker::place_of(env).certificates.map(|folder| folder.display().to_string()).unwrap_or_default()
        }
        keys::AWS_REGION => "us-east-1".to_owned(),
        keys::TARGET_GPU_USE => "70".to_owned(),
        keys::TARGET_SUCCESS => "95".to_owned(),
        keys::TARGET_DURATION => "30m".to_owned(),
        keys::TARGET_RECOVERY => "1h".to_owned(),
        _ => String::new(),
    }
}

fn home_of(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("HOME").filter(|dir| dir.starts_with('/')).map(PathBuf::from)
}

/// The user's home directory.
pub fn home() -> Option<PathBuf> {
    home_of(&|name| std::env::var(name).ok())
}

/// `--config`, else `PITCREW_CONFIG`, else `./pitcrew.yaml`, else the user's.
fn find_file(overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = &overrides.config {
        return Ok(Some(std::path::absolute(path)?));
    }
    if let Some(path) = env("PITCREW_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(Some(std::path::absolute(path)?));
    }
    let user = env("XDG_CONFIG_HOME").filter(|dir| dir.starts_with('/')).map(PathBuf::from);
    let user = user.or_else(|| Some(home_of(env)?.join(".config")));
    let here = std::env::current_dir().ok().map(|dir| dir.join("pitcrew.yaml"));
    let candidates = [here, user.map(|dir| dir.join("pitcrew/pitcrew.yaml"))];
    Ok(candidates.into_iter().flatten().find(|path| path.is_file()))
}

fn no_environment(name: &str, file: Option<&Path>, known: &[String]) -> anyhow::Error {
    let Some(file) = file else {
        return anyhow::anyhow!("there is no environment `{name}`: no `pitcrew.yaml` was found");
    };
    let hint = match pitcrew_lang::diagnostic::closest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None if known.is_empty() => "; it has no `environments`".to_owned(),
        None => format!("; it has {}", known.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
    };
    anyhow::anyhow!("`{}` has no environment `{name}`{hint}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pitcrew.yaml");
        std::fs::write(&path, "listen: 127.0.0.1:1\nparallelism: 2\nauth: false\nretention_days: 0\n").unwrap();
        let env = |name: &str| match name {
            "PITCREW_PARALLELISM" => Some("3".to_owned()),
            "PITCREW_AUTH" => Some("true".to_owned()),
            "HOME" => Some("/home/u".to_owned()),
            _ => None,
        };
        let mut overrides = Overrides { config: Some(path.clone()), ..Overrides::default() };
        overrides.flags.insert("auth", ("--no-auth", "false".into()));
        let settings = Settings::read(&overrides, &env).unwrap();
        assert_eq!((settings.listen(), settings.parallelism(), settings.auth()), ("127.0.0.1:1", 3, false));
        assert_eq!(settings.retention_days(), None);
        assert_eq!(settings.data_dir(), Path::new("/home/u/.local/share/pitcrew"));
        assert_eq!(settings.workflows(), Path::new("/home/u/.local/share/pitcrew/workflows"));
        let line = |n| format!("{}:{n}", path.display());
        let shown = settings.shown().into_iter().filter(|setting| setting.origin != Origin::Default);
        let origins: Vec<_> = shown.map(|setting| (setting.key.name, setting.origin.to_string())).collect();
        let expected = [
            ("listen", line(1)),
            ("auth", "flag --no-auth".into()),
            ("parallelism", "env PITCREW_PARALLELISM".into()),
            ("retention_days", line(4)),
        ];
        assert_eq!(origins, expected);
    }

    #[test]
    fn a_wrong_value_names_where_it_came_from_and_shows_no_password() {
        let env = |name: &str| (name == "PITCREW_STORE").then(|| "mysql://u:secret@h/d".to_owned());
        let error = Settings::read(&Overrides::default(), &env).unwrap_err().to_string();
        assert!(error.starts_with("`PITCREW_STORE`") && !error.contains("secret"), "{error}");
        let overrides = Overrides { environment: Some("prod".into()), ..Overrides::default() };
        let error = Settings::read(&overrides, &|_| None).unwrap_err().to_string();
        assert!(error.contains("no environment `prod`"), "{error}");
    }
}
