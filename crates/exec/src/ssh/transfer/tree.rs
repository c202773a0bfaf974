//! What a transfer moves: one file, or the files of a directory; and where to.
//!
//! Invariant: no name leaves the directory that was named, on either side. A link in a directory is followed only to a
//! file of the same directory; whatever is neither file nor directory is left out and told.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Failure;
use super::sftp::{Kind, Refused, Session};
use crate::place::SshPlace;

/// Directories within each other.
const DEEPEST: usize = 100;
/// Files and directories of one transfer.
const MOST: usize = 1_000_000;

/// What there is to move. Names are relative to the root, with `/` between them.
#[derive(Debug, Default)]
pub struct Tree {
    /// The root is one file, whose name here is empty.
    pub is_file: bool,
    /// Those above others come first; without the root.
    pub dirs: Vec<String>,
    pub files: Vec<Item>,
    /// For people: what is left out.
    pub left_out: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub name: String,
    pub size: u64,
}

impl Tree {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// One order, whatever that of the directories.
    fn sorted(mut self) -> Tree {
        self.dirs.sort();
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    fn is_too_large(&self) -> bool {
        self.dirs.len() + self.files.len() > MOST
    }
}

/// What lies at a path of this machine.
pub fn here(root: &Path) -> Result<Tree, Failure> {
    let cannot = |path: &Path, e: &io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::Lasting(format!("there is no file or directory `{}` on this machine", path.display()))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::Lasting(format!("cannot read `{}` on this machine: permission denied", path.display()))
        }
        _ => Failure::Passing(format!("cannot read `{}` on this machine: {e}", path.display())),
    };
    let found = std::fs::metadata(root).map_err(|e| cannot(root, &e))?;
    if found.is_file() {
        let files = vec![Item { name: String::new(), size: found.len() }];
        return Ok(Tree { is_file: true, files, ..Tree::default() });
    }
    if !found.is_dir() {
        let words = format!("`{}` is neither a file nor a directory", root.display());
        return Err(Failure::Lasting(words));
    }
    let real = root.canonicalize().map_err(|e| cannot(root, &e))?;
    let mut tree = Tree::default();
    let mut open = vec![String::new()];
    while let Some(dir) = open.pop() {
        let path = root.join(&dir);
        for entry in std::fs::read_dir(&path).map_err(|e| cannot(&path, &e))? {
            let entry = entry.map_err(|e| cannot(&path, &e))?;
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(|name| below(&dir, name)) else {
                let words = format!("`{}` has a name that is no UTF-8 text: rename it", path.display());
                return Err(Failure::Lasting(words));
            };
            let kind = entry.file_type().map_err(|e| cannot(&path, &e))?;
            let leads_to = || path.canonicalize().ok().filter(|to| to.starts_with(&real) && to.is_file());
            if kind.is_dir() {
                if name.split('/').count() > DEEPEST {
                    return Err(too_deep(&name));
                }
                tree.dirs.push(name.clone());
                open.push(name);
            } else if kind.is_file() || (kind.is_symlink() && leads_to().is_some()) {
                let size = std::fs::metadata(&path).map_err(|e| cannot(&path, &e))?.len();
                tree.files.push(Item { name, size });
            } else {
                tree.left_out.push(left_out(&name, kind.is_symlink()));
            }
            if tree.is_too_large() {
                return Err(too_many());
            }
        }
    }
    Ok(tree.sorted())
}

/// What lies at a path of the host.
pub async fn there(session: &Session, root: &str, host: &str) -> Result<Tree, Failure> {
    let what = |path: &str| format!("read `{path}`");
    let found = session.stat(root).await.map_err(|e| e.to(&what(root), host))?;
    let found = found.ok_or_else(|| Refused::Missing.to(&what(root), host))?;
    match found.kind {
        Kind::File => {
            let files = vec![Item { name: String::new(), size: found.size }];
            return Ok(Tree { is_file: true, files, ..Tree::default() });
        }
        Kind::Directory => {}
        Kind::Link | Kind::Other => {
            return Err(Failure::Lasting(format!("`{root}` on `{host}` is neither a file nor a directory")));
        }
    }
    let mut real = None;
    let mut tree = Tree::default();
    let mut open = vec![String::new()];
    while let Some(dir) = open.pop() {
        let path = joined(root, &dir);
        for (name, stat) in session.list(&path).await.map_err(|e| e.to(&what(&path), host))? {
            let name = below(&dir, checked(&name, host)?);
            let path = joined(root, &name);
            match stat.kind {
                Kind::Directory => {
                    if name.split('/').count() > DEEPEST {
                        return Err(too_deep(&name));
                    }
                    tree.dirs.push(name.clone());
                    open.push(name);
                }
                Kind::File => tree.files.push(Item { name, size: stat.size }),
                Kind::Link => {
                    if real.is_none() {
                        real = session.real(root).await.map_err(|e| e.to(&what(root), host))?;
                    }
                    let inside = |to: &str| real.as_deref().is_some_and(|real| to.starts_with(&format!("{real}/")));
                    let to = session.real(&path).await.map_err(|e| e.to(&what(&path), host))?;
                    let file = match to.filter(|to| inside(to)) {
                        Some(to) => session.stat(&to).await.map_err(|e| e.to(&what(&to), host))?,
                        None => None,
                    };
                    match file.filter(|file| file.kind == Kind::File) {
                        Some(file) => tree.files.push(Item { name, size: file.size }),
                        None => tree.left_out.push(left_out(&name, true)),
                    }
                }
                Kind::Other => tree.left_out.push(left_out(&name, false)),
            }
            if tree.is_too_large() {
                return Err(too_many());
            }
        }
    }
    Ok(tree.sorted())
}

/// A name that a host gave for something in a directory.
fn checked<'a>(name: &'a str, host: &str) -> Result<&'a str, Failure> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let words =
            format!("`{host}` names a file {name:?}, which would lead out of the directory: nothing is fetched");
        return Err(Failure::Lasting(words));
    }
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Failure::Lasting(format!(
            "`{host}` has the name {name:?}, which is no UTF-8 text: rename it there"
        )));
    }
    Ok(name)
}

fn below(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A name of a tree, below its root on the host.
pub fn joined(root: &str, name: &str) -> String {
    if name.is_empty() { root.to_owned() } else { format!("{}/{name}", root.trim_end_matches('/')) }
}

fn left_out(name: &str, is_link: bool) -> String {
    let why = match is_link {
        true => "a link to no file of this directory",
        false => "neither a file nor a directory",
    };
    format!("left out `{name}`: it is {why}")
}

fn too_deep(name: &str) -> Failure {
    Failure::Lasting(format!("`{name}` lies more than {DEEPEST} directories deep"))
}

fn too_many() -> Failure {
    Failure::Lasting(format!("there are more than {MOST} files and directories: move them as one archive"))
}

/// A path of the host in full; whether it ends with `/`, and so names the directory into which something goes.
pub fn target(
    path: &str,
    home: &str,
    workspace: &str,
    place: &SshPlace,
    workdir: &Path,
) -> Result<(String, bool), String> {
    let start = match place.workdir.as_deref() {
        None => format!("{home}/.pitcrew/w/{workspace}"),
        Some(dir) => in_home(dir, home),
    };
    let workdir = workdir.to_string_lossy();
    let whole =
        [&*start, &*in_home(&workdir, home), &*in_home(path, home)].into_iter().filter(|part| !part.is_empty()).fold(
            String::new(),
            |so_far, part| if part.starts_with('/') { part.to_owned() } else { format!("{so_far}/{part}") },
        );
    if whole.contains('\0') {
        return Err("a path cannot hold a NUL byte".to_owned());
    }
    let parts: Vec<&str> = whole.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(format!("`{path}` goes up by `..`: write where that leads"));
    }
    if parts.is_empty() {
        return Err("`/` is the root of the whole machine; name something below it".to_owned());
    }
    let is_dir = path.is_empty() || path.ends_with(['/']) || path.ends_with("/.") || path == ".";
    Ok((format!("/{}", parts.join("/")), is_dir))
}

fn in_home(path: &str, home: &str) -> String {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.to_owned(),
    }
}

/// Whether a path of this machine ends with `/`.
pub fn is_dir(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

/// The last name of a path.
pub fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// A name of a tree, below its root here. It was checked.
pub fn beneath(root: &Path, name: &str) -> PathBuf {
    if name.is_empty() { root.to_owned() } else { root.join(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_host_that_lead_elsewhere_are_refused() {
        for name in ["..", ".", "", "a/b", "../../etc/passwd", "/etc/passwd", "a\0b", "caf\u{fffd}"] {
            assert!(matches!(checked(name, "h"), Err(Failure::Lasting(_))), "{name:?}");
        }
        for name in ["...", "-rf", "a b", "it's", "line\nbreak", ".hidden", "ü"] {
            assert_eq!(checked(name, "h").unwrap(), name);
        }
    }

    #[test]
    fn paths_start_where_the_steps_of_the_task_do() {
        let of = |path: &str, dir: Option<&str>, workdir: &str| {
            let place = SshPlace { workdir: dir.map(str::to_owned), ..SshPlace::new("h", "u") };
            target(path, "/home/u", "12-ab", &place, Path::new(workdir))
        };
        let whole = |path, dir, workdir| of(path, dir, workdir).unwrap();
        assert_eq!(whole("a/b", None, ""), ("/home/u/.pitcrew/w/12-ab/a/b".into(), false));
        assert_eq!(whole("a/", Some("/srv/app"), "www"), ("/srv/app/www/a".into(), true));
        assert_eq!(whole("~/a", Some("/srv"), ""), ("/home/u/a".into(), false));
        assert_eq!(whole("./a//b/.", Some("~/x"), "/opt"), ("/opt/a/b".into(), true));
        assert_eq!(whole("-a b'\n", Some("~"), ""), ("/home/u/-a b'\n".into(), false));
        assert_eq!(whole("~x", Some("/srv"), ""), ("/srv/~x".into(), false));
        for bad in ["../x", "a/../../x", "/", "/a/..", "a\0"] {
            assert!(of(bad, Some("/srv"), "").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_here_is_listed_without_what_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub/empty")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(root.join("sub/a"), "abc").unwrap();
        std::os::unix::fs::symlink("sub/a", root.join("inside")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("outside")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        let tree = here(&root).unwrap();
        let item = |name: &str| Item { name: name.into(), size: 3 };
        assert_eq!(
            (tree.dirs.as_slice(), tree.files.as_slice()),
            (&["sub".into(), "sub/empty".into()][..], &[item("inside"), item("sub/a")][..])
        );
        assert_eq!(tree.left_out.len(), 2);
        assert!(matches!(here(&root.join("none")), Err(Failure::Lasting(_))));
    }
}
