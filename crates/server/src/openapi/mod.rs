//! The OpenAPI documents, made from the table of routes.
//!
//! Invariant: a document has every route of its API and no other, because both come from the same table; and the
//! answers that tests get are checked against it, so it says what is true.

mod own;
mod shape;
mod v1;
mod v2;

use std::sync::LazyLock;

use axum::Json;
use axum::http::Method;
use serde_json::{Map, Value, json};

use super::auth::Role::Viewer;
use super::routes::{Access, Doc, RouteInfo, Routes};

/// Documents a route: its group, and what it does in a sentence without a full stop.
pub fn doc(tag: &'static str, summary: &'static str) -> Doc {
    Doc { tag, summary, ..Doc::default() }
}

impl Doc {
    /// Optional parameters of the query, as [`shape`] writes fields.
    pub fn query(mut self, fields: &str) -> Self {
        for text in fields.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (name, _, schema) = shape::field(text);
            self.params.push(json!({ "name": name, "in": "query", "required": false, "schema": schema }));
        }
        self
    }

    /// `limit` and `offset`.
    pub fn paged(self) -> Self {
        self.query("limit: int, offset: int")
    }

    /// The lower and upper bounds of a time or number, in all four ways.
    pub fn ranges(mut self, kind: &str, names: &[&str]) -> Self {
        for name in names {
            for bound in ["gte", "gt", "lte", "lt"] {
                self = self.query(&format!("{name}_{bound}: {kind}"));
            }
        }
        self
    }

    /// The type of the body.
    pub fn body(mut self, kind: &str) -> Self {
        self.body = Some(shape::schema(kind));
        self
    }

    /// Status and type of the answer when all is well.
    pub fn answer(mut self, status: u16, kind: &str) -> Self {
        self.answer = Some((status, shape::schema(kind)));
        self
    }

    /// An answer without a body.
    pub fn nothing(mut self, status: u16) -> Self {
        self.answer = Some((status, Value::Null));
        self
    }

    /// The type of an answer with status 400.
    pub fn refusal(mut self, kind: &str) -> Self {
        self.refusal = Some(shape::schema(kind));
        self
    }

    /// The answer is of this media type, not JSON.
    pub fn media(mut self, media: &'static str) -> Self {
        self.media = media;
        self
    }
}

/// Where the documents are.
pub fn routes() -> Routes {
    let page = || doc("OpenAPI", "The OpenAPI document of this API").answer(200, "object");
    Routes::api()
        .get("/api/v2/openapi.json", Access::Role(Viewer), async || Json(V2.clone()))
        .doc(page())
        .get("/api/v1/openapi.json", Access::Role(Viewer), async || Json(V1.clone()))
        .doc(page())
        .get("/api/pitcrew/v1/openapi.json", Access::Role(Viewer), async || Json(OWN.clone()))
        .doc(page())
}

/// One API: what its document says besides its routes.
struct Api {
    title: &'static str,
    description: &'static str,
    prefixes: &'static [&'static str],
    components: &'static str,
    /// The media type of errors.
    errors: &'static str,
}

static V2: LazyLock<Value> = LazyLock::new(|| document(&v2::API, &super::table(false)));
static V1: LazyLock<Value> = LazyLock::new(|| document(&v1::API, &super::table(false)));
static OWN: LazyLock<Value> = LazyLock::new(|| document(&own::API, &super::table(false)));

/// The documents of Airflow 3's API, of Airflow 2's, and of ours.
#[cfg(test)]
pub fn all() -> [&'static Value; 3] {
    [&V2, &V1, &OWN]
}

fn document(api: &Api, table: &Routes) -> Value {
    let mut paths = Map::new();
    let ours = |info: &&RouteInfo| api.prefixes.iter().any(|prefix| info.path.starts_with(prefix));
    for info in table.infos().filter(ours) {
        let path = info.path.replace("{*", "{");
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        operations[info.method.as_str().to_ascii_lowercase()] = operation(info);
    }
    let schemas = shape::components(api.components);
    let error = json!({
        "description": "What was wrong",
        "content": { api.errors: { "schema": { "$ref": "#/components/schemas/Error" } } },
    });
    json!({
        "openapi": "3.1.0",
        "info": { "title": api.title, "description": api.description, "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Error": error },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "basic": { "type": "http", "scheme": "basic" },
            },
        },
    })
}

fn operation(info: &RouteInfo) -> Value {
    let doc = info.doc.clone().unwrap_or_default();
    let mut params: Vec<Value> = path_params(&info.path);
    params.extend(doc.params);
    let mut responses = Map::new();
    if let Some((status, schema)) = doc.answer {
        let mut answer = json!({ "description": "As asked" });
        if !schema.is_null() {
            let media = if doc.media.is_empty() { "application/json" } else { doc.media };
            answer["content"] = json!({ media: { "schema": schema } });
        }
        responses.insert(status.to_string(), answer);
    }
    if let Some(schema) = doc.refusal {
        let content = json!({ "application/json": { "schema": schema } });
        responses.insert("400".to_owned(), json!({ "description": "What was wrong", "content": content }));
    }
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Error" }));
    let mut operation = json!({
        "operationId": operation_id(&info.method, &info.path),
        "summary": doc.summary,
        "tags": [doc.tag],
        "parameters": params,
        "responses": responses,
    });
    if let Some(body) = doc.body {
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": body } } });
    }
    operation["security"] = match info.access {
        Access::Open | Access::Hook => json!([]),
        Access::Role(_) if info.path.starts_with("/api/v1/") => json!([{ "bearer": [] }, { "basic": [] }]),
        Access::Role(_) | Access::Server | Access::Enrolment | Access::Worker => json!([{ "bearer": [] }]),
    };
    match info.access {
        Access::Open => {}
        Access::Hook => operation["description"] = json!("For forges, by the signatures of what they post."),
        Access::Role(role) => operation["description"] = json!(format!("Needs the role `{role:?}`.")),
        Access::Enrolment => operation["description"] = json!("For machines with a token to enrol as a worker."),
        Access::Worker => operation["description"] = json!("For workers, by their credential."),
        Access::Server => operation["description"] = json!("For other servers of the same database only."),
    }
    operation
}

/// Unique, because method and path are.
fn operation_id(method: &Method, path: &str) -> String {
    let words: Vec<&str> =
        path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
    format!("{}_{}", method.as_str().to_ascii_lowercase(), words.join("_"))
}

/// Parameters of a path that are numbers.
const NUMBERS: [&str; 8] = [
    "backfill_id",
    "event_log_id",
    "import_error_id",
    "map_index",
    "run_key",
    "task_try_number",
    "try_number",
    "version_number",
];

fn path_params(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let param = |name: &str| {
        let name = name.trim_start_matches('*');
        let kind = if NUMBERS.contains(&name) { "integer" } else { "string" };
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
    };
    names.map(param).collect()
}
