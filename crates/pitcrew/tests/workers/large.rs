//! A file of a GiB goes from one worker over the server to another: whole, and without anybody holding it in memory.
//!
//! Unoptimised, the three processes take some 18 s of two cores for 2 GiB, and much longer beside other tests; so it is half
//! of that here, and `PITCREW_TEST_LARGE_MIB=2048` makes it any other size.

use crate::world::{Process, World};

const MIB: u64 = 1 << 20;
/// What a process may grow by; a process that held the file, or a part of it that grows with it, takes more.
const MOST: u64 = 128 * MIB;

fn size() -> u64 {
    std::env::var("PITCREW_TEST_LARGE_MIB").ok().map_or(1024, |mib| mib.parse().expect("a number of MiB")) * MIB
}

/// The most memory that a process ever had, in bytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn a_large_file_goes_from_worker_to_worker_and_nobody_holds_it_in_memory() {
    let size = size();
    // A word that cannot be guessed stands here, also across the middle and at the very end; between them there is nothing,
    // so that the disk of whoever made it has little to do.
    let marks = [0, size / 3 + 13, size / 2 - 16, size - MIB, size - 32];
    let world = World::new();
    let one = world.worker("one", &["--queue", "one"], &[]).await;
    let two = world.worker("two", &["--queue", "two"], &[]).await;
    let digests = world.effects("digests").display().to_string();
    let mark = |at: u64| {
        format!("      head -c 32 /dev/urandom | dd of=big bs=32 oflag=seek_bytes seek={at} conv=notrunc status=none\n")
    };
    let marks: String = marks.into_iter().map(mark).collect();
    world.workflow(
        "large",
        &format!(
            "  make:\n    queue: one\n    run: |\n      truncate -s {size} big\n{marks}      sha256sum < big >> {digests}\n  \
             take:\n    queue: two\n    needs: [make]\n    run: |\n      test \"$(stat -c %s big)\" = {size}\n      sha256sum < big >> {digests}\n"
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
        // A process that gives memory back begins its peak anew.
        let grown = after.saturating_sub(before);
        assert!(grown < MOST, "{who} grew by {} MiB for a file of {} MiB", grown / MIB, size / MIB);
    }
}
