//! Drawings of a workflow: placed boxes and lines ([`layout`]), as text, Mermaid and SVG.
//!
//! A [`Graph`] is what there is to draw, apart from how. A workflow too large to be looked at is summed up by level:
//! a drawing always has at most [`MAX_DRAWN`] nodes, so it is quick to make and to show.

pub mod layout;
pub mod mermaid;
mod rows;
pub mod svg;
pub mod text;

use pitcrew_core::ir::{Kind, TaskIx, Work, Workflow};

/// Nodes of a drawing; a larger workflow is summed up.
pub const MAX_DRAWN: usize = 1_500;

/// What is drawn.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub title: String,
    pub nodes: Vec<Node>,
    pub groups: Vec<Group>,
    /// From a node to one that needs it; each once.
    pub edges: Vec<(usize, usize)>,
}

#[derive(Debug, Clone)]
pub struct Node {
    /// The full name of the task; of a summary, a name that no task has.
    pub id: String,
    /// The short name.
    pub label: String,
    /// What it does, in a word or two.
    pub note: String,
    pub role: Role,
    pub mapped: bool,
    /// How many members it has, if it is a gang.
    pub members: Option<u32>,
    pub group: Option<usize>,
    /// How many tasks it stands for; 1 unless it is a summary.
    pub count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Normal,
    Setup,
    Teardown,
    Finally,
}

#[derive(Debug, Clone)]
pub struct Group {
    pub id: String,
    pub label: String,
    pub mapped: bool,
    pub parent: Option<usize>,
}

impl Graph {
    pub fn of(workflow: &Workflow) -> Graph {
        if workflow.tasks.len() > MAX_DRAWN {
            return summary(workflow);
        }
        let nodes = workflow
            .indices()
            .map(|ix| {
                let task = workflow.task(ix);
                let short =
                    |group| task.id.as_str().strip_prefix(&format!("{}.", workflow.group(group).id)).map(str::to_owned);
                Node {
                    id: task.id.to_string(),
                    label: task.group.and_then(short).unwrap_or_else(|| task.id.to_string()),
                    note: note(workflow, ix),
                    role: role(workflow, ix),
                    mapped: task.foreach.is_some(),
                    members: task.gang.as_ref().map(|gang| gang.count),
                    group: task.group.map(|group| group.at()),
                    count: 1,
                }
            })
            .collect();
        let groups = workflow
            .groups
            .iter()
            .map(|group| {
                let outer = group.parent.map(|parent| format!("{}.", workflow.group(parent).id));
                let short = outer.and_then(|outer| group.id.as_str().strip_prefix(&outer).map(str::to_owned));
                Group {
                    id: group.id.to_string(),
                    label: short.unwrap_or_else(|| group.id.to_string()),
                    mapped: group.foreach.is_some(),
                    parent: group.parent.map(|parent| parent.at()),
                }
            })
            .collect();
        Graph { title: workflow.id.to_string(), nodes, groups, edges: edges(workflow) }
    }
}

/// All edges but those that a teardown has only because its setup's scope is long.
fn edges(workflow: &Workflow) -> Vec<(usize, usize)> {
    let mut edges = Vec::new();
    for ix in workflow.indices() {
        let task = workflow.task(ix);
        for need in &task.needs {
            let passed = |other: &TaskIx| other != need && workflow.downstream[need.at()].contains(other);
            if !(task.is_teardown() && task.needs.iter().any(passed)) {
                edges.push((need.at(), ix.at()));
            }
        }
    }
    edges
}

fn role(workflow: &Workflow, ix: TaskIx) -> Role {
    match workflow.task(ix).kind {
        Kind::Normal => Role::Normal,
        Kind::Setup => Role::Setup,
        Kind::Teardown { .. } => Role::Teardown,
        Kind::Finally => Role::Finally,
    }
}

fn note(workflow: &Workflow, ix: TaskIx) -> String {
    let task = workflow.task(ix);
    let mut note = match &task.work {
        Work::Noop => "nothing to run".to_owned(),
        Work::Steps(steps) if steps.len() == 1 => "script".to_owned(),
        Work::Steps(steps) => format!("{} steps", steps.len()),
        Work::Action { uses, .. } => uses.clone(),
        Work::Pod { .. } => "pod".to_owned(),
    };
    let gpus = task.resources.gpu.as_ref().filter(|gpu| **gpu != 0);
    if let Some(gpus) = gpus {
        match crate::quantity::parse_gpus(gpus) {
            Ok((asked, _)) => note.push_str(&format!(" · {asked}")),
            // A template, whose value the graph does not know.
            Err(_) => note.push_str(" · GPU"),
        }
    }
    if task.branch.is_some() {
        note.push_str(" · branch");
    }
    match (&task.gang, &task.foreach) {
        (Some(gang), _) => note.push_str(&format!(" · {} nodes", gang.count)),
        (None, Some(_)) => note.push_str(" · foreach"),
        (None, None) => {}
    }
    note
}

/// The length of the longest path to each task; `finally` tasks come after all others.
pub(crate) fn levels(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut open = vec![0usize; count];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (from, to) in edges {
        open[*to] += 1;
        after[*from].push(*to);
    }
    let mut levels = vec![0; count];
    let mut free: Vec<usize> = (0..count).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for to in &after[at] {
            levels[*to] = levels[*to].max(levels[at] + 1);
            open[*to] -= 1;
            if open[*to] == 0 {
                free.push(*to);
            }
        }
    }
    levels
}

/// One node per level, or per stretch of levels where even these are too many.
fn summary(workflow: &Workflow) -> Graph {
    let normal: Vec<TaskIx> = workflow.indices().filter(|ix| role(workflow, *ix) != Role::Finally).collect();
    let finally: Vec<TaskIx> = workflow.indices().filter(|ix| role(workflow, *ix) == Role::Finally).collect();
    let edges: Vec<(usize, usize)> = workflow
        .indices()
        .flat_map(|ix| workflow.task(ix).needs.iter().map(move |need| (need.at(), ix.at())))
        .collect();
    let levels = levels(workflow.tasks.len(), &edges);
    let deepest = normal.iter().map(|ix| levels[ix.at()]).max().unwrap_or(0);
    let stretch = (deepest + 1).div_ceil(60);
    let mut members: Vec<Vec<TaskIx>> = vec![Vec::new(); (deepest + 1).div_ceil(stretch)];
    for ix in normal {
        members[levels[ix.at()] / stretch].push(ix);
    }
    let mut graph = Graph { title: workflow.id.to_string(), ..Graph::default() };
    let mut add = |tasks: &[TaskIx], role: Role| {
        let Some(first) = tasks.first() else { return };
        let first = workflow.task(*first).id.as_str();
        let (label, note) = match tasks.len() {
            1 => (first.to_owned(), String::new()),
            n => (format!("{first} …"), format!("{n} tasks")),
        };
        let id = if tasks.len() == 1 { first.to_owned() } else { format!("level:{}", graph.nodes.len() + 1) };
        graph.nodes.push(Node { id, label, note, role, mapped: false, members: None, group: None, count: tasks.len() });
    };
    members.iter().for_each(|tasks| add(tasks, Role::Normal));
    add(&finally, Role::Finally);
    let normal = graph.nodes.iter().filter(|node| node.role == Role::Normal).count();
    graph.edges = (1..normal).map(|at| (at - 1, at)).collect();
    graph
}
