//! The answer to a scrape: what was recorded, and gauges of this moment in a registry that lives as long as the answer.

use std::collections::BTreeMap;

use prometheus::{Registry, TextEncoder};

use super::table::{self, Def};
use super::{Metrics, RecoveryFigures, process};
use crate::app::App;
use crate::clock;
use crate::fleet::{NodeView, WorkerView};

/// What the scheduler holds at a moment.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub leads: bool,
    pub runs_queued: usize,
    pub runs_running: usize,
    pub tasks_running: usize,
    pub parallelism: u32,
    pub pools: Vec<PoolFigures>,
    /// How many wait for the workers of each queue.
    pub queues: BTreeMap<String, usize>,
    pub quotas: Vec<QuotaFigures>,
    pub gpus: usize,
    pub gpus_used: usize,
}

/// One pool.
#[derive(Debug, Clone, Default)]
pub struct PoolFigures {
    pub name: String,
    pub slots: u32,
    pub used: u32,
    /// Task instances in line for it.
    pub waiting: usize,
}

/// A resource of one namespace.
#[derive(Debug, Clone)]
pub struct QuotaFigures {
    pub namespace: String,
    pub resource: &'static str,
    pub used: f64,
    /// Its own, if that is limited.
    pub limit: Option<f64>,
}

/// The answer to a scrape, in Prometheus' text format.
pub async fn exposition(app: &App) -> String {
    // A store that is away must not hide the rest: what is known of it is in its own metrics.
    let broken = app.store.file_errors().await.ok().map(|files| files.len());
    let figures = app.scheduler.figures().await;
    // Ends are counted by the metrics themselves.
    let workers = app.fleet.workers(&app.workers, &BTreeMap::new());
    let recovery = app.recovery.is_on().then(|| app.recovery.look(RecoveryFigures::of));
    let nodes = app.fleet.views();
    let scraped = Scraped {
        figures: figures.as_ref(),
        nodes: &nodes,
        workers: &workers,
        recovery: recovery.as_ref(),
        broken_files: broken,
    };
    app.metrics.text(&scraped)
}

/// What is known at a moment; what is not is left out.
#[derive(Default)]
pub struct Scraped<'a> {
    pub figures: Option<&'a Figures>,
    pub nodes: &'a [NodeView],
    pub workers: &'a [WorkerView],
    pub recovery: Option<&'a RecoveryFigures>,
    pub broken_files: Option<usize>,
}

impl Metrics {
    fn nodes<'n>(&self, registry: &Registry, nodes: impl Iterator<Item = &'n NodeView>) {
        let (all, gpus) = (table::NODES.gauge(registry), table::NODE_GPUS.gauge(registry));
        let (busy, power) = (table::NODE_GPU_USE.gauge(registry), table::NODE_POWER.gauge(registry));
        for node in nodes {
            all.with_label_values(&[node.standing.as_str()]).inc();
            let name = self.0.nodes.label(&node.name);
            let usable = node.usable_gpus();
            gpus.with_label_values(&[name, "usable"]).add(usable as f64);
            gpus.with_label_values(&[name, "fault"]).add((node.gpus.len() - usable) as f64);
            if let Some(percent) = node.mean_use() {
                busy.with_label_values(&[name]).set(percent);
            }
            let watts: Vec<f64> = node.gpus.iter().filter_map(|gpu| gpu.power_watts).collect();
            if !watts.is_empty() {
                power.with_label_values(&[name]).add(watts.iter().sum());
            }
        }
    }

    /// Workers, and the queues that they serve or that somebody waits in.
    fn workers(&self, registry: &Registry, workers: &[WorkerView], waiting: &BTreeMap<String, usize>) {
        let all = table::WORKERS.gauge(registry);
        let (slots, used) = (table::WORKER_SLOTS.gauge(registry), table::WORKER_SLOTS_USED.gauge(registry));
        let silence = table::WORKER_SILENCE.gauge(registry);
        let (in_line, free) = (table::QUEUE_WAITING.gauge(registry), table::QUEUE_SLOTS.gauge(registry));
        for (queue, waiting) in waiting {
            let queue = [self.0.worker_queues.label(queue)];
            in_line.with_label_values(&queue).add(*waiting as f64);
            free.with_label_values(&queue).add(0.0);
        }
        for worker in workers {
            all.with_label_values(&[worker.standing.as_str()]).inc();
            let name = [self.0.nodes.label(&worker.name)];
            slots.with_label_values(&name).add(worker.slots.into());
            used.with_label_values(&name).add(worker.running as f64);
            if let Some(at) = worker.heard_at {
                let since = clock::now().duration_since(at).as_secs_f64().max(0.0);
                let silence = silence.with_label_values(&name);
                silence.set(silence.get().max(since));
            }
            for queue in &worker.queues {
                let queue = [self.0.worker_queues.label(queue)];
                in_line.with_label_values(&queue).add(0.0);
                free.with_label_values(&queue).add(if worker.takes_work() { worker.slots.into() } else { 0.0 });
            }
        }
    }

    /// Everything, as text.
    pub fn text(&self, scraped: &Scraped<'_>) -> String {
        let Scraped { figures, nodes, workers, recovery, broken_files } = *scraped;
        let registry = Registry::new();
        let gauge = |def: Def, value: f64| def.gauge(&registry).with_label_values::<&str>(&[]).set(value);
        if let Some(figures) = figures {
            let runs = table::RUNS.gauge(&registry);
            runs.with_label_values(&["queued"]).set(figures.runs_queued as f64);
            runs.with_label_values(&["running"]).set(figures.runs_running as f64);
            gauge(table::TASKS_RUNNING, figures.tasks_running as f64);
            gauge(table::PARALLELISM, figures.parallelism.into());
            gauge(table::GPUS, figures.gpus as f64);
            gauge(table::GPUS_USED, figures.gpus_used as f64);
            gauge(table::LEADER, f64::from(u8::from(figures.leads)));
            let waiting = table::TASKS_WAITING.gauge(&registry);
            let (slots, used) = (table::POOL_SLOTS.gauge(&registry), table::POOL_USED.gauge(&registry));
            for pool in &figures.pools {
                let name = [self.0.pools.label(&pool.name)];
                waiting.with_label_values(&name).add(pool.waiting as f64);
                slots.with_label_values(&name).add(pool.slots.into());
                used.with_label_values(&name).add(pool.used.into());
            }
            let (used, limit) = (table::QUOTA_USED.gauge(&registry), table::QUOTA_LIMIT.gauge(&registry));
            for quota in &figures.quotas {
                let name = [self.0.namespaces.label(&quota.namespace), quota.resource];
                used.with_label_values(&name).add(quota.used);
                if let Some(own) = quota.limit {
                    limit.with_label_values(&name).add(own);
                }
            }
        }
        // Workers talk with the server that leads; a standby would call each of them down, and knows of no incident.
        let leader = figures.filter(|figures| figures.leads);
        self.nodes(&registry, nodes.iter().filter(|node| leader.is_some() || !node.is_worker));
        if let Some(leader) = leader {
            self.workers(&registry, workers, &leader.queues);
            if let Some(recovery) = recovery {
                recovery.into(&registry);
            }
        }
        if let Some(broken) = broken_files {
            gauge(table::BROKEN_FILES, broken as f64);
        }
        if let Some(ssh) = self.0.ssh.get() {
            let ssh = ssh.figures();
            gauge(table::SSH_CONNECTIONS, ssh.connections as f64);
            gauge(table::SSH_SESSIONS, ssh.sessions as f64);
        }
        table::BUILD_INFO.gauge(&registry).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let process = process::read();
        if let Some(seconds) = process.cpu_seconds {
            table::PROCESS_CPU.counter(&registry).with_label_values::<&str>(&[]).inc_by(seconds);
        }
        for (def, value) in [
            (table::PROCESS_MEMORY, process.resident_bytes),
            (table::PROCESS_FDS, process.open_fds),
            (table::PROCESS_MAX_FDS, process.max_fds),
            (table::PROCESS_START, process.started_at),
        ] {
            if let Some(value) = value {
                gauge(def, value);
            }
        }
        let mut families = self.0.registry.gather();
        families.extend(registry.gather());
        // Only names that the registry has checked are in it.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}
