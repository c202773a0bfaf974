//! What an attempt costs beyond its process: `cargo bench -p pitcrew-exec --bench local_attempts`.
//!
//! The same number of `true` processes, started one after the other by this program itself, and as attempts through the
//! runner (records and logs on disk, ends told back), one at a time and many at once.

use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::local::{LocalBackend, LocalConfig, base_environment};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Command, StepSpec};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const COUNT: u32 = 2_000;

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        runner_dir: dir.path().join("runner"),
        runner: vec![env!("CARGO_BIN_EXE_exec-test-runner").into()],
        base_env: base_environment(),
    };
    let (sender, mut events) = unbounded_channel();
    let backend = LocalBackend::new(config, sender).unwrap();
    // Starts the runner.
    run(&backend, &mut events, vec![spec(dir.path(), "first", 0, true_program())]).await;

    let begun = now();
    for _ in 0..COUNT {
        let status = Process::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
    }
    let bare = begun.elapsed();
    println!("{COUNT} bare processes, one at a time:   {bare:>10.2?}  {:>6.0}/s", rate(bare));

    for (name, command, at_once) in [
        ("`true` as attempts, one at a time", true_program(), 1),
        ("`true` as attempts, 16 at once", true_program(), 16),
        ("`true` as attempts, all at once", true_program(), COUNT),
        ("`true` by the shell, 16 at once", Command::shell("true"), 16),
    ] {
        let prefix: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let begun = now();
        for batch in (0..COUNT).collect::<Vec<_>>().chunks(at_once as usize) {
            let specs = batch.iter().map(|n| spec(dir.path(), &prefix, *n, command.clone())).collect();
            run(&backend, &mut events, specs).await;
        }
        let took = begun.elapsed();
        let ratio = took.as_secs_f64() / bare.as_secs_f64();
        println!("{COUNT} {name:<35} {took:>10.2?}  {:>6.0}/s  {ratio:.2} x bare; {}", rate(took), runner(dir.path()));
    }
    println!("the runner: {}", runner(dir.path()));
}

/// Its memory, and its CPU time in all.
fn runner(dir: &Path) -> String {
    let pid = std::fs::read_to_string(dir.join("runner/runner.pid")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: Vec<u32> = stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    let memory = |name| status.lines().find(|l| l.starts_with(name)).unwrap_or_default().replace('\t', " ");
    // After the parenthesis come the state, which is no number, and then the fields from the 4th on; ticks are 10 ms.
    format!("{}, {}, user {} ms, system {} ms", memory("VmRSS"), memory("RssAnon"), ticks[9] * 10, ticks[10] * 10)
}

fn rate(took: Duration) -> f64 {
    f64::from(COUNT) / took.as_secs_f64()
}

fn true_program() -> Command {
    Command::Argv(vec!["/bin/true".into()])
}

fn spec(dir: &Path, name: &str, number: u32, command: Command) -> AttemptSpec {
    let id = AttemptId { run: RunKey(1), task: TaskId::new(name).unwrap(), map_index: UNMAPPED, number };
    let mut spec = AttemptSpec::new(id, dir.join(name).join(number.to_string()), dir);
    spec.steps = vec![StepSpec::new("main", command)];
    spec
}

/// Starts all and waits for all.
async fn run(backend: &LocalBackend, events: &mut UnboundedReceiver<BackendEvent>, specs: Vec<AttemptSpec>) {
    let mut open = specs.len();
    let starts = specs.into_iter().map(|spec| async move {
        let handle = backend.prepare(&spec);
        backend.start(&handle, spec).await.unwrap();
    });
    futures::future::join_all(starts).await;
    while open > 0 {
        if let BackendEvent::Ended { ended, .. } = events.recv().await.unwrap() {
            assert!(ended.exit.is_success(), "{ended:?}");
            open -= 1;
        }
    }
}
