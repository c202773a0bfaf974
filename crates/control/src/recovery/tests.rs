//! The service with a store of its own, beside a scheduler that leads.

use futures::FutureExt as _;
use jiff::SignedDuration;
use pitcrew_core::recovery::{
    Advice, Input, JobSpec, Mode, NodeFacts, NodeState, Place, Policy, Record, Rung, Signal, SignalKind,
};
use pitcrew_exec::ssh::Defaults;
use tokio::task::JoinHandle;

use super::config::{Commands, RecoveryConfig};
use super::signs::Signs;
use super::{Desk, Hands, Reached, Recovery, Service};
use crate::ecs::Clusters;
use crate::fleet::{Asker, Fleet, NodeConfig, Seen, SeenGpu};
use crate::kubernetes::KubeClusters;
use crate::scheduler::recovery::Recoverer as _;
use crate::scheduler::recovery::tests::Rig;
use crate::{clock, ssh};

/// Of a job that nothing else tells of.
fn job(name: &str) -> Input {
    Input::JobStarted { job: name.to_owned(), attempt: 1, ranks: Vec::new(), spec: JobSpec::default() }
}

fn config() -> RecoveryConfig {
    RecoveryConfig {
        policy: Policy::default(),
        commands: Commands::default(),
        signs: Signs::default(),
        is_drill: false,
        watch: SignedDuration::from_hours(1),
        look: SignedDuration::from_hours(1),
        is_spot_asked: false,
        line: 1,
    }
}

/// Recovery as it runs beside the scheduler of a rig, whose store it has.
fn serve(rig: &Rig) -> (Desk, JoinHandle<()>) {
    serve_with(rig, config(), Fleet::of(rig.app.store.clone(), Vec::new()))
}

fn serve_with(rig: &Rig, config: RecoveryConfig, fleet: Fleet) -> (Desk, JoinHandle<()>) {
    let app = &rig.app;
    let (desk, opening) = Service::open(&config, app.store.clone());
    let pool = ssh::pool(&app.data, &crate::secrets::open(&app.store, &app.vault, &app.aws).unwrap());
    let asker = Asker::new(app.store.clone(), app.vault.clone(), pool, Defaults::default()).unwrap();
    let hands = Hands {
        desk: desk.clone(),
        reached: Reached {
            asker,
            fleet,
            clusters: Clusters::none(),
            kubernetes: KubeClusters::none(),
            workers: app.workers.clone(),
        },
        scheduler: app.scheduler.clone(),
        store: app.store.clone(),
        config: config.into(),
        notify: std::sync::Arc::default(),
        metrics: app.metrics.clone(),
    };
    let task = tokio::spawn(opening.with(hands).run(app.scheduler.standing()));
    (desk, task)
}

#[tokio::test]
async fn what_another_server_has_taken_is_read_anew_before_anything_more_is_written() {
    let rig = Rig::new("  a: {run: x}\n").await;
    let (desk, task) = serve(&rig);
    // It may not lead yet.
    while desk.tell(job("j0")).await.is_err() {
        tokio::task::yield_now().await;
    }
    let store = &rig.app.store;
    let term = store.take_recovery().await.unwrap();
    let other = Recovery::default().apply(job("j1"), clock::now());
    store.write_recovery(term, &other.records, &[]).await.unwrap();
    desk.tell(job("j2")).await.unwrap();
    let names = |recovery: &Recovery| recovery.jobs().map(|job| job.job.clone()).collect::<Vec<_>>();
    assert_eq!(desk.look(names), ["j0", "j1", "j2"]);
    let rows = store.recovery_records().await.unwrap();
    let jobs = rows.iter().filter(|row| matches!(row, Record::Job(_))).count();
    assert_eq!(jobs, 3, "{rows:?}");
    task.abort();
}

#[tokio::test]
async fn a_lead_is_ready_once_what_is_stored_is_known() {
    let rig = Rig::new("  a: {run: x}\n").await;
    let store = &rig.app.store;
    let term = store.take_recovery().await.unwrap();
    let before = Recovery::default().apply(job("j0"), clock::now());
    store.write_recovery(term, &before.records, &[]).await.unwrap();
    let (desk, _opening) = Service::open(&config(), store.clone());
    desk.comes_to_lead();
    assert!(desk.ready().now_or_never().is_none(), "nobody has read anything");
    let (desk, task) = serve(&rig);
    desk.comes_to_lead();
    desk.ready().await;
    assert!(desk.look(|recovery| recovery.job("j0").is_some()));
    task.abort();
}

#[tokio::test]
async fn a_job_whose_end_was_never_told_does_not_run_for_ever() {
    let rig = Rig::new("  a: {run: x}\n").await;
    let run = rig.start().await;
    rig.until(run, "a", "success").await;
    let store = &rig.app.store;
    let name = format!("{run}/a");
    let ranks = vec![Place { node: "n0".to_owned(), gpus: vec!["GPU-0".to_owned()] }];
    let started = Input::JobStarted { job: name.clone(), attempt: 1, ranks, spec: JobSpec::default() };
    let term = store.take_recovery().await.unwrap();
    let before = Recovery::default().apply(started, clock::now());
    store.write_recovery(term, &before.records, &[]).await.unwrap();
    let (desk, task) = serve(&rig);
    desk.comes_to_lead();
    desk.ready().await;
    while desk.look(|recovery| recovery.job(&name).is_some_and(|job| job.is_live())) {
        tokio::task::yield_now().await;
    }
    task.abort();
}

#[tokio::test]
async fn a_repair_that_was_wanted_is_not_begun_where_a_node_has_opted_out_while_nobody_led() {
    let rig = Rig::new("  a: {run: x}\n").await;
    let policy = Policy { mode: Mode::Auto, ..Policy::default() };
    // A GPU is to be reset, and whoever led has ended before it was.
    let mut before = Recovery::new(policy.clone());
    let facts = NodeFacts { gpus: Some(1), rungs: [Rung::ResetGpu].into(), ..NodeFacts::default() };
    before.apply(Input::Node { node: "n0".to_owned(), facts }, clock::now());
    before.apply(
        Input::Signal(Signal {
            id: "s1".to_owned(),
            node: "n0".to_owned(),
            boot_id: None,
            gpu: Some("GPU-0".to_owned()),
            job: None,
            at: clock::now(),
            kind: SignalKind::Xid { code: 95 },
            advice: Advice::ResetGpu,
            evidence: String::new(),
        }),
        clock::now(),
    );
    for step in ["fence", "drain"] {
        let effect = before.open_effects().find(|effect| effect.act.name() == step).map(|effect| effect.id.clone());
        before.apply(Input::Done { effect: effect.unwrap() }, clock::now());
    }
    assert!(before.open_effects().any(|effect| effect.act.name() == "reset_gpu" && !effect.begun), "{before:?}");
    let store = &rig.app.store;
    let term = store.take_recovery().await.unwrap();
    store.write_recovery(term, &before.records(), &[]).await.unwrap();
    // Meanwhile somebody has labelled it.
    let gpu = SeenGpu {
        id: "GPU-0".to_owned(),
        model: "NVIDIA A100".to_owned(),
        memory_mib: Some(81_920),
        mig: Vec::new(),
        fault: None,
        gone_since: None,
    };
    let seen = Seen { gpus: vec![gpu], ..Seen::of_machine() };
    let node = NodeConfig { labels: [("recovery".to_owned(), "off".to_owned())].into(), ..NodeConfig::plain("n0") };
    let was_reset = rig.app.data.root().join("was-reset");
    let commands = Commands { reset_gpu: Some(format!("touch '{}'", was_reset.display())), ..Commands::default() };
    let fleet = Fleet::of(store.clone(), vec![(node, Some(seen))]);
    let (desk, task) = serve_with(&rig, RecoveryConfig { policy, commands, ..config() }, fleet);
    desk.comes_to_lead();
    desk.ready().await;
    let acts = |recovery: &Recovery| {
        recovery.node("n0").is_some_and(|node| matches!(node.state, NodeState::Remediating { .. }))
    };
    while desk.look(acts) {
        tokio::task::yield_now().await;
    }
    let row = desk.look(|recovery| recovery.node("n0").cloned()).unwrap();
    assert!(row.facts.opted_out && !row.fenced, "{row:?}");
    assert!(!row.open.iter().any(|effect| effect.act.is_once()), "{row:?}");
    assert!(!was_reset.exists(), "{row:?}");
    task.abort();
}
