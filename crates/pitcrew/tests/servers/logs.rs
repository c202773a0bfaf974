//! Logs of workers' attempts, where each server has a data directory of its own: whichever server leads, they are whole.

use reqwest::Method;

use crate::link::Link;
use crate::world::{Server, Start, World, wait, wait_now};

/// Lines of each part of a log.
const PART: usize = 1200;

/// `before` ends while the first server leads. `long` prints three parts and waits for a file before each but the first.
fn workflow(world: &World) -> String {
    let effects = world.effects().display().to_string();
    let print = "i=$((i+1)); printf 'line %05d;\\n' $i";
    let part = |to: usize| format!("      while [ $i -lt {to} ]; do {print}; done\n");
    let wait = |name: &str| format!("      until [ -e {effects}/{name} ]; do sleep 0.05; done\n");
    let (one, two, three) = (part(PART), part(2 * PART), part(3 * PART));
    format!(
        "workflow: logs\ntasks:\n  before: {{queue: far, run: \"printf 'line %05d;\\\\n' 1\"}}\n  long:\n    queue: far\n    \
         needs: [before]\n    run: |\n      i=0\n{one}{}{two}{}{three}",
        wait("second"),
        wait("third")
    )
}

struct Two {
    world: World,
    /// From the worker to a server.
    way: Link,
}

impl Two {
    fn start(&self, data: &str) -> Server {
        self.world.start(&Start { data, ..Start::default() })
    }

    /// A log as the API gives it; `None`: it cannot be had now.
    async fn log(&self, server: &Server, task: &str) -> Option<String> {
        let path = format!("/api/v2/dags/logs/dagRuns/a/taskInstances/{task}/logs/1?full_content=true");
        let (status, answer) = self.world.send(Method::GET, server, &path, None).await;
        status.is_success().then(|| answer.to_string())
    }

    /// Returns when the log has this line.
    async fn shows(&self, server: &Server, task: &str, line: usize) {
        let line = format!("line {line:05};");
        wait(&format!("{task} shows {line}"), &server.log, async || {
            self.log(server, task).await.is_some_and(|log| log.contains(&line))
        })
        .await;
    }

    /// All lines up to this one, each once and in order, and the same on a page that follows the log.
    async fn is_whole(&self, server: &Server, task: &str, lines: usize) {
        let key = self.world.query("select key from runs where run_id = 'a'");
        let live = format!("{}/live/logs/{key}/{task}/-1/1", server.url);
        let live = self.world.client.get(live).send().await.unwrap().text().await.unwrap();
        for text in [self.log(server, task).await.expect("it can be had"), live] {
            let found: Vec<&str> = text.split("line ").skip(1).filter_map(|rest| rest.get(..6)).collect();
            let expected: Vec<String> = (1..=lines).map(|n| format!("{n:05};")).collect();
            assert!(found == expected, "{task}: {} lines, not {lines}:\n{found:?}", found.len());
        }
    }

    fn go(&self, name: &str) {
        std::fs::write(self.world.effects().join(name), "").unwrap();
    }

    /// The first is killed, the second leads, and the worker finds that one.
    fn moves(&self, from: &mut Server, to: &Server) {
        from.kill();
        self.way.turn_to(to.url.trim_start_matches("http://"));
        wait_now("the other leads", &to.log, || to.has_said("this server leads"));
    }
}

#[tokio::test]
async fn a_log_is_whole_wherever_its_parts_came_and_whoever_leads() {
    let Some(world) = World::new("logs") else { return };
    world.workflow("logs", &workflow(&world));
    let two = Two { world, way: Link::to("127.0.0.1:9") };
    let mut one = two.start("one");
    wait_now("it leads", &one.log, || one.has_said("this server leads"));
    two.way.turn_to(one.url.trim_start_matches("http://"));
    two.world.knows(&one, "logs").await;
    let address = format!("http://{}", two.way.address);
    let _worker = two.world.worker(&one, &address, "far").await;
    let mut other = two.start("two");
    two.world.trigger(&other, "logs", "a").await;
    two.shows(&one, "long", PART).await;

    // What it printed before goes to the next server though it prints nothing; what ended before stays where it was.
    two.moves(&mut one, &other);
    two.shows(&other, "long", PART).await;
    assert!(two.log(&other, "before").await.is_none(), "its server is gone");
    let one = two.start("one");
    wait("its server is back", &other.log, async || two.log(&other, "before").await.is_some()).await;
    two.is_whole(&other, "before", 1).await;
    two.go("second");
    two.shows(&other, "long", 2 * PART).await;

    // The worker sees the end of the task while no server answers it.
    two.way.cut();
    two.go("third");
    wait_now("it ended there", &other.log, || ends(&two.world) == 1);
    two.moves(&mut other, &one);
    two.way.heal();
    two.world.becomes(&one, "logs", "a", "success").await;
    two.is_whole(&one, "long", 3 * PART).await;
    two.is_whole(&one, "before", 1).await;
    assert_eq!(two.world.query("select count(*) from attempts"), "2");
}

/// Ends that are recorded on the worker.
fn ends(world: &World) -> usize {
    let below =
        |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = below(world.dir.join("far/worker/of")).flat_map(|own| below(own.join("runs")));
    runs.filter(|run| run.join("attempts/long.1/exit.json").exists()).count()
}
