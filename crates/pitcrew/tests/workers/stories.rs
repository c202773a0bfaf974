//! What a worker does while all is well, and how it ends.

use rustix::process::Signal;
use serde_json::json;

use crate::world::World;

/// What `nvidia-smi` prints of two devices, in the order that it is asked for.
const SMI: &str = r#"#!/bin/sh
case "$*" in
*-L*) exit 0;;
*utilization.gpu,memory.used*) printf '0, GPU-11111111-1111-1111-1111-111111111111, 97, 40536, 312.5\n'; exit 0;;
*) printf '0, GPU-11111111-1111-1111-1111-111111111111, Disabled, 81920, 40536, 97, 312, 61, NVIDIA A100-SXM4-80GB\n';;
esac
"#;

#[tokio::test]
async fn a_task_of_a_queue_runs_on_its_worker_and_its_log_and_outputs_come_back() {
    let world = World::new();
    let worker = world.worker("s21", &["--queue", "s21", "--slots", "2"], &[]).await;
    world.workflow(
        "here",
        "  train:\n    queue: s21\n    run: |\n      echo on $PITCREW_WORKSPACE\n      echo answer=42 >> \"$PITCREW_OUTPUT\"\n  \
         show:\n    needs: [train]\n    queue: s21\n    run: echo got {{ tasks.train.outputs.answer }}\n",
    );
    world.trigger("here").await;
    world.becomes("here", "success").await;
    let path = |task: &str| format!("/api/v2/dags/here/dagRuns/r/taskInstances/{task}/logs/1?full_content=true");
    let train = world.get(&path("train")).await.to_string();
    assert!(train.contains(world.dir.join("s21").to_str().unwrap()), "{train}");
    assert!(world.get(&path("show")).await.to_string().contains("got 42"));
    drop(worker);
}

/// A `PATH` on which `nvidia-smi` is this script.
fn path_with(world: &World, smi: &str) -> String {
    let bin = world.dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    // By another process: a file that this one has open for writing cannot be run.
    let write = std::process::Command::new("/bin/sh")
        .args(["-c", "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .args([bin.join("nvidia-smi").to_str().unwrap(), smi])
        .status();
    assert!(write.unwrap().success());
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[tokio::test]
async fn a_task_does_not_begin_on_a_gpu_that_its_worker_told_of_and_does_not_have() {
    let world = World::new();
    // It tells of another device once the file is there.
    let gone = world.effects("gone");
    let listed = "0, GPU-11111111-1111-1111-1111-111111111111, Disabled, 81920, 0, 0, 60, 31, NVIDIA A100-SXM4-80GB\n";
    let smi = format!(
        "#!/bin/sh\ncase \"$*\" in *-L*) exit 0;; esac\nid=11111111\n[ -e {} ] && id=22222222\n\
         echo \"{}\" | sed s/11111111/$id/\n",
        gone.display(),
        listed.trim()
    );
    let path = path_with(&world, &smi);
    let worker = world.worker("gpus", &["--queue", "gpu"], &[("PATH", &path)]).await;
    let task = format!(
        "  one:\n    queue: gpu\n    resources: {{gpu: 1}}\n    run: echo $CUDA_VISIBLE_DEVICES >> {}\n",
        world.effects("seen").display()
    );
    world.workflow("leased", &task);
    let first_gpu = async || world.get("/api/pitcrew/v1/nodes/gpus").await["gpus"][0]["id"].to_string();
    world.wait("its GPU is known", async || first_gpu().await.contains("GPU-11111111")).await;
    std::fs::write(&gone, "").unwrap();
    world.trigger("leased").await;
    world.becomes("leased", "success").await;
    // The first attempt was lost, which draws on no retries; the second one has the device that is there.
    assert_eq!(world.lines("seen"), ["GPU-22222222-1111-1111-1111-111111111111"], "{}", worker.tail());
    let gpus = world.get("/api/pitcrew/v1/nodes/gpus").await["gpus"].to_string();
    assert!(gpus.contains("GPU-22222222"), "{gpus}");
    let page = world.page("/workers/gpus").await;
    assert!(page.contains("is not there on its worker: it has GPU-22222222"), "{page}");
}

#[tokio::test]
async fn a_leased_gpu_is_seen_by_the_task_alone_that_holds_it() {
    let world = World::new();
    let path = path_with(&world, SMI);
    let _worker = world.worker("gpus", &["--queue", "default", "--queue", "gpu"], &[("PATH", &path)]).await;
    world.workflow(
        "leased",
        &format!(
            "  one:\n    queue: gpu\n    resources: {{gpu: 1}}\n    run: echo $CUDA_VISIBLE_DEVICES >> {}\n",
            world.effects("seen").display()
        ),
    );
    world.trigger("leased").await;
    world.becomes("leased", "success").await;
    assert_eq!(world.lines("seen"), ["GPU-11111111-1111-1111-1111-111111111111"]);
}

#[tokio::test]
async fn a_worker_that_is_killed_finds_its_task_again_when_it_is_started() {
    let world = World::new();
    let mut worker = world.worker("w", &[], &[]).await;
    let stop = world.effects("stop");
    world.workflow(
        "long",
        &format!(
            "  long:\n    queue: default\n    run: |\n      echo $$ >> {}\n      while [ ! -e {} ]; do sleep 0.1; done\n",
            world.effects("begun").display(),
            stop.display()
        ),
    );
    world.trigger("long").await;
    let pid = world.wait_lines("begun", 1)[0].clone();
    worker.kill();
    let worker = world.start("w", &world.url, &[], &[]);
    worker.says("1 task of before");
    assert!(crate::world::exists(&pid));
    std::fs::write(&stop, "").unwrap();
    world.becomes("long", "success").await;
    assert_eq!(world.lines("begun").len(), 1);
}

#[tokio::test]
async fn a_server_that_is_killed_finds_the_tasks_of_workers_again() {
    let mut world = World::new();
    let _worker = world.worker("w", &["--slots", "2"], &[]).await;
    let stop = world.effects("stop");
    world.workflow(
        "long",
        &format!(
            "  long:\n    queue: default\n    run: |\n      echo $PITCREW_TRY >> {}\n      while [ ! -e {} ]; do sleep 0.1; done\n  \
             next:\n    queue: default\n    needs: [long]\n    run: echo $PITCREW_TRY >> {}\n",
            world.effects("begun").display(),
            stop.display(),
            world.effects("next").display(),
        ),
    );
    world.trigger("long").await;
    world.wait_lines("begun", 1);
    world.restart_server();
    world.server.says("Ctrl-C");
    std::fs::write(&stop, "").unwrap();
    world.becomes("long", "success").await;
    assert_eq!((world.lines("begun"), world.lines("next")), (vec!["1".to_owned()], vec!["1".to_owned()]));
}

#[tokio::test]
async fn a_drain_lets_what_runs_end_and_a_second_worker_takes_the_rest() {
    let world = World::new();
    let mut first = world.worker("first", &["--slots", "1"], &[]).await;
    let stop = world.effects("stop");
    world.workflow(
        "long",
        &format!(
            "  long:\n    queue: default\n    run: |\n      echo x >> {}\n      while [ ! -e {} ]; do sleep 0.1; done\n",
            world.effects("begun").display(),
            stop.display()
        ),
    );
    world.workflow(
        "next",
        &format!("  next:\n    queue: default\n    run: pwd > {}\n", world.effects("next").display()),
    );
    world.trigger("long").await;
    world.wait_lines("begun", 1);
    first.signal(Signal::TERM);
    first.says("no more work is taken");
    let _second = world.worker("second", &["--slots", "1"], &[]).await;
    world.trigger("next").await;
    world.becomes("next", "success").await;
    assert!(world.lines("next")[0].contains("/second/"));
    std::fs::write(&stop, "").unwrap();
    assert!(first.ends().success(), "{}", first.tail());
    world.becomes("long", "success").await;
}

#[tokio::test]
async fn whoever_is_shut_out_or_comes_twice_ends_and_says_why() {
    let world = World::new();
    let mut worker = world.worker("w", &[], &[]).await;
    world.workflow(
        "long",
        &format!(
            "  long:\n    queue: default\n    run: echo $$ >> {}; exec sleep 1000\n",
            world.effects("begun").display()
        ),
    );
    world.trigger("long").await;
    let pid = world.wait_lines("begun", 1)[0].clone();
    // The same credential elsewhere: the one that was started last works.
    let copy = world.dir.join("copy/worker");
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::copy(world.dir.join("w/worker/credential.json"), copy.join("credential.json")).unwrap();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    second.args(["worker", "--server", &world.url, "--data-dir"]).arg(world.dir.join("copy"));
    let mut second = crate::world::spawned(&world.dir, second);
    second.says("takes work from");
    assert_eq!(worker.ends().code(), Some(1), "{}", worker.tail());
    assert!(worker.text().contains("another process works with this worker's credential"), "{}", worker.tail());
    world.wait_now("its task is ended", || !crate::world::exists(&pid));
    world.post("/api/pitcrew/v1/workers/w/revoke", json!({})).await;
    assert_eq!(second.ends().code(), Some(1), "{}", second.tail());
    assert!(second.text().contains("does not take this worker's credential any more"), "{}", second.tail());
}

#[tokio::test]
async fn a_token_that_is_wrong_or_used_up_and_a_name_that_is_taken_are_told() {
    let world = World::new();
    let mut wrong = world.start("w", &world.url, &[], &[("PITCREW_WORKER_TOKEN", "pwt_nobody_made_this")]);
    assert_eq!(wrong.ends().code(), Some(2), "{}", wrong.tail());
    assert!(wrong.text().contains("there is no such token") && wrong.text().contains("hint: make a new token"));
    let mut none = world.start("w", &world.url, &[], &[]);
    assert_eq!(none.ends().code(), Some(2), "{}", none.tail());
    assert!(none.text().contains("has no token"), "{}", none.tail());
    let token = world.post("/api/pitcrew/v1/workers/token", json!({ "uses": 1 })).await;
    let token = token["token"].as_str().unwrap().to_owned();
    let file = world.dir.join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let first = world.start("w", &world.url, &["--token-file", file.to_str().unwrap()], &[]);
    first.says("takes work from");
    let mut used = world.start("other", &world.url, &["--token-file", file.to_str().unwrap()], &[]);
    assert_eq!(used.ends().code(), Some(2), "{}", used.tail());
    let token = world.post("/api/pitcrew/v1/workers/token", json!({ "uses": 1 })).await;
    let token = token["token"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(world.dir.join("other")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    command.args(["worker", "--server", &world.url, "--name", "w", "--data-dir"]).arg(world.dir.join("other"));
    command.env("PITCREW_WORKER_TOKEN", token);
    let mut taken = crate::world::spawned(&world.dir, command);
    assert_eq!(taken.ends().code(), Some(2), "{}", taken.tail());
    assert!(taken.text().contains("hint: choose another name"), "{}", taken.tail());
}

#[tokio::test]
async fn the_commands_tell_how_a_worker_stands_and_let_it_go() {
    let world = World::new();
    let pitcrew = |line: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(line.split_whitespace()).current_dir(&world.dir).env_remove("PITCREW_STORE").env("NO_COLOR", "1");
        let output = command.env("PITCREW_DATA_DIR", world.dir.join("server")).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{line}: {text}");
        text
    };
    let asked = |line: &str| pitcrew(&format!("--server {} {line}", world.url));
    assert!(asked("workers list").contains("no workers"));
    let token = asked("workers token --queue s21 --uses 1 --output json");
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let token = token["token"].as_str().unwrap();
    let mut worker = world.start("w1", &world.url, &["--queue", "s21"], &[("PITCREW_WORKER_TOKEN", token)]);
    worker.says("takes work from");
    let view = |line: &str| -> serde_json::Value { serde_json::from_str(&asked(line)).unwrap() };
    world.wait_now("it is ready", || view("workers show w1 --output json")["standing"] == "ready");
    assert_eq!(view("nodes show w1 --output json")["standing"], "ready");
    assert!(asked("nodes show w1").contains("it is a worker"));
    // Without the server, nobody knows whether it calls.
    for line in ["workers list", "nodes list"] {
        let told = pitcrew(line);
        assert!(told.contains("w1") && told.contains("enrolled"), "{told}");
    }
    asked("workers drain w1");
    worker.says("the server gives this worker no more work");
    world.wait_now("it is draining", || view("workers show w1 --output json")["standing"] == "draining");
    asked("workers undrain w1");
    worker.says("the server gives this worker work again");
    world.wait_now("it is ready", || view("workers show w1 --output json")["standing"] == "ready");
    asked("workers drain w1");
    worker.signal(Signal::TERM);
    assert!(worker.ends().success());
    asked("workers revoke w1");
    let tokens: serde_json::Value = serde_json::from_str(&asked("workers tokens list --output json")).unwrap();
    assert_eq!((&tokens[0]["works"], &tokens[0]["uses"]), (&json!(false), &json!(0)));
    let id = tokens[0]["id"].as_str().unwrap();
    assert!(asked("workers tokens list").contains("over"));
    asked(&format!("workers tokens revoke {id}"));
    assert!(asked("workers tokens list").contains("no tokens"));
    assert!(asked("workers list").contains("no workers"));
    let mut again = world.start("w1", &world.url, &["--queue", "s21"], &[]);
    assert!(!again.ends().success(), "{}", again.text());
}
