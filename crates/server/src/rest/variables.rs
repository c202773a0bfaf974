//! Variables. What has the name of a secret is shown as `***`, here as in Airflow.

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::{clock, sensitive};
use pitcrew_store::{AuditEntry, Paging, Variable, VariableSet};
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

pub fn routes() -> Routes {
    let filters = "order_by: text, variable_key_pattern: text, variable_key_prefix_pattern: text";
    Routes::api()
        .get("/api/v2/variables", Role(Viewer), list)
        .doc(doc("Variable", "Lists variables").paged().query(filters).answer(200, "VariableCollectionResponse"))
        .post("/api/v2/variables", Role(Op), create)
        .doc(doc("Variable", "Makes a variable").body("VariableBody").answer(201, "VariableResponse"))
        .patch("/api/v2/variables", Role(Op), bulk)
        .doc(doc("Variable", "Makes, changes and deletes variables").body("BulkBody").answer(200, "BulkResponse"))
        .get("/api/v2/variables/{*variable_key}", Role(Viewer), get)
        .doc(doc("Variable", "Shows a variable").answer(200, "VariableResponse"))
        .patch("/api/v2/variables/{*variable_key}", Role(Op), patch)
        .doc(
            doc("Variable", "Changes a variable")
                .query("update_mask: [text]")
                .body("VariableBody")
                .answer(200, "VariableResponse"),
        )
        .delete("/api/v2/variables/{*variable_key}", Role(Op), delete)
        .doc(doc("Variable", "Deletes a variable").nothing(204))
}

pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let paging = query.paging()?;
    let order = query.text("order_by");
    let backwards = match order {
        None | Some("id" | "key") => false,
        Some("-id" | "-key") => true,
        Some(other) => return Err(ApiError::bad_request(format!("variables cannot be ordered by `{other}`"))),
    };
    let filtered = query.text("variable_key_pattern").or(query.text("variable_key_prefix_pattern")).is_some();
    let (rows, total) = if filtered || backwards {
        // A store keeps thousands of variables at most, so these few questions may look at all of them.
        let mut all = site.app.store.variables(Paging::ALL).await?.rows;
        all.retain(|variable| query.allows("variable_key", &variable.key));
        if backwards {
            all.reverse();
        }
        let total = all.len() as u64;
        (all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect(), total)
    } else {
        let page = site.app.store.variables(paging).await?;
        (page.rows, page.total)
    };
    let shown: Vec<Value> = rows.iter().map(shape).collect();
    Ok(Json(json!({ "variables": shown, "total_entries": total })))
}

fn shape(variable: &Variable) -> Value {
    json!({
        "key": variable.key,
        "value": sensitive::shown(&variable.key, &variable.value),
        "description": shapes::text_or_null(&variable.description),
        "is_encrypted": false,
        "team_name": null,
    })
}

async fn one(site: &Site, key: &str) -> ApiResult<Json<Value>> {
    let variable = site.app.store.variable(key).await?;
    let variable =
        variable.ok_or_else(|| ApiError::not_found(format!("The Variable with key: `{key}` was not found")))?;
    Ok(Json(shape(&variable)))
}

pub async fn get(State(site): State<Site>, Path(key): Path<String>) -> ApiResult<Json<Value>> {
    one(&site, &key).await
}

pub async fn create(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    body: Body,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let variables = Variables { site: &site, user: &user };
    let key = bulk::create(&variables, variables.read(body)?).await?;
    Ok((StatusCode::CREATED, one(&site, &key).await?))
}

pub async fn patch(
    State(site): State<Site>,
    Path(key): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
    body: Body,
) -> ApiResult<Json<Value>> {
    let variables = Variables { site: &site, user: &user };
    let set = variables.read(body)?;
    if set.key != key {
        return Err(ApiError::bad_request("Invalid body, key from request body doesn't match uri parameter"));
    }
    if !variables.exists(&key).await? {
        return Err(ApiError::not_found(format!("The Variable with key: `{key}` was not found")));
    }
    variables.put(set, &Mask::of_query(&query)).await?;
    one(&site, &key).await
}

pub async fn delete(
    State(site): State<Site>,
    Path(key): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<StatusCode> {
    bulk::delete(&Variables { site: &site, user: &user }, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn bulk(State(site): State<Site>, Extension(user): Extension<User>, body: Body) -> ApiResult<Json<Value>> {
    bulk::run(&Variables { site: &site, user: &user }, body).await.map(Json)
}

/// Variables, as bulk requests change them.
struct Variables<'a> {
    site: &'a Site,
    user: &'a User,
}

#[async_trait]
impl Resource for Variables<'_> {
    const NAME: &'static str = "Variable";
    const KEY: &'static str = "key";
    type Item = VariableSet;

    /// A value that is no text is kept as JSON.
    fn read(&self, mut body: Body) -> ApiResult<VariableSet> {
        let key = body.required_text("key");
        if !body.has("value") {
            body.require("value");
        }
        let value = match body.value("value") {
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let description = body.text("description");
        body.ignore(&["team_name"]);
        body.finish()?;
        Ok(VariableSet { key, value, description })
    }

    fn key(item: &VariableSet) -> &str {
        &item.key
    }

    async fn exists(&self, key: &str) -> ApiResult<bool> {
        Ok(self.site.app.store.variable(key).await?.is_some())
    }

    async fn put(&self, mut set: VariableSet, mask: &Mask) -> ApiResult<()> {
        if let Some(old) = self.site.app.store.variable(&set.key).await? {
            // What was shown masked and comes back so was not changed.
            let comes_back =
                set.value == sensitive::shown(&old.key, &old.value) && set.value.contains(sensitive::HIDDEN);
            if comes_back || !mask.has("value") {
                set.value = old.value;
            }
            set.description = set.description.filter(|_| mask.has("description"));
        }
        let mut audit = AuditEntry::new(clock::now(), self.user.name.clone(), "variable.set");
        audit.detail = json!({ "key": set.key });
        self.site.app.store.set_variable(set, audit).await?;
        self.site.app.scheduler.look();
        Ok(())
    }

    async fn remove(&self, key: &str) -> ApiResult<bool> {
        let mut audit = AuditEntry::new(clock::now(), self.user.name.clone(), "variable.delete");
        audit.detail = json!({ "key": key });
        Ok(self.site.app.store.delete_variable(key, audit).await?)
    }
}
