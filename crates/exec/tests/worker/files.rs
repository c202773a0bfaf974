//! Files of a run go to the worker that needs them, and come back.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::{AttemptId, RunKey};
use pitcrew_exec::worker::Wire;
use pitcrew_exec::worker::files::{Depot, KeptError, apply, blob, manifest, stage};
use pitcrew_exec::worker::protocol::{Cancel, Changes, File};

use crate::server::CREDENTIAL;
use crate::{LONG, Site};

impl Site {
    fn there(&self, path: &str) -> std::path::PathBuf {
        self.server.runs.path().join("7").join(path)
    }

    /// A file of the run, as a task on the server's own machine would leave it.
    fn leave(&self, path: &str, text: &str) {
        let path = self.there(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.there(path)).ok()
    }

    async fn ends(&self, id: &AttemptId) {
        self.server.until("it ended", |s| s.ended.contains_key(id)).await;
        self.server.with(|s| {
            let ended = &s.ended[id];
            assert!(ended.exit.is_success() && ended.output_problems.is_empty(), "{ended:?}");
        });
    }

    fn moved(&self, what: &str) -> usize {
        self.server.with(|s| s.moved.iter().filter(|moved| moved.starts_with(what)).count())
    }
}

#[tokio::test]
async fn what_one_worker_makes_another_finds_and_only_what_changed_travels() {
    let mut site = Site::new(LONG).await;
    site.leave("workspace/src/a.txt", "one");
    site.leave("workspace/src/same.txt", "one");
    site.leave("workspace/old.txt", "old");
    std::fs::set_permissions(site.there("workspace/src/a.txt"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("src/a.txt", site.there("workspace/link")).unwrap();
    let first = site.worker(1).await;
    let script = "set -e; test -x src/a.txt; test \"$(cat link)\" = one; rm old.txt; echo two >> src/a.txt; mkdir -p empty made; \
                  echo new > made/b.txt; ln -s /etc/hostname leads_out; mkdir ../artifacts/r; echo kept > ../artifacts/r/k.txt";
    let id = site.order_with("first", script, true);
    site.ends(&id).await;
    assert_eq!(site.read("workspace/src/a.txt").as_deref(), Some("onetwo\n"));
    assert_eq!(site.read("artifacts/r/k.txt").as_deref(), Some("kept\n"));
    assert!(site.there("workspace/empty").is_dir() && !site.there("workspace/old.txt").exists());
    assert!(site.there("workspace/leads_out").symlink_metadata().is_err());
    // Two files have the same bytes, and one was not touched.
    assert_eq!((site.moved("get"), site.moved("put")), (2, 3));
    first.task.abort();

    let here = site.own();
    site.name = "other";
    let second = site.worker(1).await;
    let script =
        "set -e; grep -q two src/a.txt; test \"$(cat made/b.txt)\" = new; test -d empty; echo three > made/b.txt";
    let id = site.order_with("second", script, true);
    site.ends(&id).await;
    assert_eq!(site.read("workspace/made/b.txt").as_deref(), Some("three\n"));
    assert_eq!(site.moved("put"), 4);
    second.task.abort();

    // Back on the first, which has all but that.
    site.name = "worker";
    let before = site.moved("get");
    let first = site.worker(1).await;
    let id = site.order_with("third", "test \"$(cat made/b.txt)\" = three", true);
    site.ends(&id).await;
    assert_eq!((site.moved("get") - before, site.moved("put")), (1, 4));
    // The run is over.
    site.server.with(|s| s.leave = vec![RunKey(7)]);
    let gone = async {
        while here.join("runs/7").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), gone).await.unwrap();
    first.task.abort();
}

#[tokio::test]
async fn two_tasks_at_once_on_two_workers_are_merged_by_path() {
    let site = Site::new(LONG).await;
    site.leave("workspace/shared.txt", "s");
    let gate = site.dir.path().join("gate");
    let script = |name: &str| {
        format!("echo {name} > {name}.txt; touch {name}.ready; while [ ! -e {} ]; do sleep 0.05; done", gate.display())
    };
    let first = site.worker(1).await;
    let one = site.order_with("one", &script("one"), true);
    site.server.until("one runs", |s| s.running.contains(&one)).await;
    // The server speaks to one worker at a time in this test, so the second has a server of its own with the same files.
    let second = Site::over(LONG, site.server.runs.clone()).await;
    let other = second.worker(1).await;
    let two = second.order_with("two", &script("two"), true);
    second.server.until("two runs", |s| s.running.contains(&two)).await;
    std::fs::write(&gate, "").unwrap();
    site.ends(&one).await;
    second.ends(&two).await;
    for path in ["workspace/one.txt", "workspace/two.txt", "workspace/one.ready", "workspace/shared.txt"] {
        assert!(site.there(path).exists(), "{path} is missing");
    }
    first.task.abort();
    other.task.abort();
}

#[tokio::test]
async fn what_a_lost_attempt_left_never_takes_the_place_of_what_was_done_since() {
    let site = Site::new(Duration::from_secs(3)).await;
    site.leave("workspace/model.txt", "none");
    let worker = site.worker(1).await;
    let lost = site.order_with("fit", "echo part > model.txt; echo part > rest.txt; exec sleep 1000", true);
    let here = site.own().join("runs/7/workspace/rest.txt");
    let wrote = async {
        while !here.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), wrote).await.unwrap();
    site.server.with(|s| (s.orders.clear(), s.silent = true));
    // Its lease is over, whatever answers come now.
    tokio::time::sleep(Duration::from_secs(4)).await;
    site.server.with(|s| (s.silent, s.lease) = (false, LONG));
    site.server.until("it is told as lost", |s| s.lost.contains_key(&lost)).await;
    // It was done again elsewhere.
    site.leave("workspace/model.txt", "whole");
    let next =
        site.order_with("test", "test \"$(cat model.txt)\" = whole && test ! -e rest.txt && touch mine.txt", true);
    site.ends(&next).await;
    assert_eq!(site.read("workspace/model.txt").as_deref(), Some("whole"));
    assert!(site.there("workspace/mine.txt").exists() && !site.there("workspace/rest.txt").exists());
    worker.task.abort();
}

#[tokio::test]
async fn an_attempt_that_is_cancelled_does_not_wait_for_files_that_cannot_go() {
    let site = Site::new(LONG).await;
    let worker = site.worker(1).await;
    let gate = site.dir.path().join("gate");
    let script = format!("echo x > made; while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let id = site.order_with("stuck", &script, true);
    site.server.until("it runs", |s| s.running.contains(&id)).await;
    site.server.with(|s| s.cut = Some(0));
    std::fs::write(&gate, "").unwrap();
    site.server.with(|s| {
        let handle = s.orders[0].handle.clone();
        s.cancel = vec![Cancel { handle, grace_ms: 0 }];
    });
    site.server.until("it ended", |s| s.ended.contains_key(&id)).await;
    site.server.with(|s| {
        let problems = &s.ended[&id].output_problems;
        assert!(problems.iter().any(|problem| problem.contains("its files did not come")), "{problems:?}");
    });
    assert!(!site.there("workspace/made").exists());
    worker.task.abort();
}

#[tokio::test]
async fn a_run_that_comes_back_while_its_directory_goes_has_all_its_files() {
    let site = Site::new(LONG).await;
    let paths: Vec<String> = (0..100).map(|number| format!("workspace/d{}/f{number}", number % 7)).collect();
    paths.iter().for_each(|path| site.leave(path, path));
    let runs = site.dir.path().join("runs");
    let dir = runs.join("7");
    let depot = Arc::new(Depot::new(site.dir.path().join("blobs"), 1 << 30));
    let wire = Wire::new(&site.server.url, CREDENTIAL).unwrap();
    let id: AttemptId = "7/t.1".parse().unwrap();
    for _ in 0..3 {
        depot.bring(&wire, &dir, &id).await.unwrap();
        depot.begun(&id);
        let leaving = depot.leave(RunKey(7), dir.clone());
        // Somebody lives here, and nothing that lies there is taken for something that was removed.
        let (brought, ()) = tokio::join!(depot.bring(&wire, &dir, &id), leaving);
        brought.unwrap();
        depot.send(&wire, &dir, &id).await.unwrap();
        assert!(paths.iter().all(|path| dir.join(path).exists() && site.there(path).exists()));
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 1);
    }
}

#[test]
fn what_leads_out_of_a_run_is_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (run, now) = (dir.path().join("7"), jiff::Timestamp::UNIX_EPOCH);
    stage(&run, &"0".repeat(64), &mut &b"x"[..]).unwrap_err();
    let sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    stage(&run, sha256, &mut &b"x"[..]).unwrap();
    stage(&run, "../../x", &mut &b"x"[..]).unwrap_err();
    let file = || File::File { sha256: sha256.to_owned(), size: 1, mode: 0o644 };
    for (path, file) in [
        ("../x", file()),
        ("workspace/../../x", file()),
        ("/etc/x", file()),
        ("attempts/a/log", file()),
        ("workspace/l", File::Link { to: "/etc".to_owned() }),
        ("workspace/l", File::Link { to: "../../..".to_owned() }),
        ("workspace/f", File::File { sha256: "../../etc/passwd".to_owned(), size: 1, mode: 0o644 }),
    ] {
        let put = [("workspace/right".to_owned(), right(sha256)), (path.to_owned(), file)].into();
        let error = apply(&run, &Changes { put, removed: Vec::new() }, now).unwrap_err();
        assert!(matches!(error, KeptError::Refused(_)), "{path}: {error}");
    }
    let removed = vec!["workspace/../../other".to_owned()];
    apply(&run, &Changes { put: Default::default(), removed }, now).unwrap_err();
    assert!(manifest(&run, now).unwrap().files.is_empty());
    let put = [("workspace/right".to_owned(), right(sha256))].into();
    let changes = Changes { put, removed: Vec::new() };
    // Said twice, it is done once.
    apply(&run, &changes, now).unwrap();
    apply(&run, &changes, now).unwrap();
    assert_eq!(manifest(&run, now).unwrap().files, changes.put);
    for path in [None, Some("workspace/right"), Some("workspace/gone"), Some("../7/files.json")] {
        assert_eq!(blob(&run, sha256, path).unwrap().1, 1);
    }
    assert!(matches!(blob(&run, &"0".repeat(64), None), Err(KeptError::Missing(_))));
    let unknown = File::File { sha256: "0".repeat(64), size: 1, mode: 0o644 };
    let put = [("workspace/unknown".to_owned(), unknown)].into();
    assert!(matches!(apply(&run, &Changes { put, removed: Vec::new() }, now), Err(KeptError::Missing(_))));
}

#[test]
fn whoever_comes_last_is_right_and_what_a_task_forbade_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (run, now) = (dir.path().join("7"), jiff::Timestamp::UNIX_EPOCH);
    let sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let put = |path: &str| {
        stage(&run, sha256, &mut &b"x"[..]).unwrap();
        let put = [(path.to_owned(), right(sha256))].into();
        apply(&run, &Changes { put, removed: Vec::new() }, now)
    };
    put("workspace/out").unwrap();
    put("workspace/out/a/b").unwrap();
    assert!(manifest(&run, now).unwrap().files.keys().eq(["workspace/out/a/b"]));
    put("workspace/out").unwrap();
    assert!(manifest(&run, now).unwrap().files.keys().eq(["workspace/out"]));
    // What was removed elsewhere, and is something else here by now.
    let removed = vec!["workspace/out/a/b".to_owned()];
    apply(&run, &Changes { put: Default::default(), removed }, now).unwrap();
    let long = format!("workspace/{}", "a".repeat(255));
    put(&long).unwrap();
    // Root may do anything.
    if !rustix::process::geteuid().is_root() {
        std::fs::create_dir(run.join("workspace/closed")).unwrap();
        std::fs::set_permissions(run.join("workspace/closed"), std::fs::Permissions::from_mode(0o500)).unwrap();
        let error = put("workspace/closed/x").unwrap_err();
        assert!(matches!(&error, KeptError::Refused(why) if why.contains("workspace/closed/x")), "{error}");
    }
}

fn right(sha256: &str) -> File {
    File::File { sha256: sha256.to_owned(), size: 1, mode: 0o644 }
}
