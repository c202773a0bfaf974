//! Where an attempt runs, if not on this machine.
//!
//! Invariant: no secret is in it. Keys are references, looked up anew at each connect; so a place can stand in a
//! handle, in the store and in a message. It is frozen into the handle when the attempt's row is written: an edited
//! connection sends no later question to another machine.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The port of SSH.
pub const SSH_PORT: u16 = 22;
/// Seconds that a connect, sign-in included, may take.
pub const SSH_TIMEOUT: u32 = 30;

/// Where an attempt runs, by the kind of backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Ssh(SshPlace),
    Worker(WorkerPlace),
    Ecs(EcsPlace),
    Kubernetes(KubernetesPlace),
}

/// A cluster of Amazon ECS, and what is run there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EcsPlace {
    /// Whose attempts these are: a word of the server that began it, so that the next one means the same task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Empty until it is frozen into a handle: the server's own.
    #[serde(default)]
    pub region: String,
    /// Its name, or its ARN.
    pub cluster: String,
    /// `family`, `family:revision` or an ARN.
    pub task_definition: String,
    /// The container that is the task, and whose exit code counts. `None`: the first that is essential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The machine that it is for, by the id that EC2 gave it. `None`: ECS chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What its container runs if the task says nothing itself. Empty: what the definition says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// How many GPUs its container is given; which ones, ECS decides. `None`: as the definition says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// What the task is tagged with as `job_id`. `None`: its run and task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The role that starts and watches it, by its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `EC2`, `FARGATE` or `EXTERNAL`. `None`: as the cluster has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_type: Option<String>,
    /// Of tasks with an address of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// It is a member of a gang, whose machines are chosen together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<EcsMember>,
}

/// A member of a gang, and what all of its members agree in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EcsMember {
    pub rank: u32,
    /// How many members there are, each on a machine of its own.
    pub count: u32,
    /// Machines with the same value of this attribute are near each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// Others will not do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub near_required: bool,
    /// Machines that it should keep off, by their ids; said of the first member.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub avoid: BTreeSet<String>,
    /// The directory of the first member: which machines were chosen is written down there.
    pub seats: PathBuf,
}

/// A cluster of Kubernetes, and where in it pods are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KubernetesPlace {
    /// Whose attempts these are: a word of the server that began it, so that the next one means the same pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What says how the cluster is reached. `None`: as `kubectl` would find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// `None`: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// `None`: that of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A worker, with what an attempt is rendered with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerPlace {
    /// Its id, which no other worker ever has.
    pub worker: String,
    /// What it is called; for people.
    pub name: String,
    /// Absolute paths there: its data directory, and this program.
    pub data_dir: String,
    pub program: String,
}

/// A user on a host that is reached over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SshPlace {
    /// A name or an address; for IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub user: String,
    /// The stored connection that it came from: for messages, and to look its secrets up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// A reference to the private key: `aws-sm:…`, an ARN, `env:…`, `file:…` or `store:…`. `None`: the connection's
    /// own, else the agent's and those of `~/.ssh/config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A reference to what the key is encrypted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// Hosts on the way, the first one to connect to first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jump: Vec<Hop>,
    /// Where steps start on the host, absolute. `None`: a directory of the run, made by the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default)]
    pub host_keys: HostKeys,
    /// For one connect, sign-in included.
    pub timeout_s: u32,
    /// Seconds of silence after which the host is asked whether it is there; 0: never. `None`: as `~/.ssh/config` says,
    /// or 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_s: Option<u32>,
}

impl SshPlace {
    /// A place with the defaults, to be filled in.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        SshPlace {
            host: host.into(),
            port: SSH_PORT,
            user: user.into(),
            connection: None,
            key: None,
            passphrase: None,
            jump: Vec::new(),
            workdir: None,
            host_keys: HostKeys::default(),
            timeout_s: SSH_TIMEOUT,
            keep_alive_s: None,
        }
    }
}

/// As people write it: `ubuntu@10.0.1.9:22`.
impl std::fmt::Display for SshPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        at_port(f, &self.user, &self.host, self.port)
    }
}

/// A host on the way to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hop {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// As [`SshPlace::key`]; `None`: the keys of the place itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        at_port(f, &self.user, &self.host, self.port)
    }
}

fn at_port(f: &mut std::fmt::Formatter<'_>, user: &str, host: &str, port: u16) -> std::fmt::Result {
    if host.contains(':') { write!(f, "{user}@[{host}]:{port}") } else { write!(f, "{user}@{host}:{port}") }
}

/// Which key a host may show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeys {
    /// The one that is known; of an unknown host the first one, which is recorded.
    #[default]
    AcceptNew,
    /// Only the one that is known.
    Strict,
    /// Only the one with this fingerprint: `SHA256:` and 43 letters of base64.
    Pinned(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_says_little_when_it_is_plain() {
        let plain = Place::Ssh(SshPlace::new("gpu-1", "ubuntu"));
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(
            text,
            r#"{"ssh":{"host":"gpu-1","port":22,"user":"ubuntu","host_keys":"accept_new","timeout_s":30}}"#
        );
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), plain);
        let hop = Hop { host: "b".into(), port: 2222, user: "me".into(), key: Some("env:K".into()) };
        let full = SshPlace {
            host: "::1".into(),
            jump: vec![hop],
            host_keys: HostKeys::Pinned("SHA256:x".into()),
            ..SshPlace::new("x", "u")
        };
        assert_eq!(full.to_string(), "u@[::1]:22");
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<SshPlace>(&text).unwrap(), full);
    }
}
