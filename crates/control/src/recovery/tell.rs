//! People are told: what recovery has to say becomes notices of the outbox, once for each channel that wants to hear it.
//!
//! Invariant: a notice goes by the id of the effect that wanted it. So whoever performs it again, after a crash or as the
//! next leader, tells nobody twice.

use jiff::Timestamp;
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::recovery::{Again, EffectId, Incident, IncidentId, Input, JobKey, Notice};
use pitcrew_store::{InstanceFilter, NewNotice, Paging, Store, StoreError};

use super::perform::Hands;
use super::runbook::Runbook;
use super::signs::Signs;
use super::view::{Jobs, deeds};
use super::wish::Deed;
use crate::clock;
use crate::links;
use crate::notify::config::Config;
use crate::notify::facts::Body;
use crate::notify::incident::{IncidentFacts, JobFacts};
use crate::notify::text;

/// Jobs that are told; of more only the number is.
const JOBS: usize = 5;
/// Pieces of evidence, and steps of the timeline: the newest.
const PIECES: usize = 10;
const STEPS: usize = 8;
/// Characters of each.
const LENGTH: usize = 600;
/// Lines and bytes of a job's log.
const LOG_LINES: usize = 15;
const LOG_BYTES: usize = 2_000;
/// Members of a gang that are looked through for the one that failed.
const MEMBERS: u32 = 1_000;
/// While the store cannot be written.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(2);

/// What is known around a notice.
pub struct About {
    pub effect: EffectId,
    /// Of the node that it is about, or the one that hit the job.
    pub incident: Option<Incident>,
    /// What a person can do about that incident.
    pub may: Vec<Deed>,
    /// What signs mean on this server.
    pub signs: Signs,
    pub at: Timestamp,
}

impl Hands {
    /// As often as it takes: whatever else recovery does goes on meanwhile.
    pub(super) async fn tell(&self, effect: EffectId, incident: Option<IncidentId>, notice: Notice) -> Option<Input> {
        tracing::warn!(kind = notice.kind.name(), "{}", notice.text);
        loop {
            match self.post(&effect, incident, &notice).await {
                Ok(()) => return Some(Input::Done { effect }),
                Err(error) => tracing::warn!(%error, "people cannot be told; it is tried again"),
            }
            tokio::time::sleep(AGAIN).await;
            if !self.desk.look(|recovery| recovery.is_open(&effect)) {
                return None;
            }
        }
    }

    async fn post(&self, effect: &EffectId, id: Option<IncidentId>, notice: &Notice) -> Result<(), StoreError> {
        let (found, may) = self.desk.look(|recovery| {
            let of_job = |job: &String| recovery.incidents().filter(|i| i.jobs.contains(job)).last();
            let found = match id {
                Some(id) => recovery.incident(id),
                None => notice.job.as_ref().and_then(of_job),
            };
            (found.cloned(), found.map(|incident| deeds(recovery, incident.id)).unwrap_or_default())
        });
        let incident = match (found, id) {
            (None, Some(id)) => self.store.incident(id).await?,
            (found, _) => found,
        };
        let about = About { effect: effect.clone(), incident, may, signs: self.config.signs.clone(), at: clock::now() };
        post(&self.store, &self.notify, &about, notice).await
    }
}

/// Puts it into the outbox for every channel that a rule names.
pub async fn post(store: &Store, config: &Config, about: &About, notice: &Notice) -> Result<(), StoreError> {
    let channels = config.channels_for(notice.kind, notice.node.as_deref());
    if channels.is_empty() {
        return Ok(());
    }
    let facts = facts(store, about, notice).await?;
    // Numbers of effects begin anew with a node that was away for long; those of incidents never do.
    let of = about.incident.as_ref().map(|incident| incident.id.to_string()).unwrap_or_default();
    let body = serde_json::to_value(Body::Incident(Box::new(facts))).expect("texts and numbers are always JSON");
    let notices = channels.into_iter().map(|channel| NewNotice {
        dedupe: format!("recovery/{of}/{}/{channel}", about.effect),
        channel: channel.to_owned(),
        event: crate::notify::incident::event(notice.kind),
        workflow: None,
        run: None,
        body: body.clone(),
        created: about.at,
    });
    store.add_notices(notices.collect()).await?;
    Ok(())
}

async fn facts(store: &Store, about: &About, notice: &Notice) -> Result<IncidentFacts, StoreError> {
    let incident = about.incident.as_ref();
    let mut pages = Jobs::new(store);
    let names: Vec<String> = match (&notice.job, incident) {
        (Some(job), _) => vec![job.clone()],
        (None, Some(incident)) => incident.jobs.iter().cloned().collect(),
        (None, None) => Vec::new(),
    };
    let mut jobs = Vec::new();
    for name in names.iter().take(JOBS) {
        let page = pages.one(name, None).await?.page;
        jobs.push(JobFacts { name: name.clone(), log: log(store, name).await?, page });
    }
    let newest = |all: &[String], most: usize| -> Vec<String> {
        let skip = all.len().saturating_sub(most);
        all.iter().skip(skip).map(|text| text::cut(&text::one_line(text), LENGTH)).collect()
    };
    let steps = incident.map(|incident| incident.trail.iter().map(step).collect::<Vec<_>>()).unwrap_or_default();
    let commands = about.may.iter().zip(incident.map(|incident| incident.id).into_iter().cycle());
    let page = match (&notice.job, incident) {
        (Some(_), _) => jobs.first().map(|job| job.page.clone()).unwrap_or_default(),
        (None, Some(incident)) => links::incident(incident.id),
        (None, None) => "/incidents".to_owned(),
    };
    Ok(IncidentFacts {
        notice: notice.kind,
        at: about.at,
        text: text::cut(&text::one_line(&notice.text), LENGTH),
        incident: incident.map(|incident| incident.id.to_string()),
        node: notice.node.clone().or_else(|| incident.map(|incident| incident.node.clone())),
        job: notice.job.clone(),
        gpus: incident.map(|incident| incident.gpus.iter().cloned().collect()).unwrap_or_default(),
        verdict: incident.and_then(|incident| incident.verdict).map(|verdict| verdict.name().to_owned()),
        evidence: newest(&notice.evidence, PIECES),
        more_evidence: notice.evidence.len().saturating_sub(PIECES),
        steps: newest(&steps, STEPS),
        tried: newest(&notice.tried, PIECES),
        left: newest(&notice.left, PIECES),
        commands: commands.map(|(deed, id)| format!("pitcrew incidents {} {id}", deed.name())).collect(),
        more_jobs: names.len().saturating_sub(JOBS),
        jobs,
        runbooks: incident.map(|incident| Runbook::all(incident, about.signs.tables())).unwrap_or_default(),
        page,
    })
}

/// `3 times, last at 12:00:05`.
pub fn repeated(again: Again) -> String {
    format!("{} times, last at {}", again.times + 1, again.last.strftime("%H:%M:%S"))
}

fn step(step: &pitcrew_core::recovery::Transition) -> String {
    let change = if step.from == step.to { step.to.clone() } else { format!("{} → {}", step.from, step.to) };
    let again = step.again.map(|again| format!(" ({})", repeated(again))).unwrap_or_default();
    format!("{} {change}: {}{again}", step.at.strftime("%H:%M:%S"), step.why)
}

/// The last lines of a job; of a gang, those of a member that failed.
async fn log(store: &Store, job: &str) -> Result<String, StoreError> {
    let Ok(key) = job.parse::<JobKey>() else { return Ok(String::new()) };
    let filter = InstanceFilter { task: Some(key.task), ..InstanceFilter::default() };
    let rows = store.instances(key.run, &filter, Paging::first(MEMBERS)).await?.rows;
    let is_it = |row: &&InstanceRecord| key.index.is_none_or(|index| i64::from(row.map_index) == i64::from(index));
    let message = rows.iter().filter(is_it).find(|row| !row.message.is_empty()).map(|row| row.message.as_str());
    Ok(text::tail(message.unwrap_or_default(), LOG_LINES, LOG_BYTES))
}
