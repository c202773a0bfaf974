//! The graph of a workflow on a page: of a run, with the state of each task and the way to its page.

use std::collections::BTreeMap;

use pitcrew_control::links;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::Workflow;
use pitcrew_lang::graph::svg::{SvgOptions, render};
use pitcrew_lang::graph::{Graph, MAX_DRAWN};

use crate::view::TaskSummary;

/// Whether every task has a node of its own.
pub fn fits(workflow: &Workflow) -> bool {
    workflow.tasks.len() <= MAX_DRAWN
}

pub fn of_workflow(workflow: &Workflow) -> String {
    render(&Graph::of(workflow), &SvgOptions { bare: true, ..SvgOptions::default() })
}

pub fn of_run(workflow: &Workflow, run: &RunRecord, tasks: &[TaskSummary]) -> String {
    let by_name: BTreeMap<&str, &TaskSummary> = tasks.iter().map(|task| (task.task.as_str(), task)).collect();
    let state = |name: &str| by_name.get(name).map(|task| task.state.name().to_owned());
    let href = |name: &str| by_name.get(name).map(|task| links::task(&run.workflow, &run.run_id, &task.task, UNMAPPED));
    render(&Graph::of(workflow), &SvgOptions { state: Some(&state), href: Some(&href), bare: true, signs: true })
}
