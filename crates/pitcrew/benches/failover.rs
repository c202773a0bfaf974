//! A server of two is killed under load: `cargo bench --profile release -p pitcrew --bench failover`, with
//! `PITCREW_TEST_POSTGRES`. Both are real processes on one PostgreSQL and one data directory; with `-- own` each has one of
//! its own, as on two machines. `PITCREW_KILLS` says how often whoever leads is killed (3 unless set), and the killed one
//! comes back as a standby ten seconds later. `PITCREW_AT_ONCE` is how many tasks run at a time.
//!
//! Each task writes one line with its name and try, waits a quarter of a second, and ends. 50 at a time would be 200 per
//! second if a task cost nothing beside; 80 unless said otherwise leave it 0.15 s for its start, its two commits and its end.
//! What counts is the file of these lines: which are missing, which stand there twice, and the longest time in which none
//! came, with the longest one while nobody was killed beside it. It prints, and ends with an error when a task is lost or
//! ran twice.

#[path = "../tests/servers/world.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use world::{Server, Start, World, now, pause};

/// Tasks in one run, and how many run at a time.
const TASKS: usize = 500;
const AT_ONCE: &str = "80";
const WAIT: &str = "0.25";
/// The most that can begin per second, and what is to be reached.
const MOST: usize = 320;
const RATE: f64 = 200.0;
const BETWEEN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

fn lines(file: &Path) -> usize {
    std::fs::read(file).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
}

fn leads(server: &Server) -> bool {
    let text = std::fs::read_to_string(&server.log).unwrap_or_default();
    let last = text
        .lines()
        .rev()
        .find(|line| ["leads", "stands by"].iter().any(|what| line.contains(&format!("this server {what}"))));
    last.is_some_and(|line| line.contains("this server leads"))
}

/// Looks at the file until `over`; the longest time without a new line.
fn watch(file: &Path, mut over: impl FnMut(usize, Duration) -> bool) -> Duration {
    let begun = now();
    let (mut seen, mut last, mut longest): (usize, Instant, Duration) = (lines(file), begun, Duration::ZERO);
    loop {
        let count = lines(file);
        longest = longest.max(last.elapsed());
        if count != seen {
            (seen, last) = (count, now());
        }
        if over(count, begun.elapsed()) {
            return longest;
        }
        pause(LOOK);
    }
}

fn main() {
    let Some(world) = World::new("failover") else { return };
    let kills: usize = std::env::var("PITCREW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    // Enough that it is never short of work.
    let runs = (MOST * (BETWEEN.as_secs() as usize) * (kills + 1)).div_ceil(TASKS) + 4;
    let file = world.effects().join("lines");
    world.workflow(
        "load",
        &format!(
            "workflow: load\nmax_active_runs: 1000\ntasks:\n  each:\n    foreach: {{n: [{}]}}\n    \
             run: \"echo $PITCREW_RUN_ID/$PITCREW_MAP_INDEX $PITCREW_TRY >> {}; sleep {WAIT}\"\n",
            (0..TASKS).map(|n| n.to_string()).collect::<Vec<_>>().join(", "),
            file.display()
        ),
    );
    let own = std::env::args().any(|argument| argument == "own");
    let at_once = std::env::var("PITCREW_AT_ONCE").unwrap_or_else(|_| AT_ONCE.to_owned());
    let start = |data| Start { data, parallelism: Some(&at_once), ..Start::default() };
    let starts = [start("data"), start(if own { "data2" } else { "data" })];
    let mut servers = [world.start(&starts[0]), world.start(&starts[1])];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        world.knows(&servers[1], "load").await;
        for run in 0..runs {
            world.trigger(&servers[1], "load", &format!("r{run}")).await;
        }
    });
    watch(&file, |count, _| count > MOST);
    let (first, begun) = (lines(&file), now());
    let quiet = watch(&file, |_, elapsed| elapsed >= BETWEEN);
    let rate = (lines(&file) - first) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{} data directories, {at_once} tasks at a time: {rate:.0} begin per second (aim: {RATE:.0}); the longest time \
         without one, nobody killed: {:.2} s",
        if own { 2 } else { 1 },
        quiet.as_secs_f64()
    );
    let mut worst = Duration::ZERO;
    for kill in 0..kills {
        let victim = servers.iter().position(leads).expect("one of the servers leads");
        let (first, begun) = (lines(&file), now());
        servers[victim].kill();
        let gap = watch(&file, |_, elapsed| elapsed >= BETWEEN);
        let rate = (lines(&file) - first) as f64 / begun.elapsed().as_secs_f64();
        println!(
            "kill {}: the longest time without one: {:.2} s; {rate:.0} per second with that in it",
            kill + 1,
            gap.as_secs_f64()
        );
        worst = worst.max(gap);
        servers[victim] = world.start(&starts[victim]);
    }
    let all = runs * TASKS;
    let ended = || world.query("select count(*) from runs where state in ('queued', 'running')") == "0";
    let mut looked = now();
    watch(&file, |count, _| {
        // The file first: the database is not asked a hundred times a second.
        if count < all && looked.elapsed() < Duration::from_secs(2) {
            return false;
        }
        looked = now();
        ended()
    });
    let text = std::fs::read_to_string(&file).unwrap();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        *seen.entry(line.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    let twice = seen.values().filter(|count| **count > 1).count();
    let again = text.lines().filter(|line| !line.ends_with(" 1")).count();
    let bad = world.query("select count(*) from runs where state <> 'success'");
    println!(
        "{kills} kills, {all} tasks: {} lost, {twice} run twice, {again} tried again, {bad} runs not well",
        all - seen.len()
    );
    println!("the longest gap: {:.2} s", worst.as_secs_f64());
    assert!(seen.len() == all && twice == 0, "tasks were lost or ran twice");
}
