//! Making, changing and deleting many things in one request: Airflow's bulk PATCH, for variables, pools and connections.
//!
//! An action that fails for one entity before it begins (one exists already, or is missing) changes none of its
//! entities; the actions after it are carried out all the same, as Airflow does.

use std::collections::BTreeSet;

use async_trait::async_trait;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query};

/// Actions, and entities of an action, at most.
const MOST: usize = 10_000;

/// A kind of thing with a key.
#[async_trait]
pub trait Resource: Sync {
    /// What one is called in messages.
    const NAME: &'static str;
    /// The field that holds the key.
    const KEY: &'static str;
    type Item: Send;

    fn read(&self, body: Body) -> ApiResult<Self::Item>;
    fn key(item: &Self::Item) -> &str;
    async fn exists(&self, key: &str) -> ApiResult<bool>;
    /// Makes it, or changes the fields of the mask.
    async fn put(&self, item: Self::Item, mask: &Mask) -> ApiResult<()>;
    /// Says whether it was there.
    async fn remove(&self, key: &str) -> ApiResult<bool>;
}

/// Which fields a change is about.
#[derive(Debug, Clone, Default)]
pub struct Mask(Option<BTreeSet<String>>);

impl Mask {
    /// `?update_mask=a&update_mask=b` or `?update_mask=a,b`; absent: all that are given.
    pub fn of_query(query: &Query) -> Mask {
        let names = query.all("update_mask");
        Mask::of(names.into_iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()))
    }

    fn of(names: impl Iterator<Item = String>) -> Mask {
        let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).collect();
        Mask((!names.is_empty()).then_some(names))
    }

    pub fn has(&self, field: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(field))
    }
}

/// Makes one that must not exist; returns its key.
pub async fn create<R: Resource>(resource: &R, item: R::Item) -> ApiResult<String> {
    let key = R::key(&item).to_owned();
    if resource.exists(&key).await? {
        return Err(ApiError::conflict(format!("The {} with {}: `{key}` already exists", R::NAME, R::KEY)));
    }
    resource.put(item, &Mask::default()).await?;
    Ok(key)
}

/// Deletes one that must exist.
pub async fn delete<R: Resource>(resource: &R, key: &str) -> ApiResult<()> {
    if resource.remove(key).await? { Ok(()) } else { Err(missing::<R>(key)) }
}

fn missing<R: Resource>(key: &str) -> ApiError {
    ApiError::not_found(format!("The {} with {}: `{key}` was not found", R::NAME, R::KEY))
}

/// One action of a request.
struct Action {
    name: String,
    entities: Vec<Value>,
    if_exists: String,
    if_missing: String,
    mask: Mask,
}

impl Action {
    fn read(at: usize, value: Value) -> ApiResult<Action> {
        let mut body = Body::inside(vec![json!("actions"), json!(at)], value)?;
        let name = body.required_text("action");
        if !name.is_empty() && !["create", "update", "delete"].contains(&name.as_str()) {
            body.problem("action", "union_tag_invalid", "must be `create`, `update` or `delete`");
        }
        body.require("entities");
        let entities = body.array("entities").unwrap_or_default();
        if entities.len() > MOST {
            body.problem("entities", "too_long", format!("must have {MOST} entries at most"));
        }
        let mut choice = |key: &str, words: &[&str]| {
            let word = body.text(key).unwrap_or_else(|| "fail".to_owned());
            if !words.contains(&word.as_str()) {
                body.problem(key, "enum", format!("must be one of {}", words.join(", ")));
            }
            word
        };
        let if_exists = choice("action_on_existence", &["fail", "skip", "overwrite"]);
        let if_missing = choice("action_on_non_existence", &["fail", "skip"]);
        let mask = Mask::of(body.texts("update_mask").unwrap_or_default().into_iter());
        body.finish()?;
        Ok(Action { name, entities, if_exists, if_missing, mask })
    }
}

/// What became of the actions of one name.
#[derive(Default)]
struct Outcome {
    success: Vec<String>,
    errors: Vec<Value>,
}

impl Outcome {
    fn fail(&mut self, error: &ApiError) {
        self.errors.push(json!({ "error": error.message(), "status_code": error.status().as_u16() }));
    }
}

/// Carries out a bulk request and gives its answer.
pub async fn run<R: Resource>(resource: &R, mut body: Body) -> ApiResult<Value> {
    body.require("actions");
    let actions = body.array("actions").unwrap_or_default();
    body.finish()?;
    if actions.len() > MOST {
        return Err(ApiError::invalid(&["body", "actions"], "too_long", format!("must have {MOST} entries at most")));
    }
    let actions: Vec<Action> =
        actions.into_iter().enumerate().map(|(at, value)| Action::read(at, value)).collect::<ApiResult<_>>()?;
    // Everything is read before anything is changed.
    let mut work = Vec::with_capacity(actions.len());
    for (at, action) in actions.into_iter().enumerate() {
        work.push(Work::<R>::read(resource, at, action)?);
    }
    let mut answer = Map::new();
    for name in ["create", "update", "delete"] {
        answer.insert(name.to_owned(), Value::Null);
    }
    let mut outcomes: [(&str, Option<Outcome>); 3] = [("create", None), ("update", None), ("delete", None)];
    for work in work {
        let Some((_, outcome)) = outcomes.iter_mut().find(|(name, _)| *name == work.action.name) else { continue };
        work.run(resource, outcome.get_or_insert_default()).await?;
    }
    for (name, outcome) in outcomes {
        if let Some(Outcome { success, errors }) = outcome {
            answer.insert(name.to_owned(), json!({ "success": success, "errors": errors }));
        }
    }
    Ok(Value::Object(answer))
}

/// An action whose entities are read.
struct Work<R: Resource> {
    action: Action,
    items: Vec<R::Item>,
    /// Of a delete.
    keys: Vec<String>,
}

impl<R: Resource> Work<R> {
    fn read(resource: &R, at: usize, mut action: Action) -> ApiResult<Work<R>> {
        let (mut items, mut keys) = (Vec::new(), Vec::new());
        for (nth, entity) in std::mem::take(&mut action.entities).into_iter().enumerate() {
            let place = vec![json!("actions"), json!(at), json!("entities"), json!(nth)];
            match (action.name.as_str(), entity) {
                ("delete", Value::String(key)) => keys.push(key),
                ("delete", mut entity) => match entity.get_mut(R::KEY).map(Value::take) {
                    Some(Value::String(key)) => keys.push(key),
                    _ => {
                        Body::inside(place.clone(), entity)?;
                        let mut problem = Body::inside(place, json!({}))?;
                        problem.problem(R::KEY, "missing", "is missing");
                        problem.finish()?;
                    }
                },
                (_, entity) => items.push(resource.read(Body::inside(place, entity)?)?),
            }
        }
        Ok(Work { action, items, keys })
    }

    async fn run(self, resource: &R, outcome: &mut Outcome) -> ApiResult<()> {
        let Work { action, items, keys } = self;
        let keys = if action.name == "delete" {
            keys
        } else {
            items.iter().map(|item| R::key(item).to_owned()).collect::<Vec<_>>()
        };
        let mut there = BTreeSet::new();
        for key in &keys {
            if resource.exists(key).await? {
                there.insert(key.clone());
            }
        }
        let (wrong, policy): (Vec<&String>, _) = match action.name.as_str() {
            "create" => (keys.iter().filter(|key| there.contains(*key)).collect(), &action.if_exists),
            _ => (keys.iter().filter(|key| !there.contains(*key)).collect(), &action.if_missing),
        };
        if policy == "fail" && !wrong.is_empty() {
            let names = wrong.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let (status, what) = match action.name.as_str() {
                "create" => (StatusCode::CONFLICT, "already exist"),
                _ => (StatusCode::NOT_FOUND, "were not found"),
            };
            outcome.fail(&ApiError::Status(status, format!("{} entries {names} {what}; nothing was done", R::NAME)));
            return Ok(());
        }
        let skipped = if policy == "skip" { wrong.into_iter().cloned().collect() } else { BTreeSet::new() };
        if action.name == "delete" {
            for key in keys.into_iter().filter(|key| !skipped.contains(key)) {
                match delete(resource, &key).await {
                    Ok(()) => outcome.success.push(key),
                    Err(error) => outcome.fail(&error),
                }
            }
            return Ok(());
        }
        for item in items {
            let key = R::key(&item).to_owned();
            if skipped.contains(&key) {
                continue;
            }
            match resource.put(item, &action.mask).await {
                Ok(()) => outcome.success.push(key),
                Err(error) => outcome.fail(&error),
            }
        }
        Ok(())
    }
}
