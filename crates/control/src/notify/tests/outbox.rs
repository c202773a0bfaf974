//! What happens when the other side fails, hangs, refuses or is flooded.

use pitcrew_store::NewNotice;

use super::super::facts::Body;
use super::*;

const NO_WORKFLOW: &str = "workflow: w\ntasks: {t: {backend: fake, run: x}}\n";

fn webhook(url: &str) -> String {
    format!("channels: {{hook: {{type: webhook, url: '{url}/in', timeout: 1s}}}}\n")
}

/// Notices of somebody's own words.
async fn tell(rig: &Rig, channel: &str, texts: impl IntoIterator<Item = String>) {
    let notice = |text: String| NewNotice {
        dedupe: format!("{channel}/{text}"),
        channel: channel.to_owned(),
        event: "message".to_owned(),
        workflow: None,
        run: None,
        body: serde_json::to_value(Body::Text { subject: text.clone(), text, html: None, page: String::new() })
            .unwrap(),
        created: clock::now(),
    };
    rig.app.store.add_notices(texts.into_iter().map(notice).collect()).await.unwrap();
}

#[tokio::test]
async fn what_may_pass_is_tried_again_as_the_other_side_asks() {
    let mut hook = Hook::start().await;
    let mut rig = Rig::new(&webhook(&hook.url), NO_WORKFLOW).await;
    hook.reply([Reply::Status(503), Reply::Wait(100), Reply::Hang]);
    tell(&rig, "hook", ["hello".to_owned()]).await;
    rig.turn().await;
    let first = hook.next().await;
    let (state, error) = rig.states().await.remove(0);
    assert_eq!(state, "waiting");
    assert!(error.ends_with("answered 503 Service Unavailable: not <now>"), "{error}");
    rig.turn().await;
    assert!(hook.is_quiet(), "not at once");
    rig.later(10);
    rig.turn().await;
    hook.next().await;
    rig.later(90);
    rig.turn().await;
    assert!(hook.is_quiet(), "the other side asked for 100 seconds");
    rig.later(15);
    rig.turn().await;
    hook.next().await;
    let error = rig.states().await.remove(0).1;
    assert!(error.contains("no answer within 1s") || error.contains("did not answer in time"), "{error}");
    rig.later(60);
    rig.turn().await;
    let last = hook.next().await;
    let notice = rig.notices().await.remove(0);
    assert_eq!((notice.state.name(), notice.tries), ("sent", 4));
    assert_eq!(first.header("x-pitcrew-delivery"), last.header("x-pitcrew-delivery"), "the same delivery");
}

#[tokio::test]
async fn what_will_not_pass_is_given_up_and_says_why() {
    let mut hook = Hook::start().await;
    let config = format!(
        "channels:\n  hook: {{type: webhook, url: '{}'}}\n  meta: {{type: webhook, url: 'http://169.254.169.254/latest'}}\n  \
         blind: {{type: slack, webhook: {{env: PITCREW_TEST_NOT_SET}}}}\n",
        hook.url
    );
    let mut rig = Rig::new(&config, NO_WORKFLOW).await;
    hook.reply([Reply::Redirect("http://elsewhere.example.com/x".into()), Reply::Status(404)]);
    for (channel, text) in [("hook", "a"), ("hook", "b"), ("meta", "c"), ("blind", "d"), ("nobody", "e")] {
        tell(&rig, channel, [text.to_owned()]).await;
    }
    rig.turn().await;
    let errors: Vec<String> =
        rig.states().await.into_iter().map(|(state, error)| format!("{state}: {error}")).collect();
    let errors = errors.join("\n").replace(&hook.url, "[HOOK]");
    insta::assert_snapshot!(errors, @r"
    failed: [HOOK] redirects to http://elsewhere.example.com (307); redirects are not followed: configure the final address
    failed: [HOOK] answered 404 Not Found: not <now>
    failed: 169.254.169.254 is a link-local address, where machines keep their credentials; `allow_link_local: true` allows it
    failed: `webhook` of the channel `blind`: the environment of the server has no variable `PITCREW_TEST_NOT_SET`
    failed: no channel `nobody` is configured: add it under `channels` in `pitcrew.yaml`
    ");
    hook.next().await;
    hook.next().await;

    // A person can have it tried again.
    let id = rig.notices().await[1].id;
    let audit = pitcrew_store::AuditEntry::new(clock::now(), "tester", "notice.retry");
    assert!(rig.app.store.retry_notice(id, clock::now(), audit).await.unwrap());
    rig.turn().await;
    assert_eq!(hook.next().await.json()["subject"], "b");
    assert_eq!(rig.states().await[1].0, "sent");

    let counted = rig.app.metrics.text(&Default::default());
    let of = |line: &&str| line.starts_with("pitcrew_notifications_total");
    insta::assert_snapshot!(counted.lines().filter(of).collect::<Vec<_>>().join("\n"), @r#"
    pitcrew_notifications_total{channel="blind",result="failed"} 1
    pitcrew_notifications_total{channel="hook",result="failed"} 2
    pitcrew_notifications_total{channel="hook",result="sent"} 1
    pitcrew_notifications_total{channel="meta",result="failed"} 1
    pitcrew_notifications_total{channel="nobody",result="failed"} 1
    "#);
}

#[tokio::test]
async fn a_channel_that_hangs_holds_up_no_other() {
    let (mut bad, mut good) = (Hook::start().await, Hook::start().await);
    let config = format!(
        "channels:\n  bad: {{type: webhook, url: '{}', timeout: 1h}}\n  good: {{type: webhook, url: '{}'}}\n",
        bad.url, good.url
    );
    let mut rig = Rig::new(&config, NO_WORKFLOW).await;
    bad.reply([Reply::Hang]);
    tell(&rig, "bad", ["a".to_owned()]).await;
    tell(&rig, "good", ["b".to_owned()]).await;
    rig.outbox.turn(&mut rig.desk).await.unwrap();
    good.next().await;
    bad.next().await;
    rig.desk.done().await.unwrap();
    tell(&rig, "good", ["c".to_owned()]).await;
    rig.outbox.turn(&mut rig.desk).await.unwrap();
    assert_eq!(good.next().await.json()["subject"], "c");
    assert!(bad.is_quiet(), "what is on its way is not sent a second time");
}

#[tokio::test]
async fn a_storm_becomes_one_message() {
    let mut hook = Hook::start().await;
    let mut rig = Rig::new(&webhook(&hook.url), NO_WORKFLOW).await;
    tell(&rig, "hook", (0..500).map(|n| format!("storm {n}"))).await;
    rig.turn().await;
    let body = hook.next().await.json();
    assert_eq!((body["event"].as_str(), body["count"].as_u64()), (Some("digest"), Some(500)));
    assert_eq!(body["notices"].as_array().map(Vec::len), Some(500));
    assert!(body["text"].as_str().unwrap().contains("… and 460 more"), "{}", body["text"]);
    let notices = rig.notices().await;
    assert_eq!(notices[0].state.name(), "sent");
    assert!(notices[1..].iter().all(|notice| notice.merged_into == Some(notices[0].id)));
    assert!(hook.is_quiet());

    // One after the other: ten in a minute, and then those that gathered.
    for n in 0..30 {
        tell(&rig, "hook", [format!("drop {n}")]).await;
        rig.turn().await;
    }
    let mut events = Vec::new();
    while let Ok(got) = hook.got.try_recv() {
        events.push(got.header("x-pitcrew-event").to_owned());
    }
    assert_eq!(events, vec!["message"; 9], "the digest was the first of the ten");
    rig.later(61);
    rig.turn().await;
    assert_eq!(hook.next().await.json()["count"], 21);
    assert!(rig.states().await.iter().all(|(state, _)| matches!(*state, "sent" | "merged")));
}

#[tokio::test]
async fn a_channel_that_is_away_gets_one_probe_and_then_one_digest() {
    let mut hook = Hook::start().await;
    let mut rig = Rig::new(&webhook(&hook.url), NO_WORKFLOW).await;
    hook.reply([Reply::Status(500), Reply::Status(500)]);
    tell(&rig, "hook", (0..3).map(|n| format!("a {n}"))).await;
    rig.turn().await;
    hook.next().await;
    assert!(hook.is_quiet(), "the others are not tried after the first failed");
    tell(&rig, "hook", (0..10).map(|n| format!("b {n}"))).await;
    rig.turn().await;
    assert!(hook.is_quiet());
    rig.later(30);
    rig.turn().await;
    hook.next().await;
    rig.later(60);
    rig.turn().await;
    assert_eq!(hook.next().await.json()["count"], 13);
    assert!(hook.is_quiet());
}
