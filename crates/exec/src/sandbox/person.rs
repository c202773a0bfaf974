//! Who the program of a container is, and what it may do as root.

use serde::{Deserialize, Serialize};

use super::{sys, user};

/// The highest number that a kernel gives capabilities today, and some more.
const LAST: u32 = 63;

/// All capabilities that somebody in a sandbox can have, and their numbers. The others reach beyond it: devices, mounts, the network,
/// the clock and other processes of the machine are not the container's own.
const POSSIBLE: [(&str, u32); 16] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("IPC_LOCK", 14),
    ("IPC_OWNER", 15),
    ("SYS_CHROOT", 18),
    ("SYS_NICE", 23),
    ("LEASE", 28),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// Those that root has unless it says otherwise.
const USUAL: [&str; 12] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// What container engines give as well, and a sandbox does not; asking for them in vain is no mistake of whoever wrote it.
const PASSED_OVER: [&str; 2] = ["MKNOD", "NET_RAW"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub uid: u32,
    /// `None`: that of the user in the container's `/etc/passwd`, or 0.
    pub gid: Option<u32>,
    pub groups: Vec<u32>,
    /// That of the files of its volumes; one of `groups`.
    pub fs_group: Option<u32>,
    /// Numbers of what it may do where it is root.
    pub capabilities: Vec<u32>,
    /// A program that it executes never gets more rights than it has.
    pub no_new_privileges: bool,
}

/// The numbers of what is left of the usual ones; the error names one that cannot be had.
pub fn capabilities(add: &[String], dropped: &[String]) -> Result<Vec<u32>, String> {
    let plain = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let dropped: Vec<String> = dropped.iter().map(plain).collect();
    let all = dropped.iter().any(|name| name == "ALL");
    let mut kept: Vec<&str> =
        USUAL.into_iter().filter(|name| !all && !dropped.iter().any(|other| other == name)).collect();
    for name in add.iter().map(plain) {
        match POSSIBLE.iter().find(|(possible, _)| *possible == name) {
            Some((possible, _)) => kept.push(possible),
            None if PASSED_OVER.contains(&name.as_str()) => {}
            None => {
                return Err(format!(
                    "the capability `{name}` cannot be had in a sandbox: it reaches beyond the container; run this task \
                     on Docker or Kubernetes"
                ));
            }
        }
    }
    let mut numbers: Vec<u32> =
        POSSIBLE.iter().filter(|(name, _)| kept.contains(name)).map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Person {
    /// Makes this process, which is root, the person: for good. Where the machine knows one user alone, only numbers change.
    pub fn become_it(&self, gid: u32) -> std::io::Result<()> {
        if user::is_alone() {
            user::rename(self.uid, gid)?;
            return self.limit();
        }
        self.limit()?;
        sys::become_user(self.uid, gid, &self.groups)
    }

    /// Takes from this process what the person may not do; still as root.
    fn limit(&self) -> std::io::Result<()> {
        (0..=LAST).filter(|number| !self.capabilities.contains(number)).try_for_each(sys::drop_capability)?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_dropped_and_refused_by_name() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let usual = capabilities(&[], &[]).unwrap();
        assert_eq!(usual.len(), USUAL.len());
        assert!(capabilities(&[], &names(&["ALL"])).unwrap().is_empty());
        assert_eq!(capabilities(&names(&["CAP_IPC_LOCK"]), &names(&["all"])).unwrap(), [14]);
        assert!(!capabilities(&[], &names(&["chown"])).unwrap().contains(&0));
        assert!(capabilities(&names(&["SYS_ADMIN"]), &[]).unwrap_err().contains("SYS_ADMIN"));
        assert_eq!(capabilities(&names(&["NET_RAW"]), &[]).unwrap(), usual);
    }
}
