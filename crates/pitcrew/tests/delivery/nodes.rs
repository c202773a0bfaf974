//! Nodes over a real sshd, with an `nvidia-smi` there that prints what real ones print.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{World, text};
use crate::sshd::{Sshd, keygen};

const BOTH: &str = "0, GPU-a, Disabled, 81920, 4, 35, 312.50, 61, NVIDIA A100-SXM4-80GB\n\
                    1, GPU-b, Disabled, 81920, [N/A], [N/A], [N/A], 40, NVIDIA A100-SXM4-80GB\n";

/// A directory with an `nvidia-smi` that prints the file `rows` there, and ends with the number in `code`; where there is
/// a file `hang`, it never ends.
struct Fake(PathBuf);

impl Fake {
    fn new(dir: PathBuf) -> Fake {
        std::fs::create_dir(&dir).unwrap();
        let fake = Fake(dir);
        fake.prints(BOTH, 0);
        let script = format!(
            "#!/bin/sh\ncd '{}'\n[ -e hang ] && exec tail -f /dev/null\ncat rows\nexit \"$(cat code)\"\n",
            fake.0.display()
        );
        // By a process of its own, so that no other one has it open for writing when it is run.
        let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let written = Command::new("/bin/sh").args(["-c", write]).arg(fake.0.join("nvidia-smi")).arg(script).status();
        assert!(written.unwrap().success());
        fake
    }

    fn prints(&self, rows: &str, code: i32) {
        std::fs::write(self.0.join("new"), rows).unwrap();
        std::fs::write(self.0.join("code"), code.to_string()).unwrap();
        std::fs::rename(self.0.join("new"), self.0.join("rows")).unwrap();
    }
}

fn connect(world: &World, sshd: &Sshd, key: &Path) {
    let user = text(&Command::new("whoami").output().unwrap());
    let (port, extra) = (sshd.port.to_string(), json!({ "key_file": key }).to_string());
    let host = ["connections", "add", "gpu", "--conn-type", "ssh", "--conn-host", "127.0.0.1", "--conn-port", &port];
    world.ok(&[&host[..], &["--conn-login", user.trim(), "--conn-extra", &extra]].concat());
}

fn node(world: &World) -> Value {
    world.json(&["nodes", "show", "s21", "--output", "json"])
}

fn faults(node: &Value) -> Vec<String> {
    let gpus = node["gpus"].as_array().unwrap().iter();
    gpus.map(|gpu| gpu["fault"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_what_it_has_and_what_becomes_of_it() {
    let mut world = World::new();
    let fake = Fake::new(world.path("smi"));
    let sshd = Sshd::start(&format!("SetEnv SHLVL=1 PATH={}:/usr/bin:/bin", fake.0.display())).await;
    let key = world.path("key");
    keygen(&key, "ed25519", "");
    sshd.admit(&key);
    let config =
        "nodes:\n- name: s21\n  connection: gpu\n  labels: {rack: a1}\n  taints: [nvidia.com/gpu: NoSchedule]\n";
    std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
    world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
    connect(&world, &sshd, &key);
    assert_eq!(node(&world)["standing"], "down", "nobody has asked it yet");

    let mut server = world.serve();
    world.wait("the node is asked", || node(&world)["standing"] == "ready");
    let found = node(&world);
    assert_eq!((&found["labels"]["gpu-type"], &found["labels"]["gpu-count"]), (&json!("nvidia-a100"), &json!("2")));
    assert_eq!((&found["gpus"][0]["id"], &found["gpus"][0]["memory_mib"]), (&json!("GPU-a"), &json!(81920)));
    assert!(found["cpu"].as_f64().unwrap() >= 1.0 && found["memory_mib"].as_u64().unwrap() > 16, "{found}");
    assert_eq!(faults(&found), ["", ""]);

    // What people do is there for whoever comes next.
    world.ok(&["nodes", "label", "s21", "rack-", "team=vision"]);
    world.ok(&["nodes", "taint", "s21", "nvidia.com/gpu-", "old=yes:NoExecute"]);
    assert!(world.ok(&["nodes", "drain", "s21", "--timeout", "60s"]).contains("is drained"));
    server.kill();
    let _server = world.serve();
    world.wait("the next server serves", || world.run(&["dags", "list"]).status.success());
    let found = node(&world);
    assert_eq!((&found["standing"], &found["taints"]), (&json!("cordoned"), &json!(["old=yes:NoExecute"])));
    assert_eq!((&found["labels"]["team"], &found["labels"]["rack"]), (&json!("vision"), &Value::Null));
    world.ok(&["nodes", "uncordon", "s21"]);

    // One is gone; then the driver says so itself; then all is well.
    fake.prints(BOTH.lines().next().unwrap(), 0);
    world.wait("a lost GPU is noticed", || faults(&node(&world))[1].contains("does not report it any more"));
    assert_eq!((&node(&world)["standing"], faults(&node(&world))[0].as_str()), (&json!("ready"), ""));
    fake.prints("Unable to determine the device handle for GPU 0000:9B:00.0: GPU is lost.", 15);
    world.wait("a failing driver is noticed", || faults(&node(&world)).iter().all(|f| f.contains("ended with 15")));
    fake.prints(&BOTH.replace("[N/A], 40", "[GPU requires reset], 40"), 0);
    world.wait("a sick GPU is noticed", || faults(&node(&world)) == ["", "it requires a reset"]);
    fake.prints(BOTH, 0);
    world.wait("both are well", || faults(&node(&world)) == ["", ""]);

    // A driver that hangs takes the node down, within its deadline.
    std::fs::write(fake.0.join("hang"), "").unwrap();
    world.wait("a hang is noticed", || node(&world)["standing"] == "down");
    let reason = node(&world)["reason"].to_string();
    assert!(reason.contains("`nvidia-smi` does not answer within 20 s"), "{reason}");
    std::fs::remove_file(fake.0.join("hang")).unwrap();
    world.wait("it answers again", || node(&world)["standing"] == "ready" && faults(&node(&world)) == ["", ""]);
}

/// Lines of the file.
fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_placement_sent_to_a_host_is_drained_runs_again_and_tells_what_its_gpu_did() {
    let mut world = World::new();
    let fake = Fake::new(world.path("smi"));
    let sshd = Sshd::start(&format!("SetEnv SHLVL=1 PATH={}:/usr/bin:/bin", fake.0.display())).await;
    let key = world.path("key");
    keygen(&key, "ed25519", "");
    sshd.admit(&key);
    std::fs::write(world.path("pitcrew.yaml"), "nodes:\n- {name: s21, connection: gpu}\n").unwrap();
    world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
    connect(&world, &sshd, &key);
    let (begun, go) = (world.path("begun"), world.path("go"));
    let run =
        format!("echo $CUDA_VISIBLE_DEVICES >> {}; until [ -e {} ]; do sleep 0.1; done", begun.display(), go.display());
    world.workflow(
        "train",
        &format!(
            "workflow: train\ntasks:\n  train: {{resources: {{gpu: 1}}, run: '{run}'}}\n  \
             told: {{uses: report, needs: [train]}}\n"
        ),
    );
    let _server = world.serve();
    world.wait("the node is asked", || {
        world.run(&["nodes", "list"]).status.success() && node(&world)["standing"] == "ready"
    });
    world.wait("it is known", || world.run(&["dags", "trigger", "train"]).status.success());
    world.wait("it runs on the host", || lines(&begun) == 1);
    world.wait("the node knows it", || node(&world)["tasks"].as_array().is_some_and(|tasks| tasks.len() == 1));

    // It is stopped at once, and waits for a node; there is no other one with a GPU.
    let said = world.ok(&["nodes", "drain", "s21", "--repeat", "--timeout", "60s"]);
    assert!(said.contains("waiting for 1 task") && said.contains("is drained"), "{said}");
    assert_eq!(node(&world)["standing"], "cordoned");
    assert_eq!(node(&world)["tasks"], json!([]));
    // Where the server had not noticed the cordon yet, it began there once more.
    let before = lines(&begun);
    world.ok(&["nodes", "uncordon", "s21"]);
    world.wait("it runs again", || lines(&begun) > before);
    assert!(std::fs::read_to_string(&begun).unwrap().lines().all(|line| line.starts_with("GPU-")));

    // What the node tells while it runs becomes what the attempt used.
    let rows = BOTH.replace(", 4, 35,", ", 2048, 60,").replace("[N/A], [N/A], [N/A]", "2048, 60, 312.50");
    fake.prints(&rows, 0);
    let seen = |gpu: &Value| gpu["use_percent"] == 60.0;
    let log = std::fs::read_to_string(world.path("server.log")).unwrap();
    let url = log.lines().find_map(|line| line.trim().strip_prefix("pages")).unwrap().trim().to_owned();
    // What devices do just now only the server knows.
    world.wait("the node tells of its use", || {
        let node = world.json(&["--server", &url, "nodes", "show", "s21", "--output", "json"]);
        node["gpus"].as_array().unwrap().iter().all(seen)
    });
    std::fs::write(&go, "").unwrap();
    let mut report = Value::Null;
    world.wait("the report is there", || {
        let file = world.files_named("report.json").into_iter().next();
        let text = file.and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        report = serde_json::from_slice(&text).unwrap_or_default();
        !report.is_null()
    });
    let text = report.to_string();
    assert!(text.contains("\"max_utilization_percent\":60.0"), "{text}");
    assert!(text.contains(&format!("\"max_memory_bytes\":{}", 2048_u64 << 20)), "{text}");
}
