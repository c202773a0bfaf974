//! What a TaskRun costs beside its script, and how many PipelineRuns at once behave, in the sandbox on a warm server of the
//! real binary: `cargo bench --profile release -p pitcrew --bench tekton [-- hello|many]`, as root. `-- many 25 400` picks numbers
//! of runs.
//!
//! Times are those that the API tells of runs: from the moment that a run begins to its end; of many at once, from the first
//! that was asked for to the last that ended. It prints; nothing here passes or fails.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn pause(by: Duration) {
    std::thread::sleep(by);
}

const HELLOS: usize = 50;
const AT_ONCE: [usize; 4] = [25, 50, 100, 200];
const PATIENCE: Duration = Duration::from_secs(600);

const SCRIPT: &str = "#!/bin/sh\nset -e\necho Hello, World!\n";

const TASK: &str = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: hello}\nspec:\n  steps:\n  - name: echo\n    \
                    image: busybox\n    script: |\n      #!/bin/sh\n      set -e\n      echo Hello, World!\n";
const TASK_RUN: &str =
    "---\napiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {generateName: hello-}\nspec: {taskRef: {name: hello}}\n";
const PIPELINE: &str = "---\napiVersion: tekton.dev/v1\nkind: Pipeline\nmetadata: {name: pair}\nspec:\n  tasks:\n  \
                        - {name: first, taskRef: {name: hello}}\n  \
                        - {name: second, runAfter: [first], taskRef: {name: hello}}\n";
const PIPELINE_RUN: &str = "---\napiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {generateName: pair-}\nspec: {pipelineRef: \
                            {name: pair}}\n";

struct Bench {
    dir: tempfile::TempDir,
    server: Child,
    url: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        stop_runner(self.dir.path());
    }
}

/// What was killed leaves its runner, which a later server would find.
fn stop_runner(data: &Path) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("internal\0runner") && line.contains(&*data.to_string_lossy()) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    }
}

/// When a run was asked for, began, and ended.
struct Times {
    asked: Timestamp,
    began: Timestamp,
    ended: Timestamp,
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

impl Bench {
    fn start() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("workflows")).unwrap();
        let mut server = pitcrew(dir.path())
            .args(["server", "--no-auth", "--listen", "127.0.0.1:0", "--workflows"])
            .arg(dir.path().join("workflows"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| {
            let word = line.split_whitespace().find(|word| word.starts_with("http://"))?;
            Some(word.trim_end_matches('/').to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        let url = url.expect("the server prints its address");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Bench { dir, server, url, client, runtime }
    }

    fn apply(&self, text: &str) {
        let file = self.dir.path().join("apply.yaml");
        std::fs::write(&file, text).unwrap();
        let done = pitcrew(self.dir.path()).arg("apply").arg("-f").arg(&file).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// All runs of a workflow, in the order in which they were asked for.
    fn runs(&self, workflow: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let path =
                format!("{}/api/v2/dags/{workflow}/dagRuns?limit=100&offset={}&order_by=id", self.url, all.len());
            let page: Value = self.runtime.block_on(async {
                let answer = self.client.get(path).send().await.unwrap();
                answer.json().await.unwrap_or_default()
            });
            let rows = page["dag_runs"].as_array().cloned().unwrap_or_default();
            let is_last = rows.len() < 100;
            all.extend(rows);
            if is_last {
                return all;
            }
        }
    }

    /// Waits until so many runs are over; all must have succeeded.
    fn over(&self, workflow: &str, count: usize, look: Duration) -> Vec<Times> {
        let begun = now();
        loop {
            let runs = self.runs(workflow);
            let is_over = |run: &&Value| run["end_date"].is_string();
            if runs.iter().filter(is_over).count() >= count {
                let time = |run: &Value, key: &str| -> Timestamp { run[key].as_str().unwrap().parse().unwrap() };
                return runs
                    .iter()
                    .map(|run| {
                        assert_eq!(run["state"], "success", "{run:#}");
                        let [asked, began, ended] = ["queued_at", "start_date", "end_date"].map(|key| time(run, key));
                        Times { asked, began, ended }
                    })
                    .collect();
            }
            assert!(begun.elapsed() < PATIENCE, "{} runs, and not all are over", runs.len());
            pause(look);
        }
    }
}

fn pitcrew(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    command.env("PITCREW_DATA_DIR", data.join("data")).env("PITCREW_GPUS", "0").env("NO_COLOR", "1");
    command.env_remove("PITCREW_STORE").stdin(Stdio::null());
    command
}

/// One after the other.
fn hello() {
    let bench = Bench::start();
    let script = bench.dir.path().join("hello.sh");
    std::fs::write(&script, SCRIPT).unwrap();
    let mut bare = Vec::new();
    for _ in 0..HELLOS {
        let begun = now();
        assert!(Command::new("sh").arg(&script).stdout(Stdio::null()).status().unwrap().success());
        bare.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    bare.sort_by(f64::total_cmp);
    let own = percentile(&bare, 0.5);
    bench.apply(&format!("{TASK}{TASK_RUN}"));
    // The first one starts the runner.
    bench.over("task.hello", 1, Duration::from_millis(5));
    for done in 1..=HELLOS {
        bench.apply(TASK_RUN.trim_start_matches("---\n"));
        bench.over("task.hello", done + 1, Duration::from_millis(5));
    }
    let times = bench.over("task.hello", HELLOS + 1, Duration::ZERO);
    let sorted = |from: fn(&Times) -> Timestamp| {
        let mut all: Vec<f64> = times.iter().skip(1).map(|one| seconds(from(one), one.ended) * 1e3 - own).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let (begun, asked) = (sorted(|one| one.began), sorted(|one| one.asked));
    println!(
        "hello      {HELLOS} TaskRuns one by one   p50 {:.1} ms, p95 {:.1} ms beyond the bare script's {own:.1} ms (aim ≤ 50); from \
         asking to end p50 {:.1} ms",
        percentile(&begun, 0.5),
        percentile(&begun, 0.95),
        percentile(&asked, 0.5)
    );
}

/// All at once, each number of them on a server of its own.
fn many(counts: &[usize]) {
    let mut first = None;
    for count in counts {
        let bench = Bench::start();
        bench.apply(&format!("{TASK}{PIPELINE}{PIPELINE_RUN}"));
        bench.over("pair", 1, Duration::from_millis(20));
        bench.apply(PIPELINE_RUN.repeat(*count).trim_start_matches("---\n"));
        let mut times = bench.over("pair", count + 1, Duration::from_millis(200));
        times.remove(0);
        let asked = times.iter().map(|one| one.asked).min().unwrap();
        let whole = seconds(asked, times.iter().map(|one| one.ended).max().unwrap());
        let each = whole * 1e3 / *count as f64;
        let ratio = each / *first.get_or_insert(each);
        // A run is overtaken by one that was asked for later and ended earlier.
        let overtaken = |at: usize| times[at..].iter().filter(|other| other.ended < times[at].ended).count();
        let most = (0..times.len()).map(overtaken).max().unwrap_or(0);
        let mut took: Vec<f64> = times.iter().map(|one| seconds(one.began, one.ended)).collect();
        took.sort_by(f64::total_cmp);
        println!(
            "many       {count:>4} runs of 2 tasks      {whole:.2} s, {each:.1} ms per run: {ratio:.2} × that of the first line (aim 0.85 to \
             1.15); one run p50 {:.2} s, longest {:.2} s; overtaken by at most {most}",
            percentile(&took, 0.5),
            percentile(&took, 1.0)
        );
    }
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let numbers: Vec<usize> = asked.iter().filter_map(|word| word.parse().ok()).collect();
    let names: Vec<&String> = asked.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|word| *word == name);
    if wanted("hello") {
        hello();
    }
    if wanted("many") {
        many(if numbers.is_empty() { &AT_ONCE } else { &numbers });
    }
}
