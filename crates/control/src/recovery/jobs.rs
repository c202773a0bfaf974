//! What recovery wants of jobs, asked of the scheduler.
//!
//! The scheduler does each order once, by the number of the attempt that it means; that a job begins, runs and ends is told
//! by it as it happens, so an order that is under way needs no answer of its own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use pitcrew_core::recovery::{Act, Class, EffectId, Input, StopWhy};

use super::Desk;
use super::perform::Hands;
use crate::scheduler::AskError;
use crate::scheduler::recovery::{JobAnswer, Recoverer, Watched};

/// After the scheduler could not be asked.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two times that it is asked after all jobs.
const LOOK: Duration = Duration::from_secs(120);

impl Recoverer for Desk {
    fn holds(&self, node: &str, _job: &str) -> bool {
        let fails = self.0.lead.failed.load(Ordering::Acquire);
        self.is_on() && !fails && self.look(|recovery| recovery.may_act(node))
    }

    fn is_on(&self) -> bool {
        Desk::is_on(self)
    }

    fn comes_to_lead(&self) {
        self.0.lead.began.fetch_add(1, Ordering::AcqRel);
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.is_ready())
    }

    fn tell(&self, input: Input) {
        if self.is_on() {
            self.0.jobs.tell(self, input);
        }
    }

    fn watch(&self, watched: Watched) {
        if self.is_on() {
            self.0.jobs.watch(self, watched);
        }
    }
}

impl Hands {
    /// Asks after all jobs of which something runs, as far as is known here: the end of one that ended while no server ran,
    /// or just before one died, is told by nobody.
    pub(super) async fn ask_after_jobs(self) {
        self.desk.is_ready().await;
        loop {
            self.look_at_jobs().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn look_at_jobs(&self) {
        let live: Vec<(String, u32)> = self.desk.look(|recovery| {
            let live = recovery.jobs().filter(|job| !job.state.is_final() && job.is_live());
            live.map(|job| (job.job.clone(), job.attempt)).collect()
        });
        for (job, attempt) in live {
            match self.scheduler.look_at_job(&job, attempt).await {
                Ok(JobAnswer::Done { .. } | JobAnswer::Already { .. }) => {}
                // After the ends that were told before, however long those take.
                Ok(JobAnswer::Over) => Recoverer::tell(&self.desk, Input::JobOver { job, attempt }),
                Err(AskError::ShuttingDown | AskError::Standby) => return,
                Err(error) => tracing::warn!(job, "it cannot be found out whether a job goes on: {error}"),
            }
        }
    }

    /// The answer, unless the scheduler will tell.
    pub(super) async fn of_job(&self, effect: EffectId, act: Act) -> Option<Input> {
        loop {
            match self.order(&effect, &act).await {
                Ok(answer) => return answer,
                // Whoever leads next does it.
                Err(AskError::ShuttingDown | AskError::Standby) => return None,
                Err(error) => tracing::warn!(%effect, "the scheduler cannot be asked: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
            if !self.desk.look(|recovery| recovery.is_open(&effect)) {
                return None;
            }
        }
    }

    async fn order(&self, effect: &EffectId, act: &Act) -> Result<Option<Input>, AskError> {
        Ok(match act {
            Act::StopJob { job, attempt, why, force } => {
                let failed = self.desk.look(|recovery| {
                    let failure = recovery.job(job)?.failure.as_ref()?;
                    Some((failure.class, failure.why.clone()))
                });
                let reason = match (why, failed) {
                    (StopWhy::Recovery, Some((Class::Moved, why))) => format!("it goes on elsewhere: {why}"),
                    (StopWhy::Recovery, Some((_, failed))) => format!("its machine is being checked: {failed}"),
                    (StopWhy::Recovery, None) => "its machine is being checked".to_owned(),
                    (StopWhy::Drain, _) => "it makes room for a repair".to_owned(),
                    (StopWhy::RollBack, _) => "not all of it could begin".to_owned(),
                    (StopWhy::User, _) => "stopped by a person".to_owned(),
                };
                let answer = match why {
                    // It is being ended; an attempt that the person has begun since is not meant.
                    StopWhy::User => self.scheduler.look_at_job(job, *attempt).await?,
                    StopWhy::Recovery | StopWhy::Drain | StopWhy::RollBack => {
                        self.scheduler.stop_job(job, *attempt, &reason, *force).await?
                    }
                };
                match answer {
                    JobAnswer::Done { live: true } | JobAnswer::Already { live: true } => None,
                    JobAnswer::Done { live: false } | JobAnswer::Already { live: false } | JobAnswer::Over => {
                        Some(Input::JobStopped { job: job.clone(), attempt: *attempt })
                    }
                }
            }
            Act::RestartJob { job, attempt, exclude, class, not_before } => {
                let draws = match class {
                    Class::Application => true,
                    Class::Infrastructure | Class::Unknown | Class::Moved => false,
                };
                self.hear_nodes_of(job).await;
                // No rank goes to a node that was fenced for what was heard.
                self.scheduler.settled().await?;
                let answer = self.scheduler.restart_job(job, *attempt, *not_before, draws, exclude.clone()).await?;
                match answer {
                    JobAnswer::Done { .. } | JobAnswer::Already { .. } => None,
                    // Its run has decided otherwise, or has no more tries for it.
                    JobAnswer::Over => Some(Input::UserStop { job: job.clone(), by: "its run".to_owned() }),
                }
            }
            Act::FailJob { job, attempt, why, leave, .. } => {
                self.scheduler.fail_job(job, *attempt, why, *leave).await?;
                Some(Input::Done { effect: effect.clone() })
            }
            Act::Fence { .. }
            | Act::Unfence { .. }
            | Act::RunCheck { .. }
            | Act::Drain { .. }
            | Act::ResetGpu { .. }
            | Act::Reboot { .. }
            | Act::HardReboot { .. }
            | Act::Replace { .. }
            | Act::Observe { .. }
            | Act::Notify { .. }
            | Act::Cancel { .. } => None,
        })
    }
}
