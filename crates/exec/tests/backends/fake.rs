//! What only the fake backend can be told to do.

use pitcrew_core::state::Exit;
use pitcrew_exec::{BackendEvent, Observation};

use crate::harness::{Kind, World, until};

#[tokio::test]
async fn memory_runs_out_and_early_attempts_fail_as_told() {
    let mut world = World::new(Kind::Fake);
    let spec = world.acting("oom", &[("FAKE_OOM", "1"), ("FAKE_EXIT_CODE", "3")]);
    assert_eq!(world.run(spec).await.exit, Exit::OutOfMemory);
    for (number, code) in [(1, 1), (2, 1), (3, 0)] {
        let mut spec = world.acting(&format!("flaky{number}"), &[("FAKE_FAIL_UNTIL_ATTEMPT", "3")]);
        spec.id.number = number;
        assert_eq!(world.run(spec).await.exit, Exit::Code { code });
    }
    let ended = world.run(world.acting("typo", &[("FAKE_EXIT_CODE", "three")])).await;
    assert_eq!(ended.exit, Exit::cannot_start("`FAKE_EXIT_CODE` is `three`, which is not a suitable number"));
}

#[tokio::test]
async fn a_lost_report_is_found_by_asking_only() {
    let mut world = World::new(Kind::Fake);
    let quiet = world.start(world.acting("quiet", &[("FAKE_LOST_REPORT", "1"), ("FAKE_SLEEP_MS", "10")])).await;
    assert!(matches!(world.events.recv().await, Some(BackendEvent::Started { .. })));
    until(async || matches!(world.backend.poll(std::slice::from_ref(&quiet)).await[..], [Observation::Ended(_)])).await;
    // The next event is of another attempt: nothing was told of this one.
    let other = world.start(world.acting("other", &[])).await;
    assert_eq!(world.events.recv().await.map(|e| e.id().clone()), Some(other.id));
}

#[tokio::test]
async fn time_goes_on_while_nobody_holds_the_backend() {
    let mut world = World::new(Kind::Fake);
    let handle = world.start(world.acting("a", &[("FAKE_SLEEP_MS", "20"), ("FAKE_EXIT_CODE", "4")])).await;
    world.restart();
    until(async || matches!(world.backend.poll(std::slice::from_ref(&handle)).await[..], [Observation::Ended(_)]))
        .await;
    world.restart();
    // Attached to after its time, it is recorded and told.
    assert!(matches!(world.backend.attach(&handle).await, Observation::Ended(_)));
    assert_eq!(world.ended(&handle).await.exit, Exit::Code { code: 4 });
    assert!(world.backend.logs(&handle, 0, 0).await.unwrap().ended);
}
