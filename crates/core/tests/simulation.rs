//! A few hundred simulated worlds with every test run; `examples/simulate_engine.rs` runs as many as one likes.

use std::collections::BTreeMap;

use pitcrew_core::recovery;
use pitcrew_core::sim::{self, Options};

/// Enough to reach every rare event below, and few enough for a debug build.
const SEEDS: u64 = 360;

#[test]
fn simulated_worlds_come_to_rest_with_every_invariant_kept() {
    let worlds = std::thread::available_parallelism().map_or(2, usize::from).min(4) as u64;
    let seen: Vec<BTreeMap<&'static str, u64>> = std::thread::scope(|scope| {
        let play = |first: u64| {
            let mut seen = BTreeMap::new();
            for seed in (first..SEEDS).step_by(worlds as usize) {
                let trace = sim::run(seed, Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
                trace.seen.iter().for_each(|(what, count)| *seen.entry(*what).or_default() += count);
            }
            seen
        };
        let threads: Vec<_> = (0..worlds).map(|first| scope.spawn(move || play(first))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a world failed, see above")).collect()
    });
    // A simulation that no longer comes by these proves less than it seems to.
    for what in [
        "asked something of a finished run",
        "cancelled twice",
        "cleared what items come from",
        "crashed before an effect",
        "crashed during a commit",
        "ended before it began",
        "marked",
        "ready, then not",
        "preempted",
        "reclaimed",
        "refused",
        "a failure was ignored",
        "a guard found something missing",
        "a guard skipped a task",
        "a run was refused",
        "nothing new began after a cancel",
        "nothing new began after a failure",
        "the time of `finally` was over",
        "the time of the run was over",
        "the time of the tasks was over",
        "a gang was admitted",
        "a gang was lost",
        "a gang was preempted",
        "a member waited for its mates",
        "a member was ended with its gang",
        "a node went",
        "a node came back",
        "cordoned",
        "recovery gave up",
        "recovery left it alone",
        "recovery restarted",
        "removed",
        "retried",
        "suspected",
        "upstream failed",
        "waits for the past for ever",
    ] {
        assert!(seen.iter().any(|seen| seen.contains_key(what)), "no world saw: {what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let hash = |seed| sim::run(seed, Options::default()).map(|trace| (trace.hash, trace.steps));
    let (first, again, other) = (hash(7).unwrap(), hash(7).unwrap(), hash(8).unwrap());
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn a_world_that_does_not_come_to_rest_is_a_failure_that_names_its_seed() {
    let failure = sim::run(7, Options { max_steps: 3, ..Options::default() }).unwrap_err();
    let text = failure.to_string();
    assert!(text.ends_with("seed 7: it does not come to rest"), "{text}");
    assert!(!failure.tail.is_empty() && failure.tail.len() <= 40);
}

/// Worlds of recovery: enough to reach what is asked for below, in a debug build.
const RECOVERIES: u64 = 120;

#[test]
fn simulated_faults_all_come_to_an_end_with_every_invariant_of_recovery_kept() {
    let play = |first: u64| {
        let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
        for seed in (first..RECOVERIES).step_by(2) {
            let trace = recovery::sim::run(seed, Default::default()).unwrap_or_else(|failure| panic!("{failure}"));
            trace.seen.iter().for_each(|(what, count)| *seen.entry(*what).or_default() += count);
        }
        seen
    };
    let seen: Vec<_> = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| play(0)), scope.spawn(|| play(1))];
        threads.map(|thread| thread.join().expect("a world failed, see above")).into()
    });
    for what in [
        "a GPU was reset",
        "a Spot interruption",
        "a check never answered",
        "a job awaited a verdict",
        "a job failed",
        "a job made room and began anew",
        "a job restarted",
        "a job was left to its own retries",
        "a job was over without a word",
        "a job was complete",
        "a line was cut",
        "a message was lost",
        "a node crashed",
        "a node was rebooted",
        "a node was rebooted from outside",
        "a node was replaced",
        "a node was taken away",
        "a person began a job anew",
        "a person stopped a job",
        "a repair was approved",
        "a restart did not work",
        "a silent fault",
        "awaited approval",
        "crashed after an effect",
        "crashed after it wrote",
        "crashed before an effect",
        "crashed before it wrote",
        "no server led for long",
        "out of service",
        "repaired",
        "waited in line",
        "what may be done to a node was changed",
    ] {
        assert!(seen.iter().any(|seen| seen.contains_key(what)), "no world saw: {what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_recovery() {
    let hash = |seed| recovery::sim::run(seed, Default::default()).map(|trace| (trace.hash, trace.steps)).unwrap();
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

#[test]
fn a_recovery_that_does_not_come_to_rest_is_a_failure_that_names_its_seed() {
    let options = recovery::sim::Options { max_steps: 3, ..Default::default() };
    let text = recovery::sim::run(7, options).unwrap_err().to_string();
    assert!(text.ends_with("seed 7: it does not come to rest"), "{text}");
}
