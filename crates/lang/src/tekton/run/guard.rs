//! Whether a task of a pipeline runs, once all that it waits for is over.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use pitcrew_core::engine::Answer;
use pitcrew_core::engine::record::SkipReason;
use pitcrew_core::pod::Guard;

use super::container;
use super::facts::{Facts, Skip, TaskState};
use crate::tekton::substitute::parse_result;

/// What is asked before a task begins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GuardTemplate {
    /// Conditions, in which only what other tasks gave is still open.
    pub when: Vec<Value>,
    /// The tasks that it waits for.
    pub parents: Vec<String>,
    /// The results that it uses: a task, and what follows `results` in the variable.
    pub results: Vec<(String, String)>,
    /// A `finally` task is skipped where others would fail the run.
    pub is_final: bool,
    /// It is skipped if a result is missing, since its failure would not count either.
    pub may_lack: bool,
}

impl GuardTemplate {
    pub fn is_empty(&self) -> bool {
        self.when.is_empty() && self.parents.is_empty() && self.results.is_empty()
    }

    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Answers a guard. An error is a condition that cannot be evaluated.
pub fn answer(template: &Value, facts: &Facts) -> Result<Answer, String> {
    let template: GuardTemplate =
        serde_json::from_value(template.clone()).map_err(|why| format!("this is no guard: {why}"))?;
    let missing = template.missing(facts);
    // Of a `finally` task this is asked first.
    if template.is_final && missing.is_some() {
        return Ok(Answer::Skip(SkipReason::MissingResults));
    }
    if missing.is_none() && !template.holds(facts)? {
        return Ok(Answer::Skip(SkipReason::When));
    }
    let skipped =
        |name: &String| facts.tasks.get(name).is_some_and(|parent| parent.state == TaskState::Skipped(Skip::Other));
    if template.parents.iter().any(skipped) {
        return Ok(Answer::Skip(SkipReason::Parent));
    }
    match missing {
        None => Ok(Answer::Go),
        Some(Missing::Skipped) => Ok(Answer::Skip(SkipReason::MissingResults)),
        Some(Missing::Unwritten(_)) if template.may_lack => Ok(Answer::Skip(SkipReason::MissingResults)),
        Some(Missing::Unwritten(why)) => Ok(Answer::Invalid(why)),
    }
}

/// A result that is used and is not there.
enum Missing {
    /// Its task did not run, or failed.
    Skipped,
    /// Its task succeeded without it.
    Unwritten(String),
}

impl GuardTemplate {
    fn missing(&self, facts: &Facts) -> Option<Missing> {
        let mut found = None;
        for (name, rest) in &self.results {
            let Some(task) = facts.tasks.get(name) else { return Some(Missing::Skipped) };
            if !task.has_results() {
                return Some(Missing::Skipped);
            }
            let results = task.merged();
            let (result, part) = parse_result(rest, |result| results.contains_key(result));
            let is_there = match (results.get(&result), part.as_str()) {
                (None, _) => false,
                // An element or a key of it.
                (Some(Value::Array(items)), part) if part != "[*]" && part.starts_with('[') => {
                    let index = part.trim_matches(['[', ']']).parse::<usize>();
                    index.is_ok_and(|index| index < items.len())
                }
                (Some(Value::Object(map)), part) if part.starts_with('.') => map.contains_key(&part[1..]),
                (Some(_), _) => true,
            };
            if !is_there {
                let why = format!(
                    "the task `{name}` succeeded without writing the result `{result}`{}",
                    match part.as_str() {
                        "" | "[*]" => String::new(),
                        part => format!(" with `{part}`"),
                    }
                );
                found.get_or_insert(Missing::Unwritten(why));
            }
        }
        found
    }

    fn holds(&self, facts: &Facts) -> Result<bool, String> {
        let known = facts.replacements();
        for condition in &self.when {
            let holds = match container::guard(&known.fill_value(condition)) {
                Guard::In { input, values, negate } => values.contains(&input) != negate,
                Guard::Cel(text) => crate::cel::when(&text)
                    .map_err(|why| format!("the condition `{text}` cannot be evaluated: {why}"))?,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tekton::run::TaskFacts;

    fn facts() -> Facts {
        let task = |state, results: Value| TaskFacts {
            state,
            results: vec![serde_json::from_value(results).unwrap()],
            ..TaskFacts::default()
        };
        let mut facts = Facts::default();
        facts.tasks.insert("done".into(), task(TaskState::Succeeded, json!({"r": "yes", "l": ["a", "b"]})));
        facts.tasks.insert("failed".into(), task(TaskState::Failed, json!({"r": "x"})));
        facts.tasks.insert("when".into(), task(TaskState::Skipped(Skip::When), json!({})));
        facts.tasks.insert("other".into(), task(TaskState::Skipped(Skip::Other), json!({})));
        facts
    }

    #[test]
    fn a_task_is_skipped_for_the_reason_that_comes_first() {
        let when =
            |input: &str| json!([{"input": input, "operator": "in", "values": ["yes", "$(tasks.done.results.l[*])"]}]);
        for (guard_of, expected) in [
            (json!({"when": when("yes")}), Answer::Go),
            (json!({"when": when("b")}), Answer::Go),
            (json!({"when": when("c")}), Answer::Skip(SkipReason::When)),
            (json!({"when": when("$(tasks.done.results.r)"), "results": [["done", "r"]]}), Answer::Go),
            (json!({"when": when("no"), "parents": ["other"]}), Answer::Skip(SkipReason::When)),
            (json!({"parents": ["done", "when"]}), Answer::Go),
            (json!({"parents": ["done", "other"]}), Answer::Skip(SkipReason::Parent)),
            (json!({"parents": ["when"], "results": [["when", "r"]]}), Answer::Skip(SkipReason::MissingResults)),
            (json!({"parents": ["other"], "results": [["other", "r"]]}), Answer::Skip(SkipReason::Parent)),
            (
                json!({"results": [["done", "missing"]]}),
                Answer::Invalid("the task `done` succeeded without writing the result `missing`".into()),
            ),
            (
                json!({"results": [["done", "l[2]"]]}),
                Answer::Invalid("the task `done` succeeded without writing the result `l` with `[2]`".into()),
            ),
            (json!({"results": [["done", "l[1]"], ["done", "l[*]"]]}), Answer::Go),
            (json!({"results": [["done", "missing"]], "mayLack": true}), Answer::Skip(SkipReason::MissingResults)),
            (
                json!({"results": [["done", "missing"]], "isFinal": true, "when": when("no")}),
                Answer::Skip(SkipReason::MissingResults),
            ),
            (json!({"results": [["failed", "r"]], "isFinal": true}), Answer::Skip(SkipReason::MissingResults)),
            (json!({"when": [{"cel": "'$(tasks.done.results.r)' == 'yes'"}]}), Answer::Go),
            (json!({"when": [{"cel": "'a' == 'b'"}]}), Answer::Skip(SkipReason::When)),
            (json!({"when": when("$(tasks.failed.status)"), "isFinal": true}), Answer::Skip(SkipReason::When)),
        ] {
            assert_eq!(answer(&guard_of, &facts()), Ok(expected), "{guard_of}");
        }
    }
}
