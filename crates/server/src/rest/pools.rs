//! Pools, and how full they are.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::clock;
use pitcrew_store::{AuditEntry, Pool};
use serde_json::{Value, json};

use super::bulk::{self, Mask, Resource};
use super::shapes;
use crate::Site;
use crate::auth::Role::{Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

/// Slots of a pool without a limit, which Airflow writes as -1.
pub const UNLIMITED: u32 = u32::MAX;

pub fn routes() -> Routes {
    let filters = "order_by: text, pool_name_pattern: text, pool_name_prefix_pattern: text";
    Routes::api()
        .get("/api/v2/pools", Role(Viewer), list)
        .doc(doc("Pool", "Lists pools").paged().query(filters).answer(200, "PoolCollectionResponse"))
        .post("/api/v2/pools", Role(Op), create)
        .doc(doc("Pool", "Makes a pool").body("PoolBody").answer(201, "PoolResponse"))
        .patch("/api/v2/pools", Role(Op), bulk)
        .doc(doc("Pool", "Makes, changes and deletes pools").body("BulkBody").answer(200, "BulkResponse"))
        .get("/api/v2/pools/{pool_name}", Role(Viewer), get)
        .doc(doc("Pool", "Shows a pool").answer(200, "PoolResponse"))
        .patch("/api/v2/pools/{pool_name}", Role(Op), patch)
        .doc(
            doc("Pool", "Changes a pool")
                .query("update_mask: [text]")
                .body("PoolPatchBody")
                .answer(200, "PoolResponse"),
        )
        .delete("/api/v2/pools/{pool_name}", Role(Op), delete)
        .doc(doc("Pool", "Deletes a pool").nothing(204))
}

pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let mut pools = site.app.store.pools().await?;
    pools.retain(|pool| query.allows("pool_name", &pool.name));
    match query.text("order_by") {
        None | Some("id" | "name" | "pool") => {}
        Some("-id" | "-name" | "-pool") => pools.reverse(),
        Some("slots") => pools.sort_by_key(|pool| pool.slots),
        Some("-slots") => pools.sort_by_key(|pool| std::cmp::Reverse(pool.slots)),
        Some(other) => return Err(ApiError::bad_request(format!("pools cannot be ordered by `{other}`"))),
    }
    let total = pools.len();
    let paging = query.paging()?;
    let in_use = site.app.scheduler.queue(0).await.pools;
    let shown = pools.iter().skip(paging.offset as usize).take(paging.limit as usize);
    let shown: Vec<Value> = shown.map(|pool| shape(pool, &in_use)).collect();
    Ok(Json(json!({ "pools": shown, "total_entries": total })))
}

fn shape(pool: &Pool, in_use: &BTreeMap<String, (u32, usize)>) -> Value {
    let (occupied, waiting) = in_use.get(&pool.name).copied().unwrap_or_default();
    let limit = (pool.slots != UNLIMITED).then_some(i64::from(pool.slots));
    json!({
        "name": pool.name,
        "slots": limit.unwrap_or(-1),
        "description": shapes::text_or_null(&pool.description),
        "include_deferred": false,
        "occupied_slots": occupied,
        "running_slots": occupied,
        "queued_slots": 0,
        "scheduled_slots": waiting,
        "open_slots": limit.map_or(-1, |limit| (limit - i64::from(occupied)).max(0)),
        "deferred_slots": 0,
        "team_name": null,
    })
}

async fn find(site: &Site, name: &str) -> ApiResult<Pool> {
    let pool = site.app.store.pool(name).await?;
    pool.ok_or_else(|| ApiError::not_found(format!("The Pool with name: `{name}` was not found")))
}

pub async fn get(State(site): State<Site>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    one(&site, &name).await
}

async fn one(site: &Site, name: &str) -> ApiResult<Json<Value>> {
    Ok(Json(shape(&find(site, name).await?, &site.app.scheduler.queue(0).await.pools)))
}

pub async fn create(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    body: Body,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let pools = Pools { site: &site, user: &user };
    let pool = pools.read(body)?;
    let name = bulk::create(&pools, pool).await?;
    Ok((StatusCode::CREATED, one(&site, &name).await?))
}

pub async fn patch(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let mut pool = find(&site, &name).await?;
    let mask = Mask::of_query(&query);
    let slots = slots(&mut body);
    let description = body.text("description");
    let renamed = body.text("pool").or(body.text("name")).is_some_and(|other| other != name);
    let deferred = body.boolean("include_deferred") == Some(true);
    body.ignore(&["team_name"]);
    body.finish()?;
    if renamed {
        return Err(ApiError::bad_request("the name of a pool cannot be changed"));
    }
    if deferred && mask.has("include_deferred") {
        return Err(ApiError::bad_request(DEFERRED));
    }
    if let Some(slots) = slots.filter(|_| mask.has("slots")) {
        pool.slots = slots;
    }
    if let Some(description) = description.filter(|_| mask.has("description")) {
        pool.description = description;
    }
    put(&site, &user, pool).await?;
    one(&site, &name).await
}

const DEFERRED: &str = "`include_deferred` is not supported: a deferred task holds no slot";

fn slots(body: &mut Body) -> Option<u32> {
    let slots = body.integer("slots", -1, i64::from(u32::MAX) - 1)?;
    Some(u32::try_from(slots).unwrap_or(UNLIMITED))
}

/// Writes a pool, and wakes what waited for its slots.
async fn put(site: &Site, user: &User, pool: Pool) -> ApiResult<()> {
    let mut audit = AuditEntry::new(clock::now(), user.name.clone(), "pool.set");
    audit.detail = json!({ "name": pool.name, "slots": pool.slots });
    site.app.store.put_pool(pool, audit).await?;
    site.app.scheduler.look();
    Ok(())
}

pub async fn delete(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<StatusCode> {
    bulk::delete(&Pools { site: &site, user: &user }, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn bulk(State(site): State<Site>, Extension(user): Extension<User>, body: Body) -> ApiResult<Json<Value>> {
    bulk::run(&Pools { site: &site, user: &user }, body).await.map(Json)
}

/// Pools, as bulk requests change them.
struct Pools<'a> {
    site: &'a Site,
    user: &'a User,
}

#[async_trait]
impl Resource for Pools<'_> {
    const NAME: &'static str = "Pool";
    const KEY: &'static str = "name";
    type Item = Pool;

    fn read(&self, mut body: Body) -> ApiResult<Pool> {
        let name = body.required_text("name");
        body.require("slots");
        let slots = slots(&mut body).unwrap_or_default();
        let description = body.text("description").unwrap_or_default();
        if body.boolean("include_deferred") == Some(true) {
            body.problem("include_deferred", "value_error", DEFERRED);
        }
        body.ignore(&["team_name"]);
        body.finish()?;
        Ok(Pool { name, slots, description })
    }

    fn key(item: &Pool) -> &str {
        &item.name
    }

    async fn exists(&self, key: &str) -> ApiResult<bool> {
        Ok(self.site.app.store.pool(key).await?.is_some())
    }

    async fn put(&self, mut item: Pool, mask: &Mask) -> ApiResult<()> {
        if let Some(old) = self.site.app.store.pool(&item.name).await? {
            item.slots = if mask.has("slots") { item.slots } else { old.slots };
            item.description = if mask.has("description") { item.description } else { old.description };
        }
        put(self.site, self.user, item).await
    }

    async fn remove(&self, key: &str) -> ApiResult<bool> {
        let mut audit = AuditEntry::new(clock::now(), self.user.name.clone(), "pool.delete");
        audit.detail = json!({ "name": key });
        let removed = self.site.app.store.delete_pool(key, audit).await?;
        self.site.app.scheduler.look();
        Ok(removed)
    }
}
