//! A private repository over SSH, by a key from the Secrets Manager: on a server and here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::json;

use crate::harness::{contains, text};
use crate::world::Delivery;

/// Looks at all processes until it is stopped, for a text in a command line or an environment.
struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    /// `may` says which processes may have it in their environment, by their command line.
    fn new(secret: &str, may: fn(&str) -> bool) -> Watch {
        let (secret, over) = (secret.to_owned(), Arc::new(AtomicBool::new(false)));
        let stop = over.clone();
        let look = move || {
            let (mut looks, mut found) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
                    let read = |file: &str| std::fs::read(process.join(file)).unwrap_or_default();
                    let has_it = || contains(&read("environ"), secret.as_bytes());
                    let line = || String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                    let (is_told, is_there, mut line_then) = (line().contains(&secret), has_it(), line());
                    // A process that just becomes another program has no command line for a moment.
                    while is_there && line_then.is_empty() && has_it() {
                        line_then = line();
                    }
                    if is_told || (is_there && !line_then.is_empty() && !may(&line_then)) {
                        found.push(line_then);
                    }
                }
                looks += 1;
            }
            (looks, found)
        };
        Watch { over, thread: std::thread::spawn(look) }
    }

    fn saw_nothing(self) {
        self.over.store(true, Ordering::Relaxed);
        let (looks, found) = self.thread.join().unwrap();
        assert!(looks > 3 && found.is_empty(), "{looks}: {found:?}");
    }
}

#[tokio::test]
async fn a_repository_over_ssh_by_a_key_that_no_server_gets() {
    let mut world = Delivery::new(&["127.0.0.1"]).await;
    let git = world.git_over_ssh().await;
    let commit = world.commit("www/version.yaml", "a: 10.0\n");
    let mut conf = world.conf("127.0.0.1");
    conf["git_repo_url"] = json!(world.ssh_url(&git));
    conf["git_token"] = json!("");
    conf["git_key"] = json!("aws-sm:git/key");
    let watch = Watch::new(world.line_of_git_key(), |_| false);
    let run = world.trigger(conf.clone());
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    watch.saw_nothing();
    assert_eq!(world.output(&run, "deliver.checkout", "commit"), commit);
    world.no_secret_anywhere();
    // The one thing that stays is the host key of the git host, where `ssh` of the user keeps those.
    world.leaves_only(&[".ssh", ".ssh/known_hosts"]);

    conf["git_key"] = json!("aws-sm:wrong/key");
    let run = world.trigger(conf.clone());
    assert_eq!(world.ended(&run), "failed");
    let story = world.story(&run);
    assert!(story.contains("the git host does not accept the key that was given"), "{story}");
    conf["git_key"] = json!("aws-sm:git/token");
    let run = world.trigger(conf);
    assert_eq!(world.ended(&run), "failed");
    let story = world.story(&run);
    assert!(story.contains("the `key` for the repository holds no private key"), "{story}");
    world.no_secret_anywhere();
}

#[tokio::test]
async fn a_repository_over_ssh_is_checked_out_here_by_an_agent() {
    let mut world = Delivery::new(&["127.0.0.1"]).await;
    let git = world.git_over_ssh().await;
    let commit = world.commit("a", "1");
    let known_hosts = format!("[127.0.0.1]:{} {}", git.port, git.host_key("ed25519"));
    let checkout = |key: &str, known_hosts: &str| {
        let key = format!("{{{{ secret('{key}') }}}}");
        let with = json!({ "url": world.ssh_url(&git), "into": "app", "key": key, "known_hosts": known_hosts });
        let task = json!({ "uses": "git.checkout", "with": with, "retries": 3, "retry_delay": "1h" });
        let workflow = json!({ "workflow": "here", "tasks": { "checkout": task } });
        std::fs::write(world.pitcrew.path("here.yaml"), workflow.to_string()).unwrap();
        let out = world.pitcrew.run(&["run", "here.yaml"]);
        (out.status.success(), text(&out) + &world.pitcrew.ok(&["logs", "latest"]))
    };
    // The action itself gets the key as it gets a token; git and all that it starts do not.
    let watch = Watch::new(world.line_of_git_key(), |line| line.contains(" internal action git.checkout "));
    let (is_success, said) = checkout("aws-sm:git/key", &known_hosts);
    watch.saw_nothing();
    assert!(is_success && said.contains(&commit[..7]), "{said}");
    world.no_secret_anywhere();

    // Each of these would wait for an hour if it were tried again.
    for (key, known_hosts, told) in [
        ("aws-sm:wrong/key", known_hosts.as_str(), "the git host does not accept the key that was given"),
        ("aws-sm:git/token", &known_hosts, "the `key` for the repository holds no private key"),
        ("aws-sm:git/key", "elsewhere ssh-ed25519 AAAA", "the host's SSH key is not known; add it to `known_hosts`"),
    ] {
        let (is_success, said) = checkout(key, known_hosts);
        assert!(!is_success && said.contains(told), "{said}");
    }
    // Without them a new host is recorded in the file of the user, and known from then on.
    let (is_success, said) = checkout("aws-sm:git/key", "");
    assert!(is_success, "{said}");
    let users = world.pitcrew.path(".ssh/known_hosts");
    let recorded = std::fs::read_to_string(&users).unwrap();
    assert!(recorded.contains(&git.host_key("ed25519")), "{recorded}");
    let other = std::fs::read_to_string(git.dir.path().join("host_ed25519.pub")).unwrap();
    let other = recorded.replace(
        other.split(' ').nth(1).unwrap(),
        "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    );
    std::fs::write(users, other).unwrap();
    let (is_success, said) = checkout("aws-sm:git/key", "");
    assert!(!is_success && said.contains("is not the known one; somebody may be in between"), "{said}");
}
