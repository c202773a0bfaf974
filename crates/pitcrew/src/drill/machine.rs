//! A machine of a drill: a directory that says what it is, and the scripts that act by it.
//!
//! Whoever reaches it over SSH finds programs as on a GPU server (`nvidia-smi`, `dcgmi`) and `machine`, by which the commands of
//! recovery are done. What runs there are processes of this computer that carry the machine's mark, so that all of them end
//! when it is cut off.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use pitcrew_control::clock;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{mpsc, watch};

use super::fault::Fault;

/// In the environment of all that runs on a machine: its directory.
const MARK: &str = "PITCREW_DRILL";
const PROGRAMS: [(&str, &str); 3] = [
    ("machine", include_str!("bin/machine")),
    ("nvidia-smi", include_str!("bin/nvidia-smi")),
    ("dcgmi", include_str!("bin/dcgmi")),
];
/// How often processes are looked for that began while others were ended.
const SWEEPS: u32 = 50;
/// Between two looks for them.
const SWEEP: Duration = Duration::from_millis(20);

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub at: Timestamp,
    pub node: String,
    pub what: String,
}

/// See the module.
pub struct Machine {
    pub name: String,
    dir: PathBuf,
    /// How long it takes to come up.
    boot: Duration,
    is_up: watch::Sender<bool>,
    happened: mpsc::UnboundedSender<Happened>,
}

impl Machine {
    /// Makes it, with so many GPUs, up and well.
    pub fn make(
        dir: PathBuf,
        name: &str,
        gpus: u32,
        boot: Duration,
        happened: mpsc::UnboundedSender<Happened>,
    ) -> anyhow::Result<Machine> {
        let made = || -> std::io::Result<()> {
            use std::os::unix::fs::PermissionsExt as _;
            for inner in ["bin", "home", "gpus"] {
                std::fs::create_dir_all(dir.join(inner))?;
            }
            for (program, text) in PROGRAMS {
                let path = dir.join("bin").join(program);
                std::fs::write(&path, text)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        };
        made().with_context(|| format!("cannot make the machine `{}`", dir.display()))?;
        let machine = Machine { name: name.to_owned(), dir, boot, is_up: watch::Sender::new(true), happened };
        for index in 0..gpus {
            machine.set_gpu(index, "ok")?;
        }
        machine.begin()?;
        Ok(machine)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The environment of whatever runs there.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        vec![
            (MARK, self.dir.display().to_string()),
            ("HOME", self.dir.join("home").display().to_string()),
            ("PATH", format!("{}:{path}", self.dir.join("bin").display())),
            ("LANG", "C.UTF-8".to_owned()),
        ]
    }

    /// Whether it runs, now and later.
    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }

    /// Breaks it; the GPU is one of those that it has.
    pub async fn suffer(&self, fault: Fault, gpu: u32) -> anyhow::Result<()> {
        match fault {
            Fault::Xid79 | Fault::RebootFails => {
                if fault == Fault::RebootFails {
                    self.put("stuck", "")?;
                }
                self.set_gpu(gpu, "lost")?;
                self.log(gpu, "79, pid=4242, name=train, GPU has fallen off the bus.")?;
            }
            Fault::Ecc => {
                self.set_gpu(gpu, "ecc")?;
                self.log(gpu, "95, pid=4242, name=train, Uncontained ECC error.")?;
            }
            Fault::LostGpu => self.set_gpu(gpu, "lost")?,
            Fault::Hang => self.put("hang", "1\n")?,
            Fault::AppFailure => self.put("crash", "")?,
            Fault::NodeLost => self.restart("its power is cut").await?,
        }
        Ok(())
    }

    /// What was done to it by its programs since this was asked last.
    pub async fn look(&self) -> anyhow::Result<()> {
        let told = self.dir.join("told");
        let taken = self.dir.join("told.taken");
        if std::fs::rename(&told, &taken).is_ok() {
            for line in std::fs::read_to_string(&taken).unwrap_or_default().lines() {
                self.say(line);
            }
        }
        if std::fs::remove_file(self.dir.join("rebooting")).is_ok() {
            self.restart("it goes down").await?;
        }
        Ok(())
    }

    /// Everything on it ends at once; it comes up again as another boot, with all that a boot mends, unless it is stuck.
    async fn restart(&self, why: &str) -> anyhow::Result<()> {
        self.cut().await;
        self.say(why);
        if self.dir.join("stuck").exists() {
            return Ok(());
        }
        tokio::time::sleep(self.boot).await;
        for index in 0..self.gpus() {
            self.set_gpu(index, "ok")?;
        }
        self.begin()?;
        self.is_up.send_replace(true);
        self.say("it is up again, as another boot");
        Ok(())
    }

    /// Ends whatever runs there, and answers nobody.
    pub async fn cut(&self) {
        self.is_up.send_replace(false);
        let mark = format!("{MARK}={}", self.dir.display());
        for _ in 0..SWEEPS {
            let found = marked(&mark);
            if found.is_empty() {
                return;
            }
            for process in found {
                // One that has ended meanwhile is what is wanted.
                let _ = kill_process(process, Signal::KILL);
            }
            tokio::time::sleep(SWEEP).await;
        }
    }

    /// A new boot: its id, and a kernel's log that is empty.
    fn begin(&self) -> anyhow::Result<()> {
        self.put("kmsg", "")?;
        self.put("boot", &format!("{}\n", uuid::Uuid::now_v7()))
    }

    fn say(&self, what: &str) {
        let happened = Happened { at: clock::now(), node: self.name.clone(), what: what.to_owned() };
        // Whoever watched has left.
        let _ = self.happened.send(happened);
    }

    fn gpus(&self) -> u32 {
        let files = std::fs::read_dir(self.dir.join("gpus")).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())).count() as u32
    }

    pub fn uuid(&self, gpu: u32) -> String {
        // As the kernel's lines have it, which is of hexadecimal digits.
        let number: String = self.name.chars().filter(char::is_ascii_digit).collect();
        format!("GPU-{number:0>8}-{gpu}")
    }

    fn address(gpu: u32) -> String {
        format!("0000:{:02x}:00", 0x10 + gpu)
    }

    fn set_gpu(&self, gpu: u32, state: &str) -> anyhow::Result<()> {
        self.put(&format!("gpus/{gpu}"), &format!("{} {state} {}\n", self.uuid(gpu), Machine::address(gpu)))
    }

    /// The kernel says something of a GPU, and first which one it is, as its driver does.
    fn log(&self, gpu: u32, xid: &str) -> anyhow::Result<()> {
        let before = std::fs::read_to_string(self.dir.join("kmsg")).unwrap_or_default();
        let uptime = std::fs::read_to_string("/proc/uptime").context("cannot read how long this computer is up")?;
        let seconds: f64 = uptime.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default();
        let (number, micros, address) = (before.lines().count() + 1, (seconds * 1e6) as u64, Machine::address(gpu));
        let device = format!("6,{number},{micros},-;NVRM: GPU at PCI:{address}: {}\n", self.uuid(gpu));
        let xid = format!("4,{},{micros},-;NVRM: Xid (PCI:{address}): {xid}\n", number + 1);
        self.put("kmsg", &format!("{before}{device}{xid}"))
    }

    /// A file, whole.
    fn put(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let (path, new) = (self.dir.join(name), self.dir.join("new"));
        let put = std::fs::write(&new, content).and_then(|()| std::fs::rename(&new, &path));
        put.with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// The processes that have this in their environment.
fn marked(mark: &str) -> Vec<Pid> {
    let carries = |pid: i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| carries(*pid)).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn whatever_runs_on_a_machine_ends_when_it_is_cut_off_and_nothing_else_does() {
        let dir = std::env::temp_dir().join(format!("pitcrew-drill-{}", uuid::Uuid::now_v7()));
        let (sender, _happened) = mpsc::unbounded_channel();
        let make = |name: &str| Machine::make(dir.join(name), name, 1, Duration::ZERO, sender.clone()).unwrap();
        let (one, other) = (make("m1"), make("m10"));
        let begin = |machine: &Machine| {
            // A child of its own session, as the keeper of an attempt is.
            let script = "setsid sleep 60 & wait";
            Command::new("/bin/sh").args(["-c", script]).env_clear().envs(machine.env()).spawn().unwrap()
        };
        let (mut runs, mut stays) = (begin(&one), begin(&other));
        one.cut().await;
        assert!(!runs.wait().unwrap().success());
        assert!(!*one.is_up().borrow() && *other.is_up().borrow());
        assert!(marked(&format!("{MARK}={}", one.dir().display())).is_empty());
        assert_eq!(stays.try_wait().unwrap(), None);
        other.cut().await;
        stays.wait().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
