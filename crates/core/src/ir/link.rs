//! What follows from the edges of a workflow: who needs whom from the other side, the reach of setups, what decides a run.
//!
//! Invariant: done once, when the tasks are in place; nothing here changes afterwards.

use super::{Kind, TaskIx, Workflow};
use crate::id::TaskId;

/// The tasks on a path that leads back to where it began, in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tasks need each other in a circle: {}", .0.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" → "))]
pub struct Cycle(pub Vec<TaskId>);

impl Workflow {
    /// Sorts and completes the edges and fills everything that is derived; to be called once after the tasks are in place.
    ///
    /// Adds to each teardown what lies between it and its setups, gives tasks the setups in whose scope they are,
    /// and finds downstream tasks and leaves. The error names the tasks of one circle.
    pub fn link(&mut self) -> Result<(), Cycle> {
        for task in &mut self.tasks {
            task.needs.sort_unstable();
            task.needs.dedup();
        }
        self.by_name = self.indices().map(|ix| (self.task(ix).id.clone(), ix)).collect();
        self.downstream = self.reverse_edges();
        self.check_acyclic()?;
        self.link_setups();
        self.downstream = self.reverse_edges();
        self.leaves = self.indices().filter(|ix| self.decides_run(*ix)).collect();
        Ok(())
    }

    fn reverse_edges(&self) -> Vec<Vec<TaskIx>> {
        let mut downstream = vec![Vec::new(); self.tasks.len()];
        for ix in self.indices() {
            for need in &self.task(ix).needs {
                downstream[need.at()].push(ix);
            }
        }
        downstream
    }

    /// Kahn's algorithm; what is left over contains a circle, and walking needs inside it finds one.
    fn check_acyclic(&self) -> Result<(), Cycle> {
        let mut open: Vec<usize> = self.tasks.iter().map(|t| t.needs.len()).collect();
        let mut free: Vec<TaskIx> = self.indices().filter(|ix| open[ix.at()] == 0).collect();
        let mut seen = 0;
        while let Some(ix) = free.pop() {
            seen += 1;
            for down in &self.downstream[ix.at()] {
                open[down.at()] -= 1;
                if open[down.at()] == 0 {
                    free.push(*down);
                }
            }
        }
        if seen == self.tasks.len() {
            return Ok(());
        }
        let mut at = self.indices().find(|ix| open[ix.at()] > 0).expect("a task is left over");
        let mut path: Vec<TaskIx> = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            at = *self.task(at).needs.iter().find(|n| open[n.at()] > 0).expect("a task in a circle needs another");
        }
        let start = path.iter().position(|ix| *ix == at).expect("just found");
        let mut names: Vec<TaskId> = path[start..].iter().rev().map(|ix| self.task(*ix).id.clone()).collect();
        names.push(names[0].clone());
        Err(Cycle(names))
    }

    fn reach(&self, from: TaskIx, edges: impl Fn(TaskIx) -> Vec<TaskIx>) -> Vec<bool> {
        let mut seen = vec![false; self.tasks.len()];
        let mut stack = edges(from);
        while let Some(ix) = stack.pop() {
            if !std::mem::replace(&mut seen[ix.at()], true) {
                stack.extend(edges(ix));
            }
        }
        seen
    }

    fn link_setups(&mut self) {
        let setups: Vec<TaskIx> = self.indices().filter(|ix| self.task(*ix).kind == Kind::Setup).collect();
        for setup in setups {
            let below = self.reach(setup, |ix| self.downstream[ix.at()].clone());
            let teardowns: Vec<TaskIx> = self
                .indices()
                .filter(|ix| matches!(&self.task(*ix).kind, Kind::Teardown { of, .. } if of.contains(&setup)))
                .collect();
            let mut scope = vec![false; self.tasks.len()];
            if teardowns.is_empty() {
                scope.clone_from(&below);
            }
            for teardown in teardowns {
                let above = self.reach(teardown, |ix| self.task(ix).needs.clone());
                let between: Vec<TaskIx> =
                    self.indices().filter(|ix| below[ix.at()] && above[ix.at()] && *ix != teardown).collect();
                for ix in &between {
                    scope[ix.at()] = true;
                }
                let needs = &mut self.tasks[teardown.at()].needs;
                needs.extend(between);
                needs.push(setup);
                needs.sort_unstable();
                needs.dedup();
            }
            for (task, inside) in self.tasks.iter_mut().zip(scope) {
                if inside && !matches!(task.kind, Kind::Teardown { .. } | Kind::Finally) {
                    task.setups.push(setup);
                }
            }
        }
    }

    /// A task decides the run's state if nothing that counts comes after it. `finally` tasks always count;
    /// a teardown counts only if it says so.
    fn decides_run(&self, ix: TaskIx) -> bool {
        match self.task(ix).kind {
            Kind::Finally => true,
            Kind::Teardown { fails_run, .. } => fails_run && self.only_ignorable_follow(ix),
            Kind::Normal | Kind::Setup => self.only_ignorable_follow(ix),
        }
    }

    fn only_ignorable_follow(&self, ix: TaskIx) -> bool {
        self.downstream[ix.at()]
            .iter()
            .all(|down| matches!(self.task(*down).kind, Kind::Teardown { fails_run: false, .. }))
    }
}
