//! Machines, the server that looks after them, and jobs that run there until they are told how to end.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Running, World, text};
use crate::machine::Machine;
use crate::sshd::keygen;

pub struct Site {
    pub world: World,
    machines: Vec<Machine>,
}

/// An attempt of a member that began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Begun {
    /// `train.2.0`: the second attempt of the first member.
    pub name: String,
    pub node: String,
    pub gpu: String,
    /// As the task found it; `-`: not at all.
    pub resume_from: String,
}

impl Site {
    /// Machines of these names. `policy`: lines of `recovery`, the mode among them; deadlines that are short serve the tests
    /// that wait for them, and all others are as usual.
    pub async fn new(names: &[&'static str], policy: &str, deadlines: &str) -> Site {
        let recovery = format!("  watch: 1s\n{policy}\n  deadlines: {{observe: 1s, recheck: 1s{deadlines}}}");
        Site::with(names, &recovery).await
    }

    /// The same with all of `recovery` but its commands.
    pub async fn with(names: &[&'static str], recovery: &str) -> Site {
        Site::with_env(names, recovery, |_| String::new()).await
    }

    /// `env`: more of the environment of a machine.
    pub async fn with_env(names: &[&'static str], recovery: &str, env: impl Fn(&str) -> String) -> Site {
        let mut world = World::new();
        std::fs::create_dir(world.path("jobs")).unwrap();
        let key = world.path("key");
        keygen(&key, "ed25519", "");
        let at = world.path("machines").display().to_string();
        let run = |what: &str| format!("sh '{at}'/\"$PITCREW_NODE\"/{what}");
        let mut config = format!(
            "recovery:\n{recovery}\n  commands:\n    \
             boot_id: {}\n    kernel_log: {}\n    check: {}\n    reset_gpu: {}\n    reboot: {}\nnodes:\n",
            run("who"),
            run("kernel"),
            run("check"),
            run("reset"),
            run("reboot")
        );
        let mut machines = Vec::new();
        for name in names {
            let machine = Machine::new(&world, name, &env(name)).await;
            machine.sshd.admit(&key);
            lead(&world, name, &machine);
            config.push_str(&format!("- {{name: {name}, connection: {name}}}\n"));
            machines.push(machine);
        }
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        Site { world, machines }
    }

    /// The same, whose kernel log is that of this machine: it tells by itself what comes there.
    #[allow(dead_code, reason = "shared with the benchmark")]
    pub async fn with_real_log(names: &[&'static str], recovery: &str) -> Site {
        let site = Site::with(names, recovery).await;
        let config = std::fs::read_to_string(site.world.path("pitcrew.yaml")).unwrap();
        let own = |line: &&str| !["boot_id:", "kernel_log:"].iter().any(|key| line.trim().starts_with(key));
        let config: Vec<&str> = config.lines().filter(own).collect();
        std::fs::write(site.world.path("pitcrew.yaml"), config.join("\n") + "\n").unwrap();
        site
    }

    /// From now on the connection of this node leads to another machine.
    pub fn lead_to(&self, name: &str, other: &str) {
        self.world.ok(&["connections", "delete", name]);
        lead(&self.world, name, self.machine(other));
    }

    pub fn machine_mut(&mut self, name: &str) -> &mut Machine {
        self.machines.iter_mut().find(|machine| machine.name == name).unwrap()
    }

    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).unwrap()
    }

    /// A server that has read the logs of all machines, so whatever they say from now on is news.
    pub fn serve(&self) -> Running {
        let server = self.world.serve();
        for machine in &self.machines {
            self.until(machine.name, "it is ready", |node| node["standing"] == "ready");
        }
        self.until_all_read(&self.machines.iter().collect::<Vec<_>>());
        server
    }

    /// The server dies, and another one comes after it.
    pub fn again(&self, server: &mut Running) {
        let led =
            || std::fs::read_to_string(self.world.path("server.log")).unwrap().matches("this server leads").count();
        let before = led();
        server.kill();
        *server = self.world.serve();
        self.world.wait("the next server leads", || led() > before);
    }

    /// Until the log was read from its beginning, as it is now, twice: so whatever stands in it has been told.
    pub fn until_read(&self, machine: &Machine) {
        self.until_all_read(&[machine]);
    }

    fn until_all_read(&self, machines: &[&Machine]) {
        for _ in 0..2 {
            machines.iter().for_each(|machine| machine.set("reads", ""));
            self.world
                .wait("the logs are read", || machines.iter().all(|machine| machine.read("reads").contains("read")));
        }
    }

    pub fn node(&self, name: &str) -> Value {
        self.world.json(&["nodes", "show", name, "--output", "json"])
    }

    pub fn until(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut node = Value::Null;
        self.world.wait(&format!("{name}: {what}"), || {
            node = self.node(name);
            is_so(&node)
        });
        node
    }

    /// Until as much was done to it.
    pub fn until_done(&self, name: &str, done: &[&str]) {
        let machine = self.machine(name);
        self.world.wait(&format!("{done:?} is done to {name}"), || {
            let so_far = machine.done();
            assert!(so_far.len() <= done.len() && so_far.iter().zip(done).all(|(is, to)| is == to), "{so_far:?}");
            so_far == done
        });
    }

    /// Incidents, the newest first.
    pub fn incidents(&self) -> Vec<Value> {
        self.world.json(&["incidents", "list", "--output", "json"]).as_array().unwrap().clone()
    }

    /// Until the newest incident of a node is so.
    pub fn until_incident(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        self.world.wait(&format!("the incident of {name}: {what}"), || {
            found = self.incidents().into_iter().find(|incident| incident["node"] == name).unwrap_or_default();
            is_so(&found)
        });
        found
    }

    /// Until the newest incident of a node is over, in this way.
    pub fn until_over(&self, name: &str, outcome: &str) -> Value {
        let over = self.until_incident(name, "is over", |incident| !incident["outcome"].is_null());
        assert_eq!(over["outcome"], outcome, "{over:#}");
        over
    }

    /// Until the newest incident of a node is in this state.
    pub fn until_state(&self, name: &str, state: &str) {
        self.until_incident(name, state, |incident| state_of(incident) == state);
    }

    /// A workflow of one task with this name and as many members, each with one GPU, that run until they are told how to end.
    pub fn job(&self, name: &str, nodes: u32, more: &str) {
        let at = self.world.path("jobs");
        let at = at.display();
        let nodes = if nodes > 1 { format!("    nodes: {nodes}\n") } else { "    backend: ssh\n".to_owned() };
        self.world.workflow(
            name,
            &format!(
                "workflow: {name}\ntasks:\n  {name}:\n{nodes}    resources: {{gpu: 1}}\n{more}    run: |
      cd '{at}' || exit 1
      me={name}.$ATTEMPT.${{PITCREW_RANK:-0}}
      busy=$HOME/busy.$me
      trap 'while [ -e hold-stop ]; do sleep 0.1; done; echo $me >>stopped; rm -f \"$busy\"; exit 143' TERM
      : >\"$busy\"
      echo $me ${{HOME##*/}} $CUDA_VISIBLE_DEVICES ${{RESUME_FROM:--}} >>begun
      while [ ! -e $me ]; do sleep 0.1; done
      rm -f \"$busy\"
      exit $(cat $me)
"
            ),
        );
    }

    /// Begins a run of it; gives its number.
    pub fn trigger(&self, name: &str) -> String {
        let mut run = String::new();
        self.world.wait(&format!("{name} is known"), || {
            let said = self.world.run(&["dags", "trigger", name, "--output", "json"]);
            let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            run = answer["run_id"].as_str().unwrap_or_default().to_owned();
            !run.is_empty()
        });
        run
    }

    /// A member that runs is to end with this exit code.
    pub fn end(&self, member: &str, code: i32) {
        let new = self.world.path("new");
        std::fs::write(&new, code.to_string()).unwrap();
        std::fs::rename(new, self.world.path("jobs").join(member)).unwrap();
    }

    /// All attempts that began, in order.
    pub fn begun(&self) -> Vec<Begun> {
        let text = std::fs::read_to_string(self.world.path("jobs").join("begun")).unwrap_or_default();
        let whole = text.lines().filter(|line| line.split(' ').count() == 4);
        let begun = whole.map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut next = || words.next().unwrap();
            Begun { name: next(), node: next(), gpu: next(), resume_from: next() }
        });
        begun.collect()
    }

    /// Until these, and no others, have begun; in the order that is asked for.
    pub fn until_begun(&self, names: &[&str]) -> Vec<Begun> {
        let mut all = Vec::new();
        self.world.wait(&format!("{names:?} begin"), || {
            all = self.begun();
            all.len() >= names.len()
        });
        assert_eq!(all.len(), names.len(), "{all:?}");
        let find = |name: &&str| all.iter().find(|one| one.name == **name).unwrap_or_else(|| panic!("{name}: {all:?}"));
        names.iter().map(|name| find(name).clone()).collect()
    }

    /// Members that are told to end take their time.
    pub fn hold_stops(&self) {
        std::fs::write(self.world.path("jobs").join("hold-stop"), "").unwrap();
    }

    pub fn let_stop(&self) {
        std::fs::remove_file(self.world.path("jobs").join("hold-stop")).unwrap();
    }

    /// Members that were told to end.
    pub fn stopped(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.world.path("jobs").join("stopped")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn run(&self, run: &str) -> Value {
        self.world.json(&["runs", "show", run, "--output", "json"])
    }

    /// Until all tasks of a run are in this state.
    pub fn until_run(&self, run: &str, state: &str) -> Value {
        let mut shown = Value::Null;
        self.world.wait(&format!("{run} is {state}"), || {
            shown = self.run(run);
            shown["tasks"].as_array().unwrap().iter().all(|task| task["state"] == state)
        });
        shown
    }
}

/// Makes a connection of this name to a machine.
fn lead(world: &World, name: &str, machine: &Machine) {
    let user = text(&Command::new("whoami").output().unwrap());
    let extra = json!({ "key_file": world.path("key") }).to_string();
    let port = machine.sshd.port.to_string();
    let host = ["connections", "add", name, "--conn-type", "ssh", "--conn-host", "127.0.0.1"];
    let more = ["--conn-port", &port, "--conn-login", user.trim(), "--conn-extra", &extra];
    world.ok(&[&host[..], &more].concat());
}

/// Where an open incident stands; empty where it is over.
pub fn state_of(incident: &Value) -> &str {
    match incident["outcome"].is_null() {
        true => incident["trail"].as_array().and_then(|trail| trail.last()?["to"].as_str()).unwrap_or_default(),
        false => "",
    }
}
