//! From what a workflow says of a host to the place that is frozen into an attempt's handle: templates rendered, the
//! connection looked up. What comes of both is told by [`Draft`], as for everybody who connects.
//!
//! Invariant: no secret becomes part of a place; a key is a reference, or the connection's own.

use pitcrew_exec::ssh::{ConfigFile, Defaults, Draft, DraftHop};
use pitcrew_exec::{EcsPlace, HostKeys, KubernetesPlace, Place, SshPlace};
use pitcrew_lang::place::{JumpTarget, SshTarget, read};
use pitcrew_lang::{Rendering, ecs};
use serde_json::{Map, Value};

use crate::catalog::DOCUMENT;
use crate::connection::Connection;
use crate::known::Known;
use crate::ssh;

/// The place of a pod that a cluster of Kubernetes runs: its namespace is that of its document, unless it is said.
pub(super) fn on_kubernetes(said: Option<&Value>, conf: &Map<String, Value>) -> Result<KubernetesPlace, String> {
    let said = said.cloned().unwrap_or(Value::Null);
    let mut place: KubernetesPlace = serde_json::from_value(said)
        .map_err(|error| format!("it cannot be read in which cluster of Kubernetes it runs: {error}"))?;
    if place.namespace.is_none() {
        let own = conf.get(DOCUMENT).and_then(|document| document["metadata"]["namespace"].as_str());
        place.namespace = own.filter(|name| !name.is_empty()).map(str::to_owned);
    }
    Ok(place)
}

/// The place that a task's `backend: {ssh: …}` comes to now. The error is a sentence for people.
pub(super) fn of(
    template: &Value,
    rendering: &Rendering<'_>,
    known: &Known,
    file: &ConfigFile,
    defaults: &Defaults,
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
    merged(target, connection.as_deref(), file, defaults).map(Place::Ssh)
}

/// The task of ECS that a task's `backend: {ecs: …}` comes to now. Region and owner are filled in by the backend.
pub(super) fn on_ecs(template: &Value, rendering: &Rendering<'_>) -> Result<EcsPlace, String> {
    let Value::Object(template) = template else {
        return Err("the backend `ecs` does not know its cluster".to_owned());
    };
    let mut fields = Map::new();
    for (key, value) in template {
        let value = rendering.value(value).map_err(|why| format!("`backend.ecs.{key}`: {why}"))?;
        fields.insert(key.clone(), value);
    }
    let target = ecs::read(&fields).map_err(|wrong| format!("`backend.ecs`: {wrong}"))?;
    Ok(EcsPlace {
        instance: String::new(),
        region: target.region.unwrap_or_default(),
        cluster: target.cluster.unwrap_or_default(),
        task_definition: target.task_definition.unwrap_or_default(),
        container: target.container,
        machine: target.machine,
        command: target.command,
        gpus: target.gpus,
        job: target.job,
        role: target.role,
        launch_type: target.launch_type,
        subnets: target.subnets,
        security_groups: target.security_groups,
        gang: None,
    })
}

/// The workflow wins over the connection, that over `~/.ssh/config`, and that over the defaults.
fn merged(
    target: SshTarget,
    connection: Option<&Connection>,
    file: &ConfigFile,
    defaults: &Defaults,
) -> Result<SshPlace, String> {
    let stored = match connection {
        None => Draft::default(),
        Some(connection) => ssh::draft(connection).map_err(|error| format!("{error:#}"))?,
    };
    stored.overlaid(draft(target)).place(file, defaults).map_err(|fault| format!("`backend.ssh`: {fault}"))
}

fn draft(target: SshTarget) -> Draft {
    let hop = |JumpTarget { host, user, port, key }| DraftHop { host, user, port, key };
    Draft {
        host: target.host.unwrap_or_default(),
        user: target.user,
        port: target.port,
        connection: target.connection,
        key: target.key,
        passphrase: target.passphrase,
        jump: target.jump.map(|jump| jump.into_iter().map(hop).collect()),
        workdir: target.workdir,
        host_keys: target.host_keys.map(|said| match said.as_str() {
            "accept-new" => HostKeys::AcceptNew,
            "strict" => HostKeys::Strict,
            pin => HostKeys::Pinned(pin.to_owned()),
        }),
        timeout_s: target.timeout.and_then(|timeout| u32::try_from(timeout.as_secs()).ok()),
        keep_alive_s: None,
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_exec::Hop;
    use serde_json::json;

    use super::*;

    fn place(fields: Value, connection: Option<&Connection>, file: &ConfigFile) -> Result<SshPlace, String> {
        let defaults = Defaults { user: "ubuntu".into(), port: 2022, timeout_s: 40 };
        merged(read(fields.as_object().unwrap()).unwrap(), connection, file, &defaults)
    }

    /// `~/.ssh/config` with this text.
    fn config(text: &str) -> ConfigFile {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::write(home.path().join(".ssh/config"), text).unwrap();
        ConfigFile::load(home.path()).unwrap()
    }

    fn gpu(extra: &Value) -> Connection {
        Connection {
            id: "gpu".into(),
            conn_type: "ssh".into(),
            host: "10.0.0.7".into(),
            extra: Some(extra.to_string()),
            ..Connection::default()
        }
    }

    #[test]
    fn each_field_is_the_workflows_else_the_connections_else_the_files_else_the_default() {
        let nothing = ConfigFile::default();
        let bare = place(json!({ "host": "gpu-1" }), None, &nothing).unwrap();
        assert_eq!(bare, SshPlace { port: 2022, timeout_s: 40, ..SshPlace::new("gpu-1", "ubuntu") });

        let file = config(
            "Host 10.0.0.7\n User file\n Port 23\n ProxyJump f@hop:24\n StrictHostKeyChecking yes\n ConnectTimeout 9\nHost bastion\n User b\n Port 25\n",
        );
        let plain = place(json!({ "connection": "gpu" }), Some(&gpu(&json!({ "private_key": "hunter2" }))), &file);
        let hop = |host: &str, port, user: &str| Hop { host: host.into(), port, user: user.into(), key: None };
        let expected = SshPlace {
            port: 23,
            jump: vec![hop("hop", 24, "f")],
            host_keys: HostKeys::Strict,
            timeout_s: 9,
            connection: Some("gpu".into()),
            ..SshPlace::new("10.0.0.7", "file")
        };
        assert_eq!(plain.unwrap(), expected);

        let full = gpu(&json!({
            "jump": "bastion", "workdir": "/srv//a", "no_host_key_check": true, "conn_timeout": 10, "keepalive_interval": 5,
        }));
        let full = Connection { login: "lab".into(), port: Some(2222), ..full };
        let stored = place(json!({ "connection": "gpu" }), Some(&full), &file).unwrap();
        let expected = SshPlace {
            port: 2222,
            user: "lab".into(),
            jump: vec![hop("bastion", 25, "b")],
            workdir: Some("/srv/a".into()),
            host_keys: HostKeys::AcceptNew,
            timeout_s: 10,
            keep_alive_s: Some(5),
            ..expected
        };
        assert_eq!(stored, expected);

        let said = json!({
            "connection": "gpu", "host": "10.0.0.7", "user": "u", "port": 1, "key": "env:K", "passphrase": "env:P",
            "jump": [{ "host": "h", "key": "env:J" }], "workdir": "/w", "host_keys": "strict", "timeout": 5,
        });
        let said = place(said, Some(&full), &file).unwrap();
        let expected = SshPlace {
            port: 1,
            user: "u".into(),
            key: Some("env:K".into()),
            passphrase: Some("env:P".into()),
            jump: vec![Hop { key: Some("env:J".into()), ..hop("h", 2022, "u") }],
            workdir: Some("/w".into()),
            host_keys: HostKeys::Strict,
            timeout_s: 5,
            ..expected
        };
        assert_eq!(said, expected);
        // A way that others name is not gone by who says that there is none.
        let directly = place(json!({ "connection": "gpu", "jump": [] }), Some(&full), &file).unwrap();
        assert_eq!(directly.jump, []);
        // GitHub's, as it publishes it.
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let pinned = place(json!({ "connection": "gpu" }), Some(&gpu(&json!({ "host_key": key }))), &nothing).unwrap();
        assert_eq!(pinned.host_keys, HostKeys::Pinned("SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU".into()));
    }

    #[test]
    fn a_test_of_a_connection_and_a_task_come_to_the_same_place() {
        let file = config("Host 10.0.0.7\n User file\n ProxyJump hop\n ConnectTimeout 9\nHost hop\n Port 24\n");
        let defaults = Defaults::default();
        for extra in [json!({}), json!({ "jump": "a@b:1,c", "workdir": "~/x", "key": "env:K", "timeout": 3 })] {
            let connection = gpu(&extra);
            let target = read(json!({ "connection": "gpu" }).as_object().unwrap()).unwrap();
            let of_task = merged(target, Some(&connection), &file, &defaults).unwrap();
            assert_eq!(of_task, ssh::place::place(&connection, &file, &defaults).unwrap());
        }
    }

    #[test]
    fn a_connection_that_is_no_host_says_so() {
        let told = |connection: Connection| {
            let connection = Connection { id: "c".into(), ..connection };
            place(json!({ "connection": "c" }), Some(&connection), &ConfigFile::default()).unwrap_err()
        };
        let kind = |kind: &str| Connection { conn_type: kind.into(), ..Connection::default() };
        let http = "the connection `c` is of the type `http`; only `ssh` and `sftp` lead to a host over SSH";
        assert_eq!(told(kind("http")), http);
        assert_eq!(told(kind("ssh")), "`backend.ssh`: the connection `c` has no host, and no other one is given");
        let wrong = Connection { host: "a b".into(), ..kind("ssh") };
        assert_eq!(told(wrong), "`backend.ssh`: `a b` cannot be the name of a host");
        let extra = |extra: &str| Connection { host: "h".into(), extra: Some(extra.into()), ..kind("ssh") };
        let workdir = told(extra(r#"{"workdir": "app"}"#));
        assert!(workdir.starts_with("the connection `c`: `workdir`: `app` is not an absolute path"), "{workdir}");
        assert!(told(extra(r#"{"jump": "a b"}"#)).contains("`a b` cannot be the name of a host"));
    }
}
