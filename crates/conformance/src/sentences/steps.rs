//! In which order steps run, and what they see of each other.

use pitcrew_core::pod::TerminationReason::{Completed, Continued, Error, Skipped};
use pitcrew_core::state::Exit;
use serde_json::json;

use crate::{Ability, Bench, World, pod, pod_with, step, step_with};

pub async fn steps_run_in_order_and_share_their_volumes_and_nothing_else(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::UsualImages) {
        return;
    }
    let scratch = json!({"volumes": [{"name": "v", "source": {"scratch": {"medium": "disk", "limit": null}}}]});
    let mounts = json!({"mounts": [{"volume": "v", "at": "/data/v"}]});
    let first =
        "echo one > /workspace/a; echo two > /data/v/b; echo four > /usr/bin/d; echo five > /tmp/e; ls /usr/bin/d";
    let second = "cat /workspace/a /data/v/b; test ! -e /usr/bin/d; test ! -e /tmp/e; echo apart";
    let steps = json!([step_with("first", first, mounts.clone()), step_with("second", second, mounts)]);
    let done = bench.run("a", pod_with(steps, scratch)).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["/usr/bin/d"]);
    assert_eq!(done.lines(1), ["one", "two", "apart"]);
    assert_eq!(done.states(), [(0, Completed); 2]);
    let names: Vec<_> = done.pod().containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["step-first", "step-second"]);
}

pub async fn the_first_step_that_fails_is_the_last_that_runs(bench: &mut Bench<impl World>) {
    let steps = json!([step("a", "echo a"), step("b", "echo b; exit 3"), step("c", "echo c")]);
    let done = bench.run("a", pod(steps)).await;
    assert_eq!(done.ended.exit, Exit::Code { code: 3 }, "{}", done.story());
    assert_eq!(done.ended.failed_step.as_deref(), Some("b"));
    assert_eq!((done.lines(1), done.lines(2)), (vec!["b"], vec![]));
    assert_eq!(done.states(), [(0, Completed), (3, Error), (1, Skipped)]);
}

pub async fn a_step_that_may_fail_leaves_its_code_and_the_next_one_runs(bench: &mut Bench<impl World>) {
    let steps = json!([
        step_with("a", "exit 7", json!({"on_error": "continue"})),
        step("b", "cat /tekton/steps/step-a/exitCode; echo; cat /tekton/steps/0/exitCode; echo"),
    ]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!(done.states(), [(7, Continued), (0, Completed)]);
    assert_eq!(done.lines(1), ["7", "7"]);
}

pub async fn a_step_whose_guard_is_false_is_skipped_and_says_so(bench: &mut Bench<impl World>) {
    let guard =
        |value: &str| json!({"when": [{"in": {"input": "$(steps.a.results.r)", "values": [value], "negate": false}}]});
    let results = json!({"results": [{"name": "r"}]});
    let steps = json!([
        step_with("a", "printf yes > /tekton/steps/step-a/results/r", results),
        step_with("b", "echo b", guard("no")),
        step_with("c", "echo c", guard("yes")),
    ]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!(done.states(), [(0, Completed), (0, Skipped), (0, Completed)]);
    assert_eq!((done.lines(1), done.lines(2)), (vec![], vec!["c"]));
    assert!(done.told().iter().any(|text| text.contains("`b`") && text.contains("skipped")), "{}", done.story());
}

pub async fn other_steps_directories_cannot_be_written_not_even_by_root(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::ProtectedSteps) {
        return;
    }
    let script = "for f in /tekton/run/0/out /tekton/steps/0/exitCode /tekton/steps/new /tekton/scripts/x; do
                    if (echo x > $f) 2>/dev/null; then echo wrote $f; fi; done
                  echo x > /tekton/steps/step-b/own; cat /tekton/run/1/status/own";
    let done = bench.run("a", pod(json!([step("a", "true"), step("b", script)]))).await;
    done.assert_success();
    assert_eq!(done.lines(1), ["x"]);
}

pub async fn pods_at_the_same_time_see_nothing_of_each_other(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::UsualImages) {
        return;
    }
    let script = |n: usize| {
        format!(
            "ls -A /workspace /tmp | grep -c mine || true; echo {n} > /workspace/mine; cp /workspace/mine /tmp/mine"
        )
    };
    let mut handles = Vec::new();
    for n in 0..4 {
        let steps = json!([step("a", &script(n)), step("b", "cat /workspace/mine")]);
        let spec = bench.spec(&format!("a{n}"), pod(steps));
        handles.push(bench.start(spec).await);
    }
    for (n, handle) in handles.iter().enumerate() {
        let done = bench.done(handle).await;
        done.assert_success();
        assert_eq!((done.lines(0), done.lines(1)), (vec!["0"], vec![n.to_string().as_str()]));
    }
}
