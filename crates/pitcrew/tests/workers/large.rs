//! A file of half a GiB goes from one worker over the server to another: whole, and without anybody holding it in memory.

use crate::world::{Process, World};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 512 * MIB;

/// The most memory that a process ever had, in bytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn a_large_file_goes_from_worker_to_worker_and_nobody_holds_it_in_memory() {
    let world = World::new();
    let one = world.worker("one", &["--queue", "one"], &[]).await;
    let two = world.worker("two", &["--queue", "two"], &[]).await;
    let digests = world.effects("digests").display().to_string();
    // What comes out of the generator cannot be guessed, and is not the same twice.
    world.workflow(
        "large",
        &format!(
            "  make:\n    queue: one\n    run: |\n      head -c {SIZE} /dev/urandom > big\n      sha256sum < big >> {digests}\n  \
             take:\n    queue: two\n    needs: [make]\n    run: |\n      test \"$(stat -c %s big)\" = {SIZE}\n      sha256sum < big >> {digests}\n"
        ),
    );
    let before = [&world.server, &one, &two].map(peak);
    world.trigger("large").await;
    world.becomes("large", "success").await;
    let lines = world.lines("digests");
    assert!(lines.len() == 2 && lines[0] == lines[1], "{lines:?}");
    let after = [&world.server, &one, &two].map(peak);
    for ((who, before), after) in
        ["the server", "the worker that made it", "the worker that took it"].iter().zip(before).zip(after)
    {
        let grown = after - before;
        assert!(grown < SIZE / 4, "{who} grew by {} MiB for a file of {} MiB", grown / MIB, SIZE / MIB);
    }
}
