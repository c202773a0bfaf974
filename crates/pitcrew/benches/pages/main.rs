//! How the server answers with a million task instances in its database: `cargo bench --profile release -p pitcrew
//! --bench pages [-- first_byte|live|grid|log…]`.
//!
//! The database is made at first, which takes minutes, and kept beside the build for a day: figures are about the last
//! days. The pages and the API's reads are taken from the server's own table of routes, so none is forgotten. Nothing
//! here passes or fails; it prints each figure beside its aim, and what else kept the machine busy.

#[path = "../../../store/examples/fill/filler.rs"]
mod filler;
mod first_byte;
mod grid;
mod serve;

use std::cell::LazyCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pitcrew_store::Store;
use serde_json::json;

use filler::Filler;
use serve::{Server, now, pause, today};

/// The workflow of the filler with 500 tasks and 100 runs, and one of the ordinary ones.
const WIDE: &str = "wide";
const FLOW: &str = "flow_007";
const INSTANCES: usize = 1_000_000;
const WORKFLOWS: usize = 200;
/// How old the database may be.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The full database, made if it is not there.
fn database() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages.db");
    let age = path.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age < FRESH) {
        return path;
    }
    println!("filling `{}` with {INSTANCES} task instances; this takes some minutes, once a day", path.display());
    let part = path.with_extension("part");
    let _ = std::fs::remove_file(&part);
    let begun = now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&part.display().to_string().parse().unwrap()).await.unwrap();
        let owner = store.register_owner().await.unwrap();
        Filler { store: store.clone(), owner, now: today() }.fill(INSTANCES, WORKFLOWS).await;
        store.close().await;
    });
    std::fs::rename(&part, &path).unwrap();
    println!("filled after {:.0} s", begun.elapsed().as_secs_f64());
    path
}

/// A hundred open live pages, on which nothing happens.
fn live(server: &Server) {
    let run = format!("/live/runs/{}", server.runs());
    let pages = ["/live/overview", "/live/workflows", "/live/runs", "/live/workflows/wide", &run];
    for path in pages.iter().cycle().take(100) {
        let mut stream = server.send("GET", path, "");
        std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    }
    server.calm(0.2);
    let load = server.load(Duration::from_secs(20));
    println!(
        "live       100 open live pages, idle   {:.2} % of a core (aim ≤ 5), {:.0} MiB",
        load * 100.0,
        server.memory("VmRSS")
    );
}

/// What is written to a log at once: little enough that who follows it need not leave out all of it.
const BLOCK: usize = 512 << 10;
/// After each block: with no pause the whole log would be written between two looks of the page.
const PACE: Duration = Duration::from_millis(2);

/// A log that grows to 1 GiB while a page follows it, and its download.
fn log() {
    let pipe = tempfile::tempdir().unwrap();
    let pipe = pipe.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = format!("workflow: big\ntasks:\n  write: {{run: 'read line < {}'}}\n", pipe.display());
    let server = Server::start(None, Some(&text));
    server.json("POST", "/api/v2/dags/big/dagRuns", &json!({ "logical_date": null }).to_string());
    let file = loop {
        match find(&server.data.path().join("runs/1/attempts"), "log") {
            Some(file) => break file,
            None => pause(Duration::from_millis(20)),
        }
    };
    // Once around, so that what is only needed once is there.
    drop(server.send("GET", "/runs/1", ""));
    let mut follower = BufReader::new(server.send("GET", "/live/logs/1/write/-1/1", ""));
    pause(Duration::from_secs(1));
    server.forget_peak();
    let before = server.memory("VmRSS");
    let follows = std::thread::spawn(move || {
        let (mut line, mut bytes) = (Vec::new(), 0);
        while follower.read_until(b'\n', &mut line).unwrap() > 0 && !line.starts_with(b"event: end") {
            bytes += line.len();
            line.clear();
        }
        bytes
    });
    let mut file = File::options().append(true).open(file).unwrap();
    let record = format!("1767225600000000 o0 {}\n", "a line of a log that grows and grows ".repeat(4));
    let block = record.repeat(BLOCK / record.len());
    let mut written = 0;
    while written < 1 << 30 {
        file.write_all(block.as_bytes()).unwrap();
        pause(PACE);
        written += block.len();
    }
    let following = server.memory("VmHWM") - before;
    let loaded = std::io::copy(&mut server.send("GET", "/logs/1/write/-1/1", ""), &mut std::io::sink()).unwrap();
    let loading = server.memory("VmHWM") - before;
    File::options().write(true).open(&pipe).unwrap().write_all(b"go\n").unwrap();
    let followed = follows.join().unwrap() as f64 / f64::from(1 << 20);
    println!(
        "log        following a 1 GiB log       {following:.1} MiB more (aim ≤ 20), {followed:.0} MiB sent; with its \
         download of {} MiB {loading:.1} MiB more",
        loaded >> 20,
    );
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|word| word == name);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load before {}", load.split_whitespace().take(3).collect::<Vec<_>>().join(" "));
    let full = LazyCell::new(|| Server::start(Some(&database()), None));
    let figures: [(&str, &dyn Fn()); 4] = [
        ("first_byte", &|| first_byte::measure(&full)),
        ("grid", &|| grid::measure(&full)),
        ("live", &|| live(&full)),
        ("log", &log),
    ];
    for (_, figure) in figures.iter().filter(|(name, _)| is_asked(name)) {
        figure();
    }
}
