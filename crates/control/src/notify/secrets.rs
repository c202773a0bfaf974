//! Finds the secrets of channels where the configuration says that they are.
//!
//! Read for every message, so a new secret counts without a restart. An error names the place and never the value.

use pitcrew_store::Store;

use super::config::{Channel, Config, Kind, Source};
use super::send::Failed;
use super::text::Secrets;
use crate::sensitive::is_sensitive;
use crate::vault::Vault;

/// The largest file that can be a secret, in bytes.
const LARGEST: u64 = 64 << 10;

/// Where secrets are looked up.
#[derive(Clone)]
pub struct Lookup {
    pub store: Store,
    pub vault: Vault,
}

impl Lookup {
    /// The value. `what` names it in errors: ``the `webhook` of the channel `ops` ``.
    pub async fn get(&self, source: &Source, what: &str) -> Result<String, Failed> {
        let missing = |why: String| Failed::lasting(format!("{what}: {why}"));
        let value = match source {
            Source::Text(text) => text.clone(),
            Source::Env(name) => std::env::var(name)
                .map_err(|_| missing(format!("the environment of the server has no variable `{name}`")))?,
            Source::File(path) => {
                let shown = path.display();
                let failed = |error: std::io::Error| missing(format!("cannot read `{shown}`: {error}"));
                let meta = tokio::fs::metadata(path).await.map_err(failed)?;
                if meta.len() > LARGEST {
                    return Err(missing(format!("`{shown}` is too large for a secret")));
                }
                let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            Source::Connection(id) => {
                let found = self.store.connection(id).await;
                let found =
                    found.map_err(|error| Failed::passing(format!("{what}: cannot read the connections: {error}")))?;
                let found = found.ok_or_else(|| missing(format!("there is no connection `{id}`")))?;
                let sealed = found.password.ok_or_else(|| missing(format!("the connection `{id}` has no password")))?;
                self.vault.open(&sealed).map_err(|error| missing(format!("the connection `{id}`: {error:#}")))?
            }
        };
        if value.trim().is_empty() { Err(missing(format!("{source} is empty"))) } else { Ok(value) }
    }

    /// Everything known that must not be in a message: the secrets of all channels, and the variables whose names say
    /// that they are secrets.
    pub async fn known(&self, config: &Config) -> Secrets {
        let mut values = Vec::new();
        for source in config.channels.values().flat_map(sources) {
            if !matches!(source, Source::Text(_)) {
                values.extend(self.get(source, "").await);
            }
        }
        match self.store.variables(pitcrew_store::Paging::ALL).await {
            Ok(page) => values.extend(page.rows.into_iter().filter(|v| is_sensitive(&v.key)).map(|v| v.value)),
            Err(error) => tracing::warn!(%error, "cannot read the variables; those that are secrets are not masked"),
        }
        Secrets::new(values)
    }
}

fn sources(channel: &Channel) -> Vec<&Source> {
    match &channel.kind {
        Kind::Slack(slack) => vec![&slack.webhook],
        Kind::Mail(mail) => mail.password.iter().collect(),
        Kind::Sns(_) | Kind::Forge => Vec::new(),
        Kind::Webhook(hook) => [&hook.url].into_iter().chain(hook.headers.values()).chain(&hook.secret).collect(),
    }
}
