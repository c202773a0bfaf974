//! Which step of a pod is next: a pure function of how the steps before it ended.
//!
//! Invariant: every step gets exactly one outcome, in order; after one that ends the pod all others are skipped.

use super::guard::StepFacts;
use super::{OnError, Pod};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// By itself, with this exit code.
    Exited(i32),
    /// It did not run: a condition did not hold.
    Guarded,
    /// It was stopped or could not be started: nothing comes after it, whatever its `on_error` says.
    Broken,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Run(usize),
    /// It does not run, and the one after it is asked about next.
    Skip(usize),
    /// It cannot be told whether it is to run; so it has failed.
    Fault(usize, String),
    /// All are over, or the others are not to run.
    Done,
}

/// How far a pod has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence(Vec<StepOutcome>);

impl Sequence {
    pub fn next(&self, pod: &Pod, known: &StepFacts) -> Next {
        let index = self.0.len();
        let Some(step) = pod.steps.get(index) else { return Next::Done };
        if self.is_broken(pod) {
            return Next::Done;
        }
        match known.hold(&step.when) {
            Ok(true) => Next::Run(index),
            Ok(false) => Next::Skip(index),
            Err(reason) => Next::Fault(index, reason),
        }
    }

    /// The next step has ended so.
    pub fn ended(&mut self, how: StepOutcome) {
        self.0.push(how);
    }

    /// Nothing comes after the last of them.
    pub fn is_broken(&self, pod: &Pod) -> bool {
        self.0.iter().zip(&pod.steps).any(|(outcome, step)| match outcome {
            StepOutcome::Exited(code) => *code != 0 && step.on_error == OnError::Stop,
            StepOutcome::Guarded => false,
            StepOutcome::Broken => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::Guard;

    fn pod(steps: usize) -> Pod {
        let step = |n: usize| json!({"name": format!("step-{n}"), "image": "a"});
        let steps: Vec<_> = (0..steps).map(step).collect();
        let pod = json!({"name": "p", "hostname": "p", "namespace": "default", "steps": steps, "shape": "tekton"});
        serde_json::from_value(pod).unwrap()
    }

    /// Plays a pod whose steps would end so, and tells what became of each.
    fn play(pod: &Pod, codes: &[StepOutcome]) -> Vec<String> {
        let (mut sequence, mut told) = (Sequence::default(), Vec::new());
        loop {
            match sequence.next(pod, &StepFacts::default()) {
                Next::Run(ix) => {
                    told.push(format!("run {ix}"));
                    sequence.ended(codes[ix]);
                }
                Next::Skip(ix) => {
                    told.push(format!("skip {ix}"));
                    sequence.ended(StepOutcome::Guarded);
                }
                Next::Fault(ix, _) => {
                    told.push(format!("fault {ix}"));
                    sequence.ended(StepOutcome::Broken);
                }
                Next::Done => return told,
            }
        }
    }

    #[test]
    fn steps_run_in_order_until_one_fails_that_may_not() {
        use StepOutcome::{Broken, Exited};
        let mut pod = pod(3);
        assert_eq!(play(&pod, &[Exited(0); 3]), ["run 0", "run 1", "run 2"]);
        assert_eq!(play(&pod, &[Exited(0), Exited(3), Exited(0)]), ["run 0", "run 1"]);
        pod.steps[1].on_error = OnError::Continue;
        assert_eq!(play(&pod, &[Exited(0), Exited(3), Exited(0)]), ["run 0", "run 1", "run 2"]);
        assert_eq!(play(&pod, &[Exited(0), Broken, Exited(0)]), ["run 0", "run 1"]);
        assert_eq!(play(&pod, &[Exited(1), Exited(0), Exited(0)]), ["run 0"]);
    }

    #[test]
    fn a_guard_skips_its_step_alone_and_one_that_cannot_be_told_ends_the_pod() {
        use StepOutcome::Exited;
        let mut pod = pod(3);
        let guard = Guard::In { input: "a".into(), values: vec!["b".into()], negate: false };
        pod.steps[1].when = vec![guard];
        assert_eq!(play(&pod, &[Exited(0); 3]), ["run 0", "skip 1", "run 2"]);
        pod.steps[1].when = vec![Guard::Cel("true".into())];
        assert_eq!(play(&pod, &[Exited(0); 3]), ["run 0", "fault 1"]);
    }
}
