//! The server is killed, again and again, in the middle of its work; nothing may happen twice, get lost or hang.
//!
//! Every task of 50 runs appends one line to a file: its side effect. After the last kill every run must have ended
//! well, and every task must have left exactly one line: killing the server kills no attempt.
//!
//! `PITCREW_KILLS` sets the number of kills (10 unless set; `scripts/test` asks for 200). On PostgreSQL too when
//! `PITCREW_TEST_POSTGRES` names a server in which databases can be made.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[allow(dead_code, reason = "shared with the tests of connections")]
#[path = "../../exec/tests/ssh/sshd.rs"]
mod sshd;

const RUNS: usize = 50;
/// Over SSH a task costs some forty processes of the host, which is this machine too.
const RUNS_ON_A_HOST: usize = 5;
const TASKS: usize = 20;

/// Twenty instances: a chain, a fan in a pool, two tasks with GPUs, a mapped task, a join.
fn workflow(effects: &Path, pause: &str, backend: Option<&str>) -> String {
    let effect = format!("echo $PITCREW_TASK/$PITCREW_MAP_INDEX/$PITCREW_TRY >> {}/$PITCREW_RUN_ID", effects.display());
    let mut text = String::from("workflow: killed\nmax_active_runs: 50\n");
    if let Some(backend) = backend {
        text.push_str(&format!("defaults:\n  backend: {backend}\n"));
    }
    text.push_str("tasks:\n");
    let mut task = |name: &str, more: &str| {
        text.push_str(&format!("  {name}: {{run: \"{effect}; sleep {pause}\"{more}}}\n"));
    };
    task("start", "");
    for i in 1..=5 {
        task(
            &format!("chain{i}"),
            &format!(", needs: [{}]", if i == 1 { "start".into() } else { format!("chain{}", i - 1) }),
        );
        task(&format!("fan{i}"), ", needs: [start], pool: few");
    }
    // A host has no devices of ours.
    let gpus = |n| if backend.is_some() { String::new() } else { format!(", resources: {{gpu: {n}}}") };
    task("gpu1", &format!(", needs: [start]{}", gpus(1)));
    task("gpu2", &format!(", needs: [start]{}", gpus(2)));
    task("each", ", needs: [start], foreach: {n: [1, 2, 3, 4, 5, 6]}");
    task("join", ", needs: [chain5, fan1, fan2, fan3, fan4, fan5, gpu1, gpu2, each]");
    text
}

/// One server process.
struct Server {
    child: Child,
}

struct World {
    dir: PathBuf,
    store: Option<String>,
}

impl World {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(args).arg("--data-dir").arg(self.dir.join("data"));
        command.env("PITCREW_GPUS", "2").env("NO_COLOR", "1").env_remove("PITCREW_STORE");
        if let Some(store) = &self.store {
            command.env("PITCREW_STORE", store);
        }
        command
    }

    fn output(&self, args: &[&str]) -> String {
        let out = self.command(args).output().expect("pitcrew starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(out.status.success(), "pitcrew {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.output(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("pitcrew {args:?}: {error}\n{text}"))
    }

    fn start(&self) -> Server {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("server.log")).unwrap();
        let folder = self.dir.join("workflows");
        let mut command = self.command(&["server", "--no-auth", "--listen", "127.0.0.1:0", "--parallelism", "8"]);
        command.arg("--workflows").arg(folder);
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("it starts");
        Server { child }
    }

    fn runs(&self) -> Vec<Value> {
        let list = self.json(&["runs", "list", "--limit", "1000", "--output", "json"]);
        list.as_array().or_else(|| list["runs"].as_array()).expect("a list of runs").clone()
    }

    fn open_runs(&self) -> usize {
        self.runs().iter().filter(|run| matches!(run["state"].as_str(), Some("queued" | "running"))).count()
    }

    /// Polls until it holds. Not a pause for luck: it fails, loudly, when it never does.
    fn wait(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        let begun = now();
        while !holds() {
            if begun.elapsed() > limit {
                let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("after {limit:?} still not: {what}\n{}", tail.join("\n"));
            }
            pause(Duration::from_millis(100));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the test is about real time: it kills at random moments")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the test is about real time: it kills at random moments")]
fn pause(by: Duration) {
    std::thread::sleep(by);
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

/// `backend` is that of all tasks, as a workflow says it. At last `is_clean` holds.
fn kill_again_and_again(store: Option<String>, backend: Option<&str>, is_clean: impl Fn() -> bool) {
    let kills: u32 = std::env::var("PITCREW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let (kills, all) = if backend.is_some() { (kills.min(40), RUNS_ON_A_HOST) } else { (kills, RUNS) };
    let temp = tempfile::tempdir().unwrap();
    let world = World { dir: temp.path().to_owned(), store };
    let effects = world.dir.join("effects");
    for dir in ["effects", "workflows", "data"] {
        std::fs::create_dir_all(world.dir.join(dir)).unwrap();
    }
    // Long enough that the work outlasts the kills, whatever their number.
    let seconds = (f64::from(kills) * 0.45 * 8.0 / (all * TASKS) as f64).max(0.02);
    std::fs::write(world.dir.join("workflows/killed.yaml"), workflow(&effects, &format!("{seconds:.3}"), backend))
        .unwrap();
    world.output(&["pools", "set", "few", "6"]);
    let mut server = world.start();
    world.wait("the workflow is there", Duration::from_secs(30), || {
        world.output(&["dags", "list", "--output", "json"]).contains("killed")
    });
    for n in 0..all {
        world.output(&["dags", "trigger", "killed", "--run-id", &format!("run-{n}")]);
    }
    let seed = std::env::var("PITCREW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(u64::from(std::process::id()));
    let mut random = Random(seed);
    let mut busy = 0;
    for kill in 0..kills {
        pause(Duration::from_millis(random.next() % 500));
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        if kill % 20 == 0 || kill + 1 == kills {
            busy += usize::from(world.open_runs() > 0);
        }
        server = world.start();
    }
    assert!(busy > 0, "the work was over before the first kill; the test showed nothing");
    world.wait("all runs are over", Duration::from_secs(300), || world.open_runs() == 0);

    let runs = world.runs();
    assert_eq!(runs.len(), all, "seed {seed}");
    for run in &runs {
        assert_eq!(run["state"], "success", "seed {seed}: {run}");
        let id = run["run_id"].as_str().unwrap();
        let file =
            std::fs::File::open(effects.join(id)).unwrap_or_else(|e| panic!("seed {seed}: no effects of {id}: {e}"));
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for line in BufReader::new(file).lines() {
            *seen.entry(line.unwrap()).or_default() += 1;
        }
        assert!(seen.values().all(|count| *count == 1), "seed {seed}: {id} did something twice: {seen:?}");
        assert!(seen.keys().all(|key| key.ends_with("/1")), "seed {seed}: {id} tried again: {seen:?}");
        assert_eq!(seen.len(), TASKS, "seed {seed}: {id} left something out: {seen:?}");
    }
    // Nothing is held: a run that needs every slot and every device still gets them.
    let greedy = "workflow: greedy\ntasks:\n  all: {run: 'true', pool: few, pool_slots: 6, resources: {gpu: 2}}\n";
    std::fs::write(world.dir.join("workflows/greedy.yaml"), greedy).unwrap();
    world.wait("the greedy workflow is there", Duration::from_secs(10), || {
        world.output(&["dags", "list", "--output", "json"]).contains("greedy")
    });
    world.output(&["dags", "trigger", "greedy", "--run-id", "last"]);
    world.wait("the greedy run is over", Duration::from_secs(30), || world.open_runs() == 0);
    assert!(world.runs().iter().any(|run| run["run_id"] == "last" && run["state"] == "success"), "seed {seed}");
    world.wait("nothing is left", Duration::from_secs(60), is_clean);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    eprintln!("{kills} kills, {all} runs, {busy} looks found runs going; seed {seed}");
}

#[test]
fn killing_the_server_on_sqlite_neither_repeats_nor_loses_anything() {
    kill_again_and_again(None, None, || true);
}

#[test]
fn killing_the_server_on_postgres_neither_repeats_nor_loses_anything() {
    let Ok(url) = std::env::var("PITCREW_TEST_POSTGRES") else {
        eprintln!("PITCREW_TEST_POSTGRES is not set; `scripts/test` sets it");
        return;
    };
    let name = format!("kill_{}", std::process::id());
    let sql = |text: String| {
        let out = Command::new("psql").args([url.as_str(), "-qc", &text]).output().expect("psql starts");
        assert!(out.status.success(), "{text}: {}", String::from_utf8_lossy(&out.stderr));
    };
    sql(format!("create database {name}"));
    let (base, query) = url.split_once('?').unwrap_or((&url, ""));
    let (server, _) = base.rsplit_once('/').expect("an address with a database");
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    kill_again_and_again(Some(format!("{server}/{name}{query}")), None, || true);
    sql(format!("drop database {name} with (force)"));
}

/// The tasks run on a host, behind a real sshd; nothing of them is left there either.
#[test]
fn killing_the_server_neither_repeats_nor_loses_anything_on_a_host() {
    let home = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sshd = runtime.block_on(sshd::Sshd::start(&format!("SetEnv HOME={}", home.path().display())));
    let key = home.path().join("key");
    sshd::keygen(&key, "ed25519", "");
    sshd.admit(&key);
    let backend = format!(
        "{{ssh: {{host: 127.0.0.1, port: {}, user: {}, key: \"file:{}\"}}}}",
        sshd.port,
        sshd::user(),
        key.display()
    );
    let left = |dir: &&str| std::fs::read_dir(home.path().join(".pitcrew").join(dir)).into_iter().flatten().count();
    kill_again_and_again(None, Some(&backend), || ["a", "w", "x"].iter().map(left).sum::<usize>() == 0);
}
