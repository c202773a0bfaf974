//! Random workflows: every feature of the engine, mixed at random and small enough to read when a seed fails.
//!
//! Invariant: a task only refers to tasks before it, so there is no cycle and no mapping waits for itself.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::Value;

use super::rng::Rng;
use super::rules::{Rules, TaskRules};
use crate::admission::{Limits, Quota};
use crate::engine::Answer;
use crate::engine::record::SkipReason;
use crate::fleet::{Amount, Gang, Gpus, Node, Request, Sharing};
use crate::id::{TaskId, WorkflowId};
use crate::ir::{
    Foreach, Group, GroupIx, Kind, OnFailure, Refusal, Shape, Task, TaskIx, Timeouts, When, Work, Workflow,
};
use crate::retry::RetryPolicy;
use crate::trigger_rule::TriggerRule;

/// Pools of the simulated machine, with their slots.
pub(super) const POOLS: [(&str, u32); 2] = [("two", 2), ("three", 3)];

/// A workflow, and what its templates would say.
pub(super) fn random(rng: &mut Rng, name: &str, max_tasks: u32, nodes: &[Node]) -> (Workflow, Rules) {
    let mut workflow = Workflow::new(WorkflowId::new(name).expect("a valid id"));
    workflow.namespace = name.to_owned();
    workflow.max_active_runs = rng.between(1, 3) as u32;
    workflow.max_active_tasks = rng.percent(25).then(|| rng.between(1, 6) as u32);
    workflow.on_failure = match rng.below(100) {
        0..12 => OnFailure::Stop,
        12..30 => OnFailure::Drain,
        _ => OnFailure::GoOn,
    };
    let mut time = |chance, most| rng.percent(chance).then(|| SignedDuration::from_secs(rng.between(20, most)));
    workflow.timeouts =
        Timeouts { run: time(15, 600), tasks: time(15, 300), finally: time(45, 45), ends_finally: false };
    workflow.timeouts.ends_finally = rng.percent(50);
    if rng.percent(2) {
        workflow.refusal = Some(Refusal { reason: "Missing".to_owned(), message: "a task is not there".to_owned() });
    }
    let mut rules = Rules { tasks: Vec::new(), params_items: rng.below(5) };
    let count = rng.between(1, i64::from(max_tasks)) as u32;
    let finals = if count > 1 && rng.percent(40) { rng.between(1, 2.min(i64::from(count) - 1)) as u32 } else { 0 };
    let mapping = rng.percent(60);
    for ix in 0..count {
        let is_final = ix >= count - finals;
        let task =
            if is_final { finally(rng, &workflow, ix, count - finals) } else { ordinary(rng, &mut workflow, ix) };
        workflow.tasks.push(task);
        rules.tasks.push(TaskRules::default());
    }
    if mapping {
        map_something(rng, &mut workflow);
    }
    for ix in 0..count {
        spice(rng, &mut workflow, &mut rules, TaskIx(ix), nodes);
    }
    if rng.percent(40) {
        for ix in 0..count {
            make_gang(rng, &mut workflow, &mut rules, TaskIx(ix), nodes);
        }
    }
    workflow.link().expect("needs go backwards");
    (workflow, rules)
}

fn id(ix: u32, group: Option<&Group>) -> TaskId {
    let name = group.map_or_else(|| format!("t{ix}"), |group| format!("{}.t{ix}", group.id));
    TaskId::new(&name).expect("a valid id")
}

fn ordinary(rng: &mut Rng, workflow: &mut Workflow, ix: u32) -> Task {
    let group = some_group(rng, workflow);
    let mut task = Task::new(id(ix, group.map(|g| workflow.group(g))), Work::Steps(Vec::new()));
    task.group = group;
    if rng.percent(20) {
        task.work = Work::Noop;
    }
    let needs = if ix == 0 || rng.percent(15) { 0 } else { rng.between(1, 3) };
    task.needs = (0..needs).map(|_| TaskIx(rng.below(ix as usize) as u32)).collect();
    let setups: Vec<TaskIx> = (0..ix).map(TaskIx).filter(|ix| workflow.tasks[ix.at()].kind == Kind::Setup).collect();
    if rng.percent(10) {
        task.kind = Kind::Setup;
    } else if !setups.is_empty() && rng.percent(25) {
        let of = (0..rng.between(1, 2)).filter_map(|_| rng.pick(&setups).copied()).collect();
        task.kind = Kind::Teardown { of, fails_run: rng.percent(30) };
        task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
        return task;
    }
    if rng.percent(45) {
        task.trigger_rule = *rng.pick(&TriggerRule::ALL).expect("there are rules");
    }
    task
}

fn finally(rng: &mut Rng, workflow: &Workflow, ix: u32, first: u32) -> Task {
    let mut task = Task::new(id(ix, None), Work::Steps(Vec::new()));
    debug_assert!(ix as usize == workflow.tasks.len());
    task.kind = Kind::Finally;
    task.trigger_rule = if rng.percent(70) { TriggerRule::AllDone } else { TriggerRule::OneFailed };
    if ix > first && rng.percent(50) {
        task.needs.push(TaskIx(first));
    }
    task
}

fn some_group(rng: &mut Rng, workflow: &mut Workflow) -> Option<GroupIx> {
    let count = workflow.groups.len() as u32;
    if count < 3 && rng.percent(12) {
        let parent = (count > 0 && rng.percent(30)).then(|| GroupIx(rng.below(count as usize) as u32));
        let group = Group {
            id: TaskId::new(&format!("g{count}")).expect("a valid id"),
            description: String::new(),
            parent,
            foreach: None,
            max_parallel: None,
        };
        workflow.groups.push(group);
        return Some(GroupIx(count));
    }
    (count > 0 && rng.percent(50)).then(|| GroupIx(rng.below(count as usize) as u32))
}

fn foreach(rng: &mut Rng, before: u32) -> Foreach {
    let refs = if before > 0 && rng.percent(60) { vec![TaskIx(rng.below(before as usize) as u32)] } else { Vec::new() };
    Foreach { shape: Shape::Product, axes: Vec::new(), refs, max_items: if rng.percent(8) { 2 } else { 1024 } }
}

/// Maps some groups, and some tasks that are not in a mapped group.
fn map_something(rng: &mut Rng, workflow: &mut Workflow) {
    for ix in 0..workflow.groups.len() as u32 {
        let group = GroupIx(ix);
        let inside: Vec<u32> = (0..workflow.tasks.len() as u32)
            .filter(|task| workflow.is_inside(workflow.tasks[*task as usize].group, group))
            .collect();
        let nested = (0..ix).map(GroupIx).any(|other| {
            let related = workflow.is_inside(Some(group), other) || workflow.is_inside(Some(other), group);
            related && workflow.group(other).foreach.is_some()
        });
        if let (Some(first), false) = (inside.first(), nested)
            && rng.percent(60)
        {
            let foreach = foreach(rng, *first);
            workflow.groups[group.at()].foreach = Some(foreach);
            workflow.groups[group.at()].max_parallel = rng.percent(40).then(|| rng.between(1, 3) as u32);
        }
    }
    let finals = workflow.tasks.iter().position(|t| t.kind == Kind::Finally).unwrap_or(workflow.tasks.len());
    for ix in 0..workflow.tasks.len() as u32 {
        let mapped = workflow.mapping_of(TaskIx(ix)).is_some();
        if !mapped && rng.percent(20) {
            let foreach = foreach(rng, ix.min(finals as u32));
            let needs_it = workflow.tasks[ix as usize].kind != Kind::Finally && rng.percent(60);
            let task = &mut workflow.tasks[ix as usize];
            if needs_it {
                task.needs.extend(&foreach.refs);
            }
            task.foreach = Some(foreach);
        }
        if rng.percent(20) {
            workflow.tasks[ix as usize].max_parallel = Some(rng.between(1, 3) as u32);
        }
    }
}

/// Everything that a task may have beside its place in the graph.
fn spice(rng: &mut Rng, workflow: &mut Workflow, rules: &mut Rules, ix: TaskIx, nodes: &[Node]) {
    let held_back = workflow.max_active_tasks.is_some() || workflow.groups.iter().any(|g| g.max_parallel.is_some());
    let task = &mut workflow.tasks[ix.at()];
    let of = &mut rules.tasks[ix.at()];
    task.retry = RetryPolicy {
        retries: rng.between(-1, 3).max(0) as u32,
        delay: SignedDuration::from_secs(rng.between(-5, 40).max(0)),
        backoff: if rng.percent(30) { 2.0 } else { 1.0 },
        ..RetryPolicy::default()
    };
    task.timeout = rng.percent(12).then(|| SignedDuration::from_secs(rng.between(1, 40)));
    task.priority = if rng.percent(30) { rng.between(-2, 5) } else { 0 };
    task.is_preemptible = rng.percent(40);
    if rng.percent(30) {
        let (pool, slots) = POOLS[rng.below(POOLS.len())];
        task.pool = Some(pool.to_owned());
        task.pool_slots = rng.between(1, i64::from(slots)) as u32;
    }
    task.depends_on_past = task.kind == Kind::Normal && rng.percent(6);
    if rng.percent(12) {
        task.when = Some(When::Expression("{{ a condition }}".to_owned()));
        of.when_error = rng.percent(8);
        // Only what is over may be read: a condition over something still open would change with a restart.
        let all_over = matches!(task.trigger_rule, TriggerRule::AllSuccess | TriggerRule::AllDone);
        of.when_reads = task.needs.first().copied().filter(|_| all_over);
        if rng.percent(50) {
            task.when = Some(When::Guard(Arc::new(Value::Null)));
            of.guard = match rng.below(6) {
                0 => Some(Answer::Skip(SkipReason::MissingResults)),
                1 => Some(Answer::Invalid("`a` gave no result `b`".to_owned())),
                2 => Some(Answer::Go),
                _ => None,
            };
        }
    }
    task.ignore_failure = rng.percent(10);
    if rng.percent(10) && task.work != Work::Noop {
        task.work = Work::Pod { template: Arc::new(Value::Null) };
    }
    if task.kind == Kind::Normal && rng.percent(15) {
        task.branch = Some("{{ names }}".to_owned());
        of.branch_error = rng.percent(8);
    }
    of.request = request(rng, nodes).map(Arc::new);
    // Which of several that wait is asked for its demand depends on the past: a restart may ask another first.
    of.demand_error = rng.percent(3) && !held_back && task.max_parallel.is_none();
    of.unknown_pool = rng.percent(2) && !held_back && task.max_parallel.is_none();
    if of.unknown_pool {
        task.pool = Some("missing".to_owned());
    }
}

/// Makes a gang of some tasks that nothing maps.
fn make_gang(rng: &mut Rng, workflow: &mut Workflow, rules: &mut Rules, ix: TaskIx, nodes: &[Node]) {
    let may = workflow.mapping_of(ix).is_none() && workflow.max_active_tasks.is_none_or(|max| max >= 3);
    if !may || !rng.percent(40) {
        return;
    }
    // More members than there are nodes are refused.
    let count = if nodes.len() > 1 && rng.percent(97) { nodes.len().min(rng.between(2, 3) as usize) } else { 3 } as u32;
    let task = &mut workflow.tasks[ix.at()];
    task.gang = Some(Gang::of(count));
    task.foreach = Some(Foreach::ranks(count));
    task.work = Work::Steps(Vec::new());
    (task.branch, task.max_parallel) = (None, None);
    task.pool_slots = 1;
    if task.pool.as_deref() == Some("two") && count > 2 {
        task.pool = None;
    }
    let of = &mut rules.tasks[ix.at()];
    let least = nodes.iter().map(|node| node.gpus.len()).min().unwrap_or_default() as u32;
    let gpus = match rng.below(100) {
        0..50 if least > 0 => Gpus::Count(rng.between(1, i64::from(least)) as u32),
        _ => Gpus::None,
    };
    let cpu = Amount::whole(rng.between(1, 2) as u32);
    of.request = Some(Arc::new(Request { cpu, memory_mib: 1024, gpus, ..Request::default() }));
}

/// The most GPUs and cores that one task asks for with all its members.
fn most(flows: &[(Arc<Workflow>, Arc<Rules>)]) -> (u32, u32) {
    let tasks = flows.iter().flat_map(|(workflow, rules)| workflow.tasks.iter().zip(&rules.tasks));
    let gangs = tasks.filter_map(|(task, rules)| Some((task.gang.as_ref()?.count, rules.request.as_ref()?)));
    gangs.fold((0, 3), |(gpus, cpu), (count, request)| {
        let each = if let Gpus::Count(each) = request.gpus { each } else { 0 };
        (gpus.max(count * each), cpu.max(count * request.cpu.to_f64() as u32))
    })
}

/// What a task asks of a node, if anything; now and then what none has.
fn request(rng: &mut Rng, nodes: &[Node]) -> Option<Request> {
    let most = nodes.iter().map(|node| node.gpus.len()).max().unwrap_or_default() as u32;
    let is_shared = nodes.iter().flat_map(|node| &node.gpus).any(|gpu| gpu.sharing != Sharing::Whole);
    let gpus = match rng.below(100) {
        0..20 if most > 0 => Gpus::Count(rng.between(1, i64::from(most)) as u32),
        20..35 if is_shared => Gpus::Share(Amount::milli(rng.between(1, 9) as u32 * 100)),
        35..45 => Gpus::None,
        45 => Gpus::Count(most + 1),
        _ => return None,
    };
    let cpu = Amount::whole(rng.between(1, 3) as u32);
    Some(Request { cpu, memory_mib: 1024, gpus, ..Request::default() })
}

/// Quotas that let every task go some day: of the namespaces of the workflows, apart or as one cohort.
pub(super) fn quotas(rng: &mut Rng, nodes: &[Node], flows: &[(Arc<Workflow>, Arc<Rules>)]) -> Vec<Quota> {
    if rng.percent(40) {
        return Vec::new();
    }
    let (gpus, cpu) = most(flows);
    let most = nodes.iter().map(|node| node.gpus.len()).max().unwrap_or_default().max(gpus as usize) as u32;
    let is_lent = rng.percent(60);
    let gpus = if is_lent { rng.between(0, i64::from(most)) as u32 } else { most };
    let quota = |namespace: &str, gpus: u32, cpu: u32, weight: i64| {
        let (gpus, cpu) = (Some(Amount::whole(gpus)), Some(Amount::whole(cpu)));
        let mut quota = Quota::new(namespace, Limits { gpus, cpu, memory_mib: None });
        quota.cohort = is_lent.then(|| "all".to_owned());
        quota.weight = weight as u32;
        quota
    };
    let (first, second) = if is_lent { (rng.between(0, 4) as u32, cpu) } else { (cpu, cpu + 1) };
    // What the one lacks of the most that a task asks for, the other has.
    let other = if is_lent { most - gpus + rng.between(0, 2) as u32 } else { most };
    vec![quota("w0", gpus, first, rng.between(1, 3)), quota("w1", other, second, rng.between(1, 3))]
}

/// One line for each task, for a person who looks into a failed seed.
pub(super) fn describe(workflow: &Workflow) -> String {
    let mut text = format!(
        "{}: max_active_tasks {:?}, on_failure {:?}, {:?}, refusal {:?}\n",
        workflow.id, workflow.max_active_tasks, workflow.on_failure, workflow.timeouts, workflow.refusal
    );
    for (ix, group) in workflow.groups.iter().enumerate() {
        let refs = group.foreach.as_ref().map(|f| &f.refs);
        let _ = writeln!(
            text,
            "  group {ix} {} in {:?}: foreach {refs:?}, max_parallel {:?}",
            group.id, group.parent, group.max_parallel
        );
    }
    for task in &workflow.tasks {
        let needs: Vec<u32> = task.needs.iter().map(|ix| ix.0).collect();
        let setups: Vec<u32> = task.setups.iter().map(|ix| ix.0).collect();
        let _ = write!(text, "  {} {:?} needs {needs:?} {}", task.id, task.kind, task.trigger_rule.name());
        for (what, shown) in [
            ("noop", task.work == Work::Noop),
            ("when", matches!(task.when, Some(When::Expression(_)))),
            ("guard", matches!(task.when, Some(When::Guard(_)))),
            ("ignore_failure", task.ignore_failure),
            ("branch", task.branch.is_some()),
            ("depends_on_past", task.depends_on_past),
        ] {
            if shown {
                let _ = write!(text, " {what}");
            }
        }
        if let Some(gang) = &task.gang {
            let _ = write!(text, " gang of {}", gang.count);
        } else if let Some(foreach) = &task.foreach {
            let _ = write!(text, " foreach {:?} max {}", foreach.refs, foreach.max_items);
        }
        let _ = writeln!(
            text,
            " setups {setups:?} retries {} timeout {:?} max_parallel {:?} pool {:?}×{} priority {}",
            task.retry.retries,
            task.timeout.map(|t| t.as_secs()),
            task.max_parallel,
            task.pool,
            task.pool_slots,
            task.priority
        );
    }
    text
}
