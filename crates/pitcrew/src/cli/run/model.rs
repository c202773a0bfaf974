//! What a watched run looks like at this moment, put together from the scheduler's changes.
//!
//! It is for people's eyes only; the store has the truth. Times are those at which a change was heard of.

use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_control::scheduler::Step;
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{TaskIx, Workflow};
use pitcrew_core::state::State;

/// One task instance.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    pub state: State,
    /// The number of the newest attempt; 0: none yet.
    pub attempt: u32,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
}

/// A task, with one cell, or one per item once it is mapped.
#[derive(Debug, Clone)]
pub struct Row {
    pub mapped: bool,
    pub cells: Vec<Cell>,
}

/// How many instances are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub waiting: u64,
    pub running: u64,
    pub success: u64,
    pub failed: u64,
    /// Not run: skipped, or held up by a failure.
    pub skipped: u64,
}

/// A change that the model took.
#[derive(Debug, Clone)]
pub struct Taken {
    pub task: TaskIx,
    pub map_index: i32,
    pub cell: Cell,
}

pub struct Model {
    pub workflow: Arc<Workflow>,
    pub rows: Vec<Row>,
    pub tally: Tally,
}

impl Tally {
    fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Running => &mut self.running,
            State::Success => &mut self.success,
            State::Failed => &mut self.failed,
            State::Skipped | State::UpstreamFailed | State::Removed => &mut self.skipped,
            State::None
            | State::Scheduled
            | State::Queued
            | State::UpForRetry { .. }
            | State::UpForReschedule { .. }
            | State::Deferred
            | State::Recovering => &mut self.waiting,
        }
    }

    pub fn total(&self) -> u64 {
        self.waiting + self.running + self.success + self.failed + self.skipped
    }

    pub fn done(&self) -> u64 {
        self.success + self.failed + self.skipped
    }

    pub fn add(&mut self, state: State) {
        *self.of(state) += 1;
    }
}

impl Model {
    pub fn new(workflow: Arc<Workflow>) -> Model {
        let row = |ix| Row { mapped: workflow.mapping_of(ix).is_some(), cells: vec![Cell::default()] };
        let rows: Vec<Row> = workflow.indices().map(row).collect();
        let tally = Tally { waiting: rows.len() as u64, ..Tally::default() };
        Model { workflow, rows, tally }
    }

    /// Takes a change of state. `None`: it says nothing new.
    pub fn step(&mut self, step: &Step, now: Timestamp) -> Option<Taken> {
        let task = *self.workflow.by_name.get(&step.task)?;
        let cell = self.cell(task, step.map_index);
        // After a snapshot, changes may be told that it has already. Nothing leaves a final state but by a clear, and
        // nothing goes from running back to waiting for its start.
        let is_old = match step.to {
            State::None => false,
            State::Scheduled => cell.state.is_final() || cell.state.is_live(),
            State::Queued => cell.state.is_final() || cell.state == State::Running,
            to => cell.state.is_final() && !to.is_final(),
        };
        if cell.state == step.to || is_old {
            return None;
        }
        let mut new = cell.clone();
        new.state = step.to;
        match step.to {
            State::Queued => {
                new.attempt += 1;
                (new.start, new.end) = (None, None);
            }
            State::Running => new.start = Some(now),
            State::None | State::Scheduled => (new.start, new.end) = (None, None),
            to if to.is_final() => new.end = Some(now),
            _ => {}
        }
        self.set(task, step.map_index, new.clone());
        Some(Taken { task, map_index: step.map_index, cell: new })
    }

    /// Takes rows as they are stored or in memory; what is not among them stays. Gives what became final by that.
    pub fn rows<'r>(&mut self, rows: impl IntoIterator<Item = &'r InstanceRecord>) -> Vec<Taken> {
        let mut taken = Vec::new();
        for row in rows {
            let Some(task) = self.workflow.by_name.get(&row.task).copied() else { continue };
            let cell = Cell { state: row.state, attempt: row.attempt, start: row.start, end: row.end };
            let before = self.cell(task, row.map_index).state;
            self.set(task, row.map_index, cell.clone());
            if before != row.state {
                taken.push(Taken { task, map_index: row.map_index, cell });
            }
        }
        taken
    }

    fn cell(&mut self, task: TaskIx, map_index: i32) -> &mut Cell {
        let row = &mut self.rows[task.at()];
        let at = if map_index == UNMAPPED { 0 } else { map_index.max(0) as usize };
        while row.cells.len() <= at {
            row.cells.push(Cell::default());
            self.tally.waiting += 1;
        }
        &mut row.cells[at]
    }

    fn set(&mut self, task: TaskIx, map_index: i32, new: Cell) {
        let cell = self.cell(task, map_index);
        let old = std::mem::replace(cell, new.clone()).state;
        *self.tally.of(old) -= 1;
        *self.tally.of(new.state) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_core::ir::{Task, Work};
    use pitcrew_core::{TaskId, WorkflowId};

    #[test]
    fn the_tally_follows_every_change_and_old_news_changes_nothing() {
        let mut workflow = Workflow::new(WorkflowId::new("w").unwrap());
        for name in ["a", "b"] {
            workflow.tasks.push(Task::new(TaskId::new(name).unwrap(), Work::Noop));
        }
        workflow.link().unwrap();
        let mut model = Model::new(Arc::new(workflow));
        let now = Timestamp::UNIX_EPOCH;
        let mut step = |task: &str, map_index, to| {
            model.step(&Step { task: TaskId::new(task).unwrap(), map_index, to }, now).map(|t| t.cell.attempt)
        };
        assert_eq!(step("a", -1, State::Queued), Some(1));
        assert_eq!(step("a", -1, State::Success), Some(1));
        assert_eq!(step("a", -1, State::Running), None);
        assert_eq!(step("a", -1, State::Queued), None);
        assert_eq!(step("a", -1, State::None), Some(1));
        assert_eq!(step("b", 3, State::Running), Some(0));
        assert_eq!(step("nobody", -1, State::Running), None);
        assert_eq!(model.tally, Tally { waiting: 4, running: 1, ..Tally::default() });
    }
}
