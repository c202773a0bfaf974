//! The thirteen trigger rules: what a task wants of the tasks that it needs.
//!
//! A rule sees only counts, so it is one pure function, and it answers as early as the counts allow: a task whose
//! rule can no longer be met ends at once, not when the last upstream task does.

use serde::{Deserialize, Serialize};

use crate::state::State;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerRule {
    AllSuccess,
    AllFailed,
    AllDone,
    AllDoneMinOneSuccess,
    /// The rule of teardowns.
    AllDoneSetupSuccess,
    AllSkipped,
    OneSuccess,
    OneFailed,
    OneDone,
    NoneFailed,
    NoneFailedMinOneSuccess,
    NoneSkipped,
    Always,
}

/// How many of a task's upstream instances are in each final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub total: u32,
    pub success: u32,
    pub failed: u32,
    pub upstream_failed: u32,
    pub skipped: u32,
    pub removed: u32,
    /// Those of `total`, `success` and `skipped` that are setups of a teardown.
    pub setups: u32,
    pub setups_success: u32,
    pub setups_skipped: u32,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Cannot be said yet.
    Wait,
    Run,
    Skip,
    UpstreamFailed,
}

impl Counts {
    pub fn done(&self) -> u32 {
        self.success + self.failed + self.upstream_failed + self.skipped + self.removed
    }

    pub fn all_done(&self) -> bool {
        self.done() >= self.total
    }

    /// Counts one more instance (`by` = 1), or takes it back (`by` = -1), in its final state.
    /// States that are not final are not counted.
    pub fn add(&mut self, state: State, is_setup: bool, by: i32) {
        let bump = |count: &mut u32| *count = count.checked_add_signed(by).expect("a count never falls below zero");
        match state {
            State::Success => {
                bump(&mut self.success);
                if is_setup {
                    bump(&mut self.setups_success);
                }
            }
            State::Failed => bump(&mut self.failed),
            State::UpstreamFailed => bump(&mut self.upstream_failed),
            State::Skipped => {
                bump(&mut self.skipped);
                if is_setup {
                    bump(&mut self.setups_skipped);
                }
            }
            State::Removed => bump(&mut self.removed),
            State::None
            | State::Scheduled
            | State::Queued
            | State::Running
            | State::UpForRetry { .. }
            | State::UpForReschedule { .. }
            | State::Deferred
            | State::Recovering => {}
        }
    }
}

impl TriggerRule {
    pub const ALL: [TriggerRule; 13] = [
        TriggerRule::AllSuccess,
        TriggerRule::AllFailed,
        TriggerRule::AllDone,
        TriggerRule::AllDoneMinOneSuccess,
        TriggerRule::AllDoneSetupSuccess,
        TriggerRule::AllSkipped,
        TriggerRule::OneSuccess,
        TriggerRule::OneFailed,
        TriggerRule::OneDone,
        TriggerRule::NoneFailed,
        TriggerRule::NoneFailedMinOneSuccess,
        TriggerRule::NoneSkipped,
        TriggerRule::Always,
    ];

    pub fn name(self) -> &'static str {
        match self {
            TriggerRule::AllSuccess => "all_success",
            TriggerRule::AllFailed => "all_failed",
            TriggerRule::AllDone => "all_done",
            TriggerRule::AllDoneMinOneSuccess => "all_done_min_one_success",
            TriggerRule::AllDoneSetupSuccess => "all_done_setup_success",
            TriggerRule::AllSkipped => "all_skipped",
            TriggerRule::OneSuccess => "one_success",
            TriggerRule::OneFailed => "one_failed",
            TriggerRule::OneDone => "one_done",
            TriggerRule::NoneFailed => "none_failed",
            TriggerRule::NoneFailedMinOneSuccess => "none_failed_min_one_success",
            TriggerRule::NoneSkipped => "none_skipped",
            TriggerRule::Always => "always",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// The rule's answer for these counts. A task that needs nothing runs, whatever its rule.
    pub fn evaluate(self, c: &Counts) -> Verdict {
        use Verdict::{Run, Skip, UpstreamFailed, Wait};
        if c.total == 0 {
            return Run;
        }
        let done = c.all_done();
        let failed = c.failed + c.upstream_failed > 0;
        let wait_or = |verdict| if done { verdict } else { Wait };
        match self {
            TriggerRule::Always => Run,
            TriggerRule::AllSuccess => {
                if failed {
                    UpstreamFailed
                } else if c.skipped > 0 {
                    Skip
                } else {
                    wait_or(Run)
                }
            }
            TriggerRule::AllFailed => {
                if c.success + c.skipped > 0 {
                    Skip
                } else {
                    wait_or(Run)
                }
            }
            TriggerRule::AllDone => wait_or(Run),
            TriggerRule::AllDoneMinOneSuccess => {
                if c.skipped > 0 {
                    Skip
                } else if c.success > 0 {
                    wait_or(Run)
                } else {
                    wait_or(UpstreamFailed)
                }
            }
            TriggerRule::AllDoneSetupSuccess => {
                if !done {
                    Wait
                } else if c.setups == 0 || c.setups_success > 0 {
                    Run
                } else if c.setups_skipped == c.setups {
                    Skip
                } else {
                    UpstreamFailed
                }
            }
            TriggerRule::AllSkipped => {
                if c.success > 0 || failed {
                    Skip
                } else {
                    wait_or(Run)
                }
            }
            TriggerRule::OneSuccess => {
                if c.success > 0 {
                    Run
                } else if done && c.skipped + c.removed == c.total {
                    Skip
                } else {
                    wait_or(UpstreamFailed)
                }
            }
            TriggerRule::OneFailed => {
                if failed {
                    Run
                } else {
                    wait_or(Skip)
                }
            }
            TriggerRule::OneDone => {
                if c.success + c.failed > 0 {
                    Run
                } else {
                    wait_or(Skip)
                }
            }
            TriggerRule::NoneFailed => {
                if failed {
                    UpstreamFailed
                } else {
                    wait_or(Run)
                }
            }
            TriggerRule::NoneFailedMinOneSuccess => {
                if failed {
                    UpstreamFailed
                } else if c.success > 0 {
                    wait_or(Run)
                } else if done && c.skipped + c.removed == c.total {
                    Skip
                } else {
                    wait_or(UpstreamFailed)
                }
            }
            TriggerRule::NoneSkipped => {
                if c.skipped > 0 {
                    Skip
                } else {
                    wait_or(Run)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mix of up to three upstream ends, against the words of the rule, written the slow way.
    #[test]
    fn every_rule_agrees_with_its_description_on_every_mix_of_three() {
        use State::*;
        let ends = [None, Success, Failed, UpstreamFailed, Skipped, Removed];
        for a in ends {
            for b in ends {
                for c in ends {
                    let upstream = [a, b, c];
                    let mut counts = Counts { total: 3, setups: 1, ..Default::default() };
                    for (i, state) in upstream.iter().enumerate() {
                        counts.add(*state, i == 0, 1);
                    }
                    for rule in TriggerRule::ALL {
                        assert_eq!(rule.evaluate(&counts), described(rule, &upstream), "{rule:?} over {upstream:?}");
                    }
                }
            }
        }
    }

    fn described(rule: TriggerRule, upstream: &[State]) -> Verdict {
        let any = |s: State| upstream.contains(&s);
        let only = |set: &[State]| upstream.iter().all(|s| set.contains(s));
        let done = !any(State::None);
        let bad = any(State::Failed) || any(State::UpstreamFailed);
        let pick = |run: bool, skip: bool, fail: bool| {
            if fail {
                Verdict::UpstreamFailed
            } else if skip {
                Verdict::Skip
            } else if run {
                Verdict::Run
            } else {
                Verdict::Wait
            }
        };
        use State::{Removed, Skipped, Success};
        match rule {
            TriggerRule::Always => Verdict::Run,
            TriggerRule::AllSuccess => pick(done, any(Skipped) && !bad, bad),
            TriggerRule::AllFailed => pick(done, any(Success) || any(Skipped), false),
            TriggerRule::AllDone => pick(done, false, false),
            TriggerRule::OneSuccess => {
                let run = any(Success);
                pick(run, done && only(&[Skipped, Removed]), done && !run && !only(&[Skipped, Removed]))
            }
            TriggerRule::OneFailed => pick(bad, done && !bad, false),
            TriggerRule::OneDone => {
                let run = any(Success) || any(State::Failed);
                pick(run, done && !run, false)
            }
            TriggerRule::NoneFailed => pick(done, false, bad),
            TriggerRule::NoneFailedMinOneSuccess => pick(
                done && any(Success),
                done && only(&[Skipped, Removed]),
                bad || (done && !any(Success) && !only(&[Skipped, Removed])),
            ),
            TriggerRule::NoneSkipped => pick(done, any(Skipped), false),
            TriggerRule::AllSkipped => pick(done, any(Success) || bad, false),
            TriggerRule::AllDoneMinOneSuccess => {
                pick(done && any(Success), any(Skipped), done && !any(Success) && !any(Skipped))
            }
            // The first of the three is the setup.
            TriggerRule::AllDoneSetupSuccess => match upstream[0] {
                _ if !done => Verdict::Wait,
                Success => Verdict::Run,
                Skipped => Verdict::Skip,
                _ => Verdict::UpstreamFailed,
            },
        }
    }

    #[test]
    fn a_task_that_needs_nothing_runs() {
        for rule in TriggerRule::ALL {
            assert_eq!(rule.evaluate(&Counts::default()), Verdict::Run);
            assert_eq!(TriggerRule::from_name(rule.name()), Some(rule));
        }
    }
}
