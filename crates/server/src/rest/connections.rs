//! Connections. Passwords are never shown, nor are the secret parts of `extra`; both are sealed in the database.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::{clock, sensitive};
use pitcrew_store::{AuditEntry, Connection, Paging};
use serde_json::{Value, json};

use super::bulk::{self, Mask, Resource};
use super::shapes::text_or_null;
use crate::Site;
use crate::auth::Role::{Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

/// Fields of a connection that are texts.
const TEXTS: [&str; 7] = ["conn_type", "description", "host", "schema", "login", "password", "extra"];
/// Characters of an id.
const MAX_ID: usize = 200;

pub fn routes() -> Routes {
    let filters = "order_by: text, connection_id_pattern: text, connection_id_prefix_pattern: text";
    Routes::api()
        .get("/api/v2/connections", Role(Viewer), list)
        .doc(doc("Connection", "Lists connections").paged().query(filters).answer(200, "ConnectionCollectionResponse"))
        .post("/api/v2/connections", Role(Op), create)
        .doc(doc("Connection", "Makes a connection").body("ConnectionBody").answer(201, "ConnectionResponse"))
        .patch("/api/v2/connections", Role(Op), bulk)
        .doc(doc("Connection", "Makes, changes and deletes connections").body("BulkBody").answer(200, "BulkResponse"))
        .get("/api/v2/connections/{connection_id}", Role(Viewer), get)
        .doc(doc("Connection", "Shows a connection").answer(200, "ConnectionResponse"))
        .patch("/api/v2/connections/{connection_id}", Role(Op), patch)
        .doc(
            doc("Connection", "Changes a connection")
                .query("update_mask: [text]")
                .body("ConnectionBody")
                .answer(200, "ConnectionResponse"),
        )
        .delete("/api/v2/connections/{connection_id}", Role(Op), delete)
        .doc(doc("Connection", "Deletes a connection").nothing(204))
}

pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let paging = query.paging()?;
    let (key, backwards) = match query.text("order_by") {
        None => ("connection_id", false),
        Some(text) => text.strip_prefix('-').map_or((text, false), |key| (key, true)),
    };
    let by: fn(&Connection) -> &str = match key {
        "id" | "conn_id" | "connection_id" => |connection| &connection.id,
        "conn_type" => |connection| &connection.conn_type,
        "description" => |connection| &connection.description,
        "host" => |connection| &connection.host,
        other => return Err(ApiError::bad_request(format!("connections cannot be ordered by `{other}`"))),
    };
    let filtered = query.pattern("connection_id").is_some() && query.part("connection_id").is_none();
    let in_order = !backwards && matches!(key, "id" | "conn_id" | "connection_id");
    let contains = query.part("connection_id");
    let (rows, total) = if filtered || !in_order {
        // A store keeps thousands of connections at most, so these few questions may look at all of them.
        let mut all = site.app.store.connections(contains.as_deref(), Paging::ALL).await?.rows;
        all.retain(|connection| query.allows("connection_id", &connection.id));
        all.sort_by(|a, b| by(a).cmp(by(b)));
        if backwards {
            all.reverse();
        }
        let total = all.len() as u64;
        (all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect(), total)
    } else {
        let page = site.app.store.connections(contains.as_deref(), paging).await?;
        (page.rows, page.total)
    };
    let mut shown = Vec::with_capacity(rows.len());
    for connection in &rows {
        shown.push(shape(&site, connection)?);
    }
    Ok(Json(json!({ "connections": shown, "total_entries": total })))
}

/// As Airflow shows it: of a password that there is one, of `extra` what is no secret.
fn shape(site: &Site, connection: &Connection) -> ApiResult<Value> {
    let extra = match &connection.extra {
        Some(sealed) => Some(sensitive::shown("extra", &site.app.vault.open(sealed)?)),
        None => None,
    };
    Ok(json!({
        "connection_id": connection.id,
        "conn_type": connection.conn_type,
        "description": text_or_null(&connection.description),
        "host": text_or_null(&connection.host),
        "login": text_or_null(&connection.login),
        "schema": text_or_null(&connection.schema),
        "port": connection.port,
        "password": connection.password.as_ref().map(|_| sensitive::HIDDEN),
        "extra": extra,
        "team_name": null,
    }))
}

async fn one(site: &Site, id: &str) -> ApiResult<Json<Value>> {
    let connection = site.app.store.connection(id).await?;
    let connection = connection
        .ok_or_else(|| ApiError::not_found(format!("The Connection with connection_id: `{id}` was not found")))?;
    Ok(Json(shape(site, &connection)?))
}

pub async fn get(State(site): State<Site>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    one(&site, &id).await
}

pub async fn create(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    body: Body,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let connections = Connections { site: &site, user: &user };
    let id = bulk::create(&connections, connections.read(body)?).await?;
    Ok((StatusCode::CREATED, one(&site, &id).await?))
}

pub async fn patch(
    State(site): State<Site>,
    Path(id): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
    body: Body,
) -> ApiResult<Json<Value>> {
    let connections = Connections { site: &site, user: &user };
    let given = connections.read_with(body, Some(&id))?;
    if given.id != id {
        return Err(ApiError::bad_request("The connection_id in the request body does not match the URL parameter"));
    }
    if !connections.exists(&id).await? {
        return Err(ApiError::not_found(format!("The Connection with connection_id: `{id}` was not found")));
    }
    connections.put(given, &Mask::of_query(&query)).await?;
    one(&site, &id).await
}

pub async fn delete(
    State(site): State<Site>,
    Path(id): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<StatusCode> {
    bulk::delete(&Connections { site: &site, user: &user }, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn bulk(State(site): State<Site>, Extension(user): Extension<User>, body: Body) -> ApiResult<Json<Value>> {
    bulk::run(&Connections { site: &site, user: &user }, body).await.map(Json)
}

/// What a body says of a connection; a field that is not given is not there.
pub struct Given {
    id: String,
    texts: BTreeMap<&'static str, String>,
    /// `Some(None)`: taken away.
    port: Option<Option<u16>>,
}

/// Connections, as bulk requests change them.
struct Connections<'a> {
    site: &'a Site,
    user: &'a User,
}

impl Connections<'_> {
    /// In the path, an id need not be repeated in the body.
    fn read_with(&self, mut body: Body, in_path: Option<&str>) -> ApiResult<Given> {
        let id = match in_path {
            Some(id) => body.text("connection_id").unwrap_or_else(|| id.to_owned()),
            None => body.required_text("connection_id"),
        };
        let is_plain = |c: char| c.is_alphanumeric() || "_-.+ @#/\\:".contains(c);
        if id.chars().count() > MAX_ID || !id.chars().all(is_plain) {
            let message = format!("must have {MAX_ID} letters, digits or `_-.+@#/:` at most");
            body.problem("connection_id", "string_pattern_mismatch", message);
        }
        let mut texts = BTreeMap::new();
        for key in TEXTS {
            if body.has(key) {
                texts.insert(key, body.text(key).unwrap_or_default());
            }
        }
        let lacks_type = texts.get("conn_type").is_none_or(String::is_empty) && in_path.is_none();
        if lacks_type {
            body.problem("conn_type", "missing", "is missing");
        }
        let has_port = body.has("port");
        let port = body.integer("port", 0, i64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
        let extra = texts.get("extra").filter(|text| !text.is_empty());
        if extra.is_some_and(|text| !serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())) {
            body.problem("extra", "value_error", "must be a JSON object, as a text");
        }
        body.ignore(&["team_name"]);
        body.finish()?;
        Ok(Given { id, texts, port: has_port.then_some(port) })
    }

    fn seal(&self, text: String) -> ApiResult<Option<String>> {
        if text.is_empty() { Ok(None) } else { Ok(Some(self.site.app.vault.seal(&text)?)) }
    }
}

#[async_trait]
impl Resource for Connections<'_> {
    const NAME: &'static str = "Connection";
    const KEY: &'static str = "connection_id";
    type Item = Given;

    fn read(&self, body: Body) -> ApiResult<Given> {
        self.read_with(body, None)
    }

    fn key(item: &Given) -> &str {
        &item.id
    }

    async fn exists(&self, key: &str) -> ApiResult<bool> {
        Ok(self.site.app.store.connection(key).await?.is_some())
    }

    /// A secret that comes back masked was not changed.
    async fn put(&self, given: Given, mask: &Mask) -> ApiResult<()> {
        let old = self.site.app.store.connection(&given.id).await?;
        let was_there = old.is_some();
        let mut connection = old.unwrap_or_else(|| Connection {
            id: given.id.clone(),
            conn_type: String::new(),
            description: String::new(),
            host: String::new(),
            schema: String::new(),
            login: String::new(),
            port: None,
            password: None,
            extra: None,
        });
        for (key, text) in given.texts.into_iter().filter(|(key, _)| !was_there || mask.has(key)) {
            match key {
                "conn_type" => connection.conn_type = text,
                "description" => connection.description = text,
                "host" => connection.host = text,
                "schema" => connection.schema = text,
                "login" => connection.login = text,
                "password" if was_there && text == sensitive::HIDDEN => {}
                "password" => connection.password = self.seal(text)?,
                _ => {
                    let shown = match &connection.extra {
                        Some(sealed) => sensitive::shown("extra", &self.site.app.vault.open(sealed)?),
                        None => String::new(),
                    };
                    if !(was_there && text == shown) {
                        connection.extra = self.seal(text)?;
                    }
                }
            }
        }
        if let Some(port) = given.port.filter(|_| !was_there || mask.has("port")) {
            connection.port = port;
        }
        let mut audit = AuditEntry::new(clock::now(), self.user.name.clone(), "connection.set");
        audit.detail = json!({ "connection": connection.id, "conn_type": connection.conn_type });
        Ok(self.site.app.store.put_connection(connection, audit).await?)
    }

    async fn remove(&self, key: &str) -> ApiResult<bool> {
        let mut audit = AuditEntry::new(clock::now(), self.user.name.clone(), "connection.delete");
        audit.detail = json!({ "connection": key });
        Ok(self.site.app.store.delete_connection(key, audit).await?)
    }
}
