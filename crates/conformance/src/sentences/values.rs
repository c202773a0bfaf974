//! Files that become values.

use pitcrew_core::state::Exit;
use serde_json::json;

use crate::{Bench, World, pod, pod_with, step_with};

pub async fn results_are_verbatim_and_typed_also_after_a_failure(bench: &mut Bench<impl World>) {
    let results = json!({"results": [
        {"name": "text"}, {"name": "list", "kind": "list"}, {"name": "map", "kind": "map"},
        {"name": "step", "value": "<$(steps.a.results.s)>"}, {"name": "none"}
    ]});
    let script =
        "cd /tekton/results; printf 'a\\n' > text; printf '[\"x\", \"y\"]' > list; printf '{\"k\": \"v\"}' > map
                  printf undeclared > other; printf s > /tekton/steps/step-a/results/s; exit 1";
    let steps = json!([step_with("a", script, json!({"results": [{"name": "s"}]}))]);
    let done = bench.run("a", pod_with(steps, results)).await;
    assert_eq!(done.ended.exit, Exit::Code { code: 1 }, "{}", done.story());
    let wanted =
        [("text", json!("a\n")), ("list", json!(["x", "y"])), ("map", json!({"k": "v"})), ("step", json!("<s>"))];
    assert_eq!(done.pod().results, wanted.map(|(name, value)| (name.to_owned(), value)), "{}", done.story());
    assert_eq!(done.pod().containers[0].results, [("s".to_owned(), json!("s"))]);
    assert_eq!(done.ended.outputs["text"], json!("a\n"));
    assert_eq!(done.ended.output_problems, Vec::<String>::new());
}

pub async fn results_of_a_step_reach_arguments_and_environment_of_later_ones(bench: &mut Bench<impl World>) {
    let given =
        json!({"args": ["$(steps.a.results.r)"], "env": [{"name": "E", "from": {"text": "<$(steps.a.results.r)>"}}]});
    let steps = json!([
        step_with("a", "printf 'two words' > /tekton/steps/step-a/results/r", json!({"results": [{"name": "r"}]})),
        step_with("b", "printf '%s\\n' \"$1\" \"$E\"", given),
    ]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!(done.lines(1), ["two words", "<two words>"]);
}

pub async fn a_link_or_a_fifo_as_a_result_is_refused(bench: &mut Bench<impl World>) {
    let results = json!({"results": [{"name": "link"}, {"name": "fifo"}, {"name": "good"}]});
    let script = "cd /tekton/results; ln -s /etc/hostname link; mkfifo fifo; printf good > good";
    let done = bench.run("a", pod_with(json!([step_with("a", script, json!({}))]), results)).await;
    assert_eq!(done.pod().results, [("good".to_owned(), json!("good"))], "{}", done.story());
    assert_eq!(done.ended.output_problems.len(), 2, "{}", done.story());
    for name in ["`link`", "`fifo`"] {
        assert!(done.ended.output_problems.iter().any(|problem| problem.contains(name)), "{}", done.story());
    }
}
