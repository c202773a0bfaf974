//! A process that works on runs: the store, an owner in it, backends, a scheduler, and a socket to be asked by.

use std::sync::Arc;

use anyhow::Context as _;
use pitcrew_control::app::App;
use pitcrew_control::backends::Backends;
use pitcrew_control::cluster::files::Files;
use pitcrew_control::cluster::homed::Homed;
use pitcrew_control::cluster::keep;
use pitcrew_control::cluster::peers::Peers;
use pitcrew_control::ecs::Clusters;
use pitcrew_control::fleet::{Asker, Fleet};
use pitcrew_control::hooks;
use pitcrew_control::kubernetes::KubeClusters;
use pitcrew_control::metrics::Metrics;
use pitcrew_control::recovery;
use pitcrew_control::scheduler::{Claim, Parts, Scheduler};
use pitcrew_control::signatures;
use pitcrew_control::ssh;
use pitcrew_control::traces::{Target, Tracer};
use pitcrew_core::RunKey;
use pitcrew_core::ir::{BackendKind, Workflow};
use pitcrew_ecs::{EcsBackend, EcsConfig, Timing};
use pitcrew_exec::fake::FakeBackend;
use pitcrew_exec::local::{LocalBackend, LocalConfig};
use pitcrew_exec::ssh::Pool;
use pitcrew_exec::worker::{Home, Hub};
use pitcrew_exec::{Backend, BackendEvent};
use pitcrew_kubernetes::backend::KubernetesBackend;
use pitcrew_store::{Owner, StoreUrl};
use tokio::sync::mpsc;

use super::context::Context;
use super::control::{self, Hello, Listener, Role};
use super::error::refused;

/// Backends and an owner; not yet working on anything.
pub struct Prepared {
    pub owner: Arc<Owner>,
    backends: Backends,
    ssh: Pool,
    workers: Hub,
    clusters: Clusters,
    kubernetes: KubeClusters,
    events: mpsc::UnboundedReceiver<BackendEvent>,
}

/// Works on runs until it is dropped or shut down.
pub struct Session {
    pub app: App,
    /// What asking other machines needs.
    pub asker: Asker,
    /// Recovery, not begun yet; `None`: it is off.
    pub recovery: Option<recovery::Service>,
    /// Of Amazon ECS, whose machines are nodes.
    pub clusters: Clusters,
    /// Of Kubernetes, whose nodes are nodes.
    pub kubernetes: KubeClusters,
    tracer: Option<Tracer>,
    _listener: Listener,
}

impl Prepared {
    /// Registers this process as one that can own runs.
    pub async fn new(context: &Context) -> anyhow::Result<Prepared> {
        let ssh = ssh::pool(&context.data, &context.secrets);
        let (clusters, kubernetes) = (clusters(context)?, KubeClusters::none());
        let (backends, workers, events) = backends(context, &ssh, &clusters)?;
        let owner = Arc::new(context.store.register_owner().await?);
        Ok(Prepared { owner, backends, ssh, workers, clusters, kubernetes, events })
    }

    /// Works on one run, in the foreground.
    pub async fn work_on(self, context: &Context, run: RunKey, workflow: &Workflow) -> anyhow::Result<Session> {
        // Asking for devices can take seconds, where there are some; only a workflow that wants one has to wait.
        let wants = workflow.tasks.iter().any(|task| task.resources.gpu.is_some());
        let fleet = Fleet::alone(context.store.clone(), &context.settings.nodes, wants, context.now()).await;
        self.start(context, Claim::Only(run), fleet, String::new())
    }

    /// Works on every run that nobody works on. `base_url` is where the pages are.
    pub async fn serve(mut self, context: &Context, base_url: String) -> anyhow::Result<Session> {
        // Of no use to a run in the foreground, which must not fail for a kubeconfig that is not here.
        self.kubernetes = kubernetes(context).await?;
        if let Some(local) = self.backends.homed() {
            keep::take_back(&local).await?;
        }
        let home = home(context)?;
        let fleet = Fleet::open(context.store.clone(), &context.settings.nodes, home, context.now()).await?;
        fleet.meet(&self.asker(context)?).await;
        if context.settings.recovery.is_some() {
            // Before anything is placed: what was fenced stays so.
            recovery::fence(&context.store, &fleet).await?;
        } else {
            recovery::let_go(&context.store).await?;
        }
        self.start(context, Claim::Leading, fleet, base_url)
    }

    fn asker(&self, context: &Context) -> anyhow::Result<Asker> {
        Asker::new(context.store.clone(), context.vault.clone(), self.ssh.clone(), context.settings.ssh())
    }

    fn start(self, context: &Context, claim: Claim, fleet: Fleet, base_url: String) -> anyhow::Result<Session> {
        let asker = self.asker(context)?;
        let metrics = Metrics::default();
        metrics.follow(&self.ssh);
        let store = context.store.observed(metrics.store_observer());
        let env = |name: &str| std::env::var(name).ok();
        // A run must not fail for its trace.
        let target = Target::read(context.settings.otlp_endpoint(), &env).unwrap_or_else(|error| {
            tracing::warn!("no traces are sent: {error:#}");
            None
        });
        let tracer = target.map(|target| Tracer::start(target, metrics.clone()));
        let config = context.settings.recovery.clone().filter(|_| claim == Claim::Leading);
        let (desk, opening) = match &config {
            Some(config) => {
                let (desk, opening) = recovery::Service::open(config, store.clone());
                (desk, Some(opening))
            }
            None => (recovery::Desk::off(), None),
        };
        let scheduler = Scheduler::start(Parts {
            store: store.clone(),
            owner: self.owner.clone(),
            data: context.data.clone(),
            catalog: context.catalog.clone(),
            vault: context.vault.clone(),
            backends: self.backends.clone(),
            ssh: context.settings.ssh(),
            secrets: context.secrets.clone(),
            aws_region: context.settings.aws_region().to_owned(),
            sandbox: context.settings.sandbox.clone(),
            events: self.events,
            parallelism: context.settings.parallelism(),
            policy: context.settings.placement_policy(),
            nodes: fleet.nodes(),
            fleet: fleet.clone(),
            claim,
            notify: context.settings.notify.clone(),
            base_url: base_url.clone(),
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            default_queue: context.settings.default_queue().filter(|_| claim == Claim::Leading),
            recoverer: Arc::new(desk.clone()),
        });
        let recovery = opening.zip(config).map(|(opening, config)| {
            let reached = recovery::Reached {
                asker: asker.clone(),
                fleet: fleet.clone(),
                clusters: self.clusters.clone(),
                kubernetes: self.kubernetes.clone(),
                workers: self.workers.clone(),
            };
            let (desk, scheduler) = (desk.clone(), scheduler.clone());
            let notify = context.settings.notify.clone();
            let (store, metrics) = (store.clone(), metrics.clone());
            opening.with(recovery::Hands { desk, reached, scheduler, store, config, notify, metrics })
        });
        let role = if claim == Claim::Leading { Role::Server } else { Role::Run };
        let app = App {
            store,
            scheduler,
            catalog: context.catalog.clone(),
            data: context.data.clone(),
            vault: context.vault.clone(),
            aws: context.aws.clone(),
            backends: self.backends,
            metrics,
            notify: context.settings.notify.clone(),
            schedules: Arc::default(),
            hooks: Arc::new(hooks::Desk::new(context.settings.hooks_replay_window(), context.settings.pods())),
            fleet,
            workers: self.workers,
            recovery: desk,
        };
        let hello = Hello { pid: std::process::id(), role, url: base_url, leads: false };
        let listener = control::listen(&app, self.owner.id(), hello)
            .with_context(|| format!("cannot listen for other commands in `{}`", context.data.root().display()))?;
        let (clusters, kubernetes) = (self.clusters, self.kubernetes);
        Ok(Session { app, asker, recovery, clusters, kubernetes, tracer, _listener: listener })
    }
}

impl Session {
    /// Writes what is pending and ends; what runs goes on without it.
    pub async fn shutdown(self) {
        self.app.scheduler.shutdown().await;
        if let Some(tracer) = &self.tracer {
            tracer.flush().await;
        }
        self.app.store.close().await;
    }
}

/// The data directory of this server, where others may share its store.
pub fn home(context: &Context) -> anyhow::Result<Option<String>> {
    let is_shared = matches!(context.store.url(), StoreUrl::Postgres(_));
    Ok(is_shared.then(|| context.data.id()).transpose()?)
}

/// The backends of a data directory. They start nothing by themselves.
pub fn backends(
    context: &Context,
    ssh: &Pool,
    clusters: &Clusters,
) -> anyhow::Result<(Backends, Hub, mpsc::UnboundedReceiver<BackendEvent>)> {
    let (sender, events) = mpsc::unbounded_channel();
    let dir = context.data.runner();
    let peers = Peers::new(context.store.clone(), context.vault.clone());
    let made = context.data.id().and_then(|home| {
        let local = LocalBackend::new(LocalConfig::new(&dir)?, sender.clone())?;
        let id = home.clone();
        let lost_after = context.settings.lost_after();
        let files = Files::new(&context.data, &home, &context.store, peers.clone(), lost_after);
        Ok((id, Homed::new(&context.data, home, peers.clone(), files, lost_after, sender.clone(), local)))
    });
    let (id, local) = made.with_context(|| format!("cannot use `{}`", dir.display()))?;
    let local = Arc::new(local);
    let fake: Arc<dyn Backend> = Arc::new(FakeBackend::new(sender.clone()));
    let ssh: Arc<dyn Backend> = Arc::new(ssh::backend(&context.data, ssh, &context.vault, sender.clone())?);
    let ecs: Arc<dyn Backend> = Arc::new(ecs(context, clusters, sender.clone())?);
    let instance = context.data.root().join("kubernetes");
    let instance = ssh::instance(&instance).with_context(|| format!("cannot use `{}`", instance.display()))?;
    let env = Arc::new(|name: &str| std::env::var(name).ok());
    let pods: Arc<dyn Backend> = Arc::new(KubernetesBackend::new(&instance, env, sender.clone()));
    let home = Home { id, others: Arc::new(peers) };
    let hub = Hub::of_home(context.data.root().to_owned(), home, context.settings.worker_lease(), sender);
    let all =
        [(BackendKind::Fake, fake), (BackendKind::Ssh, ssh), (BackendKind::Ecs, ecs), (BackendKind::Kubernetes, pods)];
    let gate = signatures::gate(context.settings.signatures.as_deref()).map_err(refused)?.map(Arc::new);
    Ok((Backends::new(all).with_hub(hub.clone()).with_homed(local).with_gate(gate), hub, events))
}

/// The backend for tasks of Amazon ECS. It asks nobody before there is one.
fn ecs(
    context: &Context,
    clusters: &Clusters,
    events: mpsc::UnboundedSender<BackendEvent>,
) -> anyhow::Result<EcsBackend> {
    let config = EcsConfig {
        instance: ecs_instance(context)?,
        region: context.aws.region(),
        aws: context.aws.clone(),
        events: context.settings.ecs_events(),
        wakes: clusters.wakes().clone(),
        warnings: clusters.warnings().filter(|_| context.settings.recovery.is_some()),
        gates: clusters.gates().clone(),
        timing: Timing::default(),
    };
    Ok(EcsBackend::new(config, events))
}

/// Tells what this store starts on ECS from what others do.
fn ecs_instance(context: &Context) -> anyhow::Result<String> {
    let dir = context.data.root().join("ecs");
    ssh::instance(&dir).with_context(|| format!("cannot use `{}`", dir.display()))
}

/// The clusters whose machines are nodes. Nobody is asked yet.
fn clusters(context: &Context) -> anyhow::Result<Clusters> {
    match &context.settings.ecs {
        Some(settings) => Clusters::new(settings, &context.aws, &ecs_instance(context)?).map_err(refused),
        None => Ok(Clusters::none()),
    }
}

/// The clusters of Kubernetes whose nodes are nodes. None of them is asked yet.
async fn kubernetes(context: &Context) -> anyhow::Result<KubeClusters> {
    let Some(settings) = &context.settings.kubernetes else { return Ok(KubeClusters::none()) };
    // All servers of a store are one there: whoever leads lets go of what another one cordoned.
    let owner = context.store.setting_or_insert("kubernetes.owner", &uuid::Uuid::now_v7().to_string()).await?;
    let env = |name: &str| std::env::var(name).ok();
    KubeClusters::new(settings, &owner, &env)
        .map_err(|why| refused(format!("`kubernetes` of the configuration: {why}")))
}
