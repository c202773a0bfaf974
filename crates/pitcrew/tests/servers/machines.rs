//! Servers with data directories of their own, as on machines of their own: a task on the machine of a server that leads
//! no more is neither lost nor begun a second time.

use reqwest::StatusCode;

use crate::link::Link;
use crate::world::{Server, Start, World, wait, wait_now};

/// `first` says that it is there, and whether another one is; it waits for a file. `second` needs what it left.
fn workflow(world: &World) -> String {
    let effects = world.effects().display().to_string();
    format!(
        "workflow: waiting
tasks:
  first:
    run: |
      for pid in $(cat {effects}/pids 2>/dev/null); do kill -0 $pid && echo $pid >> {effects}/twice; done
      echo $$ >> {effects}/pids
      echo $PITCREW_TRY >> {effects}/first
      echo here I am
      until [ -e {effects}/go ]; do sleep 0.05; done
      echo a word > left.txt
    outputs:
      word: {{from: left.txt}}
  second:
    needs: [first]
    run: 'echo {{{{ tasks.first.outputs.word }}}} >> {effects}/second'
"
    )
}

struct Two {
    world: World,
    /// From the first server to the database.
    link: Link,
    /// From the other server to the first.
    way: Link,
    lost_after: &'static str,
}

impl Two {
    fn new(name: &str, lost_after: &'static str) -> Option<Two> {
        let world = World::new(name)?;
        world.workflow("waiting", &workflow(&world));
        let link = Link::to(&world.database());
        Some(Two { world, link, way: Link::to("127.0.0.1:9"), lost_after })
    }

    /// The first server, which reaches the database by a way that can be cut, and is reached by another one.
    fn first(&self) -> Server {
        let way = format!("http://{}", self.way.address);
        let env = [("PITCREW_ADVERTISE", way.as_str()), ("PITCREW_LOST_AFTER", self.lost_after)];
        let store = Some(self.world.store_at(&self.link.address.to_string()));
        let server = self.world.start(&Start { data: "one", store, env: &env, ..Start::default() });
        self.way.turn_to(server.url.trim_start_matches("http://"));
        server
    }

    fn second(&self) -> Server {
        let env = [("PITCREW_LOST_AFTER", self.lost_after)];
        self.world.start(&Start { data: "two", env: &env, ..Start::default() })
    }

    /// Both, the first one leading, with a task on its machine.
    async fn at_work(&self) -> (Server, Server) {
        let one = self.first();
        wait_now("it leads", &one.log, || one.has_said("this server leads"));
        self.world.knows(&one, "waiting").await;
        wait_now("the others know where it is", &one.log, || {
            self.world.query("select value from settings where key = 'servers.homes'").contains("http")
        });
        let two = self.second();
        wait_now("it knows that it is not alone", &one.log, || one.has_said("other servers have data directories"));
        self.world.trigger(&two, "waiting", "a").await;
        wait_now("the task runs", &one.log, || self.lines("first") == ["1"]);
        (one, two)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.world.effects().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn go(&self) {
        std::fs::write(self.world.effects().join("go"), "").unwrap();
    }

    fn runs(&self, pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    /// How the attempts of `first` ended.
    fn exits(&self) -> String {
        self.world
            .query("select string_agg(coalesce(exit, '-'), ' ' order by number) from attempts where task = 'first'")
    }

    /// The run ends well at `server`, what the first task left reached the second, and none ran beside another.
    async fn ends_well(&self, server: &Server) {
        self.world.becomes(server, "waiting", "a", "success").await;
        assert_eq!(self.lines("second"), ["a word"]);
        assert!(self.lines("twice").is_empty());
    }
}

const LOG: &str = "/api/v2/dags/waiting/dagRuns/a/taskInstances/first/logs/1";

#[tokio::test]
async fn a_task_goes_on_at_a_server_that_is_cut_off_from_the_database_and_streams_there_end() {
    let Some(two) = Two::new("cut", "5m") else { return };
    let (one, other) = two.at_work().await;
    let world = &two.world;
    let key = world.query("select key from runs where run_id = 'a'");

    // Whoever watches at the first server is told nothing that is not true any more.
    let stream = async |path: &str| {
        let answer = world.client.get(format!("{}{path}", one.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer
    };
    let mut log = stream(&format!("/live/logs/{key}/first/-1/1")).await;
    let mut waiting = stream("/api/v2/dags/waiting/dagRuns/a/wait?interval=1000").await;
    let shown = log.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&shown).contains("here I am"));
    assert!(waiting.chunk().await.unwrap().is_some());
    two.link.cut();
    while log.chunk().await.unwrap().is_some() {}
    while waiting.chunk().await.unwrap().is_some() {}

    wait_now("the other leads", &other.log, || other.has_said("this server leads"));
    // Read over the way between the servers.
    wait("its log is there", &other.log, async || world.get(&other, LOG).await.to_string().contains("here I am")).await;
    two.go();
    two.ends_well(&other).await;
    assert_eq!(two.lines("first"), ["1"]);
    assert_eq!(world.query("select count(*) from attempts where task = 'first'"), "1");
    // It comes back, stands by, and answers with what the other knows.
    two.link.heal();
    wait("it passes on", &one.log, async || {
        let path = format!("{}/api/v2/dags/waiting/dagRuns/a", one.url);
        let answer = world.client.get(path).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    world.becomes(&one, "waiting", "a", "success").await;
}

#[tokio::test]
async fn a_task_of_a_server_that_is_gone_waits_for_it() {
    let Some(two) = Two::new("gone", "5m") else { return };
    let (mut one, other) = two.at_work().await;
    one.kill();
    wait_now("the other looks for it", &other.log, || other.has_said("on the machine of another server"));
    // A second run, on this machine, shows that the server does its work meanwhile.
    std::fs::write(two.world.dir.join("workflows/quick.yaml"), "workflow: quick\ntasks:\n  a: {run: 'true'}\n")
        .unwrap();
    two.world.knows(&other, "quick").await;
    two.world.trigger(&other, "quick", "b").await;
    two.world.becomes(&other, "quick", "b", "success").await;
    assert_eq!(two.lines("first"), ["1"]);
    let one = two.first();
    wait("its log is there", &one.log, async || two.world.get(&one, LOG).await.to_string().contains("here I am")).await;
    two.go();
    two.ends_well(&other).await;
    assert_eq!(two.lines("first"), ["1"]);
}

#[tokio::test]
async fn a_task_of_a_server_that_is_gone_for_too_long_is_ended_there_and_then_tried_again() {
    let Some(two) = Two::new("late", "10s") else { return };
    let (mut one, other) = two.at_work().await;
    one.kill();
    wait_now("it is tried again", &other.log, || two.lines("first").len() == 2);
    // Ended by what kept it, without its server.
    assert!(!two.runs(&two.lines("pids")[0]));
    assert!(two.exits().contains("silent for 10s"), "{}", two.exits());
    // Whoever comes back finds nothing to do.
    let one = two.first();
    assert!(one.has_said("were given up by the others"), "{}", one.tail());
    assert_eq!(two.world.query("select value from settings where key like 'servers.gone.%'"), "[]");
    two.go();
    two.ends_well(&other).await;
    assert_eq!(two.lines("first"), ["1", "2"]);
}

#[tokio::test]
async fn a_server_that_nobody_reaches_lets_its_tasks_end_before_others_begin_them_anew() {
    let Some(two) = Two::new("alone", "10s") else { return };
    let (one, other) = two.at_work().await;
    two.link.cut();
    two.way.cut();
    wait_now("it is tried again", &other.log, || two.lines("first").len() == 2);
    assert!(!two.runs(&two.lines("pids")[0]), "{}", one.tail());
    two.link.heal();
    two.way.heal();
    two.go();
    two.ends_well(&other).await;
    assert_eq!(two.lines("first"), ["1", "2"]);
}
