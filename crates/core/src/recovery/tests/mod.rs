//! Stories of nodes and jobs, each with the trouble that it is about. After every step all invariants are derived anew, and a
//! machine that is restored from its rows must equal the one at hand.

mod jobs;
mod modes;
mod nodes;
mod outage;
mod rows;
mod signals;
mod verifying;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::state::Exit;

/// Somebody who performs effects, and tells what happens.
struct Story {
    r: Recovery,
    now: Timestamp,
    /// All effects that were ever wanted.
    wanted: Vec<Effect>,
    told: u32,
}

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn all_rungs() -> BTreeSet<Rung> {
    Rung::LADDER.into()
}

impl Story {
    /// `nodes` nodes `n0`, `n1`, … with two GPUs each; recovery acts by itself.
    fn new(nodes: u32) -> Story {
        Story::with(nodes, Policy { mode: Mode::Auto, ..Policy::default() })
    }

    fn with(nodes: u32, policy: Policy) -> Story {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut story = Story { r: Recovery::new(policy), now, wanted: Vec::new(), told: 0 };
        for n in 0..nodes {
            story.node(&format!("n{n}"), |_| {});
        }
        story
    }

    fn node(&mut self, name: &str, change: impl Fn(&mut NodeFacts)) {
        let mut facts = NodeFacts {
            boot_id: Some(format!("{name}-boot-1")),
            gpus: Some(2),
            mode: None,
            opted_out: false,
            rungs: all_rungs(),
        };
        change(&mut facts);
        self.tell(Input::Node { node: name.to_owned(), facts });
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let changes = self.r.apply(input, self.now);
        self.r.sanity_check();
        let json = serde_json::to_string(&self.r.records()).unwrap();
        let rows: Vec<Record> = serde_json::from_str(&json).unwrap();
        let (restored, _) = Recovery::restore(self.r.policy().clone(), rows);
        assert!(restored == self.r, "restored, it is another");
        self.wanted.extend(changes.effects.clone());
        // What everybody does at once.
        for effect in &changes.effects {
            match effect.act {
                Act::Fence { .. } | Act::Unfence { .. } | Act::Notify { .. } | Act::Cancel { .. } => {
                    self.done(&effect.id);
                }
                Act::FailJob { .. } => self.done(&effect.id),
                _ => {}
            }
        }
        changes.effects
    }

    fn done(&mut self, id: &EffectId) {
        self.tell(Input::Done { effect: id.clone() });
    }

    /// Time passes; whatever is due on the way happens when it is.
    fn wait(&mut self, time: SignedDuration) {
        let end = self.now + time;
        while let Some(at) = self.r.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell(Input::Tick);
        }
        self.now = end;
    }

    /// The server ends, and for that long nobody leads.
    fn down(&mut self, time: SignedDuration) -> Vec<Effect> {
        (self.r, _) = Recovery::restore(self.r.policy().clone(), self.r.records());
        self.now += time;
        self.tell(Input::Resumed)
    }

    /// The effect of this name that is open.
    fn open(&self, name: &str) -> Option<Effect> {
        self.r.open_effects().find(|effect| effect.act.name() == name).cloned()
    }

    fn the(&self, name: &str) -> EffectId {
        self.open(name).unwrap_or_else(|| panic!("nobody wants: {name}")).id
    }

    /// How often it was wanted.
    fn count(&self, name: &str) -> usize {
        self.wanted.iter().filter(|effect| effect.act.name() == name).count()
    }

    fn notices(&self, kind: NoticeKind) -> Vec<&Notice> {
        let notices = self.wanted.iter().filter_map(|effect| match &effect.act {
            Act::Notify { notice } if notice.kind == kind => Some(notice),
            _ => None,
        });
        notices.collect()
    }

    fn state(&self, node: &str) -> NodeState {
        self.r.node(node).unwrap().state
    }

    fn job_state(&self, job: &str) -> JobState {
        self.r.job(job).unwrap().state
    }

    fn incident(&self, node: &str) -> &Incident {
        self.r.incident(self.r.node(node).unwrap().incident.unwrap()).unwrap()
    }

    fn signal(&mut self, node: &str, kind: SignalKind, advice: Advice) -> Signal {
        self.told += 1;
        let node_row = self.r.node(node);
        Signal {
            id: format!("signal {}", self.told),
            node: node.to_owned(),
            boot_id: node_row.and_then(|row| row.boot_id.clone()),
            gpu: Some(format!("{node}/0")),
            job: None,
            at: self.now,
            kind,
            advice,
            evidence: "as the kernel wrote".to_owned(),
        }
    }

    /// The kernel writes an XID of the node's first GPU.
    fn xid(&mut self, node: &str, code: u32, advice: Advice) {
        let signal = self.signal(node, SignalKind::Xid { code }, advice);
        self.tell(Input::Signal(signal));
    }

    fn lost(&mut self, node: &str) {
        let mut signal = self.signal(node, SignalKind::NodeLost, Advice::Check);
        signal.gpu = None;
        self.tell(Input::Signal(signal));
    }

    fn check(&mut self, outcome: CheckOutcome) {
        let effect = self.the("check");
        self.tell(Input::CheckEnded { effect, outcome, evidence: "dcgmi diag".to_owned() });
    }

    fn fails(advice: Advice) -> CheckOutcome {
        CheckOutcome::Fail { gpus: vec!["n0/0".to_owned()], advice }
    }

    fn see(&mut self, node: &str, boot: u32) {
        self.see_gpus(node, boot, 2);
    }

    fn see_gpus(&mut self, node: &str, boot: u32, gpus: u32) {
        let seen = Seen { boot_id: Some(format!("{node}-boot-{boot}")), agent: true, gpus: Some(gpus) };
        self.tell(Input::Observed { node: node.to_owned(), seen });
    }

    /// A job with a rank on each of these nodes, with the first GPU of each.
    fn job(&mut self, job: &str, attempt: u32, nodes: &[&str]) {
        let spec = JobSpec { application_restarts: 1, ..JobSpec::default() };
        self.job_of(job, attempt, nodes, spec);
    }

    fn job_of(&mut self, job: &str, attempt: u32, nodes: &[&str], spec: JobSpec) {
        let place = |node: &&str| Place { node: (*node).to_owned(), gpus: vec![format!("{node}/0")] };
        let ranks = nodes.iter().map(place).collect();
        self.tell(Input::JobStarted { job: job.to_owned(), attempt, ranks, spec });
    }

    fn ends(&mut self, job: &str, attempt: u32, rank: u32, exit: Exit) {
        let message = "RuntimeError: CUDA error".to_owned();
        self.tell(Input::RankEnded { job: job.to_owned(), attempt, rank, exit, message });
    }

    fn stops(&mut self, job: &str, attempt: u32) {
        self.tell(Input::JobStopped { job: job.to_owned(), attempt });
    }

    /// Through the drain to the repair that is planned.
    fn drained(&mut self) {
        let drain = self.the("drain");
        self.done(&drain);
    }
}

fn code(code: i32) -> Exit {
    Exit::Code { code }
}
