//! Opening what lies below a directory that strangers can write to.
//!
//! Invariant: no link, no `..` and no mount of theirs leads out of that directory, whatever they change meanwhile; and nothing that
//! is opened can hold up whoever opens it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Below a directory, as if that were the root of all.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// Below a directory, without any link.
const PLAIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// What was found where a file was looked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Bytes(Vec<u8>),
    Nothing,
    /// It is there and is not taken; a clause for people: "is a link".
    Refused(String),
}

/// A directory, to look for others from.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The content of a regular file of at most `most` bytes, reached without any link.
pub fn read_plain(root: &Path, path: &str, most: usize) -> io::Result<Found> {
    let root = match directory(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        other => other?,
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(&root, path, flags, Mode::empty(), PLAIN) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Found::Nothing),
        Err(Errno::LOOP) => return Ok(Found::Refused("is a link".to_owned())),
        Err(Errno::XDEV) => return Ok(Found::Refused("leads elsewhere".to_owned())),
        // A socket.
        Err(Errno::NXIO) => return Ok(Found::Refused("is not a regular file".to_owned())),
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Found::Refused("is not a regular file".to_owned()));
    }
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(meta.size().min(limit)).unwrap_or(0));
    // One more, since it may have grown since.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Ok(Found::Refused(format!("is larger than {most} bytes")));
    }
    Ok(Found::Bytes(bytes))
}

/// Makes a new file in the place of whatever is there, in a directory that is reached without any link.
pub fn write_plain(root: &Path, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat2(directory(root)?, parent, flags, Mode::empty(), PLAIN)?;
    match rustix::fs::unlinkat(&parent, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode))?);
    file.write_all(bytes)
}

/// Opens a path below `root` to mount it, with links of that place followed inside it alone. What is missing of it
/// becomes directories.
pub fn inside(root: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let path = relative(path)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = |at: &Path| rustix::fs::openat2(&root, shown(at), flags, Mode::empty(), INSIDE);
    let mut at = PathBuf::new();
    let mut last = open(&at)?;
    for part in path.components() {
        at.push(part);
        last = match open(&at) {
            Err(Errno::NOENT) => {
                // In the directory that was opened, and by a name that is no path: nothing can come between.
                match rustix::fs::mkdirat(&last, Path::new(part.as_os_str()), Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => open(&at)?,
                    Err(error) => return Err(error.into()),
                }
            }
            other => other?,
        };
    }
    Ok(last)
}

/// A path below something, without `..`.
pub fn relative(path: &str) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                let message = format!("`{path}` must be relative and without `..`");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
    }
    Ok(clean)
}

fn shown(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_regular_file_of_a_small_size_is_read_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, secret) = (dir.path().join("root"), dir.path().join("secret"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        std::fs::write(root.join("sub/plain"), "text\n").unwrap();
        symlink(&secret, root.join("absolute")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink("sub", root.join("way")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let read = |path: &str| read_plain(&root, path, 6).unwrap();
        assert_eq!(read("sub/plain"), Found::Bytes(b"text\n".to_vec()));
        assert_eq!(read("none/at/all"), Found::Nothing);
        for (path, why) in [
            ("absolute", "link"),
            ("up", "link"),
            ("way/plain", "link"),
            ("../secret", "elsewhere"),
            ("fifo", "regular"),
            ("socket", "regular"),
            ("sub", "regular"),
        ] {
            let Found::Refused(reason) = read(path) else { panic!("{path} was not refused") };
            assert!(reason.contains(why), "{path}: {reason}");
        }
        std::fs::write(root.join("sub/plain"), "1234567").unwrap();
        assert_eq!(read("sub/plain"), Found::Refused("is larger than 6 bytes".into()));
    }

    #[test]
    fn what_is_mounted_lies_inside_whatever_links_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink("/etc", root.join("link")).unwrap();
        symlink("../../../../etc", root.join("up")).unwrap();
        let open = |path: &str| {
            let fd = inside(directory(&root).unwrap(), path)?;
            std::fs::read_link(sys_path(&fd))
        };
        let root = root.canonicalize().unwrap();
        for path in ["link/made", "up/made"] {
            assert_eq!(open(path).unwrap(), root.join("etc/made"), "{path}");
        }
        assert_eq!(open("a/b/./c").unwrap(), root.join("a/b/c"));
        assert_eq!(open("").unwrap(), root);
        assert!(root.join("a/b/c").is_dir());
        for path in ["../x", "/x", "a/../../x"] {
            assert_eq!(open(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    fn sys_path(fd: &OwnedFd) -> String {
        super::super::sys::path_of(fd.as_fd())
    }
}
