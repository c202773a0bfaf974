//! The simulated world: time, machines, users, a store, and the server's memory. It lets one thing happen after another,
//! drawn by the seed, until nothing happens any more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;

use super::backend::{Backend, Found, Message};
use super::rng::Rng;
use super::rules::Rules;
use super::server::{Active, Memory};
use super::store::{Store, Stored};
use super::trace::Log;
use super::{Options, check, workflows};
use crate::admission::Quota;
use crate::engine::record::{RunRecord, RunType};
use crate::engine::{Event, Run, Slot};
use crate::fleet::{Amount, Gpu, Node, Sharing, Standing};
use crate::id::{AttemptId, RunId, RunKey};
use crate::ir::Workflow;
use crate::state::RunState;

pub(super) type Outcome<T = ()> = Result<T, String>;

pub(super) struct World {
    pub options: Options,
    pub rng: Rng,
    pub now: Timestamp,
    pub log: Rc<RefCell<Log>>,
    pub flows: Vec<(Arc<Workflow>, Arc<Rules>)>,
    pub machines: Vec<Machine>,
    pub quotas: Vec<Quota>,
    /// How often machines may still come, go, or be cordoned.
    pub moves_left: u32,
    pub store: Store,
    pub backend: Backend,
    pub memory: Memory,
    pub actions_left: u32,
    pub crashes_left: u32,
    /// How often recovery may still suspect something, and let something begin anew for nothing.
    pub suspicions_left: u32,
    pub restarts_left: u32,
}

/// A node, and whether the server knows of it.
pub(super) struct Machine {
    node: Node,
    is_gone: bool,
}

fn node(name: &str, gpus: i64, sharing: &Sharing) -> Node {
    let gpu = |at| Gpu { sharing: sharing.clone(), ..Gpu::new(format!("{name}/{at}"), "A100", 81_920) };
    Node::new(name, Amount::whole(6), 16_384, (0..gpus).map(gpu).collect())
}

impl World {
    pub fn new(seed: u64, options: Options, log: Rc<RefCell<Log>>) -> Self {
        let mut rng = Rng::new(seed);
        let mut nodes = Vec::new();
        for n in 0..rng.between(1, 3) {
            // Parts of tenths are parts of as many.
            let sharing = if rng.percent(40) { Sharing::TimeSlicing { replicas: 10 } } else { Sharing::Whole };
            nodes.push(node(&format!("n{n}"), rng.between(0, 3), &sharing));
        }
        let moves_left = if rng.percent(50) { rng.between(1, 6) as u32 } else { 0 };
        let count = if rng.percent(25) { 2 } else { 1 };
        let flows: Vec<_> = (0..count)
            .map(|i| {
                let (workflow, rules) = workflows::random(&mut rng, &format!("w{i}"), options.max_tasks, &nodes);
                (Arc::new(workflow), Arc::new(rules))
            })
            .collect();
        let quotas = workflows::quotas(&mut rng, &nodes, &flows);
        let keeps_placeholders = rng.percent(20);
        let actions_left = rng.between(0, i64::from(options.max_actions)) as u32;
        let crashes_left = rng.between(0, i64::from(options.max_crashes)) as u32;
        let suspicions_left = if rng.percent(50) { rng.between(1, 5) as u32 } else { 0 };
        let restarts_left = rng.between(0, 10) as u32;
        let mut world = World {
            options,
            now: Timestamp::UNIX_EPOCH,
            log,
            flows,
            store: Store { keeps_placeholders, ..Store::default() },
            backend: Backend::default(),
            memory: Memory::new(nodes.clone(), quotas.clone()),
            quotas,
            machines: nodes.into_iter().map(|node| Machine { node, is_gone: false }).collect(),
            moves_left,
            actions_left,
            crashes_left,
            suspicions_left,
            restarts_left,
            rng,
        };
        for key in 1..=world.rng.between(1, i64::from(options.max_runs)) {
            world.make_run(RunKey(key));
        }
        world
    }

    fn make_run(&mut self, key: RunKey) {
        let flow = self.rng.below(self.flows.len());
        let workflow = self.flows[flow].0.clone();
        let record = RunRecord {
            key,
            workflow: workflow.id.clone(),
            run_id: RunId::new(&format!("manual__{key}")).expect("a valid id"),
            run_type: RunType::Manual,
            version: String::new(),
            params: Map::new(),
            conf: Map::new(),
            logical_date: None,
            data_interval: None,
            run_after: self.now,
            queued_at: self.now,
            triggered_by: "somebody".to_owned(),
            state: RunState::Queued,
            start: None,
            end: None,
            stop: None,
            note: String::new(),
            backfill: None,
            finally_start: None,
        };
        let run = Run::new(record.clone(), workflow);
        let stored =
            Stored { record, rows: BTreeMap::new(), attempts: BTreeMap::new(), twin: run.clone(), halted: false };
        self.store.runs.insert(key, stored);
        self.memory.runs.insert(key, Active::new(run, flow));
    }

    pub fn describe(&self) -> String {
        self.flows.iter().map(|(workflow, _)| workflows::describe(workflow)).collect()
    }

    pub fn say(&self, line: impl FnOnce() -> String) {
        let at = self.now.as_millisecond();
        self.log.borrow_mut().line(format!("{at:>7} {}", line()));
    }

    pub fn saw(&self, what: &'static str) {
        self.log.borrow_mut().saw(what);
    }

    /// Until nothing happens any more.
    pub fn play(&mut self) -> Outcome {
        loop {
            self.settle()?;
            check::world(self)?;
            if !self.step()? {
                return check::at_rest(self);
            }
            let steps = &mut self.log.borrow_mut().trace.steps;
            *steps += 1;
            if *steps > self.options.max_steps {
                return Err("it does not come to rest".to_owned());
            }
        }
    }

    /// Does one of the things that can happen next; `false` if there is none.
    fn step(&mut self) -> Outcome<bool> {
        #[derive(Clone, Copy)]
        enum Next {
            StartCommit,
            EndCommit,
            Perform,
            Time,
            Act,
            Move,
            Crash,
            Suspect,
            Judge,
        }
        let memory = &self.memory;
        let unwritten = !memory.unwritten.is_empty() || !memory.after.is_empty();
        let time = self.next_time().is_some();
        let busy = time || !memory.is_written();
        let choices = [
            (Next::StartCommit, if unwritten && memory.commit.is_none() { 200 } else { 0 }),
            (Next::EndCommit, if memory.commit.is_some() { 200 } else { 0 }),
            (Next::Perform, if memory.performing.is_empty() { 0 } else { 300 }),
            (Next::Time, if time { 150 } else { 0 }),
            (Next::Act, if self.actions_left == 0 { 0 } else { 5 }),
            (Next::Move, if self.moves_left > 0 && busy { 5 } else { 0 }),
            (Next::Crash, if self.crashes_left > 0 && busy { 5 } else { 0 }),
            (Next::Suspect, if self.suspicions_left > 0 && busy { 5 } else { 0 }),
            (Next::Judge, if self.recovering().next().is_some() { 40 } else { 0 }),
        ];
        let total: usize = choices.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return Ok(self.bring_back());
        }
        let mut at = self.rng.below(total);
        let next = choices.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        match next.expect("the weights add up").0 {
            Next::StartCommit => self.start_commit(),
            Next::EndCommit => self.end_commit(),
            Next::Perform => {
                let after = self.memory.performing.pop_front().expect("there is one");
                self.perform(after)?;
            }
            Next::Time => self.pass_time()?,
            Next::Act => self.act()?,
            Next::Move => self.move_machine(),
            Next::Crash => self.crash()?,
            Next::Suspect => self.suspect()?,
            Next::Judge => self.judge()?,
        }
        Ok(true)
    }

    /// The nodes that the server knows of.
    pub fn nodes(&self) -> Vec<Node> {
        self.machines.iter().filter(|machine| !machine.is_gone).map(|machine| machine.node.clone()).collect()
    }

    /// A machine goes or comes back, or somebody cordons it or lets it take work again. What runs there goes on.
    fn move_machine(&mut self) {
        self.moves_left -= 1;
        let at = self.rng.below(self.machines.len());
        let machine = &mut self.machines[at];
        let what = if self.rng.percent(50) {
            machine.is_gone = !machine.is_gone;
            if machine.is_gone { "a node went" } else { "a node came back" }
        } else if machine.node.standing == Standing::Ready {
            machine.node.standing = Standing::Cordoned;
            "cordoned"
        } else {
            machine.node.standing = Standing::Ready;
            "uncordoned"
        };
        self.saw(what);
        self.say(|| format!("{what}: n{at}"));
        self.tell_nodes();
    }

    /// Nothing happens any more, perhaps for want of a node: was one away?
    fn bring_back(&mut self) -> bool {
        let is_away = |machine: &Machine| machine.is_gone || machine.node.standing != Standing::Ready;
        if !self.machines.iter().any(is_away) {
            return false;
        }
        for machine in &mut self.machines {
            (machine.is_gone, machine.node.standing) = (false, Standing::Ready);
        }
        self.say(|| "all nodes are back".to_owned());
        self.tell_nodes();
        true
    }

    fn tell_nodes(&mut self) {
        let nodes = self.nodes();
        self.memory.admission.set_nodes(nodes).expect("nodes of different names");
    }

    fn next_time(&self) -> Option<Timestamp> {
        let timers = self.memory.runs.values().filter_map(|active| active.run.next_timer());
        timers.chain(self.backend.next_at()).chain(self.memory.poll_at).min()
    }

    /// Goes to the next time at which something is due, and does one of the things that are.
    fn pass_time(&mut self) -> Outcome {
        let Some(at) = self.next_time() else { return Ok(()) };
        self.now = self.now.max(at);
        if self.rng.percent(20) {
            // The server looks at its watch a little late.
            self.now += SignedDuration::from_millis(self.rng.between(0, 3_000));
        }
        let now = self.now;
        let is_due = |active: &Active| active.run.next_timer().is_some_and(|at| at <= now);
        let due: Vec<RunKey> =
            self.memory.runs.iter().filter(|(_, active)| is_due(active)).map(|(key, _)| *key).collect();
        if !due.is_empty() && self.rng.percent(60) {
            return due.into_iter().try_for_each(|key| self.apply(key, Event::Tick));
        }
        if self.memory.poll_at.is_some_and(|at| at <= now) && self.rng.percent(60) {
            return self.poll();
        }
        if let Some(message) = self.backend.advance(&mut self.rng, now) {
            self.told(message)?;
        }
        Ok(())
    }

    fn told(&mut self, message: Message) -> Outcome {
        let id = match &message {
            Message::Started { id, .. } | Message::Ended { id, .. } => id,
        };
        let Some((run, slot)) = self.find(id) else { return Ok(()) };
        let attempt = id.number;
        match message {
            Message::Started { at, .. } => self.apply(run, Event::Started { slot, attempt, at }),
            Message::Ended { report, .. } => {
                let report = self.hold(report);
                self.apply(run, Event::Ended { slot, attempt, report })
            }
        }
    }

    /// The instance of an attempt, if its run is in memory.
    pub fn find(&self, id: &AttemptId) -> Option<(RunKey, Slot)> {
        let run = &self.memory.runs.get(&id.run)?.run;
        let task = run.workflow.find(id.task.as_str())?;
        Some((id.run, run.find(task, id.map_index)?))
    }

    /// Asks what became of everything live; reports may have been lost.
    fn poll(&mut self) -> Outcome {
        self.memory.poll_at = None;
        let live: Vec<(RunKey, Slot, u32)> = self
            .memory
            .runs
            .iter()
            .flat_map(|(key, active)| {
                let slots = active.run.live_slots();
                slots.into_iter().map(|slot| (*key, slot, active.run.instance(slot).attempt))
            })
            .collect();
        for (run, slot, attempt) in live {
            let id = self.memory.runs[&run].run.attempt_id(slot, attempt);
            match self.backend.look(&id) {
                // Its start is on its way.
                Found::NeverBegan | Found::Starting => {}
                Found::Running { since } => self.apply(run, Event::Started { slot, attempt, at: since })?,
                Found::Ended(report) => {
                    let report = self.hold(report);
                    self.apply(run, Event::Ended { slot, attempt, report })?;
                }
            }
        }
        Ok(())
    }
}
