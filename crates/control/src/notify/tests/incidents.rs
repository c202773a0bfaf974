//! What recovery has to say, from the machine that decides to the request that a channel gets.

use pitcrew_core::recovery::{
    Act, Advice, Effect, IncidentId, Input, JobSpec, Mode, NodeFacts, Place, Policy, Recovery, Rung, Seen, Signal,
    SignalKind,
};

use super::*;
use crate::recovery::Signs;
use crate::recovery::tell::{About, post};
use crate::recovery::view::deeds;

const FLOW: &str = "
workflow: etl
tasks:
  train: {backend: fake, run: x, env: {FAKE_EXIT_CODE: '3', FAKE_LOG: \"step 7\\nCUDA error hunter2-hunter2\"}}
";

/// A node `s21`, a job on it, and the effects that a GPU which fell off the bus there leads to.
fn fallen(recovery: &mut Recovery, job: &str) -> Vec<Effect> {
    let node = || "s21".to_owned();
    let facts = NodeFacts { rungs: [Rung::Reboot].into(), boot_id: Some("b1".to_owned()), ..NodeFacts::default() };
    let seen = Seen { boot_id: Some("b1".to_owned()), agent: true, gpus: Some(2) };
    let place = Place { node: node(), gpus: vec!["GPU-a".to_owned()] };
    let signal = Signal {
        id: "b1/7".to_owned(),
        node: node(),
        boot_id: Some("b1".to_owned()),
        gpu: Some("GPU-a".to_owned()),
        job: None,
        at: clock::now(),
        kind: SignalKind::Xid { code: 79 },
        advice: Advice::Reboot,
        evidence: "NVRM: Xid 79, GPU has fallen off the bus, hunter2-hunter2".to_owned(),
    };
    let inputs = [
        Input::Node { node: node(), facts },
        Input::Observed { node: node(), seen },
        Input::JobStarted { job: job.to_owned(), attempt: 1, ranks: vec![place], spec: JobSpec::default() },
        Input::Signal(signal),
    ];
    inputs.into_iter().flat_map(|input| recovery.apply(input, clock::now()).effects).collect()
}

/// Performs what is wanted of people, as often as somebody would who was killed in between.
async fn tell(rig: &Rig, recovery: &Recovery, effects: &[Effect], times: usize) {
    for effect in effects {
        let Act::Notify { notice } = &effect.act else { continue };
        let incident = effect.incident.and_then(|id| recovery.incident(id)).cloned();
        let may = incident.as_ref().map(|incident| deeds(recovery, incident.id)).unwrap_or_default();
        for _ in 0..times {
            let (effect, incident, may) = (effect.id.clone(), incident.clone(), may.clone());
            let about = About { effect, incident, may, signs: Signs::default(), at: clock::now() };
            post(&rig.app.store, &rig.app.notify, &about, notice).await.unwrap();
        }
    }
}

/// Weakness 23: people get the evidence and the end of the log along with what they are asked.
#[tokio::test]
async fn a_repair_that_waits_for_somebody_is_told_once_with_all_that_they_need_to_decide_and_without_secrets() {
    let mut hook = Hook::start().await;
    let config = format!(
        "channels: {{hook: {{type: webhook, url: '{}/in', subject: '{{{{ run.state }}}}'}}}}\n\
         notify: [{{on: [incident, failure], to: hook}}, {{on: incident.approval_wanted, to: hook, nodes: ['s2*']}}]\n",
        hook.url
    );
    let mut rig = Rig::new(&config, FLOW).await;
    let audit = pitcrew_store::AuditEntry::new(clock::now(), "t", "variable.set");
    let secret =
        pitcrew_store::VariableSet { key: "DB_PASSWORD".into(), value: "hunter2-hunter2".into(), description: None };
    rig.app.store.set_variable(secret, audit).await.unwrap();
    let run = rig.run("etl").await;
    rig.turn().await;
    assert_eq!(hook.next().await.header("x-pitcrew-event"), "failure");

    let mut recovery = Recovery::new(Policy { mode: Mode::Approve, ..Policy::default() });
    let effects = fallen(&mut recovery, &format!("{}/train", run.key));
    tell(&rig, &recovery, &effects, 3).await;
    rig.turn().await;
    let got = hook.next().await;
    rig.turn().await;
    assert!(hook.is_quiet(), "told once, though two rules name it and it was performed three times");
    assert_eq!(got.header("x-pitcrew-event"), "incident.approval_wanted");
    assert!(!got.body.contains("hunter2"), "{}", got.body);
    let body = got.json();
    assert_eq!(body["subject"], "inc-1: s21 needs: reboot; advice: reboot");
    assert_eq!(body["url"], "https://ci.example.com/incidents/inc-1");
    let incident = &body["incident"];
    assert_eq!((&incident["node"], &incident["gpus"][0]), (&"s21".into(), &"GPU-a".into()));
    assert_eq!(incident["xids"], serde_json::json!([79]));
    assert_eq!(incident["left"], serde_json::json!(["reboot"]));
    assert_eq!(
        incident["commands"],
        serde_json::json!(["pitcrew incidents approve inc-1", "pitcrew incidents dismiss inc-1"])
    );
    let page = crate::links::task(&run.workflow, &run.run_id, &"train".parse().unwrap(), -1);
    let job = &incident["jobs"][0];
    assert_eq!(job["url"], format!("https://ci.example.com{page}"));
    assert!(job["log"].as_str().unwrap().contains("CUDA error ***"), "{job}");
    let text = body["text"].as_str().unwrap();
    for part in [
        "NVRM: Xid 79, GPU has fallen off the bus, ***",
        "XID 79: fallen off the bus (docs/xids.md#xid-79-fallen-off-the-bus)",
        "suspected → fenced: takes no new work",
        "    pitcrew incidents approve inc-1",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("template"), "templates are of runs:\n{text}");
}

#[tokio::test]
async fn each_channel_hears_of_the_nodes_and_kinds_that_it_wants() {
    let hook = Hook::start().await;
    let channel = format!("{{type: webhook, url: '{}/in'}}", hook.url);
    let config = format!(
        "channels: {{all: {channel}, others: {channel}, end: {channel}, runs: {channel}}}\nnotify:\n\
         - {{on: incident, to: all}}\n- {{on: incident, to: others, nodes: [g*]}}\n\
         - {{on: [incident.out_of_service, incident.repaired], to: end}}\n- {{on: failure, to: runs}}\n"
    );
    let rig = Rig::new(&config, FLOW).await;
    let mut recovery = Recovery::new(Policy { mode: Mode::Approve, ..Policy::default() });
    let effects = fallen(&mut recovery, "1/train");
    tell(&rig, &recovery, &effects, 1).await;
    let told = async || {
        let notices = rig.notices().await;
        notices.iter().map(|n| format!("{}>{}", n.notice.event, n.notice.channel)).collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["incident.approval_wanted>all"]);

    // Nobody allows it, also after a reminder.
    let mut later = clock::now();
    for _ in 0..2 {
        later = later.checked_add(SignedDuration::from_hours(2)).unwrap();
        let effects = recovery.apply(Input::Tick, later).effects;
        tell(&rig, &recovery, &effects, 1).await;
    }
    assert!(!recovery.incident(IncidentId(1)).unwrap().is_open());
    let told = told().await;
    assert_eq!(told[1..], ["incident.overdue>all", "incident.out_of_service>all", "incident.out_of_service>end"]);
    let last = rig.notices().await.pop().unwrap();
    let line = crate::notify::view::Line::from(&last);
    assert_eq!(
        (line.subject.as_str(), line.page.as_str()),
        ("inc-1: s21 is out of service: nobody approved its repair", "/incidents/inc-1")
    );
    let commands = &last.notice.body["commands"];
    assert_eq!(commands, &serde_json::json!(["pitcrew incidents dismiss inc-1", "pitcrew incidents retry inc-1"]));
}
