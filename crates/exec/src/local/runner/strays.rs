//! Finding the processes of an attempt that left its process group: daemons, `setsid`, `nohup` with job control.
//!
//! Three facts together find them: a descendant of the step, a process of the attempt's cgroup, and a process whose
//! environment still carries the attempt's mark. Only one that hides from all three escapes, and without a cgroup that
//! takes a cleared environment *and* a dead parent.

use std::collections::{BTreeSet, HashMap};

use rustix::process::{Pid, Signal};

/// A process outside or inside the group of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    pub pid: i32,
    /// Its process group.
    pub group: i32,
}

/// The processes that carry the mark (`NAME=value`, as in their environment), are listed in `known`, or descend from
/// one that does or is. Zombies and the caller are never among them.
pub fn find(mark: &str, known: &[i32]) -> Vec<Stray> {
    let me = std::process::id().cast_signed();
    let all: HashMap<i32, Status> =
        all_processes().filter(|pid| *pid != me).filter_map(|pid| Some((pid, status_of(pid)?))).collect();
    let mut found: BTreeSet<i32> =
        all.keys().copied().filter(|pid| known.contains(pid) || is_marked(*pid, mark)).collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, status)| !found.contains(pid) && found.contains(&status.parent))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.into_iter().map(|pid| Stray { pid, group: all[&pid].group }).collect()
}

/// Sends a signal to each; who ended meanwhile is passed over.
pub fn signal_all(pids: impl IntoIterator<Item = i32>, signal: Signal) {
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Ends each, at once.
pub fn kill(strays: &[Stray]) {
    signal_all(strays.iter().map(|stray| stray.pid), Signal::KILL);
}

/// Direct children of this process, orphans that it inherited included; `None` where the kernel does not list them.
pub fn children() -> Option<Vec<i32>> {
    let me = std::process::id();
    let list = std::fs::read_to_string(format!("/proc/self/task/{me}/children")).ok()?;
    Some(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Was the process started with the mark in its environment?
pub fn is_marked(pid: i32, mark: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()))
}

fn all_processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

struct Status {
    parent: i32,
    group: i32,
}

/// What the kernel says of a live process; `None` for a zombie.
fn status_of(pid: i32) -> Option<Status> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state parent group …`, and the name may contain anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    Some(Status { parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}
