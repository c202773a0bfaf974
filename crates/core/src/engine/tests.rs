//! The engine's semantics, one short story each. [`World`] holds a run made from a few lines of text, a scripted
//! evaluator and the real admission; after each event it checks every invariant, and that a run restored from the
//! rows written so far equals the one in memory.

mod attempts;
mod branching;
mod draining;
mod explaining;
mod guards;
mod ignoring;
mod limits;
mod mapping;
mod recovering;
mod repeating;
mod rules;
mod scopes;
mod stopping;
mod text;
mod times;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::record::{InstanceRecord, RunRecord, RunType, SkipReason, StopHow};
use super::{Answer, Demand, Effects, Evaluate, Event, Report, Run, Slot};
use crate::admission::Admission;
use crate::fleet::{Amount, Gpu, Gpus, Node, Request};
use crate::id::{RunId, RunKey, TaskId, UNMAPPED, WorkflowId};
use crate::ir::{MapUnit, TaskIx, Workflow};
use crate::sim::differences;
use crate::state::{Exit, RunState, State};

/// What the templates of a test's workflow say, by task or group.
#[derive(Debug, Clone, Default)]
struct Script {
    when: BTreeMap<String, Result<Answer, String>>,
    /// How often a `when` was asked.
    asked: Cell<u32>,
    items: BTreeMap<String, Result<Vec<Value>, String>>,
    branches: BTreeMap<String, Vec<String>>,
    gpus: BTreeMap<String, Result<u32, String>>,
}

fn name_of(run: &Run, slot: Slot) -> String {
    run.workflow.task(slot.task).id.to_string()
}

impl Evaluate for Script {
    fn when(&self, run: &Run, slot: Slot) -> Result<Answer, String> {
        self.asked.update(|asked| asked + 1);
        self.when.get(&name_of(run, slot)).cloned().unwrap_or(Ok(Answer::Go))
    }

    /// From the script; else the output `items` of the task that the mapping reads.
    fn items(&self, run: &Run, unit: MapUnit) -> Result<Vec<Value>, String> {
        let (name, foreach) = match unit {
            MapUnit::Task(ix) => (run.workflow.task(ix).id.to_string(), run.workflow.task(ix).foreach.as_ref()),
            MapUnit::Group(ix) => (run.workflow.group(ix).id.to_string(), run.workflow.group(ix).foreach.as_ref()),
        };
        if let Some(items) = self.items.get(&name) {
            return items.clone();
        }
        let source = foreach.and_then(|f| f.refs.first()).expect("a mapping without script reads a task");
        let instance = run.instance(Slot::new(*source, 0));
        match instance.outputs.get("items") {
            Some(Value::Array(items)) => Ok(items.clone()),
            _ => Err(format!("`{}` gave no items", run.workflow.task(*source).id)),
        }
    }

    fn branch(&self, run: &Run, slot: Slot) -> Result<Vec<String>, String> {
        Ok(self.branches.get(&name_of(run, slot)).cloned().unwrap_or_default())
    }

    fn demand(&self, run: &Run, slot: Slot) -> Result<Demand, String> {
        let gpus = self.gpus.get(&name_of(run, slot)).cloned().unwrap_or(Ok(0))?;
        let request = Request { gpus: Gpus::Count(gpus), ..Request::default() };
        let is_placed = gpus > 0 || run.workflow.task(slot.task).gang.is_some();
        Ok(Demand { request: is_placed.then(|| Arc::new(request)), ..Demand::default() })
    }
}

/// One, or as many as the gangs of tests have members.
fn nodes(workflow: &Workflow) -> Vec<Node> {
    let count = if workflow.tasks.iter().any(|task| task.gang.is_some()) { 3 } else { 1 };
    let node = |n: u32| {
        let gpus = [0, 1].map(|gpu| Gpu::new(format!("gpu-{n}{gpu}"), "A100", 81_920));
        let name = if n == 0 { "local".to_owned() } else { format!("n{n}") };
        Node::new(name, Amount::whole(8), 16_384, gpus.into())
    };
    (0..count).map(node).collect()
}

struct World {
    run: Run,
    script: Script,
    admission: Admission,
    now: Timestamp,
    rows: BTreeMap<(TaskId, i32), InstanceRecord>,
    record: RunRecord,
    past: BTreeMap<TaskIx, bool>,
    /// Attempts by their local name, in order.
    launched: Vec<String>,
    cancelled: Vec<String>,
    /// How often the run reached its end.
    finished: u32,
}

impl World {
    /// A run of a workflow given as text (see `text`), not begun.
    fn new(text: &str) -> World {
        let (workflow, script) = text::parse(text);
        let record = RunRecord {
            key: RunKey(1),
            workflow: WorkflowId::new("test").unwrap(),
            run_id: RunId::new("manual__1").unwrap(),
            run_type: RunType::Manual,
            version: String::new(),
            params: Map::new(),
            conf: Map::new(),
            logical_date: None,
            data_interval: None,
            run_after: Timestamp::UNIX_EPOCH,
            queued_at: Timestamp::UNIX_EPOCH,
            triggered_by: "test".to_owned(),
            state: RunState::Queued,
            start: None,
            end: None,
            stop: None,
            note: String::new(),
            backfill: None,
            finally_start: None,
        };
        let admission = Admission::new(64, nodes(&workflow)).unwrap();
        World {
            run: Run::new(record.clone(), Arc::new(workflow)),
            script,
            admission,
            now: Timestamp::UNIX_EPOCH,
            rows: BTreeMap::new(),
            record,
            past: BTreeMap::new(),
            launched: Vec::new(),
            cancelled: Vec::new(),
            finished: 0,
        }
    }

    /// A run that has begun.
    fn of(text: &str) -> World {
        let mut world = World::new(text);
        world.begin();
        world
    }

    fn when(mut self, task: &str, answer: Result<bool, &str>) -> World {
        let answer = answer.map(|go| if go { Answer::Go } else { Answer::Skip(SkipReason::When) });
        self.script.when.insert(task.to_owned(), answer.map_err(str::to_owned));
        self
    }

    fn answer(mut self, task: &str, answer: Answer) -> World {
        self.script.when.insert(task.to_owned(), Ok(answer));
        self
    }

    /// The items of a mapped task or group: a JSON list.
    fn items(&mut self, unit: &str, items: Value) {
        let items = items.as_array().expect("a list").clone();
        self.script.items.insert(unit.to_owned(), Ok(items));
    }

    fn begun(mut self) -> World {
        self.begin();
        self
    }

    fn begin(&mut self) {
        self.apply(Event::Begin);
    }

    /// Applies an event, and everything that it leads to.
    fn apply(&mut self, event: Event) {
        if let Event::Past { task, allows } = event {
            self.past.insert(task, allows);
        }
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let fx = self.run.apply(event, self.now, &self.script);
            events.extend(self.absorb(fx));
            if events.is_empty() {
                events.extend(
                    self.admission
                        .grant(Timestamp::UNIX_EPOCH)
                        .iter()
                        .rev()
                        .map(|grant| Event::Admitted(grant.holder.slot)),
                );
            }
            self.run.sanity_check();
            self.admission.sanity_check(false);
            self.check_restored();
        }
    }

    fn absorb(&mut self, fx: Effects) -> Vec<Event> {
        let key = self.run.record.key;
        fx.released.iter().for_each(|slot| self.admission.release(key, *slot));
        fx.withdrawn.iter().for_each(|slot| self.admission.withdraw(key, *slot));
        let refused: Vec<Event> = fx
            .offers
            .iter()
            .filter_map(|offer| {
                let refusal = self.admission.offer(key, offer).err()?;
                Some(Event::Refused { slot: offer.slot, reason: refusal.to_string() })
            })
            .collect();
        for task in &fx.expanded {
            self.rows.remove(&(self.run.workflow.task(*task).id.clone(), UNMAPPED));
        }
        for slot in &fx.changed {
            let row = self.run.row(*slot);
            self.rows.insert((row.task.clone(), row.map_index), row);
        }
        if fx.run_changed {
            self.record = self.run.record.clone();
        }
        self.launched.extend(fx.launch.iter().map(|l| self.run.attempt_id(l.slot, l.attempt).local_name()));
        self.cancelled.extend(fx.cancel.iter().map(|c| self.run.attempt_id(c.slot, c.attempt).local_name()));
        self.finished += u32::from(fx.finished);
        refused
    }

    /// The run as a server would find it that starts now.
    fn restored(&self) -> Run {
        let rows = self.rows.values().cloned().collect();
        let mut run = Run::restore(self.record.clone(), self.run.workflow.clone(), rows);
        // What is asked here is not counted.
        let script = self.script.clone();
        run.resume(self.now, &script);
        for (task, allows) in &self.past {
            run.apply(Event::Past { task: *task, allows: *allows }, self.now, &script);
        }
        run.sanity_check();
        run
    }

    fn check_restored(&self) {
        let mut lost = self.run.clone();
        lost.apply(Event::Tick, self.now, &self.script);
        assert_eq!(differences(&lost, &self.restored()), None, "a restart changes the run");
    }

    /// `task`, or `task[2]`.
    fn slot(&self, name: &str) -> Slot {
        let (task, index) = match name.split_once('[') {
            Some((task, index)) => (task, index.trim_end_matches(']').parse().expect("an index")),
            None => (name, 0),
        };
        Slot::new(self.run.workflow.find(task).unwrap_or_else(|| panic!("no task {task}")), index)
    }

    fn state(&self, name: &str) -> &'static str {
        self.run.instance(self.slot(name)).state.name()
    }

    /// Every instance with its state, in order: `a success, b running`.
    fn states(&self) -> String {
        let one = |slot: Slot| {
            let id = &self.run.workflow.task(slot.task).id;
            let index = self.run.map_index(slot);
            let index = if index < 0 { String::new() } else { format!("[{index}]") };
            format!("{id}{index} {}", self.run.instance(slot).state)
        };
        self.run.all_slots().map(one).collect::<Vec<_>>().join(", ")
    }

    fn run_state(&self) -> &'static str {
        self.run.record.state.name()
    }

    fn message(&self, name: &str) -> &str {
        &self.run.instance(self.slot(name)).message
    }

    fn attempt(&self, name: &str) -> u32 {
        self.run.instance(self.slot(name)).attempt
    }

    /// Why it is not running, in words.
    fn why(&self, name: &str) -> String {
        let reasons = self.run.explain(self.slot(name), Some(&self.admission));
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn start(&mut self, name: &str) {
        let slot = self.slot(name);
        self.apply(Event::Started { slot, attempt: self.attempt(name), at: self.now });
    }

    /// The newest attempt ends.
    fn end(&mut self, name: &str, report: Report) {
        let slot = self.slot(name);
        let report = Report { at: self.now, ..report };
        self.apply(Event::Ended { slot, attempt: self.attempt(name), report });
    }

    /// Each of them ends well.
    fn succeed(&mut self, names: &[&str]) {
        for name in names {
            self.end(name, ok());
        }
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.apply(Event::Tick);
    }

    fn cancel(&mut self) {
        self.cancel_so(StopHow::ThenFinally);
    }

    fn cancel_so(&mut self, how: StopHow) {
        self.apply(Event::Cancel { by: "ann".to_owned(), how });
    }

    fn clear(&mut self, names: &[&str]) {
        let slots = names.iter().map(|name| self.slot(name)).collect();
        self.apply(Event::Clear { slots, downstream: false });
    }

    fn clear_from(&mut self, name: &str) {
        self.apply(Event::Clear { slots: vec![self.slot(name)], downstream: true });
    }

    fn mark(&mut self, name: &str, success: bool) {
        self.apply(Event::Mark { slot: self.slot(name), success });
    }

    fn past(&mut self, task: &str, allows: bool) {
        let task = self.slot(task).task;
        self.apply(Event::Past { task, allows });
    }

    /// What was launched since the last time it was asked.
    fn launched(&mut self) -> String {
        std::mem::take(&mut self.launched).join(", ")
    }

    fn cancelled(&mut self) -> String {
        std::mem::take(&mut self.cancelled).join(", ")
    }
}

fn ended(exit: Exit) -> Report {
    Report {
        exit,
        started_at: None,
        at: Timestamp::UNIX_EPOCH,
        error: None,
        message: String::new(),
        outputs: BTreeMap::new(),
        held: false,
    }
}

fn ok() -> Report {
    ended(Exit::Code { code: 0 })
}

/// A success that gives these items to what is mapped over it.
fn gives(items: Value) -> Report {
    Report { outputs: [("items".to_owned(), items)].into(), ..ok() }
}

fn failed() -> Report {
    Report { message: "boom".to_owned(), ..ended(Exit::Code { code: 1 }) }
}

fn skipped() -> Report {
    ended(Exit::Code { code: 99 })
}

fn lost() -> Report {
    ended(Exit::Lost { reason: "its machine went away".to_owned() })
}

fn killed() -> Report {
    ended(Exit::Signal { signal: 15 })
}

fn list(count: usize) -> Value {
    (0..count).map(|i| json!(format!("item {i}"))).collect()
}

#[test]
fn a_chain_runs_in_order_and_its_run_succeeds() {
    let mut w = World::new("a\n b <- a\n c <- b");
    assert_eq!((w.run_state(), w.states().as_str()), ("queued", "a none, b none, c none"));
    w.begin();
    w.start("a");
    assert_eq!(w.states(), "a running, b none, c none");
    w.succeed(&["a", "b"]);
    assert_eq!(w.states(), "a success, b success, c queued");
    w.end("c", ok());
    assert_eq!((w.run_state(), w.finished), ("success", 1));
    assert_eq!(w.launched(), "a.1, b.1, c.1");
}

#[test]
fn the_leaves_decide_the_state_of_a_run() {
    let mut w = World::of("a\n saved <- a : all_failed\n b");
    w.end("a", failed());
    w.succeed(&["saved", "b"]);
    assert_eq!(w.run_state(), "success");

    let mut w = World::of("a\n b <- a");
    w.end("a", failed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b upstream_failed", "failed"));
}

#[test]
fn a_long_chain_of_noops_needs_no_deep_stack() {
    let text: String = (0..3_000)
        .map(|i| if i == 0 { "t0 : noop\n".to_owned() } else { format!("t{i} <- t{} : noop\n", i - 1) })
        .collect();
    let (workflow, script) = text::parse(&text);
    let mut run = Run::new(World::new("a").record, Arc::new(workflow));
    let fx = run.apply(Event::Begin, Timestamp::UNIX_EPOCH, &script);
    assert_eq!((run.record.state, fx.changed.len(), fx.offers.len()), (RunState::Success, 3_000, 0));
    assert!(run.all_slots().all(|slot| run.instance(slot).state == State::Success));
}
