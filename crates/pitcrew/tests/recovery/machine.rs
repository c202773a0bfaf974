//! A machine that can be broken, and be repaired by the commands of its server: what it is, is files in a directory.
//!
//! Files named `hold-…` hold it where it is: as long as they are there, what they name does not end.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::World;
use crate::sshd::Sshd;

pub const FALLEN: &str = "NVRM: Xid (PCI:0000:9b:00): 79, pid=1, name=train, GPU has fallen off the bus.";

/// Signs in to `nvidia-smi` and the rest; reached by a connection of its name.
pub struct Machine {
    pub name: &'static str,
    dir: PathBuf,
    pub sshd: Sshd,
}

impl Machine {
    /// `env`: more of its environment, as `NAME=value`.
    pub async fn new(world: &World, name: &'static str, env: &str) -> Machine {
        let dir = world.path("machines").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let at = dir.display();
        let sshd = Sshd::start(&format!("SetEnv SHLVL=1 PATH={at}:/usr/bin:/bin HOME={at} {env}")).await;
        let machine = Machine { name, dir, sshd };
        machine.set("rows", &machine.rows(&["a", "b"]));
        machine.set("boot", "boot-1\n");
        machine.set("log", "");
        machine.set("done", "");
        // Asked for everything that it knows, it may hang.
        machine.script(
            "nvidia-smi",
            "case \"$*\" in -q) echo asked >>driver; while [ -e hold-driver ]; do sleep 0.1; done; [ -e smi-q ] && { cat smi-q; exit 0; };; esac; cat rows",
        );
        machine
            .script("dcgmi", "[ \"$1 $2\" = 'nvlink -s' ] || exit 235; cat links 2>/dev/null && echo looked >>looks");
        machine.script("who", "[ -e away ] || cat boot");
        machine.script(
            "kernel",
            "[ -e away ] && exit 1; cat boot; cut -d' ' -f1 /proc/uptime; echo 1 $(wc -l <log); cat log; \
             echo read >>reads",
        );
        machine.script(
            "check",
            "when check
             echo \"check $PITCREW_CHECK_LEVEL${PITCREW_CHECK_PASSIVE:+ passive}\" >>done
             held=hold-check; grep -q reboot done && held=hold-verify
             echo $$ >check-pid
             while [ -e $held ]; do sleep 0.1; done
             when checked
             [ -e unsure ] && exit 9
             [ -e broken ] && { cat broken; exit 1; }
             exit 0",
        );
        machine.script(
            "reset",
            "echo \"reset $PITCREW_GPUS\" >>done; rm -f broken; [ ! -e links ] || sed -i 's/D/U/' links",
        );
        // It comes up anew with another boot id, and what a reboot heals is well again. Connections break, as they do.
        machine.script(
            "reboot",
            "when reboot; echo reboot >>done; boot=boot-$(($(grep -c reboot done) + 1)); echo busy.* >>disturbed
             [ -e stuck ] && exit 0
             : >away
             (
                 while [ -e hold-reboot ]; do sleep 0.1; done
                 echo $boot >boot; : >log; [ -e lasting ] || rm -f broken unsure; rm away
             ) </dev/null >/dev/null 2>&1 &
             p=$PPID; until grep -q sshd \"/proc/$p/comm\"; do read -r _ _ _ p _ <\"/proc/$p/stat\"; done; kill -9 \"$p\"",
        );
        machine
    }

    /// Takes it off the network: its connections break, and nobody gets in.
    pub fn cut(&mut self) {
        let (own, config) = (std::process::id().to_string(), self.sshd.dir.path().join("sshd_config"));
        let listener =
            processes().find(|(_, stat, line)| parent(stat) == own && line.contains(config.to_str().unwrap()));
        let (pid, ..) = listener.expect("its sshd runs");
        // Nobody signs in from here on, and whose sessions they are can still be seen.
        Command::new("kill").args(["-STOP", &pid]).status().unwrap();
        let sessions: Vec<String> = processes().filter(|(_, stat, _)| parent(stat) == pid).map(|(id, ..)| id).collect();
        self.sshd.down();
        for session in sessions {
            // One that has ended by itself is gone as well.
            let _ = Command::new("kill").args(["-9", &session]).output();
        }
    }

    /// What `nvidia-smi` prints of these GPUs, which are called as [`Machine::gpu`] says.
    pub fn rows(&self, gpus: &[&str]) -> String {
        let row = |(at, gpu): (usize, &&str)| {
            format!("{at}, {}, Disabled, 81920, 4, 35, 312.50, 61, NVIDIA A100-SXM4-80GB\n", self.gpu(gpu))
        };
        gpus.iter().enumerate().map(row).collect()
    }

    /// A UUID with the number of the machine in it.
    pub fn gpu(&self, letter: &str) -> String {
        format!("GPU-{:0>8}-{letter}", self.name.trim_start_matches('s'))
    }

    fn script(&self, name: &str, body: &str) {
        // When something happened there, for whoever measures.
        let when = "when() { echo \"$1 $(date +%s.%N)\" >>when; }";
        let script = format!("#!/bin/sh\ncd '{}' || exit 1\n{when}\n{body}\n", self.dir.display());
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

    #[allow(dead_code, reason = "shared with the benchmark")]
    pub fn has(&self, name: &str) -> bool {
        self.dir.join(name).exists()
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.dir.join(name)).unwrap();
    }

    /// Of a GPU that nobody knows anything about yet: it is to be checked.
    pub const ODD: &str = "NVRM: Xid (PCI:0000:9b:00): 999, pid=1, name=train, something new";

    /// The kernel tells where a GPU is, so that its lines are of that one.
    pub fn name_gpu(&self, gpu: &str) {
        self.log(&format!("NVRM: GPU at PCI:0000:9b:00: {gpu}"));
    }

    /// A line of the kernel's, now.
    pub fn log(&self, message: &str) {
        let before = self.read("log");
        let number = before.lines().count() + 1;
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let (seconds, hundredths) = uptime.split(' ').next().unwrap().split_once('.').unwrap();
        self.set("log", &format!("{before}4,{number},{seconds}{hundredths}0000,-;{message}\n"));
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// What was done to it, in order.
    pub fn done(&self) -> Vec<String> {
        // Whoever rebooted it while somebody's task ran there took that task's work.
        let undisturbed = self.read("disturbed").lines().all(|line| line == "busy.*");
        assert!(undisturbed, "it was rebooted under {}", self.read("disturbed"));
        self.read("done").lines().map(str::to_owned).collect()
    }

    pub fn reboots(&self) -> usize {
        self.done().iter().filter(|done| *done == "reboot").count()
    }
}

/// All processes: number, status, command line.
fn processes() -> impl Iterator<Item = (String, String, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((entry.file_name().into_string().ok()?, stat, String::from_utf8_lossy(&line).into_owned()))
    })
}

/// Of a process, by its status.
fn parent(stat: &str) -> &str {
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).unwrap_or_default()
}
