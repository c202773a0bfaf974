//! Starting one process: in its own process group, with its own environment, and with reasons that people understand
//! when it does not start.
//!
//! Without a cgroup to enter, the standard library starts it by `posix_spawn`, which copies no page table.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::reaper::{Reaped, Reaper};
use crate::program;

/// What to start.
pub struct Plan<'a> {
    /// Program and arguments; not empty.
    pub argv: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub workdir: &'a Path,
    /// `cgroup.procs` files of the cgroups to enter.
    pub cgroups: &'a [File],
    /// The limit on open files to give back: the runner's own is higher.
    pub open_files: Option<Rlimit>,
    /// What it reads; nothing, for `None`.
    pub stdin: Option<File>,
}

/// A process that was started. Its number is also that of its group.
pub struct Spawned {
    pub pid: i32,
    pub exit: oneshot::Receiver<Reaped>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Starts a process; the error is a sentence for people.
pub fn spawn(reaper: &Reaper, plan: Plan<'_>) -> Result<Spawned, String> {
    let name = plan.argv.first().filter(|n| !n.is_empty()).ok_or("the command is empty")?;
    let path = plan.env.get("PATH").map_or("", String::as_str);
    let program = program::find(name, path, plan.workdir)
        .ok_or_else(|| format!("there is no program `{name}` in PATH (`{path}`)"))?;
    let mut command = Command::new(&program);
    command
        .arg0(name)
        .args(&plan.argv[1..])
        .env_clear()
        .envs(plan.env)
        .current_dir(plan.workdir)
        .stdin(plan.stdin.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if !plan.cgroups.is_empty() {
        enter_cgroups(&mut command, plan.cgroups);
    }
    let mut child = command.spawn().map_err(|error| explain(&error, name, &program, plan.workdir))?;
    let pid = child.id().cast_signed();
    if let (Some(limit), Some(process)) = (plan.open_files, Pid::from_raw(pid)) {
        // It can have ended already.
        let _ = rustix::process::prlimit(Some(process), Resource::Nofile, limit);
    }
    let exit = reaper.watch(pid);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked for");
    };
    Ok(Spawned { pid, exit, stdout: stdout.into(), stderr: stderr.into() })
}

fn enter_cgroups(command: &mut Command, cgroups: &[File]) {
    let files: Vec<i32> = cgroups.iter().map(AsRawFd::as_raw_fd).collect();
    let enter = move || {
        for file in &files {
            // SAFETY: writes one byte from a static string to a descriptor that the caller keeps open over `spawn`.
            if unsafe { libc::write(*file, b"0".as_ptr().cast(), 1) } != 1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it only calls `write`, which is async-signal-safe, and reads memory; `last_os_error`
    // reads `errno` and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// Says what stands in the way, since the system tells only "no such file" for three different things.
fn explain(error: &io::Error, name: &str, program: &Path, workdir: &Path) -> String {
    match workdir.metadata() {
        Ok(found) if !found.is_dir() => {
            return format!("the working directory `{}` is no directory", workdir.display());
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return format!("the working directory `{}` does not exist", workdir.display());
        }
        Err(e) => return format!("cannot use the working directory `{}`: {e}", workdir.display()),
    }
    match error.raw_os_error() {
        Some(libc::ENOENT) if !program.exists() => format!("there is no program `{name}`"),
        Some(libc::ENOENT) => format!("the interpreter that the first line of `{name}` names does not exist"),
        Some(libc::EACCES) if !program::is_executable(program) => {
            format!("`{name}` is not executable; try `chmod +x {}`", program.display())
        }
        Some(libc::EACCES) => format!("permission denied: `{name}` or its working directory `{}`", workdir.display()),
        Some(libc::ENOEXEC) => format!("`{name}` is no program for this machine, and has no `#!` line"),
        Some(libc::E2BIG) => "arguments and environment are larger than the system allows".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "too many open files; raise the limit (`ulimit -n`)".to_owned(),
        Some(libc::EAGAIN) => {
            "too many processes; raise the limit (`ulimit -u`, or `pids.max` of the cgroup)".to_owned()
        }
        None if error.kind() == io::ErrorKind::InvalidInput => {
            "an argument or an environment variable contains a NUL byte".to_owned()
        }
        _ => format!("cannot start `{name}`: {error}"),
    }
}

/// Sends a signal to a process group; says whether anybody got it.
///
/// The number of a group whose leader was collected stays taken while the group has members; without any, it could in
/// theory mean a new group already. Numbers are given out in a circle of at least 32,768, so callers must only be quick.
pub fn signal_group(group: i32, signal: Signal) -> bool {
    Pid::from_raw(group).is_some_and(|group| rustix::process::kill_process_group(group, signal).is_ok())
}

/// Does the group have a member, if only one that is not collected yet?
pub fn group_exists(group: i32) -> bool {
    Pid::from_raw(group).is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok())
}

/// What a helper program prints, and why that may not be all; or why there is nothing. It is killed when it takes longer
/// than `patience`.
pub async fn capture(
    reaper: &Reaper,
    argv: &[String],
    env: &BTreeMap<String, String>,
    patience: Duration,
) -> Result<(String, Option<String>), String> {
    let root = PathBuf::from("/");
    let plan = Plan { argv, env, workdir: &root, cgroups: &[], open_files: None, stdin: None };
    let spawned = spawn(reaper, plan)?;
    let answer = async {
        let mut stdout = pipe::Receiver::from_owned_fd(spawned.stdout).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        (&mut stdout).take(1 << 20).read_to_end(&mut bytes).await.map_err(|e| e.to_string())?;
        let reaped = spawned.exit.await.map_err(|_| "its end was missed".to_owned())?;
        let failed = (!reaped.status.success()).then(|| format!("`{}` failed: {}", argv[0], reaped.status));
        Ok((String::from_utf8_lossy(&bytes).into_owned(), failed))
    };
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            signal_group(spawned.pid, Signal::KILL);
            Err(format!("`{}` did not answer within {} s", argv[0], patience.as_secs()))
        }
    }
}
