//! The sandbox of somebody who is not root: the sentences of every backend again, and what is different there.
//!
//! As root this binary runs itself once more as another user, with these tests alone; what failed is then in its output.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use pitcrew_conformance::{Ability, Bench, World, pod, pod_with, step, step_with};
use pitcrew_core::pod::Pod;
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Handle};
use serde_json::json;

use crate::world::Sandbox;

/// Who has no name on any machine, and where such a one may write.
const USER: u32 = 54321;
const HOME: &str = "PITCREW_TEST_USER_DIR";

pub struct Ordinary(pub Sandbox);

#[async_trait]
impl World for Ordinary {
    async fn new() -> Option<Ordinary> {
        // Then the test below runs this one in another process.
        if rustix::process::geteuid().is_root() {
            return None;
        }
        if !can_be_root_of_itself() {
            assert!(std::env::var_os(HOME).is_none(), "the user that this runs as lost its namespaces");
            eprintln!("NOT TESTED: this user cannot make a namespace of users");
            return None;
        }
        let dir = std::env::var_os(HOME).map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        Some(Ordinary(Sandbox::below(&dir)))
    }

    fn backend(&self) -> &dyn Backend {
        self.0.backend()
    }

    async fn event(&mut self) -> BackendEvent {
        self.0.event().await
    }

    fn spec(&self, name: &str, pod: Pod) -> AttemptSpec {
        self.0.spec(name, pod)
    }

    async fn restart(&mut self) {
        self.0.restart().await;
    }

    async fn kill_keeper(&mut self, handle: &Handle) {
        self.0.kill_keeper(handle).await;
    }

    async fn left(&self, handle: &Handle) -> Vec<String> {
        self.0.left(handle).await
    }

    fn lacks(&self, ability: Ability) -> Option<String> {
        match ability {
            Ability::OtherUsers => Some("without root all containers are one user of the machine".to_owned()),
            _ => None,
        }
    }

    fn patience(&self) -> Duration {
        self.0.patience()
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        // The kernel closes a directory of each layer, and only root could remove it so.
        let _ = Command::new("chmod").args(["-R", "u+rwx"]).arg(&self.0.root).output();
    }
}

/// Can this user be root of a namespace of its own?
fn can_be_root_of_itself() -> bool {
    Command::new("unshare").args(["-U", "-r", "-m", "true"]).output().is_ok_and(|output| output.status.success())
}

pitcrew_conformance::pods!(every_backend = crate::without_root::Ordinary);

#[test]
fn an_ordinary_user_has_a_sandbox() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let as_user = |command: &mut Command| command.uid(USER).gid(USER).current_dir("/").output();
    let own = std::env::current_exe().unwrap();
    let runner = Path::new(env!("CARGO_BIN_EXE_exec-test-runner"));
    let reaches =
        |path: &Path| as_user(Command::new("test").arg("-x").arg(path)).is_ok_and(|output| output.status.success());
    let may =
        as_user(Command::new("unshare").args(["-U", "-r", "-m", "true"])).is_ok_and(|output| output.status.success());
    if !may || !reaches(&own) || !reaches(runner) {
        eprintln!("NOT TESTED: another user may make no namespaces here, or cannot reach `{}`", own.display());
        return;
    }
    let dir = tempfile::Builder::new().prefix("user").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    chown(dir.path(), Some(USER), Some(USER)).unwrap();
    let mut command = Command::new(own);
    command.args(["without_root::", "--test-threads", "2"]).env(HOME, dir.path()).env_remove("PITCREW_TEST_MOUNT");
    let output = as_user(&mut command).unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // As that user none of them was left out.
    assert!(stdout.contains("test result: ok") && !stdout.contains(" 0 passed"), "{stdout}");
}

async fn world() -> Option<Bench<Ordinary>> {
    Bench::new("a test of the sandbox without root").await
}

#[tokio::test]
async fn a_container_has_the_number_that_was_asked_for_and_its_files_are_the_users() {
    let Some(mut world) = world().await else { return };
    let security =
        json!({"security": {"run_as_user": 1001, "run_as_group": 1002, "run_as_non_root": true, "fs_group": 1003}});
    let script = "id -u; id -g; touch /workspace/own /tmp/own; stat -c %u /workspace/own";
    let steps = json!([
        step("a", script),
        step_with(
            "b",
            "id -u; cat /workspace/own; rm /workspace/own",
            json!({"security": {"run_as_user": 0, "run_as_non_root": false}})
        )
    ]);
    let done = world.run("a", pod_with(steps, security)).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["1001", "1002", "1001"], "{}", done.story());
    assert_eq!(done.lines(1), ["0"]);
    assert!(done.told().iter().any(|text| text.contains("fsGroup")), "{}", done.story());
}

#[tokio::test]
async fn what_root_of_a_container_breaks_is_whole_and_what_is_others_cannot_be_changed() {
    let Some(mut world) = world().await else { return };
    let script = "echo tool > /usr/local/bin/tool; rm /usr/bin/env; echo me:x:7:7::/: >> /etc/passwd; rm -f /etc/shadow; cat /usr/local/bin/tool
                  ls /usr/bin/env 2>/dev/null || echo removed; tail -n 1 /etc/passwd
                  (echo x >> /etc/os-release) 2>/dev/null || echo denied
                  ls -A /root /home /tmp /run | grep -v : | grep . || echo empty
                  mount -t tmpfs x /mnt 2>/dev/null || echo no mount";
    let before = std::fs::read("/etc/passwd").unwrap();
    let done = world.run("a", pod(json!([step("a", script)]))).await;
    done.assert_success();
    let wanted = ["tool", "removed", "me:x:7:7::/:", "denied", "empty", "no mount"];
    assert_eq!(done.lines(0), wanted, "{}", done.story());
    assert!(Path::new("/usr/bin/env").exists() && !Path::new("/usr/local/bin/tool").exists());
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
}

#[tokio::test]
async fn a_container_of_a_user_cannot_write_to_the_program_that_made_it_either() {
    let Some(mut world) = world().await else { return };
    crate::sidecars::assert_program_is_safe(&mut world).await;
}
