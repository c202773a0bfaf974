//! Steps, sidecars and StepActions.

use serde_json::Value;

use super::super::model::{ResultSpec, Sidecar, Step, StepActionSpec, TaskSpec, When};
use super::params::{self, Spot};
use super::refs::refs;
use super::scope::Scope;
use super::{Problems, duplicates, names, resolvers};
use crate::diagnostic::{did_you_mean, listing};

pub fn check(problems: &mut Problems<'_>, spec: &TaskSpec, path: &str, scope: &Scope) {
    let all: Vec<&str> = spec.steps.iter().map(|step| step.name.as_str()).collect();
    for (at, name) in duplicates(all.iter().copied(), false) {
        if !name.is_empty() {
            problems.error(&format!("{path}.steps[{at}].name"), format!("the step `{name}` is there twice"));
        }
    }
    let template = |name: &str| spec.step_template.as_ref().is_some_and(|template| !template[name].is_null());
    let has_image = template("image");
    if let Some(mounts) = spec.step_template.as_ref().and_then(|template| template["volumeMounts"].as_array()) {
        ways(problems, mounts, &format!("{path}.stepTemplate"));
    }
    for (at, step) in spec.steps.iter().enumerate() {
        let path = format!("{path}.steps[{at}]");
        if !step.name.is_empty() {
            problems.check(&format!("{path}.name"), names::label(&step.name));
        }
        match &step.reference {
            Some(_) => used(problems, step, &path),
            None => {
                if step.image.is_empty() && !has_image {
                    let hint = "name an image here or in `stepTemplate`, or use a StepAction with `ref`";
                    problems.error_hint(&path, "the step has no `image`", hint);
                }
                if !step.params.is_empty() {
                    let hint = "params of a step are for the StepAction that its `ref` names; a Task's params are used with `$(params.NAME)`";
                    problems.error_hint(&format!("{path}.params"), "a step without `ref` has no params", hint);
                }
            }
        }
        script(problems, &step.script, &step.command, &path);
        if step.timeout.is_some_and(|timeout| timeout.0.is_negative()) {
            problems.error(&format!("{path}.timeout"), "a timeout is not negative");
        }
        on_error(problems, &step.on_error, &path);
        when(problems, &step.when, &format!("{path}.when"));
        let asks_steps = |condition: &When| condition.cel.contains("$(steps.");
        if let Some(at) = step.when.iter().position(asks_steps) {
            let hint = "write it with `input`, `operator` and `values`";
            let message = "a condition in CEL cannot use results of other steps: it is evaluated before they run";
            problems.error_hint(&format!("{path}.when[{at}].cel"), message, hint);
        }
        params::values(problems, &step.params, &format!("{path}.params"));
        params::results(problems, &step.results, &format!("{path}.results"));
        mounts(problems, &step.volume_mounts, &path);
        environment(problems, &step.env, &path);
        texts(step, &path, |text, path, spot| {
            params::uses(problems, text, path, scope, spot);
            contexts(problems, text, path);
        });
        results_of(problems, &step.script, &format!("{path}.script"), "results", &spec.results);
        if !step.results.is_empty() {
            results_of(problems, &step.script, &format!("{path}.script"), "step", &step.results);
        }
        results_at_runtime(problems, step, &path);
    }
}

/// Beside `ref`, what the StepAction brings cannot be written.
fn used(problems: &mut Problems<'_>, step: &Step, path: &str) {
    let reference = step.reference.as_ref();
    if reference.is_some_and(|used| used.name.is_empty() && used.resolver.is_empty()) {
        problems.error(&format!("{path}.ref"), "`ref` needs `name`, or `resolver` with its params");
    }
    if let Some(used) = reference
        && used.resolver.is_empty()
        && !used.params.is_empty()
    {
        problems.error_hint(
            &format!("{path}.ref.params"),
            "these params are of a `resolver`",
            "params of the StepAction stand beside `ref`",
        );
    }
    if let Some(used) = reference {
        resolvers::check(problems, &used.resolver, &used.params, &format!("{path}.ref"));
    }
    let given = [
        ("image", !step.image.is_empty()),
        ("command", !step.command.is_empty()),
        ("args", !step.args.is_empty()),
        ("script", !step.script.is_empty()),
        ("workingDir", !step.working_dir.is_empty()),
        ("env", !step.env.is_empty()),
        ("volumeMounts", !step.volume_mounts.is_empty()),
        ("results", !step.results.is_empty()),
    ];
    for (name, _) in given.into_iter().filter(|(_, given)| *given) {
        let hint = "give it to the StepAction as a param, or write the step out without `ref`";
        problems.error_hint(
            &format!("{path}.{name}"),
            format!("`{name}` cannot stand beside `ref`: the StepAction says it"),
            hint,
        );
    }
}

fn script(problems: &mut Problems<'_>, script: &str, command: &[String], path: &str) {
    if script.is_empty() {
        return;
    }
    if !command.is_empty() {
        problems.error_hint(
            &format!("{path}.script"),
            "`script` and `command` exclude each other",
            "hand `args` to the script instead",
        );
    }
    if script.trim_start().starts_with("#!win") {
        problems.error(&format!("{path}.script"), "scripts for Windows cannot run: steps run on Linux only");
    }
}

pub fn on_error(problems: &mut Problems<'_>, word: &str, path: &str) {
    if !matches!(word, "" | "continue" | "stopAndFail") && !word.starts_with("$(params") {
        let hint = did_you_mean(word, ["continue", "stopAndFail"]);
        let message = format!("`{word}` is not known here: it must be `continue` or `stopAndFail`");
        problems.add(&format!("{path}.onError"), &message, hint.as_deref());
    }
}

pub fn when(problems: &mut Problems<'_>, all: &[When], path: &str) {
    for (at, condition) in all.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let is_plain = !condition.input.is_empty() || !condition.operator.is_empty() || !condition.values.is_empty();
        match (condition.cel.is_empty(), is_plain) {
            (false, true) => problems.error(&path, "`cel` excludes `input`, `operator` and `values`"),
            (false, false) => {
                if let Err(fault) = crate::cel::check_when(&condition.cel) {
                    problems.error(&format!("{path}.cel"), fault.to_string());
                }
            }
            (true, false) => {
                problems.error_hint(&path, "the condition is empty", "write `input`, `operator` and `values`, or `cel`")
            }
            (true, true) => {
                if !matches!(condition.operator.as_str(), "in" | "notin") {
                    let message = match condition.operator.as_str() {
                        "" => "the condition needs an `operator`: `in` or `notin`".to_owned(),
                        other => format!("the operator `{other}` is not known: it must be `in` or `notin`"),
                    };
                    problems.error(&format!("{path}.operator"), message);
                }
                if condition.values.is_empty() {
                    problems.error(&format!("{path}.values"), "the condition needs `values`");
                }
            }
        }
    }
}

/// What of a mount cannot be done as it is written.
fn ways(problems: &mut Problems<'_>, mounts: &[Value], path: &str) {
    for (at, mount) in mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        let is_set = |field: &str| mount[field].as_str().is_some_and(|text| !text.is_empty());
        if is_set("subPath") && is_set("subPathExpr") {
            problems.error(&format!("{path}.subPathExpr"), "`subPath` and `subPathExpr` exclude each other");
        }
        if let Some(way) = mount["mountPropagation"].as_str().filter(|way| *way != "None") {
            let message = format!("`mountPropagation: {way}` cannot be done: mounts stay within their container");
            problems.error(&format!("{path}.mountPropagation"), message);
        }
        if mount["recursiveReadOnly"] == "Enabled" {
            let hint = "`readOnly: true` is enough where nothing is mounted below";
            problems.error_hint(&format!("{path}.recursiveReadOnly"), "`recursiveReadOnly` cannot be done here", hint);
        }
    }
}

fn mounts(problems: &mut Problems<'_>, mounts: &[Value], path: &str) {
    ways(problems, mounts, path);
    for (at, mount) in mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        let place = clean(mount["mountPath"].as_str().unwrap_or_default());
        if place.starts_with("/tekton/") && !place.starts_with("/tekton/home") {
            problems.error(
                &format!("{path}.mountPath"),
                format!("`{place}` is Tekton's own; only below `/tekton/home` may be mounted"),
            );
        }
        if mount["name"].as_str().is_some_and(|name| name.starts_with("tekton-internal-")) {
            problems.error(&format!("{path}.name"), "names that begin with `tekton-internal-` are Tekton's own");
        }
        if let Some(sub) = mount["subPath"].as_str()
            && (sub.starts_with('/') || sub.split('/').any(|part| part == ".."))
        {
            problems.error(
                &format!("{path}.subPath"),
                format!("`{sub}` leaves the volume: it must be relative and without `..`"),
            );
        }
    }
}

fn environment(problems: &mut Problems<'_>, env: &[Value], path: &str) {
    for (at, variable) in env.iter().enumerate() {
        let path = format!("{path}.env[{at}]");
        let name = variable["name"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.error(&format!("{path}.name"), format!("`{name}` is not the name of a variable"));
        }
        let sources = variable["valueFrom"].as_object().map(|fields| fields.len());
        if sources.is_some() && variable["value"].as_str().is_some_and(|value| !value.is_empty()) {
            problems.error(&path, format!("`{name}` has both `value` and `valueFrom`"));
        }
        if sources.is_some_and(|count| count != 1) {
            problems.error(&format!("{path}.valueFrom"), format!("`{name}` needs one source"));
        }
    }
}

/// A path without `.`, `..` and doubled slashes.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// All texts of a step in which params are replaced.
fn texts(step: &Step, path: &str, mut seen: impl FnMut(&str, &str, Spot)) {
    for (name, text) in [
        ("name", &step.name),
        ("image", &step.image),
        ("workingDir", &step.working_dir),
        ("script", &step.script),
        ("onError", &step.on_error),
    ] {
        seen(text, &format!("{path}.{name}"), Spot::Single);
    }
    for (name, list) in [("command", &step.command), ("args", &step.args)] {
        for (at, text) in list.iter().enumerate() {
            seen(text, &format!("{path}.{name}[{at}]"), Spot::Element);
        }
    }
    of_values(&step.env, &format!("{path}.env"), &["value"], &mut seen);
    of_values(&step.volume_mounts, &format!("{path}.volumeMounts"), &["name", "mountPath", "subPath"], &mut seen);
}

fn of_values(list: &[Value], path: &str, names: &[&str], seen: &mut impl FnMut(&str, &str, Spot)) {
    for (at, value) in list.iter().enumerate() {
        for name in names {
            if let Some(text) = value[*name].as_str() {
                seen(text, &format!("{path}[{at}].{name}"), Spot::Single);
            }
        }
    }
}

/// `$(context.task.…)` and `$(context.taskRun.…)` are a few names.
fn contexts(problems: &mut Problems<'_>, text: &str, path: &str) {
    for found in refs(text).filter(|found| found.part(0) == "context" && found.parts.len() == 3) {
        let known: &[&str] = match found.part(1) {
            "taskRun" => &["name", "namespace", "uid"],
            "task" => &["name", "retry-count"],
            _ => continue,
        };
        if !known.contains(&found.part(2)) {
            let hint = format!("there are {}", listing(known.iter().copied(), "and"));
            problems.error_hint(path, format!("`$({})` is not known", found.text), hint);
        }
    }
}

/// `$(results.r.path)` and `$(step.results.r.path)` name a result that is declared.
fn results_of(problems: &mut Problems<'_>, text: &str, path: &str, prefix: &str, declared: &[ResultSpec]) {
    for found in refs(text) {
        let name = match (prefix, found.part(0), found.part(1)) {
            ("results", "results", name) => name,
            ("step", "step", "results") => found.part(2),
            _ => continue,
        };
        if declared.iter().any(|result| result.name == name) {
            continue;
        }
        let names: Vec<&str> = declared.iter().map(|result| result.name.as_str()).collect();
        let hint = did_you_mean(name, names.iter().copied())
            .unwrap_or_else(|| format!("declare it: `results: [{{name: {name}}}]`"));
        problems.error_hint(path, format!("`$({})`: there is no result `{name}`", found.text), hint);
    }
}

/// Results of steps are known only when steps run: few fields are read that late.
fn results_at_runtime(problems: &mut Problems<'_>, step: &Step, path: &str) {
    for (name, text) in [
        ("name", &step.name),
        ("image", &step.image),
        ("script", &step.script),
        ("imagePullPolicy", &step.image_pull_policy),
        ("workingDir", &step.working_dir),
    ] {
        let is_result = |found: &super::refs::Ref| found.part(0) == "steps" && found.part(2) == "results";
        if refs(text).any(|found| is_result(&found)) {
            let hint = "hand it over as an argument, or in `env`";
            problems.error_hint(
                &format!("{path}.{name}"),
                format!("a result of a step cannot stand in `{name}`"),
                hint,
            );
        }
    }
}

pub fn sidecars(problems: &mut Problems<'_>, all: &[Sidecar], path: &str, scope: &Scope) {
    for (at, name) in duplicates(all.iter().map(|sidecar| sidecar.name.as_str()), false) {
        if !name.is_empty() {
            problems.error(&format!("{path}[{at}].name"), format!("the sidecar `{name}` is there twice"));
        }
    }
    for (at, sidecar) in all.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if !sidecar.name.is_empty() {
            problems.check(&format!("{path}.name"), names::label(&sidecar.name));
        }
        if sidecar.name == "tekton-log-results" {
            problems.error(&format!("{path}.name"), "`tekton-log-results` is a name of Tekton's own");
        }
        if sidecar.image.is_empty() {
            problems.error(&path, "the sidecar has no `image`");
        }
        script(problems, &sidecar.script, &sidecar.command, &path);
        ways(problems, &sidecar.volume_mounts, &path);
        environment(problems, &sidecar.env, &path);
        // A sidecar's texts may name what only its own shell knows, so only wrong uses of known params are told.
        for (name, text) in [("image", &sidecar.image), ("script", &sidecar.script)] {
            if refs(text).all(|found| found.part(0) != "params" || scope.get(found.part(1)).is_some()) {
                params::uses(problems, text, &format!("{path}.{name}"), scope, Spot::Single);
            }
        }
    }
}

pub fn check_action(problems: &mut Problems<'_>, spec: &StepActionSpec) {
    params::declarations(problems, &spec.params, "spec.params");
    params::results(problems, &spec.results, "spec.results");
    script(problems, &spec.script, &spec.command, "spec");
    mounts(problems, &spec.volume_mounts, "spec");
    environment(problems, &spec.env, "spec");
    let step = Step {
        image: spec.image.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        script: spec.script.clone(),
        working_dir: spec.working_dir.clone(),
        env: spec.env.clone(),
        volume_mounts: spec.volume_mounts.clone(),
        ..Step::default()
    };
    let scope = Scope::of(&spec.params);
    texts(&step, "spec", |text, path, spot| params::uses(problems, text, path, &scope, spot));
    results_of(problems, &spec.script, "spec.script", "step", &spec.results);
}
