//! The pages: whole, escaped, and harmless.

use axum::http::{Method, StatusCode};
use pitcrew_core::RunKey;
use serde_json::json;

use super::Rig;

const NASTY: &str = r#"
workflow: nasty
description: "<script>alert(1)</script>"
params:
  text: {type: string, default: '"><img src=x>', description: "<b>bold</b>"}
  count: {type: integer, minimum: 1, default: 2}
  mode: {type: string, enum: [fast, full]}
tasks:
  say:
    backend: fake
    run: x
    env: {FAKE_LOG: "<script>alert(2)</script>", FAKE_OUTPUT_out: "\"<i>x</i>\"", FAKE_EXIT_CODE: "1"}
  many: {backend: fake, foreach: {n: ["<u>", b]}, run: x}
"#;

async fn ran() -> (Rig, RunKey) {
    let rig = Rig::with(NASTY).await;
    let mut changes = rig.app.scheduler.subscribe();
    let run = rig.start("nasty", json!({ "mode": "fast" })).await;
    while !changes.recv().await.unwrap().finished {}
    (rig, run.key)
}

#[tokio::test]
async fn every_page_is_there_and_escapes_what_it_shows() {
    let (rig, _) = ran().await;
    for path in [
        "/",
        "/workflows",
        "/workflows?q=n&tag=&show=active&page=7",
        "/runs",
        "/runs?state=failed",
        "/workflows/nasty",
        "/workflows/nasty/source",
        "/workflows/nasty/trigger",
        "/workflows/nasty/trigger?from=r",
        "/workflows/nasty/runs/r",
        "/workflows/nasty/runs/r?state=failed",
        "/workflows/nasty/runs/r/tasks/say",
        "/workflows/nasty/runs/r/tasks/many",
        "/workflows/nasty/runs/r/tasks/many/0",
    ] {
        let page = rig.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        for raw in ["<script>alert", "<b>bold", "<img src=x", "<i>x", "<u>"] {
            assert!(!page.text.contains(raw), "{path} shows {raw} as it is");
        }
    }
    let log = rig.get("/workflows/nasty/runs/r/tasks/say").await.text;
    assert!(log.contains("&lt;script&gt;alert(2)"), "{log}");
}

#[tokio::test]
async fn what_is_not_there_is_a_page_that_says_so() {
    let rig = Rig::with(NASTY).await;
    for path in [
        "/workflows/none",
        "/workflows/..%2F..%2Fetc",
        "/workflows/nasty/runs/none",
        "/workflows/nasty/runs/none/tasks/say",
        "/live/runs/999",
        "/nothing/here",
    ] {
        let page = rig.get(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.text.contains("<h1>"), "{path}");
    }
}

#[tokio::test]
async fn the_form_says_at_the_field_what_is_wrong_and_keeps_what_was_typed() {
    let rig = Rig::with(NASTY).await;
    let refused = rig.submit("/workflows/nasty/trigger", "param.text=kept&param.count=0&run_id=a%2Fb").await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("value=\"kept\"") && refused.text.contains("is not an id"), "{}", refused.text);
    let refused = rig.submit("/workflows/nasty/trigger", "param.text=kept&param.count=0").await;
    let errors: Vec<&str> = refused
        .text
        .split("<p class=\"error\" role=\"alert\">")
        .skip(1)
        .filter_map(|rest| rest.split('<').next())
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("count") && errors[1].contains("mode"), "{errors:?}");
    let accepted =
        rig.submit("/workflows/nasty/trigger", "param.text=&param.count=5&param.mode=%22full%22&run_id=mine").await;
    assert_eq!((accepted.status, accepted.header("location")), (StatusCode::SEE_OTHER, "/workflows/nasty/runs/mine"));
    let run = rig.get("/api/v2/dags/nasty/dagRuns/mine").await.json();
    assert_eq!(run["conf"], json!({ "text": "", "count": 5, "mode": "full" }));
}

#[tokio::test]
async fn buttons_do_what_they_say() {
    let (rig, key) = ran().await;
    let mut changes = rig.app.scheduler.subscribe();
    let retried = rig.submit("/workflows/nasty/runs/r/retry", "").await;
    assert_eq!(retried.header("location"), "/workflows/nasty/runs/r");
    while !changes.recv().await.unwrap().finished {}
    let tries = rig.get("/api/v2/dags/nasty/dagRuns/r/taskInstances/say/tries").await.json();
    assert_eq!(tries["total_entries"], 2);
    rig.submit("/workflows/nasty/pause", "paused=true").await;
    assert!(rig.get("/workflows/nasty").await.text.contains(">Resume<"));
    assert!(rig.run(key).await.state.is_final());
}

#[tokio::test]
async fn artifacts_are_served_without_harm_and_only_their_own() {
    let (rig, key) = ran().await;
    let root = rig.app.data.artifacts(key);
    std::fs::create_dir_all(root.join("html")).unwrap();
    std::fs::write(root.join("html/report.html"), "<script>alert(3)</script>").unwrap();
    std::fs::write(root.join("data.bin"), [0, 1, 2]).unwrap();
    std::fs::write(root.parent().unwrap().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    let base = format!("/api/pitcrew/v1/runs/{key}/artifacts");

    let listed = rig.get(&base).await.json();
    let paths: Vec<&str> =
        listed["artifacts"].as_array().unwrap().iter().map(|a| a["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["data.bin", "html/report.html"]);
    let page = rig.get(&format!("{base}/html/report.html")).await;
    assert!(page.header("content-security-policy").starts_with("sandbox; default-src 'none'"));
    assert_eq!(page.header("content-length"), "25");
    assert!(rig.get(&format!("{base}/data.bin")).await.header("content-disposition").starts_with("attachment"));
    for outside in
        ["../secret", "..%2Fsecret", "html/../../secret", "link", "html", "%2Fetc%2Fpasswd", "a%00b", "none", ""]
    {
        let answer = rig.ask(Method::GET, &format!("{base}/{outside}"), "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{outside}");
    }
    assert!(rig.get("/workflows/nasty/runs/r").await.text.contains("<iframe sandbox loading"));
}

#[tokio::test]
async fn a_live_page_sends_its_parts_and_a_live_log_ends_with_its_attempt() {
    let (rig, key) = ran().await;
    let log = rig.get(&format!("/live/logs/{key}/say/-1/1?offset=0&open=")).await;
    assert!(log.text.starts_with("event: lines\nid: ") && log.text.contains("&lt;script&gt;alert(2)"), "{}", log.text);
    assert!(log.text.ends_with("event: end\ndata: over\n\n"), "{}", log.text);
    // A page that follows a run goes on until the server closes.
    rig.site.closing.cancel();
    let page = rig.get(&format!("/live/runs/{key}")).await;
    assert_eq!(page.header("content-type"), "text/event-stream");
    let events = rig.get(&format!("/api/pitcrew/v1/runs/{key}/events")).await;
    assert_eq!(events.status, StatusCode::OK);
}
