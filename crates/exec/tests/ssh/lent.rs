//! `git.checkout` on a host of a repository over SSH, with a key that only this process has. The host and the git host
//! are real sshds.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;

use pitcrew_core::AttemptId;
use pitcrew_core::state::Exit;
use pitcrew_exec::git::{GitRequest, remote_step};
use pitcrew_exec::ssh::remote::{Seal, SshBackend, SshConfig};
use pitcrew_exec::ssh::{Limits, Pool};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Ended, Handle, LentKey, Place, SshPlace};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::program::write_program;
use crate::proxy::{Proxy, Way};
use crate::sshd::{Sshd, keygen, until, user};
use crate::world::{World, place};

/// Seals as nobody should.
struct Backwards;

impl Seal for Backwards {
    fn seal(&self, text: &str) -> std::io::Result<String> {
        Ok(text.chars().rev().collect())
    }

    fn open(&self, sealed: &str) -> std::io::Result<String> {
        self.seal(sealed)
    }
}

struct Delivery {
    world: World,
    /// Where attempts run; its sessions have the directory `host` as home.
    _host: Sshd,
    /// Which has the repository.
    git: Sshd,
    proxy: Proxy,
    backend: SshBackend,
    events: UnboundedReceiver<BackendEvent>,
    commit: String,
    number: u32,
}

impl Delivery {
    async fn new() -> Delivery {
        Delivery::with("", "").await
    }

    /// With these settings of the host's sshd, and of the git host's.
    async fn with(host: &str, git: &str) -> Delivery {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.keep();
        let host = Sshd::start(&format!("{host}\nSetEnv HOME={}", home.display())).await;
        let git = Sshd::start(git).await;
        let world = World::admitted(&host);
        let proxy = Proxy::to(host.port).await;
        std::os::unix::fs::symlink(&home, world.dir.path().join("host")).unwrap();
        sh(
            world.dir.path(),
            "git init -q -b main repo && cd repo && git config user.email a@b && git config user.name A",
        );
        sh(world.dir.path(), "cd repo && head -c 300000 /dev/urandom >data && git add data && git commit -qm first");
        let commit = sh(world.dir.path(), "git -C repo rev-parse HEAD");
        let (backend, events) = backend(&world);
        Delivery { world, _host: host, git, proxy, backend, events, commit, number: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.dir.path().join(name)
    }

    fn known_hosts(&self) -> String {
        format!("[127.0.0.1]:{} {}", self.git.port, self.git.host_key("ed25519"))
    }

    /// Makes a key that the git host takes.
    fn key(&self, name: &str, kind: &str, passphrase: &str) -> LentKey {
        let file = self.path(name);
        keygen(&file, kind, passphrase);
        self.git.admit(&file);
        let key = std::fs::read_to_string(&file).unwrap();
        // From here on it is in memory only.
        std::fs::remove_file(file).unwrap();
        LentKey { key, passphrase: Some(passphrase.to_owned()) }
    }

    fn request(&self) -> GitRequest {
        GitRequest {
            url: format!("ssh://{}@127.0.0.1:{}{}", user(), self.git.port, self.path("repo").display()),
            revision: "main".into(),
            into: format!("it's {}", self.number).into(),
            known_hosts: self.known_hosts(),
            ..GitRequest::default()
        }
    }

    async fn begin(&mut self, request: &GitRequest, key: &LentKey) -> Handle {
        self.number += 1;
        let id = serde_json::json!({ "run": 1, "task": "t", "map_index": -1, "number": self.number });
        let id: AttemptId = serde_json::from_value(id).unwrap();
        let mut spec = AttemptSpec::new(id, self.path(&format!("attempt-{}", self.number)), "");
        let work = self.path("work").display().to_string();
        let place = SshPlace { workdir: Some(work), ..place(self.proxy.port) };
        spec.place = Some(Place::Ssh(place));
        spec.steps = vec![remote_step("git.checkout", request, None, Some(key.clone())).unwrap()];
        spec.masks = vec![key.key.clone()];
        let handle = self.backend.prepare(&spec);
        self.backend.start(&handle, spec).await.unwrap();
        handle
    }

    async fn end(&mut self) -> Ended {
        let next = async {
            loop {
                match self.events.recv().await.unwrap() {
                    BackendEvent::Ended { ended, .. } => return ended,
                    BackendEvent::Started { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(120), next).await.expect("it hangs")
    }

    async fn said(&self, handle: &Handle) -> String {
        let records = self.backend.logs(handle, 0, 1 << 20).await.unwrap().records;
        records.iter().map(|record| format!("{}\n", record.text)).collect()
    }

    /// How it ended, and what it said.
    async fn check_out(&mut self, request: &GitRequest, key: &LentKey) -> (Ended, String) {
        let handle = self.begin(request, key).await;
        let ended = self.end().await;
        let said = self.said(&handle).await;
        (ended, said)
    }

    /// On the host.
    fn attempt(&self, handle: &Handle) -> PathBuf {
        self.path("host/.pitcrew/a").join(pitcrew_exec::ssh::remote::name_of("test", &handle.id))
    }

    /// What the attempt wrote on the host, also while nobody can see it from here.
    fn host_log(&self, handle: &Handle) -> String {
        std::fs::read_to_string(self.attempt(handle).join("log")).unwrap_or_default()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(std::fs::read_link(self.path("host")).unwrap());
    }
}

fn backend(world: &World) -> (SshBackend, UnboundedReceiver<BackendEvent>) {
    let (sender, events) = unbounded_channel();
    let state_dir = world.dir.path().join("removals");
    let config = SshConfig { instance: "test".into(), state_dir, seal: Arc::new(Backwards) };
    let backoff = (std::time::Duration::from_millis(5), std::time::Duration::from_millis(50));
    let pool = Pool::new(world.setup.clone(), Limits { backoff, ..Limits::default() });
    (SshBackend::new(config, Arc::new(pool), sender), events)
}

fn sh(dir: &Path, script: &str) -> String {
    let done = Process::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// Files below a directory, and processes, that hold a line of the key.
fn leaks(dirs: &[PathBuf], key: &str) -> Vec<String> {
    let line = key.lines().nth(2).unwrap();
    let has = |bytes: &[u8]| bytes.windows(line.len()).any(|window| window == line.as_bytes());
    let mut found = Vec::new();
    let mut dirs = dirs.to_vec();
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.is_file() && has(&std::fs::read(&path).unwrap_or_default()) {
                found.push(path.display().to_string());
            }
        }
    }
    for process in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        for file in ["cmdline", "environ"] {
            if has(&std::fs::read(process.join(file)).unwrap_or_default()) {
                found.push(process.join(file).display().to_string());
            }
        }
    }
    found
}

/// On the git host: waits at each question until it may go on, and does then what `when` says.
fn gate(dir: &Path, when: &str) -> String {
    let script = dir.join("gate");
    let text = format!(
        "#!/bin/sh\ncd '{}' || exit 1\necho >>asked\nwhile [ ! -e go ]; do sleep 0.05; done\n{when}\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
        dir.display()
    );
    write_program(&script, &text);
    format!("ForceCommand {}", script.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_type_of_key_opens_a_repository_and_goes_nowhere() {
    let mut delivery = Delivery::new().await;
    for (kind, passphrase) in [("ed25519", ""), ("ecdsa", ""), ("rsa", ""), ("ed25519", "it's a 'phrase'")] {
        let key = delivery.key("lent", kind, passphrase);
        let request = delivery.request();
        let (ended, said) = delivery.check_out(&request, &key).await;
        assert!(ended.exit.is_success(), "{kind}: {ended:?} {said}");
        assert_eq!(ended.outputs["commit"], delivery.commit.as_str(), "{kind}");
        assert_eq!(
            leaks(&[delivery.path("host"), delivery.path("work"), delivery.path("")], &key.key),
            Vec::<String>::new()
        );
        // In a secret that is JSON, with its passphrase.
        if !passphrase.is_empty() {
            let json = serde_json::json!({ "private_key": key.key, "passphrase": passphrase }).to_string();
            let (ended, said) = delivery.check_out(&request, &LentKey { key: json, passphrase: None }).await;
            assert!(ended.exit.is_success(), "{ended:?} {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_a_time_have_a_key_each() {
    // Fewer sessions than attempts: what is lent takes none.
    let mut delivery = Delivery::with("MaxSessions 3", "").await;
    let keys: Vec<LentKey> = (0..10).map(|n| delivery.key(&format!("lent-{n}"), "ed25519", "")).collect();
    let all: Vec<String> =
        (0..10).map(|n| std::fs::read_to_string(delivery.path(&format!("lent-{n}.pub"))).unwrap()).collect();
    std::fs::write(delivery.git.dir.path().join("authorized_keys"), all.concat()).unwrap();
    for key in &keys {
        let request = delivery.request();
        delivery.begin(&request, key).await;
    }
    for _ in &keys {
        let ended = delivery.end().await;
        assert!(ended.exit.is_success(), "{ended:?}");
        assert_eq!(ended.outputs["commit"], delivery.commit.as_str());
    }
    // Ten keys signed in, each of them to ask and to fetch.
    let log = delivery.git.log();
    let used: std::collections::BTreeSet<&str> = log
        .lines()
        .filter(|line| line.contains("Accepted publickey"))
        .filter_map(|line| line.split("SHA256:").nth(1))
        .collect();
    assert_eq!(used.len(), 10, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_key_is_told_and_not_tried_again() {
    let mut delivery = Delivery::new().await;
    let wrong = delivery.key("wrong", "ed25519", "");
    let good = delivery.key("good", "ed25519", "phrase");
    let request = delivery.request();
    let (ended, said) = delivery.check_out(&request, &wrong).await;
    assert_eq!(ended.exit, Exit::Code { code: 78 }, "{said}");
    assert!(said.contains("the git host does not accept the key that was given"), "{said}");
    for (key, told) in [
        (LentKey { passphrase: None, ..good.clone() }, "is an encrypted key: give its `passphrase`"),
        (LentKey { passphrase: Some("other".into()), ..good.clone() }, "the passphrase does not fit"),
        (LentKey { key: "hunter2".into(), passphrase: None }, "holds no private key"),
    ] {
        let (ended, _) = delivery.check_out(&request, &key).await;
        let Exit::StartFailed { reason, lasting: true } = &ended.exit else { panic!("{ended:?}") };
        assert!(reason.starts_with("the `key` for the repository ") && reason.contains(told), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_the_git_host_is_checked() {
    let mut delivery = Delivery::new().await;
    let key = delivery.key("lent", "ed25519", "");
    let strict = delivery.request();
    let other = GitRequest { known_hosts: "elsewhere ssh-ed25519 AAAA".into(), ..strict.clone() };
    let (ended, said) = delivery.check_out(&other, &key).await;
    assert_eq!(ended.exit, Exit::Code { code: 78 }, "{said}");
    assert!(said.contains("the SSH host key of the git host is not known; add it to `known_hosts`"), "{said}");

    // Without any a new host is recorded in the file of the user there, and known from then on.
    let new = GitRequest { known_hosts: String::new(), ..strict.clone() };
    let (ended, said) = delivery.check_out(&new, &key).await;
    assert!(ended.exit.is_success(), "{ended:?} {said}");
    let recorded = std::fs::read_to_string(delivery.path("host/.ssh/known_hosts")).unwrap();
    assert!(recorded.contains(&delivery.git.host_key("ed25519")), "{recorded}");

    delivery.git.down();
    delivery.git.change_host_key("ed25519");
    delivery.git.up().await;
    for request in [strict, new] {
        let (ended, said) = delivery.check_out(&request, &key).await;
        assert_eq!(ended.exit, Exit::Code { code: 78 }, "{said}");
        assert!(said.contains("is not the known one; somebody may be in between"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_lets_no_key_be_lent_says_so_before_anything_runs() {
    let mut delivery = Delivery::with("AllowStreamLocalForwarding no", "").await;
    let key = delivery.key("lent", "ed25519", "");
    let request = delivery.request();
    let (ended, _) = delivery.check_out(&request, &key).await;
    let Exit::StartFailed { reason, lasting: true } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("forbids that a key is lent to it: see `AllowStreamLocalForwarding`"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_in_a_clone_costs_time_only_and_the_key_is_on_neither_machine() {
    let dir = tempfile::tempdir().unwrap();
    let mut delivery = Delivery::with("", &gate(dir.path(), "")).await;
    let key = delivery.key("lent", "ed25519", "");
    let request = delivery.request();
    let handle = delivery.begin(&request, &key).await;
    until("git asks", || dir.path().join("asked").exists()).await;
    assert_eq!(
        leaks(&[delivery.path("host"), delivery.path("work"), delivery.path("")], &key.key),
        Vec::<String>::new()
    );
    delivery.proxy.set(Way::Cut);
    std::fs::write(dir.path().join("go"), "").unwrap();
    until("it waits for the key", || delivery.host_log(&handle).contains("waiting for the connection to Pitcrew"))
        .await;
    delivery.proxy.set(Way::Open);
    let ended = delivery.end().await;
    let said = delivery.said(&handle).await;
    assert!(ended.exit.is_success(), "{ended:?} {said}");
    assert_eq!(ended.outputs["commit"], delivery.commit.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_git_host_that_goes_in_the_middle_of_a_transfer_is_worth_another_try() {
    let mut delivery = Delivery::new().await;
    let key = delivery.key("lent", "ed25519", "");
    let way = Proxy::to(delivery.git.port).await;
    let mut request = delivery.request();
    request.url = format!("ssh://{}@127.0.0.1:{}{}", user(), way.port, delivery.path("repo").display());
    request.known_hosts = format!("[127.0.0.1]:{} {}", way.port, delivery.git.host_key("ed25519"));
    // More than a sign-in and a list of branches, less than the repository.
    way.set(Way::CutAfter(100_000));
    let (ended, said) = delivery.check_out(&request, &key).await;
    assert_eq!(ended.exit, Exit::Code { code: 1 }, "{said}");
    assert!(said.contains("fetching failed"), "{said}");
    way.set(Way::Open);
    let (ended, said) = delivery.check_out(&request, &key).await;
    assert!(ended.exit.is_success(), "{ended:?} {said}");
    assert_eq!(ended.outputs["commit"], delivery.commit.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_fails_while_the_key_is_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let settings = gate(dir.path(), "[ -e failed ] || { touch failed; exit 1; }");
    let mut delivery = Delivery::with("", &settings).await;
    let key = delivery.key("lent", "ed25519", "");
    let request = delivery.request();
    let handle = delivery.begin(&request, &key).await;
    until("git asks", || dir.path().join("asked").exists()).await;
    let socket = delivery.attempt(&handle).join("agent.sock");
    let label = || Process::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket).output().unwrap();
    let first = label();
    assert!(first.status.success(), "{first:?}");
    delivery.proxy.set(Way::Cut);
    until("the key is away", || !label().status.success()).await;
    delivery.proxy.set(Way::Open);
    until("the key is back under another name", || label().status.success() && label().stdout != first.stdout).await;
    std::fs::write(dir.path().join("go"), "").unwrap();
    let ended = delivery.end().await;
    let said = delivery.said(&handle).await;
    assert!(ended.exit.is_success() && said.contains("broke meanwhile; trying again"), "{ended:?} {said}");
    assert_eq!(ended.outputs["commit"], delivery.commit.as_str());
    // The key is lent no longer than the attempt is there.
    until("nobody answers there", || !label().status.success()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_server_lends_the_key_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut delivery = Delivery::with("", &gate(dir.path(), "")).await;
    let key = delivery.key("lent", "ed25519", "");
    let request = delivery.request();
    let handle = delivery.begin(&request, &key).await;
    until("git asks", || dir.path().join("asked").exists()).await;
    // The connections of the one before are gone with it.
    delivery.proxy.set(Way::Cut);
    (delivery.backend, delivery.events) = backend(&delivery.world);
    std::fs::write(dir.path().join("go"), "").unwrap();
    until("it waits for the key", || delivery.host_log(&handle).contains("waiting for the connection to Pitcrew"))
        .await;
    delivery.proxy.set(Way::Open);
    delivery.backend.attach(&handle).await;
    let ended = delivery.end().await;
    let said = delivery.said(&handle).await;
    assert!(ended.exit.is_success(), "{ended:?} {said}");
    assert_eq!(ended.outputs["commit"], delivery.commit.as_str());
}
