//! Limits by control groups, version 2 or 1, wherever a hierarchy can be written to.
//!
//! New groups are made below the group that this process is in, so whatever limits us limits them too. Nothing is ever
//! required: without a usable hierarchy there are no limits, and [`Controllers::remarks`] says why.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::runner::strays::signal_all;
use crate::spec::Limits;

/// In version 2 a group that hands out controllers must not hold processes itself; ours move to this one below it.
const OWN_LEAF: &str = "pitcrew-main";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups can be made, per controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controllers {
    version: Version,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    /// For people: why a limit cannot be enforced, one sentence each.
    pub remarks: Vec<String>,
}

/// The group of one attempt; one directory per controller in version 1.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

impl Controllers {
    /// Finds what this process may use. In version 2 this may move processes of this program into a group of their own.
    pub fn detect() -> Controllers {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let groups = Groups::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        if let Some(own) = groups.unified.as_deref()
            && controllers_in(own).iter().any(|c| c == "memory" || c == "cpu")
        {
            return Self::version_two(own);
        }
        let mut remarks = Vec::new();
        let mut usable = |controller: &str, own: Option<PathBuf>, file: &str| {
            let problem = match own {
                None => Some("there is no such cgroup hierarchy".to_owned()),
                Some(dir) => match probe(&dir, file) {
                    Ok(()) => return Some(dir),
                    Err(error) => Some(format!("cannot make a cgroup in `{}`: {error}", dir.display())),
                },
            };
            remarks.extend(problem.map(|p| format!("limits on {controller} are not enforced: {p}")));
            None
        };
        let memory = usable("memory", groups.memory, "memory.limit_in_bytes");
        let cpu = usable("cpu", groups.cpu, "cpu.cfs_quota_us");
        Controllers { version: Version::One, memory, cpu, remarks }
    }

    fn version_two(own: &Path) -> Controllers {
        let parent = if own.ends_with(OWN_LEAF) { own.parent().unwrap_or(own) } else { own };
        let mut remarks = Vec::new();
        let mut usable =
            |controller: &str, file: &str| match delegate(parent, controller).and_then(|()| probe(parent, file)) {
                Ok(()) => Some(parent.to_owned()),
                Err(error) => {
                    remarks.push(format!(
                    "limits on {controller} are not enforced: cannot use the cgroup `{}`: {error}; a systemd service \
                     needs `Delegate=yes`",
                    parent.display()
                ));
                    None
                }
            };
        let memory = usable("memory", "memory.max");
        let cpu = usable("cpu", "cpu.max");
        Controllers { version: Version::Two, memory, cpu, remarks }
    }

    pub fn can_limit_memory(&self) -> bool {
        self.memory.is_some()
    }

    pub fn can_limit_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Makes a group with these limits; `None` when there is nothing that could be enforced.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<Option<Cgroup>> {
        let dir = |parent: &Option<PathBuf>, wanted: bool| parent.as_ref().filter(|_| wanted).map(|p| p.join(name));
        let group = Cgroup {
            version: self.version,
            memory: dir(&self.memory, limits.memory_bytes.is_some()),
            cpu: dir(&self.cpu, limits.cpu_milli.is_some()),
        };
        if group.dirs().is_empty() {
            return Ok(None);
        }
        let made = group.dirs().into_iter().try_for_each(std::fs::create_dir).and_then(|()| group.limit(limits));
        if let Err(error) = made {
            group.remove();
            return Err(error);
        }
        Ok(Some(group))
    }

    /// Ends and removes groups that a killed runner left, by the beginning of their names.
    pub fn sweep(&self, prefix: &str) {
        for parent in [&self.memory, &self.cpu].into_iter().flatten() {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)) {
                let group = Cgroup { version: self.version, memory: Some(entry.path()), cpu: None };
                group.kill();
                group.remove();
            }
        }
    }
}

impl Cgroup {
    fn dirs(&self) -> Vec<&PathBuf> {
        let mut dirs: Vec<&PathBuf> = [&self.memory, &self.cpu].into_iter().flatten().collect();
        dirs.dedup();
        dirs
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        if let (Some(dir), Some(bytes)) = (&self.memory, limits.memory_bytes) {
            match self.version {
                Version::One => {
                    set(dir, "memory.limit_in_bytes", &bytes.to_string())?;
                    // With swap accounting; without it the file does not exist.
                    let _ = set(dir, "memory.memsw.limit_in_bytes", &bytes.to_string());
                }
                Version::Two => {
                    set(dir, "memory.max", &bytes.to_string())?;
                    let _ = set(dir, "memory.swap.max", "0");
                    // All of the attempt or nothing: half a killed attempt seldom ends by itself.
                    let _ = set(dir, "memory.oom.group", "1");
                }
            }
        }
        if let (Some(dir), Some(milli)) = (&self.cpu, limits.cpu_milli) {
            // The kernel refuses less than 1 ms of each 100 ms.
            let quota = u64::from(milli.max(10)) * 100;
            match self.version {
                Version::One => {
                    set(dir, "cpu.cfs_period_us", "100000")?;
                    set(dir, "cpu.cfs_quota_us", &quota.to_string())?;
                }
                Version::Two => set(dir, "cpu.max", &format!("{quota} 100000"))?,
            }
        }
        Ok(())
    }

    /// Open files, a `0` written to which moves the writer into the group.
    pub fn entrances(&self) -> io::Result<Vec<File>> {
        self.dirs().iter().map(|dir| OpenOptions::new().write(true).open(dir.join("cgroup.procs"))).collect()
    }

    /// How many processes of the group were killed because it was out of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = &self.memory else { return 0 };
        match self.version {
            Version::One => field(dir, "memory.oom_control", "oom_kill")
                // Kernels before 4.13 do not count victims; they count refusals.
                .unwrap_or_else(|| number(dir, "memory.failcnt").unwrap_or(0)),
            Version::Two => field(dir, "memory.events", "oom_kill").unwrap_or(0),
        }
    }

    /// The most memory that all its processes used together, in bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        let dir = self.memory.as_ref()?;
        match self.version {
            Version::One => number(dir, "memory.max_usage_in_bytes"),
            Version::Two => number(dir, "memory.peak"),
        }
    }

    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .dirs()
            .iter()
            .filter_map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    pub fn kill(&self) {
        signal_all(self.processes(), Signal::KILL);
    }

    /// Removes the group; says whether it is gone. It stays while a process in it has not quite ended.
    pub fn remove(&self) -> bool {
        let gone = |dir: &&PathBuf| match std::fs::remove_dir(dir) {
            Ok(()) => true,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        self.dirs().iter().filter(|dir| !gone(dir)).count() == 0
    }
}

/// The groups that this process is in, as directories.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    unified: Option<PathBuf>,
}

impl Groups {
    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`.
    fn parse(mounts: &str, memberships: &str) -> Groups {
        let membership = |controller: &str| {
            memberships.lines().find_map(|line| {
                // `4:cpu,cpuacct:/user.slice`, and `0::/user.slice` in version 2.
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                controllers.split(',').any(|c| c == controller).then_some(path)
            })
        };
        let mut groups = Groups::default();
        for line in mounts.lines() {
            // `31 23 0:26 /root /mount/point options - type source super-options`
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (before, after): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), after.split(' ').collect());
            let (&[_, _, _, root, mount, ..], &[kind, _, options, ..]) = (&before[..], &after[..]) else { continue };
            let has = |controller: &str| options.split(',').any(|o| o == controller);
            let own = |controller: &str| membership(controller).map(|path| directory(mount, root, path));
            match kind {
                "cgroup2" => groups.unified = own(""),
                "cgroup" if has("memory") => groups.memory = own("memory"),
                "cgroup" if has("cpu") => groups.cpu = own("cpu"),
                _ => {}
            }
        }
        groups
    }
}

/// A container sees a part of the tree mounted, while its membership may be told from the root of the whole.
fn directory(mount: &str, root: &str, membership: &str) -> PathBuf {
    let inside = Path::new(membership).strip_prefix(root).unwrap_or(Path::new(""));
    let dir = Path::new(mount).join(inside.strip_prefix("/").unwrap_or(inside));
    if dir.is_dir() { dir } else { PathBuf::from(mount) }
}

fn controllers_in(dir: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    list.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Lets groups below `parent` use a controller of version 2.
fn delegate(parent: &Path, controller: &str) -> io::Result<()> {
    let enabled = std::fs::read_to_string(parent.join("cgroup.subtree_control"))?;
    if enabled.split_ascii_whitespace().any(|c| c == controller) {
        return Ok(());
    }
    let enable = || set(parent, "cgroup.subtree_control", &format!("+{controller}"));
    match enable() {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            move_own_processes(parent)?;
            enable()
        }
        result => result,
    }
}

/// Moves processes of this very program, and no others, out of the way.
fn move_own_processes(parent: &Path) -> io::Result<()> {
    let leaf = parent.join(OWN_LEAF);
    match std::fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let program = std::fs::read_link("/proc/self/exe")?;
    for pid in std::fs::read_to_string(parent.join("cgroup.procs"))?.lines() {
        if std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program) {
            set(&leaf, "cgroup.procs", pid)?;
        }
    }
    Ok(())
}

/// Can a group with this control file be made here?
fn probe(parent: &Path, file: &str) -> io::Result<()> {
    let dir = parent.join(format!("pitcrew-probe-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let writable = OpenOptions::new().write(true).open(dir.join(file)).map(drop);
    std::fs::remove_dir(&dir)?;
    writable
}

fn set(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    // Not `fs::write`: a control file that is missing must not be created.
    io::Write::write_all(&mut OpenOptions::new().write(true).open(dir.join(file))?, value.as_bytes())
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn field(dir: &Path, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(dir.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_found_in_both_versions_and_in_containers() {
        let one = "25 20 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                   26 20 0:23 /docker/abc /mnt/memory rw - cgroup cgroup rw,memory\n\
                   27 20 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let groups = Groups::parse(one, "4:memory:/docker/abc\n3:cpu,cpuacct:/none-such\n0::/none-such\n");
        assert_eq!(groups.memory.as_deref(), Some(Path::new("/mnt/memory")));
        assert_eq!(groups.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(groups.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(Groups::parse("nonsense\n", ""), Groups::default());
    }

    /// A directory with the files of version 2, since no machine has both versions of a controller at once.
    #[test]
    fn version_two_writes_and_reads_its_own_files() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().to_owned();
        let group = Cgroup { version: Version::Two, memory: Some(dir.clone()), cpu: Some(dir.clone()) };
        for file in ["memory.max", "cpu.max", "memory.oom.group"] {
            std::fs::write(dir.join(file), "").unwrap();
        }
        group.limit(&Limits { cpu_milli: Some(1500), memory_bytes: Some(4096) }).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("memory.max")).unwrap(), "4096");
        assert_eq!(std::fs::read_to_string(dir.join("cpu.max")).unwrap(), "150000 100000");
        std::fs::write(dir.join("memory.events"), "low 0\noom 2\noom_kill 1\noom_group_kill 5\n").unwrap();
        std::fs::write(dir.join("memory.peak"), "8192\n").unwrap();
        std::fs::write(dir.join("cgroup.procs"), "12\n7\n").unwrap();
        assert_eq!((group.oom_kills(), group.peak_memory(), group.processes()), (1, Some(8192), vec![7, 12]));
        std::fs::remove_file(dir.join("memory.max")).unwrap();
        assert!(group.limit(&Limits { cpu_milli: None, memory_bytes: Some(1) }).is_err());
    }
}
