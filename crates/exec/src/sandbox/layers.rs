//! The root directory of a container that is made without root.
//!
//! The kernel lays no layer over `/` there, since the mounts below it may not be taken apart; so every directory at the top gets a layer of
//! its own. Between the machine's files and what the container writes lies a thin layer with a few directories that belong to the
//! container's root: there it may add, replace and remove. In all others it may only read, as the user that it is.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::sys;

/// The directories in which root of such a container may change what there is.
const OWN: [&str; 13] = [
    "/bin",
    "/etc",
    "/etc/ssh",
    "/opt",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/sbin",
    "/var",
    "/var/lib",
];
/// Files that programs add lines to.
const COPIED: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// Directories that are made of something else, or are empty in every container.
const OTHER: [&str; 9] = ["dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys"];
const BARE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// Makes it in `root` of the current directory, out of what lies below `from`; gives where layers were laid.
pub fn lay(from: &Path) -> Result<Vec<String>, String> {
    let failed = |what: &str, e: io::Error| format!("cannot make `{what}` of the container's root: {e}");
    sys::mount("tmpfs", Path::new("root"), "tmpfs", BARE, "mode=0755").map_err(|e| failed("/", e))?;
    let mut laid = Vec::new();
    let entries = fs::read_dir(from).map_err(|e| failed("/", e))?;
    for (number, entry) in entries.flatten().enumerate() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let target = Path::new("root").join(&name);
        let made = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => fs::read_link(entry.path()).and_then(|to| symlink(to, &target)),
            Ok(kind) if kind.is_dir() => fs::create_dir(&target).and_then(|()| {
                if name == "tmp" || OTHER.contains(&name.as_str()) {
                    return Ok(());
                }
                // What this user may not read, or what has signs in its name that mean something to the kernel, stays empty.
                if !name.contains(['\\', ',', ':']) && fs::read_dir(entry.path()).is_ok() {
                    laid.extend(lay_one(number, &format!("/{name}"), &entry.path(), &target)?);
                }
                Ok(())
            }),
            _ => Ok(()),
        };
        made.map_err(|e| failed(&format!("/{name}"), e))?;
    }
    Ok(laid)
}

/// One directory at the top; gives its name if it can be written to at all.
fn lay_one(number: usize, at: &str, from: &Path, target: &Path) -> io::Result<Option<String>> {
    let on_disk = format!("stage/top-{number}");
    fs::create_dir(&on_disk)?;
    if overlay(&on_disk, at, from, target).is_ok() {
        return Ok(Some(at.to_owned()));
    }
    // The layers may not lie inside of what they are laid over, and not every file system can hold them; memory can.
    let in_memory = format!("stage/memory-{number}");
    fs::create_dir(&in_memory)?;
    sys::mount("tmpfs", Path::new(&in_memory), "tmpfs", BARE, "mode=0755")?;
    if overlay(&in_memory, at, from, target).is_ok() {
        return Ok(Some(at.to_owned()));
    }
    // Other mounts lie below it: it is seen as it is.
    let from = from.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    sys::mount(from, target, "", libc::MS_BIND | libc::MS_REC, "")?;
    Ok(None)
}

fn overlay(dir: &str, at: &str, from: &Path, target: &Path) -> io::Result<()> {
    let (own, upper, work) = (format!("{dir}/own"), format!("{dir}/upper"), format!("{dir}/work"));
    for path in [&own, &upper, &work] {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let inside =
        |path: &str| path.strip_prefix(at).filter(|rest| rest.is_empty() || rest.starts_with('/')).map(str::to_owned);
    for rest in OWN.iter().filter_map(|path| inside(path)).filter(|rest| !rest.is_empty()) {
        let machine = from.join(rest.trim_start_matches('/'));
        // A link stays one.
        if machine.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let path = format!("{own}{rest}");
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    for rest in COPIED.iter().filter_map(|path| inside(path)) {
        if let Ok(bytes) = fs::read(from.join(rest.trim_start_matches('/'))) {
            let path = format!("{own}{rest}");
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
    }
    let from = from.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let data = format!("lowerdir={own}:{from},upperdir={upper},workdir={work},volatile,index=off,userxattr");
    sys::mount("overlay", target, "overlay", libc::MS_NODEV, &data)
}
