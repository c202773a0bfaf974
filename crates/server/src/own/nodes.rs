//! Nodes: what they have, how they stand, what runs there, and what people do to them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::clock;
use pitcrew_control::fleet::{self, NodeView, change};
use pitcrew_store::{AuditEntry, NodeChange};
use serde_json::{Map, Value, json};

use crate::Site;
use crate::auth::Role::{Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::Body;
use crate::openapi::doc;
use crate::routes::Access::Role;
use crate::routes::Routes;

pub fn routes() -> Routes {
    const NODE: &str = "/api/pitcrew/v1/nodes/{node}";
    Routes::api()
        .get("/api/pitcrew/v1/nodes", Role(Viewer), list)
        .doc(doc("Node", "Lists nodes with their GPUs and what runs there").answer(200, "Nodes"))
        .get(NODE, Role(Viewer), show)
        .doc(doc("Node", "Shows a node").answer(200, "Node"))
        .get(format!("{NODE}/samples"), Role(Viewer), samples)
        .doc(
            doc(
                "Node",
                "Shows what the GPUs of a node did: the last hour at each answer, a day in means of five minutes",
            )
            .answer(200, "NodeSamples"),
        )
        .patch(NODE, Role(Op), patch)
        .doc(
            doc("Node", "Sets and takes away labels and taints, cordons and uncordons")
                .body("NodePatch")
                .answer(200, "Node"),
        )
}

/// Every node with what runs on it.
pub async fn all(site: &Site) -> ApiResult<Vec<NodeView>> {
    let mut nodes = site.app.fleet.views();
    let mut tasks = fleet::tasks(&site.app.store, &nodes).await?;
    for node in &mut nodes {
        node.tasks = tasks.remove(&node.name).unwrap_or_default();
    }
    Ok(nodes)
}

pub async fn one(site: &Site, name: &str) -> ApiResult<NodeView> {
    all(site).await?.into_iter().find(|node| node.name == name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no node `{name}`"))
}

async fn list(State(site): State<Site>) -> ApiResult<Json<Value>> {
    let nodes = all(&site).await?;
    Ok(Json(json!({ "total_entries": nodes.len(), "nodes": nodes })))
}

async fn show(State(site): State<Site>, Path(name): Path<String>) -> ApiResult<Json<NodeView>> {
    one(&site, &name).await.map(Json)
}

async fn samples(State(site): State<Site>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let samples = site.app.fleet.samples(&name).ok_or_else(|| missing(&name))?;
    Ok(Json(json!({ "samples": samples })))
}

async fn patch(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<NodeView>> {
    if site.app.fleet.view(&name).is_none() {
        return Err(missing(&name));
    }
    let cordoned = body.boolean("cordoned");
    let labels = body.object("labels").unwrap_or_default();
    let labels = marks(&mut body, "labels", labels, change::label);
    let taints = body.object("taints").unwrap_or_default();
    let taints = marks(&mut body, "taints", taints, change::taint);
    body.finish()?;
    let change = NodeChange { cordoned, labels, taints };
    if change == NodeChange::default() {
        return Err(ApiError::bad_request("give `cordoned`, `labels` or `taints`"));
    }
    apply(&site, &user, &name, change).await?;
    one(&site, &name).await.map(Json)
}

/// Does something to a node, in the name of a user.
pub async fn apply(site: &Site, user: &User, name: &str, change: NodeChange) -> ApiResult<()> {
    let audit = audit(&user.name, name, &change);
    site.app.fleet.change(name, change, audit).await?.ok_or_else(|| missing(name))?;
    site.app.scheduler.look();
    Ok(())
}

/// The audit entry of a change, here and on the command line.
pub fn audit(who: &str, name: &str, change: &NodeChange) -> AuditEntry {
    let event = match (change.cordoned, change.taints.is_empty()) {
        (Some(true), _) => "node.cordon",
        (Some(false), _) => "node.uncordon",
        (None, true) => "node.label",
        (None, false) => "node.taint",
    };
    let mut audit = AuditEntry::new(clock::now(), who, event);
    audit.detail = json!({ "node": name, "labels": change.labels, "taints": change.taints });
    audit
}

/// Names with a value, or with null to take one away.
fn marks(
    body: &mut Body,
    key: &str,
    given: Map<String, Value>,
    check: fn(&str, Option<&str>) -> Result<(), String>,
) -> BTreeMap<String, Option<String>> {
    let mut all = BTreeMap::new();
    for (name, value) in given {
        let value = match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => {
                body.problem(key, "string_type", format!("the value of `{name}` must be a text or null"));
                continue;
            }
        };
        match check(&name, value.as_deref()) {
            Ok(()) => drop(all.insert(name, value)),
            Err(why) => body.problem(key, "value_error", why),
        }
    }
    all
}
