//! What the delivery example costs beside the work of its steps, against a warm server: a connection is there, and so
//! is the clone. `cargo bench -p pitcrew --bench delivery`, with `PITCREW_TEST_SSHD`; real sshd, git over HTTP, and moto.
//!
//! Engine time is the time from the beginning of the run to its end, less what each attempt's own process took where it
//! ran. It prints; nothing here passes or fails.

#[path = "../tests/delivery/gates.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod gates;
#[path = "../tests/delivery/git_http.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod git_http;
#[path = "../tests/aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod harness;
#[path = "../tests/aws/moto.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod moto;
#[path = "../../exec/tests/backends/program.rs"]
mod program;
#[path = "../../exec/tests/ssh/sshd.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod sshd;
#[path = "../tests/delivery/world.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod world;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use world::Delivery;

const RUNS: usize = 20;

/// Every `exit.json` below here.
fn ends(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            ends(&path, found);
        } else if path.file_name().is_some_and(|name| name == "exit.json") {
            found.push(path);
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(Delivery::new(&["127.0.0.1"]));
    let own = || -> f64 {
        let mut files = Vec::new();
        ends(&world.pitcrew.path("data"), &mut files);
        let read = |path: &PathBuf| -> Option<f64> {
            let end: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            end["usage"]["wall_seconds"].as_f64()
        };
        files.iter().filter_map(read).sum()
    };
    let (mut whole, mut engine) = (Vec::new(), Vec::new());
    for n in 0..=RUNS {
        world.commit("www/version.yaml", &format!("a: 1.{n}\nb: 2\n"));
        let before = own();
        let run = world.trigger(world.conf("127.0.0.1"));
        assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
        let told = world.get(&format!("/api/v2/dags/gpu-server-cicd/dagRuns/{}", run.replace('+', "%2B")));
        let time = |key: &str| told[key].as_str().unwrap().parse::<Timestamp>().unwrap();
        let took = time("end_date").duration_since(time("start_date")).as_secs_f64();
        // The first one connects and clones.
        if n > 0 {
            whole.push(took);
            engine.push(took - (own() - before));
        }
    }
    whole.sort_by(f64::total_cmp);
    engine.sort_by(f64::total_cmp);
    let at = |values: &[f64], part: f64| values[((values.len() - 1) as f64 * part).round() as usize] * 1000.0;
    println!(
        "the example, {RUNS} runs against a warm server: whole p50 {:.0} ms, p95 {:.0} ms",
        at(&whole, 0.5),
        at(&whole, 0.95)
    );
    println!("of that beside the steps' own work: p50 {:.0} ms, p95 {:.0} ms", at(&engine, 0.5), at(&engine, 0.95));
}
