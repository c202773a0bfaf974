//! Emptying a node: pods are evicted, which budgets of disruption may forbid for a while, and it is waited until they are gone.
//!
//! Invariant: nothing is deleted. An eviction is asked for, bound to the pod that was seen, and whoever keeps a budget says when.

use serde_json::json;

use crate::client::{Call, Client, Fault, Kind, PODS};
use crate::fleet::KubeFleet;
use crate::pod::{self, Pod};

/// Pods of these are made anew elsewhere by themselves, as if nothing had been.
const KEPT: [&str; 3] = ["ReplicaSet", "ReplicationController", "StatefulSet"];
/// What the kubelet runs by itself, whatever the API server says.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Which pods are made to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evict {
    /// Those that somebody makes anew elsewhere; all others end in their own time.
    Kept,
    /// Those of jobs as well, and those that nobody makes anew.
    All,
}

/// A pod that is there yet, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staying {
    pub pod: String,
    pub why: String,
}

/// Whether a pod has to be gone before a node may be rebooted.
fn counts(pod: &Pod, owner: &str) -> bool {
    let is_mirror = pod.metadata.annotations.contains_key(MIRROR);
    !pod.is_over() && !is_mirror && pod.controller() != "DaemonSet" && !pod.is_of(owner)
}

impl KubeFleet {
    /// Goes once over what is on a node, and gives what stays; empty: nothing does.
    pub async fn drain(&self, node: &str, evict: Evict) -> Result<Vec<Staying>, Fault> {
        let all = pod::on(&self.client, node).await?;
        let mut staying = Vec::new();
        for pod in all.iter().filter(|pod| counts(pod, &self.owner)) {
            let is_kept = KEPT.contains(&pod.controller());
            let why = if pod.metadata.deletion_timestamp.is_some() {
                Some("it is ending".to_owned())
            } else if evict == Evict::All || is_kept {
                self.evict(pod).await?
            } else {
                let whose = if pod.controller().is_empty() { "nobody" } else { pod.controller() };
                Some(format!("{whose} makes it anew elsewhere as it was, so it ends in its own time"))
            };
            staying.extend(why.map(|why| Staying { pod: pod.shown(), why }));
        }
        Ok(staying)
    }

    /// Pods that have GPUs of a node, but for ours.
    pub async fn users(&self, node: &str) -> Result<Vec<String>, Fault> {
        let all = pod::on(&self.client, node).await?;
        let uses = |pod: &&Pod| !pod.is_over() && !pod.is_of(&self.owner) && pod.has(&self.resource);
        Ok(all.iter().filter(uses).map(Pod::shown).collect())
    }

    /// Asks a pod to leave. Why it stays; `None`: it is gone.
    async fn evict(&self, pod: &Pod) -> Result<Option<String>, Fault> {
        let meta = &pod.metadata;
        match evict(&self.client, "policy/v1", pod).await {
            // Clusters before 1.22 know it by its older name alone.
            Err(fault)
                if fault.kind == Kind::Invalid || (fault.kind == Kind::NotFound && is_unknown(&fault, &meta.name)) =>
            {
                said(evict(&self.client, "policy/v1beta1", pod).await)
            }
            other => said(other),
        }
    }
}

/// It is the kind that is not found, and not the pod.
fn is_unknown(fault: &Fault, name: &str) -> bool {
    !fault.words.contains(name)
}

async fn evict(client: &Client, version: &str, pod: &Pod) -> Result<(), Fault> {
    let meta = &pod.metadata;
    let body = json!({
        "apiVersion": version,
        "kind": "Eviction",
        "metadata": { "name": meta.name, "namespace": meta.namespace },
        // Not another pod that has taken its name meanwhile.
        "deleteOptions": { "preconditions": { "uid": meta.uid } },
    });
    client.tell(Call::create_below(PODS, &meta.namespace, &meta.name, "eviction", body)).await
}

fn said(asked: Result<(), Fault>) -> Result<Option<String>, Fault> {
    match asked {
        Ok(()) => Ok(Some("it is ending".to_owned())),
        Err(fault) => match fault.kind {
            Kind::NotFound => Ok(None),
            // Another pod has its name by now, which the next look sees.
            Kind::Conflict => Ok(Some("it is gone, or another one".to_owned())),
            Kind::Later => Ok(Some(fault.to_string())),
            // As where several budgets are over one pod, which no eviction gets past.
            Kind::Unknown | Kind::Invalid => Ok(Some(fault.to_string())),
            Kind::Denied | Kind::Away => Err(fault),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_belongs_to_the_node_itself_does_not_hold_it() {
        let of = |meta: serde_json::Value, phase: &str| {
            let pod = json!({ "metadata": meta, "status": { "phase": phase } });
            counts(&serde_json::from_value(pod).unwrap(), "me")
        };
        let owned = |kind: &str| json!({ "ownerReferences": [{ "kind": kind, "controller": true }] });
        assert!(of(json!({}), "Running") && of(owned("Job"), "Pending") && of(owned("ReplicaSet"), "Running"));
        assert!(!of(owned("DaemonSet"), "Running") && !of(json!({}), "Succeeded"));
        assert!(!of(json!({ "annotations": { MIRROR: "x" } }), "Running"));
        assert!(!of(json!({ "labels": { pod::OWNER: "me" } }), "Running"));
        assert!(of(json!({ "labels": { pod::OWNER: "you" } }), "Running"));
    }
}
