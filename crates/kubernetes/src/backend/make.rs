//! Makes the objects of an attempt in its cluster, and removes them.
//!
//! Each has a name that is the attempt's for ever, so making one twice is making it once. A quota that is used up, and an API
//! server that is away, are waited for; what no time mends is how the attempt ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::manifest::{ATTEMPT, INSTANCE, MASKS, Objects, RUN};
use super::marks::Sent;
use super::seen::Seen;
use crate::client::{CLAIMS, Call, Client, Fault, Kind, PODS, SECRETS};
use crate::pod::Meta;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(2);
/// For room in a quota.
const ROOM: Duration = Duration::from_secs(5);

/// Why there is no pod now.
pub enum Not {
    /// Again after this time; people are told why.
    Later(Duration, String),
    Never(String),
}

#[derive(serde::Deserialize)]
struct Named {
    metadata: Meta,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Kept {
    data: std::collections::BTreeMap<String, String>,
}

/// Makes all of it, and gives the pod's own id.
pub async fn make(client: &Client, objects: &Objects) -> Result<String, Not> {
    let Sent { name, namespace, .. } = &objects.sent;
    let space = Some(namespace.as_str());
    create(client, Call::create(SECRETS, space, objects.secret.clone())).await?;
    for claim in &objects.claims {
        create(client, Call::create(CLAIMS, space, claim.clone())).await?;
    }
    let uid = match client.ask::<Named>(Call::create(PODS, space, objects.pod.clone())).await {
        Ok(made) => made.metadata.uid,
        Err(fault) if fault.kind == Kind::Conflict => {
            let there: Named = client.ask(Call::get(PODS, space, name)).await.map_err(not)?;
            let own = objects.pod["metadata"]["labels"][ATTEMPT].as_str();
            if there.metadata.labels.get(ATTEMPT).map(String::as_str) != own {
                return Err(Not::Never(format!("there is a pod `{name}` in `{namespace}` already, which is not ours")));
            }
            there.metadata.uid
        }
        Err(fault) => return Err(not(fault)),
    };
    // Whoever deletes the pod deletes the Secret with it; where that may not be said, we do.
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }]);
    let (client, call) =
        (client.clone(), Call::patch(SECRETS, space, name, json!({ "metadata": { "ownerReferences": owner } })));
    tokio::spawn(async move {
        if let Err(fault) = client.tell(call).await {
            tracing::debug!("a Secret has no owner: {fault}");
        }
    });
    Ok(uid)
}

async fn create(client: &Client, call: Call) -> Result<(), Not> {
    match client.tell(call).await {
        Err(fault) if fault.kind == Kind::Conflict => Ok(()),
        other => other.map_err(not),
    }
}

fn not(fault: Fault) -> Not {
    let is_quota = fault.words.contains("exceeded quota");
    match fault.kind {
        Kind::Denied if is_quota => Not::Later(ROOM, format!("waits for room in a quota: {fault}")),
        Kind::Away | Kind::Unknown | Kind::Later | Kind::Conflict => {
            Not::Later(fault.after.unwrap_or(AGAIN), format!("its pod cannot be made now: {fault}"))
        }
        Kind::Denied | Kind::NotFound | Kind::Invalid => Not::Never(format!("its pod cannot be made: {fault}")),
    }
}

/// The pod as it is; `None`: there is none.
pub async fn find(client: &Client, namespace: &str, name: &str) -> Result<Option<Seen>, Fault> {
    match client.ask::<Seen>(Call::get(PODS, Some(namespace), name)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(fault) if fault.kind == Kind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// What no log of the attempt may show, as its Secret keeps it.
pub async fn masks(client: &Client, sent: &Sent) -> Result<Vec<String>, Fault> {
    use base64::Engine as _;
    let kept = match client.ask::<Kept>(Call::get(SECRETS, Some(&sent.namespace), &sent.name)).await {
        Ok(kept) => kept,
        Err(fault) if fault.kind == Kind::NotFound => Kept::default(),
        Err(fault) => return Err(fault),
    };
    let text = kept.data.get(MASKS).map(|text| base64::engine::general_purpose::STANDARD.decode(text));
    Ok(text.and_then(Result::ok).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

/// Asks for the end of a pod.
pub async fn delete(client: &Client, namespace: &str, name: &str, grace_s: u32) -> Result<(), Fault> {
    let options = json!({ "propagationPolicy": "Background", "gracePeriodSeconds": grace_s });
    gone(client.tell(Call::delete(PODS, Some(namespace), name, options)).await)
}

/// Removes what is left of an attempt that is over.
pub async fn remove(client: &Client, namespace: &str, name: &str) -> Result<(), Fault> {
    delete(client, namespace, name, 0).await?;
    gone(client.tell(Call::delete(SECRETS, Some(namespace), name, json!({}))).await)
}

/// Removes the claims that were made for a run.
pub async fn remove_claims(client: &Client, namespace: &str, instance: &str, run: &str) -> Result<(), Fault> {
    let list = Call::list(CLAIMS, Some(namespace)).query("labelSelector", format!("{INSTANCE}={instance},{RUN}={run}"));
    for claim in client.all::<Value>(list).await? {
        let name = claim["metadata"]["name"].as_str().unwrap_or_default();
        gone(client.tell(Call::delete(CLAIMS, Some(namespace), name, json!({}))).await)?;
    }
    Ok(())
}

fn gone(answer: Result<(), Fault>) -> Result<(), Fault> {
    match answer {
        Err(fault) if fault.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}
