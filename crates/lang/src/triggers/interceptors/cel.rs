//! `cel`: a filter that must come to `true`, and overlays whose values become extensions.
//!
//! All expressions of one interceptor see the extensions as they were before it, as in Tekton.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Request, Stop, Verdict};
use crate::cel;

#[derive(Debug, Clone)]
pub(super) struct Cel {
    filter: Option<(String, cel::Program)>,
    /// Where in the extensions the value goes, and the expression.
    overlays: Vec<(Vec<String>, String, cel::Program)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Params {
    filter: String,
    overlays: Vec<Overlay>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Overlay {
    key: String,
    expression: String,
}

impl Cel {
    pub fn read(params: Params) -> Result<Cel, (String, String)> {
        let environment = cel::Environment::triggers();
        let compile = |text: &str, what: &str| {
            cel::Program::compile(text, &environment).map_err(|fault| ("params".to_owned(), format!("{what}: {fault}")))
        };
        let filter = match params.filter {
            text if text.trim().is_empty() => None,
            text => {
                let program = compile(&text, "`filter`")?;
                Some((text, program))
            }
        };
        let mut overlays = Vec::with_capacity(params.overlays.len());
        for overlay in params.overlays {
            let key = key(&overlay.key).ok_or_else(|| {
                (
                    "params".to_owned(),
                    format!("`{}` is no key of an overlay: write `name` or `name.inner`", overlay.key),
                )
            })?;
            let program = compile(&overlay.expression, &format!("the overlay `{}`", overlay.key))?;
            overlays.push((key, overlay.key, program));
        }
        Ok(Cel { filter, overlays })
    }

    pub fn secrets(&self, wanted: &mut BTreeSet<(String, String)>) {
        let overlays = self.overlays.iter().map(|(_, _, program)| program);
        for program in self.filter.iter().map(|(_, program)| program).chain(overlays) {
            wanted.extend(program.secrets());
        }
    }

    pub fn process(&self, request: &Request<'_>) -> Result<Verdict, Stop> {
        let variables = [
            request.body.cel().map_err(Stop::failed)?,
            cel::Value::from_json(&request.headers.lists()),
            cel::Value::from_json(&Value::Object(request.extensions.clone())),
            cel::Value::text(request.event.url.as_str()),
        ];
        if let Some((text, program)) = &self.filter {
            let value = program.run(&variables, request.secrets);
            match value.map_err(|fault| Stop::failed(format!("the filter `{text}`: {fault}")))? {
                cel::Value::Bool(true) => {}
                _ => return Err(Stop::filtered(format!("the filter `{text}` does not come to true"))),
            }
        }
        let mut extensions = Value::Object(Map::new());
        for (path, key, program) in &self.overlays {
            let wrong = |why: String| Stop::failed(format!("the overlay `{key}`: {why}"));
            let value = program.run_to_json(&variables, request.secrets).map_err(|fault| wrong(fault.to_string()))?;
            if value.is_null() {
                return Err(wrong("it comes to null, which is no value".into()));
            }
            put(&mut extensions, path, value).map_err(wrong)?;
        }
        match extensions {
            Value::Object(map) => Ok(Verdict::Go(map)),
            _ => Ok(Verdict::go()),
        }
    }
}

/// Deeper keys say nothing.
const DEEPEST: usize = 32;

/// `a.b` is `b` in `a`; a dot behind a backslash belongs to the name.
fn key(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '\\' => part.push(chars.next()?),
            '.' => parts.push(String::new()),
            other => part.push(other),
        }
    }
    // What an index or a search of other keys would mean is not guessed.
    let plain = |part: &String| !part.is_empty() && !part.contains(['*', '?', '|', '#', '@', '!']);
    (parts.len() <= DEEPEST && parts.iter().all(plain)).then_some(parts)
}

fn put(into: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *into = value;
        return Ok(());
    };
    match into {
        Value::Object(map) => put(map.entry(first).or_insert_with(|| Value::Object(Map::new())), rest, value),
        Value::Array(items) => {
            let count = items.len();
            let item = first.parse::<usize>().ok().and_then(|at| items.get_mut(at));
            put(item.ok_or_else(|| format!("there is no item `{first}`: the list has {count}"))?, rest, value)
        }
        // A single value makes room.
        other => {
            *other = Value::Object(Map::new());
            put(other, path, value)
        }
    }
}
