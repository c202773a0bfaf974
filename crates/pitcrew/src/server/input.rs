//! Reading requests: ids in paths, queries and JSON bodies, each checked and told apart in the answer.
//!
//! An empty `?limit=` means the default, as Airflow's own command line sends it; an unknown key in a body is an
//! error, as in Airflow; an unknown key in a query is ignored, as in Airflow.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query as AxumQuery, Request};
use axum::http::request::Parts;
use jiff::Timestamp;
use pitcrew_core::{RunId, TaskId, WorkflowId};
use pitcrew_store::Paging;
use serde_json::{Map, Value, json};

use super::error::{ApiError, ApiResult, Problem};

/// Rows of a list when the client does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Rows of a list at most.
const MAX_LIMIT: u32 = 1000;

/// A workflow's id out of a path; an impossible one cannot exist.
pub fn workflow_id(text: &str) -> ApiResult<WorkflowId> {
    WorkflowId::new(text).map_err(|_| ApiError::not_found(format!("The Dag with ID: `{text}` was not found")))
}

pub fn run_id(text: &str) -> ApiResult<RunId> {
    RunId::new(text).map_err(|_| ApiError::not_found(format!("The DagRun with run_id: `{text}` was not found")))
}

pub fn task_id(text: &str) -> ApiResult<TaskId> {
    TaskId::new(text).map_err(|_| ApiError::not_found(format!("The Task with ID: `{text}` was not found")))
}

/// A number out of a path.
pub fn number<T: std::str::FromStr>(name: &str, text: &str) -> ApiResult<T> {
    text.parse()
        .map_err(|_| ApiError::invalid(&["path", name], "int_parsing", format!("`{text}` is not a whole number")))
}

/// The query of a request, in order, with repeated keys.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        AxumQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|AxumQuery(pairs)| Query(pairs))
            .map_err(|error| ApiError::invalid(&["query"], "value_error", error.to_string()))
    }
}

impl Query {
    /// The value of a key, if it has one that is not empty; the last counts.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Every value of a key that is not empty.
    pub fn all(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str()).collect()
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> ApiResult<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let wrong = |_| ApiError::invalid(&["query", key], "int_parsing", format!("`{text}` is not such a number"));
        text.parse().map(Some).map_err(wrong)
    }

    pub fn boolean(&self, key: &str) -> ApiResult<Option<bool>> {
        match self.text(key).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off") => Ok(Some(false)),
            Some(_) => Err(ApiError::invalid(&["query", key], "bool_parsing", "must be `true` or `false`")),
        }
    }

    pub fn time(&self, key: &str) -> ApiResult<Option<Timestamp>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        // A `+` that nobody escaped arrives as a space.
        let text = text.replace(' ', "+");
        let wrong =
            || ApiError::invalid(&["query", key], "datetime_parsing", "must be a time such as 2026-01-02T03:04:05Z");
        parse_time(&text).map(Some).ok_or_else(wrong)
    }

    /// `limit` and `offset`.
    pub fn paging(&self) -> ApiResult<Paging> {
        let limit = self.number::<u32>("limit")?.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        let offset = self.number::<u64>("offset")?.unwrap_or(0).min(i64::MAX as u64);
        Ok(Paging { limit, offset })
    }
}

/// RFC 3339; without an offset it is UTC, as Airflow reads it.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })
}

/// A JSON object as the body of a request. Fields are taken out one by one; [`Body::finish`] refuses what is left,
/// and every problem is told at once.
#[derive(Debug, Default)]
pub struct Body {
    fields: Map<String, Value>,
    problems: Vec<Problem>,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| ApiError::Status(rejection.status(), rejection.body_text()))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Body::default());
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Body { fields, problems: Vec::new() }),
            Ok(_) => Err(ApiError::invalid(&["body"], "model_attributes_type", "must be a JSON object")),
            Err(error) => Err(ApiError::invalid(&["body"], "json_invalid", format!("is not JSON: {error}"))),
        }
    }
}

impl Body {
    fn problem(&mut self, key: &str, kind: &'static str, message: impl Into<String>) {
        self.problems.push(Problem { place: vec![json!("body"), json!(key)], message: message.into(), kind });
    }

    /// The raw value; `null` counts as absent.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        self.fields.shift_remove(key).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            _ => {
                self.problem(key, "string_type", "must be a text");
                None
            }
        }
    }

    /// A text that must be there; empty with a problem noted if it is not.
    pub fn required_text(&mut self, key: &str) -> String {
        if self.fields.get(key).is_none_or(Value::is_null) {
            self.fields.shift_remove(key);
            self.problem(key, "missing", "is missing");
        }
        self.text(key).unwrap_or_default()
    }

    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.problem(key, "bool_type", "must be `true` or `false`");
                None
            }
        }
    }

    pub fn object(&mut self, key: &str) -> Option<Map<String, Value>> {
        match self.value(key)? {
            Value::Object(map) => Some(map),
            _ => {
                self.problem(key, "dict_type", "must be an object");
                None
            }
        }
    }

    pub fn array(&mut self, key: &str) -> Option<Vec<Value>> {
        match self.value(key)? {
            Value::Array(list) => Some(list),
            _ => {
                self.problem(key, "list_type", "must be a list");
                None
            }
        }
    }

    pub fn time(&mut self, key: &str) -> Option<Timestamp> {
        let text = self.text(key)?;
        let time = parse_time(&text);
        if time.is_none() {
            self.problem(key, "datetime_parsing", "must be a time such as 2026-01-02T03:04:05Z");
        }
        time
    }

    /// A text that is parsed further; the error of `parse` is told at the field.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, "value_error", error.to_string());
                None
            }
        }
    }

    /// Accepts a field that Pitcrew has no use for.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.fields.shift_remove(*key);
        }
    }

    /// All problems with the body, those of fields that nobody took included.
    pub fn finish(mut self) -> ApiResult<()> {
        let left: Vec<String> = self.fields.keys().cloned().collect();
        for key in left {
            self.problem(&key, "extra_forbidden", "is not a field of this request");
        }
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.problems)) }
    }
}
