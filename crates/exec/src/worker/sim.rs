//! Both sides of workers against each other: the server's ledger and the worker's duty, as they are, over a line that loses,
//! doubles, delays and reorders what is said, while servers and workers are killed and come back.
//!
//! What holds in every world: an attempt is begun at most once, and never while another attempt of the same task runs; how an
//! attempt ended is told once; and when the faults are over everything ends, and both sides forget it. A failure names its
//! seed; `PITCREW_TEST_SEED=N` repeats it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::Exit;
use pitcrew_core::{AttemptId, RunKey, TaskId};

use super::duty::{Do, Duty};
use super::ledger::{Fact, Known, Ledger};
use super::protocol::{Answer, Cancel, End, Order, Sync};
use crate::backend::{Ended, Handle, Observation};
use crate::spec::AttemptSpec;

const SEEDS: u64 = 100;
const WORKERS: usize = 2;
const SLOTS: u32 = 2;
const TASKS: usize = 30;
/// So long after one task the next one is there.
const EVERY: u64 = 20_000;
/// All in milliseconds.
const STEP: u64 = 500;
const LEASE: u64 = 60_000;
const PATIENCE: u64 = 70_000;
/// How long there are faults, and how long everything may take to end after them.
const FAULTS: u64 = 600_000;
const CALM: u64 = 900_000;

/// A small generator of our own, so that a seed means the same for ever (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// Of a thousand.
    fn chance(&mut self, of: u64) -> bool {
        self.below(1000) < of
    }
}

/// What the runner of a worker keeps; it lives on when the worker is killed.
#[derive(Default)]
struct Runner {
    /// Until when each runs by itself.
    running: BTreeMap<AttemptId, u64>,
    ended: BTreeMap<AttemptId, End>,
    /// Attempts that the worker noted before it began them.
    kept: BTreeSet<AttemptId>,
    /// Directories of attempts outlive what the worker holds of them: one that has ended is never begun again.
    past: BTreeMap<AttemptId, End>,
    lease: Option<u64>,
}

struct Machine {
    runner: Runner,
    /// `None` while it is dead, until this time.
    duty: Option<Duty>,
    dead_until: u64,
    incarnation: u64,
    seq: u64,
    flights: BTreeMap<u64, u64>,
    /// Files and ends on their way: when, and what.
    coming: Vec<(u64, AttemptId)>,
    going: Vec<(u64, AttemptId, End)>,
    /// Logs that a server asked for.
    bringing: Vec<(u64, AttemptId)>,
    cut_until: u64,
}

/// A task: its attempts go to any worker, one after the other.
struct Task {
    from: u64,
    attempt: u32,
    on: usize,
    is_done: bool,
    cancel: bool,
}

enum Said {
    Sync(usize, Box<Sync>),
    Answer { to: usize, incarnation: u64, seq: u64, answer: Box<Answer> },
}

struct World {
    seed: u64,
    random: Random,
    now: u64,
    machines: Vec<Machine>,
    /// The server; its ledgers go with it, what it wrote stays.
    ledgers: Vec<Ledger>,
    leads_since: u64,
    down_until: u64,
    servers: u64,
    /// Ends that are written in the directories of attempts.
    written: BTreeMap<AttemptId, End>,
    tasks: Vec<Task>,
    line: Vec<(u64, Said)>,
    begun: BTreeSet<AttemptId>,
    told: BTreeSet<AttemptId>,
    /// Facts of the world that happened, so that one knows it was not a quiet one.
    losses: usize,
}

fn id_of(task: usize, attempt: u32) -> AttemptId {
    let name = TaskId::new(&format!("t{task}")).unwrap();
    AttemptId { run: RunKey(1), task: name, map_index: UNMAPPED, number: attempt }
}

fn handle(id: &AttemptId) -> Handle {
    Handle { id: id.clone(), dir: PathBuf::from("/d"), place: None, home: None }
}

fn ms(time: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(time).unwrap())
}

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn ended(exit: Exit) -> End {
    End::Ended { ended: Ended::bare(exit, at()), log: None }
}

impl Machine {
    fn new() -> Machine {
        Machine {
            runner: Runner::default(),
            duty: Some(Duty::new(SLOTS)),
            dead_until: 0,
            incarnation: 1,
            seq: 0,
            flights: BTreeMap::new(),
            coming: Vec::new(),
            going: Vec::new(),
            bringing: Vec::new(),
            cut_until: 0,
        }
    }

    /// As SIGKILL ends it; the runner goes on.
    fn die(&mut self, until: u64) {
        (self.duty, self.dead_until) = (None, until);
        (self.flights, self.coming, self.going, self.bringing) = Default::default();
    }

    fn comes_back(&mut self) {
        let mut duty = Duty::new(SLOTS);
        for id in &self.runner.kept {
            let found = match (self.runner.ended.get(id), self.runner.running.contains_key(id)) {
                (Some(End::Ended { ended, .. }), _) => Observation::Ended(ended.clone()),
                (Some(End::Lost { reason }), _) => Observation::Lost { reason: reason.clone() },
                (None, true) => Observation::Running { started_at: at() },
                (None, false) => Observation::NeverBegan,
            };
            duty.found(id.clone(), SignedDuration::ZERO, found);
        }
        (self.incarnation, self.seq, self.duty) = (self.incarnation + 1, 0, Some(duty));
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let task = |at: usize, random: &mut Random| Task {
            from: at as u64 * EVERY,
            attempt: 1,
            on: random.below(WORKERS as u64) as usize,
            is_done: false,
            cancel: false,
        };
        let tasks = (0..TASKS).map(|at| task(at, &mut random)).collect();
        World {
            seed,
            random,
            now: 1000,
            machines: (0..WORKERS).map(|_| Machine::new()).collect(),
            ledgers: (0..WORKERS).map(|_| Ledger::default()).collect(),
            leads_since: 1000,
            down_until: 0,
            servers: 1,
            written: BTreeMap::new(),
            tasks,
            line: Vec::new(),
            begun: BTreeSet::new(),
            told: BTreeSet::new(),
            losses: 0,
        }
    }

    fn is_faulty(&self) -> bool {
        self.now < FAULTS
    }

    fn server_now(&self) -> SignedDuration {
        ms(self.now - self.leads_since)
    }

    /// Puts something on the line, which may lose, double and delay it.
    fn say(&mut self, worker: usize, said: impl Fn() -> Said) {
        let (faulty, cut) = (self.is_faulty(), self.now < self.machines[worker].cut_until);
        let times = match () {
            () if cut || (faulty && self.random.chance(150)) => 0,
            () if faulty && self.random.chance(100) => 2,
            () => 1,
        };
        for _ in 0..times {
            let slow = if faulty && self.random.chance(50) { 100_000 } else { 2_000 };
            let delay = self.random.below(slow);
            self.line.push((self.now + delay, said()));
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.is_faulty() {
            self.break_something();
        }
        for worker in 0..WORKERS {
            self.run(worker);
            self.work(worker);
        }
        let due: Vec<usize> = (0..self.line.len()).rev().filter(|at| self.line[*at].0 <= self.now).collect();
        let due: Vec<Said> = due.into_iter().map(|at| self.line.swap_remove(at).1).collect();
        for said in due {
            match said {
                Said::Sync(worker, sync) => self.hear(worker, *sync),
                Said::Answer { to, incarnation, seq, answer } => self.answered(to, incarnation, seq, *answer),
            }
        }
        if self.now >= self.down_until {
            self.schedule();
        }
    }

    fn break_something(&mut self) {
        for worker in 0..WORKERS {
            let how_long = if self.random.chance(300) { 200_000 } else { 20_000 };
            let until = self.now + self.random.below(how_long);
            if self.machines[worker].duty.is_some() && self.random.chance(8) {
                self.machines[worker].die(until);
            }
            if self.random.chance(6) {
                self.machines[worker].cut_until = until;
            }
        }
        if self.now >= self.down_until && self.random.chance(8) {
            self.kill_server();
        }
        if self.random.chance(3) {
            let task = self.random.below(TASKS as u64) as usize;
            self.tasks[task].cancel = true;
        }
    }

    /// What it wrote stays; what it only knew is gone. Another one comes.
    fn kill_server(&mut self) {
        self.down_until = self.now + STEP + self.random.below(40_000);
        self.leads_since = self.down_until;
        self.servers += 1;
        self.ledgers = (0..WORKERS).map(|_| Ledger::default()).collect();
    }

    /// The runner: what runs comes to its end, or to that of the lease.
    fn run(&mut self, worker: usize) {
        let (now, machine) = (self.now, &mut self.machines[worker]);
        let is_over = machine.runner.lease.is_some_and(|lease| now >= lease);
        let done = machine.runner.running.iter().filter(|(_, until)| is_over || **until <= now);
        let done: Vec<AttemptId> = done.map(|(id, _)| id.clone()).collect();
        for id in done {
            machine.runner.running.remove(&id);
            let end =
                if is_over { End::Lost { reason: "the lease is over".into() } } else { ended(Exit::Code { code: 0 }) };
            machine.runner.ended.insert(id.clone(), end.clone());
            machine.runner.past.insert(id.clone(), end.clone());
            if let Some(duty) = &mut machine.duty {
                duty.ended(&id, end, Some(Duration::from_millis(now)));
            }
        }
    }

    /// The worker: does what its duty says, and asks the server.
    fn work(&mut self, worker: usize) {
        let now = self.now;
        if self.machines[worker].duty.is_none() && now >= self.machines[worker].dead_until {
            self.machines[worker].comes_back();
        }
        let machine = &mut self.machines[worker];
        let Some(duty) = &mut machine.duty else { return };
        for (when, id) in std::mem::take(&mut machine.coming) {
            if when <= now { duty.brought(&id, Ok(()), at()) } else { machine.coming.push((when, id)) }
        }
        for (when, id, end) in std::mem::take(&mut machine.going) {
            if when <= now { duty.gone(&id, end) } else { machine.going.push((when, id, end)) }
        }
        for (when, id) in std::mem::take(&mut machine.bringing) {
            if when <= now { duty.logged(&id, None) } else { machine.bringing.push((when, id)) }
        }
        duty.settle(Duration::from_millis(now));
        for what in duty.take() {
            let later = now + self.random.below(5_000);
            match what {
                Do::Bring(id) => machine.coming.push((later, id)),
                Do::Send(id, end) => machine.going.push((later, id, *end)),
                Do::Begin(order) => {
                    let id = order.handle.id;
                    machine.runner.kept.insert(id.clone());
                    if let Some(end) = machine.runner.past.get(&id) {
                        machine.runner.ended.insert(id.clone(), end.clone());
                        duty.ended(&id, end.clone(), Some(Duration::from_millis(now)));
                        continue;
                    }
                    assert!(self.begun.insert(id.clone()), "seed {}: {id} is begun twice", self.seed);
                    let of_task = |other: &&AttemptId| other.task == id.task;
                    assert!(!machine.runner.running.keys().any(|other| of_task(&other)), "seed {}: {id}", self.seed);
                    machine.runner.running.insert(id.clone(), now + self.random.below(90_000));
                    duty.started(&id, at());
                }
                Do::Cancel(id, _) | Do::Lose(id, _, _) => {
                    if machine.runner.running.remove(&id).is_some() {
                        machine.runner.ended.insert(id.clone(), ended(Exit::Cancelled));
                        machine.runner.past.insert(id.clone(), ended(Exit::Cancelled));
                        duty.ended(&id, ended(Exit::Cancelled), Some(Duration::from_millis(now)));
                    }
                }
                Do::Clean(id) => drop((machine.runner.kept.remove(&id), machine.runner.ended.remove(&id))),
                Do::Log(id) => machine.bringing.push((later, id)),
                Do::Leave(_) => {}
            }
        }
        self.nobody_runs_twice();
        let machine = &mut self.machines[worker];
        let Some(duty) = &mut machine.duty else { return };
        // An answer that takes too long is not waited for.
        let late = machine.flights.iter().filter(|(_, sent)| **sent + 30_000 < now);
        let late: Vec<u64> = late.map(|(seq, _)| *seq).collect();
        for seq in late {
            machine.flights.remove(&seq);
            duty.unanswered(seq);
        }
        if machine.flights.len() >= 3 || !(duty.news().is_some() || machine.flights.is_empty()) {
            return;
        }
        machine.seq += 1;
        machine.flights.insert(machine.seq, now);
        let text = r#"{"protocol":1,"incarnation":0,"seq":0,"has":[],"wait_ms":0}"#;
        let sync = Sync {
            incarnation: machine.incarnation,
            seq: machine.seq,
            has: duty.has(machine.seq),
            server: duty.server().map(str::to_owned),
            ..serde_json::from_str(text).unwrap()
        };
        self.say(worker, || Said::Sync(worker, Box::new(sync.clone())));
    }

    /// Of the attempts of a task at most one runs, wherever.
    fn nobody_runs_twice(&self) {
        let mut seen = BTreeSet::new();
        for id in self.machines.iter().flat_map(|machine| machine.runner.running.keys()) {
            assert!(seen.insert(&id.task), "seed {}: two attempts of {} run at {} ms", self.seed, id.task, self.now);
        }
    }

    fn answered(&mut self, worker: usize, incarnation: u64, seq: u64, answer: Answer) {
        let (now, machine) = (self.now, &mut self.machines[worker]);
        let Some(duty) = machine.duty.as_mut().filter(|_| machine.incarnation == incarnation) else { return };
        let Some(sent) = machine.flights.remove(&seq) else { return };
        duty.answered(seq, Duration::from_millis(sent), answer, Duration::from_millis(now), at());
        if let Some(until) = duty.lease() {
            machine.runner.lease = Some(u64::try_from(until.as_millis()).unwrap());
        }
    }

    /// The server takes what a worker says, and answers.
    fn hear(&mut self, worker: usize, sync: Sync) {
        if self.now < self.down_until {
            return;
        }
        let (now, incarnation, seq) = (self.server_now(), sync.incarnation, sync.seq);
        // Somebody of before.
        let Ok(facts) = self.ledgers[worker].take(now, at(), sync) else { return };
        for fact in facts {
            match fact {
                // What never began is seen when the server looks.
                Fact::Started(..) | Fact::NeverBegan(_) => {}
                Fact::Ended(id) => self.take_end(worker, &id),
                Fact::Lost(id, reason) => self.over(&id, End::Lost { reason }),
            }
            if self.now < self.down_until {
                return;
            }
        }
        let ledger = &mut self.ledgers[worker];
        for id in ledger.unclaimed(now, now - SignedDuration::from_secs(30), 100) {
            let is_over = self.tasks.iter().enumerate().all(|(task, of)| id != id_of(task, of.attempt) || of.is_done);
            if is_over {
                ledger.forget(now, &id);
            }
        }
        let word = format!("server {}", self.servers);
        let answer = match ledger.is_last(incarnation, seq) {
            true => ledger.answer(now, &word, ms(LEASE)),
            false => ledger.nothing(&word, ms(LEASE)),
        };
        self.say(worker, || Said::Answer { to: worker, incarnation, seq, answer: Box::new(answer.clone()) });
    }

    fn take_end(&mut self, worker: usize, id: &AttemptId) {
        if let Some(end) = self.ledgers[worker].take_end(id) {
            // Its log is not whole there.
            if self.is_faulty() && matches!(*end, End::Ended { .. }) && self.random.chance(300) {
                let now = self.server_now();
                return self.ledgers[worker].want_log(now, id, end);
            }
            self.written.entry(id.clone()).or_insert(*end);
        }
        if let Some(end) = self.written.get(id).cloned() {
            self.over(id, end);
        }
    }

    /// The scheduler hears of an end: it writes it once, tries what was lost again, and lets go of the attempt.
    fn over(&mut self, id: &AttemptId, end: End) {
        let task = (0..TASKS).find(|task| id_of(*task, self.tasks[*task].attempt) == *id);
        let Some(task) = task.filter(|task| !self.tasks[*task].is_done) else { return };
        assert!(self.told.insert(id.clone()), "seed {}: the end of {id} is told twice", self.seed);
        let on = self.tasks[task].on;
        match end {
            End::Ended { .. } => self.tasks[task].is_done = true,
            End::Lost { .. } => {
                let still = self.machines.iter().any(|machine| machine.runner.running.contains_key(id));
                assert!(!still, "seed {}: {id} is called lost and runs, at {} ms", self.seed, self.now);
                self.losses += 1;
                self.tasks[task].attempt += 1;
                self.tasks[task].on = self.random.below(WORKERS as u64) as usize;
            }
        }
        let now = self.server_now();
        // It may be killed between writing the end and letting go; then nobody claims the attempt later.
        match self.is_faulty() && self.random.chance(50) {
            true => self.kill_server(),
            false => self.ledgers[on].forget(now, id),
        }
    }

    /// What the server does of itself: it looks at every attempt that should be live.
    fn schedule(&mut self) {
        for task in 0..TASKS {
            let Task { from, attempt, on, is_done, cancel } = self.tasks[task];
            if self.now < self.down_until {
                return;
            }
            if is_done || self.now < from {
                continue;
            }
            let (id, now) = (id_of(task, attempt), self.server_now());
            if let Some(end) = self.written.get(&id).cloned() {
                self.over(&id, end);
                continue;
            }
            self.ledgers[on].claim(now, &id);
            let known = self.ledgers[on].observe(now, &id, ms(PATIENCE));
            self.take_end(on, &id);
            if self.told.contains(&id) {
                // Or the server was killed at it.
                continue;
            }
            match known {
                Known::Observed(Observation::NeverBegan) if !cancel => {
                    let spec = AttemptSpec::new(id.clone(), "/d", "/w");
                    let files = self.random.chance(500);
                    self.ledgers[on].order(now, Order { handle: handle(&id), spec, files });
                }
                Known::Observed(Observation::Lost { reason }) => self.over(&id, End::Lost { reason }),
                Known::Observed(_) | Known::Over => {}
            }
            if cancel && !self.told.contains(&id) {
                let is_there = self.ledgers[on].cancel(now, Cancel { handle: handle(&id), grace_ms: 0 });
                if !is_there {
                    self.written.insert(id.clone(), ended(Exit::Cancelled));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.tasks.iter().all(|task| task.is_done)
            && self
                .machines
                .iter()
                .all(|machine| machine.duty.as_ref().is_some_and(Duty::is_empty) && machine.runner.running.is_empty())
    }
}

/// Runs a world to its end; how many attempts were lost in it.
fn play(seed: u64) -> usize {
    let mut world = World::new(seed);
    while world.now < FAULTS || !world.is_over() {
        world.step();
        let open = || {
            let tasks = world.tasks.iter().enumerate().filter(|(_, task)| !task.is_done);
            let tasks: Vec<_> = tasks.map(|(at, task)| (id_of(at, task.attempt), task.on)).collect();
            let held: Vec<_> = world.machines.iter().map(|machine| machine.duty.as_ref().map(Duty::is_empty)).collect();
            format!("{tasks:?}, workers have nothing: {held:?}")
        };
        assert!(world.now < FAULTS + CALM, "seed {seed}: it does not end: {}", open());
    }
    world.losses
}

#[test]
fn whatever_is_lost_doubled_late_or_killed_nothing_runs_twice_and_everything_ends_once() {
    if let Ok(seed) = std::env::var("PITCREW_TEST_SEED") {
        play(seed.parse().expect("a number in PITCREW_TEST_SEED"));
        return;
    }
    let losses: usize = (0..SEEDS).map(play).sum();
    assert!(losses > 20, "the worlds were too quiet: {losses} attempts were lost");
}
