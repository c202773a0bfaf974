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
