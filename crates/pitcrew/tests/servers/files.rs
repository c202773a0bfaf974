//! Files of runs on servers with data directories of their own: they follow their run to the server that goes on with it.

use reqwest::Method;
use serde_json::json;

use crate::world::{Server, Start, World, wait, wait_now};

/// `first` leaves files; `second` waits for a file, changes them, and `third` looks at what there is. A pool without slots
/// holds the last one back until somebody opens it.
fn workflow(world: &World) -> String {
    let effects = world.effects().display().to_string();
    format!(
        "workflow: files
tasks:
  first:
    run: |
      mkdir -p deep; echo one > deep/kept; echo one > changed; echo one > gone
      mkdir -p \"$PITCREW_ARTIFACTS\"; echo a model > \"$PITCREW_ARTIFACTS/model.txt\"
  second:
    needs: [first]
    run: |
      echo $PITCREW_TRY >> {effects}/second
      until [ -e {effects}/go ]; do sleep 0.05; done
      echo two > changed; rm gone; echo two > late
  third:
    needs: [second]
    pool: gate
    run: 'cat deep/kept changed late > {effects}/third; if [ -e gone ]; then echo gone >> {effects}/third; fi'
"
    )
}

struct Two {
    world: World,
    lost_after: &'static str,
}

impl Two {
    async fn new(name: &str, lost_after: &'static str) -> Option<(Two, Server)> {
        let two = Two { world: World::new(name)?, lost_after };
        let world = &two.world;
        world.workflow("files", &workflow(world));
        world.workflow(
            "plain",
            "workflow: plain\ntasks:\n  a: {run: 'true'}\n  b: {run: 'true', needs: [a], pool: gate}\n",
        );
        let one = two.start("one");
        wait_now("it leads", &one.log, || one.has_said("this server leads"));
        for workflow in ["files", "plain"] {
            world.knows(&one, workflow).await;
        }
        Some((two, one))
    }

    fn start(&self, data: &str) -> Server {
        self.world.start(&Start { data, env: &[("PITCREW_LOST_AFTER", self.lost_after)], ..Start::default() })
    }

    async fn gate(&self, server: &Server, slots: u32) {
        let pool = json!({ "name": "gate", "slots": slots });
        let path = "/api/v2/pools/gate";
        match slots {
            0 => self.world.ask(Method::POST, server, "/api/v2/pools", Some(pool)).await,
            _ => self.world.ask(Method::PATCH, server, path, Some(pool)).await,
        };
    }

    fn effect(&self, name: &str) -> String {
        std::fs::read_to_string(self.world.effects().join(name)).unwrap_or_default()
    }

    fn go(&self) {
        std::fs::write(self.world.effects().join("go"), "").unwrap();
    }

    fn key(&self, run: &str) -> String {
        self.world.query(&format!("select key from runs where run_id = '{run}'"))
    }

    fn task(&self, run: &str, task: &str) -> String {
        let key = self.key(run);
        self.world
            .query(&format!("select state || ' ' || message from instances where run = {key} and task = '{task}'"))
    }

    async fn begin(&self, server: &Server, workflow: &str, run: &str, task: &str, state: &str) {
        self.world.trigger(server, workflow, run).await;
        wait_now("it came so far", &server.log, || self.task(run, task).starts_with(state));
    }
}

#[tokio::test]
async fn files_follow_their_run_to_the_server_that_goes_on_with_it() {
    let Some((two, mut one)) = Two::new("follow", "5m").await else { return };
    let world = &two.world;
    two.gate(&one, 0).await;
    two.begin(&one, "files", "a", "second", "running").await;
    let other = two.start("two");
    wait_now("it knows that it is not alone", &one.log, || one.has_said("other servers have data directories"));
    one.kill();
    wait_now("the other leads", &other.log, || other.has_said("this server leads"));
    // It ends while its server is away, and is told when that is back.
    two.go();
    two.gate(&other, 1).await;
    let one = two.start("one");
    world.becomes(&other, "files", "a", "success").await;
    assert_eq!(two.effect("third"), "one\ntwo\ntwo\n");
    assert_eq!(two.effect("second"), "1\n");
    let key = two.key("a");
    let artifacts = world.get(&one, &format!("/api/pitcrew/v1/runs/{key}/artifacts")).await;
    assert_eq!(artifacts["artifacts"][0]["path"], "model.txt", "{artifacts}");
    assert_eq!(world.query(&format!("select count(*) from run_files where run = {key}")), "1");

    // What is deleted goes everywhere.
    let dirs = ["one", "two"].map(|data| world.dir.join(data).join("runs").join(&key));
    assert!(dirs.iter().all(|dir| dir.join("workspace/deep/kept").exists()));
    world.ask(Method::DELETE, &one, "/api/v2/dags/files/dagRuns/a", None).await;
    wait_now("nothing is left", &one.log, || dirs.iter().all(|dir| !dir.exists()));
    assert_eq!(world.query("select run || home from run_files"), "");
}

#[tokio::test]
async fn a_task_whose_files_are_on_a_machine_that_is_gone_says_so_and_others_go_on() {
    let Some((two, mut one)) = Two::new("gone_files", "10s").await else { return };
    let world = &two.world;
    two.gate(&one, 0).await;
    two.go();
    two.begin(&one, "files", "a", "second", "success").await;
    two.begin(&one, "plain", "b", "a", "success").await;
    let other = two.start("two");
    one.kill();
    wait_now("the other leads", &other.log, || other.has_said("this server leads"));
    two.gate(&other, 1).await;
    // It left no file.
    world.becomes(&other, "plain", "b", "success").await;
    world.becomes(&other, "files", "a", "failed").await;
    let said = two.task("a", "third");
    assert!(said.contains("are on the machine of another server, and cannot be had: the server http"), "{said}");
    assert_eq!(two.effect("third"), "", "it did not begin");
    let key = two.key("a");
    let path = format!("/api/pitcrew/v1/runs/{key}/artifacts");
    let listed = world.get(&other, &path).await;
    assert_eq!((&listed["total_entries"], &listed["elsewhere"]), (&json!(0), &json!(true)), "what is here is shown");
    let page = world.get(&other, "/workflows/files/runs/a").await;
    assert!(page.as_str().unwrap().contains("More are on the machine of"), "{page}");
    let path = format!("{path}?bring=true");
    assert_eq!(world.send(Method::GET, &other, &path, None).await.0, 503);

    // Once it is back, it goes on where it was.
    let _one = two.start("one");
    wait("it says where it is", &other.log, async || world.send(Method::GET, &other, &path, None).await.0 == 200).await;
    let clear = json!({ "dry_run": false, "dag_run_id": "a", "only_failed": true });
    world.ask(Method::POST, &other, "/api/v2/dags/files/clearTaskInstances", Some(clear)).await;
    world.becomes(&other, "files", "a", "success").await;
    assert_eq!(two.effect("third"), "one\ntwo\ntwo\n");
}
