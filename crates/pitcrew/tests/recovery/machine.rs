//! A machine that can be broken, and be repaired by the commands of its server: what it is, is files in a directory.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Running, World, text};
use crate::sshd::{Sshd, keygen};

pub const ROWS: &str = "0, GPU-a, Disabled, 81920, 4, 35, 312.50, 61, NVIDIA A100-SXM4-80GB\n\
                        1, GPU-b, Disabled, 81920, 4, 35, 312.50, 40, NVIDIA A100-SXM4-80GB\n";
pub const FALLEN: &str = "NVRM: Xid (PCI:0000:9b:00): 79, pid=1, name=train, GPU has fallen off the bus.";

/// A node `s21` over SSH, and the world with the server that knows it.
pub struct Machine {
    pub world: World,
    dir: PathBuf,
    _sshd: Sshd,
}

impl Machine {
    /// `policy`: more lines of `recovery` in the configuration, the mode among them.
    pub async fn new(policy: &str) -> Machine {
        let mut world = World::new();
        let dir = world.path("machine");
        std::fs::create_dir(&dir).unwrap();
        let sshd = Sshd::start(&format!("SetEnv SHLVL=1 PATH={}:/usr/bin:/bin", dir.display())).await;
        let key = world.path("key");
        keygen(&key, "ed25519", "");
        sshd.admit(&key);
        let machine = dir.display();
        let config = format!(
            "nodes:\n- {{name: s21, connection: gpu}}\n\
             recovery:\n  watch: 1s\n{policy}\n  \
             deadlines: {{observe: 1s, recheck: 1s, reboot: 6s, suspected: 5s}}\n  commands:\n    \
             boot_id: cat '{machine}/boot'\n    kernel_log: sh '{machine}/kernel'\n    \
             check: sh '{machine}/check'\n    reset_gpu: sh '{machine}/reset'\n    reboot: sh '{machine}/reboot'\n"
        );
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        let user = text(&Command::new("whoami").output().unwrap());
        let (port, extra) = (sshd.port.to_string(), json!({ "key_file": key }).to_string());
        let host =
            ["connections", "add", "gpu", "--conn-type", "ssh", "--conn-host", "127.0.0.1", "--conn-port", &port];
        world.ok(&[&host[..], &["--conn-login", user.trim(), "--conn-extra", &extra]].concat());
        let machine = Machine { world, dir, _sshd: sshd };
        machine.set("rows", ROWS);
        machine.set("boot", "boot-1\n");
        machine.set("log", "");
        machine.set("done", "");
        machine.script("nvidia-smi", "cat rows");
        machine
            .script("kernel", "n=$(wc -l <log); cat boot; echo $((1000 + n)).5; echo 1 $n; cat log; echo read >>reads");
        machine.script(
            "check",
            "echo \"check $PITCREW_CHECK_LEVEL\" >>done; [ -e broken ] && { cat broken; exit 1; }; exit 0",
        );
        machine.script("reset", "echo \"reset $PITCREW_GPUS\" >>done; rm -f broken");
        // It comes up anew with another boot id; what a reboot heals is well again.
        machine.script(
            "reboot",
            "echo reboot >>done; [ -e stuck ] || { echo boot-2 >boot; : >log; [ -e lasting ] || rm -f broken; }",
        );
        machine
    }

    fn script(&self, name: &str, body: &str) {
        let script = format!("#!/bin/sh\ncd '{}'\n{body}\n", self.dir.display());
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

    /// A line of the kernel's.
    pub fn log(&self, message: &str) {
        let before = self.read("log");
        let number = before.lines().count() + 1;
        self.set("log", &format!("{before}4,{number},{}000000,-;{message}\n", 1000 + number));
    }

    /// Until the log was read from its beginning, as it is now, twice: so whatever stands in it has been told.
    pub fn until_read(&self) {
        for _ in 0..2 {
            self.set("reads", "");
            self.world.wait("the log is read", || self.read("reads").contains("read"));
        }
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// What was done to it, in order.
    pub fn done(&self) -> Vec<String> {
        self.read("done").lines().map(str::to_owned).collect()
    }

    pub fn serve(&self) -> Running {
        let server = self.world.serve();
        self.until("it is ready", |node| node["standing"] == "ready");
        server
    }

    pub fn node(&self) -> Value {
        self.world.json(&["nodes", "show", "s21", "--output", "json"])
    }

    /// Incidents, the newest first.
    pub fn incidents(&self) -> Vec<Value> {
        self.world.json(&["incidents", "list", "--output", "json"]).as_array().unwrap().clone()
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.world.wait(what, || is_so(&self.node()));
        self.node()
    }

    /// Until as much was done to it.
    pub fn until_done(&self, done: &[&str]) {
        self.world.wait(&format!("{done:?} is done, not {:?}", self.done()), || self.done() == done);
    }
}
