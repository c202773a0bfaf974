//! Where variables stand in a text, and which of them refer to tasks of the pipeline.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

/// All innermost `$(…)` of a text: the range with its braces, and what is between them.
pub fn variables(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find("$(")?;
            let inner = start + 2;
            let end = inner + text[inner..].find(')')?;
            // What is between may itself hold one: `$(echo $(params.a))`.
            if let Some(nested) = text[inner..end].find("$(") {
                at = inner + nested;
                continue;
            }
            at = end + 1;
            return Some((start..end + 1, &text[inner..end]));
        }
    })
}

/// A variable that refers to another task of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// `tasks.T.results.…`; what follows `results` is still to be read, since names of results may hold dots.
    Result { task: String, rest: String },
    /// `tasks.T.status`, `tasks.T.reason`.
    Status { task: String },
    /// `tasks.status`.
    Overall,
    /// `tasks.T.matrix.length`, `tasks.T.matrix.R.length`.
    Length { task: String, result: Option<String> },
    /// `finally.T.results.…`.
    FinallyResult { task: String, rest: String },
    /// `tasks.T.outputs`, `tasks.T.outputs.A`, and the same of `inputs`.
    Artifact { task: String },
}

impl Reference {
    /// What a variable refers to, if it refers to a task.
    pub fn parse(variable: &str) -> Option<Reference> {
        if variable == "tasks.status" {
            return Some(Reference::Overall);
        }
        if let Some(rest) = variable.strip_prefix("finally.") {
            let (task, rest) = split_results(rest)?;
            return Some(Reference::FinallyResult { task, rest });
        }
        let rest = variable.strip_prefix("tasks.")?;
        if let Some((task, rest)) = split_results(rest) {
            return Some(Reference::Result { task, rest });
        }
        let (task, what) = rest.split_once('.')?;
        let task = task.to_owned();
        match what {
            "status" | "reason" => Some(Reference::Status { task }),
            "matrix.length" => Some(Reference::Length { task, result: None }),
            "outputs" | "inputs" => Some(Reference::Artifact { task }),
            _ if what.starts_with("outputs.") || what.starts_with("inputs.") => Some(Reference::Artifact { task }),
            _ => {
                let result = what.strip_prefix("matrix.")?.strip_suffix(".length")?;
                Some(Reference::Length { task, result: Some(result.to_owned()) })
            }
        }
    }

    /// The task that it refers to.
    pub fn task(&self) -> Option<&str> {
        match self {
            Reference::Result { task, .. }
            | Reference::Status { task }
            | Reference::Length { task, .. }
            | Reference::FinallyResult { task, .. }
            | Reference::Artifact { task } => Some(task),
            Reference::Overall => None,
        }
    }

    /// Whether it is a result that must be there.
    pub fn is_result(&self) -> bool {
        matches!(self, Reference::Result { .. } | Reference::FinallyResult { .. })
    }
}

/// `T.results.…` or `T.results[…`.
fn split_results(text: &str) -> Option<(String, String)> {
    let (task, rest) = text.split_once('.')?;
    let rest = rest.strip_prefix("results")?;
    let rest = match rest.strip_prefix('.') {
        Some(rest) => rest,
        None => rest.starts_with('[').then_some(rest)?,
    };
    (!task.is_empty() && !rest.is_empty()).then(|| (task.to_owned(), rest.to_owned()))
}

/// What follows `results` of a reference: the name of the result and what is taken of it (`[*]`, `[2]`, `.key`).
pub fn parse_result(rest: &str, is_declared: impl Fn(&str) -> bool) -> (String, String) {
    for quote in ['\'', '"'] {
        if let Some(inner) = rest.strip_prefix(&format!("[{quote}"))
            && let Some((name, after)) = inner.split_once(&format!("{quote}]"))
        {
            return (name.to_owned(), after.to_owned());
        }
    }
    let end = rest.find('[').unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    if !is_declared(name)
        && let Some((object, key)) = name.rsplit_once('.')
    {
        return (object.to_owned(), format!(".{key}{after}"));
    }
    (name.to_owned(), after.to_owned())
}

/// All that the texts of a value refer to in other tasks.
pub fn result_references(value: &Value) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    walk(value, &mut |text| found.extend(variables(text).filter_map(|(_, name)| Reference::parse(name))));
    found
}

/// All variables of the texts of a value.
pub fn names(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(value, &mut |text| found.extend(variables(text).map(|(_, name)| name.to_owned())));
    found
}

fn walk(value: &Value, seen: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => seen(text),
        Value::Array(items) => items.iter().for_each(|item| walk(item, seen)),
        Value::Object(map) => map.values().for_each(|item| walk(item, seen)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_to_tasks_are_told_apart() {
        let result = |task: &str, rest: &str| Some(Reference::Result { task: task.into(), rest: rest.into() });
        for (variable, expected) in [
            ("tasks.a.results.r", result("a", "r")),
            ("tasks.a.results.r[*]", result("a", "r[*]")),
            ("tasks.a.results['r.s'][1]", result("a", "['r.s'][1]")),
            ("tasks.a.results.o.key", result("a", "o.key")),
            ("tasks.status", Some(Reference::Overall)),
            ("tasks.a.status", Some(Reference::Status { task: "a".into() })),
            ("tasks.a.reason", Some(Reference::Status { task: "a".into() })),
            ("tasks.a.matrix.length", Some(Reference::Length { task: "a".into(), result: None })),
            ("tasks.a.matrix.r.length", Some(Reference::Length { task: "a".into(), result: Some("r".into()) })),
            ("finally.f.results.r", Some(Reference::FinallyResult { task: "f".into(), rest: "r".into() })),
            ("tasks.a.outputs", Some(Reference::Artifact { task: "a".into() })),
            ("tasks.a.inputs.source", Some(Reference::Artifact { task: "a".into() })),
            ("tasks.a", None),
            ("tasks.a.other", None),
            ("params.tasks.a.results.r", None),
            ("context.task2.status", None),
        ] {
            assert_eq!(Reference::parse(variable), expected, "{variable}");
        }
    }

    #[test]
    fn the_name_of_a_result_is_told_from_what_is_taken_of_it() {
        let declared = |name: &str| ["r", "a.b"].contains(&name);
        for (rest, name, part) in [
            ("r", "r", ""),
            ("r[*]", "r", "[*]"),
            ("r[2]", "r", "[2]"),
            ("r.key", "r", ".key"),
            ("a.b", "a.b", ""),
            ("a.b.key", "a.b", ".key"),
            ("['a.b'][0]", "a.b", "[0]"),
            ("[\"r\"].key", "r", ".key"),
        ] {
            assert_eq!(parse_result(rest, declared), (name.to_owned(), part.to_owned()), "{rest}");
        }
    }

    #[test]
    fn references_are_found_wherever_a_text_stands() {
        let value = json!({"params": [{"value": "$(tasks.a.results.x)$(tasks.b.results.y)"}], "n": 3, "l": ["$(tasks.a.status)"]});
        let tasks: Vec<String> = result_references(&value).iter().filter_map(|r| r.task().map(str::to_owned)).collect();
        assert_eq!(tasks, ["a", "b", "a"]);
    }
}
