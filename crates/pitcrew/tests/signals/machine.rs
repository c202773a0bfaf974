//! A machine with a GPU, which is what files in a directory say: that of the server, or of a worker.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Running, World};

pub const NODE: &str = "local";

pub struct Machine {
    pub world: World,
    dir: PathBuf,
}

impl Machine {
    /// `policy`: more lines of `recovery` in the configuration, the mode among them.
    pub fn new(policy: &str) -> Machine {
        let mut world = World::new();
        let dir = world.path("machine");
        std::fs::create_dir(&dir).unwrap();
        let machine = dir.display();
        let config = format!(
            "recovery:\n{policy}\n  deadlines: {{observe: 1s, recheck: 1s}}\n  commands:\n    \
             check: sh '{machine}/check'\n    reset_gpu: sh '{machine}/reset'\n"
        );
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        world.env.push(("PATH", format!("{}:/usr/bin:/bin", dir.display())));
        let machine = Machine { world, dir };
        machine.set("rows", "0, GPU-a, Disabled, 81920, 4, 35, 312.50, 61, NVIDIA A100-SXM4-80GB\n");
        machine.script("nvidia-smi", "case \"$*\" in -q) cat said;; *) cat rows;; esac");
        machine.script(
            "check",
            "echo \"check $PITCREW_CHECK_LEVEL\" >>done; [ -e broken ] && { cat broken; exit 1; }; exit 0",
        );
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

    pub fn node(&self) -> Value {
        let out = self.world.run(&["nodes", "show", NODE, "--output", "json"]);
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
