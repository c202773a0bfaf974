//! Deadlines: each of them leads on. Nothing stays where it is because an answer was lost.

use super::effect::{Act, NoticeKind, StopWhy};
use super::policy::DrainPolicy;
use super::record::{Key, Outcome};
use super::signal::Class;
use super::state::{JobState, NodeState, Rung};
use super::step::{Step, later};

/// How often a job is told to stop before it is given up.
const STOPS: u32 = 4;

impl Step<'_> {
    pub fn tick(&mut self) {
        let now = self.now;
        let due = self.r.timers.iter().take_while(|(at, _)| *at <= now);
        for key in due.map(|(_, key)| key.clone()).collect::<Vec<_>>() {
            match key {
                Key::Node(node) => self.node_due(&node),
                Key::Job(job) => self.job_due(&job),
                Key::Fleet | Key::Incident(_) => {}
            }
        }
    }

    fn node_due(&mut self, name: &str) {
        let row = &self.r.nodes[name];
        if row.deadline.is_some_and(|at| at <= self.now) {
            if row.gone {
                self.r.nodes.remove(name);
                return self.remove(Key::Node(name.to_owned()));
            }
            return self.node_overdue(name);
        }
        if row.wake.is_some_and(|at| at <= self.now) {
            self.node(name).wake = None;
            self.node_wakes(name);
        }
    }

    /// A state has lasted too long.
    fn node_overdue(&mut self, node: &str) {
        let deadlines = self.r.policy.deadlines.clone();
        let Some(id) = self.open_incident(node) else {
            self.node(node).deadline = None;
            return;
        };
        let reminded = self.r.incidents[&id].reminded;
        match self.r.nodes[node].state {
            NodeState::Suspected if self.is_only_told(node) => self.end_told(node, "people were told"),
            NodeState::Suspected if self.r.incidents[&id].watched => {
                self.heal(node, Outcome::Observed, "nothing was done: recovery only watches here");
            }
            // It was said to be going, and is there.
            NodeState::Suspected if self.r.nodes[node].seen.agent => self.returned(node, "it is still there"),
            // Never rebooted for that alone: it may be the network.
            NodeState::Suspected => self.retire(node, "it does not answer; nothing was done to it"),
            NodeState::Fenced => self.after_fence(node, true),
            NodeState::Checking => self.check_overdue(node),
            NodeState::Draining if self.r.incidents[&id].drained => {
                self.retire(node, "it does not say which boot it runs, so it is not started anew");
            }
            NodeState::AwaitingApproval | NodeState::Queued | NodeState::Draining if reminded == 0 => {
                let (waits, again) = match self.r.nodes[node].state {
                    NodeState::AwaitingApproval => ("waits for somebody to approve its repair", deadlines.approval),
                    NodeState::Queued => ("waits in line for its repair", deadlines.queue),
                    _ => ("waits for others' work to end before its repair", deadlines.drain),
                };
                self.incident(id).reminded = 1;
                let at = later(self.now, again);
                self.node(node).deadline = Some(at);
                self.tell(node, NoticeKind::Overdue, format!("{node} {waits}"));
            }
            NodeState::AwaitingApproval => self.retire(node, "nobody approved its repair"),
            NodeState::Queued => {
                // The line moves, as whoever is in repair has a deadline as well.
                let at = later(self.now, deadlines.queue);
                self.node(node).deadline = Some(at);
            }
            NodeState::Draining => match self.r.policy.drain {
                DrainPolicy::Wait => self.retire(node, "others' work on it did not end, and was not disturbed"),
                DrainPolicy::Preempt => self.retire(node, "others' work on it could not be ended"),
            },
            NodeState::Remediating { rung: Rung::ResetGpu } => self.next(node, "the reset did not end in time"),
            NodeState::Remediating { rung } => self.next(node, &format!("{rung}: no new boot id in time")),
            NodeState::Verifying => {
                self.cancel_check(node);
                self.next(node, "it was not as before in time");
            }
            NodeState::Healthy | NodeState::OutOfService => self.node(node).deadline = None,
        }
    }

    /// Time for another look, or another check.
    fn node_wakes(&mut self, node: &str) {
        match self.r.nodes[node].state {
            NodeState::Suspected | NodeState::Remediating { .. } => self.look(node),
            NodeState::Checking => self.run_check(node),
            NodeState::Draining => self.draining_wakes(node),
            NodeState::Verifying => {
                let checked = self.r.open_incident(node).is_some_and(|incident| incident.check.is_some());
                if !checked {
                    self.look(node);
                    self.node(node).wake = None;
                    self.verify(node);
                    self.again_in(node, self.r.policy.deadlines.observe);
                }
            }
            NodeState::Healthy | NodeState::OutOfService => self.look_for_held(node),
            NodeState::Fenced | NodeState::AwaitingApproval | NodeState::Queued => {}
        }
    }

    fn job_due(&mut self, job: &str) {
        let row = &self.r.jobs[job];
        let deadlines = self.r.policy.deadlines.clone();
        match row.state {
            JobState::Complete | JobState::Failed | JobState::UserStopped => {
                if row.is_live() || !row.open.is_empty() {
                    return self.forget_job_later(job);
                }
                self.r.jobs.remove(job);
                self.remove(Key::Job(job.to_owned()));
            }
            JobState::Stopping if row.stops < STOPS => {
                let why = row.stop.unwrap_or(StopWhy::Recovery);
                self.drop_open_of_job(job, |act| matches!(act, Act::StopJob { .. }));
                self.order_stop(job, why, true);
            }
            JobState::Stopping => {
                self.fail_for_good(job, "not all of it could be ended; something of it may still run");
            }
            JobState::AwaitingVerdict => self.restart(job, Class::Unknown),
            JobState::Restarting if later(row.since, deadlines.room_at_most) > self.now => {
                let at = later(self.now, deadlines.room);
                let is_first = row.reminded == 0;
                let row = self.job(job);
                (row.reminded, row.deadline) = (1, Some(at));
                if is_first {
                    self.tell_of_job(job, NoticeKind::Overdue, format!("{job} waits for room to begin anew"));
                }
            }
            // It may begin in this moment: it fails when that is taken back.
            JobState::Restarting => {
                self.fail_job(job, Class::Infrastructure, "there was no room to begin anew", StopWhy::RollBack);
                if let Some(failure) = &mut self.job(job).failure {
                    failure.lasting = true;
                }
            }
            JobState::Starting => {
                let why = "not all of its ranks began in time";
                self.fail_job(job, Class::Infrastructure, why, StopWhy::RollBack);
            }
            JobState::Running => self.job(job).deadline = None,
        }
    }
}
