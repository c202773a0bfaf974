//! Reading requests: ids in paths, queries and JSON bodies, each checked and told apart in the answer.
//!
//! An empty `?limit=` means the default, as Airflow's own command line sends it; an unknown key in a body is an
//! error, as in Airflow; an unknown key in a query is ignored, as in Airflow.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query as AxumQuery, Request};
use axum::http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::{RunId, TaskId, WorkflowId};
use pitcrew_store::{Between, Paging};
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
    /// The same question, asked by the fields of a body; `names` tells which field means which key of a query.
    pub fn of_body(mut body: Body, names: &[(&str, &str)]) -> ApiResult<Query> {
        let mut pairs = Vec::new();
        for (field, key) in names {
            let values = match body.value(field) {
                None => continue,
                Some(Value::Array(list)) => list,
                Some(value) => vec![value],
            };
            for value in values {
                match value {
                    Value::String(text) => pairs.push(((*key).to_owned(), text)),
                    Value::Number(number) => pairs.push(((*key).to_owned(), number.to_string())),
                    Value::Bool(flag) => pairs.push(((*key).to_owned(), flag.to_string())),
                    // A list of states may have `null` for instances without one.
                    Value::Null => pairs.push(((*key).to_owned(), "no_status".to_owned())),
                    Value::Array(_) | Value::Object(_) => {
                        body.problem(field, "value_error", "must be a text, a number, or a list of those");
                    }
                }
            }
        }
        body.finish()?;
        Ok(Query(pairs))
    }

    /// A query of our own making.
    pub fn of(pairs: &[(&str, &str)]) -> Query {
        Query(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    /// The same, with a value for a key that has none.
    pub fn or(mut self, key: &str, value: &str) -> Query {
        if self.text(key).is_none() {
            self.0.push((key.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same, with another beginning of keys, and of what `order_by` names.
    pub fn renamed(mut self, old: &str, new: &str) -> Query {
        for (key, value) in &mut self.0 {
            if let Some(rest) = key.strip_prefix(old) {
                *key = format!("{new}{rest}");
            } else if key == "order_by" && value.trim_start_matches('-') == old {
                *value = value.replace(old, new);
            }
        }
        self
    }

    /// The filters `{key}_pattern`, which is part of a text, and `{key}_prefix_pattern`, which begins it.
    pub fn pattern(&self, key: &str) -> Option<Pattern> {
        let words = |name: String| {
            let text = self.text(&name)?.to_lowercase();
            Some(text.split('|').map(|part| part.trim().trim_matches(['%', '~']).to_owned()).collect::<Vec<_>>())
        };
        let (contains, begins) = (words(format!("{key}_pattern")), words(format!("{key}_prefix_pattern")));
        (contains.is_some() || begins.is_some()).then_some(Pattern { contains, begins })
    }

    /// The one part that `{key}_pattern` asks for, if that is all that is asked.
    pub fn part(&self, key: &str) -> Option<String> {
        match self.pattern(key)? {
            Pattern { contains: Some(mut parts), begins: None } if parts.len() == 1 => parts.pop(),
            _ => None,
        }
    }

    /// The bounds of a time as the store takes them: both are included, and times count in microseconds.
    pub fn between(&self, key: &str) -> ApiResult<Between> {
        const STEP: SignedDuration = SignedDuration::from_micros(1);
        let Range { gte, gt, lte, lt } = self.range(key, Query::time)?;
        let after = gt.and_then(|at| at.checked_add(STEP).ok());
        let before = lt.and_then(|at| at.checked_sub(STEP).ok());
        Ok(Between { from: gte.into_iter().chain(after).max(), to: lte.into_iter().chain(before).min() })
    }

    /// Whether a text passes [`Query::pattern`].
    pub fn allows(&self, key: &str, text: &str) -> bool {
        self.pattern(key).is_none_or(|pattern| pattern.allows(text))
    }

    /// The bounds `{key}_gte`, `{key}_gt`, `{key}_lte` and `{key}_lt`, each read by `read`.
    pub fn range<T: PartialOrd + Copy>(
        &self,
        key: &str,
        read: impl Fn(&Query, &str) -> ApiResult<Option<T>>,
    ) -> ApiResult<Range<T>> {
        let bound = |suffix: &str| read(self, &format!("{key}_{suffix}"));
        Ok(Range { gte: bound("gte")?, gt: bound("gt")?, lte: bound("lte")?, lt: bound("lt")? })
    }

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

/// Part or beginning of a text; upper and lower case are the same. `%`, which stands for anything in Airflow, may
/// surround a part, and `|` separates several.
#[derive(Debug, Clone)]
pub struct Pattern {
    contains: Option<Vec<String>>,
    begins: Option<Vec<String>>,
}

impl Pattern {
    pub fn allows(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let contains = self.contains.as_ref().is_none_or(|parts| parts.iter().any(|part| text.contains(part)));
        contains && self.begins.as_ref().is_none_or(|parts| parts.iter().any(|part| text.starts_with(part)))
    }
}

/// Bounds of a time or a number.
#[derive(Debug, Clone, Copy)]
pub struct Range<T> {
    gte: Option<T>,
    gt: Option<T>,
    lte: Option<T>,
    lt: Option<T>,
}

impl<T: PartialOrd + Copy> Range<T> {
    /// Everything is inside.
    pub fn is_open(&self) -> bool {
        [&self.gte, &self.gt, &self.lte, &self.lt].into_iter().all(Option::is_none)
    }

    pub fn allows(&self, value: T) -> bool {
        self.gte.is_none_or(|bound| value >= bound)
            && self.gt.is_none_or(|bound| value > bound)
            && self.lte.is_none_or(|bound| value <= bound)
            && self.lt.is_none_or(|bound| value < bound)
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
    /// Where the fields are, below `body`; empty for the body itself.
    place: Vec<Value>,
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
            Ok(Value::Object(fields)) => Ok(Body { fields, ..Body::default() }),
            Ok(_) => Err(ApiError::invalid(&["body"], "model_attributes_type", "must be a JSON object")),
            Err(error) => Err(ApiError::invalid(&["body"], "json_invalid", format!("is not JSON: {error}"))),
        }
    }
}

impl Body {
    /// An object inside a body, at `place` below it; its problems are told at that place.
    pub fn inside(place: Vec<Value>, value: Value) -> ApiResult<Body> {
        match value {
            Value::Object(fields) => Ok(Body { place, fields, problems: Vec::new() }),
            _ => {
                let place = [json!("body")].into_iter().chain(place).collect();
                let message = "must be an object".to_owned();
                Err(ApiError::Invalid(vec![Problem { place, message, kind: "model_attributes_type" }]))
            }
        }
    }

    /// Notes a problem with a field.
    pub fn problem(&mut self, key: &str, kind: &'static str, message: impl Into<String>) {
        let place = [json!("body")].into_iter().chain(self.place.iter().cloned()).chain([json!(key)]).collect();
        self.problems.push(Problem { place, message: message.into(), kind });
    }

    /// Whether a field is there, if only as `null`.
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
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
        self.require(key);
        self.text(key).unwrap_or_default()
    }

    /// Notes a problem if a field is absent or `null`.
    pub fn require(&mut self, key: &str) {
        if self.fields.get(key).is_none_or(Value::is_null) {
            self.fields.shift_remove(key);
            self.problem(key, "missing", "is missing");
        }
    }

    /// A whole number between two bounds, both included.
    pub fn integer(&mut self, key: &str, least: i64, most: i64) -> Option<i64> {
        let number = match self.value(key)? {
            Value::Number(number) => number.as_i64().filter(|number| (least..=most).contains(number)),
            _ => None,
        };
        if number.is_none() {
            self.problem(key, "int_type", format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    /// A list of texts; `null` among them is left out.
    pub fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let list = self.array(key)?;
        let texts = list.into_iter().filter(|entry| !entry.is_null());
        let texts: Option<Vec<String>> = texts.map(|entry| entry.as_str().map(str::to_owned)).collect();
        if texts.is_none() {
            self.problem(key, "list_type", "must be a list of texts");
        }
        texts
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

    /// Takes a field under another name, unless there is one of that name.
    pub fn rename(&mut self, old: &str, new: &str) {
        if let Some(value) = self.fields.shift_remove(old).filter(|_| !self.has(new)) {
            self.fields.insert(new.to_owned(), value);
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
