//! A sandbox without root: a namespace of users in which whoever runs Pitcrew is root.
//!
//! In it a box may make mounts and all else that it makes as root; but the files of the machine belong to people that this namespace does
//! not know, so that even its root can only read them. Another number than 0 as user of a container is a second namespace, in which
//! root of the first has that number.
//!
//! Invariant: on the machine there is one user, the one that runs Pitcrew, whoever a container believes to be.

use std::fs;
use std::io;

use super::plan::Order;
use super::sys;

/// Is this process to make such a namespace before it can do anything?
pub fn is_needed() -> bool {
    !rustix::process::geteuid().is_root()
}

/// Is this process in a namespace that knows one user alone?
pub fn is_alone() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| knows_one(&map))
}

fn knows_one(map: &str) -> bool {
    let mut lines = map.lines();
    let count = lines.next().and_then(|line| line.split_ascii_whitespace().nth(2));
    count == Some("1") && lines.next().is_none()
}

/// Becomes root of a new namespace, or of that of the container that is to be joined; with mounts of its own.
pub fn enter(order: &Order) -> Result<(), String> {
    match order {
        Order::Make(_) => begin(0, 0).map_err(|e| {
            format!(
                "this machine does not allow a sandbox to users other than root: cannot make a namespace of users: {e}; root has to \
                 allow it (`sysctl user.max_user_namespaces`, and where they are known `kernel.unprivileged_userns_clone=1` and \
                 `kernel.apparmor_restrict_unprivileged_userns=0`), or run Pitcrew as root, or this task on Docker or Kubernetes"
            )
        }),
        Order::Join(join) => {
            sys::join(join.init, libc::CLONE_NEWUSER).map_err(|e| format!("cannot enter the container's users: {e}"))
        }
    }
}

/// Gives this process, which is root of a namespace that knows one user, another number.
pub fn rename(uid: u32, gid: u32) -> io::Result<()> {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    begin(uid, gid)
}

/// Begins a namespace in which the one user has these numbers.
fn begin(uid: u32, gid: u32) -> io::Result<()> {
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER)?;
    // Else it could take groups from itself that it is denied something by.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {own_uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {own_gid} 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_one_user_is_told_from_others() {
        assert!(knows_one("         0      65534          1\n"));
        assert!(!knows_one("         0          0 4294967295\n"));
        assert!(!knows_one("         0       1000          1\n         1     100000      65536\n"));
        assert!(!knows_one(""));
    }
}
