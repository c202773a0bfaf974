//! A file of 64 MiB goes to and from a worker that knows a standby only: whole, and without anybody holding it in memory.

use crate::world::{Start, World, wait_now};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;

#[tokio::test]
async fn a_large_file_goes_through_a_standby_both_ways_and_nobody_holds_it_in_memory() {
    let Some(world) = World::new("large") else { return };
    let digests = world.effects().join("digests");
    let digest = |file: &str| format!("sha256sum < {file} >> {}", digests.display());
    // What comes out of the generator cannot be guessed, and is not the same twice.
    let random = |file: &str| format!("head -c {SIZE} /dev/urandom > {file}; {}", digest(file));
    world.workflow(
        "large",
        &format!(
            "workflow: large\ntasks:\n  make: {{queue: far, run: '{}'}}\n  \
             take: {{backend: local, needs: [make], run: '{}; {}'}}\n  back: {{queue: far, needs: [take], run: '{}'}}\n",
            random("there"),
            digest("there"),
            random("here"),
            digest("here")
        ),
    );
    let leader = world.start(&Start { data: "one", ..Start::default() });
    wait_now("it leads", &leader.log, || leader.has_said("this server leads"));
    world.knows(&leader, "large").await;
    let standby = world.start(&Start { data: "two", ..Start::default() });
    let worker = world.worker(&leader, &standby.url, "far").await;
    let all = [("the leader", &leader), ("the standby", &standby), ("the worker", &worker)];
    let before = all.map(|(_, process)| process.peak());
    world.trigger(&standby, "large", "a").await;
    world.becomes(&standby, "large", "a", "success").await;
    let text = std::fs::read_to_string(&digests).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 4 && lines[0] == lines[1] && lines[2] == lines[3] && lines[0] != lines[2], "{lines:?}");
    for ((who, process), before) in all.into_iter().zip(before) {
        let grown = process.peak() - before;
        eprintln!("{who} grew by {} MiB", grown / MIB);
        assert!(grown < SIZE / 2, "{who} grew by {} MiB for files of {} MiB", grown / MIB, SIZE / MIB);
    }
}
