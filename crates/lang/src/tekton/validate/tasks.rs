//! The `spec` of a Task.

use serde_json::Value;

use super::super::model::TaskSpec;
use super::scope::Scope;
use super::{Problems, duplicates, names, params, steps, workspaces};

pub fn check(problems: &mut Problems<'_>, spec: &TaskSpec, path: &str, scope: &Scope) {
    let at = |name: &str| format!("{path}.{name}");
    if spec.steps.is_empty() {
        problems.error_hint(
            path,
            "a Task needs `steps`",
            "such as `steps: [{name: hello, image: alpine, script: echo hello}]`",
        );
    }
    params::declarations(problems, &spec.params, &at("params"));
    params::results(problems, &spec.results, &at("results"));
    volumes(problems, &spec.volumes, &at("volumes"));
    workspaces::declarations(problems, spec, path);
    steps::check(problems, spec, path, scope);
    steps::sidecars(problems, &spec.sidecars, &at("sidecars"), scope);
}

/// Each name once, each with one source.
pub fn volumes(problems: &mut Problems<'_>, volumes: &[Value], path: &str) {
    let name = |volume: &Value| volume["name"].as_str().unwrap_or_default().to_owned();
    let all: Vec<String> = volumes.iter().map(name).collect();
    for (at, name) in duplicates(all.iter().map(String::as_str), false) {
        problems.error(&format!("{path}[{at}].name"), format!("the volume `{name}` is there twice"));
    }
    for (at, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if !all[at].contains("$(") {
            problems.check(&format!("{path}.name"), names::label(&all[at]));
        }
        if all[at].starts_with("tekton-internal-") {
            problems.error(&format!("{path}.name"), "names that begin with `tekton-internal-` are Tekton's own");
        }
        let sources: Vec<&String> =
            volume.as_object().into_iter().flat_map(|fields| fields.keys()).filter(|key| *key != "name").collect();
        match sources.as_slice() {
            [_] => {}
            // As Kubernetes has it.
            [] => problems.error_hint(
                &path,
                format!("the volume `{}` has no source", all[at]),
                "write `emptyDir: {}`, if it is to be empty",
            ),
            [first, second, ..] => {
                problems.error(&path, format!("the volume `{}` has two sources, `{first}` and `{second}`", all[at]))
            }
        }
    }
}
