//! Where tasks go: nodes of several kinds that come and go, and what is told of it.

use std::sync::Arc;

use pitcrew_control::fleet::{FleetNode, Reach};
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::fleet::{Amount, Gpu, Node, Standing};
use pitcrew_core::id::RunKey;
use pitcrew_core::state::Exit;
use serde_json::json;
use tokio::sync::watch;

use super::Rig;

const SOURCE: &str = "
workflow: w
tasks:
  far: {run: x, resources: {gpu: 1}, node_selector: {zone: west}}
  near: {run: x, backend: local, resources: {gpu: 1, cpu: 2}}
  plain: {run: x}
  never: {run: x, retries: 3, resources: {gpu: {count: 1, model: H100}}}
";

fn node(name: &str, zone: &str, reach: Reach, standing: Standing) -> FleetNode {
    let gpu = Gpu::new(format!("GPU-{name}"), "NVIDIA A100-SXM4-80GB", 81_920);
    let mut node = Node::new(name, Amount::whole(4), 8_192, vec![gpu]);
    node.labels.insert("zone".to_owned(), zone.to_owned());
    FleetNode { node: Node { standing, ..node }, reach }
}

async fn attempt(rig: &Rig, run: RunKey, task: &str) -> AttemptRecord {
    let task = TaskId::new(task).unwrap();
    rig.app.store.attempts(run, &task, -1).await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn a_task_goes_to_a_node_that_has_what_it_asks_for_and_runs_there() {
    let local = || node("local", "east", Reach::Local, Standing::Ready);
    let west = |standing| node("gpu-1", "west", Reach::Connection("gpu".into()), standing);
    let (nodes, watched) = watch::channel(Arc::new(vec![local(), west(Standing::Cordoned)]));
    let rig = Rig::on(watched).await.knowing(SOURCE).await;
    let connection = json!({ "connection_id": "gpu", "conn_type": "ssh", "host": "10.0.0.7", "login": "lab" });
    assert!(rig.post("/api/v2/connections", connection).await.status.is_success());
    let run = rig.start("w", json!({})).await;
    rig.until(run.key, "near", "success").await;
    rig.until(run.key, "plain", "success").await;
    rig.until(run.key, "never", "failed").await;

    let told = rig.app.scheduler.snapshot(run.key).await.unwrap();
    let never = told.instances.iter().find(|row| row.task.as_str() == "never").unwrap();
    assert_eq!(
        (never.attempt, never.message.as_str()),
        (
            0,
            "no node can ever take it, not even when it is empty: `gpu-1`: it has no GPU of the model H100; `local`: it has no GPU of the model H100"
        )
    );

    let why = rig.get(&format!("/api/pitcrew/v1/runs/{}/explain/far", run.key)).await.json();
    assert_eq!(
        why["reasons"],
        json!([
            "waits for a slot: no node has room for it: `local`: its labels do not meet `zone = west`; `gpu-1`: it is cordoned",
            "does not fit the node `local`: its labels do not meet `zone = west`",
            "does not fit the node `gpu-1`: it is cordoned",
            "is placed by the policy `fgd`: of the nodes with room the one that is left with the least idle GPU to no use",
        ])
    );
    let mut changes = rig.app.scheduler.subscribe();
    nodes.send(Arc::new(vec![local(), west(Standing::Ready)])).unwrap();
    while !changes.recv().await.unwrap().finished {}

    let far = attempt(&rig, run.key, "far").await;
    assert_eq!((far.node.as_deref(), far.gpus), (Some("gpu-1"), vec!["GPU-gpu-1".to_owned()]));
    assert_eq!(
        (&far.handle["place"]["ssh"]["host"], &far.handle["place"]["ssh"]["user"]),
        (&json!("10.0.0.7"), &json!("lab"))
    );
    let near = attempt(&rig, run.key, "near").await;
    assert_eq!((near.node.as_deref(), near.gpus), (Some("local"), vec!["GPU-local".to_owned()]));
    assert!(near.handle.get("place").is_none(), "{}", near.handle);
    assert_eq!(attempt(&rig, run.key, "plain").await.node, None);
    let page = rig.get("/dags/w/runs/r/tasks/far?tab=details").await.text;
    let tries = rig.get("/api/v2/dags/w/dagRuns/r/taskInstances/far/tries").await.json();
    assert_eq!(tries["task_instances"][0]["hostname"], "gpu-1", "{tries} {page}");
}

#[tokio::test]
async fn a_preemptible_task_makes_room_and_is_tried_again() {
    let source = "
workflow: w
tasks:
  low: {run: x, backend: fake, resources: {gpu: 1}, preemptible: true, env: {FAKE_SLEEP_MS: '3600000'}}
  first: {run: x}
  high: {needs: [first], run: x, backend: fake, resources: {gpu: 1}, priority: 5}
";
    let rig = Rig::with(source).await;
    let run = rig.start("w", json!({})).await;
    rig.until(run.key, "high", "success").await;
    let low = TaskId::new("low").unwrap();
    let tries = rig.app.store.attempts(run.key, &low, -1).await.unwrap();
    let reason = format!("it makes room for `high` of run {}, which has a higher priority", run.key);
    assert_eq!((tries[0].message.as_str(), tries[0].exit.clone()), (reason.as_str(), Some(Exit::Cancelled)));
    // The second try needs no retry of its own.
    rig.until(run.key, "low", "running").await;
    let told = rig.app.scheduler.snapshot(run.key).await.unwrap();
    assert_eq!(told.instances.iter().find(|row| row.task == low).unwrap().attempt, 2);
}

#[tokio::test]
async fn a_namespace_stays_within_its_quota_borrows_and_gives_back() {
    let source = "
workflow: theirs
namespace: theirs
tasks:
  own: {run: x, backend: fake, resources: {gpu: 1}, env: {FAKE_SLEEP_MS: '3600000'}}
  lent: {run: x, backend: fake, resources: {gpu: 1}, preemptible: true, priority: 3, env: {FAKE_SLEEP_MS: '3600000'}}
  more: {run: x, backend: fake, resources: {gpu: 1}, priority: -1}
";
    let ours = "workflow: ours\nnamespace: ours\ntasks:\n  own: {run: x, backend: fake, resources: {gpu: 1}}\n";
    let gpus = (0..4).map(|at| Gpu::new(format!("GPU-{at}"), "NVIDIA A100-SXM4-80GB", 81_920)).collect();
    let here = FleetNode { node: Node::new("local", Amount::whole(8), 8_192, gpus), reach: Reach::Local };
    let rig = Rig::on(watch::channel(Arc::new(vec![here])).1).await.knowing(source).await.knowing(ours).await;
    for namespace in ["theirs", "ours"] {
        let quota = json!({ "gpus": 1, "cohort": "lab", "memory": "4Gi" });
        let made = rig.patch(&format!("/api/pitcrew/v1/quotas/{namespace}"), quota).await.json();
        assert_eq!((&made["limits"], &made["cohort"]), (&json!({ "gpus": 1, "memory_mib": 4096 }), &json!("lab")));
    }
    let theirs = rig.start("theirs", json!({})).await;
    rig.until(theirs.key, "own", "running").await;
    rig.until(theirs.key, "lent", "running").await;
    let why = rig.get(&format!("/api/pitcrew/v1/runs/{}/explain/more", theirs.key)).await.json();
    let full = "waits for a slot: namespace `theirs` has 2 of 2 GPUs in use; 1 more would exceed its quota";
    assert_eq!(why["reasons"], json!([full]));
    let shown = rig.get("/api/pitcrew/v1/quotas/theirs").await.json();
    assert_eq!(
        (&shown["used"]["gpus"], &shown["borrowed"]["gpus"], &shown["waiting"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let page = rig.get("/quotas").await.text;
    assert!(page.contains("GPUs: 2 of 1, 1 borrowed") && page.contains("theirs"), "{page}");
    let scraped = rig.get("/metrics").await.text;
    assert!(scraped.contains(r#"pitcrew_quota_used{namespace="theirs",resource="gpus"} 2"#), "{scraped}");

    let mut changes = rig.app.scheduler.subscribe();
    let own = rig.start("ours", json!({})).await;
    while !changes.recv().await.unwrap().finished {}
    let lent = TaskId::new("lent").unwrap();
    let tries = rig.app.store.attempts(theirs.key, &lent, -1).await.unwrap();
    let reason =
        format!("it held what is the namespace `ours`'s own, which takes it back for `own` of run {}", own.key);
    assert_eq!((tries[0].message.as_str(), tries[0].exit.clone()), (reason.as_str(), Some(Exit::Cancelled)));
    // It borrows again, and begins anew.
    rig.until(theirs.key, "lent", "running").await;
    assert!(rig.delete("/api/pitcrew/v1/quotas/theirs").await.is_success());
    rig.until(theirs.key, "more", "success").await;
    for (body, why) in [
        (json!({ "gpus": "-1" }), "is no amount"),
        (json!({ "weight": 0 }), "from 1 to 1000"),
        (json!({ "borrow_gpus": 1, "gpus": 1, "cohort": null }), "can borrow"),
        (json!({ "colour": 1 }), "colour"),
    ] {
        let refused = rig.patch("/api/pitcrew/v1/quotas/theirs", body).await;
        assert!(refused.status.is_client_error() && refused.text.contains(why), "{}", refused.text);
    }
}

#[tokio::test]
async fn pages_of_a_gang_say_that_it_is_one() {
    let source = "workflow: w\ntasks:\n  train: {run: x, nodes: {count: 2, near: rack}}\n";
    let rig = Rig::placing(None).await.knowing(source).await;
    rig.finish("w").await;
    let page = async |rest: &str| rig.get(&format!("/workflows/w/runs/r/tasks/train{rest}")).await.text;
    for rest in ["", "/1"] {
        let text = page(rest).await;
        assert!(text.contains("gang of 2, script"), "{rest}: {text}");
    }
    let text = page("/1?tab=details").await;
    assert!(text.contains("2, each on a node of its own, with the same `rack` if possible"), "{text}");
}
