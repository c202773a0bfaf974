//! Incidents: what is shown of them, and what people say to them, up to the recovery that hears it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use pitcrew_control::clock;
use pitcrew_control::config::{Overrides, Settings};
use pitcrew_control::ecs::Clusters;
use pitcrew_control::fleet::Asker;
use pitcrew_control::kubernetes::KubeClusters;
use pitcrew_control::recovery::{Hands, Reached, Service};
use pitcrew_core::recovery::{Advice, Input, Mode, NodeFacts, Policy, Recovery, Rung, Seen, Signal, SignalKind};
use pitcrew_exec::ssh::Defaults;
use pitcrew_store::{AuditFilter, Paging};
use serde_json::json;
use tokio::sync::watch;

use super::Rig;
use crate::auth::Role;

/// A server whose recovery knows that a GPU of `local` fell off the bus, and waits for somebody to approve its repair. The
/// sender says that it leads.
async fn broken() -> (Rig, watch::Sender<bool>) {
    let mut rig = Rig::placing(None).await;
    let policy = Policy { mode: Mode::Approve, ..Policy::default() };
    let mut recovery = Recovery::new(policy);
    let node = || "local".to_owned();
    let facts = NodeFacts { rungs: [Rung::ResetGpu].into(), boot_id: Some("b".to_owned()), ..NodeFacts::default() };
    let signal = Signal {
        id: "b/7".to_owned(),
        node: node(),
        boot_id: Some("b".to_owned()),
        gpu: Some("gpu-0".to_owned()),
        job: None,
        at: clock::now(),
        kind: SignalKind::Xid { code: 119 },
        advice: Advice::ResetGpu,
        evidence: "NVRM: Xid 119, <b>timeout</b>".to_owned(),
    };
    let seen = Seen { boot_id: Some("b".to_owned()), agent: true, gpus: Some(1) };
    let inputs = [Input::Node { node: node(), facts }, Input::Observed { node: node(), seen }, Input::Signal(signal)];
    let term = rig.app.store.take_recovery().await.unwrap();
    for input in inputs {
        let changes = recovery.apply(input, clock::now());
        rig.app.store.write_recovery(term, &changes.records, &changes.removed).await.unwrap();
    }
    let file = rig._dir.path().join("pitcrew.yaml");
    std::fs::write(&file, "recovery: {mode: approve}\n").unwrap();
    let settings = Settings::read(&Overrides { config: Some(file), ..Overrides::default() }, &|_| None).unwrap();
    let config = settings.recovery.clone().unwrap();
    let (app, store) = (rig.app.clone(), rig.app.store.clone());
    let (desk, opening) = Service::open(&config, store.clone());
    let secrets = pitcrew_control::secrets::open(&store, &app.vault, &app.aws).unwrap();
    let ssh = pitcrew_control::ssh::pool(&app.data, &secrets);
    let asker = Asker::new(store.clone(), app.vault.clone(), ssh, Defaults::default()).unwrap();
    let hands = Hands {
        desk: desk.clone(),
        reached: Reached {
            asker,
            fleet: app.fleet.clone(),
            clusters: Clusters::none(),
            kubernetes: KubeClusters::none(),
            workers: app.workers.clone(),
        },
        scheduler: app.scheduler.clone(),
        store,
        config,
        notify: Arc::default(),
        metrics: app.metrics.clone(),
    };
    let (leads, leading) = watch::channel(true);
    tokio::spawn(opening.with(hands).run(leading));
    rig.app.recovery = desk.clone();
    rig.site.app.recovery = desk;
    rig.router = crate::router(rig.site.clone());
    while rig.app.recovery.look(|recovery| recovery.nodes().count()) == 0 {
        tokio::task::yield_now().await;
    }
    (rig, leads)
}

#[tokio::test]
async fn an_incident_is_shown_and_what_somebody_says_to_it_reaches_recovery() {
    let (rig, _leads) = broken().await;
    let all = rig.get("/api/pitcrew/v1/incidents?open=true&node=local").await.json();
    assert_eq!((&all["total_entries"], &all["incidents"][0]["id"]), (&json!(1), &json!("inc-1")));
    assert_eq!(rig.get("/api/pitcrew/v1/incidents?open=false").await.json()["total_entries"], 0);
    let one = rig.get("/api/pitcrew/v1/incidents/inc-1").await.json();
    assert_eq!((&one["may"], &one["state"]), (&json!(["approve", "dismiss"]), &json!("awaiting_approval")));
    assert_eq!(one["runbooks"][0]["page"], "docs/xids.md#xid-119-gsp-does-not-answer");
    let list = rig.get("/incidents?show=open").await.text;
    assert!(list.contains("/incidents/inc-1") && list.contains("XID 119"), "{list}");
    let page = rig.get("/incidents/inc-1").await.text;
    // Whoever approves means the repair that stood on the page.
    assert!(page.contains(r#"name="repair" value="reset_gpu""#), "{page}");
    for part in
        ["Approve: reset gpu", "&#60;b&#62;timeout", "suspected → fenced", "GSP does not answer", "/fleet/local"]
    {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("<b>timeout"), "{page}");
    assert_eq!(rig.get("/incidents/inc-9").await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/api/pitcrew/v1/incidents/nonsense").await.status, StatusCode::NOT_FOUND);

    let refused = rig.post("/api/pitcrew/v1/incidents/inc-1/retry", json!({})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    let viewer = rig.token_for(Role::Viewer).await;
    for path in ["/api/pitcrew/v1/incidents/inc-1/approve", "/api/pitcrew/v1/incidents/inc-1/dismiss"] {
        let request = rig.request(Method::POST, path).header(header::AUTHORIZATION, format!("Bearer {viewer}"));
        assert_eq!(rig.send(request.body(Body::from("{}")).unwrap()).await.status, StatusCode::FORBIDDEN);
    }
    let request =
        rig.request(Method::GET, "/incidents/inc-1").header(header::AUTHORIZATION, format!("Bearer {viewer}"));
    let page = rig.send(request.body(Body::empty()).unwrap()).await.text;
    assert!(!page.contains(">Dismiss<") && !page.contains(">Approve"), "{page}");

    let stale = rig.post("/api/pitcrew/v1/incidents/inc-1/approve", json!({ "repair": "reboot" })).await;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{}", stale.text);
    assert!(stale.text.contains("inc-1 needs `reset_gpu` by now, and not `reboot`"), "{}", stale.text);

    let done = rig.post("/api/pitcrew/v1/incidents/inc-1/dismiss", json!({ "reason": "a known one" })).await;
    assert_eq!(done.status, StatusCode::ACCEPTED, "{}", done.text);
    let over = loop {
        let one = rig.get("/api/pitcrew/v1/incidents/1").await.json();
        if !one["outcome"].is_null() {
            break one;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&over["outcome"], &over["may"]), (&json!("dismissed"), &json!([])));
    assert!(over["trail"].to_string().contains("dismissed by admin: a known one"), "{over:#}");
    let filter = AuditFilter { event: Some("incident.dismiss".to_owned()), ..AuditFilter::default() };
    let audit = rig.app.store.audit(&filter, Paging::ALL).await.unwrap().rows;
    assert_eq!(audit[0].entry.detail["why"], "a known one");
    assert!(!rig.get("/incidents/inc-1").await.text.contains(">Dismiss<"));
}
