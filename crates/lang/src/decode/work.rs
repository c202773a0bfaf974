//! What a task does: `run`, `steps`, `uses` with `with`, or nothing; and `outputs`.

use pitcrew_core::TaskId;
use pitcrew_core::ir::{OutputDecl, OutputParse, OutputSource, Step, Work};
use serde_json::Value;

use super::{Decoder, Owner, Role, keys};
use crate::diagnostic::{Place, meant_or_known};
use crate::schema_check;
use crate::yaml::{Entry, Key, Node};

impl Decoder<'_, '_> {
    pub fn work(&mut self, body: &[Entry], task: &Key, owner: Owner) -> Work {
        let find = |key: &str| body.iter().find(|e| &*e.key.text == key);
        let (run, steps, uses) = (find("run"), find("steps"), find("uses"));
        let given: Vec<&Entry> = [run, steps, uses].into_iter().flatten().collect();
        if let [first, second, ..] = given[..] {
            let hint = format!(
                "keep one of them; `steps` is for several scripts in one task (`{}` is in line {})",
                first.key.text, first.key.at.line
            );
            self.r.error_hint(
                second.key.at,
                format!("a task has either `{}` or `{}`", first.key.text, second.key.text),
                hint,
            );
        }
        if let (Some(with), None) = (find("with"), uses) {
            self.r.error_hint(
                with.key.at,
                "`with` without `uses` has no meaning",
                "name an action: `uses: git.checkout`",
            );
        }
        let shell = match find("shell") {
            Some(entry) if run.is_none() && steps.is_none() => {
                self.r.error_hint(entry.key.at, "`shell` without `run` or `steps` has no meaning", "leave it out");
                None
            }
            Some(entry) => self.shell(&entry.value),
            None => None,
        };
        let shell = shell.unwrap_or_else(|| self.defaults.shell.clone());
        match (run, steps, uses) {
            (Some(run), _, _) => self.run(&run.value, shell, owner),
            (None, Some(steps), _) => self.steps(&steps.value, shell, owner),
            (None, None, Some(uses)) => self.action(uses, find("with"), task, owner),
            (None, None, None) => Work::Noop,
        }
    }

    fn run(&mut self, node: &Node, shell: Vec<String>, owner: Owner) -> Work {
        let Some(run) = self.script(node, owner) else { return Work::Noop };
        Work::Steps(vec![Step {
            name: "run".into(),
            run,
            shell,
            env: Default::default(),
            workdir: None,
            timeout: None,
            continue_on_error: false,
        }])
    }

    fn script(&mut self, node: &Node, owner: Owner) -> Option<String> {
        if node.as_list().is_some() {
            let hint = "for several commands write `run: |` and one command per line, or use `steps`";
            self.r.error_hint(node.at, "`run` must be a text, found a list", hint);
            return None;
        }
        let text = self.template(node, "run", owner)?;
        if text.trim().is_empty() {
            self.r.error_hint(
                node.at,
                "`run` is empty",
                "write a command, or leave `run` out for a task that does nothing",
            );
            return None;
        }
        Some(text)
    }

    fn steps(&mut self, node: &Node, shell: Vec<String>, owner: Owner) -> Work {
        let Some(items) = node.as_list().filter(|items| !items.is_empty()) else {
            self.mismatch(node, "`steps`", "a list of steps such as `- run: make`");
            return Work::Noop;
        };
        let mut steps: Vec<Step> = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let Some(step) = self.step(item, number + 1, &shell, owner) else { continue };
            if steps.iter().any(|other| other.name == step.name) {
                let at = item.get("name").map_or(item.at, |name| name.at);
                self.r.error_hint(at, format!("the step `{}` is there twice", step.name), "give it another `name`");
            }
            steps.push(step);
        }
        Work::Steps(steps)
    }

    fn step(&mut self, node: &Node, number: usize, shell: &[String], owner: Owner) -> Option<Step> {
        let mut step = Step {
            name: format!("step-{number}"),
            run: String::new(),
            shell: shell.to_vec(),
            env: Default::default(),
            workdir: None,
            timeout: None,
            continue_on_error: false,
        };
        let Some(entries) = node.as_map() else {
            // A bare text is what people write for a step that is one command.
            step.run = self.script(node, owner)?;
            return Some(step);
        };
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "name" => {
                    let name = self.text(node, "name")?;
                    if let Err(error) = TaskId::new(&name) {
                        self.r.error(node.at, error.to_string());
                    }
                    step.name = name;
                }
                "run" => step.run = self.script(node, owner).unwrap_or_default(),
                "shell" => step.shell = self.shell(node).unwrap_or_default(),
                "env" => step.env = self.env(node, owner, Role::Launch),
                "workdir" => step.workdir = self.template(node, "workdir", owner),
                "timeout" => step.timeout = self.duration(node, "timeout", true),
                "on_error" => {
                    let choices = [("fail", false), ("continue", true)];
                    step.continue_on_error = self.choice(node, "on_error", &choices).unwrap_or_default();
                }
                _ => self.unknown(&entry.key, keys::STEP, "a step"),
            }
        }
        if node.get("run").is_none() {
            self.r.error_hint(
                Place { length: 1, ..node.at },
                format!("the step `{}` has no `run`", step.name),
                "add `run: …`",
            );
        }
        Some(step)
    }

    fn action(&mut self, uses: &Entry, with: Option<&Entry>, task: &Key, owner: Owner) -> Work {
        let Some(name) = self.text(&uses.value, "uses") else { return Work::Noop };
        let empty = Node { at: task.at, yaml: crate::yaml::Yaml::Map(Vec::new()) };
        let with = match with {
            Some(entry) if entry.value.is_null() => &empty,
            Some(entry) => &entry.value,
            None => &empty,
        };
        if with.as_map().is_none() {
            self.mismatch(with, "`with`", "a mapping");
            return Work::Noop;
        }
        self.sites_in(owner, Role::Launch, with);
        let Some(value) = self.json(with) else { return Work::Noop };
        let Some(action) = self.options.actions.iter().find(|action| action.name == name) else {
            let names: Vec<&str> = self.options.actions.iter().map(|action| &*action.name).collect();
            let hint = meant_or_known(&name, &names, "the actions are")
                .or_else(|| Some("to run a script, write `run`".into()));
            self.r.error_maybe(uses.value.at, format!("unknown action `{name}`"), hint);
            return Work::Noop;
        };
        if !self.validators.contains_key(&name) {
            match schema_check::validator(&action.with_schema) {
                Ok(validator) => drop(self.validators.insert(name.clone(), validator)),
                Err(message) => {
                    self.r.error(uses.value.at, format!("the schema of the action `{name}` is broken: {message}"));
                    return Work::Noop;
                }
            }
        }
        self.check_with(&name, &action.with_schema, with, &value, uses.value.at);
        Work::Action { uses: name, with: value }
    }

    /// Reports where `with` breaks the action's schema, as far as that can be known before templates are rendered.
    fn check_with(&mut self, action: &str, schema: &Value, with: &Node, value: &Value, uses_at: Place) {
        let problems = schema_check::problems(&self.validators[action], schema, value, true);
        for problem in problems {
            let found = schema_check::place(with, &problem.path, problem.key.as_deref());
            let at = found.filter(|at| at.line > 0 && !with.as_map().is_some_and(<[_]>::is_empty)).unwrap_or(uses_at);
            let what = problem.name_in("with");
            self.r.error_maybe(at, format!("`{what}` of `{action}` {}", problem.message), problem.hint);
        }
    }

    pub fn outputs(&mut self, node: &Node, owner: Owner) -> Vec<OutputDecl> {
        let mut outputs: Vec<OutputDecl> = Vec::new();
        if let Some(items) = node.as_list() {
            for item in items {
                let Some(name) = self.text(item, "outputs") else { continue };
                if outputs.iter().any(|other| other.name == name) {
                    self.r.error(item.at, format!("the output `{name}` is there twice"));
                } else if self.output_name(&name, item.at) {
                    outputs.push(named(name));
                }
            }
            return outputs;
        }
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`outputs`", "a list of names, or a mapping of names to where they come from");
            return outputs;
        };
        for entry in entries {
            if self.output_name(&entry.key.text, entry.key.at)
                && let Some(output) = self.output(entry, owner)
            {
                outputs.push(output);
            }
        }
        outputs
    }

    fn output_name(&mut self, name: &str, at: Place) -> bool {
        let valid = TaskId::new(name).is_ok() && !name.contains('.');
        if !valid {
            let hint = "use letters, digits, `_` and `-`";
            self.r.error_hint(at, format!("`{name}` is not a name for an output"), hint);
        }
        valid
    }

    fn output(&mut self, entry: &Entry, owner: Owner) -> Option<OutputDecl> {
        let mut output = named(entry.key.text.to_string());
        if entry.value.is_null() {
            return Some(output);
        }
        let Some(entries) = entry.value.as_map() else {
            let hint =
                "for example `{from: stdout, parse: json}`, or nothing for a `name=value` line in `$PITCREW_OUTPUT`";
            let message = format!("the output `{}` must be a mapping, found {}", output.name, entry.value.describe());
            self.r.error_hint(entry.value.at, message, hint);
            return None;
        };
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "from" => output.from = self.source(node, owner)?,
                "parse" => {
                    let choices = [
                        ("text", OutputParse::Text),
                        ("json", OutputParse::Json),
                        ("yaml", OutputParse::Yaml),
                        ("lines", OutputParse::Lines),
                    ];
                    output.parse = self.choice(node, "parse", &choices)?;
                }
                "required" => output.required = self.flag(node, "required")?,
                _ => self.unknown(&entry.key, keys::OUTPUT, "an output"),
            }
        }
        Some(output)
    }

    /// `stdout`, `named`, or the path of a file.
    fn source(&mut self, node: &Node, owner: Owner) -> Option<OutputSource> {
        let text = self.template(node, "from", owner)?;
        let inside = |path: &str| !path.starts_with('/') && !path.split('/').any(|part| part == "..");
        match &*text {
            "stdout" => Some(OutputSource::Stdout),
            "named" => Some(OutputSource::Named),
            "" => {
                self.mismatch(node, "`from`", "`stdout`, `named` or the path of a file");
                None
            }
            path if !inside(path) => {
                let hint = "the path is relative to the run's workspace, and stays inside it";
                self.r.error_hint(node.at, format!("the file `{path}` is outside the run's workspace"), hint);
                None
            }
            _ => Some(OutputSource::File(text)),
        }
    }
}

fn named(name: String) -> OutputDecl {
    OutputDecl { name, from: OutputSource::Named, parse: OutputParse::Text, required: true }
}
