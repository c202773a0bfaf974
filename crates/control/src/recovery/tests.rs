//! The service with a store of its own, beside a scheduler that leads.

use futures::FutureExt as _;
use jiff::SignedDuration;
use pitcrew_core::recovery::{Input, JobSpec, Place, Policy, Record};
use pitcrew_exec::ssh::Defaults;
use tokio::task::JoinHandle;

use super::config::{Commands, RecoveryConfig};
use super::signs::Signs;
use super::{Desk, Hands, Reached, Recovery, Service};
use crate::ecs::Clusters;
use crate::fleet::{Asker, Fleet};
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
    let app = &rig.app;
    let config = config();
    let (desk, opening) = Service::open(&config, app.store.clone());
    let pool = ssh::pool(&app.data, &crate::secrets::open(&app.store, &app.vault, &app.aws).unwrap());
    let asker = Asker::new(app.store.clone(), app.vault.clone(), pool, Defaults::default()).unwrap();
    let fleet = Fleet::of(app.store.clone(), Vec::new());
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
