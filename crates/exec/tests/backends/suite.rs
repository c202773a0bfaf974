//! The contract of [`pitcrew_exec::Backend`], for every backend alike.

use pitcrew_core::state::Exit;
use pitcrew_exec::{BackendEvent, Handle, LogStream, Observation};
use serde_json::json;

use crate::harness::{Kind, World, is_running, seconds};

/// Every sentence of the contract is a test of every kind of world.
macro_rules! contract {
    ($($module:ident = $kind:ident),* $(,)?) => {
        $(mod $module {
            contract!(@tests $kind:
                a_success_tells_its_start_its_end_its_outputs_and_its_log,
                failures_are_told_apart,
                started_twice_is_started_once,
                what_cannot_start_ends_and_says_why,
                cancelled_before_it_began_it_never_begins,
                cancelled_while_it_runs_it_ends_cancelled,
                cancelled_after_its_end_nothing_changes,
                a_restart_finds_what_never_began_what_runs_and_what_ended,
                many_are_observed_at_once_and_in_order,
                a_log_resumes_at_every_offset,
                cleanup_keeps_the_log_and_the_end,
                a_lost_attempt_is_neither_failed_nor_running,
            );
        })*
    };
    (@tests $kind:ident: $($name:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            super::$name(super::World::new(super::Kind::$kind)).await;
        })*
    };
}

crate::harness::each_kind!(contract);

async fn a_success_tells_its_start_its_end_its_outputs_and_its_log(mut world: World) {
    let spec = world.acting("a", &[("FAKE_OUTPUT_answer", "{\"n\": 42}"), ("FAKE_LOG", "one\ntwo")]);
    let handle = world.start(spec).await;
    let mut first = world.events.recv().await;
    // Where it runs, it may have a name, which is known before it starts.
    while matches!(first, Some(BackendEvent::Named { .. })) {
        first = world.events.recv().await;
    }
    assert!(matches!(first, Some(BackendEvent::Started { .. })), "{first:?}");
    let ended = world.ended(&handle).await;
    assert_eq!(ended.exit, Exit::Code { code: 0 });
    assert_eq!(serde_json::to_value(&ended.outputs).unwrap(), json!({"answer": {"n": 42}}));
    assert_eq!((ended.failed_step.as_deref(), ended.steps.len()), (None, 1));
    assert!(ended.started_at.is_some_and(|at| at <= ended.at));
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["one", "two"]);
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
    // So has one that says nothing.
    let silent = world.acting("silent", &[("FAKE_OUTPUT_answer", "{\"n\": 43}")]);
    let outputs = world.run(silent).await.outputs;
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({"answer": {"n": 43}}));
}

async fn failures_are_told_apart(mut world: World) {
    let spec = world.acting("code", &[("FAKE_EXIT_CODE", "3"), ("FAKE_LOG", "this\nwent wrong")]);
    let ended = world.run(spec).await;
    assert_eq!(ended.exit, Exit::Code { code: 3 });
    assert_eq!((ended.failed_step.as_deref(), ended.tail.as_str()), (Some("main"), "this\nwent wrong"));
    let spec = world.acting("signal", &[("FAKE_SIGNAL", "11")]);
    assert_eq!(world.run(spec).await.exit, Exit::Signal { signal: 11 });
}

async fn started_twice_is_started_once(mut world: World) {
    let spec = world.acting("a", &[("FAKE_SLEEP_MS", "300"), ("FAKE_LOG", "ran")]);
    let handle = world.start(spec.clone()).await;
    world.start(spec.clone()).await;
    let first = world.ended(&handle).await;
    // Also after its end, and after a restart; the end is told again to who may have missed it.
    world.start(spec.clone()).await;
    assert_eq!(world.ended(&handle).await, first);
    world.restart();
    world.start(spec).await;
    assert_eq!(world.ended(&handle).await, first);
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["ran"]);
}

async fn what_cannot_start_ends_and_says_why(mut world: World) {
    let mut spec = world.acting("a", &[("FAKE_START_FAIL", "no such directory: gone")]);
    spec.workdir = world.root.join("gone");
    let handle = world.start(spec).await;
    let ended = world.ended(&handle).await;
    let Exit::StartFailed { reason, .. } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("gone"), "{reason}");
    assert_eq!((ended.started_at, ended.failed_step.as_deref()), (None, Some("main")));
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
}

async fn cancelled_before_it_began_it_never_begins(mut world: World) {
    let spec = world.acting("a", &[("FAKE_LOG", "ran")]);
    let handle = world.backend.prepare(&spec);
    assert_eq!(world.backend.attach(&handle).await, Observation::NeverBegan);
    world.backend.cancel(&handle, seconds(1)).await.unwrap();
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
    world.start(spec).await;
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
    assert!(world.log(&handle).await.is_empty());
}

async fn cancelled_while_it_runs_it_ends_cancelled(mut world: World) {
    let spec = world.acting("a", &[("FAKE_SLEEP_MS", "600000")]);
    let handle = world.start(spec).await;
    world.begun(&handle).await;
    assert!(is_running(&world.backend.attach(&handle).await));
    world.backend.cancel(&handle, seconds(20)).await.unwrap();
    world.backend.cancel(&handle, seconds(20)).await.unwrap();
    let ended = world.ended(&handle).await;
    assert_eq!(ended.exit, Exit::Cancelled);
    assert!(ended.started_at.is_some());
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
}

async fn cancelled_after_its_end_nothing_changes(mut world: World) {
    let spec = world.acting("a", &[("FAKE_EXIT_CODE", "5")]);
    let handle = world.start(spec).await;
    let ended = world.ended(&handle).await;
    world.backend.cancel(&handle, seconds(0)).await.unwrap();
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
}

async fn a_restart_finds_what_never_began_what_runs_and_what_ended(mut world: World) {
    let never = world.backend.prepare(&world.acting("never", &[]));
    let over = world.start(world.acting("over", &[("FAKE_EXIT_CODE", "7")])).await;
    let ended = world.ended(&over).await;
    let meanwhile = world.start(world.acting("meanwhile", &[("FAKE_SLEEP_MS", "1500"), ("FAKE_EXIT_CODE", "4")])).await;
    let running = world.start(world.acting("running", &[("FAKE_SLEEP_MS", "600000")])).await;
    // A handle is all that a server keeps.
    let stored = serde_json::to_string(&[never, over, meanwhile, running]).unwrap();
    world.restart();
    let [never, over, meanwhile, running]: [Handle; 4] = serde_json::from_str(&stored).unwrap();
    assert_eq!(world.backend.attach(&never).await, Observation::NeverBegan);
    assert_eq!(world.backend.attach(&over).await, Observation::Ended(ended));
    assert!(is_running(&world.backend.attach(&running).await));
    assert!(is_running(&world.backend.attach(&meanwhile).await));
    assert_eq!(world.ended(&meanwhile).await.exit, Exit::Code { code: 4 });
    world.backend.cancel(&running, seconds(0)).await.unwrap();
    assert_eq!(world.ended(&running).await.exit, Exit::Cancelled);
}

async fn many_are_observed_at_once_and_in_order(mut world: World) {
    let mut handles = Vec::new();
    for n in 0..20 {
        let code = n.to_string();
        let handle = world.start(world.acting(&format!("t{n}"), &[("FAKE_EXIT_CODE", &code)])).await;
        world.ended(&handle).await;
        handles.push(handle);
        handles.push(world.backend.prepare(&world.acting(&format!("never{n}"), &[])));
    }
    let observations = world.backend.poll(&handles).await;
    assert_eq!(observations.len(), 40);
    for (n, pair) in (0..).zip(observations.chunks(2)) {
        assert!(matches!(&pair[0], Observation::Ended(ended) if ended.exit == Exit::Code { code: n }), "{pair:?}");
        assert_eq!(pair[1], Observation::NeverBegan);
    }
}

async fn a_log_resumes_at_every_offset(mut world: World) {
    let text: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
    let handle = world.start(world.acting("a", &[("FAKE_LOG", &text.join("\n"))])).await;
    assert!(world.backend.logs(&handle, 0, 0).await.is_ok());
    world.ended(&handle).await;
    let all = world.backend.logs(&handle, 0, 1 << 20).await.unwrap();
    assert_eq!((all.records.len(), all.ended), (50, true));
    for offset in 1..=all.next_offset {
        let part = world.backend.logs(&handle, offset, 1 << 20).await.unwrap();
        assert_eq!(part.next_offset, all.next_offset);
        assert_eq!(part.records, all.records[50 - part.records.len()..], "offset {offset}");
        assert!(part.records.len() < 50);
    }
    let never = world.backend.prepare(&world.acting("never", &[]));
    let nothing = world.backend.logs(&never, 0, 100).await.unwrap();
    assert_eq!((nothing.records.len(), nothing.ended), (0, false));
}

async fn cleanup_keeps_the_log_and_the_end(mut world: World) {
    let never = world.backend.prepare(&world.acting("never", &[]));
    world.backend.cleanup(&never).await.unwrap();
    let running = world.start(world.acting("running", &[("FAKE_SLEEP_MS", "600000")])).await;
    world.backend.cleanup(&running).await.unwrap();
    assert!(is_running(&world.backend.attach(&running).await));
    world.backend.cancel(&running, seconds(0)).await.unwrap();
    world.ended(&running).await;

    let handle = world.start(world.acting("a", &[("FAKE_LOG", "kept"), ("FAKE_OUTPUT_answer", "1")])).await;
    let ended = world.ended(&handle).await;
    world.backend.cleanup(&handle).await.unwrap();
    world.backend.cleanup(&handle).await.unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(&handle.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["exit.json", "log"]);
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["kept"]);
}

async fn a_lost_attempt_is_neither_failed_nor_running(mut world: World) {
    let spec = world.losing("a");
    let handle = world.start(spec.clone()).await;
    world.kill_keeper(&handle);
    assert!(matches!(world.over(&handle).await, BackendEvent::Lost { .. }));
    assert!(matches!(world.backend.attach(&handle).await, Observation::Lost { .. }));
    world.restart();
    assert!(matches!(world.backend.attach(&handle).await, Observation::Lost { .. }));
    // Lost is an end: it is not begun anew.
    world.start(spec).await;
    assert!(matches!(world.over(&handle).await, BackendEvent::Lost { .. }));
    world.backend.cancel(&handle, seconds(0)).await.unwrap();
    assert!(matches!(world.backend.poll(&[handle]).await[..], [Observation::Lost { .. }]));
}
