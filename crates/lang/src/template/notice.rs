//! Templates of notifications: the same Jinja and the same budget, over the facts of one notice instead of a run.

use serde_json::Value;

use super::{Evaluator, analyse, is_template, values};
use crate::diagnostic::{did_you_mean, listing};

/// What a template of a notification may name.
pub const NAMES: &[&str] = &["event", "title", "workflow", "run", "tasks"];

/// Checks a template before it is needed. The error is what is wrong and, if there is an advice, what to do.
pub fn check(text: &str) -> Result<(), (String, Option<String>)> {
    if !is_template(text) {
        return Ok(());
    }
    let analysis = analyse(text).map_err(|complaint| (complaint.message, complaint.hint))?;
    if let Some(complaint) = analysis.complaints.into_iter().next() {
        return Err((complaint.message, complaint.hint));
    }
    let unknown = analysis.references.iter().map(|r| r.path[0].as_str()).find(|name| !NAMES.contains(name));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let known = || format!("a notification has {}", listing(NAMES.iter().copied(), "and"));
            let hint = did_you_mean(name, NAMES.iter().copied()).unwrap_or_else(known);
            Err((format!("there is no `{name}` in a notification"), Some(hint)))
        }
    }
}

/// Fills a template in; `facts` is an object with [`NAMES`]. The error is a sentence.
pub fn fill(text: &str, facts: &Value) -> Result<String, String> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    Evaluator::default().fill(text, |_| values::from_json(facts))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_checked_before_and_values_filled_in_after() {
        assert_eq!(check("{{ run.id }}: {{ tasks | length }} {{ title }}"), Ok(()));
        let (message, hint) = check("{{ task.name }}").unwrap_err();
        assert_eq!(
            (message.as_str(), hint.as_deref()),
            ("there is no `task` in a notification", Some("did you mean `tasks`?"))
        );
        assert!(check("{{ run.id ").is_err());
        assert!(check("{{ run.id | nonsense }}").is_err());
        let facts = json!({"run": {"id": "<r>"}, "tasks": [{"name": "a"}, {"name": "b"}]});
        let text = fill("{{ run.id }}: {% for t in tasks %}{{ t.name }};{% endfor %}", &facts);
        assert_eq!(text.unwrap(), "<r>: a;b;");
        assert!(fill("{{ run.nothing }}", &facts).unwrap_err().contains("not defined"));
        assert!(
            fill("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", &facts).is_err()
        );
    }
}
