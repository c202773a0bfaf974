//! The evaluator: compiles and caches templates, and answers the engine's questions about a run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use minijinja::{Environment, Error, ErrorKind, Value};
use pitcrew_core::engine::record::{RunRecord, SkipReason};
use pitcrew_core::engine::{Answer, Demand, Evaluate, Run, Slot};
use pitcrew_core::fleet::{Amount, BACKEND_LABEL, Gpus, Request, check_queue};
use pitcrew_core::ir::{BackendKind, Foreach, MapUnit, Shape, TaskIx, When};
use serde_json::{Map, Value as Json};

use super::context::{Rendering, find_task};
use super::environment::{Limited, MAX_RENDERED};
use super::{Analysis, Variables, analyse, environment, values};
use crate::{place, quantity};

/// Templates kept compiled; beyond that the cache starts anew.
const MAX_CACHED: usize = 4_096;
/// The name under which the value of a lone expression is kept.
const RESULT: &str = "__value";

/// Renders templates; one for a whole server. Cheap to share, safe to use from many threads.
pub struct Evaluator {
    environment: RwLock<Environment<'static>>,
    known: Mutex<HashMap<String, Arc<Analysis>>>,
    variables: Arc<dyn Variables>,
    url: Arc<dyn Fn(&RunRecord) -> String + Send + Sync>,
    /// Whose workers take tasks that name no queue and that a worker can run.
    queue: Option<String>,
}

impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Evaluator")
    }
}

impl Default for Evaluator {
    /// Without variables.
    fn default() -> Self {
        Evaluator::new(Arc::new(|_: &str| None))
    }
}

impl Evaluator {
    pub fn new(variables: Arc<dyn Variables>) -> Self {
        let url = Arc::new(|_: &RunRecord| String::new());
        Evaluator { environment: RwLock::new(environment::new()), known: Mutex::default(), variables, url, queue: None }
    }

    /// Sets what `run.url` is; without it, it is an empty text.
    pub fn with_run_url(mut self, url: impl Fn(&RunRecord) -> String + Send + Sync + 'static) -> Self {
        self.url = Arc::new(url);
        self
    }

    /// Sends tasks that name no queue to this one.
    pub fn with_default_queue(mut self, queue: Option<String>) -> Self {
        self.queue = queue;
        self
    }

    /// Renders as the instance at `slot` sees the run.
    pub fn rendering<'r>(&'r self, run: &'r Run, slot: Slot) -> Rendering<'r> {
        Rendering::new(self, run, slot)
    }

    pub(super) fn variables(&self) -> Arc<dyn Variables> {
        self.variables.clone()
    }

    pub(super) fn run_url(&self, record: &RunRecord) -> String {
        (self.url)(record)
    }

    /// Fills a template in.
    pub(super) fn fill(&self, text: &str, context: impl FnOnce(&Analysis) -> Value) -> Result<String, String> {
        let analysis = self.analysis(text)?;
        let mut out = Vec::with_capacity(text.len());
        self.render(&analysis.text, context(&analysis), &mut out, |_| ()).map_err(|e| explain(&e, &analysis.text))?;
        String::from_utf8(out).map_err(|_| "the result is not UTF-8".into())
    }

    /// The value of a template that is one expression, or else the text it becomes.
    pub(crate) fn value(&self, text: &str, context: impl FnOnce(&Analysis) -> Value) -> Result<Json, String> {
        let analysis = self.analysis(text)?;
        let Some(expression) = &analysis.whole else { return self.fill(text, context).map(Json::String) };
        let source = format!("{{% set {RESULT} = ({expression}) %}}");
        let result = self
            .render(&source, context(&analysis), &mut Vec::new(), |state| state.lookup(RESULT).unwrap_or_default())
            .map_err(|error| explain(&error, &source))?;
        if result.is_undefined() {
            let expression = expression.replace("['", ".").replace("']", "");
            return Err(format!("`{expression}` is not defined"));
        }
        values::to_json(&result).map_err(|why| format!("`{expression}`: {why}"))
    }

    pub(super) fn analysis(&self, text: &str) -> Result<Arc<Analysis>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(analysis) = known.get(text) {
            return Ok(analysis.clone());
        }
        let analysis = analyse(text).map_err(|complaint| complaint.message)?;
        if let Some(complaint) = analysis.complaints.first() {
            return Err(complaint.message.clone());
        }
        if known.len() >= MAX_CACHED {
            known.clear();
        }
        Ok(known.entry(text.to_owned()).or_insert(Arc::new(analysis)).clone())
    }

    fn render<T>(
        &self,
        source: &str,
        context: Value,
        out: &mut Vec<u8>,
        take: impl FnOnce(&minijinja::State<'_, '_>) -> T,
    ) -> Result<T, Error> {
        {
            let environment = self.environment.read().unwrap_or_else(PoisonError::into_inner);
            // A source is its own name.
            if let Ok(template) = environment.get_template(source) {
                return template.render_captured_to(context, Limited(out)).map(|done| take(done.state()));
            }
        }
        let mut environment = self.environment.write().unwrap_or_else(PoisonError::into_inner);
        if environment.templates().count() >= MAX_CACHED {
            environment.clear_templates();
        }
        environment.add_template_owned(source.to_owned(), source.to_owned())?;
        environment.get_template(source)?.render_captured_to(context, Limited(out)).map(|done| take(done.state()))
    }
}

/// An error in our words, with the part of the template that it is about.
fn explain(error: &Error, source: &str) -> String {
    let part = error.range().and_then(|range| part(source, range));
    match (error.kind(), error.detail(), part) {
        (ErrorKind::UndefinedError, _, Some(part)) => format!("{part} is not defined"),
        (ErrorKind::UndefinedError, _, None) => "a name in it is not defined".into(),
        (ErrorKind::OutOfFuel, _, _) => "the template takes too many steps".into(),
        (ErrorKind::WriteFailure, _, _) => format!("the text grows beyond {} MiB", MAX_RENDERED >> 20),
        (_, Some(detail), Some(part)) => format!("{part}: {detail}"),
        (_, Some(detail), None) => detail.to_owned(),
        (kind, None, Some(part)) => format!("{part}: {kind}"),
        (kind, None, None) => kind.to_string(),
    }
}

/// The part of the template that an error is about, as its author wrote it.
fn part(source: &str, range: std::ops::Range<usize>) -> Option<String> {
    let before = source.get(..range.start)?;
    // The engine points at the last step of a path; the whole path says more.
    let in_path = |c: char| c.is_ascii_alphanumeric() || "_.-'[]".contains(c);
    let start = if source[range.start..].starts_with(['.', '[']) {
        before.trim_end_matches(in_path).len()
    } else {
        range.start
    };
    let part = source.get(start..range.end)?.trim().replace("['", ".").replace("']", "");
    (!part.is_empty()).then(|| format!("`{part}`"))
}

impl Evaluate for Evaluator {
    fn when(&self, run: &Run, slot: Slot) -> Result<Answer, String> {
        match &run.workflow.task(slot.task).when {
            None => Ok(Answer::Go),
            Some(When::Expression(when)) => {
                let flag = self.rendering(run, slot).flag(when);
                let flag = flag.map_err(|why| format!("`when` cannot be evaluated: {why}"))?;
                Ok(if flag { Answer::Go } else { Answer::Skip(SkipReason::When) })
            }
            Some(When::Guard(_)) => Err("`when` cannot be evaluated: it is of another language".to_owned()),
        }
    }

    fn items(&self, run: &Run, unit: MapUnit) -> Result<Vec<Json>, String> {
        let workflow = &run.workflow;
        let (foreach, viewer) = match unit {
            MapUnit::Task(ix) => (workflow.task(ix).foreach.as_ref(), Some(ix)),
            MapUnit::Group(group) => {
                (workflow.group(group).foreach.as_ref(), workflow.unit_tasks(unit).first().copied())
            }
        };
        let (Some(foreach), Some(viewer)) = (foreach, viewer) else { return Ok(Vec::new()) };
        let rendering = self.rendering(run, Slot::new(viewer, 0));
        let mut lists = Vec::with_capacity(foreach.axes.len());
        for (name, axis) in &foreach.axes {
            let key = if name.is_empty() { "foreach".to_owned() } else { format!("foreach.{name}") };
            let value = rendering.value(axis).map_err(|why| format!("`{key}` cannot be evaluated: {why}"))?;
            lists.push((
                name.as_str(),
                list(value).map_err(|found| format!("`{key}` must give a list, found {found}"))?,
            ));
        }
        combine(foreach, lists)
    }

    fn branch(&self, run: &Run, slot: Slot) -> Result<Vec<String>, String> {
        let Some(branch) = &run.workflow.task(slot.task).branch else { return Ok(Vec::new()) };
        let value = self
            .rendering(run, slot)
            .value(&Json::String(branch.clone()))
            .map_err(|why| format!("`branch` cannot be evaluated: {why}"))?;
        let names = match value {
            Json::Null => Vec::new(),
            Json::String(name) => vec![name],
            Json::Array(names) => names
                .into_iter()
                .map(|name| {
                    name.as_str().map(str::to_owned).ok_or_else(|| format!("`branch` must give names, found {name}"))
                })
                .collect::<Result<_, _>>()?,
            other => {
                return Err(format!(
                    "`branch` must give a name or a list of names, found {}",
                    crate::schema_check::show(&other)
                ));
            }
        };
        let mut followed = Vec::new();
        for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            followed.extend(directions(run, slot.task, name));
        }
        Ok(followed)
    }

    fn demand(&self, run: &Run, slot: Slot) -> Result<Demand, String> {
        let task = run.workflow.task(slot.task);
        // Members of a gang ask for the same: what the first asks for.
        let slot = if task.gang.is_some() { Slot::new(slot.task, 0) } else { slot };
        let (resources, placement) = (&task.resources, &task.placement);
        let rendering = self.rendering(run, slot);
        let render = |key: &str, value: &Json| -> Result<Json, String> {
            rendering.value(value).map_err(|why| format!("`resources.{key}` cannot be evaluated: {why}"))
        };
        let amount = |key: &str, value: &Option<Json>| value.as_ref().map(|value| render(key, value)).transpose();
        let named = |key: &'static str| move |why: String| format!("`resources.{key}`: {why}");
        let (gpu, cpu) = (amount("gpu", &resources.gpu)?, amount("cpu", &resources.cpu)?);
        let memory = amount("memory", &resources.memory)?;
        let cpu_milli = cpu.as_ref().map(quantity::parse_cpu).transpose().map_err(named("cpu"))?;
        let memory_bytes = memory.as_ref().map(quantity::parse_memory).transpose().map_err(named("memory"))?;
        let gpu = gpu.as_ref().map(quantity::parse_gpus).transpose().map_err(named("gpu"))?;
        let (gpus, models) = gpu.unwrap_or_default();
        let mut request = Request {
            cpu: Amount::milli(cpu_milli.unwrap_or_default()),
            memory_mib: memory_bytes.unwrap_or_default().div_ceil(1 << 20),
            gpus,
            models,
            required: placement.required.clone(),
            preferred: placement.preferred.clone(),
            ..Request::default()
        };
        for (name, value) in &resources.custom {
            let value = render(name, value)?;
            let amount = quantity::parse_amount(&value).map_err(|why| format!("`resources.{name}`: {why}"))?;
            request.custom.insert(name.clone(), amount);
        }
        for (label, value) in &placement.node_selector {
            let value = rendering.text(value).map_err(|why| format!("`node_selector.{label}`: {why}"))?;
            request.node_selector.insert(label.clone(), value);
        }
        if task.backend == BackendKind::Local && placement.may_queue {
            let named = placement.queue.as_ref().map(|queue| rendering.text(queue)).transpose();
            let named = named.map_err(|why| format!("`queue`: {why}"))?;
            if let Some(name) = &named {
                check_queue(name).map_err(|why| format!("`queue`: `{name}` is no name of a queue: {why}"))?;
            }
            request.queue = named.or_else(|| self.queue.clone());
        }
        // These have nodes and a placement of their own.
        if matches!(task.backend, BackendKind::Ecs | BackendKind::Kubernetes) {
            return Ok(Demand { request: None, cpu_milli, memory_bytes });
        }
        // A task that names its host and asks for nothing goes there, whether that is a node or not.
        let is_ssh = task.backend == BackendKind::Ssh;
        let needs_node = is_ssh && !task.place.as_ref().is_some_and(place::names_host);
        // A gang asks for a node for each member, if for nothing else.
        if request == Request::default() && !needs_node && task.gang.is_none() {
            return Ok(Demand { request: None, cpu_milli, memory_bytes });
        }
        // Cores and memory alone are no reason to go where the files of the run are not.
        let is_choosy = request.gpus != Gpus::None || !request.custom.is_empty() || !request.node_selector.is_empty();
        let is_choosy =
            is_choosy || task.gang.is_some() || !request.required.is_empty() || !request.preferred.is_empty();
        request.tolerations = placement.tolerations.clone();
        if is_ssh {
            request.node_selector.insert(BACKEND_LABEL.to_owned(), BackendKind::Ssh.name().to_owned());
            if let Some(place) = &task.place {
                let field = |key: &str, value: &Json| {
                    rendering.value(value).map_err(|why| format!("`backend.ssh.{key}`: {why}"))
                };
                let labels = place::node_labels(place, field)?;
                request.node_selector.extend(labels.into_iter().map(|(label, value)| (label.to_owned(), value)));
            }
        } else if request.queue.is_some() {
            if !placement.is_free {
                request.node_selector.insert(BACKEND_LABEL.to_owned(), BackendKind::Worker.name().to_owned());
            }
        } else if !placement.is_free || !is_choosy {
            request.node_selector.insert(BACKEND_LABEL.to_owned(), BackendKind::Local.name().to_owned());
        }
        Ok(Demand { request: Some(Arc::new(request)), cpu_milli, memory_bytes })
    }
}

/// The direct downstream tasks that a branch means by a name: one task, or those in a group of that name.
fn directions(run: &Run, from: TaskIx, name: &str) -> Vec<String> {
    let workflow = &run.workflow;
    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
    if let Some((ix, length)) = find_task(workflow, from, &path)
        && length == path.len()
    {
        return vec![workflow.task(ix).id.to_string()];
    }
    let mut scope = workflow.task(from).group;
    loop {
        let full = scope.map_or(name.to_owned(), |at| format!("{}.{name}", workflow.group(at).id));
        if workflow.groups.iter().any(|group| group.id.as_str() == full) {
            let inside = workflow.downstream[from.at()].iter().map(|ix| workflow.task(*ix).id.to_string());
            return inside.filter(|id| id.strip_prefix(&full).is_some_and(|rest| rest.starts_with('.'))).collect();
        }
        match scope {
            // The engine says which names there are.
            None => return vec![name.to_owned()],
            Some(at) => scope = workflow.group(at).parent,
        }
    }
}

/// A list as it is; an object as its entries.
fn list(value: Json) -> Result<Vec<Json>, String> {
    match value {
        Json::Array(items) => Ok(items),
        Json::Object(map) => {
            Ok(map.into_iter().map(|(key, value)| serde_json::json!({ "key": key, "value": value })).collect())
        }
        other => Err(crate::schema_check::show(&other)),
    }
}

/// The items of a mapping: every combination, the last axis changing fastest, or the lists side by side.
fn combine(foreach: &Foreach, lists: Vec<(&str, Vec<Json>)>) -> Result<Vec<Json>, String> {
    let count = match foreach.shape {
        Shape::Product => lists.iter().try_fold(1usize, |n, (_, list)| n.checked_mul(list.len())),
        Shape::Zip => {
            let length = lists.first().map_or(0, |(_, list)| list.len());
            if let Some((name, other)) = lists.iter().find(|(_, list)| list.len() != length) {
                let (first, _) = &lists[0];
                return Err(format!(
                    "`zip` needs lists of one length: `{first}` has {length} items, `{name}` has {}",
                    other.len()
                ));
            }
            Some(length)
        }
    };
    let count = count.filter(|n| *n <= foreach.max_items as usize).ok_or_else(|| {
        let found = count.map_or("far more".to_owned(), |n| n.to_string());
        format!(
            "`foreach` gives {found} items, and at most {} are allowed; raise `foreach_max` if that is meant",
            foreach.max_items
        )
    })?;
    let mut items = Vec::with_capacity(count);
    for number in 0..count {
        let mut rest = number;
        let mut item = Map::new();
        let mut bare = None;
        for (name, list) in lists.iter().rev() {
            let at = match foreach.shape {
                Shape::Zip => number,
                Shape::Product => {
                    let at = rest % list.len();
                    rest /= list.len();
                    at
                }
            };
            if name.is_empty() {
                bare = Some(list[at].clone());
            } else {
                item.insert((*name).to_owned(), list[at].clone());
            }
        }
        // The axes in the order of the source.
        items.push(bare.unwrap_or_else(|| Json::Object(item.into_iter().rev().collect())));
    }
    Ok(items)
}
