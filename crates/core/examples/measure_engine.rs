//! How long one step of the engine takes on large graphs: `measure_engine`, in a release build.
//!
//! Each shape is measured at one size and at twice that size; work that goes by edges takes about twice as long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pitcrew_core::admission::Admission;
use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::engine::{Answer, Demand, Evaluate, Event, Report, Run, Slot};
use pitcrew_core::ir::{MapUnit, Task, TaskIx, Work, Workflow};
use pitcrew_core::state::{Exit, RunState};
use pitcrew_core::{RunId, RunKey, TaskId, Timestamp, WorkflowId};
use serde_json::{Map, Value};

struct Nothing;

impl Evaluate for Nothing {
    fn when(&self, _: &Run, _: Slot) -> Result<Answer, String> {
        Ok(Answer::Go)
    }
    fn items(&self, _: &Run, _: MapUnit) -> Result<Vec<Value>, String> {
        Ok(Vec::new())
    }
    fn branch(&self, _: &Run, _: Slot) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
    fn demand(&self, _: &Run, _: Slot) -> Result<Demand, String> {
        Ok(Demand::default())
    }
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn workflow(tasks: usize, work: &Work, needs: impl Fn(usize) -> Vec<usize>) -> Arc<Workflow> {
    let mut workflow = Workflow::new(WorkflowId::new("large").expect("a valid id"));
    for ix in 0..tasks {
        let mut task = Task::new(TaskId::new(&format!("t{ix}")).expect("a valid id"), work.clone());
        task.needs = needs(ix).into_iter().map(|need| TaskIx(need as u32)).collect();
        workflow.tasks.push(task);
    }
    workflow.link().expect("no circle");
    Arc::new(workflow)
}

fn run(workflow: Arc<Workflow>) -> Run {
    let record = RunRecord {
        key: RunKey(1),
        workflow: workflow.id.clone(),
        run_id: RunId::new("manual__1").expect("a valid id"),
        run_type: RunType::Manual,
        version: String::new(),
        params: Map::new(),
        conf: Map::new(),
        logical_date: None,
        data_interval: None,
        run_after: NOW,
        queued_at: NOW,
        triggered_by: String::new(),
        state: RunState::Queued,
        start: None,
        end: None,
        stop: None,
        note: String::new(),
        backfill: None,
        finally_start: None,
    };
    Run::new(record, workflow)
}

#[allow(clippy::disallowed_methods, reason = "it measures time")]
fn timed<T>(what: &str, size: usize, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    println!("{what:44} {size:>7} tasks {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

/// Starts and ends every task, through the admission.
fn play(run: &mut Run) -> usize {
    let report = Report {
        exit: Exit::Code { code: 0 },
        started_at: Some(NOW),
        at: NOW,
        error: None,
        message: String::new(),
        outputs: BTreeMap::new(),
        held: false,
    };
    let mut admission = Admission::new(64, Vec::new()).expect("no two nodes");
    let mut events = vec![Event::Begin];
    let mut ended = 0;
    loop {
        while let Some(event) = events.pop() {
            let fx = run.apply(event, NOW, &Nothing);
            fx.released.iter().for_each(|slot| admission.release(RunKey(1), *slot));
            fx.offers.iter().for_each(|offer| admission.offer(RunKey(1), offer).expect("there is a pool"));
            for launch in fx.launch {
                ended += 1;
                events.push(Event::Ended { slot: launch.slot, attempt: launch.attempt, report: report.clone() });
            }
        }
        events
            .extend(admission.grant(Timestamp::UNIX_EPOCH).into_iter().map(|grant| Event::Admitted(grant.holder.slot)));
        if events.is_empty() {
            return ended;
        }
    }
}

fn main() {
    let steps = Work::Steps(Vec::new());
    for size in [50_000, 100_000] {
        let independent = timed("link: independent", size, || workflow(size, &steps, |_| Vec::new()));
        let mut fresh = timed("Run::new: independent", size, || run(independent));
        timed("Begin: independent, all offered", size, || fresh.clone().apply(Event::Begin, NOW, &Nothing));
        timed("Begin to end: independent", size, || assert_eq!(play(&mut fresh), size));
        let chain = workflow(size, &Work::Noop, |ix| ix.checked_sub(1).into_iter().collect());
        let mut fresh = run(chain);
        timed("Begin: a chain of noops, all of it", size, || fresh.apply(Event::Begin, NOW, &Nothing));
        assert_eq!(fresh.record.state, RunState::Success);
        let rows = fresh.all_slots().map(|slot| fresh.row(slot)).collect();
        let restored =
            timed("restore: a chain", size, || Run::restore(fresh.record.clone(), fresh.workflow.clone(), rows));
        assert_eq!(restored.record.state, RunState::Success);
    }
    for size in [5_000, 10_000, 100_000] {
        let join = workflow(size + 1, &steps, |ix| if ix == size { (0..size).collect() } else { Vec::new() });
        let mut fresh = run(join);
        timed("Begin to end: a join of all", size, || assert_eq!(play(&mut fresh), size + 1));
    }
    for size in [250, 500] {
        let layers = workflow(size * 2, &steps, |ix| if ix < size { Vec::new() } else { (0..size).collect() });
        let mut fresh = run(layers);
        let what = format!("Begin to end: two layers, {} edges", size * size);
        timed(&what, size * 2, || assert_eq!(play(&mut fresh), size * 2));
    }
}
