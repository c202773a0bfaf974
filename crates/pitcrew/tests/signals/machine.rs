//! A machine with a GPU, which is what files in a directory say: that of the server, or of a worker.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Running, World};

pub struct Machine {
    pub world: World,
    dir: PathBuf,
    node: &'static str,
}

impl Machine {
    /// That of the server. `policy`: more lines of `recovery` in the configuration, the mode among them.
    pub fn new(policy: &str) -> Machine {
        Machine::named("local", policy, false)
    }

    /// That of a worker of this name, which [`Machine::worker`] starts. `pretends`: its boot is what a file says, which a
    /// reboot changes.
    pub fn of_worker(node: &'static str, policy: &str, pretends: bool) -> Machine {
        let mut machine = Machine::named(node, policy, pretends);
        machine.world.env.retain(|(name, _)| *name != "PATH");
        machine.world.env.push(("PATH", "/usr/bin:/bin".to_owned()));
        machine
    }

    fn named(node: &'static str, policy: &str, pretends: bool) -> Machine {
        let mut world = World::new();
        let dir = world.path("machine");
        std::fs::create_dir(&dir).unwrap();
        let machine = dir.display();
        let more = match pretends {
            true => format!("    boot_id: cat '{machine}/boot'\n    reboot: sh '{machine}/reboot'\n"),
            false => String::new(),
        };
        let config = format!(
            "recovery:\n{policy}\n  deadlines: {{observe: 1s, recheck: 1s}}\n  commands:\n    \
             check: sh '{machine}/check'\n    reset_gpu: sh '{machine}/reset'\n{more}"
        );
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        world.env.push(("PATH", format!("{}:/usr/bin:/bin", dir.display())));
        let machine = Machine { world, dir, node };
        machine.set("rows", "0, GPU-a, Disabled, 81920, 4, 35, 312.50, 61, NVIDIA A100-SXM4-80GB\n");
        machine.script("nvidia-smi", "case \"$*\" in -q) cat said;; *) cat rows;; esac");
        machine.script(
            "check",
            "echo \"check $PITCREW_CHECK_LEVEL\" >>done; [ -e broken ] && { cat broken; exit 1; }; exit 0",
        );
        // It comes up anew with another boot id; what a reboot heals is well again.
        machine.script("reboot", "echo reboot >>done; echo boot-2 >boot; rm -f broken");
        machine.set("boot", "boot-1\n");
        machine.script("reset", "echo \"reset $PITCREW_GPUS\" >>done; rm -f broken");
        machine
    }

    pub fn script(&self, name: &str, body: &str) {
        let script = format!("#!/bin/sh\ncd '{}' || exit 1\n{body}\n", self.dir.display());
        // By a process of its own, so that no other one has it open for writing when it is run.
        let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let written = Command::new("/bin/sh").args(["-c", write]).arg(self.dir.join(name)).arg(script).status();
        assert!(written.unwrap().success());
    }

    /// Puts a file there, whole.
    pub fn set(&self, name: &str, content: &str) {
        let new = self.dir.join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.dir.join(name)).unwrap();
    }

    /// What was done to it, in order.
    pub fn done(&self) -> Vec<String> {
        let done = std::fs::read_to_string(self.dir.join("done")).unwrap_or_default();
        done.lines().map(str::to_owned).collect()
    }

    /// A workflow `w` of one task `train` with a GPU. `keys`: more lines of it.
    pub fn task(&self, keys: &str, script: &str) {
        let script = script.replace('\n', "\n      ");
        let text = format!(
            "workflow: w\ntasks:\n  train:\n    resources: {{gpu: 1}}\n    retry_delay: 0s\n{keys}    run: |\n      {script}\n"
        );
        self.world.workflow("w", &text);
    }

    pub fn serve(&self) -> Running {
        let server = self.world.serve();
        self.world.wait("it is ready", || self.node()["standing"] == "ready");
        server
    }

    /// The address of the server, as it says.
    fn url(&self) -> String {
        let mut url = String::new();
        self.world.wait("the server says where it is", || {
            let log = std::fs::read_to_string(self.world.path("server.log")).unwrap_or_default();
            let line = log.lines().find_map(|line| line.trim().strip_prefix("pages").map(|url| url.trim().to_owned()));
            url = line.unwrap_or_default();
            !url.is_empty()
        });
        url
    }

    /// Starts a worker on it, which enrols the first time.
    pub fn worker(&self, args: &[&str]) -> Running {
        let url = self.url();
        let token = self.world.ok(&["workers", "token", "--uses", "1"]);
        let token = token.split_whitespace().find(|word| word.starts_with("pwt_")).unwrap().to_owned();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.world.path("server.log")).unwrap();
        let mut command = self.world.command(&["worker", "--name", self.node, "--server", &url]);
        command.args(args).arg("--data-dir").arg(self.world.path("worker")).env("PITCREW_WORKER_TOKEN", token);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.dir.display()));
        let worker = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.world.wait("it is a node", || self.node()["standing"] == "ready");
        worker
    }

    pub fn node(&self) -> Value {
        // Only the server knows whether a worker calls.
        let url = self.url();
        let out = self.world.run(&["nodes", "show", self.node, "--server", &url, "--output", "json"]);
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    /// Begins a run of `w`, and waits for its end.
    pub fn run_to(&self, state: &str) -> Value {
        let mut run = String::new();
        self.world.wait("it is triggered", || {
            let said = self.world.run(&["dags", "trigger", "w", "--output", "json"]);
            let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            run = answer["run_id"].as_str().unwrap_or_default().to_owned();
            !run.is_empty()
        });
        let mut shown = Value::Null;
        self.world.wait("the run is over", || {
            shown = self.world.json(&["runs", "show", &run, "--output", "json"]);
            ["success", "failed", "cancelled"].iter().any(|state| shown["state"] == *state)
        });
        assert_eq!(shown["state"], state, "{shown:#}");
        shown
    }

    /// Incidents, the newest first.
    pub fn incidents(&self) -> Vec<Value> {
        self.world.json(&["incidents", "list", "--output", "json"]).as_array().unwrap().clone()
    }

    /// Until as many incidents are over.
    pub fn until_over(&self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        self.world.wait("incidents are over", || {
            all = self.incidents();
            all.len() >= count && all.iter().all(|incident| !incident["outcome"].is_null())
        });
        assert_eq!(all.len(), count, "{all:#?}");
        all
    }
}
