//! Which events are told to whom, and in which words.

use super::*;

fn names(notices: &[Notice]) -> Vec<String> {
    notices.iter().map(|notice| format!("{}>{}", notice.notice.event, notice.notice.channel)).collect()
}

#[tokio::test]
async fn a_failure_is_told_with_its_task_its_log_and_a_signature_and_without_secrets() {
    let mut hook = Hook::start().await;
    let config = format!(
        "channels: {{hook: {{type: webhook, url: '{}/in?k=1', headers: {{x-team: ml}}, secret: {{file: secret}}}}}}\n\
         notify: [{{on: [failure, success], to: hook}}]\n",
        hook.url
    );
    let workflow = r#"
workflow: etl
description: Loads
tasks:
  load:
    backend: fake
    run: x
    retries: 1
    retry_delay: 0s
    env: {FAKE_EXIT_CODE: '3', FAKE_LOG: "one\n\u001b[31mkey is hunter2-hunter2\u001b[0m <script>"}
"#;
    let mut rig = Rig::new(&config, workflow).await;
    std::fs::write(rig._dir.path().join("secret"), "hook secret\n").unwrap();
    let audit = pitcrew_store::AuditEntry::new(clock::now(), "t", "variable.set");
    let set =
        |key: &str| pitcrew_store::VariableSet { key: key.into(), value: "hunter2-hunter2".into(), description: None };
    rig.app.store.set_variable(set("DB_PASSWORD"), audit).await.unwrap();

    let run = rig.run("etl").await;
    rig.turn().await;
    let got = hook.next().await;
    assert_eq!((got.path.as_str(), got.header("x-team"), got.header("x-pitcrew-event")), ("/in", "ml", "failure"));
    let signed = format!("{}.{}", got.header("x-pitcrew-timestamp"), got.body);
    assert_eq!(
        got.header("x-pitcrew-signature-256"),
        super::super::webhook::sign("hook secret", got.header("x-pitcrew-timestamp"), &got.body)
    );
    assert!(signed.len() > 100);
    let mut body = got.json();
    assert_eq!(body["id"], got.header("x-pitcrew-delivery"));
    let page = crate::links::run(&run.workflow, &run.run_id);
    assert_eq!(body["url"], format!("https://ci.example.com{page}"));
    assert_eq!(body["run"]["state"], "failed");
    assert_eq!(body["tasks"][0]["log"], "one\nkey is *** <script>");
    for key in ["id", "url", "run", "text"] {
        body[key].take();
    }
    body["tasks"][0]["url"].take();
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).unwrap(), @r#"
    {
      "version": 1,
      "id": null,
      "event": "failure",
      "channel": "hook",
      "subject": "etl: run failed",
      "text": null,
      "url": null,
      "tasks": [
        {
          "name": "load",
          "state": "failed",
          "attempt": 2,
          "attempts": 2,
          "exit": "exit code 3",
          "log": "one\nkey is *** <script>",
          "url": null
        }
      ],
      "run": null,
      "workflow": "etl"
    }
    "#);
    assert_eq!(rig.states().await, [("sent", String::new())]);
}

#[tokio::test]
async fn each_event_is_told_once_to_whom_a_rule_names() {
    let config = "channels: {a: {type: slack, webhook: {env: X}}, b: {type: slack, webhook: {env: X}}}\n\
                  notify:\n  - {on: [failure], to: [a, b]}\n  - {on: [failure], to: a, workflows: ['fl*']}\n  \
                  - {on: [cancelled], to: b, tags: [other]}\n";
    let workflows = r#"
workflow: flaky
notify:
  - {on: [task_failure, retry], to: a}
  - {on: [success, recovery], to: b}
tasks:
  t: {backend: fake, run: x, retries: 1, retry_delay: 0s, env: {FAKE_FAIL_UNTIL_ATTEMPT: "{{ var.until }}"}}
  u: {backend: fake, run: x, env: {FAKE_FAIL_UNTIL_ATTEMPT: "{{ var.until }}"}}
---
workflow: slow
tags: [other]
tasks:
  t: {backend: fake, run: x, env: {FAKE_SLEEP_MS: '3600000'}}
"#;
    let rig = Rig::new(config, workflows).await;
    let until = async |attempt: &str| {
        let set = pitcrew_store::VariableSet { key: "until".into(), value: attempt.into(), description: None };
        let audit = pitcrew_store::AuditEntry::new(clock::now(), "t", "variable.set");
        rig.app.store.set_variable(set, audit).await.unwrap();
    };
    let mut seen = 0;
    let mut new = async || {
        let all = names(&rig.notices().await);
        let mut new = all[seen..].to_vec();
        seen = all.len();
        new.sort();
        new
    };
    until("9").await;
    rig.run("flaky").await;
    assert_eq!(
        new().await,
        ["failure>a", "failure>b", "retry>a", "task_failure>a"],
        "two tasks failed, one is the first"
    );
    until("0").await;
    rig.run("flaky").await;
    assert_eq!(new().await, ["recovery>b"], "and not the success too");
    rig.run("flaky").await;
    assert_eq!(new().await, ["success>b"]);
    let run = rig.start("slow").await;
    rig.until(run.key, "t", "running").await;
    let mut changes = rig.app.scheduler.subscribe();
    rig.app.scheduler.cancel(run.key, "tester").await.unwrap();
    while !changes.recv().await.unwrap().finished {}
    assert_eq!(new().await, ["cancelled>b"]);
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_told_of_once() {
    let mut hook = Hook::start().await;
    let config = format!("channels: {{hook: {{type: webhook, url: '{}'}}}}\n", hook.url);
    let workflow = r#"
workflow: slow
notify: {on: late, after: 50ms, to: hook, subject: "{{ workflow }}: {{ tasks[0].name }}"}
tasks:
  t: {backend: fake, run: x, env: {FAKE_SLEEP_MS: '3600000'}}
"#;
    let mut rig = Rig::new(&config, workflow).await;
    let mut wake = rig.app.store.subscribe(std::time::Duration::from_millis(20));
    let run = rig.start("slow").await;
    while rig.notices().await.is_empty() {
        wake.changed().await;
    }
    rig.turn().await;
    let body = hook.next().await.json();
    assert_eq!((body["event"].as_str(), body["subject"].as_str()), (Some("late"), Some("slow: t")));
    rig.mark_failed(run.key, "t").await;
    assert_eq!(rig.notices().await.len(), 1);
}

#[tokio::test]
async fn a_template_that_does_not_work_loses_no_message() {
    let mut hook = Hook::start().await;
    let config = "channels: {hook: {type: slack, webhook: {file: url}, message: '*{{ run.nothing }}*'}}\n".to_owned();
    let workflow = "workflow: w\nnotify: {on: failure, to: hook}\ntasks: {t: {backend: fake, run: x, env: {FAKE_EXIT_CODE: '1', FAKE_LOG: '<!channel> a & b'}}}\n";
    let mut rig = Rig::new(&config, workflow).await;
    std::fs::write(rig._dir.path().join("url"), format!("{}/services/T0/B0/x", hook.url)).unwrap();
    rig.run("w").await;
    rig.turn().await;
    let got = hook.next().await;
    assert_eq!(got.path, "/services/T0/B0/x");
    let body = got.json();
    let text = body["blocks"].to_string();
    assert!(text.contains("template of the message does not work"), "{text}");
    assert!(text.contains("&lt;!channel&gt; a &amp; b") && !text.contains("<!channel>"), "{text}");
    assert_eq!(body["blocks"][0]["text"]["text"], "❌ w: run failed");
}
