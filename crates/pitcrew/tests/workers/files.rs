//! Files of a run between workers and the server.

use crate::world::World;

#[tokio::test]
async fn what_a_task_leaves_on_one_worker_a_task_on_another_finds_and_artifacts_come_back() {
    let world = World::new();
    let _a = world.worker("a", &["--queue", "a"], &[]).await;
    let _b = world.worker("b", &["--queue", "b"], &[]).await;
    world.workflow(
        "files",
        "  make:\n    queue: a\n    run: |\n      mkdir -p data\n      echo 0.93 > data/accuracy\n      \
         echo kept > \"$PITCREW_ARTIFACTS/model.txt\"\n    outputs: {accuracy: {from: data/accuracy}}\n  \
         use:\n    queue: b\n    needs: [make]\n    run: |\n      test \"$(cat data/accuracy)\" = \"{{ tasks.make.outputs.accuracy }}\"\n      \
         test -e \"$PITCREW_ARTIFACTS/model.txt\"\n      echo more >> data/accuracy\n  \
         here:\n    needs: [use]\n    run: grep -q more data/accuracy\n",
    );
    world.trigger("files").await;
    world.becomes("files", "success").await;
    let runs: Vec<_> = std::fs::read_dir(world.dir.join("server/runs")).unwrap().flatten().collect();
    assert_eq!(std::fs::read_to_string(runs[0].path().join("artifacts/model.txt")).unwrap(), "kept\n");
    // The run is over: the workers keep nothing of it.
    for worker in ["a", "b"] {
        let own = world.dir.join(worker).join("worker/of");
        let owns: Vec<_> = std::fs::read_dir(own).unwrap().flatten().collect();
        assert_eq!(owns.len(), 1, "{owns:?}");
        let runs = owns[0].path().join("runs");
        world.wait_now("its directory is gone", || std::fs::read_dir(&runs).is_ok_and(|left| left.count() == 0));
    }
}
