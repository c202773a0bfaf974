//! Quotas of namespaces, and what each namespace holds.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::quotas::{self, KEYS, QuotaView};
use pitcrew_core::admission::Quota;
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::{Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::Body;
use crate::openapi::doc;
use crate::routes::Access::Role;
use crate::routes::Routes;

pub fn routes() -> Routes {
    const QUOTA: &str = "/api/pitcrew/v1/quotas/{namespace}";
    Routes::api()
        .get("/api/pitcrew/v1/quotas", Role(Viewer), list)
        .doc(doc("Quota", "Lists namespaces with their quotas and what they hold").answer(200, "Quotas"))
        .get(QUOTA, Role(Viewer), show)
        .doc(doc("Quota", "Shows a namespace").answer(200, "Quota"))
        .patch(QUOTA, Role(Op), patch)
        .doc(doc("Quota", "Makes or changes a quota").body("QuotaPatch").answer(200, "Quota"))
        .delete(QUOTA, Role(Op), delete)
        .doc(doc("Quota", "Deletes a quota").nothing(204))
}

/// Every namespace with a quota, or that holds or wants something.
pub async fn all(site: &Site) -> ApiResult<Vec<QuotaView>> {
    let uses = site.app.scheduler.queue(0).await.namespaces;
    Ok(quotas::views(site.app.store.quotas().await?, &uses))
}

async fn one(site: &Site, namespace: &str) -> ApiResult<QuotaView> {
    all(site).await?.into_iter().find(|view| view.namespace == namespace).ok_or_else(|| missing(namespace))
}

fn missing(namespace: &str) -> ApiError {
    ApiError::not_found(format!("the namespace `{namespace}` has no quota"))
}

async fn list(State(site): State<Site>) -> ApiResult<Json<Value>> {
    let all = all(&site).await?;
    Ok(Json(json!({ "total_entries": all.len(), "quotas": all })))
}

async fn show(State(site): State<Site>, Path(namespace): Path<String>) -> ApiResult<Json<QuotaView>> {
    one(&site, &namespace).await.map(Json)
}

async fn patch(
    State(site): State<Site>,
    Path(namespace): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<QuotaView>> {
    let mut changes = Vec::new();
    for key in KEYS.into_iter().filter(|key| body.has(key)).collect::<Vec<_>>() {
        // `value` leaves out null, which takes away.
        match body.value(key) {
            None | Some(Value::Null) => changes.push((key.to_owned(), None)),
            Some(Value::String(text)) => changes.push((key.to_owned(), Some(text))),
            Some(Value::Number(number)) => changes.push((key.to_owned(), Some(number.to_string()))),
            Some(_) => body.problem(key, "string_type", "must be a text, a number or null"),
        }
    }
    body.finish()?;
    quotas::set(&site.app.store, &user.name, &namespace, &changes).await?;
    site.app.scheduler.look();
    one(&site, &namespace).await.map(Json)
}

/// Sets a quota in the name of a user.
pub async fn put(site: &Site, user: &User, quota: Quota) -> ApiResult<()> {
    let audit = quotas::audit(&user.name, &quota);
    site.app.store.put_quota(quota, audit).await?;
    site.app.scheduler.look();
    Ok(())
}

async fn delete(
    State(site): State<Site>,
    Path(namespace): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<StatusCode> {
    match remove(&site, &user, &namespace).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(missing(&namespace)),
    }
}

/// Says whether it was there.
pub async fn remove(site: &Site, user: &User, namespace: &str) -> ApiResult<bool> {
    let audit = quotas::audit_of_deletion(&user.name, namespace);
    let existed = site.app.store.delete_quota(namespace, audit).await?;
    site.app.scheduler.look();
    Ok(existed)
}
