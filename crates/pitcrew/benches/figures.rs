//! The figures of `docs/PERFORMANCE.md`, measured on the real binary: `cargo bench -p pitcrew --bench figures [NAME…]`.
//!
//! Each figure is a ratio made in one run, or a rate with its own yardstick beside it, because machines differ and are
//! noisy. Nothing here passes or fails; it prints.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn pause(by: Duration) {
    std::thread::sleep(by);
}

struct Bench {
    dir: tempfile::TempDir,
    number: std::cell::Cell<u32>,
}

impl Bench {
    fn pitcrew(&self, data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.env("PITCREW_DATA_DIR", data).env("NO_COLOR", "1").env_remove("PITCREW_STORE").stdin(Stdio::null());
        command
    }

    fn fresh(&self) -> PathBuf {
        self.number.set(self.number.get() + 1);
        let dir = self.dir.path().join(format!("data{}", self.number.get()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Seconds of one `pitcrew run` in a fresh data directory, with its JSON document.
    fn run(&self, file: &Path, more: &[&str]) -> (f64, Value) {
        let data = self.fresh();
        let begun = now();
        let out = self.pitcrew(&data).arg("run").arg(file).args(["--output", "json"]).args(more).output().unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        (seconds, serde_json::from_str(&text).expect("one JSON document"))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p).round() as usize]
}

/// 40 chained Python tasks against the same commands in a bare shell loop.
fn chain(bench: &Bench) {
    let python = "python3 -c 'f=lambda n: n if n<2 else f(n-1)+f(n-2); f(10)'";
    let mut text = String::from("workflow: chain\ntasks:\n");
    for i in 0..40 {
        let needs = if i == 0 { String::new() } else { format!("    needs: [t{}]\n", i - 1) };
        text.push_str(&format!("  t{i}:\n{needs}    run: |\n      {python}\n"));
    }
    let file = bench.file("chain.yaml", &text);
    let script = bench.file("loop.sh", &format!("for i in $(seq 40); do {python}; done\n"));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let begun = now();
        assert!(Command::new("sh").arg(&script).status().unwrap().success());
        bare.push(begun.elapsed().as_secs_f64());
        ours.push(bench.run(&file, &[]).0);
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "chain      40 chained python tasks   {ours:.3} s, bare shell loop {bare:.3} s: {:.2} × (aim ≤ 1.2)",
        ours / bare
    );
}

fn independent(count: usize, work: &str, backend: &str) -> String {
    let mut text = format!("workflow: independent\ndefaults: {{backend: {backend}}}\ntasks:\n");
    for i in 0..count {
        text.push_str(&format!("  t{i}: {work}\n"));
    }
    text
}

fn hundred(bench: &Bench) {
    let file = bench.file("hundred.yaml", &independent(100, "{run: 'true'}", "local"));
    let script = bench.file("hundred.sh", "for i in $(seq 100); do sh -c true & done; wait\n");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let begun = now();
        assert!(Command::new("sh").arg(&script).status().unwrap().success());
        bare.push(begun.elapsed().as_secs_f64());
        ours.push(bench.run(&file, &[]).0);
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "hundred    100 independent `true`    {ours:.3} s (aim ≤ 0.5), 100 bare shells {bare:.3} s: {:.1} ×",
        ours / bare
    );
}

fn thousands(bench: &Bench) {
    let count = 5_000;
    let file = bench.file("thousands.yaml", &independent(count, "{run: 'true'}", "local"));
    let script = bench.file("thousands.sh", "i=0; while [ $i -lt 5000 ]; do sh -c true; i=$((i+1)); done\n");
    let begun = now();
    assert!(Command::new("sh").arg(&script).status().unwrap().success());
    let bare = begun.elapsed().as_secs_f64();
    let rates: Vec<f64> = (0..3).map(|_| count as f64 / bench.run(&file, &[]).0).collect();
    let rate = median(rates);
    println!(
        "thousands  5,000 independent `true`  {rate:.0} tasks/s (aim ≥ 500), bare shells one after another {:.0}/s: {:.2} ×",
        count as f64 / bare,
        rate * bare / count as f64
    );
}

fn noop(bench: &Bench) {
    let count = 20_000;
    let file = bench.file("noop.yaml", &independent(count, "{}", "local"));
    let empty = bench.file("one.yaml", &independent(1, "{}", "local"));
    let base = median((0..5).map(|_| bench.run(&empty, &[]).0).collect());
    let took = median((0..3).map(|_| bench.run(&file, &[]).0).collect());
    println!(
        "noop       20,000 tasks, no process  {:.0} tasks/s (aim ≥ 5,000; {took:.2} s, a run of one task {base:.3} s)",
        count as f64 / (took - base)
    );
    let chain: String =
        (1..5_000).map(|i| format!("  t{i}: {{needs: [t{}], backend: fake, run: x}}\n", i - 1)).collect();
    let file = bench.file("fake.yaml", &format!("workflow: fake\ntasks:\n  t0: {{backend: fake, run: x}}\n{chain}"));
    let took = median((0..3).map(|_| bench.run(&file, &[]).0).collect());
    println!("           5,000 chained attempts on the fake backend: {:.0} tasks/s", 5_000.0 / (took - base));
}

fn latency(bench: &Bench) {
    let chain: String = (1..400).map(|i| format!("  t{i}: {{needs: [t{}], run: 'true'}}\n", i - 1)).collect();
    let file = bench.file("latency.yaml", &format!("workflow: latency\ntasks:\n  t0: {{run: 'true'}}\n{chain}"));
    let (_, document) = bench.run(&file, &[]);
    let time = |task: &Value, key: &str| -> f64 {
        let at: jiff::Timestamp = task[key].as_str().expect("a time").parse().unwrap();
        at.as_nanosecond() as f64 / 1e6
    };
    let mut tasks: Vec<&Value> = document["tasks"].as_array().unwrap().iter().collect();
    tasks.sort_by(|a, b| time(a, "start").total_cmp(&time(b, "start")));
    let mut gaps: Vec<f64> = tasks.windows(2).map(|pair| time(pair[1], "start") - time(pair[0], "end")).collect();
    gaps.sort_by(f64::total_cmp);
    println!(
        "latency    upstream end → start      p50 {:.2} ms (aim ≤ 5), p99 {:.2} ms (aim ≤ 50), over {} pairs",
        percentile(&gaps, 0.5),
        percentile(&gaps, 0.99),
        gaps.len()
    );
}

/// The high-water mark of a process's memory, in MiB.
fn peak_memory(child: &Child) -> f64 {
    status_kib(child, "VmHWM:") / 1024.0
}

fn status_kib(child: &Child, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

fn huge(bench: &Bench) {
    let mut text = String::from("workflow: huge\ntasks:\n");
    for i in 0..100_000 {
        let needs = if i < 1_000 { String::new() } else { format!("needs: [t{}], ", i - 1_000) };
        text.push_str(&format!("  t{i}: {{{needs}run: 'echo {i}'}}\n"));
    }
    let file = bench.file("huge.yaml", &text);
    let begun = now();
    assert!(bench.pitcrew(&bench.fresh()).arg("validate").arg(&file).output().unwrap().status.success());
    let validate = begun.elapsed().as_secs_f64();
    let mut starts = Vec::new();
    let mut memory: f64 = 0.0;
    for _ in 0..3 {
        let data = bench.fresh();
        let begun = now();
        let mut child =
            bench.pitcrew(&data).arg("run").arg(&file).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // The first attempt directory is the first start; the output follows a moment later.
        let attempts = data.join("runs/1/attempts");
        while !attempts.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing started");
            pause(Duration::from_millis(2));
        }
        starts.push(begun.elapsed().as_secs_f64());
        memory = memory.max(peak_memory(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        stop_runner(&data);
    }
    println!(
        "huge       100,000 tasks             first start {:.2} s (aim ≤ 3), {memory:.0} MiB (aim ≤ 600); `validate` alone {validate:.2} s",
        median(starts)
    );
}

/// The attempts of a killed run would go on, as they should; a benchmark cleans up.
fn stop_runner(data: &Path) {
    let proc = std::fs::read_dir("/proc").unwrap().flatten();
    for entry in proc {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("internal\0runner") && line.contains(&*data.to_string_lossy()) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    }
}

fn idle(bench: &Bench) {
    let data = bench.fresh();
    let folder = bench.dir.path().join("folder");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("one.yaml"), independent(3, "{run: 'true'}", "local")).unwrap();
    let begun = now();
    let mut child = bench
        .pitcrew(&data)
        .args(["server", "--no-auth", "--listen", "127.0.0.1:0", "--workflows"])
        .arg(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| {
        line.split_whitespace()
            .find(|word| word.starts_with("http://"))
            .map(|word| word.trim_end_matches('/').to_owned())
    });
    let address = address.expect("the server prints its address").replace("http://", "");
    std::thread::spawn(move || lines.for_each(drop));
    while std::net::TcpStream::connect(&address).is_err() {
        pause(Duration::from_millis(1));
    }
    let ready = begun.elapsed().as_secs_f64();
    // Let what belongs to the start be over; then look for twenty seconds.
    pause(Duration::from_secs(5));
    let cpu = |child: &Child| -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    };
    let files = || -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        let mut found: Vec<_> = std::fs::read_dir(&data)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("pitcrew.db"))
            .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"))
            .map(|entry| entry.metadata().map(|meta| (entry.path(), meta.len(), meta.modified().unwrap())).unwrap())
            .collect();
        found.sort();
        found
    };
    let (cpu_before, files_before) = (cpu(&child), files());
    pause(Duration::from_secs(20));
    let used = cpu(&child) - cpu_before;
    let written = if files() == files_before { "no" } else { "SOME" };
    let resident = status_kib(&child, "VmRSS:") / 1024.0;
    println!(
        "idle       server                    ready {ready:.3} s (aim ≤ 0.3), {resident:.0} MiB (aim ≤ 40), {:.2} % of a core, {written} database writes in 20 s",
        used / 20.0 * 100.0
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let bench = Bench { dir: tempfile::tempdir().unwrap(), number: std::cell::Cell::new(0) };
    let all: [(&str, fn(&Bench)); 7] = [
        ("chain", chain),
        ("hundred", hundred),
        ("thousands", thousands),
        ("noop", noop),
        ("latency", latency),
        ("huge", huge),
        ("idle", idle),
    ];
    for (name, figure) in all {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            figure(&bench);
        }
    }
}
