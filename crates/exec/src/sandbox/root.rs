//! The root directory of a container.
//!
//! Made in three parts: what needs the machine's tree (its files, devices and volumes are opened there), then the change of roots, then
//! all that is mounted inside. So every target is looked up in the container's own tree, where a link cannot lead out of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use pitcrew_core::pod::FileEntry;
use rustix::fs::{Mode, OFlags};

use super::image::WRAPPER;
use super::plan::{BoxPlan, From};
use super::{layers, open, sys, user};

const PRIVATE: libc::c_ulong = libc::MS_REC | libc::MS_PRIVATE;
const BARE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;
/// Empty in every container, with their permissions.
const HIDDEN: [(&str, &str); 12] = [
    ("/root", "0700"),
    ("/home", "0755"),
    ("/tmp", "1777"),
    ("/run", "0755"),
    ("/var/tmp", "1777"),
    ("/mnt", "0755"),
    ("/media", "0755"),
    ("/srv", "0755"),
    ("/var/spool", "0755"),
    ("/var/lib/docker", "0700"),
    ("/var/lib/kubelet", "0700"),
    ("/etc/kubernetes", "0700"),
];
/// Directories with programs, and kinds of file systems that are disks.
const PROGRAMS: [&str; 7] = ["/usr", "/opt", "/lib", "/lib64", "/bin", "/sbin", "/etc"];
const DISKS: [&str; 6] = ["ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Parts of `/proc` that speak of the whole machine: to be read alone, and not to be read at all.
const PROC_READ_ONLY: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];
const PROC_HIDDEN: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"];
/// Files with secrets of the machine, beside the keys of its SSH server.
const SECRET_FILES: [&str; 2] = ["/etc/shadow", "/etc/gshadow"];

/// What is mounted inside later.
struct Source {
    at: String,
    fd: OwnedFd,
    is_file: bool,
    is_read_only: bool,
}

/// Makes the root and enters it. The error is a sentence for people.
pub fn make(plan: &BoxPlan) -> Result<(), String> {
    sys::mount("none", Path::new("/"), "", PRIVATE, "").map_err(|e| format!("cannot make its mounts private: {e}"))?;
    let sources = prepare(plan)?;
    let devices = opened_devices(plan);
    let system = open::directory(Path::new("/sys"));
    let names = fs::read("/etc/resolv.conf").ok();
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let layers = enter(plan)?;

    let told = |what: &str, result: io::Result<()>| result.map_err(|e| format!("cannot make {what}: {e}"));
    told("`/proc`", mount_new("proc", "/proc", BARE | libc::MS_NOEXEC, ""))?;
    if let Ok(system) = system {
        let _ = fs::create_dir_all("/sys");
        told("`/sys`", bind(&system, "/sys", true).map(drop))?;
    }
    told("`/dev`", make_dev(devices))?;
    for (path, mode) in HIDDEN {
        told(&format!("an empty `{path}`"), hide(Path::new(path), mode))?;
    }
    for path in &plan.hide {
        told("an empty data directory", hide(path, "0755"))?;
    }
    told("its `/etc`", make_etc(plan, names.as_deref(), &hosts))?;
    told("its programs", make_programs(plan))?;
    let mut read_only = Vec::new();
    for source in &sources {
        let mounted = place(source).map_err(|e| format!("cannot mount `{}`: {e}", source.at))?;
        read_only.push((mounted, source));
    }
    // Last, because mounts inside others need directories there.
    for (fd, source) in &read_only {
        let ro = if source.is_read_only { libc::MS_RDONLY } else { 0 };
        remount(fd, libc::MS_NODEV | ro).map_err(|e| format!("cannot mount `{}`: {e}", source.at))?;
    }
    let workdir = Path::new(&plan.work.workdir);
    if !workdir.is_dir() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o777).create(workdir);
        made.map_err(|e| format!("cannot make its working directory `{}`: {e}", workdir.display()))?;
    }
    told("`/proc` safe", guard_proc())?;
    // The machine's tree lies over our root since the change.
    rustix::process::chdir("/").map_err(|e| format!("cannot enter its root: {e}"))?;
    sys::detach(c".").map_err(|e| format!("cannot leave the machine's tree: {e}"))?;
    if plan.is_read_only {
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NODEV;
        for at in ["/"].into_iter().chain(layers.iter().map(String::as_str)) {
            told("its root read-only", sys::mount("none", Path::new(at), "", flags, ""))?;
        }
    }
    Ok(())
}

/// Opens what is mounted later, and makes what is in memory.
fn prepare(plan: &BoxPlan) -> Result<Vec<Source>, String> {
    let failed = |e: io::Error| format!("cannot prepare `{}`: {e}", plan.dir.display());
    for name in ["upper", "work", "root", "stage"] {
        let path = plan.dir.join(name);
        fs::create_dir(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    rustix::process::chdir(&plan.dir).map_err(|e| failed(e.into()))?;
    let mut sources = Vec::new();
    for (number, wanted) in plan.binds.iter().enumerate() {
        let stage = || -> io::Result<PathBuf> {
            let path = plan.dir.join(format!("stage/{number}"));
            fs::create_dir(&path)?;
            Ok(path)
        };
        let opened = match &wanted.from {
            From::Directory { path, sub } => below(path, sub.as_deref()),
            From::Files { files, sub } => stage().and_then(|path| {
                sys::mount("tmpfs", &path, "tmpfs", BARE, "mode=0755")?;
                files.iter().try_for_each(|file| write_file(&path, file, plan.work.person.fs_group))?;
                below(&path, sub.as_deref())
            }),
            From::Empty => stage().and_then(|path| {
                sys::mount("tmpfs", &path, "tmpfs", BARE, "mode=0777")?;
                below(&path, None)
            }),
        };
        let fd = opened.map_err(|e| format!("cannot open what is to be mounted at `{}`: {e}", wanted.at))?;
        let is_file = !fs::metadata(sys::path_of(fd.as_fd())).map_err(failed)?.is_dir();
        sources.push(Source { at: wanted.at.clone(), fd, is_file, is_read_only: wanted.is_read_only });
    }
    Ok(sources)
}

fn below(path: &Path, sub: Option<&str>) -> io::Result<OwnedFd> {
    let root = open::directory(path)?;
    match sub {
        Some(sub) => open::inside(&root, sub),
        None => Ok(root),
    }
}

fn write_file(root: &Path, file: &FileEntry, gid: Option<u32>) -> io::Result<()> {
    let path = root.join(open::relative(&file.path)?);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, &file.bytes)?;
    if !user::is_alone() {
        chown(&path, None, gid)?;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(file.mode & 0o777))
}

/// Changes the root to fresh layers over the machine's files, or over those of the image; gives where they lie beside the root itself.
fn enter(plan: &BoxPlan) -> Result<Vec<String>, String> {
    let layers = match user::is_alone() {
        true => layers::lay(plan.image.root.as_deref().unwrap_or(Path::new("/")))?,
        false => lay(plan).map(|()| Vec::new())?,
    };
    rustix::process::chdir("root")
        .and_then(|()| rustix::process::pivot_root(".", "."))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|e| format!("cannot change its root: {e}"))?;
    Ok(layers)
}

/// Lays one over the whole root.
fn lay(plan: &BoxPlan) -> Result<(), String> {
    let lower = match &plan.image.root {
        Some(root) => {
            Some(open::directory(root).map_err(|e| format!("cannot open the image's `{}`: {e}", root.display()))?)
        }
        None => None,
    };
    let lower_path = lower.as_ref().map_or_else(|| "/".to_owned(), |fd| sys::path_of(fd.as_fd()));
    let overlay = |layers: &str| {
        let data = format!("lowerdir={lower_path},{layers},volatile,index=off");
        sys::mount("overlay", Path::new("root"), "overlay", libc::MS_NODEV, &data)
    };
    overlay("upperdir=upper,workdir=work")
        .or_else(|_| {
            // Some file systems, such as an overlay, cannot hold the upper layer of another; memory can.
            sys::mount("tmpfs", Path::new("stage"), "tmpfs", BARE, "mode=0755")?;
            fs::create_dir("stage/upper")?;
            fs::create_dir("stage/work")?;
            overlay("upperdir=stage/upper,workdir=stage/work")
        })
        .map_err(|e| format!("cannot lay a fresh layer over `/` (overlayfs): {e}"))?;
    if plan.image.root.is_none() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for (number, at) in disks(&mounts).into_iter().enumerate() {
            add_disk(number, &at).map_err(|e| format!("cannot lay a fresh layer over `{at}`: {e}"))?;
        }
    }
    Ok(())
}

/// Other disks of the machine that hold programs: where they are mounted. A layer over `/` does not show them.
fn disks(mounts: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in mounts.lines() {
        // `31 23 0:26 /root /mount/point options - type source super-options`
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some(at), Some(kind)) = (before.split(' ').nth(4), after.split(' ').next()) else { continue };
        let is_wanted =
            PROGRAMS.iter().any(|top| at == *top || at.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')));
        // What has a sign in its name that means something to the kernel is left out.
        let is_plain = !at.contains(['\\', ',', ':']);
        if is_wanted && is_plain && DISKS.contains(&kind) && !found.iter().any(|other| other == at) {
            found.push(at.to_owned());
        }
    }
    found
}

fn add_disk(number: usize, at: &str) -> io::Result<()> {
    let (upper, work) = (format!("stage/upper-{number}"), format!("stage/work-{number}"));
    for path in [&upper, &work] {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let data = format!("lowerdir={at},upperdir={upper},workdir={work},volatile,index=off");
    sys::mount("overlay", &Path::new("root").join(at.trim_start_matches('/')), "overlay", libc::MS_NODEV, &data)
}

/// Each with its path, if it is there.
fn opened_devices(plan: &BoxPlan) -> Vec<(PathBuf, OwnedFd)> {
    let usual = DEVICES.iter().map(|name| Path::new("/dev").join(name));
    usual
        .chain(plan.devices.iter().cloned())
        .filter_map(|path| {
            let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            Some((path, fd))
        })
        .collect()
}

fn make_dev(devices: Vec<(PathBuf, OwnedFd)>) -> io::Result<()> {
    mount_new("tmpfs", "/dev", BARE, "mode=0755,size=64k")?;
    for (path, fd) in devices {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create(&path)?;
        sys::mount(&sys::path_of(fd.as_fd()), &path, "", libc::MS_BIND, "")?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("/dev").join(link))?;
    }
    mount_new("devpts", "/dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")?;
    mount_new("tmpfs", "/dev/shm", BARE, "mode=1777")?;
    // Not every kernel has these queues.
    let _ = mount_new("mqueue", "/dev/mqueue", BARE | libc::MS_NOEXEC, "");
    Ok(())
}

fn hide(path: &Path, mode: &str) -> io::Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    sys::mount("tmpfs", path, "tmpfs", BARE, &format!("mode={mode}"))
}

/// Who the machine is, what it is called, and nothing of its secrets.
fn make_etc(plan: &BoxPlan, names: Option<&[u8]>, hosts: &str) -> io::Result<()> {
    let hostname = &plan.hostname;
    if !Path::new("/etc").is_dir() {
        fs::create_dir("/etc")?;
    }
    if let Some(names) = names {
        // It may be a link to where the container sees nothing.
        replace("/etc/resolv.conf", names, 0o644)?;
    }
    replace("/etc/hosts", format!("{}\n127.0.0.1\t{hostname}\n", hosts.trim_end()).as_bytes(), 0o644)?;
    replace("/etc/hostname", format!("{hostname}\n").as_bytes(), 0o644)?;
    for path in SECRET_FILES {
        if Path::new(path).exists() {
            replace(path, b"root:*::::::\n", 0o600)?;
        }
    }
    for (name, id) in &plan.image.users {
        add_user(name, *id)?;
    }
    for entry in fs::read_dir("/etc/ssh").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("ssh_host_") && name.ends_with("_key") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a user with a group and a home, unless there is one of that name.
fn add_user(name: &str, id: u32) -> io::Result<()> {
    let home = format!("/home/{name}");
    for (path, line) in
        [("/etc/passwd", format!("{name}:x:{id}:{id}::{home}:/bin/sh\n")), ("/etc/group", format!("{name}:x:{id}:\n"))]
    {
        let known = fs::read_to_string(path).unwrap_or_default();
        if !known.lines().any(|line| line.split(':').next() == Some(name)) {
            // First, as whoever looks for the number takes the first that has it.
            replace(path, format!("{line}{known}").as_bytes(), 0o644)?;
        }
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&home)?;
    // Where the machine knows one user alone, that is whose it is.
    if user::is_alone() { Ok(()) } else { chown(&home, Some(id), Some(id)) }
}

/// Puts a new file in the place of what is there, without reading that first.
fn replace(path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    remove(path)?;
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn remove(path: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_programs(plan: &BoxPlan) -> io::Result<()> {
    let image = &plan.image;
    let shell = image.shell.iter().flat_map(|shell| ["/bin/sh", "/usr/bin/sh"].map(|link| (link, shell)));
    let links = image.links.iter().map(|(link, target)| (link.as_str(), target));
    for (link, target) in shell.chain(links) {
        // Where `/bin` is `/usr/bin` both names are one; and a program is no link to itself.
        if fs::read_link(link).is_ok_and(|at| at == *target) || Path::new(link) == target {
            continue;
        }
        if let Some(parent) = Path::new(link).parent() {
            fs::create_dir_all(parent)?;
        }
        remove(link)?;
        symlink(target, link)?;
    }
    if let Some(program) = &image.wrapped {
        let text = format!(
            "#!/bin/sh\ncase \"$1\" in -*) ;; *) command -v \"$1\" >/dev/null && exec \"$@\" ;; esac\nexec {program} \"$@\"\n"
        );
        replace(WRAPPER, text.as_bytes(), 0o755)?;
    }
    Ok(())
}

/// Mounts a source, and gives what is there now.
fn place(source: &Source) -> io::Result<OwnedFd> {
    let at = Path::new(&source.at);
    if source.is_file {
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        if !at.exists() {
            fs::File::create(at)?;
        }
    } else if !at.is_dir() {
        fs::create_dir_all(at)?;
    }
    bind(&source.fd, &source.at, false)
}

fn bind(source: &OwnedFd, at: &str, is_read_only: bool) -> io::Result<OwnedFd> {
    let from = sys::path_of(source.as_fd());
    // Mounts below it may not be left out without root.
    sys::mount(&from, Path::new(at), "", libc::MS_BIND, "")
        .or_else(|_| sys::mount(&from, Path::new(at), "", libc::MS_BIND | libc::MS_REC, ""))?;
    let mounted = rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if is_read_only {
        remount(&mounted, libc::MS_RDONLY | BARE | libc::MS_NOEXEC)?;
    }
    Ok(mounted)
}

fn remount(mounted: &OwnedFd, flags: libc::c_ulong) -> io::Result<()> {
    let path = sys::path_of(mounted.as_fd());
    // Without root what a mount forbids cannot be allowed again.
    let kept = if user::is_alone() { sys::kept(rustix::fs::fstatvfs(mounted)?.f_flag) } else { 0 };
    sys::mount("none", Path::new(&path), "", libc::MS_REMOUNT | libc::MS_BIND | flags | kept, "")
}

fn mount_new(kind: &str, at: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    if !Path::new(at).is_dir() {
        fs::create_dir_all(at)?;
    }
    sys::mount(kind, Path::new(at), kind, flags, data)
}

fn guard_proc() -> io::Result<()> {
    for path in PROC_READ_ONLY.into_iter().filter(|path| Path::new(path).exists()) {
        sys::mount(path, Path::new(path), "", libc::MS_BIND, "")?;
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | BARE | libc::MS_NOEXEC;
        sys::mount("none", Path::new(path), "", flags, "")?;
    }
    for path in PROC_HIDDEN.into_iter().filter(|path| Path::new(path).exists()) {
        sys::mount("/dev/null", Path::new(path), "", libc::MS_BIND, "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_with_programs_are_found_and_others_are_not() {
        let mounts = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      28 27 8:1 / /usr/local rw,relatime shared:9 - xfs /dev/sdb1 rw\n\
                      29 27 8:2 / /opt rw - ext4 /dev/sdc rw\n\
                      30 27 8:2 / /optional rw - ext4 /dev/sdc rw\n\
                      31 27 0:5 / /usr/tmp rw - tmpfs tmpfs rw\n\
                      32 27 8:3 / /home rw - ext4 /dev/sdd rw\n\
                      33 27 8:4 / /opt/a\\040b rw - ext4 /dev/sde rw\n";
        assert_eq!(disks(mounts), ["/usr/local", "/opt"]);
    }
}
