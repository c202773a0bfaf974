//! One input on its way through the machine: who changed, and what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::effect::{Act, Effect, EffectId, Input};
use super::record::{Again, Incident, IncidentId, JobRecord, Key, NodeRecord, Record, Step as Move};
use super::state::{JobState, NodeState};
use super::{Changes, Recovery};

/// How many changes of state a row shows.
const TRAIL: usize = 200;

pub(super) struct Step<'a> {
    pub r: &'a mut Recovery,
    pub now: Timestamp,
    changed: BTreeSet<Key>,
    /// Rows as they were, so that what is as before is not written.
    before: BTreeMap<Key, Record>,
    removed: BTreeSet<Key>,
    effects: Vec<Effect>,
    /// Incidents that are history once they are written.
    past: Vec<IncidentId>,
}

/// `at + by`, at most the end of time.
pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(super) fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

impl<'a> Step<'a> {
    pub fn new(r: &'a mut Recovery, now: Timestamp) -> Self {
        Step {
            r,
            now,
            changed: BTreeSet::new(),
            before: BTreeMap::new(),
            removed: BTreeSet::new(),
            effects: Vec::new(),
            past: Vec::new(),
        }
    }

    pub fn take(&mut self, input: Input) {
        match input {
            Input::Node { node, facts } => self.node_is(node, facts),
            Input::NodeGone { node, why } => self.node_gone(&node, &why),
            Input::Signal(signal) => self.screen(signal),
            Input::Observed { node, seen } => self.observed(&node, seen),
            Input::Begun { effect } => self.begun(&effect),
            Input::Done { effect } => self.done(&effect),
            Input::EffectFailed { effect, why, certain } => self.effect_failed(&effect, &why, certain),
            Input::CheckEnded { effect, outcome, evidence } => self.check_ended(&effect, outcome, &evidence),
            Input::JobStarted { job, attempt, ranks, spec } => self.job_started(job, attempt, ranks, spec),
            Input::JobStarting { job, attempt, ranks } => self.job_starting(&job, attempt, ranks),
            Input::RankEnded { job, attempt, rank, exit, message } => {
                self.rank_ended(&job, attempt, rank, exit, &message);
            }
            Input::JobStopped { job, attempt } => self.job_stopped(&job, attempt),
            Input::JobOver { job, attempt } => self.job_over_untold(&job, attempt),
            Input::UserStop { job, by } => self.user_stop(&job, &by),
            Input::Approve { incident, repair, by } => self.approve(incident, repair, &by),
            Input::Dismiss { incident, by, why } => self.dismiss(incident, &by, &why),
            Input::Retry { incident, by } => self.retry(incident, &by),
            Input::Resumed => self.resumed(),
            Input::Tick => self.tick(),
        }
        self.move_up();
    }

    pub fn finish(mut self) -> Changes {
        for key in self.changed.iter().chain(&self.removed) {
            self.r.arm(key);
        }
        let r = &*self.r;
        // What was wanted for a moment only is nobody's business.
        self.effects.retain(|effect| r.is_open(&effect.id));
        let differs = |record: &Record| self.before.get(&record.key()) != Some(record);
        let records: Vec<Record> = self.changed.iter().filter_map(|key| r.record(key)).filter(differs).collect();
        let mut before = self.before;
        before.retain(|key, _| records.iter().any(|record| record.key() == *key));
        for id in self.past {
            self.r.incidents.remove(&id);
        }
        Changes { records, before, removed: self.removed.into_iter().collect(), effects: self.effects }
    }

    /// The row, which is going to change.
    pub fn node(&mut self, name: &str) -> &mut NodeRecord {
        self.touch(Key::Node(name.to_owned()));
        self.r.nodes.get_mut(name).expect("a node that was looked up")
    }

    pub fn incident(&mut self, id: IncidentId) -> &mut Incident {
        self.touch(Key::Incident(id));
        self.r.incidents.get_mut(&id).expect("an incident that was looked up")
    }

    pub fn job(&mut self, job: &str) -> &mut JobRecord {
        self.touch(Key::Job(job.to_owned()));
        self.r.jobs.get_mut(job).expect("a job that was looked up")
    }

    /// The row is going to change.
    pub fn touch(&mut self, key: Key) {
        if !self.changed.contains(&key) {
            self.before.extend(self.r.record(&key).map(|record| (key.clone(), record)));
            self.changed.insert(key);
        }
    }

    pub fn remove(&mut self, key: Key) {
        self.changed.remove(&key);
        self.removed.insert(key);
    }

    pub fn let_go(&mut self, id: IncidentId) {
        self.past.push(id);
    }

    /// The open incident of a node.
    pub fn open_incident(&self, node: &str) -> Option<IncidentId> {
        self.r.open_incident(node).map(|incident| incident.id)
    }

    /// Wants something done for a node.
    pub fn emit(&mut self, node: &str, act: Act) -> EffectId {
        let incident = self.r.nodes.get(node).and_then(|node| node.incident);
        let row = self.node(node);
        row.steps += 1;
        let id = EffectId::Node { node: node.to_owned(), step: row.steps };
        let effect = Effect { id: id.clone(), incident, act, begun: false };
        row.open.push(effect.clone());
        self.effects.push(effect);
        id
    }

    pub fn emit_for_job(&mut self, job: &str, act: Act) -> EffectId {
        let row = self.job(job);
        row.steps += 1;
        let id = EffectId::Job { job: job.to_owned(), attempt: row.attempt, step: row.steps };
        let effect = Effect { id: id.clone(), incident: None, act, begun: false };
        row.open.push(effect.clone());
        self.effects.push(effect);
        id
    }

    /// It is answered; what it was, if it was still open.
    pub fn settle(&mut self, id: &EffectId) -> Option<Effect> {
        let effect = self.r.effect(id)?.clone();
        match id {
            EffectId::Node { node, .. } => self.node(node).open.retain(|open| open.id != *id),
            EffectId::Job { job, .. } => self.job(job).open.retain(|open| open.id != *id),
        }
        Some(effect)
    }

    /// What is open of a node and not wanted any more.
    pub fn drop_open(&mut self, node: &str, which: impl Fn(&Act) -> bool) {
        if self.r.nodes[node].open.iter().any(|effect| which(&effect.act)) {
            self.node(node).open.retain(|effect| !which(&effect.act));
        }
    }

    pub fn drop_open_of_job(&mut self, job: &str, which: impl Fn(&Act) -> bool) {
        if self.r.jobs[job].open.iter().any(|effect| which(&effect.act)) {
            self.job(job).open.retain(|effect| !which(&effect.act));
        }
    }

    /// The only place that changes the state of a node. `within`: until its deadline.
    pub fn become_node(&mut self, name: &str, to: NodeState, within: Option<SignedDuration>, why: impl Into<String>) {
        let now = self.now;
        let row = self.node(name);
        let from = row.state;
        assert!(from.may_become(to), "{} is {from} and cannot become {to}", row.name);
        (row.state, row.since, row.wake) = (to, Some(now), None);
        row.deadline = within.map(|within| later(now, within));
        if let Some(id) = row.incident {
            let incident = self.incident(id);
            incident.reminded = 0;
            note(&mut incident.trail, now, &from.to_string(), &to.to_string(), why.into());
        }
    }

    /// The only place that changes the state of a job.
    pub fn become_job(&mut self, job: &str, to: JobState, within: Option<SignedDuration>, why: impl Into<String>) {
        let now = self.now;
        let row = self.job(job);
        let from = row.state;
        assert!(from.may_become(to), "{} is {from} and cannot become {to}", row.job);
        (row.state, row.since, row.reminded) = (to, now, 0);
        row.deadline = within.map(|within| later(now, within));
        note(&mut row.trail, now, from.name(), to.name(), why.into());
    }

    /// Something worth a line in the trail that changes no state.
    pub fn remark(&mut self, node: &str, why: impl Into<String>) {
        let Some(id) = self.open_incident(node) else { return };
        let (now, state) = (self.now, self.r.nodes[node].state.to_string());
        note(&mut self.incident(id).trail, now, &state, &state, why.into());
    }

    pub fn again_in(&mut self, node: &str, wait: SignedDuration) {
        let at = later(self.now, wait);
        self.node(node).wake = Some(at);
    }

    pub fn job_keys(&self) -> Vec<String> {
        self.r.jobs.keys().cloned().collect()
    }
}

fn note(trail: &mut Vec<Move>, at: Timestamp, from: &str, to: &str, why: String) {
    let step = Move::new(at, from, to, why);
    // What is said again and again in a state is said once, with how often.
    let mut here = trail.iter_mut().rev().take_while(|past| !past.is_change());
    if !step.is_change()
        && let Some(said) = here.find(|past| past.to == step.to && past.why == step.why)
    {
        let times = said.again.map_or(0, |again| again.times);
        said.again = Some(Again { times: times + 1, last: at });
        return;
    }
    if trail.len() >= TRAIL {
        // The beginning and the end tell the most.
        trail.remove(TRAIL / 2);
    }
    trail.push(step);
}

impl Recovery {
    fn record(&self, key: &Key) -> Option<Record> {
        match key {
            Key::Fleet => Some(Record::Fleet(self.fleet.clone())),
            Key::Node(name) => self.nodes.get(name).cloned().map(Record::Node),
            Key::Incident(id) => self.incidents.get(id).cloned().map(Record::Incident),
            Key::Job(job) => self.jobs.get(job).cloned().map(Record::Job),
        }
    }

    /// All rows, as they are to be written.
    pub fn records(&self) -> Vec<Record> {
        let keys = [Key::Fleet].into_iter();
        let keys = keys.chain(self.nodes.keys().cloned().map(Key::Node));
        let keys = keys.chain(self.incidents.keys().copied().map(Key::Incident));
        let keys = keys.chain(self.jobs.keys().cloned().map(Key::Job));
        keys.filter_map(|key| self.record(&key)).collect()
    }

    /// Sets the timer of a row anew.
    pub(super) fn arm(&mut self, key: &Key) {
        let due = match key {
            Key::Fleet | Key::Incident(_) => None,
            Key::Node(name) => self.nodes.get(name).and_then(NodeRecord::due),
            Key::Job(job) => self.jobs.get(job).and_then(|job| job.deadline),
        };
        if let Some(at) = self.armed.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
        if let Some(at) = due {
            self.armed.insert(key.clone(), at);
            self.timers.insert((at, key.clone()));
        }
    }
}

impl NodeRecord {
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.deadline.into_iter().chain(self.wake).min()
    }
}
