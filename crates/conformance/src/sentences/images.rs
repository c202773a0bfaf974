//! What a container begins with: its image, its command, its environment and its user.

use pitcrew_core::pod::{PodFailure, TerminationReason};
use serde_json::json;

use crate::{Ability, Bench, World, pod, pod_with, step, step_with};

pub async fn an_image_that_is_not_there_is_told_with_its_name(bench: &mut Bench<impl World>) {
    // Of a domain that never is.
    let name = "registry.invalid/no/such:1";
    let done =
        bench.run("a", pod(json!([step("a", "echo a"), {"name": "step-b", "image": name, "script": "true"}]))).await;
    let Some(PodFailure::ImagePull { container, image, message }) = &done.pod().failure else {
        panic!("{}", done.story())
    };
    assert_eq!((container.as_str(), image.as_str()), ("step-b", name));
    assert!(message.contains("registry.invalid"), "{message}");
    assert!(!done.ended.exit.is_success(), "{}", done.story());
}

pub async fn the_entry_point_is_the_images_where_nothing_is_said(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::UsualImages) {
        return;
    }
    let steps = json!([
        {"name": "step-a", "image": "bash", "args": ["-c", "echo in bash $0"]},
        {"name": "step-b", "image": "busybox", "command": ["echo"], "args": ["said"]},
        {"name": "step-c", "image": "alpine", "script": "[[ a == a ]] && echo ash"},
    ]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!((done.lines(0), done.lines(1), done.lines(2)), (vec!["in bash bash"], vec!["said"], vec!["ash"]));
    for container in &done.pod().containers {
        assert!(!container.image_id.is_empty() && !container.container_id.is_empty(), "{container:?}");
    }
}

pub async fn a_program_that_is_not_there_is_told_with_its_name(bench: &mut Bench<impl World>) {
    let missing = json!([{"name": "step-a", "image": "alpine", "command": ["no-such-program"]}, step("b", "echo b")]);
    let done = bench.run("a", pod(missing)).await;
    assert_eq!((done.ended.exit.code(), done.lines(1)), (Some(127), vec![]), "{}", done.story());
    assert!(done.story().contains("no-such-program"), "{}", done.story());
}

pub async fn variables_know_earlier_ones_and_reach_commands_and_arguments(bench: &mut Bench<impl World>) {
    let env = json!([{"name": "A", "from": {"text": "1"}}, {"name": "B", "from": {"text": "$(A)2$$(A)"}}]);
    let steps = json!([
        {"name": "step-a", "image": "alpine", "command": ["echo"], "args": ["$(B)", "$(C)"], "env": env},
        step_with("b", "echo $1 $B", json!({"args": ["arg"], "env": env})),
    ]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!((done.lines(0), done.lines(1)), (vec!["12$(A) $(C)"], vec!["arg 12$(A)"]));
}

pub async fn a_working_directory_is_made_and_the_host_name_is_the_pods(bench: &mut Bench<impl World>) {
    let steps = json!([step_with("a", "pwd; hostname", json!({"workdir": "/workspace/made/here"}))]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["/workspace/made/here", "the-pod"]);
}

pub async fn the_user_is_the_one_that_was_asked_for(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::OtherUsers) {
        return;
    }
    let security = json!({"security": {"run_as_user": 1001, "run_as_group": 1002, "fs_group": 1003}});
    let script =
        "id -u; id -g; id -G; touch /workspace/x; touch /usr/x 2>/dev/null || echo denied; echo out > /dev/stdout";
    let other = json!({"security": {"run_as_user": 2000}});
    let steps = json!([step("a", script), step_with("b", "id -u", other)]);
    let done = bench.run("a", pod_with(steps, security)).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["1001", "1002", "1002 1003", "denied", "out"]);
    assert_eq!(done.lines(1), ["2000"]);
}

pub async fn a_root_that_was_forbidden_is_refused(bench: &mut Bench<impl World>) {
    let root = json!({"security": {"run_as_non_root": true}});
    let done = bench.run("a", pod(json!([step_with("a", "echo ran", root)]))).await;
    let Some(PodFailure::Config { container, message }) = &done.pod().failure else { panic!("{}", done.story()) };
    assert!(container == "step-a" && message.to_lowercase().contains("nonroot"), "{message}");
    assert_eq!(done.lines(0), Vec::<&str>::new());
}

pub async fn a_read_only_root_leaves_the_volumes_writable(bench: &mut Bench<impl World>) {
    let security = json!({"security": {"read_only_root": true}});
    let script = "echo x > /workspace/f; cat /workspace/f; if (echo x > /usr/f) 2>/dev/null; then echo wrote; fi";
    let done = bench.run("a", pod(json!([step_with("a", script, security)]))).await;
    assert_eq!(done.lines(0), ["x"], "{}", done.story());
    assert_eq!(done.states().len(), 1);
    assert_ne!(done.states()[0].1, TerminationReason::Skipped);
}
