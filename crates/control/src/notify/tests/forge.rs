//! States of runs at their forges: what is written, in which order, and what becomes of it when the forge will not have it.

use pitcrew_lang::triggers::report::{Forge, Report, Token};
use serde_json::json;

use super::*;
use crate::hooks::report::Target;
use crate::tekton::objects;

const WORKFLOWS: &str = "workflow: good\ntasks: {t: {backend: fake, run: x}}\n---\n\
     workflow: bad\ntasks: {t: {backend: fake, run: x, env: {FAKE_EXIT_CODE: \"3\"}}}\n";
const TOKEN: &str = "hunter2-of-the-forge";

fn target(url: &str, forge: Forge, repository: &str) -> Target {
    let token = Token::Key { namespace: "ci".into(), name: "forge".into(), key: "token".into() };
    let report = Report { forge, api: format!("{url}/api"), context: None, token };
    Target { report, repository: repository.into(), commit: "c0ffee".into(), name: "ci/test".into() }
}

async fn rig() -> (Rig, Hook) {
    let (rig, hook) = (Rig::new("", WORKFLOWS).await, Hook::start().await);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "forge"}, "stringData": {"token": TOKEN}});
    objects::put(&rig.app.store, &rig.app.vault, &secret, "ci", "tester", clock::now()).await.unwrap();
    (rig, hook)
}

impl Rig {
    async fn begin(&self, workflow: &str, target: &Target) -> RunRecord {
        let trigger = Trigger { by: "hook".into(), report: Some(target.clone()), ..Trigger::default() };
        self.app.trigger(&WorkflowId::new(workflow).unwrap(), trigger).await.unwrap()
    }

    async fn to_its_end(&self, workflow: &str, target: &Target) -> RunRecord {
        let mut changes = self.app.scheduler.subscribe();
        let run = self.begin(workflow, target).await;
        loop {
            let change = changes.recv().await.unwrap();
            if change.run == run.key && change.finished {
                return run;
            }
        }
    }
}

#[tokio::test]
async fn a_status_says_how_the_run_stands_now_however_late_it_is_sent() {
    let (mut rig, mut hook) = rig().await;
    hook.reply([Reply::Status(503)]);
    let to = target(&hook.url, Forge::Github, "acme/app");
    let run = rig.begin("good", &to).await;
    rig.app.store.add_notices(crate::hooks::report::notice(&run, clock::now()).into_iter().collect()).await.unwrap();
    rig.turn().await;
    let first = hook.next().await;
    assert_eq!(first.path, "/api/repos/acme/app/statuses/c0ffee");
    assert_eq!(first.header("authorization"), format!("Bearer {TOKEN}"));
    // By now the run is over: what was to say `pending` is too late to say it.
    let ended = async {
        loop {
            let row = rig.app.store.run(run.key).await.unwrap().unwrap();
            if row.state.is_final() {
                return row;
            }
            tokio::task::yield_now().await;
        }
    };
    ended.await;
    rig.later(10);
    rig.turn().await;
    let second = hook.next().await.json();
    assert_eq!((&second["state"], &second["context"]), (&json!("success"), &json!("ci/test")), "{second}");
    assert!(second["description"].as_str().unwrap().starts_with("Succeeded after "), "{second}");
    assert_eq!(
        second["target_url"],
        json!(format!("https://ci.example.com/workflows/good/runs/{}", crate::links::encode(run.run_id.as_str())))
    );
    rig.later(60);
    rig.turn().await;
    while let Ok(got) = hook.got.try_recv() {
        assert_eq!(got.json()["state"], json!("success"), "never `pending` after it");
    }
    assert!(rig.states().await.iter().all(|(state, _)| ["sent", "merged"].contains(state)), "{:?}", rig.states().await);
    let notice = &rig.notices().await[0];
    assert_eq!(crate::notify::view::subject(notice), "status of acme/app@c0ffee, ci/test");
    assert!(!format!("{:?}", rig.notices().await).contains("hunter2"));
}

#[tokio::test]
async fn each_forge_is_told_in_its_own_words() {
    let (mut rig, mut hook) = rig().await;
    for (forge, repository, path, field, word) in [
        (Forge::Github, "acme/app", "/api/repos/acme/app/statuses/c0ffee", "state", "failure"),
        (Forge::Gitlab, "acme/sub/app", "/api/projects/acme%2Fsub%2Fapp/statuses/c0ffee", "state", "failed"),
        (Forge::Bitbucket, "acme/app", "/api/repositories/acme/app/commit/c0ffee/statuses/build", "state", "FAILED"),
    ] {
        let run = rig.to_its_end("bad", &target(&hook.url, forge, repository)).await;
        rig.turn().await;
        let got = hook.next().await;
        assert_eq!(got.path, path);
        let body = got.json();
        assert_eq!(body[field], json!(word), "{body}");
        assert!(body["description"].as_str().unwrap().ends_with(": t"), "{run:?}: {body}");
        if forge == Forge::Gitlab {
            assert_eq!((got.header("private-token"), got.header("authorization")), (TOKEN, ""));
        }
        assert!(hook.is_quiet());
    }
}

#[tokio::test]
async fn a_forge_that_was_asked_too_often_is_left_alone_as_long_as_it_says() {
    let (mut rig, mut hook) = rig().await;
    hook.reply([Reply::Spent(300), Reply::Status(401)]);
    let to = target(&hook.url, Forge::Github, "acme/app");
    rig.to_its_end("good", &to).await;
    rig.turn().await;
    hook.next().await;
    rig.later(200);
    rig.turn().await;
    assert!(hook.is_quiet(), "{:?}", rig.states().await);
    rig.later(200);
    rig.turn().await;
    hook.next().await;
    let states = rig.states().await;
    // What it refuses for good is given up, and says why without saying the token.
    assert!(states.iter().any(|(state, error)| *state == "failed" && error.contains("answered 401")), "{states:?}");
    assert!(hook.is_quiet());
}

#[tokio::test]
async fn a_check_run_is_made_once_and_then_changed() {
    let (mut rig, mut hook) = rig().await;
    let to = target(&hook.url, Forge::GithubChecks, "acme/app");
    hook.reply([Reply::Json(json!({"check_runs": []}))]);
    let run = rig.to_its_end("good", &to).await;
    rig.turn().await;
    assert_eq!(hook.next().await.path, "/api/repos/acme/app/commits/c0ffee/check-runs");
    let made = hook.next().await;
    assert_eq!((made.path.as_str(), made.method.as_str()), ("/api/repos/acme/app/check-runs", "POST"));
    let body = made.json();
    assert_eq!((&body["status"], &body["conclusion"]), (&json!("completed"), &json!("success")), "{body}");
    assert_eq!((&body["head_sha"], &body["name"]), (&json!("c0ffee"), &json!("ci/test")), "{body}");
    // Once more, as after a crash before the answer was written down.
    let again = pitcrew_store::NewNotice {
        dedupe: "again".into(),
        ..crate::hooks::report::notice(&rig.app.store.run(run.key).await.unwrap().unwrap(), clock::now()).unwrap()
    };
    rig.app.store.add_notices(vec![again]).await.unwrap();
    let known =
        json!({"check_runs": [{"id": 6, "external_id": "other"}, {"id": 7, "external_id": body["external_id"]}]});
    hook.reply([Reply::Json(known)]);
    rig.turn().await;
    hook.next().await;
    let changed = hook.next().await;
    assert_eq!((changed.path.as_str(), changed.method.as_str()), ("/api/repos/acme/app/check-runs/7", "PATCH"));
}
