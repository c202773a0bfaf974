//! How a pod ends before its steps are over.

use jiff::SignedDuration;
use pitcrew_core::pod::PodFailure;
use pitcrew_core::pod::TerminationReason::{Cancelled, Skipped, TimeoutExceeded};
use pitcrew_core::state::Exit;
use pitcrew_exec::Observation;
use serde_json::json;

use crate::{Bench, World, pod, step, step_with};

pub async fn a_step_that_takes_too_long_ends_the_pod_with_its_name(bench: &mut Bench<impl World>) {
    let steps = json!([step_with("a", "sleep 3600", json!({"timeout": "2s"})), step("b", "echo b")]);
    let mut spec = bench.spec("a", pod(steps));
    spec.grace = SignedDuration::from_millis(300);
    let done = bench.run_spec(spec).await;
    assert_eq!(done.ended.exit, Exit::TimedOut, "{}", done.story());
    assert_eq!(done.pod().failure, Some(PodFailure::StepTimeout { container: "step-a".into() }));
    assert_eq!(done.ended.failed_step.as_deref(), Some("a"));
    assert_eq!([done.states()[0].1, done.states()[1].1], [TimeoutExceeded, Skipped]);
    assert_eq!(done.lines(1), Vec::<&str>::new());
}

pub async fn a_pod_that_takes_too_long_ends_as_that(bench: &mut Bench<impl World>) {
    let mut spec = bench.spec("a", pod(json!([step("a", "sleep 3600"), step("b", "echo b")])));
    spec.grace = SignedDuration::from_millis(300);
    if let Some(run) = &mut spec.pod {
        run.deadline = Some(SignedDuration::from_secs(3));
    }
    let done = bench.run_spec(spec).await;
    assert_eq!(
        (&done.ended.exit, &done.pod().failure),
        (&Exit::TimedOut, &Some(PodFailure::Deadline)),
        "{}",
        done.story()
    );
    assert_eq!(done.lines(1), Vec::<&str>::new());
}

pub async fn cancelled_during_a_step_nothing_of_the_next_one_runs_and_the_log_is_kept(bench: &mut Bench<impl World>) {
    let steps = json!([step("a", "echo one; sleep 3600"), step("b", "echo two")]);
    let spec = bench.spec("a", pod(steps));
    let handle = bench.start(spec).await;
    bench.says(&handle, 0, "one").await;
    bench.cancel(&handle, SignedDuration::from_secs(1)).await;
    let done = bench.done(&handle).await;
    assert_eq!(
        (&done.ended.exit, done.ended.failed_step.as_deref()),
        (&Exit::Cancelled, Some("a")),
        "{}",
        done.story()
    );
    assert_eq!([done.states()[0].1, done.states()[1].1], [Cancelled, Skipped]);
    assert_eq!((done.lines(0)[0], done.lines(1)), ("one", vec![]), "{}", done.story());
}

pub async fn cancelled_before_it_began_it_never_begins(bench: &mut Bench<impl World>) {
    let spec = bench.spec("a", pod(json!([step("a", "echo ran")])));
    let handle = bench.world.backend().prepare(&spec);
    assert_eq!(bench.observe(&handle).await, Observation::NeverBegan);
    bench.cancel(&handle, SignedDuration::from_secs(1)).await;
    assert_eq!(bench.ended(&handle).await.exit, Exit::Cancelled);
    bench.start_again(&handle, spec).await;
    let done = bench.done(&handle).await;
    assert_eq!((&done.ended.exit, done.lines(0)), (&Exit::Cancelled, vec![]));
}

pub async fn cancelled_after_its_end_nothing_changes(bench: &mut Bench<impl World>) {
    let spec = bench.spec("a", pod(json!([step("a", "exit 5")])));
    let handle = bench.start(spec).await;
    let ended = bench.ended(&handle).await;
    assert_eq!(ended.exit, Exit::Code { code: 5 });
    bench.cancel(&handle, SignedDuration::ZERO).await;
    assert_eq!(bench.observe(&handle).await, Observation::Ended(ended));
}
