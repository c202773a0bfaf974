//! What the templates of a task come to, for people to look at; computed anew, since no spec is kept.
//!
//! Invariant: what goes by the name of a secret is not shown, neither where it is set nor where its value stands in
//! another text.

use pitcrew_core::RunKey;
use pitcrew_core::ir::Work;
use serde_json::Value;

use super::core_loop::Core;
use super::{AskError, Pick};

/// Stands for what is not shown.
const HIDDEN: &str = "***";

/// One text of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Where it stands in the workflow: `env.NAME`, `run` of a step.
    pub place: String,
    /// Rendered, or why it cannot be.
    pub text: Result<String, String>,
}

/// Whether a value of that name is better not shown.
pub fn is_sensitive(name: &str) -> bool {
    const WORDS: [&str; 9] =
        ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "private_key", "credential"];
    let name = name.to_ascii_lowercase().replace('-', "_");
    WORDS.iter().any(|word| name.contains(word))
}

impl Core {
    /// The texts of one instance; of a mapped task without an index, those of its first.
    pub(super) fn rendered(&self, run: RunKey, pick: &Pick) -> Result<Vec<Rendered>, AskError> {
        let slots = self.slots(run, pick)?;
        let Some(slot) = slots.first() else { return Ok(Vec::new()) };
        let run = &self.runs[&run].run;
        let rendering = self.evaluator.rendering(run, *slot);
        let task = run.workflow.task(slot.task);
        let secrets = self.variables.values_of(is_sensitive);
        let mask = |text: String| secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), HIDDEN));
        let mut texts = Vec::new();
        let mut add = |place: String, text: Result<String, String>| {
            texts.push(Rendered { place, text: text.map(&mask).map_err(&mask) });
        };
        for (name, value) in run.workflow.env.iter().chain(&task.env) {
            let text = if is_sensitive(name) { Ok(HIDDEN.to_owned()) } else { rendering.text(value) };
            add(format!("env.{name}"), text);
        }
        if let Some(workdir) = &task.workdir {
            add("workdir".to_owned(), rendering.text(workdir));
        }
        match &task.work {
            Work::Noop => {}
            Work::Steps(steps) => {
                for step in steps {
                    for (name, value) in &step.env {
                        let text = if is_sensitive(name) { Ok(HIDDEN.to_owned()) } else { rendering.text(value) };
                        add(format!("{}: env.{name}", step.name), text);
                    }
                    add(format!("{}: run", step.name), rendering.text(&step.run));
                }
            }
            Work::Action { uses, with } => {
                let text = rendering
                    .value(with)
                    .map(hide)
                    .and_then(|with| serde_json::to_string_pretty(&with).map_err(|error| error.to_string()));
                add(format!("with, for {uses}"), text);
            }
        }
        Ok(texts)
    }
}

/// Without the values of keys that name a secret.
fn hide(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let hidden = |key: &String, value| if is_sensitive(key) { HIDDEN.into() } else { hide(value) };
            Value::Object(map.into_iter().map(|(key, value)| (key.clone(), hidden(&key, value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(hide).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_named_like_a_secret_is_hidden_wherever_it_stands() {
        let shown = hide(json!({ "url": "x", "headers": [{ "Auth-Token": "t", "n": 1 }], "db_password": { "a": 1 } }));
        assert_eq!(shown, json!({ "url": "x", "headers": [{ "Auth-Token": "***", "n": 1 }], "db_password": "***" }));
    }
}
