//! Gangs: members that begin together, each on a machine of its own.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::state::Exit;
use pitcrew_ecs::backend::started_by;
use pitcrew_exec::{AttemptSpec, EcsMember, Ended, Handle, LogStream, Observation, Place};
use serde_json::{Value, json};

use crate::cluster::MACHINE;
use crate::harness::{INSTANCE, Kind, World, is_running, seconds, until};

const COUNT: u32 = 3;

/// So many machines beside the first, which say by what they are reached.
fn grow(world: &World, others: u32) {
    let other = |n: u32| {
        json!({
            "containerInstanceArn": format!("arn:aws:ecs:us-east-1:123456789012:container-instance/gpus/9{n}"),
            "ec2InstanceId": format!("i-1f{n}"), "agentConnected": true, "status": "ACTIVE",
            "attributes": [{"name": "peer-address", "value": format!("10.0.0.{n}")}],
        })
    };
    world.cluster.state().others = (1..=others).map(other).collect();
}

/// A gang whose members run this.
fn gang(world: &World, name: &str, script: &str) -> Vec<AttemptSpec> {
    let seats = world.root.join(format!("attempts/{name}-0"));
    let member = |rank: u32| {
        let mut spec = world.script(name, script);
        (spec.id.map_index, spec.dir) = (rank as i32, world.root.join(format!("attempts/{name}-{rank}")));
        if let Some(Place::Ecs(place)) = &mut spec.place {
            place.gang = Some(EcsMember { rank, count: COUNT, seats: seats.clone(), ..EcsMember::default() });
        }
        spec
    };
    (0..COUNT).map(member).collect()
}

async fn start(world: &World, specs: Vec<AttemptSpec>) -> Vec<Handle> {
    let started = specs.into_iter().map(|spec| world.start(spec));
    futures::future::join_all(started).await
}

/// How it ended. Events are in no order here, so it is asked for.
async fn ended(world: &World, handle: &Handle) -> Ended {
    let mut found = None;
    until(async || {
        if let Observation::Ended(ended) = world.backend.attach(handle).await {
            found = Some(ended);
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// What its log says of it so far.
async fn said(world: &World, handle: &Handle) -> Vec<String> {
    let chunk = world.backend.logs(handle, 0, 1 << 20).await.unwrap();
    chunk.records.into_iter().filter(|record| record.stream == LogStream::System).map(|record| record.text).collect()
}

/// The machine that each token was bound to, in all calls that had it.
fn bound(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for input in world.cluster.inputs("RunTask") {
        let expression = input["placementConstraints"][0]["expression"].as_str().unwrap().to_owned();
        all.entry(input["clientToken"].to_string()).or_default().insert(expression);
    }
    all
}

fn tag(input: &Value, key: &str) -> Option<String> {
    let found = input["tags"].as_array()?.iter().find(|tag| tag["key"] == key)?;
    Some(found["value"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_begin_together_each_on_its_own_machine_and_know_each_other() {
    let world = World::new(Kind::Ecs);
    grow(&world, 3);
    let mut specs = gang(&world, "train", "echo \"$PITCREW_HEAD of $PITCREW_PEERS\"");
    let last = specs.pop().unwrap();
    let mut handles = start(&world, specs).await;
    for handle in &handles {
        assert_eq!(world.backend.attach(handle).await, Observation::Waiting);
    }
    assert_eq!(world.cluster.count("RunTask"), 0, "none begins before all can");
    handles.push(world.start(last).await);
    for handle in &handles {
        assert!(ended(&world, handle).await.exit.is_success());
        // The first machine has no such attribute, and EC2 tells no address of it here.
        let peers = format!("{MACHINE} of {MACHINE},10.0.0.1,10.0.0.2");
        assert_eq!(world.lines(handle, LogStream::Stdout).await, [peers]);
    }
    let machines: BTreeSet<String> = bound(&world).into_values().flatten().collect();
    let expected = [MACHINE, "i-1f1", "i-1f2"].map(|machine| format!("ec2InstanceId == {machine}"));
    assert_eq!(machines, expected.into_iter().collect());
    let ranks: BTreeSet<_> =
        world.cluster.inputs("RunTask").iter().map(|input| tag(input, "pitcrew-rank").unwrap()).collect();
    assert_eq!(ranks, ["0/3", "1/3", "2/3"].map(str::to_owned).into());
}

/// The server dies at the worst moments: once machines are chosen, and while members are being started. The next one finds all
/// members where they are, starts those that are missing where they were to be, and none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_server_finds_all_members_and_starts_none_twice() {
    let mut world = World::new(Kind::Ecs);
    for (n, unheard) in [1, 2, 12].into_iter().enumerate() {
        grow(&world, 3);
        world.cluster.state().unheard = vec!["RunTask".into(); unheard];
        let before = world.cluster.count("RunTask");
        let specs = gang(&world, &format!("g{n}"), "echo ran");
        let handles: Vec<Handle> = specs.iter().map(|spec| world.backend.prepare(spec)).collect();
        let starts: Vec<_> = std::iter::zip(&handles, specs)
            .map(|(handle, spec)| {
                let (backend, handle) = (world.backend.clone(), handle.clone());
                tokio::spawn(async move { backend.start(&handle, spec).await })
            })
            .collect();
        until(async || world.cluster.count("RunTask") > before).await;
        for start in starts {
            start.abort();
            let _ = start.await;
        }
        world.cluster.state().unheard.clear();
        world.restart();
        // What is free now is not what was chosen.
        world.cluster.state().others.reverse();
        for handle in &handles {
            let ended = ended(&world, handle).await;
            assert!(ended.exit.is_success(), "{ended:?}");
            assert_eq!(world.lines(handle, LogStream::Stdout).await, ["ran"]);
        }
    }
    let all = bound(&world);
    assert_eq!(all.len(), 9, "a task for each member: {all:?}");
    assert!(all.values().all(|machines| machines.len() == 1), "always for the same machine: {all:?}");
}

/// Another server has this gang now, without the files of the one that began it: its tasks are found, none is started a second time, and
/// no machine is taken for that of a member which it never was on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_files_of_a_gang_adopts_its_tasks() {
    let mut world = World::new(Kind::Ecs);
    grow(&world, 3);
    let specs = gang(&world, "a", "exec sleep 600");
    let handles = start(&world, specs.clone()).await;
    for handle in &handles {
        until(async || is_running(&world.backend.attach(handle).await)).await;
    }
    let before = world.cluster.count("RunTask");
    world.restart();
    for handle in &handles {
        std::fs::remove_dir_all(&handle.dir).unwrap();
    }
    start(&world, specs).await;
    for handle in &handles {
        until(async || is_running(&world.backend.attach(handle).await)).await;
        assert!(!handle.dir.join("gang.json").exists(), "nothing is chosen anew");
    }
    assert_eq!(world.cluster.count("RunTask"), before);
    for handle in &handles {
        world.backend.cancel(handle, seconds(0)).await.unwrap();
        assert_eq!(ended(&world, handle).await.exit, Exit::Cancelled);
    }

    // Of another one, ECS knows one task no more. Nobody knows where that was to be, so it ends, and its mates, which are found, can be
    // stopped by whoever asked for all.
    let specs = gang(&world, "b", "exec sleep 600");
    let handles = start(&world, specs.clone()).await;
    for handle in &handles {
        until(async || is_running(&world.backend.attach(handle).await)).await;
    }
    world.restart();
    world.cluster.forget(&started_by(INSTANCE, &handles[2].id));
    for handle in &handles {
        std::fs::remove_dir_all(&handle.dir).unwrap();
    }
    let before = world.cluster.count("RunTask");
    start(&world, specs).await;
    let Exit::StartFailed { reason, lasting: false } = ended(&world, &handles[2]).await.exit else { panic!() };
    assert!(reason.starts_with("others of its gang run already"), "{reason}");
    for handle in &handles[..2] {
        until(async || is_running(&world.backend.attach(handle).await)).await;
        world.backend.cancel(handle, seconds(0)).await.unwrap();
        assert_eq!(ended(&world, handle).await.exit, Exit::Cancelled);
    }
    assert_eq!(world.cluster.count("RunTask"), before);
}

/// It is waited for room for all, none begins meanwhile, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_waits_until_there_is_room_for_all_of_it() {
    let mut world = World::new(Kind::Ecs);
    grow(&world, 2);
    world.cluster.state().machine.draining = true;
    let handles = start(&world, gang(&world, "a", "echo ran")).await;
    let why = "of its 3 members 2 would find a machine now; i-0f1: it is being drained";
    for handle in &handles {
        until(async || !said(&world, handle).await.is_empty()).await;
        assert_eq!(said(&world, handle).await, [format!("waits: {why}")]);
    }
    assert_eq!(world.cluster.count("RunTask"), 0);
    world.cluster.state().machine.draining = false;
    for handle in &handles {
        assert!(ended(&world, handle).await.exit.is_success());
    }
    assert_eq!(bound(&world).len(), 3);

    world.cluster.state().machine.draining = true;
    world.timing.capacity = std::time::Duration::ZERO;
    world.restart();
    for handle in start(&world, gang(&world, "b", "echo ran")).await {
        let ended = ended(&world, &handle).await;
        let Exit::StartFailed { reason, lasting: false } = ended.exit else { panic!("{ended:?}") };
        assert_eq!(reason, format!("no room within 0 s: {why}"));
    }
    assert_eq!(bound(&world).len(), 3, "nothing of it was started");
}

/// The machine of a member was taken before it could be started there: it ends and says so, its mates can be stopped, and what was
/// chosen for them is given to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_machine_was_taken_meanwhile_ends_and_says_so() {
    let mut world = World::new(Kind::Ecs);
    grow(&world, 2);
    world.timing.seated = std::time::Duration::ZERO;
    world.restart();
    let arn = "arn:aws:ecs:us-east-1:1:container-instance/gpus/8f";
    let busy = json!({"tasks": [], "failures": [{"arn": arn, "reason": "RESOURCE:MEMORY"}]});
    world.cluster.answer("RunTask", 200, busy);
    let handles = start(&world, gang(&world, "a", "exec sleep 600")).await;
    let mut failed = 0;
    for handle in &handles {
        until(async || {
            let seen = world.backend.attach(handle).await;
            is_running(&seen) || matches!(seen, Observation::Ended(_))
        })
        .await;
        match world.backend.attach(handle).await {
            Observation::Ended(ended) => {
                let Exit::StartFailed { reason, lasting: false } = &ended.exit else { panic!("{ended:?}") };
                assert!(reason.starts_with("no room within 0 s: `RunTask` of ECS: RESOURCE:MEMORY"), "{reason}");
                failed += 1;
            }
            // What the engine does with its mates.
            _ => {
                world.backend.cancel(handle, seconds(0)).await.unwrap();
                assert_eq!(ended(&world, handle).await.exit, Exit::Cancelled);
            }
        }
    }
    assert_eq!((failed, world.cluster.count("StopTask") >= 2), (1, true));
}

/// One that is cancelled while its gang waits ends at once, and nothing of it was ever asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_that_waits_can_be_cancelled_also_by_the_next_server() {
    let mut world = World::new(Kind::Ecs);
    let handles = start(&world, gang(&world, "a", "echo ran")).await;
    world.restart();
    for handle in &handles {
        assert_eq!(world.backend.attach(handle).await, Observation::Waiting);
        world.backend.cancel(handle, seconds(0)).await.unwrap();
        assert_eq!(ended(&world, handle).await.exit, Exit::Cancelled);
    }
    assert_eq!(world.cluster.count("RunTask"), 0);
}
