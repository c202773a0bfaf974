//! Who we are at an API server, beside a certificate: a token, one in a file that is renewed, or one that a plugin gives.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock;

/// A file is read again after this long: it is renewed long before what it holds runs out.
const REREAD: Duration = Duration::from_secs(60);
/// A plugin may ask somebody.
const PLUGIN: Duration = Duration::from_secs(60);
/// What a plugin gave is renewed so long before it runs out.
const BEFORE: SignedDuration = SignedDuration::from_secs(60);

/// A program that gives credentials, as `aws eks get-token` is one.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Plugin {
    pub api_version: String,
    pub command: String,
    pub args: Vec<String>,
    pub env: Option<Vec<Variable>>,
    pub install_hint: Option<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Variable {
    pub name: String,
    pub value: String,
}

enum Source {
    None,
    Token(String),
    File(PathBuf),
    Plugin(Plugin),
}

struct Held {
    token: String,
    /// After this it is asked for again.
    until: Until,
}

enum Until {
    Steady(Instant),
    Wall(Timestamp),
    Refused,
}

/// Gives the token for each call.
pub struct Credentials {
    source: Source,
    held: tokio::sync::Mutex<Option<Held>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Credential {
    status: Given,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Given {
    token: Option<String>,
    expiration_timestamp: Option<String>,
    client_certificate_data: Option<Value>,
}

impl Credentials {
    fn of(source: Source) -> Credentials {
        Credentials { source, held: tokio::sync::Mutex::default() }
    }

    pub fn none() -> Credentials {
        Credentials::of(Source::None)
    }

    pub fn token(token: String) -> Credentials {
        Credentials::of(Source::Token(token.trim().to_owned()))
    }

    pub fn file(path: PathBuf) -> Credentials {
        Credentials::of(Source::File(path))
    }

    pub fn plugin(plugin: Plugin) -> Result<Credentials, String> {
        let known = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
        if !known.contains(&plugin.api_version.as_str()) {
            return Err(format!(
                "the plugin `{}` speaks `{}`, and what is known here is {}: renew the kubeconfig, or the plugin",
                plugin.command,
                plugin.api_version,
                known.join(" and ")
            ));
        }
        Ok(Credentials::of(Source::Plugin(plugin)))
    }

    /// What was given last was refused: it is asked for anew. `false`: there is nothing else to give.
    pub async fn refused(&self, token: Option<&str>) -> bool {
        if matches!(self.source, Source::None | Source::Token(_)) {
            return false;
        }
        if let Some(held) = self.held.lock().await.as_mut().filter(|held| Some(held.token.as_str()) == token) {
            held.until = Until::Refused;
        }
        true
    }

    /// `None`: none is needed.
    pub async fn get(&self) -> Result<Option<String>, String> {
        let mut held = self.held.lock().await;
        let is_good = |held: &Held| match held.until {
            Until::Steady(until) => clock::instant() < until,
            Until::Wall(until) => clock::now() < until,
            Until::Refused => false,
        };
        if let Some(held) = held.as_ref().filter(|held| is_good(held)) {
            return Ok(Some(held.token.clone()));
        }
        let new = match &self.source {
            Source::None => return Ok(None),
            Source::Token(token) => return Ok(Some(token.clone())),
            Source::File(path) => {
                let shown = path.display();
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|error| format!("cannot read the token `{shown}`: {error}"))?;
                Held { token: text.trim().to_owned(), until: Until::Steady(clock::instant() + REREAD) }
            }
            Source::Plugin(plugin) => plugin.ask().await?,
        };
        let token = new.token.clone();
        *held = Some(new);
        Ok(Some(token))
    }
}

impl Plugin {
    async fn ask(&self) -> Result<Held, String> {
        let name = &self.command;
        let info =
            json!({ "apiVersion": self.api_version, "kind": "ExecCredential", "spec": { "interactive": false } });
        let mut command = tokio::process::Command::new(name);
        command.args(&self.args).env("KUBERNETES_EXEC_INFO", info.to_string());
        command.envs(self.env.iter().flatten().map(|variable| (&variable.name, &variable.value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ran = tokio::time::timeout(PLUGIN, command.output()).await;
        let ran = ran.map_err(|_| {
            format!("the plugin `{name}` of the kubeconfig gave no answer within {} s", PLUGIN.as_secs())
        })?;
        let hint = self.install_hint.as_deref().map(|hint| format!(": {}", hint.trim())).unwrap_or_default();
        let ran = ran.map_err(|error| format!("the plugin `{name}` of the kubeconfig cannot be run: {error}{hint}"))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            let last: String = said.trim().lines().last().unwrap_or_default().chars().take(300).collect();
            return Err(format!("the plugin `{name}` of the kubeconfig ended with {}: {last}", ran.status));
        }
        let given = serde_json::from_slice::<Credential>(&ran.stdout).unwrap_or_default().status;
        if given.client_certificate_data.is_some() {
            return Err(format!(
                "the plugin `{name}` of the kubeconfig gives a certificate; what is known here are tokens"
            ));
        }
        let token = given.token.filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| format!("the plugin `{name}` of the kubeconfig gave no token"))?;
        let until = given.expiration_timestamp.and_then(|at| at.parse::<Timestamp>().ok());
        let until = until.map_or(Until::Steady(clock::instant() + REREAD), |until| Until::Wall(until - BEFORE));
        Ok(Held { token, until })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn plugin(dir: &std::path::Path, script: &str) -> Credentials {
        let path = dir.join("plugin");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let api_version = "client.authentication.k8s.io/v1beta1".to_owned();
        Credentials::plugin(Plugin { api_version, command: path.display().to_string(), ..Plugin::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_plugin_is_asked_again_once_its_token_was_refused_or_runs_out() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let say = |until: &str| {
            let count = count.display();
            format!("echo x >>{count}; echo '{{\"status\": {{\"token\": \"t'$(grep -c . {count})'\"{until}}}}}'")
        };
        let given = plugin(dir.path(), &say(", \"expirationTimestamp\": \"2999-01-01T00:00:00Z\""));
        let get = async || given.get().await.unwrap().unwrap();
        assert_eq!((get().await, get().await), ("t1".to_owned(), "t1".to_owned()));
        assert!(given.refused(Some("t1")).await);
        assert_eq!(get().await, "t2");
        // Somebody was slower, and was refused with what is gone already.
        given.refused(Some("t1")).await;
        assert_eq!(get().await, "t2");
        let given = plugin(dir.path(), &say(", \"expirationTimestamp\": \"2001-01-01T00:00:00Z\""));
        assert_ne!(given.get().await.unwrap(), given.get().await.unwrap());
        let wrong = plugin(dir.path(), "echo no luck >&2; exit 3").get().await.unwrap_err();
        assert!(wrong.contains("exit status: 3: no luck"), "{wrong}");
    }

    #[test]
    fn a_plugin_of_another_version_is_told() {
        let wrong = Credentials::plugin(Plugin { api_version: "v9".into(), command: "x".into(), ..Plugin::default() });
        assert!(wrong.err().unwrap().contains("speaks `v9`"));
    }
}
