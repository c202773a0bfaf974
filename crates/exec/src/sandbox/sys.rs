//! Calls of the system that have no safe form in the libraries that are used here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Mounts; see `mount(2)`. Paths are relative to the current directory.
pub fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, kind, data) = (CString::new(source)?, CString::new(kind)?, CString::new(data)?);
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: all pointers are to strings that end with NUL and live until the call returns; it keeps none of them.
    let done = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast::<libc::c_void>())
    };
    told(done)
}

/// The path by which an open file can be mounted.
pub fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Takes a mount, and all below it, out of the tree, though files on it may be open.
pub fn detach(target: &CStr) -> io::Result<()> {
    // SAFETY: the pointer is to a string that ends with NUL; the call keeps it not.
    told(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
}

/// The flags of a mount that nobody but root of the machine may take from it.
pub fn kept(flags: rustix::fs::StatVfsMountFlags) -> libc::c_ulong {
    use rustix::fs::StatVfsMountFlags as Flags;
    let all = [(Flags::NOSUID, libc::MS_NOSUID), (Flags::NODEV, libc::MS_NODEV), (Flags::NOEXEC, libc::MS_NOEXEC)];
    all.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, flag)| flag).sum()
}

/// Gives this process namespaces of its own (`CLONE_NEW…`); that of processes begins with its next child.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: only flags for namespaces are passed, so the memory and the descriptors of this process stay its own.
    told(unsafe { libc::unshare(flags) })
}

/// Which of the two a process is after [`fork`].
pub enum Fork {
    Parent(libc::pid_t),
    Child,
}

/// Doubles this process, which must have one thread alone.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: a box has a single thread, so no lock is held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Waits for a child to end; any, for -1. Gives its number and its status.
pub fn wait(pid: libc::pid_t) -> io::Result<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            pid => return Ok((pid, status)),
        }
    }
}

/// The exit code as a shell shows it.
pub fn code_of(status: libc::c_int) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// What happens at a signal: nothing, or what the system does.
pub fn on_signal(signal: libc::c_int, ignore: bool) {
    // SAFETY: no handler of ours is installed, only one of the two that the system has.
    unsafe { libc::signal(signal, if ignore { libc::SIG_IGN } else { libc::SIG_DFL }) };
}

/// Sets who this process is, for good: groups first, since the user may not.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is to as many numbers as are said.
    told(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: these take numbers.
    told(unsafe { libc::setresgid(gid, gid, gid) })?;
    told(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Takes a capability from all programs that this process will ever execute.
pub fn drop_capability(number: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) } {
        0 => Ok(()),
        // A kernel that does not know it does not grant it.
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            error => Err(error),
        },
    }
}

pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer is to as many bytes as are said.
    told(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

/// Makes one of stdin, stdout and stderr what this file is.
pub fn replace(number: libc::c_int, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two numbers of descriptors, of which this process owns both.
    match unsafe { libc::dup2(file.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Enters namespaces of another process; that of processes begins with the next child.
pub fn join(pid: i32, flags: libc::c_int) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    // SAFETY: takes numbers; only flags for namespaces are passed.
    told(unsafe { libc::setns(process.as_raw_fd(), flags) })
}

/// Ends a process at once.
pub fn kill(pid: libc::pid_t) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Begins a new, empty set of keys of the kernel. Kernels without keys have nothing to forget.
pub fn forget_keys() {
    // The first of the operations of `keyctl(2)`, which libc has no name for.
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: takes a number and a null pointer, which stands for a keyring without a name.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Becomes another program; returns only if that fails.
pub fn execute(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| {
        let mut all: Vec<*const libc::c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        all.push(std::ptr::null());
        all
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer, and hold pointers to strings that end with NUL and outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn told(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
