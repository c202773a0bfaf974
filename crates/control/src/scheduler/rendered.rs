//! What the templates of a task come to, for people to look at; computed anew, since no spec is kept.
//!
//! Invariant: what goes by the name of a secret is not shown, neither where it is set nor where its value stands in
//! another text.

use pitcrew_core::RunKey;
use pitcrew_core::ir::Work;
use pitcrew_exec::log::Masker;
use serde_json::Value;

use super::core_loop::Core;
use super::{AskError, Pick};
use crate::sensitive::{self, HIDDEN, is_sensitive};

/// One text of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Where it stands in the workflow: `env.NAME`, `run` of a step.
    pub place: String,
    /// Rendered, or why it cannot be.
    pub text: Result<String, String>,
}

impl Core {
    /// The texts of one instance; of a mapped task without an index, those of its first.
    pub(super) fn rendered(&self, run: RunKey, pick: &Pick) -> Result<Vec<Rendered>, AskError> {
        let slots = self.slots(run, pick)?;
        let Some(slot) = slots.first() else { return Ok(Vec::new()) };
        let run = &self.runs[&run].run;
        let shown = |name: &str| Ok(format!("secret('{name}')"));
        let rendering = self.evaluator.rendering(run, *slot).with_secrets(shown);
        let task = run.workflow.task(slot.task);
        let secrets = self.known.values_of(is_sensitive);
        let masker = Masker::new(secrets.iter().map(String::as_str));
        let mask = |text: String| masker.as_ref().map_or(text.clone(), |masker| masker.text(&text));
        let mut texts = Vec::new();
        let mut add = |place: String, text: Result<String, String>| {
            texts.push(Rendered { place, text: text.map(&mask).map_err(&mask) });
        };
        for (name, value) in run.workflow.env.iter().chain(&task.env) {
            let text = if is_sensitive(name) { Ok(HIDDEN.to_owned()) } else { rendering.text(value) };
            add(format!("env.{name}"), text);
        }
        if let Some(Value::Object(place)) = &task.place {
            for (key, value) in place {
                let text =
                    rendering.value(value).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                add(format!("backend.ssh.{key}"), text);
            }
        }
        if let Some(workdir) = &task.workdir {
            add("workdir".to_owned(), rendering.text(workdir));
        }
        if let Some(from) = &task.resume_from {
            add("resume_from".to_owned(), rendering.text(from));
        }
        match &task.work {
            Work::Noop | Work::Pod { .. } => {}
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
                let text = rendering.value(with).and_then(|mut with| {
                    sensitive::hide(&mut with);
                    serde_json::to_string_pretty(&with).map_err(|error| error.to_string())
                });
                add(format!("with, for {uses}"), text);
            }
        }
        Ok(texts)
    }
}
