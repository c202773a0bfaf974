//! Whether what a run is given fits what is declared. The same rules hold for Tasks and Pipelines; the reasons are Tekton's.

use std::collections::BTreeSet;

use pitcrew_core::ir::Refusal;
use serde_json::Value;

use super::container::{is_true, items, text, texts};
use crate::diagnostic::listing;
use crate::tekton::substitute::names;
use crate::tekton::substitute::params::{Values, kind, kind_of};

/// What is asked of params before anything runs.
#[derive(Debug, Clone, Copy)]
pub struct Reasons {
    pub missing: &'static str,
    pub mismatch: &'static str,
    pub keys: &'static str,
    pub choice: &'static str,
    pub index: &'static str,
    pub workspace: &'static str,
}

pub const OF_TASKS: Reasons = Reasons {
    missing: "TaskRunValidationFailed",
    mismatch: "TaskRunValidationFailed",
    keys: "TaskRunValidationFailed",
    choice: "InvalidParamValue",
    index: "TaskRunValidationFailed",
    workspace: "TaskRunValidationFailed",
};

pub const OF_PIPELINES: Reasons = Reasons {
    missing: "ParameterMissing",
    mismatch: "ParameterTypeMismatch",
    keys: "ObjectParameterMissKeys",
    choice: "InvalidParamValue",
    index: "ParamArrayIndexingInvalid",
    workspace: "InvalidWorkspaceBindings",
};

pub fn refuse<T>(reason: &str, message: String) -> Result<T, Refusal> {
    Err(Refusal { reason: reason.to_owned(), message })
}

/// Checks declared params against what they came to.
pub fn params(whose: &str, declared: &Value, values: &Values, reasons: Reasons) -> Result<(), Refusal> {
    let missing: Vec<String> =
        items(declared).iter().map(|d| text(d, "name")).filter(|name| !values.contains_key(name)).collect();
    if !missing.is_empty() {
        let names = listing(missing.iter().map(String::as_str), "and");
        return refuse(reasons.missing, format!("{whose} needs values for the params {names}, which have no default"));
    }
    for declaration in items(declared) {
        let name = text(declaration, "name");
        let (Some(value), wanted) = (values.get(&name), kind(declaration)) else { continue };
        let found = kind_of(value);
        if found != wanted {
            let why = format!("the param `{name}` of {whose} is of the type {wanted}, and what is given is {found}");
            return refuse(reasons.mismatch, why);
        }
    }
    for declaration in items(declared) {
        let name = text(declaration, "name");
        let choices = texts(&declaration["enum"]);
        let Some(value) = values.get(&name) else { continue };
        if !choices.is_empty()
            && let Some(value) = value.as_str()
            && !choices.iter().any(|choice| choice == value)
        {
            let all = listing(choices.iter().map(String::as_str), "or");
            return refuse(reasons.choice, format!("the param `{name}` of {whose} is {all}, not `{value}`"));
        }
    }
    for declaration in items(declared) {
        let name = text(declaration, "name");
        let (Some(Value::Object(map)), Some(properties)) = (values.get(&name), declaration["properties"].as_object())
        else {
            continue;
        };
        let missing: Vec<&str> = properties.keys().filter(|key| !map.contains_key(*key)).map(String::as_str).collect();
        if !missing.is_empty() {
            let keys = listing(missing, "and");
            return refuse(reasons.keys, format!("the param `{name}` of {whose} is given without the keys {keys}"));
        }
    }
    Ok(())
}

/// Checks that no list is asked for an element that it does not have.
pub fn indices(whose: &str, used_in: &Value, values: &Values, reasons: Reasons) -> Result<(), Refusal> {
    let used: BTreeSet<String> = names(used_in);
    for (name, value) in values {
        let Some(list) = value.as_array() else { continue };
        for variable in &used {
            let bases = [format!("params.{name}["), format!("params['{name}']["), format!("params[\"{name}\"][")];
            let index = bases.iter().find_map(|base| variable.strip_prefix(base.as_str())?.strip_suffix(']'));
            let Some(index) = index.and_then(|index| index.parse::<usize>().ok()) else { continue };
            if index >= list.len() {
                let length = list.len();
                let why = format!("{whose} uses `$({variable})`, and the param `{name}` has {length} elements");
                return refuse(reasons.index, why);
            }
        }
    }
    Ok(())
}

/// Checks that every workspace that is needed is bound.
pub fn workspaces<'n>(
    whose: &str,
    declared: &Value,
    is_bound: impl Fn(&str) -> bool + 'n,
    reasons: Reasons,
) -> Result<(), Refusal> {
    for declaration in items(declared) {
        let name = text(declaration, "name");
        if !is_true(&declaration["optional"]) && !is_bound(&name) {
            let why = format!("{whose} needs the workspace `{name}`, and nothing is bound to it");
            return refuse(reasons.workspace, why);
        }
    }
    Ok(())
}
