//! Time, and what happens by itself: faults, lines that are cut, jobs that end, people.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};

use super::super::{
    Advice, CheckOutcome, DrainPolicy, EffectId, ExitRules, Input, JobRef, JobSpec, Mode, NodeFacts, OnInconclusive,
    Place, Policy, Restart, Rung, Signal, SignalKind,
};
use super::Options;
use super::jobs::{Attempt, Jobs, Rank};
use super::machines::{Fault, Machine};
use super::server::Server;
use crate::sim::rng::Rng;
use crate::sim::trace::Log;
use crate::state::Exit;

pub(super) type Outcome<T = ()> = Result<T, String>;

/// How long a rank outlives the line to its node.
pub(super) const LEASE: SignedDuration = SignedDuration::from_secs(120);
/// Longest between two looks of the server at everything.
const POLL: SignedDuration = SignedDuration::from_mins(20);
/// After the last fault, all is over by then.
const END: SignedDuration = SignedDuration::from_hours(24 * 4);

/// What happens at a time of its own.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A message reaches the server.
    Told(Input),
    /// A machine may have something to do.
    Machine(String),
    /// Ranks of an attempt begin, or do not.
    Begin(String, u32),
    Rank(String, u32),
    /// A restart may have room.
    Room(String),
    /// A job is begun anew, and not by recovery.
    Again(String),
    /// Does something still run there?
    Drain(EffectId, String, BTreeSet<String>),
    /// A check that began in this boot has ended.
    Checked(String, u32, EffectId, CheckOutcome),
    /// A node is taken away.
    Gone(String),
    Poll,
}

pub(super) struct World {
    pub options: Options,
    pub rng: Rng,
    pub now: Timestamp,
    pub log: Rc<RefCell<Log>>,
    pub machines: BTreeMap<String, Machine>,
    pub jobs: Jobs,
    pub specs: BTreeMap<String, JobSpec>,
    pub server: Server,
    pub events: BTreeMap<(Timestamp, u64), Event>,
    pub sequence: u64,
    pub signals: u32,
    pub faults: u32,
    pub faults_left: u32,
    pub fault_at: Option<Timestamp>,
    pub crashes_left: u32,
    /// Jobs that are still to come.
    pub jobs_left: u32,
    pub people_left: u32,
    /// Jobs that a person stopped before they were over, as the server was told.
    pub user_stopped: BTreeSet<String>,
    /// Attempts of which a signal said that they must not go on.
    pub meant: BTreeSet<(String, u32)>,
    /// Effects that were performed, where once is enough.
    pub performed: BTreeSet<EffectId>,
    /// Nodes that nobody may repair, since when; but for a repair that was begun by then.
    pub opted_out: BTreeMap<String, Timestamp>,
    /// When the newest word of a job reaches the server.
    pub told_until: BTreeMap<String, Timestamp>,
    /// No server leads.
    pub is_down: bool,
    /// Of a hundred messages.
    pub lost: u32,
    pub doubled: u32,
    pub poll: SignedDuration,
    pub quiet_since: Timestamp,
}

impl World {
    pub fn new(seed: u64, options: Options, log: Rc<RefCell<Log>>) -> World {
        let mut rng = Rng::new(seed);
        let nodes = rng.between(1, i64::from(options.max_nodes));
        let mode =
            *rng.pick(&[Mode::Auto, Mode::Auto, Mode::Auto, Mode::Approve, Mode::Observe]).unwrap_or(&Mode::Auto);
        let policy = Policy {
            mode,
            drain: if rng.percent(25) { DrainPolicy::Preempt } else { DrainPolicy::Wait },
            inconclusive: if rng.percent(75) { OnInconclusive::Reboot } else { OnInconclusive::OutOfService },
            repair_share_percent: rng.between(10, 60) as u32,
            reboots_per_day: rng.between(1, 3) as u32,
            remediations_per_week: rng.between(1, 5) as u32,
            ..Policy::default()
        };
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let faults_left = rng.between(1, i64::from(options.max_faults)) as u32;
        let rough = rng.percent(80);
        let mut world = World {
            options,
            now,
            log,
            machines: BTreeMap::new(),
            jobs: Jobs::default(),
            specs: BTreeMap::new(),
            server: Server::new(policy),
            events: BTreeMap::new(),
            sequence: 0,
            signals: 0,
            faults: 0,
            faults_left,
            fault_at: None,
            crashes_left: rng.between(0, i64::from(options.max_crashes)) as u32,
            jobs_left: rng.between(0, 8) as u32,
            people_left: rng.between(0, 6) as u32,
            user_stopped: BTreeSet::new(),
            meant: BTreeSet::new(),
            performed: BTreeSet::new(),
            opted_out: BTreeMap::new(),
            told_until: BTreeMap::new(),
            is_down: false,
            lost: if rough { rng.between(0, 30) as u32 } else { 0 },
            doubled: if rough { rng.between(0, 30) as u32 } else { 0 },
            poll: SignedDuration::from_secs(30),
            quiet_since: now,
            rng,
        };
        for n in 0..nodes {
            world.add_machine(format!("n{n}"));
        }
        for n in 0..world.rng.between(1, i64::from(options.max_jobs)) {
            world.add_job(format!("job{n}"));
        }
        world.plan_fault();
        world.at(SignedDuration::from_secs(30), Event::Poll);
        world
    }

    fn add_machine(&mut self, name: String) {
        let mut rungs: BTreeSet<Rung> = Rung::LADDER.into();
        rungs.retain(|_| self.rng.percent(75));
        let facts = NodeFacts {
            // Mostly nobody has asked it before it is in trouble.
            boot_id: self.rng.percent(30).then(|| format!("{name}-boot-1")),
            gpus: Some(2),
            mode: self.rng.percent(5).then_some(Mode::Observe),
            opted_out: self.rng.percent(5),
            rungs,
        };
        self.machines.insert(name.clone(), Machine::new(name.clone()));
        if facts.opted_out {
            self.opted_out.insert(name.clone(), self.now);
        }
        self.server.facts.insert(name.clone(), facts.clone());
        self.server.know(Input::Node { node: name, facts }, self.now);
    }

    fn add_job(&mut self, job: String) {
        let width = self.rng.between(1, self.machines.len().min(4) as i64) as usize;
        let spec = JobSpec {
            application_restarts: self.rng.between(0, 3) as u32,
            infrastructure_restarts: self.rng.between(0, 6) as u32,
            restart: if self.rng.percent(60) { Restart::Immediately } else { Restart::AfterVerdict },
            check_peers: self.rng.percent(70),
            exits: ExitRules::default(),
        };
        self.jobs.width.insert(job.clone(), width);
        self.specs.insert(job.clone(), spec);
        let Some(places) = self.places(width, &BTreeSet::new()) else { return };
        self.place(&job, 1, places);
    }

    /// Somebody submits another one, while there are faults to come.
    pub fn another_job(&mut self) {
        if self.jobs_left > 0 && self.fault_at.is_some() && self.rng.percent(15) {
            self.jobs_left -= 1;
            self.add_job(format!("job{}", 100 + self.jobs_left));
        }
    }

    /// Free GPUs on nodes of their own that get new work.
    pub fn places(&mut self, width: usize, exclude: &BTreeSet<String>) -> Option<Vec<Place>> {
        let mut free = Vec::new();
        for machine in self.machines.values() {
            if machine.fenced || machine.gone || !machine.answers() || exclude.contains(&machine.name) {
                continue;
            }
            if let Some(gpu) = (0..machine.gpus).map(|at| machine.gpu(at)).find(|gpu| !self.jobs.uses(gpu)) {
                free.push(Place { node: machine.name.clone(), gpus: vec![gpu] });
            }
        }
        while free.len() > width {
            let at = self.rng.below(free.len());
            free.remove(at);
        }
        (free.len() == width).then_some(free)
    }

    /// The attempt has its places; its ranks begin a little later.
    pub fn place(&mut self, job: &str, attempt: u32, places: Vec<Place>) {
        self.say(|| format!("{job}@{attempt} is placed on {places:?}"));
        let ranks = places.into_iter().map(|place| {
            let end = self.now + SignedDuration::from_secs(self.rng.between(300, 30_000));
            let exit = match self.rng.below(100) {
                0..88 => Exit::Code { code: 0 },
                88..94 => Exit::Code { code: 1 },
                94..96 => Exit::OutOfMemory,
                96..98 => Exit::Signal { signal: 11 },
                _ => Exit::Cancelled,
            };
            Rank { place, runs: false, ends: (end, exit), exit: None, seen: false }
        });
        let ranks = ranks.collect();
        self.jobs.attempts.insert((job.to_owned(), attempt), Attempt { ranks, ..Attempt::default() });
        let wait = SignedDuration::from_secs(self.rng.between(1, 60));
        self.at(wait, Event::Begin(job.to_owned(), attempt));
    }

    pub fn at(&mut self, wait: SignedDuration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), event);
    }

    /// Sends something to the server, as lines do. What whoever runs the jobs says of one comes in the order in which it was so.
    pub fn send(&mut self, input: Input) {
        if self.is_down && !matches!(input, Input::Signal(_)) {
            return;
        }
        if let Input::JobStarted { job, .. }
        | Input::JobStarting { job, .. }
        | Input::RankEnded { job, .. }
        | Input::JobStopped { job, .. }
        | Input::UserStop { job, .. } = &input
        {
            let wait = SignedDuration::from_millis(self.rng.between(1, 3_000));
            let last = self.told_until.entry(job.clone()).or_insert(self.now);
            *last = (*last).max(self.now + wait);
            let wait = last.duration_since(self.now);
            let copies = if self.rng.percent(self.doubled) { 2 } else { 1 };
            (0..copies).for_each(|_| self.at(wait, Event::Told(input.clone())));
            return;
        }
        let may_be_lost = matches!(input, Input::Signal(_) | Input::Observed { .. } | Input::CheckEnded { .. });
        if may_be_lost && self.rng.percent(self.lost) {
            self.saw("a message was lost");
            return;
        }
        let copies = if self.rng.percent(self.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let wait = match self.rng.below(20) {
                0..2 => SignedDuration::from_secs(self.rng.between(30, 1_500)),
                2..4 => SignedDuration::from_secs(self.rng.between(2, 30)),
                _ => SignedDuration::from_millis(self.rng.between(1, 900)),
            };
            self.at(wait, Event::Told(input.clone()));
        }
    }

    fn plan_fault(&mut self) {
        let wait = match self.rng.below(4) {
            // Several at once.
            0 => SignedDuration::from_secs(self.rng.between(0, 20)),
            1 => SignedDuration::from_secs(self.rng.between(20, 3_000)),
            _ => SignedDuration::from_secs(self.rng.between(3_000, 60_000)),
        };
        self.fault_at = (self.faults_left > 0).then(|| self.now + wait);
        self.quiet_since = self.now + wait;
    }

    pub fn play(&mut self) -> Outcome {
        loop {
            self.log.borrow_mut().trace.steps += 1;
            if self.log.borrow().trace.steps > self.options.max_steps {
                return Err("it does not come to rest".to_owned());
            }
            if self.is_at_rest() {
                return super::check::at_rest(self);
            }
            if self.fault_at.is_none() && self.now > self.quiet_since + END {
                return Err(format!("it is not over: {}", super::check::what_is_left(self)));
            }
            self.step()?;
            super::check::always(self)?;
        }
    }

    fn step(&mut self) -> Outcome {
        if !self.server.todo.is_empty() && self.rng.percent(90) {
            return self.perform_next();
        }
        if self.people_left > 0 && self.rng.percent(1) {
            self.people_left -= 1;
            return self.people();
        }
        let event = self.events.keys().next().map(|(at, _)| *at);
        let timer = self.server.r.next_deadline();
        let next = [event, timer, self.fault_at].into_iter().flatten().min();
        let Some(next) = next else { return Err("nothing happens any more".to_owned()) };
        if !self.server.todo.is_empty() && next > self.now + SignedDuration::from_secs(5) {
            return self.perform_next();
        }
        self.now = self.now.max(next);
        if self.fault_at.is_some_and(|at| at <= self.now) {
            self.faults_left -= 1;
            self.fault();
            self.plan_fault();
            return Ok(());
        }
        if timer.is_some_and(|at| at <= self.now) && (self.rng.percent(70) || event.is_none_or(|at| at > self.now)) {
            return self.tell(Input::Tick);
        }
        let Some(((at, _), event)) = self.events.pop_first() else { return self.tell(Input::Tick) };
        self.now = self.now.max(at);
        self.happens(event)
    }

    pub fn happens(&mut self, event: Event) -> Outcome {
        match event {
            Event::Told(input) => self.tell(input)?,
            Event::Checked(node, boot, id, outcome) => self.checked(&node, boot, id, outcome)?,
            Event::Machine(name) => self.machine(&name),
            Event::Begin(job, attempt) => self.begin(&job, attempt),
            Event::Rank(job, attempt) => self.ranks(&job, attempt),
            Event::Gone(name) => {
                self.saw("a node was taken away");
                self.kill_all(&name);
                self.machines.get_mut(&name).expect("a machine").gone = true;
                self.send(Input::NodeGone { node: name, why: "taken away".to_owned() });
            }
            Event::Room(job) => self.room(&job)?,
            Event::Again(job) => self.again(&job)?,
            Event::Drain(id, node, gpus) => self.drain(id, &node, &gpus),
            Event::Poll => self.poll()?,
        }
        Ok(())
    }

    /// Something breaks.
    fn fault(&mut self) {
        self.faults += 1;
        self.saw("fault");
        let names: Vec<String> = self.machines.keys().cloned().collect();
        let Some(name) = self.rng.pick(&names).cloned() else { return };
        let number = self.faults;
        match self.rng.below(10) {
            // The line is cut, for a while or for ever.
            0..3 => {
                let wait = SignedDuration::from_secs(self.rng.between(5, 5_000));
                let ever = self.rng.percent(15);
                let (now, machine) = (self.now, self.machines.get_mut(&name).expect("picked"));
                machine.away = Some(if ever { Timestamp::MAX } else { now + wait });
                machine.away_since = Some(now);
                self.say(|| format!("fault {number}: the line to {name} is cut"));
                self.saw("a line was cut");
                self.at(wait, Event::Machine(name.clone()));
                self.at(LEASE, Event::Machine(name.clone()));
                if self.rng.percent(80) {
                    self.signal(&name, None, SignalKind::NodeLost, Advice::Check);
                }
            }
            // It comes up anew by itself.
            3 => {
                let wait = SignedDuration::from_secs(self.rng.between(60, 300));
                self.say(|| format!("fault {number}: {name} crashes"));
                self.saw("a node crashed");
                self.kill_all(&name);
                let now = self.now;
                let machine = self.machines.get_mut(&name).expect("picked");
                machine.starting = Some(now + wait);
                self.at(wait, Event::Machine(name));
            }
            4 if self.rng.percent(50) => {
                self.say(|| format!("fault {number}: {name} is taken away soon"));
                self.saw("a Spot interruption");
                self.signal(&name, None, SignalKind::SpotInterruption, Advice::Check);
                let wait = SignedDuration::from_secs(self.rng.between(20, 900));
                if self.rng.percent(60) && self.machines.len() > 1 {
                    self.at(wait, Event::Gone(name));
                }
            }
            5 if self.rng.percent(30) => {
                self.say(|| format!("fault {number}: {name} is hot"));
                self.saw("a node was hot");
                self.signal(&name, None, SignalKind::Thermal, Advice::Ignore);
            }
            // A GPU.
            _ => self.break_gpu(&name, number),
        }
    }

    fn break_gpu(&mut self, name: &str, number: u32) {
        let fix = match self.rng.below(10) {
            0..3 => Some(Rung::ResetGpu),
            3..7 => Some(Rung::Reboot),
            7 => Some(Rung::HardReboot),
            8 => Some(Rung::Replace),
            _ => None,
        };
        let (at, hides_gpu) = (self.rng.below(2) as u32, self.rng.percent(25));
        let machine = self.machines.get_mut(name).expect("picked");
        if machine.fault.is_some() {
            return;
        }
        let gpu = machine.gpu(at);
        machine.fault = Some(Fault { number, gpu: gpu.clone(), fix, hides_gpu, done: Vec::new(), restarted: false });
        self.say(|| format!("fault {number}: {gpu} breaks; {fix:?} helps"));
        // Tables know some faults, and not others; some are silent.
        let advice = match (self.rng.below(4), fix) {
            (0, _) => Some(Advice::Check),
            (1, Some(Rung::ResetGpu)) | (2, Some(Rung::ResetGpu)) => Some(Advice::ResetGpu),
            (1 | 2, Some(Rung::Replace) | None) if self.rng.percent(50) => Some(Advice::Replace),
            (1 | 2, _) => Some(Advice::Reboot),
            _ => None,
        };
        if let Some(advice) = advice {
            let code = if advice == Advice::Reboot { 79 } else { 95 };
            // The kernel writes more than one line.
            for _ in 0..self.rng.between(1, 3) {
                self.signal(name, Some(&gpu), SignalKind::Xid { code }, advice);
            }
        } else {
            self.saw("a silent fault");
        }
        // Whoever runs there fails, soon, or hangs.
        let users: Vec<((String, u32), usize)> = self.jobs.on(name).map(|(key, at, _)| (key.clone(), at)).collect();
        for ((job, attempt), at) in users {
            let rank = &self.jobs.attempts[&(job.clone(), attempt)].ranks[at];
            if !rank.place.gpus.contains(&gpu) {
                continue;
            }
            let hangs = self.rng.percent(15);
            if hangs && self.rng.percent(50) {
                self.saw("a job that hangs was told");
                self.falls_silent(name, &job, attempt);
            }
            let end = self.now + SignedDuration::from_secs(self.rng.between(1, if hangs { 4_000 } else { 60 }));
            let ends = (end, Exit::Code { code: *self.rng.pick(&[1, 134, 137]).unwrap_or(&1) });
            self.jobs.attempts.get_mut(&(job.clone(), attempt)).expect("it is there").ranks[at].ends = ends;
            self.at(end.duration_since(self.now), Event::Rank(job, attempt));
        }
    }

    /// A member of a job writes nothing any more.
    fn falls_silent(&mut self, node: &str, job: &str, attempt: u32) {
        self.signals += 1;
        let places = self.jobs.attempts[&(job.to_owned(), attempt)].ranks.iter().map(|rank| rank.place.node.clone());
        for node in places.collect::<Vec<_>>() {
            self.machines.get_mut(&node).expect("a machine").evidence = true;
        }
        self.send(Input::Signal(Signal {
            id: format!("s{}", self.signals),
            node: node.to_owned(),
            boot_id: None,
            gpu: None,
            job: Some(JobRef { job: job.to_owned(), attempt }),
            at: self.now,
            kind: SignalKind::Silence,
            advice: Advice::Check,
            evidence: String::new(),
        }));
    }

    pub fn signal(&mut self, node: &str, gpu: Option<&String>, kind: SignalKind, advice: Advice) {
        self.signals += 1;
        let machine = self.machines.get_mut(node).expect("a machine");
        machine.evidence |= !kind.is_absence() && advice != Advice::Ignore;
        let signal = Signal {
            id: format!("s{}", self.signals),
            node: node.to_owned(),
            boot_id: (!kind.is_absence()).then(|| machine.boot_id()),
            gpu: gpu.cloned(),
            job: None,
            at: self.now,
            kind,
            advice,
            evidence: String::new(),
        };
        self.send(Input::Signal(signal));
    }

    pub fn next_poll(&mut self) {
        // Often while things happen, seldom while nothing does.
        self.poll = (self.poll + self.poll / 2).min(POLL);
        self.at(self.poll, Event::Poll);
    }

    pub fn say(&self, line: impl FnOnce() -> String) {
        let line = format!("{} {}", self.now, line());
        self.log.borrow_mut().line(line);
    }

    pub fn saw(&self, what: &'static str) {
        self.log.borrow_mut().saw(what);
    }
}
