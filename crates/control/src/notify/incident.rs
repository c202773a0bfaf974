//! What people are told of the fleet: a node that waits for them, is out of service or is back, a job that was given up.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::recovery::NoticeKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::message::{Message, Part, Tone, Words};
use crate::recovery::runbook::Runbook;
use crate::words::plural;

/// The event of a rule that stands for all of them.
pub const ALL: &str = "incident";

/// The word of an event, in rules and in messages.
pub fn event(kind: NoticeKind) -> String {
    format!("{ALL}.{}", kind.name())
}

/// What an event of a rule stands for; empty: it is none of incidents.
pub fn kinds(event: &str) -> Vec<NoticeKind> {
    match event.split_once('.') {
        None if event == ALL => NoticeKind::ALL.to_vec(),
        Some((ALL, name)) => NoticeKind::from_name(name).into_iter().collect(),
        None | Some(_) => Vec::new(),
    }
}

/// What is kept of such a notice: bounded, and without the words around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentFacts {
    pub notice: NoticeKind,
    pub at: Timestamp,
    /// One sentence.
    pub text: String,
    /// `inc-7`.
    pub incident: Option<String>,
    pub node: Option<String>,
    /// Where it is about a job, and not about a node.
    pub job: Option<String>,
    pub gpus: Vec<String>,
    pub verdict: Option<String>,
    /// What was seen, newest last; those left out were before.
    pub evidence: Vec<String>,
    pub more_evidence: usize,
    /// The end of the timeline: what checks said is in it.
    pub steps: Vec<String>,
    pub tried: Vec<String>,
    /// What could still be done.
    pub left: Vec<String>,
    /// What somebody may type now.
    pub commands: Vec<String>,
    pub jobs: Vec<JobFacts>,
    pub more_jobs: usize,
    pub runbooks: Vec<Runbook>,
    /// The path of the page to look at.
    pub page: String,
}

/// A job that it hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobFacts {
    pub name: String,
    /// The last lines, without colours.
    pub log: String,
    pub page: String,
}

/// The first line.
pub fn title(facts: &IncidentFacts) -> String {
    match &facts.incident {
        Some(id) => format!("{id}: {}", facts.text),
        None => facts.text.clone(),
    }
}

impl Words<'_> {
    pub(super) fn of_incident(&self, id: String, facts: &IncidentFacts) -> Message {
        let tone = match facts.notice {
            NoticeKind::OutOfService | NoticeKind::JobFailed => Tone::Bad,
            NoticeKind::Repaired => Tone::Good,
            NoticeKind::ApprovalWanted | NoticeKind::Overdue | NoticeKind::Would => Tone::Plain,
        };
        let json = json!({ "incident": self.incident_json(facts) });
        self.build(id, event(facts.notice), tone, &title(facts), &self.incident_parts(facts), &facts.page, json)
    }

    fn incident_parts(&self, facts: &IncidentFacts) -> Vec<Part> {
        let mut parts = vec![Part::Text(facts.text.clone())];
        let mut fields = Vec::new();
        fields.extend(facts.incident.clone().map(|id| ("Incident", id)));
        fields.extend(facts.node.clone().map(|node| ("Node", node)));
        fields.extend(facts.job.clone().map(|job| ("Job", job)));
        if !facts.gpus.is_empty() {
            fields.push(("GPU", facts.gpus.join(", ")));
        }
        fields.extend(facts.verdict.clone().map(|verdict| ("Verdict", verdict)));
        for book in &facts.runbooks {
            fields.push(("Runbook", format!("{} ({})", book.title(), book.page)));
        }
        fields.push(("Tried", if facts.tried.is_empty() { "nothing".to_owned() } else { facts.tried.join("; ") }));
        if !facts.left.is_empty() {
            fields.push(("Left to try", facts.left.join(", ")));
        }
        parts.push(Part::Fields(fields));
        if !facts.commands.is_empty() {
            parts.push(Part::Text("What you can do:".to_owned()));
            parts.push(Part::Log(facts.commands.join("\n")));
        }
        for book in &facts.runbooks {
            parts.push(Part::Text(format!("{}, {}. What is left to you: {}.", book.title(), book.about, book.person)));
        }
        if !facts.evidence.is_empty() {
            let more = match facts.more_evidence {
                0 => String::new(),
                n => format!(" (and {n} more before)"),
            };
            parts.push(Part::Text(format!("What was seen{more}:")));
            parts.push(Part::Log(facts.evidence.join("\n")));
        }
        if !facts.steps.is_empty() {
            parts.push(Part::Text("What happened, in UTC:".to_owned()));
            parts.push(Part::Log(facts.steps.join("\n")));
        }
        for job in &facts.jobs {
            parts.push(Part::Link(format!("Job {}", job.name), self.link(&job.page)));
            if !job.log.is_empty() {
                parts.push(Part::Log(job.log.clone()));
            }
        }
        if facts.more_jobs > 0 {
            parts.push(Part::Text(format!("… and {}", plural(facts.more_jobs as u64, "more job"))));
        }
        parts
    }

    /// What webhooks get.
    fn incident_json(&self, facts: &IncidentFacts) -> Value {
        let mut json = json!({
            "id": facts.incident,
            "kind": facts.notice.name(),
            "at": facts.at,
            "text": facts.text,
            "node": facts.node,
            "job": facts.job,
            "gpus": facts.gpus,
            "xids": facts.runbooks.iter().map(|book| book.xid).collect::<Vec<_>>(),
            "verdict": facts.verdict,
            "evidence": facts.evidence,
            "steps": facts.steps,
            "tried": facts.tried,
            "left": facts.left,
            "commands": facts.commands,
        });
        let jobs =
            facts.jobs.iter().map(|job| json!({ "name": job.name, "log": job.log, "url": self.link(&job.page) }));
        let books = facts.runbooks.iter().map(|book| (book.xid.to_string(), book.page.clone()));
        json["jobs"] = jobs.collect();
        json["runbooks"] = json!(books.collect::<BTreeMap<_, _>>());
        json
    }
}
