//! Workflows of tests, as text. A line is a task: `name <- needs : options`; or `group name : options`, which stands
//! before its tasks `name.task`; or `workflow : options`.
//!
//! Options: the name of a trigger rule, a word (`noop`, `action`, `when`, `setup`, `finally`, `past`, `fails_run`, `foreach`,
//! `fail_fast`, `drain`, `guard`, `ignored`, `pod`, …), or `key=value` (see [`set`]). Times are seconds.

use std::sync::Arc;

use jiff::SignedDuration;

use super::Script;
use crate::fleet::Gang;
use crate::id::{TaskId, WorkflowId};
use crate::ir::{Foreach, Group, GroupIx, Kind, OnFailure, Refusal, Shape, Task, TaskIx, When, Work, Workflow};
use crate::trigger_rule::TriggerRule;

pub(super) fn parse(text: &str) -> (Workflow, Script) {
    let mut workflow = Workflow::new(WorkflowId::new("test").unwrap());
    let mut script = Script::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, options) = line.split_once(" :").unwrap_or((line, ""));
        let options: Vec<(&str, &str)> =
            options.split_whitespace().map(|option| option.split_once('=').unwrap_or((option, ""))).collect();
        let (name, needs) = head.split_once("<-").unwrap_or((head, ""));
        let name = name.trim();
        if name == "workflow" {
            options.iter().for_each(|(key, value)| set_workflow(&mut workflow, key, value));
        } else if let Some(name) = name.strip_prefix("group ") {
            let group = group(&workflow, name, &options);
            workflow.groups.push(group);
        } else {
            let mut task = Task::new(TaskId::new(name).unwrap(), Work::Steps(Vec::new()));
            task.group = name.rsplit_once('.').map(|(group, _)| find_group(&workflow, group));
            task.needs = needs.split(',').filter(|need| !need.trim().is_empty()).map(|n| find(&workflow, n)).collect();
            for (key, value) in &options {
                set(&mut task, &mut script, &workflow, key, value);
            }
            workflow.tasks.push(task);
        }
    }
    workflow.link().unwrap();
    (workflow, script)
}

fn find(workflow: &Workflow, name: &str) -> TaskIx {
    let place = workflow.tasks.iter().position(|task| task.id.as_str() == name.trim());
    TaskIx(place.unwrap_or_else(|| panic!("no task {name} above")) as u32)
}

fn find_group(workflow: &Workflow, name: &str) -> GroupIx {
    let place = workflow.groups.iter().position(|group| group.id.as_str() == name);
    GroupIx(place.unwrap_or_else(|| panic!("no group {name} above")) as u32)
}

fn foreach(workflow: &Workflow, source: &str) -> Foreach {
    let refs = if source.is_empty() { Vec::new() } else { vec![find(workflow, source)] };
    Foreach { shape: Shape::Product, axes: Vec::new(), refs, max_items: 4 }
}

fn group(workflow: &Workflow, name: &str, options: &[(&str, &str)]) -> Group {
    let mut group = Group {
        id: TaskId::new(name).unwrap(),
        description: String::new(),
        parent: None,
        foreach: None,
        max_parallel: None,
    };
    for (key, value) in options {
        match *key {
            "foreach" => group.foreach = Some(foreach(workflow, value)),
            "max_parallel" => group.max_parallel = Some(value.parse().unwrap()),
            other => panic!("no option {other} of a group"),
        }
    }
    group
}

fn seconds(value: &str) -> SignedDuration {
    SignedDuration::from_secs(value.parse().unwrap())
}

fn set_workflow(workflow: &mut Workflow, key: &str, value: &str) {
    match key {
        "max_active_tasks" => workflow.max_active_tasks = Some(value.parse().unwrap()),
        "fail_fast" => workflow.on_failure = OnFailure::Stop,
        "drain" => workflow.on_failure = OnFailure::Drain,
        "timeout" => workflow.timeouts.run = Some(seconds(value)),
        "ends_finally" => workflow.timeouts.ends_finally = true,
        "tasks" => workflow.timeouts.tasks = Some(seconds(value)),
        "finally" => workflow.timeouts.finally = Some(seconds(value)),
        "refused" => {
            let message = "the task `a` needs the param `p`".to_owned();
            workflow.refusal = Some(Refusal { reason: "ParameterMissing".to_owned(), message });
        }
        other => panic!("no option {other} of a workflow"),
    }
}

fn set(task: &mut Task, script: &mut Script, workflow: &Workflow, key: &str, value: &str) {
    let number = || value.parse().unwrap();
    match key {
        "noop" => task.work = Work::Noop,
        "action" => task.work = Work::Action { uses: "test".to_owned(), with: serde_json::Value::Null },
        "when" => task.when = Some(When::Expression("{{ a condition }}".to_owned())),
        "guard" => task.when = Some(When::Guard(Arc::new(serde_json::Value::Null))),
        "ignored" => task.ignore_failure = true,
        "pod" => task.work = Work::Pod { template: Arc::new(serde_json::Value::Null) },
        // The names that it follows.
        "branch" => {
            task.branch = Some("{{ names }}".to_owned());
            let names = value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            script.branches.insert(task.id.to_string(), names);
        }
        "setup" => task.kind = Kind::Setup,
        "teardown" => {
            let of = value.split(',').filter(|name| !name.is_empty()).map(|name| find(workflow, name)).collect();
            task.kind = Kind::Teardown { of, fails_run: false };
            task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
        }
        "fails_run" => match &mut task.kind {
            Kind::Teardown { fails_run, .. } => *fails_run = true,
            other => panic!("{other:?} cannot say that it fails the run"),
        },
        "finally" => {
            task.kind = Kind::Finally;
            task.trigger_rule = TriggerRule::AllDone;
        }
        // The task whose output gives the items; none: the script gives them.
        "foreach" => task.foreach = Some(foreach(workflow, value)),
        "gang" => {
            task.gang = Some(Gang::of(value.parse().unwrap()));
            task.foreach = Some(Foreach::ranks(value.parse().unwrap()));
            let ranks = (0..value.parse::<u32>().unwrap()).map(serde_json::Value::from).collect();
            script.items.insert(task.id.to_string(), Ok(ranks));
        }
        "max_parallel" => task.max_parallel = Some(number()),
        "retries" => task.retry.retries = number(),
        "delay" => task.retry.delay = seconds(value),
        "backoff" => {
            task.retry.backoff = value.parse().unwrap();
            task.retry.jitter = false;
        }
        "timeout" => task.timeout = Some(seconds(value)),
        "priority" => task.priority = value.parse().unwrap(),
        "pool" => task.pool = Some(value.to_owned()),
        "slots" => task.pool_slots = number(),
        "past" => task.depends_on_past = true,
        "gpus" => drop(script.gpus.insert(task.id.to_string(), Ok(number()))),
        rule => task.trigger_rule = TriggerRule::from_name(rule).unwrap_or_else(|| panic!("no option {rule}")),
    }
}
