//! What goes wrong at ECS, and what becomes of attempts then.

use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_exec::{Backend, BackendEvent, Command, Handle, LogStream, Observation, Place, StepSpec};
use serde_json::{Value, json};

use crate::harness::{Kind, World, is_running, seconds, until, within};

fn refused(reason: &str) -> Value {
    json!({"tasks": [], "failures": [{"arn": "arn:aws:ecs:us-east-1:1:container-instance/gpus/8f", "reason": reason}]})
}

/// The answer to a start is lost, and the server with it: the next one finds the task, and starts no second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_nobody_heard_of_is_one_start() {
    let mut world = World::new(Kind::Ecs);
    for n in 0..3 {
        world.cluster.state().unheard = vec!["RunTask".into(); 9];
        let spec = world.script(&format!("a{n}"), "echo ran");
        let handle = world.backend.prepare(&spec);
        let before = world.cluster.count("RunTask");
        let start = tokio::spawn({
            let (backend, handle) = (world.backend.clone(), handle.clone());
            async move { backend.start(&handle, spec).await }
        });
        until(async || world.cluster.count("RunTask") > before).await;
        start.abort();
        let _ = start.await;
        world.cluster.state().unheard.clear();
        world.restart();
        let ended = match world.backend.attach(&handle).await {
            Observation::NeverBegan => panic!("it was begun"),
            // The first server had found it after all.
            Observation::Ended(ended) => ended,
            _ => world.ended(&handle).await,
        };
        assert!(ended.exit.is_success());
        assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["ran"]);
    }
    let tasks: std::collections::BTreeSet<_> =
        world.cluster.inputs("RunTask").iter().map(|input| input["clientToken"].to_string()).collect();
    assert_eq!(tasks.len(), 3);
}

/// Another server has this attempt now, with another data directory, after its task ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_our_files_adopts_the_task_that_was_started() {
    let mut world = World::new(Kind::Ecs);
    let spec = world.acting("a", &[("FAKE_SLEEP_MS", "600000")]);
    let handle = world.start(spec.clone()).await;
    world.restart();
    std::fs::remove_dir_all(&handle.dir).unwrap();
    assert_eq!(world.backend.attach(&handle).await, Observation::NeverBegan, "nothing is written down here");
    // It has another environment, so that ECS refuses its token.
    let mut other = spec;
    other.env.insert("SERVER".into(), "b".into());
    world.start(other).await;
    assert!(is_running(&world.backend.attach(&handle).await));
    world.backend.cancel(&handle, seconds(0)).await.unwrap();
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
    let started = world.cluster.inputs("StopTask");
    assert!(started.iter().all(|input| input["task"] == started[0]["task"]));
}

/// Weakness 2: ECS tells of tasks without their tags. Which attempt a task is of is written down here: the end of the second is seen like
/// that of the first, also by a server that did not start it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakness_02_a_second_failure_is_seen_also_where_tasks_have_lost_their_tags() {
    let mut world = World::new(Kind::Ecs);
    world.cluster.state().untagged = true;
    for number in 1..=2 {
        world.cluster.state().pending = true;
        let mut spec = world.acting("train", &[("FAKE_EXIT_CODE", "7")]);
        spec.id.number = number;
        spec.dir = world.root.join(format!("attempts/train.{number}"));
        let handle = world.start(spec).await;
        world.restart();
        assert_eq!(world.backend.attach(&handle).await, Observation::Waiting);
        world.cluster.run_pending();
        assert_eq!(world.ended(&handle).await.exit, Exit::Code { code: 7 });
    }
    let words: std::collections::BTreeSet<_> =
        world.cluster.inputs("RunTask").iter().map(|input| input["startedBy"].to_string()).collect();
    assert_eq!(words.len(), 2);
}

/// Weakness 6: GPUs that are still held are waited for, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_gpus_and_not_for_ever() {
    let mut world = World::new(Kind::Ecs);
    world.cluster.answer("RunTask", 200, refused("RESOURCE:GPU"));
    world.cluster.answer("RunTask", 200, refused("AGENT"));
    let mut spec = world.script("a", "echo ran");
    spec.gpus = Some(vec!["GPU-1".into(), "GPU-2".into()]);
    let handle = world.start(spec).await;
    assert_eq!(world.backend.attach(&handle).await, Observation::Waiting);
    assert!(world.ended(&handle).await.exit.is_success());
    let said = world.lines(&handle, LogStream::System).await;
    assert!(
        said[0].starts_with("waits: `RunTask` of ECS: RESOURCE:GPU (no instance has as many GPUs free)"),
        "{said:?}"
    );
    let inputs = world.cluster.inputs("RunTask");
    let gpus = &inputs[0]["overrides"]["containerOverrides"][0]["resourceRequirements"];
    assert_eq!(gpus, &json!([{"type": "GPU", "value": "2"}]));
    assert!(inputs.iter().all(|input| *input == inputs[0]), "each try asks for the same");

    world.timing.capacity = std::time::Duration::ZERO;
    world.restart();
    world.cluster.answer("RunTask", 200, refused("RESOURCE:MEMORY"));
    let spec = world.script("b", "echo ran");
    let ended = world.run(spec).await;
    let Exit::StartFailed { reason, lasting: false } = ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("no room within 0 s: `RunTask` of ECS: RESOURCE:MEMORY"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_start_says_so_at_once() {
    let mut world = World::new(Kind::Ecs);
    let denied = "User: arn:aws:iam::1:role/r is not authorized to perform: iam:PassRole on resource: x";
    world.cluster.answer("RunTask", 400, json!({"__type": "AccessDeniedException", "message": denied}));
    let spec = world.script("a", "true");
    let ended = world.run(spec).await;
    let Exit::StartFailed { reason, lasting: true } = ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("allow `iam:PassRole` in the policy of `arn:aws:iam::1:role/r`"), "{reason}");

    let mut spec = world.script("b", "true");
    if let Some(Place::Ecs(place)) = &mut spec.place {
        place.container = Some("trian".into());
    }
    let ended = world.run(spec).await;
    assert_eq!(
        ended.exit,
        Exit::cannot_start("its task definition has no container `trian`; it has: `sidecar`, `train`")
    );
    let missing = json!({"__type": "ClientException", "message": "Unable to describe task definition."});
    world.cluster.answer("DescribeTaskDefinition", 400, missing);
    let spec = world.script("c", "true");
    assert!(matches!(world.run(spec).await.exit, Exit::StartFailed { lasting: true, .. }));
    assert_eq!(world.cluster.count("RunTask"), 1);
}

/// Weaknesses 9 and 12: who stopped it decides what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_by_somebody_is_no_failure_and_an_interruption_is_a_loss() {
    let mut world = World::new(Kind::Ecs);
    for (n, (code, reason)) in [
        ("UserInitiated", "stopped by anna in the console"),
        ("SpotInterruption", "Your Spot Task was interrupted."),
        ("InfrastructureHealth", "impaired"),
    ]
    .into_iter()
    .enumerate()
    {
        let spec = world.losing(&format!("a{n}"));
        let handle = world.start(spec).await;
        assert!(is_running(&world.backend.attach(&handle).await));
        world.cluster.stop_all(code, reason);
        let said = match world.over(&handle).await {
            BackendEvent::Ended { ended, .. } => {
                assert_eq!((n, ended.exit), (0, Exit::Cancelled));
                world.lines(&handle, LogStream::System).await.join("\n")
            }
            BackendEvent::Lost { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert!(said.contains(code) && said.contains(reason), "{said}");
    }
}

/// Weakness 9: why it is to stop is written down before ECS is asked, so the next server knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_outlives_the_server_that_had_it() {
    let mut world = World::new(Kind::Ecs);
    let spec = world.losing("a");
    let handle = world.start(spec).await;
    assert!(is_running(&world.backend.attach(&handle).await));
    for _ in 0..20 {
        world.cluster.answer("StopTask", 500, json!({"__type": "ServerException"}));
    }
    let cancel = tokio::spawn({
        let (backend, handle) = (world.backend.clone(), handle.clone());
        async move { backend.cancel(&handle, seconds(0)).await }
    });
    until(async || world.cluster.count("StopTask") > 0).await;
    assert!(handle.dir.join("cancel.json").exists());
    cancel.abort();
    let _ = cancel.await;
    world.restart();
    world.cluster.state().answers.clear();
    world.backend.attach(&handle).await;
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_cancelled_before_it_runs_never_runs() {
    let mut world = World::new(Kind::Ecs);
    world.cluster.state().pending = true;
    let spec = world.script("a", "echo ran");
    let handle = world.start(spec).await;
    assert_eq!(world.backend.attach(&handle).await, Observation::Waiting);
    world.backend.cancel(&handle, seconds(0)).await.unwrap();
    let ended = world.ended(&handle).await;
    assert_eq!((ended.exit, ended.started_at), (Exit::Cancelled, None));
    world.cluster.run_pending();
    assert!(world.lines(&handle, LogStream::Stdout).await.is_empty());
}

/// Weaknesses 2 and 19: which task an attempt is, is told to whoever keeps its row, by this server and by the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_task_is_called_is_told_as_soon_as_ecs_knows_it_and_again_by_the_next_server() {
    let mut world = World::new(Kind::Ecs);
    let handle = world.start(world.losing("a")).await;
    let first = named(&mut world, &handle).await;
    let known: Value = serde_json::from_slice(&std::fs::read(handle.dir.join("task.json")).unwrap()).unwrap();
    assert_eq!(first["task"], known["arn"], "{first:?}");
    assert_eq!(first["definition"], "arn:aws:ecs:us-east-1:123456789012:task-definition/train:3");
    world.restart();
    assert!(is_running(&world.backend.attach(&handle).await));
    assert_eq!(named(&mut world, &handle).await["task"], known["arn"]);
}

/// What is told next of how it is called.
async fn named(world: &mut World, handle: &Handle) -> serde_json::Map<String, Value> {
    within(async {
        loop {
            match world.events.recv().await.expect("the backend lives") {
                BackendEvent::Named { id, names } if id == handle.id => return names,
                _ => {}
            }
        }
    })
    .await
}

/// Weakness 19: ECS forgets a task an hour after its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_ecs_forgot_is_lost_and_what_was_submitted_is_kept() {
    let mut world = World::new(Kind::Ecs);
    let spec = world.losing("a");
    let handle = world.start(spec).await;
    assert!(is_running(&world.backend.attach(&handle).await));
    let sent: Value = serde_json::from_slice(&std::fs::read(handle.dir.join("sent.json")).unwrap()).unwrap();
    assert_eq!(sent["run"]["definition"], "arn:aws:ecs:us-east-1:123456789012:task-definition/train:3");
    assert_eq!(sent["run"]["overrides"]["env"]["FAKE_SLEEP_MS"], "600000");
    world.cluster.state().forgets = true;
    let BackendEvent::Lost { reason, .. } = world.over(&handle).await else { panic!() };
    assert!(reason.contains("does not know its task any more"), "{reason}");
}

/// ECS forgot a task that ended while no server ran. What its driver wrote is still there, and says how it ended: it is not begun anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_ecs_forgot_has_ended_as_its_log_says() {
    let mut world = World::new(Kind::Ecs);
    let usual = world.timing;
    for (name, script, code) in [("good", "echo ran", 0), ("bad", "echo ran; exit 7", 7)] {
        (world.timing.soonest, world.timing.poll) = (seconds(3600).unsigned_abs(), seconds(3600).unsigned_abs());
        world.restart();
        let spec = world.script(name, script);
        let handle = world.start(spec).await;
        let known: Value = serde_json::from_slice(&std::fs::read(handle.dir.join("task.json")).unwrap()).unwrap();
        until(async || world.cluster.is_over(known["arn"].as_str().unwrap())).await;
        world.cluster.state().forgets = true;
        // CloudWatch cannot be asked for a while, either.
        for _ in 0..8 {
            world.cluster.answer("GetLogEvents", 400, json!({"__type": "ThrottlingException", "message": "slow down"}));
        }
        world.timing = usual;
        world.restart();
        world.backend.attach(&handle).await;
        let ended = world.ended(&handle).await;
        assert_eq!((ended.exit, ended.steps.len()), (Exit::Code { code }, 1));
        assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["ran"]);
        assert!(world.cluster.state().answers["GetLogEvents"].is_empty());
        world.cluster.state().forgets = false;
    }
}

/// That ECS does not tell of one task holds up no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_ecs_does_not_tell_of_holds_up_no_other() {
    let mut world = World::new(Kind::Ecs);
    let spec = world.losing("a");
    let untold = world.start(spec).await;
    let known: Value = serde_json::from_slice(&std::fs::read(untold.dir.join("task.json")).unwrap()).unwrap();
    world.cluster.state().untold = Some(known["arn"].as_str().unwrap().to_owned());
    let spec = world.script("b", "echo ran");
    let ended = world.run(spec).await;
    assert!(ended.exit.is_success());
    let Observation::Unreachable { reason } = world.backend.attach(&untold).await else { panic!() };
    assert!(reason.contains("INTERNAL"), "{reason}");
    world.cluster.state().untold = None;
    world.backend.cancel(&untold, seconds(0)).await.unwrap();
    assert_eq!(world.ended(&untold).await.exit, Exit::Cancelled);
}

/// Drains of instances, which may take their time, and checks in other clusters keep nothing from being placed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_placed_while_instances_are_drained_and_checked_elsewhere() {
    let mut world = World::new(Kind::Ecs);
    let gates = world.gates.clone();
    let (own, other) = (gates.of("us-east-1", "gpus"), gates.of("us-east-1", "others"));
    let arn = gates.of("us-east-1", "arn:aws:ecs:us-east-1:1:cluster/gpus");
    let (_draining, _checking) = (own.changing().await, other.alone().await);
    let spec = world.script("a", "echo ran");
    assert!(world.run(spec).await.exit.is_success());
    // One cluster has one gate, whatever it is called by.
    let placing = arn.placing().await;
    assert!(futures::FutureExt::now_or_never(own.alone()).is_none());
    drop(placing);
}

/// That EC2 takes a machine away is told once: it stays in the queue until somebody has written it down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_is_deleted_from_the_queue_only_once_it_is_written() {
    let world = World::new(Kind::Ecs);
    let (warnings, mut warned) = tokio::sync::mpsc::unbounded_channel();
    let detail = json!({"instance-id": "i-0f", "instance-action": "terminate"});
    let kind = "EC2 Spot Instance Interruption Warning";
    let event = json!({"id": "e", "detail-type": kind, "source": "aws.ec2", "detail": detail}).to_string();
    let (backend, _events) =
        crate::harness::make_with(&world.cluster, world.timing, &world.gates, &world.wakes, Some(warnings));
    backend.lead();
    let asked_twice = async || {
        let before = world.cluster.count("ReceiveMessage");
        until(async || world.cluster.count("ReceiveMessage") > before + 1).await;
    };
    // Whoever heard of it could not write it.
    world.cluster.state().messages = vec![event.clone()];
    let first = within(warned.recv()).await.unwrap();
    assert_eq!((first.id.as_str(), first.action.as_str()), ("i-0f", "terminate"));
    asked_twice().await;
    drop(first);
    asked_twice().await;
    assert_eq!(world.cluster.count("DeleteMessageBatch"), 0);
    // It comes again, and is written.
    world.cluster.state().messages = vec![event];
    within(warned.recv()).await.unwrap().taken.send(()).unwrap();
    until(async || world.cluster.count("DeleteMessageBatch") == 1).await;
    // Nobody listens any more.
    drop(warned);
    backend.stand_down();
}

/// A server that leads no more takes nothing more from the queue: each message is given out once, and is for the one that leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leads_no_more_leaves_the_queue_to_the_next() {
    let world = World::new(Kind::Ecs);
    let mut first = world.wakes.subscribe();
    let told = |n: u64| {
        let detail = json!({"taskArn": "arn:aws:ecs:us-east-1:1:task/gpus/x", "clusterArn": "gpus", "version": n});
        json!({"id": "e", "detail-type": "ECS Task State Change", "source": "aws.ecs", "detail": detail}).to_string()
    };
    world.backend.lead();
    let mut version = 0;
    until(async || {
        version += 1;
        world.cluster.state().messages = vec![told(version)];
        first.try_recv().is_ok()
    })
    .await;
    world.backend.stand_down();
    let wakes = tokio::sync::broadcast::channel(256).0;
    let mut second = wakes.subscribe();
    let (other, _events) = crate::harness::make(&world.cluster, world.timing, &world.gates, &wakes);
    other.lead();
    // What was on its way to the first is told by now.
    until(async || {
        version += 1;
        world.cluster.state().messages = vec![told(version)];
        second.try_recv().is_ok()
    })
    .await;
    while first.try_recv().is_ok() {}
    for _ in 0..30 {
        until(async || {
            version += 1;
            world.cluster.state().messages = vec![told(version)];
            second.try_recv().is_ok()
        })
        .await;
    }
    assert!(first.try_recv().is_err(), "the first server has heard something of what was the other's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_run_in_order_in_their_places_and_too_long_is_timed_out() {
    let mut world = World::new(Kind::Ecs);
    let mut first = StepSpec::new("first", Command::shell("echo \"$WHO's\" at $(pwd); printf 'no end'; exit 3"));
    first.continue_on_error = true;
    first.env.insert("WHO".into(), "it".into());
    first.workdir = Some("/".into());
    let second =
        StepSpec::new("second", Command::Argv(vec!["printf".into(), "%s\\n".into(), "a b".into(), "$HOME".into()]));
    let mut third = StepSpec::new("third", Command::shell("echo x > \"$PITCREW_OUTPUT.file\"; sleep 600"));
    third.timeout = Some(SignedDuration::from_millis(200));
    let spec = world.steps("a", vec![first, second, third]);
    let handle = world.start(spec).await;
    let ended = world.ended(&handle).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::TimedOut, Some("third")));
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["it's at /", "no end", "a b", "$HOME"]);
    assert_eq!(ended.outputs["file"], "x\n");
    let exits: Vec<_> = ended.steps.iter().map(|step| (step.name.as_str(), step.exit.code())).collect();
    assert_eq!(exits[..2], [("first", Some(3)), ("second", Some(0))]);
    let reasons: Vec<_> = world.cluster.inputs("StopTask").iter().map(|input| input["reason"].clone()).collect();
    assert_eq!(reasons[0], "pitcrew: it ran too long");
}

/// A definition's own command, with what a training script needs to go on from its checkpoint (weakness 23).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_runs_as_it_is_and_its_whole_log_comes_here() {
    let mut world = World::new(Kind::Ecs);
    let mut spec = world.steps("a", vec![StepSpec::new("main", Command::Argv(vec![]))]);
    spec.env.insert("RESUME_FROM".into(), "s3://b/ckpt-9".into());
    let handle = world.start(spec).await;
    assert!(world.ended(&handle).await.exit.is_success());
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["attempt 1 from s3://b/ckpt-9"]);
    let input = &world.cluster.inputs("RunTask")[0];
    assert_eq!(input["overrides"]["containerOverrides"][0]["command"], Value::Null);
    let tags: Vec<_> = input["tags"].as_array().unwrap().iter().map(|tag| tag["key"].as_str().unwrap()).collect();
    assert_eq!(tags, ["job_id", "jobtype", "pitcrew-attempt", "pitcrew-run"]);

    // Without a log that can be read, it says so and ends all the same.
    let bare = json!({"taskDefinition": {
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/train:4", "family": "train",
        "revision": 4, "containerDefinitions": [{"name": "train"}],
    }});
    world.cluster.state().definition = Some(bare);
    let spec = world.script("b", "echo unseen");
    let handle = world.start(spec).await;
    assert!(world.ended(&handle).await.exit.is_success());
    let said = world.lines(&handle, LogStream::System).await;
    assert!(said[0].contains("no `awslogs` with a group and a stream prefix"), "{said:?}");
}

/// Events only wake: an attempt that is looked at once an hour ends at once when somebody says that something happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_lets_an_attempt_be_looked_at_now() {
    let mut world = World::new(Kind::Ecs);
    world.timing.soonest = std::time::Duration::from_secs(3600);
    world.timing.poll = std::time::Duration::from_secs(3600);
    world.restart();
    let spec = world.script("a", "echo ran");
    let handle = world.start(spec).await;
    until(async || {
        let known = std::fs::read(handle.dir.join("task.json")).unwrap_or_default();
        let Ok(known) = serde_json::from_slice::<Value>(&known) else { return false };
        let woken = world.ecs.wake(known["arn"].as_str().unwrap());
        assert!(!world.ecs.wake("arn:aws:ecs:us-east-1:1:task/gpus/none"));
        let over = handle.dir.join("exit.json").exists();
        assert!(woken || over);
        over
    })
    .await;
    assert!(world.ended(&handle).await.exit.is_success());
}

/// The same, told by the queue to the server that leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_the_queue_lets_an_attempt_be_looked_at_now() {
    let mut world = World::new(Kind::Ecs);
    world.timing.soonest = std::time::Duration::from_secs(3600);
    world.timing.poll = std::time::Duration::from_secs(3600);
    world.restart();
    world.backend.lead();
    let spec = world.script("a", "echo ran");
    let handle = world.start(spec).await;
    let known: Value = serde_json::from_slice(&std::fs::read(handle.dir.join("task.json")).unwrap()).unwrap();
    let mut version = 0;
    until(async || {
        version += 1;
        let detail =
            json!({"taskArn": known["arn"], "clusterArn": "gpus", "lastStatus": "STOPPED", "version": version});
        let event = json!({"id": "e", "detail-type": "ECS Task State Change", "source": "aws.ecs", "detail": detail});
        world.cluster.state().messages = vec![event.to_string()];
        handle.dir.join("exit.json").exists()
    })
    .await;
    assert!(world.ended(&handle).await.exit.is_success());
    assert!(world.cluster.count("DeleteMessageBatch") > 0);
}
