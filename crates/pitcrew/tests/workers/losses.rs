//! The line between a worker and the server breaks: for a short time nothing happens to what runs, after the lease it is
//! ended there and done elsewhere, and never both.

use crate::proxy::{Mode, Proxy};
use crate::world::{World, exists, pause};

/// A task that leaves its process and its place, and ends when it may.
fn long(world: &World) -> String {
    format!(
        "  long:\n    queue: default\n    run: |\n      echo $$ $PITCREW_WORKSPACE >> {}\n      \
         while [ ! -e {} ]; do sleep 0.1; done\n",
        world.effects("begun").display(),
        world.effects("stop").display()
    )
}

fn pid(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// The first process is gone before the second one begins.
async fn is_done_by(world: &World, second: &str) {
    let lines = world.wait_lines("begun", 2);
    assert!(!exists(&pid(&lines[0])), "both run: {lines:?}");
    assert!(lines[1].contains(second), "{lines:?}");
    std::fs::write(world.effects("stop"), "").unwrap();
    world.becomes("long", "success").await;
    assert_eq!(world.lines("begun").len(), 2);
}

#[tokio::test]
async fn a_worker_that_dies_and_stays_dead_loses_its_task_to_another() {
    let world = World::new();
    let mut first = world.worker("first", &["--slots", "1"], &[]).await;
    world.workflow("long", &long(&world));
    world.trigger("long").await;
    let begun = world.wait_lines("begun", 1);
    let _second = world.worker("second", &["--slots", "1"], &[]).await;
    first.kill();
    assert!(exists(&pid(&begun[0])));
    is_done_by(&world, "/second/").await;
}

#[tokio::test]
async fn a_line_that_is_cut_or_stalls_for_longer_than_the_lease_moves_the_task() {
    for mode in [Mode::Cut, Mode::Stalled] {
        let world = World::new();
        let proxy = Proxy::new(&world.url);
        let mut first = world.worker("first", &["--slots", "1"], &[]).await;
        first.kill();
        let first = world.start("first", &proxy.url, &["--slots", "1"], &[]);
        first.says("takes work from");
        world.workflow("long", &long(&world));
        world.trigger("long").await;
        world.wait_lines("begun", 1);
        let _second = world.worker("second", &["--slots", "1"], &[]).await;
        proxy.set(mode);
        first.says("cannot be reached");
        is_done_by(&world, "/second/").await;
        // It comes back, has nothing to say that counts, and takes work again.
        proxy.set(Mode::Open);
        world.wait_now("the first is back", || first.text().matches("takes work from").count() == 2);
    }
}

#[tokio::test]
async fn a_line_that_breaks_for_a_short_time_changes_nothing() {
    for mode in [Mode::Cut, Mode::Stalled] {
        let world = World::new();
        let proxy = Proxy::new(&world.url);
        let mut first = world.worker("first", &[], &[]).await;
        first.kill();
        let first = world.start("first", &proxy.url, &[], &[]);
        first.says("takes work from");
        world.workflow("long", &long(&world));
        world.trigger("long").await;
        world.wait_lines("begun", 1);
        proxy.set(mode);
        if mode == Mode::Cut {
            first.says("cannot be reached");
        } else {
            pause(std::time::Duration::from_secs(2));
        }
        proxy.set(Mode::Open);
        std::fs::write(world.effects("stop"), "").unwrap();
        world.becomes("long", "success").await;
        assert_eq!(world.lines("begun").len(), 1, "{:?}", world.lines("begun"));
    }
}
