//! What a template sees: the data of one task instance, made into template values when asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr};
use pitcrew_core::engine::{Outputs, Run, Slot};
use pitcrew_core::ir::{TaskIx, Workflow};
use pitcrew_core::{TaskId, Timestamp};
use serde_json::Value as Json;

use super::evaluate::Evaluator;
use super::roots::ROOTS;
use super::{Analysis, Reference, Variables, date, is_template, values};

/// Renders templates as one task instance sees the run.
pub struct Rendering<'r> {
    pub(super) evaluator: &'r Evaluator,
    pub(super) run: &'r Run,
    pub(super) slot: Slot,
    secrets: Option<SecretForm>,
    /// Values that were made already.
    made: RefCell<BTreeMap<&'static str, Value>>,
}

impl<'r> Rendering<'r> {
    pub(super) fn new(evaluator: &'r Evaluator, run: &'r Run, slot: Slot) -> Self {
        Rendering { evaluator, run, slot, secrets: None, made: RefCell::default() }
    }

    /// Allows `secret('…')`, and says what stands for the secret of that name; without, it is an error.
    pub fn with_secrets(mut self, form: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static) -> Self {
        self.secrets = Some(SecretForm(Arc::new(form)));
        self
    }

    /// Renders a text. What is no template comes back as it is.
    pub fn text(&self, text: &str) -> Result<String, String> {
        if !is_template(text) {
            return Ok(text.to_owned());
        }
        self.evaluator.fill(text, |analysis| self.context(analysis)).map_err(|why| self.explain(text, why))
    }

    /// Renders every text inside a value. A text that is one expression becomes the value of that expression.
    pub fn value(&self, value: &Json) -> Result<Json, String> {
        Ok(match value {
            Json::String(text) if is_template(text) => {
                let value = self.evaluator.value(text, |analysis| self.context(analysis));
                value.map_err(|why| self.explain(text, why))?
            }
            Json::Array(items) => Json::Array(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?),
            Json::Object(map) => Json::Object(
                map.iter().map(|(key, item)| Ok((key.clone(), self.value(item)?))).collect::<Result<_, String>>()?,
            ),
            other => other.clone(),
        })
    }

    /// The truth of a condition, with or without braces.
    pub fn flag(&self, condition: &str) -> Result<bool, String> {
        let value = if is_template(condition) {
            self.value(&Json::String(condition.to_owned()))?
        } else {
            self.value(&Json::String(format!("{{{{ {condition} }}}}")))?
        };
        Ok(super::is_truthy(&value))
    }

    /// Adds to an error what there is instead, if an output or a variable is not there.
    fn explain(&self, text: &str, why: String) -> String {
        let Ok(analysis) = self.evaluator.analysis(text) else { return why };
        if !why.ends_with("is not defined") {
            return why;
        }
        let workflow = &self.run.workflow;
        for reference in &analysis.references {
            if let [root, name] = &reference.path[..]
                && root == "var"
                && self.evaluator.variables().get(name).is_none()
            {
                return format!("{why}: there is no variable `{name}`");
            }
            if let [root, id, rest @ ..] = &reference.path[..]
                && root == "conn"
            {
                return match (self.evaluator.variables().connection(id), rest) {
                    (None, _) => format!("{why}: there is no connection `{id}`"),
                    (Some(Ok(_)), [field, ..]) => format!("{why}: the connection `{id}` has no `{field}`"),
                    _ => why,
                };
            }
            let Some((ix, length)) = find_task(workflow, self.slot.task, &reference.path[1..]) else { continue };
            let [field, output, ..] = &reference.path[1 + length..] else { continue };
            let upstream = self.run.upstream(self.slot, ix);
            let given: Vec<&str> = match &upstream.outputs {
                Outputs::One(outputs) => outputs.keys().map(String::as_str).collect(),
                Outputs::Many(instances) => {
                    instances.first().into_iter().flat_map(|o| o.keys().map(String::as_str)).collect()
                }
            };
            if reference.path[0] == "tasks" && field == "outputs" && !given.contains(&output.as_str()) {
                let task = &workflow.task(ix).id;
                return match given.len() {
                    0 => format!("{why}: the task `{task}` is {} and gave no outputs", upstream.state),
                    _ => format!("{why}: the task `{task}` gave {}", crate::diagnostic::listing(given, "and")),
                };
            }
        }
        why
    }

    /// The values that a template refers to, and no others.
    fn context(&self, analysis: &Analysis) -> Value {
        let mut roots: BTreeMap<&'static str, Value> = BTreeMap::new();
        for reference in &analysis.references {
            let Some(root) = ROOTS.iter().find(|root| reference.path.first().is_some_and(|name| name == *root)) else {
                continue;
            };
            if *root != "tasks" && !roots.contains_key(root) {
                let value = self.made.borrow().get(root).cloned();
                let value = value.unwrap_or_else(|| {
                    let value = self.root(root);
                    self.made.borrow_mut().insert(root, value.clone());
                    value
                });
                roots.insert(root, value);
            }
        }
        let tasks: Vec<&Reference> = analysis.references.iter().filter(|r| r.path[0] == "tasks").collect();
        if !tasks.is_empty() {
            roots.insert("tasks", self.tasks(&tasks));
        }
        if let Some(form) = &self.secrets {
            roots.insert(SECRETS, Value::from_object(form.clone()));
        }
        Value::from_pairs(roots)
    }

    fn root(&self, name: &str) -> Value {
        let record = &self.run.record;
        let logical = record.logical_date.unwrap_or(record.run_after);
        let optional = |at: Option<Timestamp>| at.map_or(Value::from(()), date::Date::value);
        let interval = record.data_interval;
        match name {
            "params" => values::from_map(&record.params),
            "conf" => values::from_map(&record.conf),
            "ds" => Value::from(date::text(logical, date::DS)),
            "ds_nodash" => Value::from(date::text(logical, date::DS_NODASH)),
            "ts" => Value::from(date::text(logical, date::TS)),
            "ts_nodash" => Value::from(date::text(logical, date::TS_NODASH)),
            "logical_date" => date::Date::value(logical),
            "data_interval_start" => optional(interval.map(|(start, _)| start)),
            "data_interval_end" => optional(interval.map(|(_, end)| end)),
            "map_index" => Value::from(self.run.map_index(self.slot)),
            "attempt" | "try_number" => Value::from(self.run.get(self.slot).map_or(0, |i| i.attempt)),
            "item" => self.run.get(self.slot).and_then(|i| i.item.as_ref()).map_or(Value::UNDEFINED, values::from_json),
            "outputs" => self.run.get(self.slot).map_or(Value::UNDEFINED, |i| output_map(&i.outputs)),
            "conn" => Value::from_object(Connections(self.evaluator.variables())),
            "var" => Value::from_object(VariableValues { source: self.evaluator.variables(), form: Form::AsIs }),
            "task" => {
                let task = self.run.workflow.task(self.slot.task);
                let group =
                    task.group.map_or(Value::from(()), |group| Value::from(self.run.workflow.group(group).id.as_str()));
                Value::from_pairs([
                    ("id", Value::from(task.id.as_str())),
                    ("group", group),
                    ("description", Value::from(task.description.as_str())),
                ])
            }
            "run" => Value::from_pairs([
                ("id", Value::from(record.run_id.as_str())),
                ("key", Value::from(record.key.0)),
                ("workflow", Value::from(record.workflow.as_str())),
                ("type", Value::from(record.run_type.name())),
                ("logical_date", optional(record.logical_date)),
                ("data_interval_start", optional(interval.map(|(start, _)| start))),
                ("data_interval_end", optional(interval.map(|(_, end)| end))),
                ("triggered_by", Value::from(record.triggered_by.as_str())),
                ("url", Value::from(self.evaluator.run_url(record))),
                ("start", optional(record.start)),
            ]),
            "dag_run" => Value::from_pairs([
                ("conf", values::from_map(&record.conf)),
                ("run_id", Value::from(record.run_id.as_str())),
                ("dag_id", Value::from(record.workflow.as_str())),
                ("run_type", Value::from(record.run_type.name())),
                ("logical_date", optional(record.logical_date)),
                ("data_interval_start", optional(interval.map(|(start, _)| start))),
                ("data_interval_end", optional(interval.map(|(_, end)| end))),
                ("start_date", optional(record.start)),
            ]),
            _ => Value::UNDEFINED,
        }
    }

    /// `tasks` with just the tasks that are referred to; with all of them where a name is only known at run time.
    fn tasks(&self, references: &[&Reference]) -> Value {
        let workflow = &self.run.workflow;
        let mut tree = Tree::default();
        if references.iter().any(|r| find_task(workflow, self.slot.task, &r.path[1..]).is_none()) {
            for ix in workflow.indices() {
                tree.put(&[workflow.task(ix).id.to_string()], self.task(ix));
            }
            // Names that are near come last and win, as in `needs`.
            for ix in workflow.indices() {
                if let Some(near) = near_name(workflow, self.slot.task, ix) {
                    tree.put(&[near], self.task(ix));
                }
            }
        }
        for reference in references {
            if let Some((ix, length)) = find_task(workflow, self.slot.task, &reference.path[1..]) {
                tree.put(&reference.path[1..=length], self.task(ix));
            }
        }
        tree.value()
    }

    fn task(&self, ix: TaskIx) -> Value {
        if ix == self.slot.task
            && let Some(own) = self.run.get(self.slot)
        {
            return task_value(own.state.name(), output_map(&own.outputs));
        }
        let upstream = self.run.upstream(self.slot, ix);
        let outputs = match &upstream.outputs {
            Outputs::One(outputs) => output_map(outputs),
            // Of a mapped task: each output is the list of its instances' values.
            Outputs::Many(instances) => {
                let names: std::collections::BTreeSet<&String> = instances.iter().flat_map(|o| o.keys()).collect();
                Value::from_pairs(names.into_iter().map(|name| {
                    let list: Vec<Value> =
                        instances.iter().map(|o| o.get(name).map_or(Value::from(()), values::from_json)).collect();
                    (name.as_str(), Value::from(list))
                }))
            }
        };
        task_value(upstream.state.name(), outputs)
    }
}

fn task_value(state: &str, outputs: Value) -> Value {
    Value::from_pairs([("state", Value::from(state)), ("outputs", outputs)])
}

fn output_map(outputs: &BTreeMap<String, Json>) -> Value {
    Value::from_pairs(outputs.iter().map(|(name, value)| (name.as_str(), values::from_json(value))))
}

/// The task that the beginning of a path names, as seen from `viewer`, and how many parts its name takes. Names in
/// the viewer's own groups come first, as in `needs`.
pub fn find_task(workflow: &Workflow, viewer: TaskIx, path: &[String]) -> Option<(TaskIx, usize)> {
    let mut group = workflow.task(viewer).group;
    loop {
        let prefix = group.map(|at| workflow.group(at).id.as_str());
        let mut name = prefix.map(str::to_owned).unwrap_or_default();
        for (number, part) in path.iter().enumerate() {
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(part);
            if let Ok(id) = TaskId::new(&name)
                && let Some(ix) = workflow.by_name.get(&id)
            {
                return Some((*ix, number + 1));
            }
        }
        group = workflow.group(group?).parent;
    }
}

/// The short name of a task for one in the same group or further in.
fn near_name(workflow: &Workflow, viewer: TaskIx, ix: TaskIx) -> Option<String> {
    let group = workflow.group(workflow.task(viewer).group?);
    let rest = workflow.task(ix).id.as_str().strip_prefix(group.id.as_str())?.strip_prefix('.')?;
    Some(rest.to_owned())
}

/// Nested names, for `tasks.group.task`.
#[derive(Default)]
struct Tree {
    value: Option<Value>,
    children: BTreeMap<String, Tree>,
}

impl Tree {
    fn put(&mut self, path: &[String], value: Value) {
        match path {
            [] => self.value = Some(value),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().put(rest, value),
        }
    }

    fn value(self) -> Value {
        match self.value {
            Some(value) => value,
            None => Value::from_pairs(self.children.into_iter().map(|(name, tree)| (name, tree.value()))),
        }
    }
}

/// `conn`: each connection by its id.
struct Connections(Arc<dyn Variables>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connections")
    }
}

impl Object for Connections {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        Some(match self.0.connection(key)? {
            Ok(fields) => values::from_json(&fields),
            Err(why) => Value::from(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why)),
        })
    }
}

/// The name under which templates have what stands for secrets; no template can write it.
pub(super) const SECRETS: &str = "__secrets";

/// See [`Rendering::with_secrets`].
#[derive(Clone)]
pub(super) struct SecretForm(pub Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>);

impl std::fmt::Debug for SecretForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("secrets")
    }
}

impl Object for SecretForm {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// `var`, `var.value` and `var.json`.
struct VariableValues {
    source: Arc<dyn Variables>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is kept.
    AsIs,
    /// As a text.
    Text,
    /// A text is read as JSON.
    Json,
}

impl std::fmt::Debug for VariableValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

impl Object for VariableValues {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let of = |form| Some(Value::from_object(VariableValues { source: self.source.clone(), form }));
        match (self.form, key) {
            (Form::AsIs, "value") => return of(Form::Text),
            (Form::AsIs, "json") => return of(Form::Json),
            _ => {}
        }
        let value = self.source.get(key)?;
        Some(match (self.form, &value) {
            (Form::Json, Json::String(text)) => match serde_json::from_str(text) {
                Ok(json) => values::from_json(&json),
                Err(error) => {
                    let message = format!("the variable `{key}` is not JSON: {error}");
                    Value::from(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
                }
            },
            (Form::Text, Json::String(_)) | (Form::AsIs | Form::Json, _) => values::from_json(&value),
            (Form::Text, other) => Value::from(other.to_string()),
        })
    }
}
