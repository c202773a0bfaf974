//! Checking out one commit of a git repository into a directory, by the system's `git`.
//!
//! Invariant: after a success the directory holds exactly that commit and nothing else, whatever was in it before:
//! another commit, changed files, the remains of a killed git. Callers wait for each other by a lock on the
//! directory itself. Nothing asks for a password, a token is only ever in the environment of `git`, and a key nowhere
//! but in an agent.

mod remote;
mod run;
mod ssh;
mod url;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use remote::remote_step;
use run::Git;
use url::{Location, locate};

use crate::clock;
pub use url::{percent_decoded, without_credentials};

/// What to check out, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitRequest {
    /// `https`, `http`, `ssh`, `git` or `file`, as `user@host:path`, or a local path.
    pub url: String,
    /// A branch, a tag, a commit or a full `refs/…` name, looked for in this order; empty: the default branch.
    pub revision: String,
    /// Made if missing. Anything else in it is removed.
    pub into: PathBuf,
    /// Commits of history; `None`: all.
    pub depth: Option<u32>,
    pub submodules: bool,
    /// Fetch large files with `git lfs` too; else their pointers stay.
    pub lfs: bool,
    /// Remove ignored files as well as others that are not of the commit. `None`: on this machine yes, on a host no, as
    /// its directory may hold data.
    pub clean: Option<bool>,
    /// Lines as in the file of `ssh`: the keys of the git host, and the only ones that it may show. Empty: those that the
    /// user's own file has; with a key, the first one of a new host is recorded there.
    pub known_hosts: String,
}

/// A user name and a token or password for the repository's host.
#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials(…)")
    }
}

/// What opens a private repository, to whoever checks out on this machine.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub credentials: Option<Credentials>,
    /// The directory of [`agent::Listening`](crate::ssh::agent::Listening), with a key for SSH.
    pub agent: Option<PathBuf>,
}

/// What was checked out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkout {
    pub commit: String,
    /// The shortest form of `commit` that is unique in the repository.
    pub short: String,
    /// When the revision is a branch.
    pub branch: Option<String>,
    /// The branch that the repository begins with; `None` where it does not say, or was not asked.
    pub default_branch: Option<String>,
    pub author: String,
    /// The first line.
    pub message: String,
    /// The commit's time, as in RFC 3339.
    pub committed: String,
    /// Another commit, or none, was there before.
    pub changed: bool,
    /// Asking the repository and fetching from it.
    pub fetch_seconds: f64,
    /// By which the clone grew.
    pub fetch_bytes: u64,
    /// Where it is, absolute.
    pub directory: PathBuf,
}

/// Why a commit is not checked out.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("`git` is not in `PATH`; install it (Debian and Ubuntu: `apt install git`)")]
    NoGit,
    #[error("`git-lfs` is not in `PATH`; install it (Debian and Ubuntu: `apt install git-lfs`)")]
    NoLfs,
    /// A whole clause about the URL, the revision or the directory.
    #[error("{0}")]
    Request(String),
    #[error("`{url}` has no branch, tag or commit `{revision}`{near}")]
    UnknownRevision { url: String, revision: String, near: String },
    #[error("{what} failed{hint}\n{tail}")]
    Failed { what: String, hint: String, tail: String, lasting: bool },
    /// `what` is a whole clause.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl GitError {
    /// Another try with the same request would fail as well.
    pub fn is_lasting(&self) -> bool {
        match self {
            GitError::NoGit | GitError::NoLfs | GitError::Request(_) | GitError::UnknownRevision { .. } => true,
            GitError::Failed { lasting, .. } => *lasting,
            GitError::Io { .. } => false,
        }
    }
}

/// Brings `request.into` to the commit. `progress` gets lines for people.
pub fn checkout(request: &GitRequest, access: &Access, progress: &mut dyn FnMut(&str)) -> Result<Checkout, GitError> {
    let location = locate(&request.url)?;
    check_revision(&request.revision)?;
    let into = std::path::absolute(&request.into).map_err(io_error("cannot find the working directory"))?;
    let cannot = |verb: &str| io_error(format!("cannot {verb} the directory `{}`", into.display()));
    fs::create_dir_all(&into).map_err(cannot("make"))?;
    let lock = fs::File::open(&into).map_err(cannot("open"))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| cannot("lock")(e.into()))?;
    // Only now: another checkout may have been making it.
    check_directory(&into)?;

    let credentials = access.credentials.as_ref().or(location.credentials.as_ref());
    let mut git = Git::new(&into, &location, credentials);
    if let Some(command) = ssh::command(request, access.agent.is_some())? {
        git.ssh = Some((command, ssh::Place::new(request, access.agent.as_deref())?));
    }
    match attempt(&git, request, &location, progress) {
        Err(GitError::Failed { tail, .. }) if is_broken(&tail) => {
            progress("the clone is broken; starting over");
            for entry in fs::read_dir(&into).map_err(cannot("read"))?.flatten() {
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
                let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(io_error(format!("cannot remove `{}`", path.display())))?;
            }
            attempt(&git, request, &location, progress)
        }
        other => other,
    }
}

fn attempt(
    git: &Git,
    request: &GitRequest,
    location: &Location,
    progress: &mut dyn FnMut(&str),
) -> Result<Checkout, GitError> {
    // Also makes a half-made clone whole; on a whole one it does nothing.
    git.run("making the clone", &["init", "--quiet"])?;
    remove_stale_locks(&git.dir.join(".git"));
    git.run("setting the remote", &["config", "--replace-all", "remote.origin.url", &location.url])?;
    let before = git.try_run(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
    let (had, began) = (size(git)?, clock::instant());
    let target = find(git, request, location)?;
    let commit = fetch(git, request, location, &target, progress)?;
    let (took, has) = (began.elapsed(), size(git)?);

    git.run("checking out", &["checkout", "--quiet", "--force", "--detach", &commit, "--"])?;
    git.run("checking out", &["reset", "--quiet", "--hard", &commit, "--"])?;
    let clean = if request.clean == Some(false) { "-ffd" } else { "-ffdx" };
    git.run("removing other files", &["clean", "--quiet", clean])?;
    if request.submodules && git.dir.join(".gitmodules").exists() {
        update_submodules(git, request, progress)?;
    }
    if request.lfs {
        if git.try_run(&["lfs", "version"])?.is_none() {
            return Err(GitError::NoLfs);
        }
        git.run("fetching large files", &["lfs", "pull"])?;
    }
    let head = git.run("reading the commit", &["rev-parse", "HEAD"])?;
    if head != commit {
        let tail = format!("the commit is {head}, but {commit} was asked for");
        return Err(GitError::Failed { what: "checking out".into(), hint: String::new(), tail, lasting: false });
    }
    let format = "--format=%H%x00%h%x00%an <%ae>%x00%s%x00%cI";
    let facts = git.run("reading the commit", &["log", "-1", "--no-show-signature", format])?;
    let mut facts = facts.split('\0').map(str::to_owned);
    let mut next = || facts.next().unwrap_or_default();
    Ok(Checkout {
        commit: next(),
        short: next(),
        author: next(),
        message: next(),
        committed: next(),
        branch: target.branch(),
        default_branch: target.default_branch(),
        changed: before.as_deref() != Some(&commit),
        fetch_seconds: took.as_secs_f64(),
        fetch_bytes: has.saturating_sub(had),
        directory: git.dir.clone(),
    })
}

/// Bytes of a clone.
fn size(git: &Git) -> Result<u64, GitError> {
    let told = git.try_run(&["count-objects", "-v"])?.unwrap_or_default();
    let kib = told.lines().filter_map(|line| {
        let (name, number) = line.split_once(": ")?;
        matches!(name, "size" | "size-pack").then(|| number.parse::<u64>().ok())?
    });
    Ok(kib.sum::<u64>() * 1024)
}

/// What the revision turned out to be.
enum Target {
    /// A full name at the remote, and the commit (or tag object) it had just now.
    /// `head`: what the repository's own `HEAD` stands for.
    Ref { name: String, object: String, head: Option<String> },
    /// A commit's full name, or the beginning of one.
    Commit(String),
}

impl Target {
    fn branch(&self) -> Option<String> {
        match self {
            Target::Ref { name, .. } => name.strip_prefix("refs/heads/").map(str::to_owned),
            Target::Commit(_) => None,
        }
    }

    fn default_branch(&self) -> Option<String> {
        match self {
            Target::Ref { head, .. } => head.as_ref()?.strip_prefix("refs/heads/").map(str::to_owned),
            Target::Commit(_) => None,
        }
    }
}

fn find(git: &Git, request: &GitRequest, location: &Location) -> Result<Target, GitError> {
    let revision = request.revision.as_str();
    let is_hex = revision.len() >= 4 && revision.len() <= 64 && revision.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex && matches!(revision.len(), 40 | 64) {
        return Ok(Target::Commit(revision.to_ascii_lowercase()));
    }
    let names = match revision {
        "" | "HEAD" => vec!["HEAD".to_owned()],
        full if full.starts_with("refs/") => vec![full.to_owned()],
        short => vec![format!("refs/heads/{short}"), format!("refs/tags/{short}")],
    };
    let mut arguments = vec!["ls-remote", "--symref", "--", &location.url];
    arguments.extend(names.iter().map(String::as_str).filter(|name| *name != "HEAD"));
    // Asked along with the rest, for the branch that the repository begins with.
    arguments.push("HEAD");
    let listing = git.run("asking the repository", &arguments)?;
    // `HEAD` is told with the branch that it stands for: `ref: refs/heads/main<TAB>HEAD`.
    let symbolic = |name: &str| {
        listing.lines().find_map(|line| {
            let (target, of) = line.strip_prefix("ref: ")?.split_once('\t')?;
            (of == name).then(|| target.to_owned())
        })
    };
    for name in &names {
        let object = listing.lines().find_map(|line| line.split_once('\t').filter(|(_, of)| of == name));
        if let Some((object, _)) = object {
            let full = symbolic(name).unwrap_or_else(|| name.clone());
            return Ok(Target::Ref { name: full, object: object.to_owned(), head: symbolic("HEAD") });
        }
    }
    if is_hex {
        return Ok(Target::Commit(revision.to_ascii_lowercase()));
    }
    Err(unknown(git, request, location))
}

/// Makes the commit present; returns its full name.
fn fetch(
    git: &Git,
    request: &GitRequest,
    location: &Location,
    target: &Target,
    progress: &mut dyn FnMut(&str),
) -> Result<String, GitError> {
    let shallow = git.dir.join(".git/shallow").exists();
    let depth = match request.depth {
        Some(depth) => Some(format!("--depth={}", depth.max(1))),
        None => shallow.then(|| "--unshallow".to_owned()),
    };
    let mut base = vec!["fetch", "--quiet", "--force", "--no-recurse-submodules", "--no-write-fetch-head"];
    base.extend(request.depth.is_some().then_some("--no-tags"));
    let commit_of = |name: &str| git.try_run(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]);
    match target {
        Target::Ref { name, object, .. } => {
            if depth.as_deref() != Some("--unshallow")
                && let Some(commit) = commit_of(object)?
            {
                return Ok(commit);
            }
            progress(&format!("fetching `{name}` from {}", without_credentials(&location.url)));
            let specification = format!("+{name}:refs/pitcrew/fetched");
            base.extend(depth.as_deref());
            base.extend(["origin", &specification]);
            git.run("fetching", &base)?;
            commit_of("refs/pitcrew/fetched")?.ok_or_else(|| unknown(git, request, location))
        }
        Target::Commit(id) => {
            if let Some(commit) = commit_of(id)? {
                return Ok(commit);
            }
            progress(&format!("fetching commit `{id}` from {}", without_credentials(&location.url)));
            if matches!(id.len(), 40 | 64) {
                let mut one = base.clone();
                one.extend(depth.as_deref());
                one.extend(["origin", id]);
                // Not every server hands out a commit by its name.
                if git.try_run(&one)?.is_some()
                    && let Some(commit) = commit_of(id)?
                {
                    return Ok(commit);
                }
            }
            base.extend(shallow.then_some("--unshallow"));
            base.extend(["origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]);
            git.run("fetching", &base)?;
            commit_of(id)?.ok_or_else(|| unknown(git, request, location))
        }
    }
}

fn update_submodules(git: &Git, request: &GitRequest, progress: &mut dyn FnMut(&str)) -> Result<(), GitError> {
    progress("fetching submodules");
    git.run("setting submodules up", &["submodule", "--quiet", "sync", "--recursive"])?;
    let depth = request.depth.map(|depth| format!("--depth={}", depth.max(1)));
    let mut update = vec!["submodule", "--quiet", "update", "--init", "--recursive", "--force"];
    update.extend(depth.as_deref());
    git.run("fetching submodules", &update)?;
    let clean = if request.clean == Some(false) { "-ffd" } else { "-ffdx" };
    let clean = ["submodule", "--quiet", "foreach", "--recursive", &format!("git clean --quiet {clean}")];
    git.run("removing other files", &clean).map(drop)
}

fn unknown(git: &Git, request: &GitRequest, location: &Location) -> GitError {
    let listing =
        git.run("asking", &["ls-remote", "--heads", "--tags", "--refs", "--", &location.url]).unwrap_or_default();
    let known = listing
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(_, name)| name.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/"));
    let mut near: Vec<(f64, &str)> = known
        .map(|name| (strsim::jaro_winkler(name, &request.revision), name))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let near: Vec<String> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let near = if near.is_empty() { String::new() } else { format!("; near names: {}", near.join(", ")) };
    let url = without_credentials(&location.url).into_owned();
    GitError::UnknownRevision { url, revision: request.revision.clone(), near }
}

/// What git's own rules allow in a name, less what has a meaning to `rev-parse`; an option it cannot be.
fn check_revision(revision: &str) -> Result<(), GitError> {
    let bad = revision.starts_with(['-', '/', '.'])
        || revision.ends_with(['/', '.'])
        || ["..", "//", "@{", ".lock/"].iter().any(|part| revision.contains(part))
        || revision.chars().any(|c| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c));
    match bad {
        true => Err(GitError::Request(format!("`{revision}` cannot be the name of a branch, tag or commit"))),
        false => Ok(()),
    }
}

/// The directory is emptied of everything else, so it must not be one that holds more than the checkout.
fn check_directory(into: &Path) -> Result<(), GitError> {
    let real = into.canonicalize().map_err(io_error(format!("cannot open `{}`", into.display())))?;
    let here = std::env::current_dir()
        .and_then(|d| d.canonicalize())
        .map_err(io_error("cannot find the working directory"))?;
    if here.starts_with(&real) {
        let text = "is the working directory or above it; name a directory of its own, which the checkout may empty";
        return Err(GitError::Request(format!("`{}` {text}", into.display())));
    }
    let is_clone = real.join(".git").exists();
    let is_empty = fs::read_dir(&real).map_err(io_error(format!("cannot read `{}`", into.display())))?.next().is_none();
    if !is_clone && !is_empty {
        let text = "holds files but is no git checkout; name an empty directory, or a new one";
        return Err(GitError::Request(format!("`{}` {text}", into.display())));
    }
    Ok(())
}

/// What a killed git leaves; ours is the only git here, as the directory is locked.
fn remove_stale_locks(git_dir: &Path) {
    for name in ["index.lock", "HEAD.lock", "config.lock", "shallow.lock", "packed-refs.lock"] {
        let _ = fs::remove_file(git_dir.join(name));
    }
    let mut dirs = vec![git_dir.join("refs")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "lock") {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Words of git about a repository that is damaged, not about a request that cannot be met.
fn is_broken(tail: &str) -> bool {
    const SIGNS: [&str; 13] = [
        "not a git repository",
        "not in a git directory",
        "bad object",
        "loose object",
        "is corrupt",
        "index file smaller",
        "bad index file",
        "bad signature 0x",
        "unable to read tree",
        "missing object",
        "bad config line",
        "unable to read sha1 file",
        "inflate:",
    ];
    // What could not be written is not damaged.
    const UNWRITTEN: [&str; 4] =
        ["No space left on device", "Permission denied", "Disk quota exceeded", "Read-only file system"];
    let has = |signs: &[&str]| signs.iter().any(|sign| tail.contains(sign));
    has(&SIGNS) && !has(&UNWRITTEN)
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> GitError {
    let what = what.into();
    move |source| GitError::Io { what, source }
}
