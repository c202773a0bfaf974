//! Pods: what is on a node, and those that we put there.
//!
//! Invariant: a pod of ours is called by what it is for, so that asking for it twice is asking for it once, and is pinned to its
//! node, whoever else may go there.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Call, Client, Fault, Kind, PODS};

/// The label of our pods that says what they are for; [`OWNER`]: which Pitcrew they are of.
pub const ROLE: &str = "pitcrew/role";
pub const OWNER: &str = "pitcrew/owner";
/// The container of our pods.
pub const CONTAINER: &str = "main";
/// The longest log that is kept.
const MOST_LOG: usize = 1 << 20;
/// Reasons for which a container waits that no time mends.
const HOPELESS: [&str; 4] =
    ["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"];

/// What is run in a pod of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub image: String,
    /// Empty: what the image runs.
    pub command: Vec<String>,
    pub is_privileged: bool,
    /// `Always`, `IfNotPresent` or `Never`; `None`: as Kubernetes chooses.
    pub pull: Option<String>,
    pub service_account: Option<String>,
    /// Secrets that its image is pulled with.
    pub pull_secrets: Vec<String>,
    pub runtime_class: Option<String>,
}

/// A pod that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub role: &'static str,
    pub owner: String,
    pub container: Container,
    pub env: BTreeMap<String, String>,
    /// Of this resource so many.
    pub devices: Option<(String, u32)>,
    /// It sees the processes of the node.
    pub is_host: bool,
    /// After so many seconds the node ends it.
    pub limit_s: u64,
}

/// A pod as its cluster knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Pod {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<OwnerRef>,
    pub deletion_timestamp: Option<String>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct OwnerRef {
    pub kind: String,
    pub controller: bool,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub node_name: String,
    pub containers: Vec<Contained>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Contained {
    pub resources: Resources,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Resources {
    pub limits: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    pub phase: String,
    pub reason: String,
    pub message: String,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct ContainerStatus {
    pub state: ContainerState,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct ContainerState {
    pub waiting: Option<Waiting>,
    pub running: Option<Value>,
    pub terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    pub exit_code: i32,
    pub reason: String,
}

/// How a pod of ours stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun, for this reason; `hopeless`: and never will.
    Waiting {
        why: String,
        hopeless: bool,
    },
    Running,
    /// Its container ended by itself.
    Ended {
        code: i32,
    },
    /// Somebody ended it, or it was never let in.
    Broken {
        why: String,
    },
}

impl Pod {
    pub fn stage(&self) -> Stage {
        let status = &self.status;
        let said = || match (status.reason.trim(), status.message.trim()) {
            ("", "") => format!("it is {}", status.phase),
            ("", message) => message.to_owned(),
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        };
        let state = status.container_statuses.first().map(|container| &container.state);
        let is_over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        match state {
            // `Evicted`, `DeadlineExceeded`, `NodeShutdown` and others are said of the pod as a whole.
            _ if is_over && !status.reason.is_empty() => Stage::Broken { why: said() },
            Some(ContainerState { terminated: Some(end), .. }) if is_over => match end.reason.as_str() {
                "Completed" | "Error" | "" => Stage::Ended { code: end.exit_code },
                why => Stage::Broken { why: format!("its container was ended: {why}") },
            },
            _ if is_over => Stage::Broken { why: said() },
            Some(ContainerState { running: Some(_), .. }) => Stage::Running,
            Some(ContainerState { waiting: Some(waiting), .. }) => {
                let hopeless = HOPELESS.contains(&waiting.reason.as_str());
                let why = format!("{}: {}", waiting.reason, waiting.message);
                Stage::Waiting { why: why.trim_end_matches([':', ' ']).to_owned(), hopeless }
            }
            _ => Stage::Waiting { why: "its node has not begun with it".to_owned(), hopeless: false },
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// What keeps it there, such as `ReplicaSet`; empty: nobody.
    pub fn controller(&self) -> &str {
        self.metadata.owner_references.iter().find(|one| one.controller).map_or("", |one| &one.kind)
    }

    /// It has devices of this resource.
    pub fn has(&self, resource: &str) -> bool {
        let count = |one: &Contained| one.resources.limits.get(resource).and_then(|text| crate::quantity::whole(text));
        self.spec.containers.iter().filter_map(count).any(|count| count > 0)
    }

    /// It is of this Pitcrew.
    pub fn is_of(&self, owner: &str) -> bool {
        self.metadata.labels.get(OWNER).is_some_and(|own| own == owner)
    }

    /// For people.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

impl Plan {
    fn spec(&self) -> Value {
        let container = &self.container;
        let env: Vec<Value> = self.env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let mut main = json!({ "name": CONTAINER, "image": container.image, "env": env });
        if !container.command.is_empty() {
            main["command"] = json!(container.command);
        }
        if let Some(pull) = &container.pull {
            main["imagePullPolicy"] = json!(pull);
        }
        if container.is_privileged {
            main["securityContext"] = json!({ "privileged": true });
        }
        if let Some((resource, count)) = &self.devices {
            main["resources"] = json!({ "limits": { resource: count.to_string() } });
        }
        let mut spec = json!({
            // Past the scheduler, which would not put it on a node that is cordoned.
            "nodeName": self.node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": self.limit_s.max(1),
            "terminationGracePeriodSeconds": 5,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [main],
        });
        if self.is_host {
            spec["hostPID"] = json!(true);
        }
        match &container.service_account {
            Some(account) => spec["serviceAccountName"] = json!(account),
            None => spec["automountServiceAccountToken"] = json!(false),
        }
        if let Some(class) = &container.runtime_class {
            spec["runtimeClassName"] = json!(class);
        }
        if !container.pull_secrets.is_empty() {
            let all: Vec<Value> = container.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
            spec["imagePullSecrets"] = json!(all);
        }
        let labels = json!({ ROLE: self.role, OWNER: self.owner, "app.kubernetes.io/managed-by": "pitcrew" });
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": self.name, "labels": labels }, "spec": spec })
    }

    /// Makes it, unless it is there.
    pub async fn create(&self, client: &Client) -> Result<(), Fault> {
        match client.tell(Call::create(PODS, Some(&self.namespace), self.spec())).await {
            Err(fault) if fault.kind == Kind::Conflict => Ok(()),
            other => other,
        }
    }

    /// `None`: there is none.
    pub async fn find(&self, client: &Client) -> Result<Option<Pod>, Fault> {
        match client.ask(Call::get(PODS, Some(&self.namespace), &self.name)).await {
            Ok(pod) => Ok(Some(pod)),
            Err(fault) if fault.kind == Kind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// What it wrote, the end of it.
    pub async fn log(&self, client: &Client) -> Result<String, Fault> {
        let call = Call::get(PODS, Some(&self.namespace), &self.name).below("log");
        client.text(call.query("container", CONTAINER).query("tailLines", "20000"), MOST_LOG).await
    }

    pub async fn delete(&self, client: &Client) -> Result<(), Fault> {
        remove(client, &self.namespace, &self.name).await
    }
}

async fn remove(client: &Client, namespace: &str, name: &str) -> Result<(), Fault> {
    let options = json!({ "propagationPolicy": "Background", "gracePeriodSeconds": 5 });
    match client.tell(Call::delete(PODS, Some(namespace), name, options)).await {
        Err(fault) if fault.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// All pods of a node.
pub async fn on(client: &Client, node: &str) -> Result<Vec<Pod>, Fault> {
    client.all(Call::list(PODS, None).query("fieldSelector", format!("spec.nodeName={node}"))).await
}

/// Removes what is over of our pods there, and on nodes for which nothing is done any more.
pub async fn sweep(
    client: &Client,
    namespace: &str,
    owner: &str,
    is_wanted: impl Fn(&Pod) -> bool,
) -> Result<(), Fault> {
    let ours = Call::list(PODS, Some(namespace)).query("labelSelector", format!("{OWNER}={owner}"));
    for pod in client.all::<Pod>(ours).await? {
        if !is_wanted(&pod) && pod.metadata.deletion_timestamp.is_none() {
            remove(client, namespace, &pod.metadata.name).await?;
        }
    }
    Ok(())
}

/// A name for a pod of ours, always the same for the same thing.
pub fn name_of(role: &str, what: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(what);
    let hex: String = digest.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("pitcrew-{role}-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(status: Value) -> Stage {
        serde_json::from_value::<Pod>(json!({ "metadata": {}, "status": status })).unwrap().stage()
    }

    #[test]
    fn only_a_container_that_ended_by_itself_has_an_exit_code() {
        let ended =
            |code: i32, reason: &str| json!([{ "state": { "terminated": { "exitCode": code, "reason": reason } } }]);
        assert_eq!(
            stage(json!({ "phase": "Succeeded", "containerStatuses": ended(0, "Completed") })),
            Stage::Ended { code: 0 }
        );
        assert_eq!(
            stage(json!({ "phase": "Failed", "containerStatuses": ended(226, "Error") })),
            Stage::Ended { code: 226 }
        );
        let killed = json!({ "phase": "Failed", "containerStatuses": ended(137, "OOMKilled") });
        assert_eq!(stage(killed), Stage::Broken { why: "its container was ended: OOMKilled".to_owned() });
        let late = json!({ "phase": "Failed", "reason": "DeadlineExceeded", "message": "too long", "containerStatuses": ended(137, "Error") });
        assert_eq!(stage(late), Stage::Broken { why: "DeadlineExceeded: too long".to_owned() });
        let refused =
            json!({ "phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Node didn't have enough" });
        assert!(matches!(stage(refused), Stage::Broken { why } if why.starts_with("OutOfnvidia.com/gpu")));
        assert!(matches!(stage(json!({ "phase": "Failed" })), Stage::Broken { .. }));
    }

    #[test]
    fn what_no_time_mends_is_not_waited_for() {
        let waits = |reason: &str| {
            let state = json!([{ "state": { "waiting": { "reason": reason } } }]);
            matches!(
                stage(json!({ "phase": "Pending", "containerStatuses": state })),
                Stage::Waiting { hopeless: true, .. }
            )
        };
        assert_eq!(["ErrImageNeverPull", "ImagePullBackOff", "ContainerCreating"].map(waits), [true, false, false]);
        assert!(matches!(stage(json!({ "phase": "Pending" })), Stage::Waiting { hopeless: false, .. }));
    }

    #[test]
    fn a_pod_of_ours_is_pinned_and_has_no_account() {
        let container = Container { image: "dcgm".to_owned(), ..Container::default() };
        let plan = Plan {
            namespace: "p".to_owned(),
            name: name_of("check", "x"),
            node: "n1".to_owned(),
            role: "check",
            owner: "me".to_owned(),
            container,
            env: BTreeMap::new(),
            devices: Some(("nvidia.com/gpu".to_owned(), 8)),
            is_host: false,
            limit_s: 60,
        };
        let spec = plan.spec()["spec"].clone();
        assert_eq!((&spec["nodeName"], &spec["automountServiceAccountToken"]), (&json!("n1"), &json!(false)));
        assert_eq!(spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "8");
        assert_eq!(spec["containers"][0]["securityContext"], Value::Null);
        assert_eq!(name_of("check", "x"), plan.name);
        assert!(plan.name.len() < 63);
    }
}
