//! Steps as they run: what a StepAction brings, and what the template of the Task adds.

use pitcrew_core::ir::Refusal;
use serde_json::{Map, Value};

use super::check::{self, OF_TASKS, refuse};
use super::container::{is_true, items, text};
use super::template::Template;
use crate::tekton::substitute::{Replacements, names, params};

/// The steps of a Task, complete but for the Task's own variables.
/// `known`: what those stand for, which StepActions are given.
pub fn steps(template: &Template, known: &Replacements) -> Result<Vec<Value>, Refusal> {
    let spec = &template.spec;
    items(&spec["steps"])
        .iter()
        .map(|step| {
            let step = use_action(template, step, known)?;
            Ok(on_template(&spec["stepTemplate"], &step))
        })
        .collect()
}

/// The name of the container of a step or a sidecar.
pub fn container_name(prefix: &str, at: usize, of: &Value) -> String {
    match text(of, "name") {
        name if name.is_empty() => format!("{prefix}-unnamed-{at}"),
        name => format!("{prefix}-{name}"),
    }
}

/// Puts what a StepAction says in the place of a step's `ref`.
fn use_action(template: &Template, step: &Value, known: &Replacements) -> Result<Value, Refusal> {
    let Some(reference) = step.get("ref") else { return Ok(step.clone()) };
    let name = text(reference, "name");
    let Some(action) = template.step_actions.get(&name) else {
        let step = text(step, "name");
        return refuse(
            "TaskRunResolutionFailed",
            format!("the step `{step}` uses the StepAction `{name}`, which is not there"),
        );
    };
    let whose = format!("the StepAction `{name}`");
    let mut given = params::given(&known.fill_value(&step["params"]));
    // A list or an object that the Task does not have gives nothing, so that the default holds.
    given
        .retain(|_, value| !value.as_str().is_some_and(|text| text.starts_with("$(params.") && text.ends_with("[*])")));
    let values = params::resolve(&action["params"], &given)
        .map_err(|message| Refusal { reason: OF_TASKS.missing.to_owned(), message })?;
    // A list or an object that an earlier step gives is only known when this one begins.
    let (later, now): (params::Values, params::Values) =
        values.into_iter().partition(|(_, value)| of_step(value).is_some());
    let declared =
        items(&action["params"]).iter().filter(|one| !later.contains_key(&text(one, "name"))).cloned().collect();
    let values = now;
    check::params(&whose, &declared, &values, OF_TASKS)?;
    check::indices(&whose, action, &values, OF_TASKS)?;
    let mut of_params = params::replacements(&values);
    for variable in names(action) {
        let part = later.iter().find_map(|(name, value)| {
            let rest = variable.strip_prefix("params.")?.strip_prefix(name.as_str())?;
            rest.starts_with(['[', '.']).then(|| format!("$({}{rest})", of_step(value).unwrap_or_default()))
        });
        if let Some(part) = part {
            of_params.text(variable, part);
        }
    }
    let filled = of_params.fill_value(action);
    let mut out = step.as_object().cloned().unwrap_or_default();
    out.remove("ref");
    out.remove("params");
    for field in
        ["image", "command", "args", "script", "env", "workingDir", "securityContext", "results", "volumeMounts"]
    {
        if let Some(value) = filled.get(field) {
            out.insert(field.to_owned(), value.clone());
        }
    }
    Ok(Value::Object(out))
}

/// The result of a step that a value is as a whole: `steps.s.results.r` of `$(steps.s.results.r[*])`.
fn of_step(value: &Value) -> Option<&str> {
    let variable = value.as_str()?.strip_prefix("$(")?.strip_suffix("[*])")?;
    variable.starts_with("steps.").then_some(variable)
}

/// Lays a step over the template of its Task: lists of named things by name, objects by key, all else as the step has it.
fn on_template(under: &Value, step: &Value) -> Value {
    let (Some(under), Some(step)) = (under.as_object(), step.as_object()) else { return step.clone() };
    let mut out = under.clone();
    for (field, value) in step {
        let merged = match (field.as_str(), out.get(field)) {
            ("env", Some(old)) => by(old, value, "name"),
            ("volumeMounts", Some(old)) => by(old, value, "mountPath"),
            ("volumeDevices", Some(old)) => by(old, value, "devicePath"),
            ("envFrom", Some(old)) => Value::Array([items(old), items(value)].concat()),
            ("securityContext" | "computeResources", Some(old)) => deep(old, value),
            _ => value.clone(),
        };
        out.insert(field.clone(), merged);
    }
    Value::Object(out)
}

/// Two lists as one: of two with the same key, the newer in the place of the older.
pub fn by(old: &Value, new: &Value, key: &str) -> Value {
    let mut all = items(old).to_vec();
    for item in items(new) {
        match all.iter_mut().find(|other| other[key] == item[key]) {
            Some(other) => *other = item.clone(),
            None => all.push(item.clone()),
        }
    }
    Value::Array(all)
}

/// Two objects as one, at every depth.
pub fn deep(old: &Value, new: &Value) -> Value {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let mut out: Map<String, Value> = old.clone();
    for (key, value) in new {
        let merged = out.get(key).map_or_else(|| value.clone(), |before| deep(before, value));
        out.insert(key.clone(), merged);
    }
    Value::Object(out)
}

/// Whether any step or sidecar names this workspace for itself, so that the others do not see it.
pub fn is_isolated(spec: &Value, workspace: &str) -> bool {
    let all = items(&spec["steps"]).iter().chain(items(&spec["sidecars"]));
    all.into_iter().any(|one| usage(one, workspace).is_some())
}

/// How a step or sidecar names a workspace for itself.
pub fn usage<'v>(one: &'v Value, workspace: &str) -> Option<&'v Value> {
    items(&one["workspaces"]).iter().find(|usage| usage["name"] == workspace)
}

/// Whether a declared workspace cannot be written.
pub fn is_read_only(declaration: &Value) -> bool {
    is_true(&declaration["readOnly"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_is_laid_over_the_template() {
        let under = json!({
            "image": "old", "command": ["a", "b"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "securityContext": {"runAsUser": 1, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        });
        let step = json!({
            "name": "s", "command": ["c"], "env": [{"name": "C", "value": "$(A)"}, {"name": "A", "value": "3"}],
            "securityContext": {"runAsUser": 2}, "volumeMounts": [{"name": "w", "mountPath": "/w"}],
        });
        let expected = json!({
            "name": "s", "image": "old", "command": ["c"],
            "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}, {"name": "C", "value": "$(A)"}],
            "securityContext": {"runAsUser": 2, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}],
        });
        assert_eq!(on_template(&under, &step), expected);
    }

    #[test]
    fn a_step_action_has_params_of_its_own() {
        let template = Template {
            spec: json!({"steps": [{
                "name": "s", "ref": {"name": "act"}, "onError": "continue",
                "params": [{"name": "who", "value": "$(params.task)"}],
            }]}),
            step_actions: [(
                "act".to_owned(),
                json!({
                    "image": "img", "script": "echo $(params.who) $(params.more[0]) $(params.other)",
                    "args": ["$(params.more[*])"],
                    "params": [{"name": "who"}, {"name": "more", "default": ["x", "y"]}],
                }),
            )]
            .into(),
            ..Template::default()
        };
        let expected = json!({
            "name": "s", "onError": "continue", "image": "img",
            "script": "echo $(params.task) x $(params.other)", "args": ["x", "y"],
        });
        assert_eq!(steps(&template, &Replacements::new()), Ok(vec![expected]));
    }

    #[test]
    fn a_step_action_gets_lists_of_the_task_and_of_earlier_steps() {
        let template = Template {
            spec: json!({"steps": [{"name": "s", "ref": {"name": "act"}, "params": [
                {"name": "l", "value": "$(params.list[*])"}, {"name": "e", "value": "$(steps.one.results.r[*])"}]}]}),
            step_actions: [(
                "act".to_owned(),
                json!({
                    "image": "img", "args": ["$(params.l[*])", "$(params.e[*])", "$(params.e[1])", "$(params.l[0])"],
                    "params": [{"name": "l", "type": "array"}, {"name": "e", "type": "array"}],
                }),
            )]
            .into(),
            ..Template::default()
        };
        let mut known = Replacements::new();
        known.param("list", &json!(["x", "y"]));
        let found = steps(&template, &known).unwrap();
        assert_eq!(found[0]["args"], json!(["x", "y", "$(steps.one.results.r[*])", "$(steps.one.results.r[1])", "x"]));
    }

    #[test]
    fn a_step_action_that_is_not_there_is_told() {
        let spec = json!({"steps": [{"name": "s", "ref": {"name": "act"}}]});
        let refusal = steps(&Template { spec, ..Template::default() }, &Replacements::new()).unwrap_err();
        assert_eq!(refusal.reason, "TaskRunResolutionFailed");
        assert!(refusal.message.contains("`act`"), "{}", refusal.message);
    }
}
