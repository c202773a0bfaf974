//! What the containers of a pod told of files, as values.

use pitcrew_core::pod::{ResultDecl, ResultKind, StepFacts, StepKnown};
use pitcrew_exec::spec::MAX_OUTPUT;
use serde_json::{Map, Value, json};

use super::marks::Sent;
use super::mirror::Mirror;

/// Values, and a sentence for each that could not be taken.
#[derive(Debug, Default, PartialEq)]
pub struct Results {
    pub values: Vec<(String, Value)>,
    pub problems: Vec<String>,
}

impl Results {
    fn refuse(&mut self, result: &ResultDecl, why: &str) {
        self.problems.push(format!("the result `{}` was not taken: its file {why}", result.name));
    }

    fn take(&mut self, result: &ResultDecl, text: &str) {
        let name = &result.name;
        if text.len() > MAX_OUTPUT {
            return self
                .problems
                .push(format!("the result `{name}` was not taken: it has more than {MAX_OUTPUT} bytes"));
        }
        let read = || serde_json::from_str::<Value>(text).ok();
        let value = match result.kind {
            ResultKind::Text => Some(Value::from(text)),
            ResultKind::List => match read() {
                Some(Value::Array(items)) => Some(items.into_iter().map(as_text).collect()),
                _ => None,
            },
            ResultKind::Map => match read() {
                Some(Value::Object(map)) => {
                    Some(map.into_iter().map(|(key, value)| (key, as_text(value))).collect::<Map<_, _>>().into())
                }
                _ => None,
            },
        };
        let wanted = if result.kind == ResultKind::List { "a list" } else { "an object" };
        match value {
            Some(value) => self.values.push((name.clone(), value)),
            None => self.problems.push(format!("the result `{name}` must be {wanted} of texts, as JSON")),
        }
    }
}

/// Of one step, and its artifacts.
pub fn of_step(sent: &Sent, mirror: &Mirror, index: usize) -> (Results, Value) {
    let mut results = Results::default();
    for result in sent.steps[index].results.iter().filter(|result| result.value.is_none()) {
        let what = format!("step {}", result.name);
        match (mirror.told(index, &what), mirror.refused(index, &what)) {
            (Some(text), _) => results.take(result, text),
            (None, Some(why)) => results.refuse(result, why),
            (None, None) => {}
        }
    }
    (results, artifacts(mirror.told(index, "own artifacts")))
}

/// Of the task. Each step told those that were there when it ended: the last word counts.
pub fn of_task(sent: &Sent, mirror: &Mirror, known: &StepFacts) -> (Results, Value) {
    let mut results = Results::default();
    let last = |what: &str| (0..sent.steps.len()).rev().find_map(|index| mirror.told(index, what));
    for result in &sent.results {
        match &result.value {
            None => {
                let what = format!("task {}", result.name);
                let refused = (0..sent.steps.len()).rev().find_map(|index| mirror.refused(index, &what));
                match (last(&what), refused) {
                    (Some(text), _) => results.take(result, text),
                    (None, Some(why)) => results.refuse(result, why),
                    (None, None) => {}
                }
            }
            // One whose step did not write it is missing, as if it was a file.
            Some(template) => {
                if let Some(text) = known.fill(template).ok().filter(|text| !text.contains("$(steps.")) {
                    results.take(result, &text);
                }
            }
        }
    }
    (results, artifacts(last("all artifacts")))
}

/// What one step left, for the results that are made of it.
pub fn known(results: &Results, artifacts: &Value) -> StepKnown {
    StepKnown { results: results.values.iter().cloned().collect(), artifacts: artifacts.clone() }
}

fn artifacts(text: Option<&str>) -> Value {
    let Some(written) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return Value::Null };
    let side = |name: &str| -> Map<String, Value> {
        let all = written.get(name).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|one| Some((one.get("name")?.as_str()?.to_owned(), one.get("values")?.clone()))).collect()
    };
    json!({ "inputs": side("inputs"), "outputs": side("outputs") })
}

/// Texts as they are; all else as JSON.
fn as_text(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text),
        other => Value::String(other.to_string()),
    }
}
