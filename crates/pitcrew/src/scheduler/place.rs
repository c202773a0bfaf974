//! From what a workflow says of a host to the place that is frozen into an attempt's handle: templates rendered, the
//! connection looked up, defaults filled in.
//!
//! Invariant: no secret becomes part of a place; a key is a reference, or the connection's own.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use pitcrew_exec::{Hop, HostKeys, Place, SshPlace};
use pitcrew_lang::Rendering;
use pitcrew_lang::place::{JumpTarget, SshTarget, read};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::config::SshDefaults;
use crate::connection::Connection;
use crate::known::Known;

/// The place that a task's `backend: {ssh: …}` comes to now. The error is a sentence for people.
pub(super) fn of(
    template: &Value,
    rendering: &Rendering<'_>,
    known: &Known,
    defaults: &SshDefaults,
) -> Result<Place, String> {
    let Value::Object(template) = template else { return Err("the backend `ssh` does not know its host".to_owned()) };
    let mut fields = Map::new();
    for (key, value) in template {
        let value = rendering.value(value).map_err(|why| format!("`backend.ssh.{key}`: {why}"))?;
        fields.insert(key.clone(), value);
    }
    let target = read(&fields).map_err(|wrong| format!("`backend.ssh`: {wrong}"))?;
    let connection = match &target.connection {
        None => None,
        Some(id) => {
            let found = known.connection(id).ok_or_else(|| {
                format!("`backend.ssh`: there is no connection `{id}`; `pitcrew connections add {id}` makes one")
            })?;
            Some(found?)
        }
    };
    ssh(target, connection.as_deref(), defaults).map(Place::Ssh)
}

fn ssh(target: SshTarget, connection: Option<&Connection>, defaults: &SshDefaults) -> Result<SshPlace, String> {
    let stored = match connection {
        None => Stored::default(),
        Some(connection) => Stored::of(connection)?,
    };
    let host =
        target.host.or(stored.host).ok_or("`backend.ssh`: the connection has no host, and no `host` is given")?;
    let user = target.user.or(stored.user).unwrap_or_else(|| defaults.user.clone());
    let host_keys = match target.host_keys.as_deref() {
        Some("accept-new") => HostKeys::AcceptNew,
        Some("strict") => HostKeys::Strict,
        Some(pin) => HostKeys::Pinned(pin.to_owned()),
        None => stored.host_keys.unwrap_or_default(),
    };
    let timeout = target.timeout.map(|timeout| timeout.as_secs()).or(stored.timeout);
    let hop = |jump: JumpTarget| Hop {
        host: jump.host,
        port: jump.port.unwrap_or(defaults.port),
        user: jump.user.unwrap_or_else(|| user.clone()),
        key: jump.key,
    };
    Ok(SshPlace {
        jump: target.jump.into_iter().map(hop).collect(),
        host,
        port: target.port.or(stored.port).unwrap_or(defaults.port),
        user,
        connection: target.connection,
        key: target.key,
        passphrase: target.passphrase,
        workdir: target.workdir,
        host_keys,
        timeout_s: timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(defaults.timeout_s),
    })
}

/// What a connection says of a host, in Airflow's words; its secrets are looked up when they are used.
#[derive(Default)]
struct Stored {
    host: Option<String>,
    user: Option<String>,
    port: Option<u16>,
    host_keys: Option<HostKeys>,
    timeout: Option<i64>,
}

impl Stored {
    fn of(connection: &Connection) -> Result<Stored, String> {
        let id = &connection.id;
        if !matches!(connection.conn_type.as_str(), "ssh" | "sftp" | "generic") {
            return Err(format!("the connection `{id}` is of the type `{}`, not `ssh`", connection.conn_type));
        }
        let extra: Value =
            connection.extra.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        // What the connection says is checked as what a workflow says.
        let mut fields = Map::new();
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        fields.insert("host".to_owned(), given(&connection.host).into());
        fields.insert("user".to_owned(), given(&connection.login).into());
        fields.insert("port".to_owned(), connection.port.into());
        fields.insert("connection".to_owned(), id.as_str().into());
        let timeout = [&extra["conn_timeout"], &extra["timeout"]].into_iter().find(|value| !value.is_null());
        fields.insert("timeout".to_owned(), timeout.cloned().unwrap_or_default());
        let target = read(&fields).map_err(|wrong| format!("the connection `{id}`: {wrong}"))?;
        let host_keys = match &extra["host_key"] {
            Value::String(key) => Some(HostKeys::Pinned(
                fingerprint(key)
                    .ok_or_else(|| format!("the connection `{id}`: `host_key` is no public key of a host"))?,
            )),
            _ => None,
        };
        Ok(Stored {
            host: target.host,
            user: target.user,
            port: target.port,
            host_keys,
            timeout: target.timeout.map(|timeout| timeout.as_secs()),
        })
    }
}

/// The fingerprint of a public key in base64, with or without its type in front, as in a line of `known_hosts`.
fn fingerprint(key: &str) -> Option<String> {
    let blob = key.split_whitespace().find_map(|word| STANDARD.decode(word).ok().filter(|blob| blob.len() >= 32))?;
    Some(format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaults() -> SshDefaults {
        SshDefaults { user: "ubuntu".into(), port: 22, timeout_s: 30 }
    }

    fn target(fields: Value) -> SshTarget {
        read(fields.as_object().unwrap()).unwrap()
    }

    #[test]
    fn the_workflow_wins_over_the_connection_and_that_over_the_defaults() {
        let bare = ssh(target(json!({ "host": "gpu-1" })), None, &defaults()).unwrap();
        assert_eq!(bare, SshPlace::new("gpu-1", "ubuntu"));

        let stored = Connection {
            id: "gpu".into(),
            conn_type: "ssh".into(),
            host: "10.0.0.7".into(),
            login: "lab".into(),
            port: Some(2222),
            extra: Some(
                json!({
                    "conn_timeout": 10,
                    "private_key": "hunter2",
                    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
                })
                .to_string(),
            ),
            ..Connection::default()
        };
        let of = |fields| ssh(target(fields), Some(&stored), &defaults()).unwrap();
        let place = of(json!({ "connection": "gpu", "jump": "bastion" }));
        assert_eq!(place.to_string(), "lab@10.0.0.7:2222");
        assert_eq!((place.timeout_s, place.key.as_deref()), (10, None));
        // GitHub's, as it publishes it.
        let pin = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
        assert_eq!(place.host_keys, HostKeys::Pinned(pin.into()));
        assert_eq!(place.jump[0].to_string(), "lab@bastion:22");
        let place = of(
            json!({ "connection": "gpu", "host": "h", "user": "u", "port": 1, "host_keys": "strict", "timeout": 5 }),
        );
        assert_eq!((place.to_string().as_str(), place.timeout_s, place.host_keys), ("u@h:1", 5, HostKeys::Strict));
    }

    #[test]
    fn a_connection_that_is_no_host_says_so() {
        let told = |connection: Connection| {
            let connection = Connection { id: "c".into(), ..connection };
            ssh(target(json!({ "connection": "c" })), Some(&connection), &defaults()).unwrap_err()
        };
        let kind = |kind: &str| Connection { conn_type: kind.into(), ..Connection::default() };
        assert_eq!(told(kind("http")), "the connection `c` is of the type `http`, not `ssh`");
        assert_eq!(told(kind("ssh")), "`backend.ssh`: the connection has no host, and no `host` is given");
        let wrong = Connection { host: "a b".into(), ..kind("ssh") };
        assert_eq!(told(wrong), "the connection `c`: `host` cannot hold blanks: \"a b\"");
        let extra = Connection { host: "h".into(), extra: Some(r#"{"host_key": "hunter2"}"#.into()), ..kind("ssh") };
        assert_eq!(told(extra), "the connection `c`: `host_key` is no public key of a host");
    }
}
