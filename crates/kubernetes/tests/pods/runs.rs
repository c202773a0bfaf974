//! Steps, results, and what goes with them.

use pitcrew_core::state::Exit;
use pitcrew_exec::{Backend, Observation};
use serde_json::json;

use super::harness::{IMAGE, World, pod, reasons, step, with};

#[tokio::test]
async fn one_step_is_a_plain_container_and_leaves_its_log_and_nothing_else() {
    let Some(mut world) = World::find("plain") else { return };
    let command = json!([{
        "name": "step-hello", "image": IMAGE, "pull": "never", "command": ["sh", "-c"],
        "args": ["echo \"$GREETING $1\"; printf half", "sh", "$(WHOM)"],
        "env": [{"name": "WHOM", "from": {"text": "world"}}, {"name": "GREETING", "from": {"text": "hello"}}],
    }]);
    let spec = world.attempt(1, command, json!({"labels": {"app": "x", "bad": "not a value"}}));
    let handle = world.start(spec.clone()).await;
    // Again is once.
    world.backend.start(&handle, spec).await.unwrap();
    let ended = world.ended().await;
    assert_eq!(ended.exit, Exit::Code { code: 0 }, "{ended:?}");
    assert_eq!(world.log(&handle).await, ["hello world", "half"]);
    assert_eq!(reasons(&ended), ["step-hello terminated Completed"]);
    assert!(pod(&ended).containers[0].image_id.contains("sha256:"), "{ended:?}");
    assert!(matches!(world.observed(&handle).await, Observation::Ended(_)));
    world.until("the end of its pod", |world| world.ours("pods").is_empty() && world.ours("secrets").is_empty()).await;
}

#[tokio::test]
async fn steps_run_in_order_and_what_comes_after_a_failure_is_skipped() {
    let Some(mut world) = World::find("order") else { return };
    let steps = json!([
        step("one", "echo one; echo shared >/workspace/file"),
        step("two", "cat /workspace/file; exit 3"),
        step("three", "echo never"),
    ]);
    let (ended, log) = world.run(steps, json!({})).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::Code { code: 3 }, Some("two")));
    assert_eq!(log, ["one", "shared", "step `two` ended with exit code 3"]);
    assert_eq!(
        reasons(&ended),
        ["step-one terminated Completed", "step-two terminated Error", "step-three terminated Skipped"]
    );
}

#[tokio::test]
async fn results_have_no_size_trap_and_pass_from_step_to_step() {
    let Some(mut world) = World::find("results") else { return };
    let result = |name: &str, kind: &str| json!({"name": name, "kind": kind});
    let one = "printf 'a b\\n\\n' >/tekton/steps/step-one/results/text\nprintf '[\"x\",\"y\"]' >/tekton/results/list\n\
               i=0; while [ $i -lt 600 ]; do echo '0123456789 0123456789'; i=$((i+1)); done >/tekton/results/long\nprintf ending";
    let steps = json!([
        with(step("one", one), json!({"results": [result("text", "text")]})),
        {
            "name": "step-two", "image": IMAGE, "pull": "never", "command": ["printf"],
            "args": ["<%s|%s>\\n", "=$(steps.one.results.text)=", "$(date)"],
        },
        with(step("no", "echo never"), json!({"when": [
            {"in": {"input": "$(steps.one.results.text)", "values": ["other"], "negate": false}},
        ]})),
        with(step("fails", "exit 4"), json!({"on_error": "continue"})),
        step("reads", "cat /tekton/steps/step-fails/exitCode; echo; cat /tekton/steps/3/exitCode; echo"),
    ]);
    let task = json!({"results": [
        result("list", "list"), result("long", "text"), result("none", "text"),
        {"name": "from", "kind": "text", "value": "<$(steps.one.results.text)>"},
    ]});
    let (ended, log) = world.run(steps, task).await;
    assert_eq!(ended.exit, Exit::Code { code: 0 }, "{ended:?} {log:?}");
    assert_eq!(log[..6], ["ending", "<=a b", "", "=|$(date)>", "4", "4"]);
    let said = |what: &str| log[6..].iter().any(|line| line.contains(what));
    assert!(log.len() == 8 && said("step `no` is skipped") && said("step `fails` failed"), "{log:?}");
    assert_eq!(
        reasons(&ended),
        [
            "step-one terminated Completed",
            "step-two terminated Completed",
            "step-no terminated Skipped",
            "step-fails terminated Continued",
            "step-reads terminated Completed",
        ]
    );
    let results = &pod(&ended).results;
    assert_eq!(results[0], ("list".to_owned(), json!(["x", "y"])));
    assert_eq!(results[1], ("long".to_owned(), json!("0123456789 0123456789\n".repeat(600))));
    assert_eq!(results[2], ("from".to_owned(), json!("<a b\n\n>")));
    assert_eq!(results.len(), 3);
    assert_eq!(ended.output_problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_step_ends_at_its_timeout_and_its_words_go_to_a_file_as_well() {
    let Some(mut world) = World::find("late") else { return };
    let steps = json!([
        with(
            step("copies", "echo out; echo err >&2"),
            json!({"stdout_to": "/workspace/a/out", "stderr_to": "/workspace/a/out"})
        ),
        step("reads", "sort /workspace/a/out"),
        with(step("late", "echo begins; sleep 600"), json!({"timeout": "PT2S"})),
        step("after", "echo never"),
    ]);
    let (ended, mut log) = world.run(steps, json!({})).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::TimedOut, Some("late")), "{ended:?}");
    log[..2].sort();
    assert_eq!(log[..5], ["err", "out", "err", "out", "begins"]);
    assert_eq!(reasons(&ended)[2..], ["step-late terminated TimeoutExceeded", "step-after terminated Skipped"]);
    let failure = serde_json::to_value(&pod(&ended).failure).unwrap();
    assert_eq!(failure, json!({"step_timeout": {"container": "step-late"}}));
}

#[tokio::test]
async fn files_and_secrets_come_by_a_secret_alone() {
    let Some(mut world) = World::find("secret") else { return };
    let file = |path: &str, text: &str, is_secret| json!({"path": path, "bytes": text.as_bytes(), "mode": 0o440, "is_secret": is_secret});
    let reads = with(
        step(
            "reads",
            "echo \"$TOKEN\"; cat /etc/own/a /etc/own/b/c; touch /etc/own/x 2>/dev/null || echo read-only; sleep 3",
        ),
        json!({
            "env": [{"name": "BASE", "from": {"text": "hunter2"}}, {"name": "TOKEN", "from": {"text": "t-$(BASE)$$"}}],
            "mounts": [{"volume": "own", "at": "/etc/own"}],
        }),
    );
    let files = json!([file("a", "plain\n", false), file("b/c", "hunter2\n", true)]);
    let mut spec = world.attempt(1, json!([reads]), json!({"volumes": [{"name": "own", "source": {"files": files}}]}));
    spec.masks = vec!["hunter2".to_owned()];
    let handle = world.start(spec).await;
    world.until("its pod", |world| world.ours("pods").len() == 1).await;
    assert!(!world.ours("pods")[0].to_string().contains("hunter2"), "{:?}", world.ours("pods"));
    let ended = world.ended().await;
    assert_eq!(ended.exit, Exit::Code { code: 0 });
    assert_eq!(world.log(&handle).await, ["t-***$", "plain", "***", "read-only"]);
    for entry in std::fs::read_dir(&handle.dir).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// As git, ssh and clients of registries look for them, whoever the step runs as.
#[tokio::test]
async fn credentials_are_in_the_home_of_each_step_and_its_own() {
    let Some(mut world) = World::find("homes") else { return };
    let file =
        |path: &str, text: &str| json!({"path": path, "bytes": text.as_bytes(), "mode": 0o600, "is_secret": true});
    let files = json!([file(".gitconfig", "[user]\n"), file(".ssh/id_s", "key\n"), file(".docker/config.json", "{}")]);
    let reads =
        "cat $HOME/.gitconfig ~/.docker/config.json /tekton/creds/.ssh/id_s; echo; stat -L -c '%a %u' ~/.ssh/id_s";
    let other = json!({
        "security": {"run_as_user": 1001, "run_as_group": 1001}, "env": [{"name": "HOME", "from": {"text": "/tekton/home"}}],
    });
    let plain = json!({"name": "step-plain", "image": super::harness::BASH, "pull": "never", "args": ["-c", "ls /tekton/creds"]});
    let steps = json!([step("root", reads), with(step("other", reads), other), plain]);
    let volume = json!({"volumes": [{"name": pitcrew_core::pod::CREDENTIALS, "source": {"files": files}}]});
    let (ended, log) = world.run(steps, volume).await;
    assert_eq!(ended.exit, Exit::Code { code: 0 }, "{log:?}");
    assert!(log[0].contains("`step-plain` names no command"), "{log:?}");
    assert_eq!(log[1..], ["[user]", "{}key", "", "600 0", "[user]", "{}key", "", "600 1001"]);
}
