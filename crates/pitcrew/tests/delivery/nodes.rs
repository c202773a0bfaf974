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
        Fake::of(dir, BOTH)
    }

    fn of(dir: PathBuf, rows: &str) -> Fake {
        std::fs::create_dir(&dir).unwrap();
        let fake = Fake(dir);
        fake.prints(rows, 0);
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
    connect_as(world, "gpu", sshd, key);
}

fn connect_as(world: &World, id: &str, sshd: &Sshd, key: &Path) {
    connect_at(world, id, "127.0.0.1", sshd, key);
}

fn connect_at(world: &World, id: &str, address: &str, sshd: &Sshd, key: &Path) {
    let user = text(&Command::new("whoami").output().unwrap());
    let (port, extra) = (sshd.port.to_string(), json!({ "key_file": key }).to_string());
    let host = ["connections", "add", id, "--conn-type", "ssh", "--conn-host", address, "--conn-port", &port];
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

/// The states of a run's tasks, and what is said of the run's end.
fn shown(world: &World, run: &str) -> (Vec<String>, String) {
    let shown = world.json(&["runs", "show", run, "--output", "json"]);
    let tasks = shown["tasks"].as_array().unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (tasks.iter().map(|row| text(row, "state")).collect(), tasks.iter().map(|row| text(row, "message")).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_for_hosts_take_devices_of_the_nodes_that_these_are() {
    let mut world = World::new();
    let key = world.path("key");
    keygen(&key, "ed25519", "");
    let other = BOTH.lines().next().unwrap().replace("GPU-a", "GPU-c");
    let fakes = [Fake::new(world.path("smi")), Fake::of(world.path("smi2"), &other)];
    let mut sshds = Vec::new();
    for (fake, id) in fakes.iter().zip(["gpu", "gpu2"]) {
        let sshd = Sshd::start(&format!("SetEnv SHLVL=1 PATH={}:/usr/bin:/bin", fake.0.display())).await;
        sshd.admit(&key);
        connect_as(&world, id, &sshd, &key);
        sshds.push(sshd);
    }
    let config = "nodes:\n- {name: s21, connection: gpu}\n- {name: s22, connection: gpu2}\n";
    std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
    world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
    let (begun, go) = (world.path("begun"), world.path("go"));
    let script = format!(
        "run: 'echo $CUDA_VISIBLE_DEVICES >> {}; until [ -e {}.$CUDA_VISIBLE_DEVICES ]; do sleep 0.1; done'",
        begun.display(),
        go.display()
    );
    let port = sshds[1].port;
    let tasks = [
        ("many", format!("backend: ssh, resources: {{gpu: 1}}, foreach: [1, 2, 3, 4], {script}")),
        ("both", "backend: ssh, resources: {gpu: 2}, run: 'echo $CUDA_VISIBLE_DEVICES'".to_owned()),
        ("named", "backend: {ssh: {connection: gpu2}}, resources: {gpu: 1}, run: 'echo $CUDA_VISIBLE_DEVICES'".into()),
        (
            "host",
            format!(
                "backend: {{ssh: {{host: 127.0.0.1, port: {port}, workdir: {}}}}}, resources: {{gpu: 1}}, \
                 run: 'pwd; echo $CUDA_VISIBLE_DEVICES'",
                world.path("there").display()
            ),
        ),
        ("never", "backend: {ssh: {connection: gpu2}}, resources: {gpu: 2}, run: x".to_owned()),
        ("nobody", "backend: {ssh: {host: gpu-9}}, resources: {gpu: 1}, run: x".to_owned()),
    ];
    for (name, task) in &tasks {
        world.workflow(name, &format!("workflow: {name}\ntasks:\n  t: {{{task}}}\n"));
    }
    let mut server = world.serve();
    let is_ready = |name: &str| world.json(&["nodes", "show", name, "--output", "json"])["standing"] == "ready";
    world.wait("both are asked", || {
        world.run(&["nodes", "list"]).status.success() && is_ready("s21") && is_ready("s22")
    });
    let trigger = |name: &str| {
        let mut run = String::new();
        world.wait("it is known", || {
            let said = world.run(&["dags", "trigger", name, "--output", "json"]);
            let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            run = answer["run_id"].as_str().unwrap_or_default().to_owned();
            !run.is_empty()
        });
        run
    };
    let over = |run: &str| {
        let is_over = |state: &str| ["success", "failed"].contains(&state);
        world.wait("it is over", || shown(&world, run).0.iter().all(|state| is_over(state)));
        shown(&world, run)
    };

    // What can never be is said at once, for the host that is meant.
    let (states, said) = over(&trigger("never"));
    assert_eq!(states, ["failed"]);
    assert!(said.contains("no node can ever take it") && said.contains("`s22`: 2 GPUs asked for"), "{said}");
    let (_, said) = over(&trigger("nobody"));
    assert!(said.contains("its labels do not meet `pitcrew/host = gpu-9`"), "{said}");

    // One device each, wherever there is one; the last one waits.
    let many = trigger("many");
    world.wait("three run", || lines(&begun) == 3);
    let devices = || {
        let text = std::fs::read_to_string(&begun).unwrap();
        let mut devices: Vec<String> = text.lines().map(str::to_owned).collect();
        devices.sort();
        devices
    };
    assert_eq!(devices(), ["GPU-a", "GPU-b", "GPU-c"]);
    let named = trigger("named");

    // The next server has them hold the same devices.
    server.kill();
    let _server = world.serve();
    world.wait("it serves", || world.run(&["dags", "list"]).status.success());
    let on = |node: &str| {
        let node = world.json(&["nodes", "show", node, "--output", "json"]);
        let tasks = node["tasks"].as_array().unwrap().iter();
        let mut held: Vec<String> =
            tasks.flat_map(|task| task["gpus"].as_array().unwrap()).map(Value::to_string).collect();
        held.sort();
        held
    };
    world.wait("it knows them", || on("s21").len() == 2 && on("s22").len() == 1);
    assert_eq!((on("s21"), on("s22")), (vec!["\"GPU-a\"".into(), "\"GPU-b\"".into()], vec!["\"GPU-c\"".to_owned()]));
    std::fs::write(world.path("go.GPU-b"), "").unwrap();
    world.wait("the last one takes what is given back", || lines(&begun) == 4);
    assert_eq!(devices(), ["GPU-a", "GPU-b", "GPU-b", "GPU-c"]);
    for device in ["GPU-a", "GPU-c"] {
        std::fs::write(world.path(&format!("go.{device}")), "").unwrap();
    }
    assert_eq!(over(&many).0, ["success"; 4]);
    assert_eq!(over(&named).0, ["success"]);
    assert!(world.ok(&["logs", &named]).contains("GPU-c"));

    // All is given back; what the task says of the host stands above what the connection says.
    let both = trigger("both");
    assert_eq!(over(&both).0, ["success"]);
    assert!(world.ok(&["logs", &both]).contains("GPU-a,GPU-b"));
    let host = trigger("host");
    assert_eq!(over(&host).0, ["success"]);
    let log = world.ok(&["logs", &host]);
    assert!(log.contains("GPU-c") && log.contains("there"), "{log}");
    assert_eq!((on("s21").len(), on("s22").len()), (0, 0));
}

/// A member of a gang, as it left its line: try, rank, count, peers, device, process.
fn members(file: &Path, attempt: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let mut members: Vec<_> = lines.filter(|words| words.len() == 6 && words[0] == attempt).collect();
    members.sort();
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_on_hosts_begins_as_one_ends_as_one_and_outlives_its_server() {
    let mut world = World::new();
    let key = world.path("key");
    keygen(&key, "ed25519", "");
    let rows = |device: &str| BOTH.lines().next().unwrap().replace("GPU-a", device);
    let mut sshds = Vec::new();
    for (id, address, device) in [("first", "127.0.0.1", "GPU-1"), ("second", "127.0.0.2", "GPU-2")] {
        let fake = Fake::of(world.path(&format!("smi-{id}")), &rows(device));
        let home = world.path(&format!("home-{id}"));
        std::fs::create_dir(&home).unwrap();
        let env = format!("SetEnv SHLVL=1 HOME={} PATH={}:/usr/bin:/bin", home.display(), fake.0.display());
        let sshd = Sshd::start(&format!("ListenAddress {address}\n{env}")).await;
        sshd.admit(&key);
        connect_at(&world, id, address, &sshd, &key);
        sshds.push(sshd);
    }
    let config = "nodes:\n- {name: s21, connection: first}\n- {name: s22, connection: second}\n";
    std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
    world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
    let [begun, fail, go] = ["begun", "fail", "go"].map(|name| world.path(name));
    let line = "$PITCREW_TRY $PITCREW_RANK $PITCREW_NODES $PITCREW_PEERS $CUDA_VISIBLE_DEVICES $$";
    world.workflow(
        "train",
        &format!(
            "workflow: train\ntasks:\n  train:\n    nodes: 2\n    resources: {{gpu: 1}}\n    retries: 1\n    retry_delay: 0s\n    \
             run: |\n      echo \"{line}\" >> {}\n      \
             [ $PITCREW_RANK$PITCREW_TRY = 11 ] && until [ -e {} ]; do sleep 0.1; done && exit 3\n      \
             until [ -e {} ]; do sleep 0.1; done\n      echo rank=$PITCREW_RANK >> \"$PITCREW_OUTPUT\"\n",
            begun.display(),
            fail.display(),
            go.display()
        ),
    );
    let mut server = world.serve();
    let is_ready = |name: &str| world.json(&["nodes", "show", name, "--output", "json"])["standing"] == "ready";
    world.wait("both are asked", || {
        world.run(&["nodes", "list"]).status.success() && is_ready("s21") && is_ready("s22")
    });
    let mut run = String::new();
    world.wait("it is known", || {
        let said = world.run(&["dags", "trigger", "train", "--output", "json"]);
        let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        run = answer["run_id"].as_str().unwrap_or_default().to_owned();
        !run.is_empty()
    });
    let told = |attempt: &str| -> Vec<String> {
        world.wait(&format!("both members of try {attempt} begin"), || members(&begun, attempt).len() == 2);
        members(&begun, attempt).into_iter().map(|words| words[1..5].join(" ")).collect()
    };
    let each = ["0 2 127.0.0.1,127.0.0.2 GPU-1", "1 2 127.0.0.1,127.0.0.2 GPU-2"];
    assert_eq!(told("1"), each);
    // One fails: its mate is ended there, and both begin anew.
    std::fs::write(&fail, "").unwrap();
    assert_eq!(told("2"), each);
    let runs = |words: &Vec<String>| Path::new("/proc").join(&words[5]).exists();
    assert!(!members(&begun, "1").iter().any(runs));
    // The server is killed; the next one finds both.
    server.kill();
    let _server = world.serve();
    world.wait("it serves", || world.run(&["dags", "list"]).status.success());
    assert!(members(&begun, "2").iter().all(runs));
    std::fs::write(&go, "").unwrap();
    world.wait("it is over", || shown(&world, &run).0.iter().all(|state| state == "success"));
    assert_eq!(shown(&world, &run).0.len(), 2);
    assert_eq!(lines(&begun), 4);
}

#[test]
fn what_was_granted_counts_after_a_restart_and_a_drain_leaves_alone_what_asked_for_no_node() {
    let mut world = World::new();
    let config = "nodes:\n- {name: here, sharing: {time_slicing: {replicas: 4}}, resources: {licence: 2}}\n";
    std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
    world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
    world.env.push(("PITCREW_GPUS", "1".to_owned()));
    let (begun, go) = (world.path("begun"), world.path("go"));
    let until = |name: &str| {
        format!("run: 'echo {name} >> {}; until [ -e {} ]; do sleep 0.1; done'", begun.display(), go.display())
    };
    for (name, task) in [
        ("long", format!("resources: {{gpu: '{{{{ var.share }}}}', licence: 2}}, {}", until("long"))),
        ("half", "resources: {gpu: 0.5}, run: 'true'".to_owned()),
        ("licensed", "resources: {licence: 1}, run: 'true'".to_owned()),
        ("unlicensed", "resources: {licence: 3}, run: 'true'".to_owned()),
        ("free", until("free")),
    ] {
        world.workflow(name, &format!("workflow: {name}\ntasks:\n  t: {{{task}}}\n"));
    }
    world.ok(&["variables", "set", "share", "0.75"]);
    let mut server = world.serve();
    let trigger = |name: &str| {
        let mut run = String::new();
        world.wait("it is known", || {
            let said = world.run(&["dags", "trigger", name, "--output", "json"]);
            let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            run = answer["run_id"].as_str().unwrap_or_default().to_owned();
            !run.is_empty()
        });
        run
    };
    let long = trigger("long");
    world.wait("it runs", || lines(&begun) == 1);
    assert!(world.ok(&["nodes", "show", "here"]).contains("licence: 2"));
    server.kill();
    // What the task would ask for now is less than what it has.
    world.ok(&["variables", "set", "share", "0.25"]);
    let _server = world.serve();
    let (half, licensed, never) = (trigger("half"), trigger("licensed"), trigger("unlicensed"));
    let why = |run: &str| text(&world.run(&["explain", run, "t"]));
    world.wait("there is no half of the GPU", || why(&half).contains("none of its 1 has as much free"));
    world.wait("there is no licence", || why(&licensed).contains("1 of `licence` are asked for and 0 are free"));
    world.wait("there never are as many", || shown(&world, &never).0 == ["failed"]);
    assert!(
        shown(&world, &never).1.contains("3 of `licence` are asked for and 2 are free"),
        "{:?}",
        shown(&world, &never)
    );

    // One that asked for nothing is on this machine whether it takes work or not.
    let free = trigger("free");
    world.wait("it runs as well", || lines(&begun) == 2);
    let node = || world.json(&["nodes", "show", "here", "--output", "json"]);
    let placed = || {
        let node = node();
        let mut all: Vec<bool> =
            node["tasks"].as_array().unwrap().iter().map(|task| task["is_placed"] == true).collect();
        all.sort_unstable();
        all
    };
    world.wait("the node knows both", || placed() == [false, true]);
    let said = world.ok(&["nodes", "drain", "here", "--repeat", "--timeout", "120s"]);
    assert!(said.contains("is drained") && said.contains("1 task that asked for no node"), "{said}");
    assert_eq!(placed(), [false]);
    std::fs::write(&go, "").unwrap();
    world.wait("it ends by itself", || shown(&world, &free).0 == ["success"]);
    let begins = std::fs::read_to_string(&begun).unwrap();
    assert_eq!(begins.lines().filter(|line| *line == "free").count(), 1, "it was not stopped: {begins}");
    world.ok(&["nodes", "uncordon", "here"]);
    world.wait("all are over", || [&long, &half, &licensed].iter().all(|run| shown(&world, run).0 == ["success"]));
}
