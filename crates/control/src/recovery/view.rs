//! An incident as people see it: in the API, on the pages, and in what they are told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::recovery::{Again, Incident, IncidentId, JobKey, NodeState, Recovery};
use pitcrew_core::{RunId, RunKey, WorkflowId};
use pitcrew_health::Tables;
use pitcrew_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::runbook::Runbook;
use super::wish::Deed;
use crate::links;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IncidentView {
    pub id: String,
    pub node: String,
    pub gpus: Vec<String>,
    /// Where it stands: its outcome, or the state of its node.
    pub state: String,
    pub is_open: bool,
    /// What says most of what was seen.
    pub cause: String,
    pub fault_of: String,
    pub verdict: Option<String>,
    pub outcome: Option<String>,
    pub opened: Timestamp,
    pub closed: Option<Timestamp>,
    /// The repair that is next.
    pub plan: Option<String>,
    /// What a person can do about it now.
    pub may: Vec<Deed>,
    pub signals: Vec<SignalView>,
    /// Signals that were left out.
    pub more_signals: u32,
    pub tried: Vec<TriedView>,
    pub trail: Vec<StepView>,
    pub jobs: Vec<JobView>,
    pub runbooks: Vec<Runbook>,
    /// The path of its page.
    pub page: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignalView {
    pub at: Timestamp,
    pub kind: String,
    pub xid: Option<u32>,
    pub gpu: Option<String>,
    pub advice: String,
    pub evidence: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TriedView {
    pub at: Timestamp,
    pub what: String,
    /// `None`: it is not known yet.
    pub result: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepView {
    pub at: Timestamp,
    pub from: String,
    pub to: String,
    pub why: String,
    /// It was noted again in the same state: so often, and last then.
    pub again: Option<Again>,
}

impl StepView {
    /// Or only a remark.
    pub fn is_change(&self) -> bool {
        self.from != self.to
    }
}

/// A job that an incident hit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// As recovery calls it: `7/train`.
    pub name: String,
    pub workflow: Option<WorkflowId>,
    pub run_id: Option<RunId>,
    /// What recovery is doing with it; `None`: it does not know it any more.
    pub state: Option<String>,
    pub page: String,
}

/// How the node of an incident stands; `None`: there is a newer one, or recovery does not know it.
pub fn standing(recovery: &Recovery, incident: IncidentId) -> Option<NodeState> {
    let mut nodes = recovery.nodes();
    nodes.find(|node| node.incident == Some(incident)).map(|node| node.state)
}

/// What a person can do about an incident.
pub fn deeds(recovery: &Recovery, incident: IncidentId) -> Vec<Deed> {
    let Some(state) = standing(recovery, incident) else { return Vec::new() };
    Deed::ALL.into_iter().filter(|deed| deed.suits(state)).collect()
}

/// Where an incident stands, in a word.
pub fn state(incident: &Incident) -> String {
    match (incident.outcome, incident.trail.last()) {
        (Some(outcome), _) => outcome.name().to_owned(),
        (None, Some(last)) => last.to.clone(),
        (None, None) => "open".to_owned(),
    }
}

impl IncidentView {
    /// `may` as of [`deeds`], `jobs` as of [`Jobs::of`].
    pub fn new(incident: &Incident, may: Vec<Deed>, jobs: Vec<JobView>, tables: &Tables) -> IncidentView {
        let signals = incident.signals.iter().map(|signal| SignalView {
            at: signal.at,
            kind: signal.kind.to_string(),
            xid: signal.kind.xid(),
            gpu: signal.gpu.clone(),
            advice: signal.advice.to_string(),
            evidence: signal.evidence.clone(),
        });
        let tried = incident.tried.iter().map(|tried| TriedView {
            at: tried.at,
            what: tried.rung.to_string(),
            result: tried.result.clone(),
        });
        let trail = incident.trail.iter().map(|step| StepView {
            at: step.at,
            from: step.from.clone(),
            to: step.to.clone(),
            why: step.why.clone(),
            again: step.again,
        });
        IncidentView {
            id: incident.id.to_string(),
            node: incident.node.clone(),
            gpus: incident.gpus.iter().cloned().collect(),
            state: state(incident),
            is_open: incident.is_open(),
            cause: incident.chief().map(|signal| signal.kind.to_string()).unwrap_or_default(),
            fault_of: incident.class.to_string(),
            verdict: incident.verdict.map(|verdict| verdict.name().to_owned()),
            outcome: incident.outcome.map(|outcome| outcome.name().to_owned()),
            opened: incident.opened,
            closed: incident.closed,
            plan: incident.plan.map(|rung| rung.to_string()),
            may,
            signals: signals.collect(),
            more_signals: incident.more_signals,
            tried: tried.collect(),
            trail: trail.collect(),
            jobs,
            runbooks: Runbook::all(incident, tables),
            page: links::incident(incident.id),
        }
    }

    /// Where it waits for a person.
    pub fn waits(&self) -> bool {
        self.may.contains(&Deed::Approve)
    }
}

/// The attempt of a job that an incident ended, or that ended in it: what ran when it was opened, and did not succeed.
pub fn ended<'a>(incident: &Incident, attempts: &'a [AttemptRecord]) -> Option<&'a AttemptRecord> {
    let began = |attempt: &&AttemptRecord| attempt.start.unwrap_or(attempt.queued_at) <= incident.opened;
    let last = attempts.iter().filter(began).max_by_key(|attempt| attempt.number)?;
    Some(last).filter(|attempt| attempt.exit.as_ref().is_some_and(|exit| !exit.is_success()))
}

/// Finds the pages of jobs; each run is read once.
pub struct Jobs<'s> {
    store: &'s Store,
    runs: BTreeMap<RunKey, Option<RunRecord>>,
}

impl<'s> Jobs<'s> {
    pub fn new(store: &'s Store) -> Jobs<'s> {
        Jobs { store, runs: BTreeMap::new() }
    }

    /// The jobs that an incident hit.
    pub async fn of(
        &mut self,
        incident: &Incident,
        state: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<JobView>, StoreError> {
        let mut all = Vec::new();
        for job in &incident.jobs {
            all.push(self.one(job, state(job)).await?);
        }
        Ok(all)
    }

    pub async fn one(&mut self, job: &str, state: Option<String>) -> Result<JobView, StoreError> {
        let mut view = JobView { name: job.to_owned(), workflow: None, run_id: None, state, page: String::new() };
        let Ok(key) = job.parse::<JobKey>() else { return Ok(view) };
        if !self.runs.contains_key(&key.run) {
            self.runs.insert(key.run, self.store.run(key.run).await?);
        }
        if let Some(Some(run)) = self.runs.get(&key.run) {
            let index = key.index.and_then(|index| i32::try_from(index).ok()).unwrap_or(UNMAPPED);
            view.page = links::task(&run.workflow, &run.run_id, &key.task, index);
            (view.workflow, view.run_id) = (Some(run.workflow.clone()), Some(run.run_id.clone()));
        }
        Ok(view)
    }
}
