//! Servers are killed, cut off and frozen in the middle of their work: nothing is lost, and nothing happens twice.

use std::collections::BTreeMap;

use serde_json::json;

use crate::world::{Server, Start, World, pause, wait_now};

const RUNS: usize = 12;
const TASKS: usize = 60;
/// As the database counts time.
const SECOND: i64 = 1_000_000;

/// Each task leaves one line: its side effect.
fn workflow(world: &World) -> String {
    let effects = world.effects().display().to_string();
    format!(
        "workflow: busy\nmax_active_runs: 50\ntasks:\n  start: {{run: 'true'}}\n  each:\n    needs: [start]\n    \
         foreach: {{n: [{}]}}\n    run: \"echo $PITCREW_MAP_INDEX/$PITCREW_TRY >> {effects}/$PITCREW_RUN_ID; sleep 0.15\"\n",
        (0..TASKS).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
    )
}

/// Every run ended well, and each of its tasks left exactly one line of its first try.
fn check(world: &World, seed: u64) {
    assert_eq!(world.query("select count(*) from runs where state = 'success'"), RUNS.to_string(), "seed {seed}");
    for run in 0..RUNS {
        let text = std::fs::read_to_string(world.effects().join(format!("r{run}"))).unwrap();
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        text.lines().for_each(|line| *seen.entry(line).or_default() += 1);
        assert!(seen.values().all(|count| *count == 1), "seed {seed}: r{run} did something twice: {seen:?}");
        assert_eq!(seen.len(), TASKS, "seed {seed}: r{run} left something out: {seen:?}");
        assert!(seen.keys().all(|line| line.ends_with("/1")), "seed {seed}: r{run} tried again: {seen:?}");
    }
}

/// splitmix64: the same seed kills at the same moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn seed() -> u64 {
    std::env::var("PITCREW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(u64::from(std::process::id()))
}

fn over(world: &World, server: &Server) {
    wait_now("all runs are over", &server.log, || {
        world.query("select count(*) from runs where state in ('queued', 'running')") == "0"
    });
}

async fn trigger_all(world: &World, server: &Server) {
    world.knows(server, "busy").await;
    for run in 0..RUNS {
        world.trigger(server, "busy", &format!("r{run}")).await;
    }
}

fn leader(servers: &[Server]) -> Option<usize> {
    servers.iter().position(|server| {
        let text = std::fs::read_to_string(&server.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| line.contains("this server "));
        last.is_some_and(|line| line.contains("this server leads"))
    })
}

/// Something is due each second, so whoever leads dies around it.
#[tokio::test]
async fn a_schedule_fires_once_for_each_of_its_times_though_its_leaders_are_killed() {
    const TIMES: usize = 12;
    let Some(world) = World::new("ticks") else { return };
    let effects = world.effects().display().to_string();
    let text = format!(
        "workflow: tick\nschedule: {{interval: 1s, catchup: true}}\nmax_active_runs: 50\ntasks:\n  \
         note: {{run: 'echo $PITCREW_TRY >> \"{effects}/$PITCREW_RUN_ID\"'}}\n"
    );
    world.workflow("tick", &text);
    let start = Start { data: "data", ..Start::default() };
    let mut servers = [world.start(&start), world.start(&start)];
    world.knows(&servers[0], "tick").await;
    let seed = seed();
    let mut random = Random(seed);
    for kill in 0..5 {
        pause(std::time::Duration::from_millis(500 + random.next() % 1000));
        let victim = leader(&servers).unwrap_or(kill % 2);
        servers[victim].kill();
        servers[victim] = world.start(&start);
    }
    let ended =
        "select logical_date, run_id from runs where workflow = 'tick' and state = 'success' order by logical_date";
    let first = "select min(logical_date) from runs where workflow = 'tick'";
    let mut runs = Vec::new();
    wait_now("as many times have come", &servers[0].log, || {
        let rows = world.query(ended);
        runs = rows
            .lines()
            .map(|row| row.split_once('|').map(|(at, run)| (at.to_owned(), run.to_owned())).unwrap())
            .collect();
        let first: i64 = world.query(first).parse().unwrap_or_default();
        // None of the first ones lacks.
        let due = (0..TIMES).map(|n| (first + n as i64 * SECOND).to_string());
        due.into_iter().all(|at| runs.iter().any(|(is, _)| *is == at))
    });
    runs.truncate(TIMES);
    for (at, run) in &runs {
        let done = std::fs::read_to_string(world.effects().join(run)).unwrap();
        assert_eq!(done, "1\n", "seed {seed}: {at} {run}");
    }
    let times: Vec<i64> = runs.iter().map(|(at, _)| at.parse().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SECOND), "seed {seed}: {times:?}");
}

/// Both work in one data directory, as two servers of one machine do: whoever takes over finds what runs.
#[tokio::test]
async fn the_leader_is_killed_again_and_again_and_nothing_is_lost_or_done_twice() {
    let Some(world) = World::new("kills") else { return };
    world.workflow("busy", &workflow(&world));
    let start = Start { data: "data", ..Start::default() };
    let mut servers = [world.start(&start), world.start(&start)];
    trigger_all(&world, &servers[1]).await;
    let seed = seed();
    let mut random = Random(seed);
    for kill in 0..6 {
        pause(std::time::Duration::from_millis(random.next() % 700));
        let victim = leader(&servers).unwrap_or(kill % 2);
        servers[victim].kill();
        servers[victim] = world.start(&start);
    }
    over(&world, &servers[0]);
    check(&world, seed);
    // Whoever leads now does what either is asked.
    for (n, server) in servers.iter().enumerate() {
        let body = json!({ "key": format!("k{n}"), "value": "v" });
        world.ask(reqwest::Method::POST, server, "/api/v2/variables", Some(body)).await;
    }
}
