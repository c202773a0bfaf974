//! A box: the process that makes a container, and the first process inside it.
//!
//! It is this program itself, started with a hidden subcommand: one thread, nothing open but what it was given. Its plan comes by
//! its stdin, a file in memory; a fault is appended there. Signals that ask to end are not for the box and the init: whoever
//! stops a container asks all its processes, and these two end when the program does.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pitcrew_core::pod::FileEntry;
use rustix::process::{DumpableBehavior, Signal};

use super::copy::Copies;
use super::plan::{BoxPlan, Fault, Join, Order, Work};
use super::sys::{self, Fork};
use super::{person::Person, root, user};

/// What a box ends with when it has said a fault.
const FAULT: i32 = 125;
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Makes a container by the plan on stdin, and ends with its exit code.
pub fn main() -> ExitCode {
    let Ok((mut report, order)) = read_order() else {
        eprintln!("a box is made by Pitcrew's runner, and by nobody else");
        return ExitCode::from(2);
    };
    if let Err(reason) = seal(&report, &order) {
        return ExitCode::from(u8::try_from(say(&mut report, &Fault::Setup(reason))).unwrap_or(u8::MAX));
    }
    // Keys of whoever started the runner are not the container's.
    sys::forget_keys();
    let done = match &order {
        Order::Make(plan) => contain(plan, &mut report),
        Order::Join(join) => beside(join, &mut report),
    };
    let code = match done {
        Ok(code) => code,
        Err(reason) => say(&mut report, &Fault::Setup(reason)),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Makes the file of this program read-only for whoever gets hold of it by `/proc/PID/exe`: a container could execute it by that name,
/// and then write to it as root. It is executed once more from a mount of its own for that, and reads its order again. Without root it
/// becomes that of a namespace before.
fn seal(order: &File, wanted: &Order) -> Result<(), String> {
    let mark = std::env::var(MARK).ok();
    let is_first = mark.is_none();
    let as_user = is_first && user::is_needed();
    if as_user {
        user::enter(wanted)?;
    }
    let failed = |e: io::Error| format!("cannot keep this program from being written to by a container: {e}");
    match sealed_program(is_first).map_err(failed)? {
        Program::Sealed(Some(path)) => Err(failed(execute_again(&path, SEALED, order))),
        // Once more all the same: only what was executed in a namespace of users can be entered by those that come later.
        Program::Sealed(None) | Program::Replaced if as_user => {
            Err(failed(execute_again(Path::new("/proc/self/exe"), AS_IT_IS, order)))
        }
        Program::Sealed(None) | Program::Replaced => Ok(()),
        Program::Writable if mark.as_deref() == Some(AS_IT_IS) => Ok(()),
        Program::Writable => Err(failed(io::Error::other("it is still writable after a read-only mount"))),
    }
}

/// In the environment of what was executed once more, and what it says there.
const MARK: &str = "PITCREW_BOX";
const SEALED: &str = "sealed";
const AS_IT_IS: &str = "as it is";

/// What the file of this program is.
enum Program {
    /// Nobody can write to it, at this path if it has to be executed from there first.
    Sealed(Option<PathBuf>),
    /// There is a newer one since: nobody will execute what a container could write to.
    Replaced,
    Writable,
}

fn sealed_program(is_first: bool) -> io::Result<Program> {
    let own = Path::new("/proc/self/exe");
    let flags = rustix::fs::statvfs(own)?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(Program::Sealed(None));
    }
    if !is_first {
        return Ok(Program::Writable);
    }
    let named = std::fs::read_link(own)?;
    if !named.exists() {
        return Ok(Program::Replaced);
    }
    sys::unshare(libc::CLONE_NEWNS)?;
    sys::mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    // By its path: `/proc/self/exe` leads to the mounts that were left.
    let by_path = named.to_str().ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
    sys::mount(by_path, &named, "", libc::MS_BIND, "")?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | sys::kept(flags);
    sys::mount("none", &named, "", flags, "")?;
    Ok(Program::Sealed(Some(named)))
}

/// Executes this program from there, with the order that it was given; returns only if that fails.
fn execute_again(program: &Path, mark: &str, order: &File) -> io::Error {
    match sys::replace(0, order.as_fd()) {
        Ok(()) => std::process::Command::new(program).args(["internal", "box"]).env(MARK, mark).exec(),
        Err(error) => error,
    }
}

/// What is to be done, and where faults go; stdin is empty afterwards.
fn read_order() -> io::Result<(File, Order)> {
    let mut report = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    report.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    report.read_to_end(&mut bytes)?;
    let order = serde_json::from_slice(&bytes)?;
    sys::replace(0, File::open("/dev/null")?.as_fd())?;
    Ok((report, order))
}

fn say(report: &mut File, fault: &Fault) -> i32 {
    let written = serde_json::to_vec(fault).map_err(io::Error::from).and_then(|bytes| report.write_all(&bytes));
    if let Err(error) = written {
        eprintln!("the container could not be made, nor could that be told: {error}");
    }
    FAULT
}

/// Begins the namespaces and waits for their end.
fn contain(plan: &BoxPlan, report: &mut File) -> Result<i32, String> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        sys::on_signal(signal, true);
    }
    // With the runner everything ends at once, and it is told as lost.
    let with_parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    with_parent.map_err(|e| format!("cannot tie the container to its runner: {e}"))?;
    sys::unshare(NAMESPACES).map_err(|e| {
        format!(
            "this machine does not allow a sandbox: cannot make namespaces: {e}; run Pitcrew as root, outside of containers \
             that forbid `unshare`, or run this task on Docker or Kubernetes"
        )
    })?;
    match sys::fork().map_err(|e| format!("cannot start the container's first process: {e}"))? {
        Fork::Child => {
            let code = match init(plan, report) {
                Ok(code) => code,
                Err(reason) => say(report, &Fault::Setup(reason)),
            };
            std::process::exit(code)
        }
        Fork::Parent(pid) => {
            let (_, status) = sys::wait(pid).map_err(|e| format!("cannot wait for the container: {e}"))?;
            Ok(sys::code_of(status))
        }
    }
}

/// Runs a program in a container that another box made.
fn beside(join: &Join, report: &mut File) -> Result<i32, String> {
    let kept = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    kept.map_err(|e| format!("cannot keep its memory to itself: {e}"))?;
    sys::join(join.init, NAMESPACES).map_err(|e| format!("cannot enter the container: {e}"))?;
    match sys::fork().map_err(|e| format!("cannot start a program in the container: {e}"))? {
        Fork::Child => {
            let fault = run(&join.work);
            std::process::exit(say(report, &fault))
        }
        Fork::Parent(pid) => {
            let (_, status) = sys::wait(pid).map_err(|e| format!("cannot wait for a program in the container: {e}"))?;
            Ok(sys::code_of(status))
        }
    }
}

/// The first process of the container: makes its root, starts its program, and collects whatever ends.
fn init(plan: &BoxPlan, report: &mut File) -> Result<i32, String> {
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable));
    tied.map_err(|e| format!("cannot tie the container to its box: {e}"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0));
    root::make(plan)?;
    sys::set_hostname(&plan.hostname).map_err(|e| format!("cannot set the host name `{}`: {e}", plan.hostname))?;
    let copies = Copies::start(&plan.work)?;
    let main = match sys::fork().map_err(|e| format!("cannot start its program: {e}"))? {
        Fork::Child => {
            let fault = match copies.take() {
                Ok(()) => run(&plan.work),
                Err(error) => Fault::Setup(format!("cannot copy what it writes: {error}")),
            };
            std::process::exit(say(report, &fault))
        }
        Fork::Parent(pid) => pid,
    };
    loop {
        let (pid, status) = sys::wait(-1).map_err(|e| format!("cannot wait for its program: {e}"))?;
        if pid == main {
            copies.finish();
            return Ok(sys::code_of(status));
        }
    }
}

/// Becomes the program of the container; or says why not.
fn run(work: &Work) -> Fault {
    let Person { uid, gid, .. } = &work.person;
    let (home, own_gid) = passwd(*uid);
    let gid = gid.or(own_gid).unwrap_or(0);
    let setup = |what: &str, error: io::Error| Fault::Setup(format!("{what}: {error}"));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        sys::on_signal(signal, false);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if *uid != 0 {
        // Else `/dev/stdout` could not be opened by its name.
        for fd in [1, 2] {
            let _ = std::os::unix::fs::chown(format!("/proc/self/fd/{fd}"), Some(*uid), Some(gid));
        }
    }
    if let Err(error) = rustix::process::chdir(work.workdir.as_str()) {
        return setup(&format!("cannot enter its working directory `{}`", work.workdir), error.into());
    }
    if let Err(error) = work.person.become_it(gid) {
        return setup(&format!("cannot become the user {uid}, with what that may do"), error);
    }
    let own_home = work.env.iter().rev().find(|(name, _)| name == "HOME").map_or(home.as_str(), |(_, value)| value);
    for file in &work.credentials {
        let written = write_credential(Path::new(CREDENTIALS_AT), file);
        // A home that steps share, or that the image has, may lie on a disk.
        let written = written.and_then(|()| match is_in_memory(own_home) {
            true => write_credential(Path::new(own_home), file),
            false => link_credential(Path::new(own_home), file),
        });
        if let Err(error) = written {
            eprintln!("cannot write the credentials `{}` to `{own_home}`: {error}", file.path);
        }
    }
    execute(work, &home)
}

/// A directory in memory, of this container alone.
const CREDENTIALS_AT: &str = "/tekton/creds";

fn is_in_memory(dir: &str) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == libc::TMPFS_MAGIC)
}

/// A link to the file in memory, in the place of what is there.
fn link_credential(dir: &Path, file: &FileEntry) -> io::Result<()> {
    let path = place_of(dir, file)?;
    std::os::unix::fs::symlink(Path::new(CREDENTIALS_AT).join(&file.path), path)
}

/// Where a file belongs, with nothing there any more.
fn place_of(dir: &Path, file: &FileEntry) -> io::Result<PathBuf> {
    let path = dir.join(super::open::relative(&file.path)?);
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(path),
    }
}

/// As the user of the container, who may have put a link there: then it leads where that user may write anyhow.
fn write_credential(dir: &Path, file: &FileEntry) -> io::Result<()> {
    let path = place_of(dir, file)?;
    let mut options = File::options();
    options.write(true).create_new(true).mode(file.mode & 0o777).open(path)?.write_all(&file.bytes)
}

fn execute(work: &Work, home: &str) -> Fault {
    let mut env = work.env.clone();
    for (name, value) in [("PATH", work.path.as_str()), ("HOME", home), ("HOSTNAME", &work.hostname)] {
        if !env.iter().any(|(other, _)| other == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
    let Some(name) = work.argv.first().filter(|name| !name.is_empty()) else {
        return Fault::Program("it has no command, and its image has no entry point".to_owned());
    };
    let program = crate::program::find(name, path, Path::new(&work.workdir));
    let Some(program) = program else {
        return Fault::Program(format!("there is no program `{name}` in PATH (`{path}`)"));
    };
    let text = |text: &str| CString::new(text);
    let texts = || -> Result<_, std::ffi::NulError> {
        let argv = work.argv.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;
        let env = env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>()?;
        Ok((CString::new(program.as_os_str().as_encoded_bytes())?, argv, env))
    };
    let Ok((file, argv, env)) = texts() else {
        return Fault::Program("an argument or a variable of its environment contains a NUL byte".to_owned());
    };
    let error = sys::execute(&file, &argv, &env);
    Fault::Program(match error.raw_os_error() {
        Some(libc::ENOENT) if program.exists() => {
            format!("the interpreter that the first line of `{name}` names does not exist{}", interpreter(&program))
        }
        Some(libc::ENOENT) => format!("there is no program `{name}`"),
        Some(libc::ENOEXEC) => format!("`{name}` is no program for this machine, and has no `#!` line"),
        Some(libc::EACCES) => format!("`{name}` may not be executed by user {}", work.person.uid),
        _ => format!("cannot execute `{name}`: {error}"),
    })
}

/// What the first line of a script names, in brackets.
fn interpreter(script: &Path) -> String {
    let mut head = [0; 128];
    let read = File::open(script).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let line = String::from_utf8_lossy(&head[..read]);
    let named = line.lines().next().and_then(|line| line.strip_prefix("#!"));
    named.map_or_else(String::new, |named| format!(" (`{}`)", named.trim()))
}

/// Home directory and group of a user, as the container's own file has them.
fn passwd(uid: u32) -> (String, Option<u32>) {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        // name:password:uid:gid:comment:home:shell
        let fields: Vec<&str> = line.split(':').collect();
        let &[_, _, user, group, _, home, ..] = &fields[..] else { return None };
        (user.parse() == Ok(uid)).then(|| (home.to_owned(), group.parse().ok()))
    });
    let (home, gid) = found.unwrap_or_else(|| ("/".to_owned(), None));
    (if uid == 0 { "/root".to_owned() } else { home }, gid)
}
