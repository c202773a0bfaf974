//! Short tasks, of which some wait on their worker for a slot: whatever happens to the worker, each runs once, unless it was
//! begun when its worker was shut out.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::json;

use crate::world::World;

const TASKS: usize = 80;
const SLOTS: usize = 2;

/// Tasks that leave their names.
fn short(world: &World, seconds: &str) {
    let ran = world.effects("ran");
    let task = |i| format!("  t{i}: {{queue: default, run: 'echo t{i} >> {}; sleep {seconds}'}}\n", ran.display());
    world.workflow("short", &(0..TASKS).map(task).collect::<String>());
}

/// How often each ran.
fn times(world: &World) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    world.lines("ran").into_iter().for_each(|name| *times.entry(name).or_default() += 1);
    times
}

#[tokio::test]
async fn what_waits_on_a_worker_runs_once_when_it_is_killed_or_drained() {
    let world = World::new();
    let slots = SLOTS.to_string();
    let mut killed = world.worker("killed", &["--slots", &slots], &[]).await;
    let mut drained = world.worker("drained", &["--slots", &slots], &[]).await;
    short(&world, "0.05");
    world.trigger("short").await;
    world.wait_lines("ran", 15);
    killed.kill();
    let _again = world.start("killed", &world.url, &["--slots", &slots], &[]);
    world.wait_lines("ran", 30);
    drained.signal(Signal::TERM);
    assert!(drained.ends().success(), "{}", drained.tail());
    world.becomes("short", "success").await;
    let times = times(&world);
    assert!(times.len() == TASKS && times.values().all(|times| *times == 1), "{times:?}");
}

#[tokio::test]
async fn of_a_worker_that_is_shut_out_only_what_it_began_runs_again() {
    let world = World::new();
    let slots = SLOTS.to_string();
    let _stays = world.worker("stays", &["--slots", &slots], &[]).await;
    let mut revoked = world.worker("revoked", &["--slots", &slots], &[]).await;
    short(&world, "0.5");
    world.trigger("short").await;
    world
        .wait("some wait on it", async || {
            world.get("/api/pitcrew/v1/workers/revoked").await["waiting"].as_u64().is_some_and(|waiting| waiting > 0)
        })
        .await;
    world.post("/api/pitcrew/v1/workers/revoked/revoke", json!({})).await;
    assert!(!revoked.ends().success());
    world.becomes("short", "success").await;
    let times = times(&world);
    let twice: usize = times.values().map(|times| times - 1).sum();
    // Of those that had just ended nobody heard, either.
    assert!(times.len() == TASKS && twice <= 2 * SLOTS, "{times:?}");
}
