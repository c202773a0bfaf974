//! Checkouts by the real `git`, from repositories made here.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pitcrew_exec::git::{Access, Checkout, Credentials, GitError, GitRequest, checkout};
use tempfile::TempDir;

struct World {
    dir: TempDir,
}

impl World {
    /// A repository with two commits on `main`, the first of them tagged `v1`, and a branch `feature/x`.
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(world.origin()).unwrap();
        world.git(&["init", "-q", "-b", "main"]);
        world.commit("a.txt", "one", "first");
        world.git(&["tag", "-a", "v1", "-m", "release"]);
        world.git(&["checkout", "-q", "-b", "feature/x"]);
        world.commit("x.txt", "x", "on a branch");
        world.git(&["checkout", "-q", "main"]);
        world.commit("a.txt", "two", "second\n\nmore words");
        world
    }

    fn origin(&self) -> PathBuf {
        self.dir.path().join("origin")
    }

    fn clone_dir(&self) -> PathBuf {
        self.dir.path().join("clone")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.origin()).args(["-c", "user.name=A B", "-c", "user.email=a@b"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &str, message: &str) -> String {
        fs::write(self.origin().join(file), text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn request(&self, revision: &str) -> GitRequest {
        let url = format!("file://{}", self.origin().display());
        GitRequest { url, revision: revision.into(), into: self.clone_dir(), ..GitRequest::default() }
    }

    fn checkout(&self, revision: &str) -> Result<Checkout, GitError> {
        checkout(&self.request(revision), &Access::default(), &mut |_| {})
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.clone_dir()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn every_kind_of_revision_is_found_and_told() {
    let world = World::new();
    let [head, first, branch] = ["main", "v1^{commit}", "feature/x"].map(|name| world.git(&["rev-parse", name]));

    let main = world.checkout("main").unwrap();
    assert_eq!((main.commit.as_str(), main.branch.as_deref(), main.changed), (head.as_str(), Some("main"), true));
    assert_eq!((main.author.as_str(), main.message.as_str()), ("A B <a@b>", "second"));
    assert!(head.starts_with(&main.short) && main.committed.contains('T'));
    assert!(!world.checkout("").unwrap().changed, "the default branch is the same commit");

    for (revision, commit, name) in [
        ("v1", &first, None),
        ("feature/x", &branch, Some("feature/x")),
        ("refs/tags/v1", &first, None),
        ("refs/heads/main", &head, Some("main")),
        (first.as_str(), &first, None),
        (&branch[..9], &branch, None),
    ] {
        let found = world.checkout(revision).unwrap();
        assert_eq!((&found.commit, found.branch.as_deref(), found.changed), (commit, name, true), "{revision}");
    }
    assert_eq!(world.files(), [".git", "a.txt", "x.txt"]);
    let newer = world.commit("b.txt", "b", "third");
    assert_eq!(world.checkout("main").unwrap().commit, newer, "a moved branch is fetched");
}

#[test]
fn whatever_was_in_the_directory_only_the_commit_remains() {
    let world = World::new();
    let good = world.checkout("main").unwrap();
    let dir = world.clone_dir();
    let same = |why: &str| {
        let now = world.checkout("main").unwrap_or_else(|e| panic!("{why}: {e}"));
        assert_eq!(now.commit, good.commit, "{why}");
        assert_eq!(world.files(), [".git", "a.txt"], "{why}");
        assert_eq!(fs::read_to_string(dir.join("a.txt")).unwrap(), "two", "{why}");
    };
    fs::write(dir.join("a.txt"), "changed").unwrap();
    fs::create_dir(dir.join("junk")).unwrap();
    fs::write(dir.join("junk/ignored.o"), "").unwrap();
    fs::write(dir.join(".git/info/exclude"), "*.o\n").unwrap();
    same("changed and untracked files");
    fs::write(dir.join(".git/index.lock"), "").unwrap();
    fs::write(dir.join(".git/HEAD.lock"), "").unwrap();
    same("locks of a killed git");
    fs::write(dir.join(".git/index"), "garbage").unwrap();
    same("a broken index");
    fs::remove_file(dir.join(".git/HEAD")).unwrap();
    same("a half-made clone");
    fs::remove_dir_all(dir.join(".git/objects")).unwrap();
    same("lost objects");
    fs::write(dir.join(".git/config"), "[broken").unwrap();
    same("a broken configuration");

    // A hook of the clone is somebody's program: it is not run.
    let hook = dir.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\ntouch hooked\n").unwrap();
    Command::new("chmod").arg("+x").arg(&hook).status().unwrap();
    world.checkout("v1").unwrap();
    same("a hook");
}

#[test]
fn a_shallow_clone_holds_what_was_asked_for_and_grows_when_more_is() {
    let world = World::new();
    let count = || {
        let output = Command::new("git")
            .arg("-C")
            .arg(world.clone_dir())
            .args(["rev-list", "--count", "HEAD"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let shallow = GitRequest { depth: Some(1), ..world.request("main") };
    checkout(&shallow, &Access::default(), &mut |_| {}).unwrap();
    assert_eq!(count(), "1");
    world.checkout("main").unwrap();
    assert_eq!(count(), "2");
}

#[test]
fn submodules_are_checked_out_when_asked_for() {
    let inner = World::new();
    let outer = World::new();
    let from = format!("{}", inner.origin().display());
    outer.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &from, "sub"]);
    outer.git(&["commit", "-q", "-m", "with a submodule"]);
    let with = GitRequest { submodules: true, ..outer.request("main") };
    outer.checkout("main").unwrap();
    assert!(!outer.clone_dir().join("sub/a.txt").exists());
    checkout(&with, &Access::default(), &mut |_| {}).unwrap();
    fs::write(outer.clone_dir().join("sub/a.txt"), "changed").unwrap();
    checkout(&with, &Access::default(), &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(outer.clone_dir().join("sub/a.txt")).unwrap(), "two");
}

#[test]
fn what_cannot_be_checked_out_is_refused_in_words() {
    let world = World::new();
    let said = |request: GitRequest| checkout(&request, &Access::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(
        said(world.request("featur/x")).contains("has no branch, tag or commit `featur/x`; near names: `feature/x`")
    );
    assert!(said(world.request("0123456789012345678901234567890123456789")).contains("has no branch, tag or commit"));
    assert!(said(world.request("--upload-pack=id")).contains("cannot be the name"));
    assert!(said(world.request("main:a.txt")).contains("cannot be the name"));
    let gone = GitRequest { url: "/nonexistent/repo".into(), ..world.request("main") };
    assert!(said(gone).starts_with("asking the repository failed"));

    let precious = world.dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("data"), "1").unwrap();
    assert!(
        said(GitRequest { into: precious.clone(), ..world.request("main") })
            .contains("holds files but is no git checkout")
    );
    assert!(
        said(GitRequest { into: ".".into(), ..world.request("main") }).contains("is the working directory or above it")
    );
    assert!(precious.join("data").exists());
}

#[test]
fn a_directory_that_another_checkout_is_making_is_waited_for() {
    let world = World::new();
    fs::create_dir(world.clone_dir()).unwrap();
    let half = world.clone_dir().join("half");
    fs::write(&half, "").unwrap();
    let other = fs::File::open(world.clone_dir()).unwrap();
    other.lock().unwrap();
    let locked = format!(":{} ", other.metadata().unwrap().ino());
    std::thread::scope(|scope| {
        let mine = scope.spawn(|| world.checkout("main"));
        let waits = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|lock| lock.contains("-> FLOCK") && lock.contains(&locked))
        };
        let mut looks = 0;
        while !waits() && !mine.is_finished() {
            looks += 1;
            assert!(looks < 5_000_000, "it neither waits nor ends");
            std::thread::yield_now();
        }
        fs::remove_file(&half).unwrap();
        drop(other);
        let made = mine.join().unwrap().unwrap();
        assert_eq!(made.commit, world.git(&["rev-parse", "main"]));
    });
}

#[test]
fn a_token_goes_to_its_host_and_nowhere_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map(Result::unwrap)
            .take_while(|l| !l.is_empty())
            .collect();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        lines
    });
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("clone");
    let request = GitRequest { url: format!("http://{address}/x.git"), into: into.clone(), ..GitRequest::default() };
    let credentials = Credentials { username: "me".into(), password: "hush".into() };
    let access = Access { credentials: Some(credentials), ..Access::default() };
    let error = checkout(&request, &access, &mut |_| {}).unwrap_err().to_string();
    let headers = seen.join().unwrap();
    assert!(headers.iter().any(|line| line == "Authorization: Basic bWU6aHVzaA=="), "{headers:?}");
    assert!(error.contains("does not exist or wants a token"), "{error}");
    assert!(!error.contains("hush") && !error.contains("bWU6"), "{error}");
    assert_eq!(leaks(&into, &["hush", "bWU6aHVzaA"]), Vec::<PathBuf>::new());
}

fn leaks(dir: &Path, secrets: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(leaks(&path, secrets));
        } else if secrets.iter().any(|secret| String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(secret)) {
            found.push(path);
        }
    }
    found
}
