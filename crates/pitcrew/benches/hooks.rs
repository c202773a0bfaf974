//! The figures of webhooks in `docs/PERFORMANCE.md`, on the real binary: `cargo bench --profile release -p pitcrew --bench
//! hooks [-- SECONDS]`; on PostgreSQL too where `PITCREW_BENCH_POSTGRES` names an empty database.
//!
//! Nothing here passes or fails; it prints. The load is open: 25 events a second begin when their time has come, whether
//! earlier ones were answered or not. Each is a signed push of 10 KiB; of one in ten the branch fits, and it starts a run.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use ring::hmac;
use serde_json::{Value, json};

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

const PER_SECOND: u32 = 25;
const SIZE: usize = 10 << 10;
const KEY: &str = "the-key-of-the-benchmark";
const TRIGGERS: &str = r#"
apiVersion: triggers.tekton.dev/v1beta1
kind: EventListener
metadata: {name: forge}
spec:
  triggers:
    - name: push
      interceptors:
        - ref: {name: github}
          params:
            - {name: secretRef, value: {secretName: hook, secretKey: token}}
            - {name: eventTypes, value: [push]}
        - ref: {name: cel}
          params: [{name: filter, value: "body.ref == 'refs/heads/main'"}]
      bindings: [{name: commit, value: $(body.after)}]
      template:
        spec:
          params: [{name: commit}]
          resourcetemplates:
            - apiVersion: tekton.dev/v1
              kind: TaskRun
              metadata: {generateName: push-}
              spec:
                taskSpec: {steps: [{name: a, image: busybox, script: "echo $(tt.params.commit)"}]}
---
apiVersion: v1
kind: Secret
metadata: {name: hook}
stringData: {token: the-key-of-the-benchmark}
"#;

struct Bench {
    dir: tempfile::TempDir,
    server: Option<Child>,
    url: String,
    store: Option<String>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Bench {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(args).current_dir(self.dir.path()).env("PITCREW_DATA_DIR", self.dir.path().join("data"));
        command.env("PITCREW_GPUS", "0").env_remove("PITCREW_STORE").stdin(Stdio::null());
        command.envs(self.store.iter().map(|store| ("PITCREW_STORE", store)));
        command
    }

    async fn start(store: Option<String>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("workflows")).unwrap();
        std::fs::write(dir.path().join("triggers.yaml"), TRIGGERS).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut bench = Bench { dir, server: None, url: format!("http://127.0.0.1:{port}"), store };
        let applied = bench.command(&["apply", "-f", "triggers.yaml"]).output().unwrap();
        assert!(applied.status.success(), "{applied:?}");
        let listen = format!("127.0.0.1:{port}");
        let mut server = bench.command(&["server", "--no-auth", "--workflows", "workflows", "--listen", &listen]);
        bench.server = Some(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = now();
        while Client::new().get(format!("{}/api/v2/version", bench.url)).send().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bench
    }

    /// Deliveries by state.
    async fn count(&self, state: &str) -> u64 {
        let url = format!("{}/api/pitcrew/v1/deliveries?limit=1&state={state}", self.url);
        let answer: Value = Client::new().get(url).send().await.unwrap().json().await.unwrap();
        answer["total_entries"].as_u64().unwrap()
    }
}

fn event(n: u32) -> (Vec<u8>, String) {
    let branch = if n.is_multiple_of(10) { "main" } else { "other" };
    let mut body = json!({
        "ref": format!("refs/heads/{branch}"), "after": format!("{n:040x}"),
        "repository": {"full_name": "acme/app"}, "commits": [],
    });
    let filler = SIZE - body.to_string().len();
    body["filler"] = json!("x".repeat(filler.saturating_sub(13)));
    let body = body.to_string().into_bytes();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()), &body);
    let signature = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    (body, format!("sha256={signature}"))
}

async fn measure(name: &str, store: Option<String>, seconds: u32) {
    let bench = Bench::start(store).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let total = PER_SECOND * seconds;
    let begun = now();
    let mut posts = tokio::task::JoinSet::new();
    for n in 0..total {
        let due = begun + Duration::from_secs(1) * n / PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        let (body, signature) = event(n);
        let request = client
            .post(format!("{}/hooks/default/forge", bench.url))
            .header("x-github-event", "push")
            .header("x-hub-signature-256", signature)
            .header("content-type", "application/json")
            .body(body);
        posts.spawn(async move {
            // From when it was due: what waits for its turn counts.
            let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
            (due.elapsed(), status)
        });
    }
    let mut took = Vec::new();
    let mut refused = 0;
    while let Some(done) = posts.join_next().await {
        let (elapsed, status) = done.unwrap();
        took.push(elapsed);
        refused += u32::from(status != 202);
    }
    let posted = begun.elapsed();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    let waiting = bench.count("waiting").await;
    while bench.count("waiting").await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{name}: {total} events of {} KiB in {:.1} s ({:.0}/min), {refused} not accepted; answered after p50 {:.1} ms, p95 \
         {:.1} ms, p99 {:.1} ms, at most {:.1} ms; {waiting} waited at the end, none {:.1} s after the last",
        SIZE >> 10,
        posted.as_secs_f64(),
        f64::from(total) / posted.as_secs_f64() * 60.0,
        at(50),
        at(95),
        at(99),
        at(100),
        (begun.elapsed() - posted).as_secs_f64(),
    );
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(60);
    measure("SQLite", None, seconds).await;
    if let Ok(url) = std::env::var("PITCREW_BENCH_POSTGRES") {
        measure("PostgreSQL", Some(url), seconds).await;
    }
}
