//! The pages: whole, escaped, and harmless.

use axum::body::Body;
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
        "/workflows/nasty?runs=100&fold=x",
        "/workflows/nasty/runs",
        "/workflows/nasty/runs?due_from=2026-01-02T00:00:00Z&due_to=2026-01-03T00:00:00Z",
        "/workflows/nasty/graph",
        "/workflows/nasty/calendar",
        "/workflows/nasty/calendar?year=2024&tz=Asia%2FSeoul",
        "/workflows/nasty/source",
        "/workflows/nasty/source?against=none",
        "/workflows/nasty/trigger",
        "/workflows/nasty/trigger?from=r",
        "/workflows/nasty/runs/r",
        "/workflows/nasty/runs/r?state=failed",
        "/workflows/nasty/runs/r/files",
        "/workflows/nasty/runs/r/tasks/say",
        "/workflows/nasty/runs/r/tasks/say?tab=details",
        "/workflows/nasty/runs/r/tasks/say?q=%3Cscript%3E",
        "/workflows/nasty/runs/r/tasks/many",
        "/workflows/nasty/runs/r/tasks/many?state=success",
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
        assert!(page.text.contains("<h1>") && page.text.contains("aria-label=\"Main\""), "{path}");
    }
    let page = rig.get("/workflows/none").await.said();
    assert!(page.contains("There is no workflow `none`."), "{page}");
    let stranger = rig.send(rig.request(Method::GET, "/nothing/here").body(Body::empty()).unwrap()).await;
    assert!(stranger.status == StatusCode::NOT_FOUND && !stranger.text.contains("aria-label=\"Main\""));
}

#[tokio::test]
async fn the_first_page_gathers_what_waits_for_the_same_and_what_failed_of_a_workflow() {
    let source = "workflow: slow\nmax_active_runs: 1\ntasks:\n  hold: {backend: fake, pool: one, foreach: [1, 2, 3, 4], run: x, \
                  env: {FAKE_SLEEP_MS: '600000'}}\n---\nworkflow: bad\ntasks: {a: {backend: fake, run: x, env: {FAKE_EXIT_CODE: '1'}}}\n";
    let rig = Rig::with(source).await;
    rig.post("/api/v2/pools", json!({ "name": "one", "slots": 1 })).await;
    rig.post("/api/v2/pools", json!({ "name": "free", "slots": -1 })).await;
    for run in ["r1", "r2"] {
        let mut changes = rig.app.scheduler.subscribe();
        let made = rig.post("/api/v2/dags/bad/dagRuns", json!({ "logical_date": null, "dag_run_id": run })).await;
        assert_eq!(made.status, StatusCode::OK);
        while !changes.recv().await.unwrap().finished {}
    }
    let run = rig.start("slow", json!({})).await;
    rig.until(run.key, "hold", "running").await;
    for run in ["s1", "s2"] {
        rig.post("/api/v2/dags/slow/dagRuns", json!({ "logical_date": null, "dag_run_id": run })).await;
    }
    let mut live = rig.stream("/live/overview").await;
    while !rig.event(&mut live).await.contains("2 runs") {}
    let page = rig.get("/").await.text;
    let part =
        |id: &str| page.split(&format!("<section id=\"{id}\"")).nth(1).unwrap().split("</section>").next().unwrap();
    let now = part("now");
    assert!(now.contains("slow / hold</span>") && now.contains("3 instances") && now.contains("2 runs"), "{now}");
    let failed = part("failed");
    assert_eq!(failed.matches("<li").count(), 1, "{failed}");
    assert!(failed.contains("/runs/r2/tasks/a") && failed.contains(">1 before</a>"), "{failed}");
    assert!(rig.get("/pools").await.text.contains("no limit"));
    let unlimited = rig.submit("/pools/edit", "name=one&slots=&description=").await;
    assert_eq!(unlimited.status, StatusCode::SEE_OTHER);
    assert_eq!(rig.get("/api/v2/pools/one").await.json()["slots"], -1);
}

#[tokio::test]
async fn the_form_says_at_the_field_what_is_wrong_and_keeps_what_was_typed() {
    let rig = Rig::with(NASTY).await;
    let refused = rig.submit("/workflows/nasty/trigger", "param.text=kept&param.count=0&run_id=a%2Fb").await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("value=\"kept\"") && refused.text.contains("is not an id"), "{}", refused.text);
    let refused = rig.submit("/workflows/nasty/trigger", "param.text=kept&param.count=0").await;
    let said = refused.said();
    let errors: Vec<&str> =
        said.split("<p class=\"error\" role=\"alert\">").skip(1).filter_map(|rest| rest.split('<').next()).collect();
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
    // Shown in a frame inside the run's page, and only what is there.
    let files = rig.get("/workflows/nasty/runs/r/files").await.text;
    assert!(files.contains(&format!("<iframe class=\"file\" sandbox title=\"html/report.html\" src=\"{base}/html/")));
    let unknown = rig.get("/workflows/nasty/runs/r/files/data.bin").await.text;
    assert!(!unknown.contains("<iframe") && unknown.contains("data.bin?download=true"), "{unknown}");
    let gone = rig.get("/workflows/nasty/runs/r/files/..%2Fsecret").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
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

#[tokio::test]
async fn the_grid_has_a_row_for_each_task_and_group_and_folds_groups() {
    const GROUPED: &str = "
workflow: grouped
tasks:
  data: {tasks: {fetch: {backend: fake, run: x}, bad: {backend: fake, run: x, env: {FAKE_EXIT_CODE: \"1\"}}}}
  last: {needs: [data], backend: fake, run: x}
";
    let rig = Rig::with(GROUPED).await;
    rig.finish("grouped").await;
    let page = rig.get("/workflows/grouped").await.text;
    let rows: Vec<&str> =
        page.split("data-task=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
    assert_eq!(rows, ["data.fetch", "data.bad", "last"]);
    // Rows are 20 high: the group, then its tasks. A failure inside shows on the group.
    let path = |page: &str, state: &str| {
        let (_, rest) = page.split_once(&format!("<path class=\"s-{state}\""))?;
        Some(rest.split_once("d=\"")?.1.split('"').next()?.to_owned())
    };
    assert_eq!(path(&page, "failed").as_deref(), Some("M2 10h12M2 50h12"));
    assert_eq!(path(&page, "success").as_deref(), Some("M2 30h12"));
    assert_eq!(path(&page, "upstream_failed").as_deref(), Some("M2 70h12"));
    assert!(page.contains("href=\"/workflows/grouped/runs/r\" aria-label=\"r: failed in"), "{page}");
    let folded = rig.get("/workflows/grouped?fold=data").await.text;
    assert!(folded.contains("aria-expanded=\"false\"") && !folded.contains("data.fetch"), "{folded}");
    assert_eq!(path(&folded, "failed").as_deref(), Some("M2 10h12"));
}

#[tokio::test]
async fn a_log_is_searched_and_a_line_of_it_can_be_linked_to() {
    let (rig, key) = ran().await;
    let base = "/workflows/nasty/runs/r/tasks/say";
    let found = rig.get(&format!("{base}?q=ALERT(2)")).await.text;
    assert!(
        found.contains("&lt;script&gt;<mark>alert(2)</mark>") || found.contains("<mark>alert(2)</mark>"),
        "{found}"
    );
    let at = found.split("&amp;at=").nth(1).and_then(|rest| rest.split('#').next()).unwrap().to_owned();
    let linked = rig.get(&format!("{base}?attempt=1&at={at}")).await.text;
    assert!(linked.contains(&format!("id=\"b{at}\"")), "{linked}");
    assert!(rig.get(&format!("{base}?q=nowhere")).await.text.contains("Nothing found"));
    let part = rig.get(&format!("/logs/{key}/say/-1/1/part?from=0&to={at}")).await.json();
    assert!(part[1].as_array().unwrap().iter().all(|line| line["at"].as_u64().unwrap() < at.parse().unwrap()));
    assert_eq!(rig.get(&format!("{base}?at=x")).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn tasks_are_marked_and_rerun_by_choice_and_a_run_has_a_note() {
    let (rig, key) = ran().await;
    let base = "/workflows/nasty/runs/r";
    let none = rig.submit(&format!("{base}/tasks"), "do=success").await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    let wrong = rig.submit(&format!("{base}/tasks"), "do=explode&pick=say").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(rig.submit(&format!("{base}/tasks"), "do=success&pick=nobody").await.status, StatusCode::NOT_FOUND);
    let noted = rig.submit(&format!("{base}/note"), "note=%3Cb%3Emine").await;
    assert_eq!(noted.header("location"), base);
    assert_eq!(rig.run(key).await.note, "<b>mine");
    assert!(rig.get(base).await.text.contains("&#60;b&#62;mine"));
    let marked = rig.submit(&format!("{base}/tasks"), "do=success&pick=say").await;
    assert_eq!(marked.status, StatusCode::SEE_OTHER);
    let say = rig.get("/api/v2/dags/nasty/dagRuns/r/taskInstances/say").await.json();
    assert_eq!(say["state"], "success");
    let long = rig.submit(&format!("{base}/note"), &format!("note={}", "x".repeat(3000))).await;
    assert_eq!(long.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn viewers_share_the_rendering_of_a_page() {
    let (rig, key) = ran().await;
    let address = format!("/live/runs/{key}");
    let [mut first, mut second] = [rig.stream(&address).await, rig.stream(&address).await];
    let [one, two] = [rig.event(&mut first).await, rig.event(&mut second).await];
    assert!(one.contains("run-head") && one == two, "{one}");
    rig.submit("/workflows/nasty/runs/r/note", "note=shared").await;
    let [one, two] = [rig.event(&mut first).await, rig.event(&mut second).await];
    assert!(one.contains("shared") && !one.contains("run-graph") && one == two, "{one}");
    let mut instances = rig.stream(&format!("/live/tasks/{key}/many")).await;
    let first = rig.event(&mut instances).await;
    assert!(first.contains("instances") && first.contains("many[1]"), "{first}");
}
