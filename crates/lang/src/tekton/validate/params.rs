//! Params and results: their declarations, and references to them.

use super::super::model::{Param, ParamKind, ParamSpec, ParamValue, ResultSpec};
use super::refs::{Ref, Tail, refs};
use super::scope::Scope;
use super::{Problems, duplicates, names};
use crate::diagnostic::{did_you_mean, listing};

/// A list with a number or a boolean in it is one text to Tekton.
pub const TEXTS: &str =
    "all of its items must be texts: put numbers, and words such as `true`, `yes` and `y`, in quotes";

pub fn declarations(problems: &mut Problems<'_>, params: &[ParamSpec], path: &str) {
    for (at, name) in duplicates(params.iter().map(|param| param.name.as_str()), true) {
        problems.error(
            &format!("{path}[{at}].name"),
            format!("the param `{name}` is there twice; small and large letters are the same"),
        );
    }
    for (at, param) in params.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let kind = param.kind();
        let name = if kind == ParamKind::Object { names::object(&param.name) } else { names::param(&param.name) };
        problems.check(&format!("{path}.name"), name);
        for (key, property) in &param.properties {
            problems.check(&format!("{path}.properties[{key}]"), names::object(key));
            if property.declared.is_some_and(|kind| kind != ParamKind::String) {
                problems.error(
                    &format!("{path}.properties[{key}]"),
                    format!("the key `{key}` must be a string: objects hold texts"),
                );
            }
        }
        if kind == ParamKind::Object && param.properties.is_empty() {
            let hint = "name its keys: `properties: {url: {type: string}}`";
            problems.error_hint(&path, format!("the object `{}` needs `properties`", param.name), hint);
        }
        if kind != ParamKind::Object && !param.properties.is_empty() {
            let message = format!("`{}` is {} and has no `properties`", param.name, article(kind));
            problems.error(&format!("{path}.properties"), message);
        }
        if let Some(default) = &param.default
            && default.kind() != kind
        {
            let (wanted, found) = (article(kind), article(default.kind()));
            problems
                .error(&format!("{path}.default"), format!("`{}` is {wanted}, and its default is {found}", param.name));
        }
        choices(problems, param, kind, &path);
    }
}

fn choices(problems: &mut Problems<'_>, param: &ParamSpec, kind: ParamKind, path: &str) {
    if param.choices.is_empty() {
        return;
    }
    let path = format!("{path}.enum");
    if kind != ParamKind::String {
        problems.error(&path, format!("`enum` is for strings, and `{}` is {}", param.name, article(kind)));
    }
    for (at, choice) in duplicates(param.choices.iter().map(String::as_str), false) {
        problems.error(&format!("{path}[{at}]"), format!("`{choice}` is there twice"));
    }
    if let Some(ParamValue::Text(default)) = &param.default
        && !default.is_empty()
        && !param.choices.contains(default)
    {
        let all = listing(param.choices.iter().map(String::as_str), "and");
        problems.error(&path, format!("the default `{default}` is not one of {all}"));
    }
}

fn article(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::String => "a string",
        ParamKind::Array => "an array",
        ParamKind::Object => "an object",
    }
}

/// Params with values: each name once.
pub fn values(problems: &mut Problems<'_>, params: &[Param], path: &str) {
    for (at, name) in duplicates(params.iter().map(|param| param.name.as_str()), true) {
        problems.error(&format!("{path}[{at}].name"), format!("the param `{name}` is given twice"));
    }
}

pub fn results(problems: &mut Problems<'_>, results: &[ResultSpec], path: &str) {
    for (at, name) in duplicates(results.iter().map(|result| result.name.as_str()), false) {
        problems.error(&format!("{path}[{at}].name"), format!("the result `{name}` is there twice"));
    }
    for (at, result) in results.iter().enumerate() {
        let path = format!("{path}[{at}]");
        problems.check(&format!("{path}.name"), names::result(&result.name));
        if result.kind() == ParamKind::Object && result.properties.is_empty() {
            let hint = "name its keys: `properties: {url: {type: string}}`";
            problems.error_hint(&path, format!("the object `{}` needs `properties`", result.name), hint);
        }
        for (key, property) in &result.properties {
            if property.declared.is_some_and(|kind| kind != ParamKind::String) {
                problems.error(
                    &format!("{path}.properties[{key}]"),
                    format!("the key `{key}` must be a string: objects hold texts"),
                );
            }
        }
        match &result.value {
            None => {}
            Some(ParamValue::Text(text)) => {
                let one = refs(text).next().filter(|found| found.is_alone_in(text));
                let fits = one.is_some_and(|found| {
                    found.parts.len() >= 4 && found.part(0) == "steps" && found.part(2) == "results"
                });
                if !fits && !text.is_empty() {
                    let hint = "write `$(steps.STEP.results.RESULT)`";
                    problems.error_hint(&format!("{path}.value"), "the value of a result is a result of a step", hint);
                }
            }
            Some(_) => problems.error(&format!("{path}.value"), "the value of a result is a text"),
        }
    }
}

/// Where a text stands, which says how it may use arrays and objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// One text among others: an array may stand for several of them.
    Element,
    /// A text of its own.
    Single,
}

/// All references of a text to params lead to one that is there, and use it as what it is.
pub fn uses(problems: &mut Problems<'_>, text: &str, path: &str, scope: &Scope, spot: Spot) {
    for found in refs(text).filter(|found| found.part(0) == "params") {
        let name = found.part(1);
        let Some(known) = scope.get(name) else {
            unknown(problems, &found, path, scope);
            continue;
        };
        let whole = found.parts.len() == 2 && !matches!(found.tail, Tail::Index(_));
        match known.kind {
            Some(ParamKind::Array) if whole && spot == Spot::Single => {
                let hint = format!("use one of its texts, `$(params.{name}[0])`, or hand it over in `args`");
                problems.error_hint(path, format!("the array `{name}` cannot stand in this text"), hint);
            }
            Some(ParamKind::Array) if whole && !found.is_alone_in(text) => {
                let hint = format!("write `$(params.{name}[*])` as an item of its own");
                problems.error_hint(
                    path,
                    format!("the array `{name}` stands for several items and must stand alone"),
                    hint,
                );
            }
            Some(ParamKind::Object) if whole => {
                let key = known.keys.iter().next().map_or("KEY", String::as_str);
                let hint = format!("use one of its keys: `$(params.{name}.{key})`");
                problems.error_hint(path, format!("the object `{name}` cannot be used as a whole here"), hint);
            }
            Some(ParamKind::Object) if found.parts.len() > 2 && !known.keys.contains(found.part(2)) => {
                let keys: Vec<&str> = known.keys.iter().map(String::as_str).collect();
                let hint = did_you_mean(found.part(2), keys.iter().copied())
                    .unwrap_or_else(|| format!("its keys: {}", listing(keys, "and")));
                problems.error_hint(path, format!("the object `{name}` has no key `{}`", found.part(2)), hint);
            }
            _ => {}
        }
    }
}

fn unknown(problems: &mut Problems<'_>, found: &Ref, path: &str, scope: &Scope) {
    let name = found.part(1);
    let message = format!("`$({})`: there is no param `{name}`", found.text);
    let dotted = found.parts[1..].join(".");
    if scope.get(&dotted).is_some() {
        return problems.error_hint(
            path,
            message,
            format!("a name with points needs brackets: `$(params['{dotted}'])`"),
        );
    }
    let names: Vec<&str> = scope.names().collect();
    match did_you_mean(name, names.iter().copied()) {
        Some(hint) => problems.error_hint(path, message, hint),
        None if names.is_empty() => problems.error_hint(path, message, "no params are declared here"),
        None => problems.error_hint(path, message, format!("there are {}", listing(names, "and"))),
    }
}
