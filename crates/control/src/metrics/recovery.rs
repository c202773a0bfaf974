//! What recovery did, read off its rows as they are written: how they were before, and how they are.
//!
//! Invariant: whoever writes a change counts it, after it is written. So a change is counted by one server, once; and since
//! all times are those of the rows, a step that began under an earlier server is as long as it was.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{
    Act, Changes, Class, Incident, JobRecord, JobState, NodeRecord, NodeState, Outcome, Record, Recovery, Rung,
    Transition, Verdict,
};
use prometheus::Registry;

use super::{Metrics, observe, table};

/// How recovery stands at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryFigures {
    /// Incidents that are not over, by the states of their nodes.
    pub open: BTreeMap<&'static str, usize>,
    pub watched: usize,
    pub in_repair: usize,
    pub out_of_service: usize,
}

impl RecoveryFigures {
    pub fn of(recovery: &Recovery) -> RecoveryFigures {
        // Each is told from the beginning, since an alert looks for one that comes.
        let mut open: BTreeMap<&'static str, usize> =
            STEPS.into_iter().map(|(state, _)| (state.name(), 0)).chain([(NodeState::Fenced.name(), 0)]).collect();
        for node in recovery.nodes().filter(|node| recovery.open_incident(&node.name).is_some()) {
            *open.entry(node.state.name()).or_default() += 1;
        }
        let out = recovery.nodes().filter(|node| node.state == NodeState::OutOfService).count();
        let (watched, in_repair) = (recovery.nodes().count(), recovery.in_repair().count());
        RecoveryFigures { open, watched, in_repair, out_of_service: out }
    }

    pub(super) fn into(&self, registry: &Registry) {
        let open = table::INCIDENTS_OPEN.gauge(registry);
        for (state, count) in &self.open {
            open.with_label_values(&[state]).set(*count as f64);
        }
        for (def, count) in [
            (table::NODES_WATCHED, self.watched),
            (table::NODES_IN_REPAIR, self.in_repair),
            (table::NODES_OUT, self.out_of_service),
        ] {
            def.gauge(registry).with_label_values::<&str>(&[]).set(count as f64);
        }
    }
}

/// The steps of an incident that are states of its node, by the names of these.
const STEPS: [(NodeState, &str); 7] = [
    (NodeState::Suspected, "suspect"),
    (NodeState::Checking, "check"),
    (NodeState::AwaitingApproval, "approval"),
    (NodeState::Queued, "queue"),
    (NodeState::Draining, "drain"),
    (NodeState::Remediating { rung: Rung::ResetGpu }, "repair"),
    (NodeState::Verifying, "verify"),
];

/// The same of a job.
const JOB_STEPS: [(JobState, &str); 4] = [
    (JobState::Stopping, "stop"),
    (JobState::AwaitingVerdict, "verdict"),
    (JobState::Restarting, "restart"),
    (JobState::Starting, "start"),
];

fn cause(incident: &Incident) -> &'static str {
    incident.signals.first().map_or("person", |signal| signal.kind.cause())
}

/// When it happened, as far as is known.
fn began(incident: &Incident) -> Timestamp {
    incident.signals.first().map_or(incident.opened, |signal| signal.at.min(incident.opened))
}

/// A change of state, and how long it was in the state before.
struct Left<'t> {
    step: &'t Transition,
    took: SignedDuration,
}

impl Left<'_> {
    /// `remediating`, whichever rung it is.
    fn from(&self) -> &str {
        self.step.from.split(' ').next().unwrap_or_default()
    }
}

/// The changes of state that a trail has more than before.
fn news<'t>(before: Option<&[Transition]>, now: &'t [Transition]) -> Vec<Left<'t>> {
    let last = before.and_then(<[Transition]>::last);
    let is_last = |step: &Transition| last.is_some_and(|last| (step.at, &step.why) == (last.at, &last.why));
    let known = now.iter().rposition(is_last).map_or(0, |at| at + 1);
    let mut left = Vec::new();
    for (at, step) in now.iter().enumerate().skip(known).filter(|(_, step)| step.is_change()) {
        let entered = now[..at].iter().rfind(|past| past.is_change()).map_or(step.at, |past| past.at);
        left.push(Left { step, took: step.at.duration_since(entered) });
    }
    left
}

impl Metrics {
    /// Takes what was written at that time; `recovery`: as it is since.
    pub fn recovered(&self, changes: &Changes, recovery: &Recovery, now: Timestamp) {
        for record in &changes.records {
            match (record, changes.before.get(&record.key())) {
                (Record::Incident(is), Some(Record::Incident(was))) => self.incident(Some(was), is, recovery),
                (Record::Incident(is), _) => self.incident(None, is, recovery),
                (Record::Node(is), Some(Record::Node(was))) => self.node(was, is, recovery, now),
                (Record::Job(is), Some(Record::Job(was))) => self.job(was, is),
                // A node or a job that is new has done nothing yet; that of the fleet only counts.
                (Record::Fleet(_) | Record::Node(_) | Record::Job(_), _) => {}
            }
        }
    }

    fn incident(&self, was: Option<&Incident>, is: &Incident, recovery: &Recovery) {
        let (cause, began) = (cause(is), began(is));
        if was.is_none() {
            self.expect(cause);
            observe(&self.0.recovery_steps, &["detect", cause], is.opened.duration_since(began));
        }
        for left in news(was.map(|was| &was.trail[..]), &is.trail) {
            let step = STEPS.iter().find(|(state, _)| state.name() == left.from());
            // Most are suspected for no time at all.
            if let Some((_, step)) = step.filter(|(_, step)| *step != "suspect" || !left.took.is_zero()) {
                observe(&self.0.recovery_steps, &[step, cause], left.took);
            }
            if let Some(budget) = budget_of_node(is, &left, recovery) {
                self.0.budgets.with_label_values(&[budget]).inc();
            }
        }
        let was_open = was.is_none_or(Incident::is_open);
        if let (true, Some(closed), Some(outcome)) = (was_open, is.closed, is.outcome) {
            let verdict = is.verdict.unwrap_or(Verdict::Inconclusive);
            self.0.incidents.with_label_values(&[cause, verdict.name()]).inc();
            observe(&self.0.incident_seconds, &[cause, outcome.name()], closed.duration_since(began));
        }
    }

    /// Whoever begins to lead has all that may come next at 0: what is rare would else be missed by every rate.
    pub fn expect_recovery(&self, recovery: &Recovery) {
        let families = &*self.0;
        for rung in Rung::LADDER {
            families.repairs.with_label_values(&[rung.name()]);
        }
        for class in [Class::Application, Class::Infrastructure, Class::Unknown, Class::Moved] {
            families.job_restarts.with_label_values(&[class.name()]);
        }
        for budget in BUDGETS {
            families.budgets.with_label_values(&[budget]);
        }
        recovery.incidents().filter(|incident| incident.is_open()).for_each(|incident| self.expect(cause(incident)));
    }

    /// What an incident may end in.
    fn expect(&self, cause: &str) {
        let families = &*self.0;
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive] {
            families.incidents.with_label_values(&[cause, verdict.name()]);
        }
        for outcome in [Outcome::Passed, Outcome::Repaired, Outcome::OutOfService] {
            families.incident_seconds.with_label_values(&[cause, outcome.name()]);
        }
        families.recovery_steps.with_label_values(&["fence", cause]);
    }

    fn node(&self, was: &NodeRecord, is: &NodeRecord, recovery: &Recovery, now: Timestamp) {
        if let Some(last) = is.remediations.last().filter(|last| was.remediations.last() != Some(*last)) {
            self.0.repairs.with_label_values(&[last.rung.name()]).inc();
        }
        let incident = is.incident.and_then(|id| recovery.incident(id));
        let is_fencing = |row: &NodeRecord| row.open.iter().any(|effect| matches!(effect.act, Act::Fence { .. }));
        // The scheduler has said that it places nothing there any more.
        if let Some(incident) = incident.filter(|_| is.fenced && is_fencing(was) && !is_fencing(is)) {
            let cause = cause(incident);
            observe(&self.0.recovery_steps, &["fence", cause], now.duration_since(incident.opened));
        }
    }

    fn job(&self, was: &JobRecord, is: &JobRecord) {
        let newest = is.restarts.last();
        if let Some(restart) = newest.filter(|new| was.restarts.last().is_none_or(|old| old.attempt < new.attempt)) {
            self.0.job_restarts.with_label_values(&[restart.class.name()]).inc();
        }
        let class = match is.state {
            JobState::Restarting | JobState::Starting | JobState::Running => newest.map(|restart| restart.class),
            JobState::Stopping
            | JobState::AwaitingVerdict
            | JobState::Complete
            | JobState::Failed
            | JobState::UserStopped => is.failure.as_ref().map(|failure| failure.class),
        };
        let class = class.unwrap_or(Class::Unknown).name();
        for left in news(Some(&was.trail), &is.trail) {
            if let Some((_, step)) = JOB_STEPS.iter().find(|(state, _)| state.name() == left.from()) {
                observe(&self.0.job_recovery, &[step, class], left.took);
            }
            let stopping = |step: &&Transition| step.is_change() && step.to == JobState::Stopping.name();
            let failed = is.trail.iter().rfind(stopping);
            if let Some(failed) = failed.filter(|_| left.step.to == JobState::Running.name()) {
                observe(&self.0.job_recovery, &["whole", class], left.step.at.duration_since(failed.at));
            }
        }
        if was.state != is.state
            && let Some(budget) = budget_of_job(is)
        {
            self.0.budgets.with_label_values(&[budget]).inc();
        }
    }
}

const APPLICATION_RESTARTS: &str = "application_restarts";
const INFRASTRUCTURE_RESTARTS: &str = "infrastructure_restarts";
const REBOOTS_PER_DAY: &str = "reboots_per_day";
const REMEDIATIONS_PER_WEEK: &str = "remediations_per_week";
const REPAIR_SHARE: &str = "repair_share";
const BUDGETS: [&str; 5] =
    [APPLICATION_RESTARTS, INFRASTRUCTURE_RESTARTS, REBOOTS_PER_DAY, REMEDIATIONS_PER_WEEK, REPAIR_SHARE];

/// The budget that led a node into the state that it entered.
fn budget_of_node(incident: &Incident, left: &Left<'_>, recovery: &Recovery) -> Option<&'static str> {
    if left.step.to == NodeState::Queued.name() {
        return Some(REPAIR_SHARE);
    }
    // One that could not be repaired anyway was not kept from it by a budget.
    if left.step.to != NodeState::OutOfService.name() || !incident.is_proven() || incident.advice.rung().is_none() {
        return None;
    }
    let (node, policy, at) = (recovery.node(&incident.node)?, recovery.policy(), left.step.at);
    if node.repairs_of_week(at) >= policy.remediations_per_week as usize {
        return Some(REMEDIATIONS_PER_WEEK);
    }
    let is_spent = node.reboots_of_day(at) >= policy.reboots_per_day as usize;
    (is_spent && !incident.restarted).then_some(REBOOTS_PER_DAY)
}

/// The budget that a job has used up which has failed. One that has none has not.
fn budget_of_job(now: &JobRecord) -> Option<&'static str> {
    let failed = now.open.iter().find_map(|effect| match &effect.act {
        Act::FailJob { attempt, class, leave: false, .. } if *attempt == now.attempt => Some(*class),
        _ => None,
    });
    let (application, infrastructure) =
        (now.spec.application_restarts as usize, now.spec.infrastructure_restarts as usize);
    match failed.filter(|_| now.state == JobState::Failed)? {
        Class::Application if application > 0 && now.application_restarts() >= application => {
            Some(APPLICATION_RESTARTS)
        }
        Class::Infrastructure | Class::Unknown
            if infrastructure > 0 && now.infrastructure_restarts(now.since) >= infrastructure =>
        {
            Some(INFRASTRUCTURE_RESTARTS)
        }
        Class::Application | Class::Infrastructure | Class::Unknown | Class::Moved => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pitcrew_core::recovery::{
        Advice, CheckOutcome, Effect, Input, JobSpec, Mode, NodeFacts, Place, Policy, Seen, Signal, SignalKind,
    };

    use super::*;
    use crate::metrics::Scraped;

    /// A server that counts, with the machine that it has.
    struct Server {
        recovery: Recovery,
        metrics: Metrics,
        wanted: Vec<Effect>,
    }

    fn at(tenths: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + tenths * 100).unwrap()
    }

    fn policy() -> Policy {
        Policy { mode: Mode::Auto, reboots_per_day: 1, ..Policy::default() }
    }

    impl Server {
        fn new(recovery: Recovery) -> Server {
            let metrics = Metrics::default();
            metrics.expect_recovery(&recovery);
            Server { recovery, metrics, wanted: Vec::new() }
        }

        /// The one that comes after it has died.
        fn next(self) -> Server {
            Server::new(Recovery::restore(policy(), self.recovery.records()).0)
        }

        fn tell(&mut self, tenths: i64, input: Input) {
            let changes = self.recovery.apply(input, at(tenths));
            self.metrics.recovered(&changes, &self.recovery, at(tenths));
            self.wanted.extend(changes.effects);
        }

        fn done(&mut self, tenths: i64, name: &str) {
            let effect = self.recovery.open_effects().find(|effect| effect.act.name() == name).unwrap().id.clone();
            self.tell(tenths, Input::Done { effect });
        }

        fn check(&mut self, tenths: i64, outcome: CheckOutcome) {
            let effect = self.recovery.open_effects().find(|effect| effect.act.name() == "check").unwrap().id.clone();
            self.tell(tenths, Input::CheckEnded { effect, outcome, evidence: String::new() });
        }

        fn see(&mut self, tenths: i64, boot: &str) {
            let seen = Seen { boot_id: Some(boot.to_owned()), agent: true, gpus: Some(1) };
            self.tell(tenths, Input::Observed { node: "n0".to_owned(), seen });
        }

        fn xid(&mut self, tenths: i64, since: i64, boot: &str) {
            self.tell(
                tenths,
                Input::Signal(Signal {
                    id: format!("line {tenths}"),
                    node: "n0".to_owned(),
                    boot_id: Some(boot.to_owned()),
                    gpu: Some("GPU-0".to_owned()),
                    job: None,
                    at: at(since),
                    kind: SignalKind::Xid { code: 79 },
                    advice: Advice::Reboot,
                    evidence: "fallen off the bus".to_owned(),
                }),
            );
        }

        fn has(&self, line: &str) {
            let text = self.metrics.text(&Scraped::default());
            let about = line.split('{').next().unwrap();
            let of: Vec<&str> = text.lines().filter(|line| line.starts_with(about)).collect();
            assert!(of.contains(&line), "{line}\n{of:#?}");
        }
    }

    #[test]
    fn what_happened_is_counted_once_and_is_as_long_as_it_was_whoever_was_there_for_its_beginning() {
        let mut first = Server::new(Recovery::new(policy()));
        first.has("pitcrew_recovery_budgets_total{budget=\"application_restarts\"} 0");
        for node in ["n0", "n1"] {
            let facts =
                NodeFacts { boot_id: Some("b1".to_owned()), rungs: [Rung::Reboot].into(), ..NodeFacts::default() };
            first.tell(0, Input::Node { node: node.to_owned(), facts });
        }
        first.see(0, "b1");
        let ranks = vec![Place { node: "n0".to_owned(), gpus: vec!["GPU-0".to_owned()] }];
        let spec = JobSpec { infrastructure_restarts: 1, ..JobSpec::default() };
        let job = || "7/train".to_owned();
        first.tell(0, Input::JobStarted { job: job(), attempt: 1, ranks: ranks.clone(), spec: spec.clone() });
        // It fell off at 10, and was seen at 14.
        first.xid(14, 10, "b1");
        first.done(16, "fence");
        first.has("pitcrew_recovery_step_seconds_sum{cause=\"xid\",step=\"detect\"} 0.4");
        first.has("pitcrew_recovery_step_seconds_sum{cause=\"xid\",step=\"fence\"} 0.2");
        first.has("pitcrew_incidents_total{cause=\"xid\",verdict=\"fail\"} 0");
        first.tell(24, Input::JobStopped { job: job(), attempt: 1 });
        first.done(24, "drain");
        first.has("pitcrew_repairs_total{rung=\"reboot\"} 1");
        first.has("pitcrew_job_restarts_total{class=\"infrastructure\"} 1");
        first.has("pitcrew_job_recovery_seconds_sum{class=\"infrastructure\",step=\"stop\"} 1");
        first.has("pitcrew_recovery_step_seconds_sum{cause=\"xid\",step=\"drain\"} 1");

        // Another server leads from here on; it has not counted what was, and knows when it began.
        let mut second = first.next();
        second.has("pitcrew_incidents_total{cause=\"xid\",verdict=\"fail\"} 0");
        second.tell(30, Input::Resumed);
        let place = vec![Place { node: "n1".to_owned(), gpus: Vec::new() }];
        second.tell(34, Input::JobStarting { job: job(), attempt: 2, ranks: place.clone() });
        second.tell(44, Input::JobStarted { job: job(), attempt: 2, ranks: place, spec });
        second.has("pitcrew_job_recovery_seconds_sum{class=\"infrastructure\",step=\"restart\"} 1");
        second.has("pitcrew_job_recovery_seconds_sum{class=\"infrastructure\",step=\"whole\"} 3");
        second.see(124, "b2");
        second.has("pitcrew_recovery_step_seconds_sum{cause=\"xid\",step=\"repair\"} 10");
        second.check(144, CheckOutcome::Pass);
        second.has("pitcrew_recovery_step_seconds_sum{cause=\"xid\",step=\"verify\"} 2");
        second.has("pitcrew_incidents_total{cause=\"xid\",verdict=\"fail\"} 1");
        second.has("pitcrew_incident_seconds_sum{cause=\"xid\",outcome=\"repaired\"} 13.4");
        let text = second.metrics.text(&Scraped::default());
        assert!(
            !text.contains("step=\"detect\"") && !text.contains("pitcrew_repairs_total{rung=\"reboot\"} 1"),
            "{text}"
        );

        // The job fails once more by its machine, and the node may not be rebooted again: both budgets are used up.
        second.tell(150, Input::JobStopped { job: job(), attempt: 2 });
        second.xid(160, 160, "b2");
        second.has("pitcrew_recovery_budgets_total{budget=\"infrastructure_restarts\"} 1");
        second.has("pitcrew_recovery_budgets_total{budget=\"reboots_per_day\"} 1");
        second.has("pitcrew_recovery_budgets_total{budget=\"application_restarts\"} 0");
        second.has("pitcrew_incident_seconds_count{cause=\"xid\",outcome=\"out_of_service\"} 1");
        let figures = RecoveryFigures::of(&second.recovery);
        let open: BTreeSet<usize> = figures.open.values().copied().collect();
        assert_eq!((figures.watched, figures.in_repair, figures.out_of_service, open), (2, 0, 1, [0].into()));
    }

    #[test]
    fn how_incidents_stand_is_told_by_state() {
        let mut server = Server::new(Recovery::new(Policy { mode: Mode::Approve, ..policy() }));
        let facts = NodeFacts { boot_id: Some("b1".to_owned()), rungs: [Rung::Reboot].into(), ..NodeFacts::default() };
        server.tell(0, Input::Node { node: "n0".to_owned(), facts });
        server.see(0, "b1");
        server.xid(1, 1, "b1");
        let figures = RecoveryFigures::of(&server.recovery);
        assert_eq!((figures.open["awaiting_approval"], figures.open["checking"], figures.watched), (1, 0, 1));
        let text = server.metrics.text(&Scraped { recovery: Some(&figures), ..Scraped::default() });
        assert!(!text.contains("pitcrew_incidents_open"), "only the server that leads tells of them: {text}");
        let leads = crate::metrics::Figures { leads: true, ..Default::default() };
        let scraped = Scraped { recovery: Some(&figures), figures: Some(&leads), ..Scraped::default() };
        let text = server.metrics.text(&scraped);
        assert!(text.contains("pitcrew_incidents_open{state=\"awaiting_approval\"} 1"), "{text}");
        assert!(text.contains("pitcrew_nodes_watched 1"), "{text}");
    }
}
