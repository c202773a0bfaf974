//! `matrix`: a task once for each combination.

use super::super::model::{Matrix, ParamValue, PipelineSpec, PipelineTask};
use super::pipelines::{sections, texts};
use super::refs::{Tail, refs};
use super::scope::Scope;
use super::{Problems, params};

/// Tekton's default for how many combinations a task may have.
pub const MOST: usize = 256;

pub fn check(problems: &mut Problems<'_>, task: &PipelineTask, path: &str) {
    let Some(matrix) = &task.matrix else { return };
    let path = format!("{path}.matrix");
    if matrix.params.is_empty() && matrix.include.is_empty() {
        problems.error(&path, "`matrix` needs `params` or `include`");
    }
    params::values(problems, &matrix.params, &format!("{path}.params"));
    for (at, param) in matrix.params.iter().enumerate() {
        let path = format!("{path}.params[{at}]");
        if task.params.iter().any(|other| other.name == param.name) {
            problems.error(&format!("{path}.name"), format!("the param `{}` is given in `params` too", param.name));
        }
        match &param.value {
            ParamValue::List(_) => {}
            // An array that comes from elsewhere.
            ParamValue::Text(text) if refs(text).any(|found| found.tail == Tail::All && found.is_alone_in(text)) => {}
            ParamValue::Text(_) | ParamValue::Map(_) => {
                let hint = match &param.value {
                    ParamValue::Text(text) if text.starts_with('[') => params::TEXTS,
                    _ => "write a list, or `$(params.NAME[*])`",
                };
                problems.error_hint(
                    &format!("{path}.value"),
                    format!("the values of `{}` must be an array", param.name),
                    hint,
                );
            }
        }
    }
    for (at, include) in matrix.include.iter().enumerate() {
        let path = format!("{path}.include[{at}].params");
        params::values(problems, &include.params, &path);
        for (index, param) in include.params.iter().enumerate() {
            if !matches!(param.value, ParamValue::Text(_)) {
                let message = format!("`{}` is one combination's value and must be a text", param.name);
                problems.error(&format!("{path}[{index}].value"), message);
            }
            if task.params.iter().any(|other| other.name == param.name) {
                problems.error(
                    &format!("{path}[{index}].name"),
                    format!("the param `{}` is given in `params` too", param.name),
                );
            }
        }
    }
    let lengths = matrix.params.iter().map(|param| match &param.value {
        ParamValue::List(list) => list.len().max(1),
        ParamValue::Text(_) | ParamValue::Map(_) => 1,
    });
    let product = lengths.fold(1_usize, usize::saturating_mul);
    let count = if matrix.params.is_empty() { matrix.include.len() } else { product };
    if count > MOST {
        problems.error(&path, format!("the matrix has {count} combinations, and at most {MOST} are taken"));
    }
}

/// One combination has a text where the matrix has an array.
pub fn elements(scope: Scope, matrix: &Matrix) -> Scope {
    let text = |name: &str| super::super::model::Param { name: name.to_owned(), value: ParamValue::default() };
    let given: Vec<_> = matrix
        .params
        .iter()
        .chain(matrix.include.iter().flat_map(|include| &include.params))
        .map(|param| text(&param.name))
        .collect();
    scope.given(&given)
}

/// Results of all combinations come together as an array.
pub fn consumers(problems: &mut Problems<'_>, spec: &PipelineSpec, path: &str) {
    let is_matrix = |name: &str| spec.tasks.iter().any(|task| task.name == name && task.matrix.is_some());
    for (task, path, _) in sections(spec, path) {
        for (text, path, _) in texts(task, &path) {
            for found in refs(&text) {
                let is_result = found.part(0) == "tasks" && found.part(2) == "results" && found.parts.len() == 4;
                if is_result && is_matrix(found.part(1)) && found.tail == Tail::Nothing {
                    let message =
                        format!("`{}` runs once for each combination, so its result is an array", found.part(1));
                    problems.error_hint(&path, message, format!("write `$({}[*])`", found.text));
                }
            }
        }
    }
}
