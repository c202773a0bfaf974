//! `needs` of tasks and groups, and those that templates imply, as edges between tasks.
//!
//! To need a group is to need its leaves; what a group needs, its roots need. Both are only known once the edges
//! inside the group are, so scopes are finished from the inside out. An edge that a template implies is added only if
//! the task does not already come after the other: one more direct edge would change what its trigger rule counts.

use std::collections::{HashMap, HashSet};

use pitcrew_core::ir::{GroupIx, TaskIx, Workflow};

use super::scope::{Names, Thing};
use super::templates::Implied;
use crate::decode::{Named, RawGroup, RawTask};
use crate::diagnostic::{Place, Reporter};

/// Edges that the groups of one workflow may unfold to.
const MAX_EDGES: usize = 5_000_000;
/// Steps taken in all to find out whether implied edges are there already.
const MAX_STEPS: usize = 50_000_000;

/// Who needs whom, as written.
#[derive(Default)]
pub struct Wanted {
    /// With the innermost scope that holds both.
    explicit: Vec<(Option<GroupIx>, (Thing, Thing, Place))>,
    /// From templates: the task, what it uses, and where.
    implied: Vec<(TaskIx, TaskIx, Place)>,
}

impl Wanted {
    /// What a group's own templates use, the group needs.
    pub fn add(&mut self, workflow: &Workflow, implied: Implied, r: &mut Reporter<'_>) {
        self.implied = implied.tasks;
        for (group, used, at) in implied.groups {
            self.want(workflow, Thing::Group(group), Thing::Task(used), at, r);
        }
    }

    fn want(&mut self, workflow: &Workflow, from: Thing, target: Thing, at: Place, r: &mut Reporter<'_>) {
        match common_scope(workflow, from, target) {
            Ok(scope) => self.explicit.push((scope, (from, target, at))),
            Err(group) => {
                let message = format!("`{}` is the group that this stands in", workflow.group(group).id);
                r.error_hint(at, message, "name the tasks of the group that are meant");
            }
        }
    }
}

/// Where each edge comes from; looked up only for messages.
#[derive(Default)]
pub struct Places(Vec<(Thing, Thing, Place)>);

impl Places {
    /// Where it is written that `task` needs `need`.
    pub fn of(&self, workflow: &Workflow, task: TaskIx, need: TaskIx) -> Option<Place> {
        let means = |thing: Thing, ix: TaskIx| match thing {
            Thing::Task(own) => own == ix,
            Thing::Group(group) => workflow.is_inside(workflow.task(ix).group, group),
        };
        self.0.iter().find(|(from, target, _)| means(*from, task) && means(*target, need)).map(|(_, _, at)| *at)
    }
}

/// Looks the names in `needs` up.
pub fn collect(
    workflow: &Workflow,
    names: &Names,
    tasks: &[RawTask],
    groups: &[RawGroup],
    r: &mut Reporter<'_>,
) -> Wanted {
    let mut wanted = Wanted::default();
    let mut look_up = |from: Thing, scope: Option<GroupIx>, needs: &[Named], what: &str| {
        for (number, need) in needs.iter().enumerate() {
            if needs[..number].iter().any(|other| other.name == need.name) {
                r.error(need.at, format!("`{}` is there twice in `needs`", need.name));
            }
            match names.find(workflow, scope, &need.name) {
                Some(target) => wanted.want(workflow, from, target, need.at, r),
                None => {
                    let hint = names.hint(workflow, scope, &need.name, r);
                    r.error_maybe(need.at, format!("{what} needs `{}`, which is not a task", need.name), hint);
                }
            }
        }
    };
    for (ix, raw) in tasks.iter().enumerate() {
        let task = &workflow.tasks[ix];
        if !raw.needs.is_empty() {
            look_up(Thing::Task(TaskIx(ix as u32)), task.group, &raw.needs, &format!("the task `{}`", task.id));
        }
    }
    for (ix, raw) in groups.iter().enumerate() {
        let group = &workflow.groups[ix];
        look_up(Thing::Group(GroupIx(ix as u32)), group.parent, &raw.needs, &format!("the group `{}`", group.id));
    }
    wanted
}

/// Fills [`pitcrew_core::ir::Task::needs`]. `None`: there were errors, all reported.
pub fn expand(workflow: &mut Workflow, wanted: Wanted, r: &mut Reporter<'_>) -> Option<Places> {
    let mut edges = Edges { needs: vec![Vec::new(); workflow.tasks.len()], count: 0 };
    let mut places = Places::default();
    let mut scoped: HashMap<Option<GroupIx>, Vec<(Thing, Thing, Place)>> = HashMap::new();
    for (scope, edge) in wanted.explicit {
        places.0.push(edge);
        scoped.entry(scope).or_default().push(edge);
    }
    places.0.extend(wanted.implied.iter().map(|(from, used, at)| (Thing::Task(*from), Thing::Task(*used), *at)));
    if workflow.groups.is_empty() {
        for (from, target, _) in scoped.remove(&None).unwrap_or_default() {
            if let (Thing::Task(from), Thing::Task(target)) = (from, target) {
                edges.add(from, target);
            }
        }
    } else {
        unfold(workflow, &mut edges, scoped, &wanted.implied, r);
    }
    if r.errors() > 0 {
        return None;
    }
    for (task, needs) in workflow.tasks.iter_mut().zip(std::mem::take(&mut edges.needs)) {
        task.needs = needs;
    }
    imply(workflow, &wanted.implied);
    Some(places)
}

struct Edges {
    needs: Vec<Vec<TaskIx>>,
    count: usize,
}

impl Edges {
    fn add(&mut self, from: TaskIx, target: TaskIx) {
        self.needs[from.at()].push(target);
        self.count += 1;
    }
}

/// Scopes from the inside out; in each, what refers to a group inside it can be unfolded.
fn unfold(
    workflow: &Workflow,
    edges: &mut Edges,
    mut scoped: HashMap<Option<GroupIx>, Vec<(Thing, Thing, Place)>>,
    implied: &[(TaskIx, TaskIx, Place)],
    r: &mut Reporter<'_>,
) {
    // Ends of groups see the implied edges too: a task that uses a sibling's output is no root.
    let mut inner: Vec<Vec<TaskIx>> = vec![Vec::new(); workflow.tasks.len()];
    for (from, target, _) in implied {
        inner[from.at()].push(*target);
    }
    let mut scopes: Vec<Option<GroupIx>> = (0..workflow.groups.len() as u32).map(|ix| Some(GroupIx(ix))).collect();
    scopes
        .sort_by_key(|scope| std::cmp::Reverse(std::iter::successors(*scope, |at| workflow.group(*at).parent).count()));
    scopes.push(None);
    let mut ends: HashMap<GroupIx, (Vec<TaskIx>, Vec<TaskIx>)> = HashMap::new();
    for scope in scopes {
        for (from, target, at) in scoped.remove(&scope).unwrap_or_default() {
            let froms = match from {
                Thing::Task(ix) => vec![ix],
                Thing::Group(group) => ends[&group].0.clone(),
            };
            let targets = match target {
                Thing::Task(ix) => vec![ix],
                Thing::Group(group) => ends[&group].1.clone(),
            };
            if edges.count + froms.len() * targets.len() > MAX_EDGES {
                let message = format!("this unfolds to more than {MAX_EDGES} edges between tasks");
                r.error_hint(at, message, "put a task without `run` between the two groups");
                return;
            }
            for from in froms {
                for target in &targets {
                    edges.add(from, *target);
                }
            }
        }
        if let Some(group) = scope {
            ends.insert(group, group_ends(workflow, group, &edges.needs, &inner));
        }
    }
}

/// The roots and the leaves of a group. Teardowns are no leaves: what comes after a group does not wait for them.
fn group_ends(
    workflow: &Workflow,
    group: GroupIx,
    needs: &[Vec<TaskIx>],
    implied: &[Vec<TaskIx>],
) -> (Vec<TaskIx>, Vec<TaskIx>) {
    let inside: Vec<TaskIx> =
        workflow.indices().filter(|ix| workflow.is_inside(workflow.task(*ix).group, group)).collect();
    let set: HashSet<TaskIx> = inside.iter().copied().collect();
    let mut needed: HashSet<TaskIx> = HashSet::new();
    let mut roots = Vec::new();
    for ix in &inside {
        let mut is_root = true;
        for need in needs[ix.at()].iter().chain(&implied[ix.at()]).filter(|need| set.contains(need)) {
            is_root = false;
            if !workflow.task(*ix).is_teardown() {
                needed.insert(*need);
            }
        }
        if is_root {
            roots.push(*ix);
        }
    }
    let mut leaves: Vec<TaskIx> =
        inside.iter().copied().filter(|ix| !needed.contains(ix) && !workflow.task(*ix).is_teardown()).collect();
    if leaves.is_empty() {
        leaves = inside;
    }
    (roots, leaves)
}

/// The innermost scope that holds both; the error is a target that holds `from` itself.
fn common_scope(workflow: &Workflow, from: Thing, target: Thing) -> Result<Option<GroupIx>, GroupIx> {
    let scope_of = |thing: Thing| match thing {
        Thing::Task(ix) => workflow.task(ix).group,
        Thing::Group(ix) => workflow.group(ix).parent,
    };
    let chain: Vec<GroupIx> = std::iter::successors(scope_of(from), |at| workflow.group(*at).parent).collect();
    if let Thing::Group(group) = target
        && (chain.contains(&group) || from == target)
    {
        return Err(group);
    }
    let mut scope = scope_of(target);
    // A group that needs something inside itself waits for itself.
    if let Thing::Group(own) = from
        && std::iter::successors(scope, |at| workflow.group(*at).parent).any(|at| at == own)
    {
        return Err(own);
    }
    while let Some(group) = scope {
        if chain.contains(&group) {
            return Ok(Some(group));
        }
        scope = workflow.group(group).parent;
    }
    Ok(None)
}

/// Adds the edges that templates imply, where the order does not follow from the others.
fn imply(workflow: &mut Workflow, implied: &[(TaskIx, TaskIx, Place)]) {
    if implied.is_empty() {
        return;
    }
    let levels = levels(workflow);
    let mut steps = 0;
    let mut below: HashMap<TaskIx, Option<Vec<bool>>> = HashMap::new();
    let mut users: HashMap<TaskIx, usize> = HashMap::new();
    for (_, used, _) in implied {
        *users.entry(*used).or_default() += 1;
    }
    let mut added = Vec::new();
    for &(task, used, _) in implied {
        if workflow.task(task).needs.contains(&used) {
            continue;
        }
        // Something that many tasks use is looked at once for all of them.
        let many = users[&used] > 8;
        let follows = match &levels {
            None => false,
            Some(_) if steps > MAX_STEPS => false,
            Some(levels) if many => {
                let reach = below.entry(used).or_insert_with(|| {
                    steps += workflow.tasks.len();
                    Some(everything_after(workflow, used, levels))
                });
                reach.as_ref().is_some_and(|reach| reach[task.at()])
            }
            Some(levels) => comes_after(workflow, task, used, levels, &mut steps),
        };
        if !follows {
            added.push((task, used));
        }
    }
    for (task, used) in added {
        let needs = &mut workflow.tasks[task.at()].needs;
        if !needs.contains(&used) {
            needs.push(used);
        }
    }
}

/// The longest path to each task; `None` if there is a circle.
fn levels(workflow: &Workflow) -> Option<Vec<u32>> {
    let mut open: Vec<usize> = workflow.tasks.iter().map(|t| t.needs.len()).collect();
    let mut after: Vec<Vec<TaskIx>> = vec![Vec::new(); workflow.tasks.len()];
    for ix in workflow.indices() {
        for need in &workflow.task(ix).needs {
            after[need.at()].push(ix);
        }
    }
    let mut levels = vec![0u32; workflow.tasks.len()];
    let mut free: Vec<TaskIx> = workflow.indices().filter(|ix| open[ix.at()] == 0).collect();
    let mut seen = 0;
    while let Some(ix) = free.pop() {
        seen += 1;
        for down in &after[ix.at()] {
            levels[down.at()] = levels[down.at()].max(levels[ix.at()] + 1);
            open[down.at()] -= 1;
            if open[down.at()] == 0 {
                free.push(*down);
            }
        }
    }
    (seen == workflow.tasks.len()).then_some(levels)
}

/// Walks up from `task`, not above the level of `used`.
fn comes_after(workflow: &Workflow, task: TaskIx, used: TaskIx, levels: &[u32], steps: &mut usize) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![task];
    while let Some(ix) = stack.pop() {
        for need in &workflow.task(ix).needs {
            *steps += 1;
            if *need == used {
                return true;
            }
            if levels[need.at()] > levels[used.at()] && seen.insert(*need) {
                stack.push(*need);
            }
        }
    }
    false
}

/// Which tasks come after `used`: by level, each looks at what it needs.
fn everything_after(workflow: &Workflow, used: TaskIx, levels: &[u32]) -> Vec<bool> {
    let mut order: Vec<TaskIx> = workflow.indices().filter(|ix| levels[ix.at()] > levels[used.at()]).collect();
    order.sort_by_key(|ix| levels[ix.at()]);
    let mut after = vec![false; workflow.tasks.len()];
    for ix in order {
        after[ix.at()] = workflow.task(ix).needs.iter().any(|need| *need == used || after[need.at()]);
    }
    after
}
