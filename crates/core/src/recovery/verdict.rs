//! What came of an incident, for the jobs that it hit.

use super::record::{IncidentId, Verdict};
use super::signal::Class;
use super::state::JobState;
use super::step::Step;

impl Step<'_> {
    /// The verdict of an incident; the first one stays, but for a failure that is found later.
    pub fn decide_verdict(&mut self, id: IncidentId, verdict: Verdict) {
        let incident = self.incident(id);
        if incident.verdict == Some(Verdict::Fail) {
            return;
        }
        incident.verdict = Some(verdict);
        incident.class = match verdict {
            Verdict::Fail => Class::Infrastructure,
            Verdict::Pass => Class::Application,
            Verdict::Inconclusive => incident.class,
        };
        for job in self.job_keys() {
            self.tell_job(&job, id, verdict);
        }
    }

    fn tell_job(&mut self, job: &str, id: IncidentId, verdict: Verdict) {
        let row = &self.r.jobs[job];
        // It has begun anew since: what it drew on is put right.
        if row.restarts.iter().any(|restart| restart.class == Class::Unknown && restart.suspects.contains_key(&id)) {
            for restart in &mut self.job(job).restarts {
                if let Some(known) = restart.suspects.get_mut(&id) {
                    *known = Some(verdict);
                    if restart.class == Class::Unknown {
                        restart.class = class_of(restart.suspects.values().copied());
                    }
                }
            }
        }
        let row = &self.r.jobs[job];
        let suspects = row.failure.as_ref().is_some_and(|failure| failure.suspects.contains_key(&id));
        if !suspects {
            return;
        }
        if let Some(failure) = &mut self.job(job).failure {
            failure.suspects.insert(id, Some(verdict));
        }
        if self.r.jobs[job].state == JobState::AwaitingVerdict {
            self.resolve(job);
        }
    }
}

/// One bad node explains a failure; that it was the application takes all of them to be well.
pub(super) fn class_of(verdicts: impl Iterator<Item = Option<Verdict>>) -> Class {
    let mut all_pass = true;
    for verdict in verdicts {
        match verdict {
            Some(Verdict::Fail) => return Class::Infrastructure,
            Some(Verdict::Pass) => {}
            Some(Verdict::Inconclusive) | None => all_pass = false,
        }
    }
    if all_pass { Class::Application } else { Class::Unknown }
}
