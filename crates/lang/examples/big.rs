//! What large workflows cost: `cargo run --release -p pitcrew-lang --example big [TASKS]`
//!
//! Compiles one workflow of 100,000 tasks, lays out one of 1,000, and renders the same script 10,000 times.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::ir::TaskIx;
use pitcrew_core::state::RunState;
use pitcrew_core::{RunId, RunKey, Timestamp};
use pitcrew_lang::graph::{Graph, svg};
use pitcrew_lang::{Compiled, Evaluator, Options, parse, resolve_params};

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let source = source(count);
    let (compiled, taken) = timed(|| compile(&source));
    let tasks = compiled.workflow.tasks.len();
    println!(
        "compile {tasks} tasks, {:.1} MB: {:.0} ms, peak {} MB",
        source.len() as f64 / 1e6,
        taken.as_secs_f64() * 1e3,
        peak_mb()
    );

    let small = compile(&self::source(1_000)).workflow;
    let (drawing, taken) = timed(|| svg::render(&Graph::of(&small), &svg::SvgOptions::default()));
    println!("draw 1000 tasks: {:.0} ms, {} kB", taken.as_secs_f64() * 1e3, drawing.len() / 1_000);

    let now: Timestamp = "2026-01-31T02:00:00Z".parse().expect("a time");
    let record = RunRecord {
        key: RunKey(1),
        workflow: small.id.clone(),
        run_id: RunId::new("manual").expect("an id"),
        run_type: RunType::Manual,
        version: String::new(),
        params: resolve_params(&small, &serde_json::Map::new()).expect("defaults"),
        conf: serde_json::Map::new(),
        logical_date: None,
        data_interval: None,
        run_after: now,
        queued_at: now,
        triggered_by: "cli".into(),
        state: RunState::Queued,
        start: None,
        end: None,
        stop: None,
        note: String::new(),
        backfill: None,
        finally_start: None,
    };
    let run = Run::new(record, Arc::new(small));
    let evaluator = Evaluator::default();
    let script = "set -e\necho {{ params.name | sh }} {{ ds }} {{ run.id }} {{ tasks.task-7.state }}\n".repeat(5);
    let (_, taken) = timed(|| {
        for _ in 0..10_000 {
            let rendering = evaluator.rendering(&run, Slot::new(TaskIx(500), 0));
            rendering.text(&script).unwrap_or_else(|why| panic!("{why}"));
        }
    });
    println!("render a script with 20 templates: {:.1} µs", taken.as_secs_f64() * 1e6 / 10_000.0);
}

/// Tasks with two needs each, their own texts, and here and there the output of another.
fn source(count: usize) -> String {
    let mut source =
        String::from("workflow: big\nparams: {n: 1, name: text}\ndefaults: {retries: 2, retry_delay: 30s}\ntasks:\n");
    for at in 0..count {
        let _ = write!(
            source,
            "  task-{at}:\n    run: echo \"{{{{ params.name }}}} {at}\"\n    timeout: 10m\n    priority: {}\n",
            at % 10
        );
        match at {
            0 => {}
            1 | 2 => drop(writeln!(source, "    needs: [task-{}]", at - 1)),
            _ => drop(writeln!(source, "    needs: [task-{}, task-{}]", at - 1, at / 2)),
        }
        if at % 10 == 5 {
            let _ = writeln!(source, "    env: {{INPUT: \"{{{{ tasks.task-{}.outputs.x }}}}\"}}", at - 5);
        }
    }
    source
}

fn compile(source: &str) -> Compiled {
    parse(source, "big.yaml", &Options::default())
        .unwrap_or_else(|found| panic!("{}", pitcrew_lang::render_all(&found, false)))
        .remove(0)
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// The most memory that the process has held, by the kernel's own count.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}
